"""Every wrong input gets an answer: a sentence for each problem, exit status 2, nothing written, within seconds.

The suite takes every fifth; all of them are tried by `make test-long`, and by `python -m tests.bad_inputs`, which counts them.
"""

import re

import pytest

from tests.bad_inputs.cases import ANSWERED, judge, make_run
from tests.bad_inputs.every import CASES

pytestmark = [pytest.mark.bad_inputs, pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_run(folder)
    return folder


def named(case):
    """The name of a test: the same in every process, so without the addresses of objects."""
    return re.sub(r" at 0x\w+", "", f"{case.entry}: {case.name}")


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.long] if number % 5 else []) for number, case in enumerate(CASES)],
    ids=[named(case) for case in CASES],
)
def test_a_wrong_input_is_answered(case, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verdict, said = judge(case, run)
    assert verdict == ANSWERED, said
    assert case.expected in said


def test_no_input_is_there_twice():
    asked = [(case.entry, case.name) for case in CASES]
    assert len(set(asked)) == len(asked) >= 500
