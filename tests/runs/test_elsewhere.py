"""Networks that were made elsewhere: read from their files, measured by one command, or refused in a sentence."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from toymodels import InputError, Network, PairTask, SparseFeatures, evaluate, minimax
from toymodels.cli import main
from toymodels.core.readoffs import LinearReadoff
from toymodels.layers.random import gaussian
from toymodels.runs.elsewhere import read_weights
from toymodels.runs.record import load_network, save_network

TASK = PairTask(6, "and")
INPUTS = SparseFeatures.at_most(6, 2).enumerate()


def net(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), *middle, nn.Linear(4, 15))


def run(*words):
    return main(["evaluate", *map(str, words)])


def worst(shown, readoff="trained"):
    """The worst error in the row of a printed table."""
    return next(float(line.split()[1]) for line in shown.splitlines() if line.startswith(readoff))


def stored():
    """Files' contents by name, all of the same network, and the words that they need on the command line."""
    state = net().state_dict()
    first, second = state["0.weight"], state["2.weight"]
    flipped = {"W1": first.T.contiguous(), "b1": state["0.bias"], "W2": second.T.contiguous(), "b2": state["2.bias"]}
    return {
        "a.pt": (state, ()),
        "b.safetensors": (state, ()),
        "c.pth": ({"epoch": 3, "model_state_dict": state, "optimizer": {"state": {0: {"exp_avg": first}}}}, ()),
        "d.safetensors": (flipped, ()),
        "e.pt": ({"enc": first, "dec": second, "x": state["0.bias"], "y": state["2.bias"]}, ("--m", 6)),
        "f.pt": ([first, state["0.bias"], second, state["2.bias"]], ()),
        "g.pt": (
            {**state, "more": torch.ones(6, 6), "extra": torch.ones(4)},
            ("--weights", "0.weight", "2.weight", "--biases", "0.bias", "2.bias"),
        ),
    }


@pytest.mark.parametrize("name", stored())
def test_a_file_of_weights_is_measured(name, tmp_path, capsys):
    content, words = stored()[name]
    save = save_file if name.endswith(".safetensors") else torch.save
    save(content, tmp_path / name)
    assert run(tmp_path / name, "--task", "and", *words) == 0
    shown = capsys.readouterr().out
    assert "6 features → 4 neurons (relu) → 15 outputs, one for each pair k < l, in the order (0, 1)" in shown
    assert worst(shown) == pytest.approx(evaluate(net(), TASK, INPUTS).worst_error, abs=1e-4)


def test_its_layer_is_read_by_other_readoffs_on_other_inputs(tmp_path, capsys):
    torch.save(net().state_dict(), tmp_path / "a.pt")
    assert (
        run(
            tmp_path / "a.pt", "--task", "and", "--readoffs", "trained", "minimax", "balanced", "--json", tmp_path / "j"
        )
        == 0
    )
    layer = net()[:2]
    best = Network(layer, minimax(layer, TASK, INPUTS).readoff)
    assert worst(capsys.readouterr().out, "minimax") == pytest.approx(
        evaluate(best, TASK, INPUTS).worst_error, abs=1e-4
    )
    rows = json.loads((tmp_path / "j").read_text())["rows"]
    assert [row["readoff"] for row in rows] == ["trained", "minimax", "balanced"]
    assert rows[1]["proved"] is True
    assert run(tmp_path / "a.pt", "--task", "xor", "--inputs", "couples", "--activation", "tanh") == 0
    shown = capsys.readouterr().out
    assert "each of 3 couples with probability" in shown
    assert "all 8" in shown


