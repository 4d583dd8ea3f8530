"""Every law of the list passes the common checks.

Seeds are fixed. Under fresh ones a law that is right fails with a chance of 5e-5 at most (`PER_STATEMENT` for each, five times
as much for heavy tails), all of them together with about 1 in 700.
"""

import pytest

from toymodels.laws.registry import LAWS

from .common import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", LAWS)
def test_common_checks(name, check):
    check(LAWS[name])
