"""Every member of every registry passes the common checks; a new one is found here without a line written for it."""

import pytest

from toymodels.testing import check_member, checkable

MEMBERS = [(registry, name) for registry in checkable() for name in registry]


@pytest.mark.parametrize(("registry", "name"), MEMBERS, ids=[f"{r.noun}-{n}" for r, n in MEMBERS])
def test_a_member_passes_the_common_checks(registry, name):
    check_member(registry, name)
