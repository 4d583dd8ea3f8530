"""The layer of the atlas as a first layer of a comparison."""

import pytest

from toymodels.atlas.entries import HERE, prove, read_entry
from toymodels.core.features import SparseFeatures
from toymodels.core.layers import LAYERS, make_layer
from toymodels.core.minimax import minimax
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
    with pytest.raises(InputError, match="the atlas has no layer for and of 90 features, at most 2 active, 11 neurons"):
        make_layer("best_known", 90, 11, 0, task=PairTask(90, "and"), s=2)


def test_where_there_is_no_entry_one_that_would_do_or_a_construction_is_taken():
    task, inputs = PairTask(20, "and"), SparseFeatures.at_most(20, 2).enumerate()
    layer = make_layer("best_known", 20, 19, 0, task=task, s=2)
    assert max(one.worst_error for one in minimax(layer, task, inputs).certificates) == pytest.approx(0.25, abs=1e-5)
    assert make_layer("best_known", 5, 11, 0, task=PairTask(5, "and"), s=2).weight.shape == (11, 5)


def test_it_is_for_all_pairs_alone():
    fits = LAYERS["best_known"].fits
    assert fits(PairTask(5, "and"))
    assert not fits(PairTask(5, "and", [(0, 1)]))
