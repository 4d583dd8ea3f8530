import numpy as np
import pytest
import torch

from tests.members import own
from toymodels.core.layers import LAYERS, FirstLayer
from toymodels.core.readoffs import READOFFS, LinearReadoff
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.experiments.genericity import genericity
from toymodels.experiments.show import describe
from toymodels.runs.metrics import METRICS
from toymodels.runs.record import load_network
from toymodels.runs.storage import read_json
from toymodels.runs.text import aggregate, comparison, sentence
from toymodels.theory.statistics import mean_interval


def row(layer, readoff, seed, worst):
    return {
        **{metric.name: 0.0 for metric in METRICS}, "task": "and", "first_layer": layer, "readoff": readoff, "seed": seed,
        "proved": seed < 2, "worst_error": max(worst), "evaluation": {"output_worst": worst},
    }  # fmt: skip


ROWS = [
    row(layer, "minimax", seed, worst)
    for seed, frozen, trained in ((0, [0.2, 0.4], [0.1, 0.2]), (1, [0.3, 0.3], [0.3, 0.1]), (2, [0.6, 0.1], [0.2, 0.2]))
    for layer, worst in (("gaussian", frozen), ("trained", trained))
]


def test_genericity_pairs_the_same_pairs_of_the_same_seed():
    answer = genericity(ROWS, "gaussian")["and"]
    assert answer["ratio_by_seed"] == pytest.approx([2.0, 1.0, 3.0])
    assert answer["ratio"] == pytest.approx(2.0)
    # Student's t interval of (2, 1, 3): 4.3027 · 1/√3.
    assert answer["ratio_interval"] == pytest.approx(4.302652729749464 / 3**0.5)
    ratios = [2.0, 2.0, 1.0, 3.0, 3.0, 0.5]
    assert answer["pair_ratio_mean"] == pytest.approx(np.mean(ratios))
    assert (answer["pair_ratio_min"], answer["pair_ratio_max"]) == pytest.approx((0.5, 3.0))
    assert "2.00 ± 2.48 times" in sentence("and", answer)


def test_rows_of_several_seeds_become_one_with_an_interval():
    table = aggregate([{key: value for key, value in row.items() if key != "evaluation"} for row in ROWS])
    assert [(r["first_layer"], r["seeds"]) for r in table] == [("gaussian", [0, 1, 2]), ("trained", [0, 1, 2])]
    assert table[0]["worst_error"] == pytest.approx(np.mean([0.4, 0.3, 0.6]))
    assert table[0]["worst_error_interval"] == pytest.approx(mean_interval([0.4, 0.3, 0.6])[1])
    assert not table[0]["proved"]  # seed 2 is not


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """2,000 samples of 4 normals: coverage 95 % ± 4 standard errors of a binomial share."""
    sample = np.random.default_rng(0).normal(size=(2000, 4))
    inside = np.mean([abs(mean) <= half for mean, half in map(mean_interval, sample.tolist())])
    assert abs(inside - 0.95) < 4 * (0.95 * 0.05 / 2000) ** 0.5


def test_one_value_has_no_interval():
    assert mean_interval([3.0]) == (3.0, None)


def sparse_layer(m, d, seed, activation="relu"):
    rng = torch.Generator().manual_seed(seed)
    return FirstLayer((torch.rand(d, m, generator=rng) < 0.4).float(), -torch.ones(d), activation, "sparse")


def test_a_layer_and_a_readoff_of_ones_own_stand_beside_the_others(tmp_path, monkeypatch):
    own(monkeypatch, LAYERS)("sparse")(sparse_layer)
    own(monkeypatch, READOFFS)("nothing", applies=lambda combination: combination.layer.name == "sparse")(
        lambda task, width: LinearReadoff.constant(task.n_outputs, width)
    )
    config = CompareConfig(
        m=8, d=12, task=("and",), frozen_layer="sparse", layer="sparse", steps=20, out=tmp_path / "run",
        readoffs=("nothing", "analytic", "minimax"),
    )  # fmt: skip
    result = read_json(run_compare(config) / "results.json")
    rows = result["rows"]
    assert "left out" in result["notes"][0]
    names = [(r["first_layer"], r["readoff"]) for r in rows]
    # The analytic readoff does not hold for this layer, and is left out.
    assert names == [("identity", "minimax"), ("sparse", "nothing"), ("sparse", "minimax"), ("trained", "minimax")]
    assert rows[1]["worst_error"] == 1.0


