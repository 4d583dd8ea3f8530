"""Every law holds, and its check catches every fault planted in it."""

import pytest

from . import certain, statistical  # noqa: F401 (they register their laws)
from .judge import FALSE_ALARM, HEAVY_TAILS, LAWS, PER_LAW


@pytest.mark.parametrize("name", LAWS)
def test_law_holds(name):
    strain = LAWS[name].check("", 0)
    assert strain <= 1, f"{LAWS[name].statement}: strain {strain:.3g}"


@pytest.mark.parametrize(("name", "fault"), [(name, fault) for name, law in LAWS.items() for fault in law.faults])
def test_planted_fault_is_caught(name, fault):
    assert LAWS[name].check(fault, 0) > 1, f"{LAWS[name].statement}: not caught"


def test_false_alarms_add_up_to_what_is_stated():
    statistical_laws = sum(law.statistical for law in LAWS.values())
    assert HEAVY_TAILS * PER_LAW * statistical_laws <= FALSE_ALARM
    assert all(law.faults for law in LAWS.values())