def test_deeper_networks_networks_without_a_layer_and_without_biases(tmp_path, capsys):
    deep = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 15))
    torch.save(deep.state_dict(), tmp_path / "deep.pt")
    torch.save(nn.Linear(6, 15).state_dict(), tmp_path / "none.pt")
    assert run(tmp_path / "deep.pt", "--task", "and", "--activation", "tanh") == 0
    shown = capsys.readouterr().out
    assert "0.weight and no bias, then 2.weight and 2.bias, then 4.weight and 4.bias" in shown
    assert worst(shown) == pytest.approx(evaluate(deep, TASK, INPUTS).worst_error, abs=1e-4)
    assert run(tmp_path / "none.pt", "--task", "and", "--readoffs", "minimax") == 0
    assert worst(capsys.readouterr().out, "minimax") == 0.25


def test_a_network_of_a_run_describes_itself(tmp_path, capsys):
    network = Network(gaussian(6, 4, 0, "gelu"), LinearReadoff(torch.randn(15, 4), torch.randn(15)))
    save_network(tmp_path / "n.safetensors", network, PairTask(6, "xor"))
    assert run(tmp_path / "n.safetensors") == 0
    shown = capsys.readouterr().out
    assert "xor, at most 2 of 6 active" in shown
    assert worst(shown) == pytest.approx(evaluate(network, PairTask(6, "xor"), INPUTS).worst_error, abs=1e-4)
    assert run(tmp_path / "n.safetensors", "--activation", "tanh") == 2
    assert "describes itself" in capsys.readouterr().err


def test_a_link_is_called_what_it_leads_to(tmp_path):
    (tmp_path / "folder").mkdir()
    for name, target in (("to_a_folder", "folder"), ("to_nothing", "nothing")):
        (tmp_path / name).symlink_to(tmp_path / target)
    for name, words in (
        ("to_a_folder", "is a folder"),
        ("to_nothing", "is a link to nothing"),
        ("none", "is not there"),
    ):
        with pytest.raises(InputError, match=words):
            read_weights(tmp_path / name)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was run')",))


