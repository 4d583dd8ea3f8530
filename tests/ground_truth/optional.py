"""Import packages that are extras: a test that needs one is skipped where it is not installed, with a reason."""

import warnings

import pytest


def installed(name):
    """Return a package, or skip the tests of the module that asks for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a package says while it is imported is not ours
        return pytest.importorskip(
            name, reason=f"{name} is not installed: pip install 'toymodels[interp]'", exc_type=ImportError
        )
