"""The trained layer after a descent, as a first layer of a comparison."""

import pytest
import torch

from toymodels.core.features import SparseFeatures
from toymodels.core.layers import LAYERS, FirstLayer, make_layer
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.runs.table import read_result


def test_it_stands_beside_the_trained_layer_with_a_smaller_worst_error(tmp_path):
    config = CompareConfig(
        m=5, d=6, task=("and",), layers=("trained", "descended(steps=10)"), readoffs=("minimax",), steps=30, threads=1,
        figures=False, out=tmp_path / "run",
    )  # fmt: skip
    rows = {row["first_layer"]: row for row in read_result(run_compare(config))["rows"]}
    assert rows["descended(steps=10)"]["proved"]
    assert rows["descended(steps=10)"]["worst_error"] < rows["trained"]["worst_error"] - 1e-3


def test_it_is_left_out_of_all_and_refused_where_it_has_no_place():
    every = CompareConfig(m=5, d=6, layers=("all",), figures=False)
    assert "descended" not in every.rows()
    with pytest.raises(InputError, match="add trained to layers"):
        CompareConfig(m=5, d=6, layers=("gaussian", "descended"))
    with pytest.raises(InputError, match="name it, with trained"):
        CompareConfig(m=5, d=6, layer="descended")
    with pytest.raises(InputError, match="is not drawn and then kept"):
        CompareConfig(m=5, d=6, frozen_layer="descended")


@pytest.mark.parametrize(
    ("knobs", "m", "match"),
    [("(steps=0)", 5, "steps = 0"), ("(summary='max')", 5, "unknown summary 'max'"), ("", 60, "are too many")],
)
def test_wrong_sizes_and_knobs_are_refused(knobs, m, match):
    offered = {"task": PairTask(m, "and"), "features": SparseFeatures.at_most(m, 2)}
    layer = FirstLayer(torch.ones(6, m), torch.zeros(6))
    with pytest.raises(InputError, match=match):
        make_layer("descended" + knobs, m, 6, 0, trained=layer, **offered)
    with pytest.raises(InputError, match=match):  # before anything is trained
        CompareConfig(m=m, d=6, layers=("trained", "descended" + knobs))
    assert LAYERS["descended"].uses_trained
