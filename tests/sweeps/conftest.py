"""A backend in the test's own process."""

import pytest

from tests.sweeps.toy import Here
from toymodels.parallel import processes as jobs
from toymodels.sweeps import runner


@pytest.fixture
def here(monkeypatch):
    """Runs are done in this process, by the backend that it returns."""
    monkeypatch.setattr(jobs, "_alone", False)  # set by whoever does a run, and set back after the test
    backend = Here()
    monkeypatch.setattr(runner, "open_backend", lambda *_: backend)
    return backend


@pytest.fixture(autouse=True)
def not_one_of_many(monkeypatch):
    """A run that an earlier test did in this process has made it one of many, which shows no bars."""
    monkeypatch.setattr(jobs, "_alone", False)
