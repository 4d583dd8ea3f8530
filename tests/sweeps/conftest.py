"""A backend in the test's own process."""

import pytest

from tests.sweeps.toy import Here
from toymodels.sweeps import runner


@pytest.fixture
def here(monkeypatch):
    """Runs are done in this process, by the backend that it returns."""
    backend = Here()
    monkeypatch.setattr(runner, "open_backend", lambda *_: backend)
    return backend
