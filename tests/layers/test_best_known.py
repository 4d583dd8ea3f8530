"""The layer of the atlas as a first layer of a comparison."""

import pytest

from toymodels.atlas.entries import HERE, prove, read_entry
from toymodels.core.layers import LAYERS, make_layer
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.runs.table import read_result


def test_a_comparison_has_the_error_that_the_atlas_proves(tmp_path):
    config = CompareConfig(
        m=5, d=6, task=("and",), layers=("identity", "best_known"), readoffs=("minimax",), threads=1, figures=False,
        out=tmp_path / "run",
    )  # fmt: skip
    rows = {row["first_layer"]: row for row in read_result(run_compare(config))["rows"]}
    known = prove(read_entry(HERE / "and-at_most_2-m05-d006.safetensors")).worst_error
    assert rows["best_known"]["worst_error"] == pytest.approx(known, abs=1e-5)
    assert known < rows["identity"]["worst_error"] - 0.03


def test_problems_without_an_entry_are_refused():
    with pytest.raises(InputError, match="the atlas has no layer for and of 5 features, at most 2 active, 11 neurons"):
        make_layer("best_known", 5, 11, 0, task=PairTask(5, "and"), s=2)
    fits = LAYERS["best_known"].fits
    assert fits(PairTask(5, "and"))
    assert not fits(PairTask(5, "and", [(0, 1)]))
