"""One process for all jobs of a run: starting others takes longer than these runs do."""

import pytest

from toymodels.parallel import processes


@pytest.fixture(scope="package", autouse=True)
def one_core():
    """Let this process see a single core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "cores", lambda: 1)
        yield