@pytest.mark.parametrize(
    ("content", "words", "sentence"),
    [
        (net().state_dict(), (), "name the task, as in --task and"),
        (net().state_dict(), ("--task", "relu"), "no chain from m = 6 features to the 6 outputs of the task relu"),
        (net().state_dict(), ("--task", "and", "--m", "7"), "no chain from m = 7 .* pair k < l, in the order"),
        (net().state_dict(), ("--task", "and", "--weights", "W"), "no tensor 'W'; it has 0.weight 4×6"),
        (net().state_dict(), ("--task", "and", "--weights", "0.bias"), "must be matrices"),
        (net().state_dict(), ("--task", "and", "--biases", "0.bias"), "1 biases for 2 weights"),
        (net().state_dict(), ("--task", "and", "--biases", "2.bias", "0.bias"), "has shape 15 and its weight"),
        (net().state_dict(), ("--task", "and", "--readoffs", "own"), "one of a construction"),
        (net().state_dict(), ("--task", "and", "--inputs", "nope"), "unknown kind of inputs"),
        (net().state_dict(), ("--task", "and", "--s", "nan"), "finite"),
        (net(nn.BatchNorm1d(4)).state_dict(), ("--task", "and"), "have no place in a chain of linear layers"),
        (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).state_dict(), ("--task", "and"), "more than one way"),
        ({"a": torch.ones(4)}, ("--task", "and"), "holds no matrix"),
        ({"p": net().state_dict(), "q": net().state_dict()}, ("--task", "and"), "holds 2 sets of weights"),
        ({"w": torch.ones(15, 6, dtype=torch.int64)}, ("--task", "and"), "floating-point"),
        (net(), ("--task", "and"), "can run code"),
        ({"w": Evil()}, ("--task", "and"), "can run code"),
        (b"no file of torch", ("--task", "and"), "holds no weights that can be read"),
        (b"", ("--task", "and"), "holds no weights that can be read"),
        (None, ("--task", "and"), "is not there"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(content, words, sentence, tmp_path, capsys):
    path = tmp_path / "mynet.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    assert run(path, *words) == 2
    said = capsys.readouterr().err
    assert pytest.raises(InputError, match=sentence).matches(InputError(said)), said
    assert "delete" not in said
    assert said.count("\n") == 1


def test_show_says_what_to_type_instead(tmp_path, capsys):
    torch.save(net().state_dict(), tmp_path / "mynet.pt")
    assert main(["show", str(tmp_path / "mynet.pt")]) == 2
    assert f"`toymodels evaluate {tmp_path / 'mynet.pt'} --task and`" in capsys.readouterr().err
    (tmp_path / "t.csv").write_text("a\n")
    assert main(["show", str(tmp_path / "t.csv")]) == 2
    assert f"`toymodels results {tmp_path / 't.csv'}`" in capsys.readouterr().err


def test_a_good_file_that_is_no_network_of_a_record_is_not_called_damaged(tmp_path):
    torch.save(net().state_dict(), tmp_path / "a.pt")
    save_file(net().state_dict(), tmp_path / "b.safetensors")
    for path in (tmp_path / "a.pt", tmp_path / "b.safetensors"):
        with pytest.raises(InputError, match=r"is no network of a record .* `toymodels evaluate`") as caught:
            load_network(path)
        assert path.name in str(caught.value)
        assert "delete" not in str(caught.value)


ABOUT = {
    "format": "2",
    "task": "and",
    "m": "6",
    "layer": "FirstLayer",
    "activation": "relu",
    "origin": "given",
    "scale": "1.0",
}


@pytest.mark.parametrize(
    ("about", "tensors", "words"),
    [
        *(({key: None}, {}, f"lacks {key}") for key in ("format", "task", "m", "layer", "origin")),
        ({"m": "abc"}, {}, "abc"),
        ({"m": "7"}, {}, "reads 6 features, and m is 7"),
        ({"m": "1000000000"}, {}, "reads 6 features, and m is 1000000000"),
        ({"scale": "x"}, {}, "could not convert"),
        ({"activation": "nope"}, {}, "unknown activation"),
        ({"task": "nope"}, {}, "unknown task"),
        ({"task": "relu"}, {}, "15 outputs, and its task relu 6, one for each of 6 features"),
        ({"layer": "Mine", "origin": "mine"}, {}, "name the plugin"),
        ({"layer": "IdentityLayer"}, {}, "reads 4 features, and m is 6"),
        ({}, {"layer.weight": torch.ones(6, 4)}, r"weight \(6, 4\) .* must be a matrix, and a vector"),
        ({}, {"layer.weight": torch.ones(5, 6)}, r"weight \(5, 6\) .* must be a matrix, and a vector"),
        ({}, {"layer.weight": torch.ones(4, 6, dtype=torch.int64)}, "torch.int64, .* of floats"),
        ({}, {"layer.weight": None}, "weight"),
        ({}, {"readoff.weight": None}, "lacks the tensor readoff.weight"),
        ({}, {"readoff.bias": torch.ones(14)}, r"bias \(14,\) .* must be a matrix, and a vector"),
        ({}, {"readoff.weight": torch.ones(14, 4), "readoff.bias": torch.ones(14)}, "14 outputs, and its task and 15"),
        ({}, {"task.pairs": torch.tensor([[0, 9]])}, "out of range"),
        ({}, {"task.pairs": torch.ones(3)}, "pairs|do not fit"),
    ],
)
def test_a_network_that_was_tampered_with_is_refused_with_its_name(about, tensors, words, tmp_path):
    network = Network(gaussian(6, 4, 0), LinearReadoff(torch.randn(15, 4), torch.randn(15)))
    whole = {**network.state_dict(), "task.pairs": TASK.pairs, **tensors}
    header = {**ABOUT, **about}
    save_file(
        {name: tensor.contiguous() for name, tensor in whole.items() if tensor is not None},
        tmp_path / "n.safetensors",
        {name: text for name, text in header.items() if text is not None},
    )
    with pytest.raises(InputError, match=words) as caught:
        load_network(tmp_path / "n.safetensors")
    assert "n.safetensors" in str(caught.value)
    assert "delete" not in str(caught.value)
