"""Knobs of first layers: in a call behind the name, for all layers that have them, and at their defaults."""

import pytest

from toymodels.cli import main
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.experiments.registry import EXPERIMENTS
from toymodels.experiments.train import TrainConfig, run_train
from toymodels.runs.identity import from_dict, short_hash, to_dict
from toymodels.runs.record import load_network
from toymodels.runs.storage import read_json
from toymodels.runs.table import read_table

SMALL = {"m": 8, "d": 40, "steps": 5, "task": ("and",), "minimax_pairs": 2, "figures": False}


def test_a_layer_beside_itself_with_another_knob(tmp_path):
    config = CompareConfig(
        **SMALL, layers=("bernoulli(0.5)", "bernoulli(p=0.1)", "bernoulli"), readoffs=("own", "minimax"),
        knobs={"p": 0.9}, out=tmp_path / "run",
    )  # fmt: skip
    folder = run_compare(config)
    names = ["bernoulli(p=0.5)", "bernoulli(p=0.1)", "bernoulli"]
    assert [(row["first_layer"], row["readoff"]) for row in read_table(folder)] == [
        (name, readoff) for name in names for readoff in ("own", "minimax")
    ]
    # Shares of ones: 320 weights each, ±4 standard deviations (0.11 at most).
    for name, p in zip(names, (0.5, 0.1, 0.9), strict=True):  # the last has the knob that is set for all
        weight = load_network(folder / "and-seed-0" / f"{name}-minimax.safetensors")[0].layer.weight
        assert abs(weight.mean().item() - p) < 4 * (p * (1 - p) / 320) ** 0.5
    flat = {
        f"{group}.{name}"
        for group, values in EXPERIMENTS["compare"].summary(read_json(folder / "results.json")).items()
        for name in values
    }
    assert flat == set(EXPERIMENTS["compare"].summary_names(config))


def test_networks_of_such_names_are_rebuilt(tmp_path, capsys):
    words = ["--m", "6", "--d", "5", "--layers", "gaussian(bias=-1)", "gaussian(scale=0.5)", "--frozen-layer"]
    words += ["gaussian(bias=-1)", "--readoffs", "minimax", "random_labels", "--task", "and", "--no-figures"]
    assert main(["compare", *words, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["show", str(tmp_path / "run"), "--evaluate"]) == 0
    said = capsys.readouterr().out
    assert said.count("identical") == 2
    assert "missing" not in said


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"layers": ("bernoulli(q=0.3)",)}, "bernoulli has no knob 'q', its knobs are p"),
        ({"layers": ("rademacher(1, 2, 3)",)}, "has no knob '"),
        ({"layers": ("kaiming(p=0.3)",)}, "kaiming has no knob 'p', it has none"),
        ({"layers": ("bernoulli(p=0.3",)}, "is no name with knobs"),
        ({"layers": ("bernoulli(0.3, p=0.3)",)}, "sets p twice"),
        ({"layers": ("bernoulli(p=0.3, p=0.4)",)}, "sets p twice"),
        ({"layers": ("bernoulli(p=0.3)", "bernoulli(0.3)")}, "names a first layer twice"),
        ({"layers": ("bernoulli", "bernoulli(p=best)")}, "names a first layer twice"),
        ({"layers": ("bernoulli(p=1.5)",)}, "p = 1.5: it must be above 0"),
        ({"frozen_layer": "gaussian(scale=-1)"}, "scale must be from 1e-6"),
        ({"knobs": {"q": 1}}, "no first layer has a knob 'q': the knobs are .*scale.*p"),
        (
            {"knobs": {"p": 0.3}},
            "layer_p is for bernoulli, ternary.* and .* layers, and there is none here: leave it out",
        ),
        ({"layers": ("bernoulli",), "knobs": {"p": float("nan")}}, "p = nan"),
        ({"knobs": {"bias": float("inf")}}, "bias = inf"),
        ({"knobs": {"bias": [1]}}, "knobs = .*: it must be a mapping"),
    ],
)
def test_wrong_knobs_are_one_sentence(given, words):
    with pytest.raises(InputError, match=words) as error:
        from_dict(CompareConfig, given)
    assert "\n" not in str(error.value)


def test_defaults_give_the_record_of_none():
    plain = CompareConfig(layers=("gaussian", "bernoulli"))
    for same in (
        CompareConfig(layers=("gaussian(scale=1.0, bias=0)", "bernoulli(p=best)")),
        CompareConfig(layers=("gaussian", "bernoulli"), knobs={"scale": 1, "bias": 0.0, "p": "best"}),
        from_dict(CompareConfig, {"layers": ["gaussian", "bernoulli"], "layer_scale": 1.0, "layer_p": None}),
    ):
        assert to_dict(same) == to_dict(plain)
        assert short_hash(same) == short_hash(plain)
    assert short_hash(CompareConfig(layers=("gaussian", "bernoulli"), knobs={"p": 0.3})) != short_hash(plain)


def test_records_sweeps_and_the_command_line_call_a_knob_by_its_prefix(tmp_path, capsys):
    asked = from_dict(TrainConfig, {"layer": "bernoulli", "layer_p": 0.3})
    assert asked == TrainConfig(layer="bernoulli", knobs={"p": 0.3})
    assert to_dict(asked)["layer_p"] == 0.3
    assert "knobs" not in to_dict(asked)
    words = ["train", "--m", "5", "--d", "4", "--steps", "5", "--layer", "bernoulli"]
    names = []
    for number, more in enumerate((["--layer-p", "0.3"], ["--layer_p=0.3"], ["--knobs", "p", "0.3"])):
        assert main([*words, *more, "--out", str(tmp_path / str(number))]) == 0
        names.append(short_hash(from_dict(TrainConfig, read_json(tmp_path / str(number) / "config.json")["config"])))
    assert len(set(names)) == 1
    assert {row["layer_p"] for row in read_table(tmp_path)} == {0.3}
    # Two ways at once, and a value that begins with a dash.
    assert (
        main([*words[:-1], "gaussian", "--knobs", "scale", "2", "--layer-bias", "-1", "--out", str(tmp_path / "g")])
        == 0
    )
    (row,) = read_table(tmp_path / "g")
    assert (row["layer_scale"], row["layer_bias"]) == (2, -1)
    capsys.readouterr()
    assert main([*words, "--layer-p"]) == 2
    assert "--layer-p has no value" in capsys.readouterr().err
    assert main([*words, "--layer-q", "1"]) == 2
    assert "no first layer has a knob 'q'" in capsys.readouterr().err


def test_a_trained_layer_starts_from_a_call(tmp_path):
    config = TrainConfig(m=8, d=40, steps=1, layer="bernoulli(p=0.25)", out=tmp_path / "run")
    (row,) = read_table(run_train(config))
    assert (row["layer"], row["first_layer"]) == ("bernoulli(p=0.25)", "trained")
    assert "layer_p" not in row