def test_a_sample_of_pairs_is_stated_and_the_same_for_every_layer(tmp_path):
    config = CompareConfig(
        m=8, d=12, task=("xor",), steps=20, minimax_pairs=5, readoffs=("minimax",), out=tmp_path / "run"
    )
    folder = run_compare(config)
    rows = read_json(folder / "results.json")["rows"]
    assert {(r["n_pairs"], r["all_pairs"], r["covered"]) for r in rows} == {(5, 28, "all 37")}
    pairs = [
        load_network(folder / "xor-seed-0" / f"{r['first_layer']}-minimax.safetensors")[1].pairs.tolist() for r in rows
    ]
    assert pairs[0] == pairs[1] == pairs[2]


class Cosines(torch.nn.Module):
    """A layer as the README shows one: no `origin`, no base class of ours."""

    def __init__(self, m, d, seed=0, activation="cos"):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(d, m, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x):
        return torch.cos(x @ self.weight.T)


def test_a_layer_of_ones_own_is_resumed_and_shown(tmp_path, monkeypatch):
    own(monkeypatch, LAYERS)("cosines")(Cosines)
    config = CompareConfig(
        m=8, d=12, task=("and",), frozen_layer="cosines", layer="cosines", steps=20, out=tmp_path / "run"
    )
    folder = run_compare(config)
    first = read_json(folder / "results.json")
    assert read_json(run_compare(config) / "results.json") == first
    text = describe(folder, again=True)
    assert "identical" in text
    assert "differs" not in text
    (folder / "and-seed-0" / "cosines-minimax.safetensors").unlink()
    assert "missing" in describe(folder, again=True)


@pytest.mark.parametrize(
    "change", [{"m": 8, "d": 60}, {"m": 2, "d": 1, "s": 1}, {"m": 5, "d": 3, "s": 5, "inputs": "exactly"}]
)
def test_targets_read_exactly_make_no_ratio(change, tmp_path):
    config = CompareConfig(**change, task=("and",), steps=100, out=tmp_path / "run")
    result = read_json(run_compare(config) / "results.json")
    assert result["genericity"]["and"]["ratio"] is None
    assert "reads every output exactly" in comparison(result)


def test_an_output_that_is_read_exactly_leaves_the_ratio_of_worst_errors():
    rows = [row("gaussian", "minimax", 0, [0.3, 0.1]), row("trained", "minimax", 0, [0.2, 0.0])]
    answer = genericity(rows, "gaussian")["and"]
    assert answer["ratio"] == pytest.approx(1.5)
    assert answer["pair_ratio_mean"] is answer["pair_ratio_quartiles"] is None
    assert "1.50 times" in sentence("and", answer)
    assert "reads some output exactly, so there are no ratios output by output (seed 0)" in sentence("and", answer)


def test_readoffs_are_not_measured_on_the_inputs_they_were_fitted_to(tmp_path, monkeypatch):
    samples = []

    def spy(task, inputs, width):
        samples.append(inputs)
        return LinearReadoff.constant(task.n_outputs, width)

    own(monkeypatch, READOFFS)("spy", applies=lambda combination: combination.layer.role == "random")(spy)
    config = CompareConfig(
        m=300, d=6, s=4, inputs="exactly", task=("and",), pairs=((0, 1),), readoffs=("spy",), eval_inputs=50,
        out=tmp_path / "run",
    )  # fmt: skip
    rows = read_json(run_compare(config) / "results.json")["rows"]
    assert samples[0].description.startswith("50 sampled")
    assert rows[0]["covered"] != samples[0].description
    assert not list((tmp_path / "run").rglob("*training*"))  # nothing that needs training was asked for
