"""Every statement holds, and its check catches every fault planted in it."""

import pytest

from . import certain, statistical  # noqa: F401 (they register their statements)
from .judge import FALSE_ALARM, FALSE_ALARM_OF_ALL, HEAVY_TAILS, STATEMENTS


@pytest.mark.parametrize("name", STATEMENTS)
def test_statement_holds(name):
    strain = STATEMENTS[name].check("", 0)
    assert strain <= 1, f"{STATEMENTS[name].statement}: strain {strain:.3g}"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        pytest.param(name, fault, marks=[pytest.mark.long] if number else [])  # the suite plants one fault a statement
        for name, one in STATEMENTS.items()
        for number, fault in enumerate(one.faults)
    ],
)
def test_planted_fault_is_caught(name, fault):
    assert STATEMENTS[name].check(fault, 0) > 1, f"{STATEMENTS[name].statement}: not caught"


def test_false_alarms_add_up_to_what_is_stated():
    number = sum(one.statistical for one in STATEMENTS.values())
    assert HEAVY_TAILS * FALSE_ALARM * number <= FALSE_ALARM_OF_ALL
    assert all(one.faults for one in STATEMENTS.values())
