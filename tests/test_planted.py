"""The faults that `make mutants --planted` tries can be planted."""

from pathlib import Path

import pytest
import yaml

PLANTED = yaml.safe_load((Path(__file__).parent / "planted.yaml").read_text())


@pytest.mark.parametrize("module", PLANTED)
def test_every_fault_has_its_place(module):
    source = (Path(__file__).parents[1] / "toymodels" / f"{module}.py").read_text()
    counts = {before: source.count(before) for before, _ in PLANTED[module]}
    assert set(counts.values()) == {1}, counts
