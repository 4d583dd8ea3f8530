"""Every member of every registry passes the common checks; a new one is found here without a line written for it."""

import importlib.util

import pytest

from toymodels.testing import check_member, checkable

MEMBERS = [(registry, name) for registry in checkable() for name in registry]


@pytest.mark.parametrize(("registry", "name"), MEMBERS, ids=[f"{r.noun}-{n}" for r, n in MEMBERS])
def test_a_member_passes_the_common_checks(registry, name):
    package = getattr(registry[name], "package", "")
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed: pip install 'toymodels[interp]'")
    check_member(registry, name)
