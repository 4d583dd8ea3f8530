"""Comparisons over constructions, null models and embedded features."""

import pytest

from toymodels.core.layers import LAYERS
from toymodels.core.tasks import PairTask
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.experiments.comparison import notes
from toymodels.experiments.registry import EXPERIMENTS
from toymodels.experiments.show import describe
from toymodels.experiments.train import TrainConfig, run_train
from toymodels.runs.record import load_network
from toymodels.runs.storage import read_json
from toymodels.runs.table import read_table

PAIRS = PairTask(8, "and")
CONSTRUCTIONS = {name: made for name, made in LAYERS.items() if made.role == "construction" and made.fits(PAIRS)}
NULL_MODELS = [name for name, member in LAYERS.items() if member.role == "null"]
READOFFS = ("own", "analytic", "balanced", "minimax", "random_labels")
SMALL = {"m": 8, "d": 9, "steps": 20, "minimax_pairs": 6, "figures": False}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The folder of a comparison of all layers by the readoffs that need no training, for both gates."""
    out = tmp_path_factory.mktemp("all") / "run"
    return run_compare(CompareConfig(**SMALL, s=3, layers=("all",), readoffs=READOFFS, out=out))


def test_all_layers_stand_in_one_table(everything):
    rows = read_json(everything / "results.json")["rows"]
    names = list(dict.fromkeys(row["first_layer"] for row in rows))
    assert names == ["identity", "gaussian", *CONSTRUCTIONS, "trained", *NULL_MODELS]
    assert all(row["proved"] for row in rows if row["readoff"] in ("minimax", "random_labels"))
    for task in ("and", "xor"):
        own = {row["first_layer"] for row in rows if (row["task"], row["readoff"]) == (task, "own")}
        assert own == {name for name, member in CONSTRUCTIONS.items() if member.reads(PairTask(8, task))}


def test_a_minimax_readoff_is_never_worse_than_the_constructions_own(everything):
    rows = {
        (row["task"], row["first_layer"], row["readoff"]): row for row in read_json(everything / "results.json")["rows"]
    }
    for (task, layer, readoff), row in rows.items():
        if readoff != "random_labels":
            assert row["worst_error"] >= rows[task, layer, "minimax"]["worst_error"] - 1e-6


def test_null_models_are_made_from_the_trained_layer(everything):
    folder = everything / "and-seed-0"
    trained = load_network(folder / "trained-minimax.safetensors")[0].layer
    for name in NULL_MODELS:
        made = load_network(folder / f"{name}-minimax.safetensors")[0].layer
        assert made.origin == name
        assert made.weight.shape == trained.weight.shape
    shuffled = load_network(folder / "shuffled-minimax.safetensors")[0].layer
    assert shuffled.weight.flatten().sort().values.equal(trained.weight.flatten().sort().values)


def test_every_network_is_rebuilt_from_the_record(everything):
    text = describe(everything, again=True)
    assert "differs" not in text
    assert "missing" not in text
    assert "random_labels: minimax readoffs of labels" in text
    assert "own: the construction's readoff, made for exactly 3" in text


def test_the_names_of_the_figures_are_those_of_the_summary(everything):
    config = CompareConfig(**SMALL, s=3, layers=("all",), readoffs=READOFFS)
    experiment = EXPERIMENTS["compare"]
    summary = experiment.summary(read_json(everything / "results.json"))
    flat = {f"{group}.{name}" for group, values in summary.items() for name in values}
    assert flat == set(experiment.summary_names(config))


def test_a_construction_that_does_not_fit_is_left_out_of_all_with_a_note(tmp_path):
    config = CompareConfig(
        m=6, d=8, steps=5, task=("and",), layers=("all",), readoffs=("own",), figures=False, out=tmp_path / "run"
    )
    result = read_json(run_compare(config) / "results.json")
    assert "quadratic" not in {row["first_layer"] for row in result["rows"]}
    assert any("quadratic is left out: d = 8 is no square" in note for note in result["notes"])


def test_named_layers_are_all_there_is(tmp_path):
    config = CompareConfig(
        **SMALL, task=("and",), layers=("rademacher",), readoffs=("own", "minimax"), out=tmp_path / "run"
    )
    rows = read_table(run_compare(config))
    assert [(row["first_layer"], row["readoff"]) for row in rows] == [("rademacher", "own"), ("rademacher", "minimax")]
    assert not list((tmp_path / "run").rglob("*training*"))


def test_every_first_layer_runs_on_embedded_features(tmp_path):
    readoffs = ("own", "analytic", "least_squares", "trained", "minimax")
    config = CompareConfig(
        **SMALL, task=("and",), d0=5, frame="optimised", layers=("all",), readoffs=readoffs, out=tmp_path / "run"
    )
    folder = run_compare(config)
    rows = read_json(folder / "results.json")["rows"]
    assert {row["first_layer"] for row in rows} == {"identity", "gaussian", *CONSTRUCTIONS, "trained", *NULL_MODELS}
    assert not [row for row in rows if row["readoff"] == "analytic"]  # made for features with axes of their own
    frames = [load_network(path)[0].layer.frame for path in folder.rglob("*-minimax.safetensors")]
    assert len(frames) == len({row["first_layer"] for row in rows})
    assert all(frame.shape == (5, 8) and frame.equal(frames[0]) for frame in frames)  # one frame for all
    assert "differs" not in describe(folder, again=True)


@pytest.mark.parametrize(
    "settings", [{"d0": 5}, {"layer": "bernoulli", "knobs": {"p": 0.4}}, {"layer": "rademacher", "d0": 6}]
)
def test_networks_are_trained_from_constructions_and_behind_frames(settings, tmp_path):
    folder = run_train(TrainConfig(m=8, d=9, steps=10, **settings, out=tmp_path / "run"))
    network, _, _ = load_network(folder / "seed-0" / "network.safetensors")
    assert hasattr(network.layer, "frame") == ("d0" in settings)
    assert getattr(network.layer, "layer", network.layer).origin == "trained"


def test_notes_say_what_stands_behind_the_rows():
    config = CompareConfig(m=8, d=12, layers=("all",), readoffs=("own", "analytic", "by_class", "random_labels"), d0=6)
    found = notes(config)
    said = " ".join(found)
    for words in (
        "analytic readoff is left out: it holds only for a Gaussian ReLU layer without bias, of features with one axis each",
        "made for exactly 2 active features; on inputs with another number it is biased",
        "and for features with an axis each",
        "Without a readoff of their own for xor: bernoulli, targeted.",
        "by_class is left out",
        "For U-AND, rademacher is the same layer as ternary.",
        "For U-AND, four_class is the same layer as ternary.",
        "the best one for AND at exactly 2 active",
        "the AND of another pair",
        "quadratic is left out: d = 12 is no square",
    ):
        assert words in said
    assert len(found) == len(set(found))
    assert "the AND of another pair" not in " ".join(notes(CompareConfig(s=3, m=10, readoffs=("random_labels",))))
    assert "the AND of another pair" not in " ".join(notes(CompareConfig(task=("xor",), readoffs=("random_labels",))))
    named = CompareConfig(m=8, d=12, layers=("rademacher", "trained"), readoffs=("minimax",))
    assert any("No ratio of genericity" in note for note in notes(named))
