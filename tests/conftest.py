"""Tests run in one thread: tiny matrices lose by more, and results do not depend on the machine's cores."""

import signal

import jaxtyping
import pytest
import torch
from threadpoolctl import threadpool_limits

torch.set_num_threads(1)
threadpool_limits(1)
# A shell starts what it runs in the background with Ctrl-C ignored, and the commands that tests stop would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)


CHECKED = ("circuits", "core", "fast", "inputs", "laws", "layers", "readoffs", "tasks", "theory")
"""Folders of tests that check types at every call. Tests of whole commands would take three times as long with these checks,
and call the same functions; so would the few that a search calls thousands of times: they are marked `unchecked`."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Check types at calls where CHECKED says so, also in the fixtures that a test begins with."""
    folder = item.path.relative_to(item.config.rootpath / "tests").parts[0]
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", folder not in CHECKED or "unchecked" in item.keywords)
    try:
        return (yield)
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(autouse=True)
def not_alone(monkeypatch):
    """Undo what a run of a sweep did in this process: it said that its process is one of many, without threads and bars."""
    from toymodels.parallel import processes  # not above: pytest has not turned the type checks on yet

    monkeypatch.setattr(processes, "_alone", False)


@pytest.fixture(params=("plain", "fast"))
def form(request, monkeypatch):
    """The name of a form: the test runs once with plain forms only, and once with the faster ones that apply."""
    monkeypatch.setenv("TOYMODELS_PLAIN", "1" if request.param == "plain" else "0")
    return request.param


@pytest.fixture
def wing(monkeypatch):
    """Faster forms are taken where they apply, also when the whole suite runs with TOYMODELS_PLAIN=1."""
    monkeypatch.setenv("TOYMODELS_PLAIN", "0")
