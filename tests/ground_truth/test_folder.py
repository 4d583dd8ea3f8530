"""Networks are written into folders and read again: equal outputs, the same inputs from the same seed, clear refusals."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from toymodels import InputError, Network, PairTask, SparseFeatures, evaluate, make_task, minimax
from toymodels.cli import main
from toymodels.core.features import make_features
from toymodels.core.layers import Embedded, IdentityLayer
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import seeded
from toymodels.ground_truth import folder as folders
from toymodels.ground_truth.folder import from_pretrained, save_pretrained
from toymodels.ground_truth.module import as_mlp
from toymodels.layers.random import gaussian

M = 6
TASK = PairTask(M, "and")
FEATURES = SparseFeatures.at_most(M, 2)
INPUTS = FEATURES.enumerate()
X = INPUTS.dense()


def readoff(width, outputs=15, dtype=torch.float64):
    generator = seeded(3)
    weight = torch.randn(outputs, width, generator=generator, dtype=dtype)
    return LinearReadoff(weight, torch.randn(outputs, generator=generator, dtype=dtype))


def networks():
    frame = torch.nn.functional.normalize(torch.randn(4, M, generator=seeded(1)), dim=0)
    sequential = nn.Sequential(nn.Linear(M, 5), nn.Tanh(), nn.Linear(5, 15))
    return {
        "gaussian": Network(gaussian(M, 9, 0), readoff(9)),
        "gelu": Network(gaussian(M, 9, 0, "gelu"), readoff(9)),
        "embedded": Network(Embedded(frame, gaussian(4, 9, 0)), readoff(9)),
        "embedded alone": Network(Embedded(frame, IdentityLayer(4)), readoff(4)),
        "identity": Network(IdentityLayer(M), readoff(M)),
        "sequential": sequential,
        "no bias": nn.Sequential(nn.Linear(M, 5, bias=False), nn.ReLU(), nn.Linear(5, 15)),
    }


@pytest.mark.parametrize("name", networks())
def test_a_network_is_the_same_after_the_folder(name, tmp_path):
    network = networks()[name]
    assert save_pretrained(network, tmp_path / "net", TASK, FEATURES) == tmp_path / "net"
    again = from_pretrained(tmp_path / "net")
    with torch.no_grad():
        expected = network(X)
        # The weights are the same numbers and the operations the same functions of torch, in the same order.
        assert torch.equal(again.model(X), expected)
        assert torch.equal(again.network(X), expected)
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    assert torch.equal(again.task.targets(X), TASK.targets(X))
    assert not any(parameter.requires_grad for parameter in again.model.parameters())
    first, second = (source.sampled(50, seed=7).dense() for source in (FEATURES, again.features))
    assert torch.equal(first, second)
    worst = [evaluate(one, TASK, INPUTS).worst_error for one in (network, again.model, again.network)]
    # In float64 from the same weights; the library may add up a network of its own in another order.
    assert max(worst) - min(worst) <= 1e-12 * max(worst)


def test_parts_have_names_and_hooks_see_the_activations():
    network = networks()["gaussian"]
    mlp = as_mlp(network, M)
    seen = {}
    for name in ("mlp_in", "act", "mlp_out"):
        mlp.get_submodule(name).register_forward_hook(lambda part, _, out, name=name: seen.update({name: out}))
    out = mlp(X)
    assert torch.equal(seen["act"], network.layer(X))
    assert torch.equal(torch.relu(seen["mlp_in"]), seen["act"])
    assert torch.equal(seen["mlp_out"], out)
    # A hook that replaces activations changes the outputs as the readoff of the replaced ones.
    mlp.act.register_forward_hook(lambda part, _, a: torch.zeros_like(a))
    assert torch.equal(mlp(X), network.readoff.bias.expand(len(X), -1))


def test_the_copy_does_not_share_its_weights():
    network = networks()["gaussian"]
    before = as_mlp(network, M)(X).detach()
    mlp = as_mlp(network, M)
    with torch.no_grad():
        network.layer.weight.zero_()
    assert torch.equal(mlp(X), before)


@pytest.mark.parametrize("name", ["and_of(k=3)", "product", "relu", "xor"])
def test_tasks_are_made_again(name, tmp_path):
    task = make_task(name, M, seed=5)
    network = Network(gaussian(M, 8, 0), readoff(8, task.n_outputs))
    save_pretrained(network, tmp_path / "net", task, FEATURES)
    again = from_pretrained(tmp_path / "net").task
    assert again.name == task.name
    assert torch.equal(again.targets(X), task.targets(X))


def test_chosen_pairs_are_kept_in_a_file_of_their_own(tmp_path):
    task = PairTask(M, "xor", [[3, 1], [0, 5]])
    save_pretrained(Network(gaussian(M, 8, 0), readoff(8, 2)), tmp_path / "net", task, FEATURES)
    assert (tmp_path / "net" / "task.safetensors").exists()
    assert from_pretrained(tmp_path / "net").task.pairs.tolist() == [[3, 1], [0, 5]]
    (tmp_path / "net" / "task.safetensors").unlink()
    with pytest.raises(InputError, match=r"task.safetensors is missing"):
        from_pretrained(tmp_path / "net")


@pytest.mark.parametrize(
    "drawn",
    [
        {"inputs": "couples", "s": 2},
        {"inputs": "unequal(exponent=1)", "s": 2},
        {"inputs": "independent", "s": 1.5, "values": "uniform"},
    ],
)
def test_other_inputs_are_named_as_settings(drawn, tmp_path):
    save_pretrained(networks()["gaussian"], tmp_path / "net", TASK, drawn)
    again = from_pretrained(tmp_path / "net").features.sampled(30, seed=1)
    expected = make_features(drawn["inputs"], M, drawn["s"], drawn.get("values", "one")).sampled(30, seed=1)
    assert torch.equal(again.dense(), expected.dense())


@pytest.mark.parametrize("features", [SparseFeatures.independent(M, 0.3, "uniform"), SparseFeatures.exactly(M, 3)])
def test_sparse_features_draw_the_same_inputs(features, tmp_path):
    save_pretrained(networks()["gaussian"], tmp_path / "net", TASK, features)
    again = from_pretrained(tmp_path / "net").features
    assert again == features
    assert torch.equal(again.sampled(40, seed=2).dense(), features.sampled(40, seed=2).dense())


class Own(nn.Module):
    def forward(self, x):
        return x.abs()


def spoiled():
    network = networks()["gaussian"]
    network.readoff.weight.data[0, 0] = float("nan")
    return network


@pytest.mark.parametrize(
    ("network", "task", "features", "words"),
    [
        (Network(Own(), readoff(M)), TASK, FEATURES, "one linear layer and one activation"),
        (Network(gaussian(M, 9, 0), Own()), TASK, FEATURES, "the readoff is a AllOutputs"),
        (networks()["gaussian"], PairTask(M, "and", [[0, 1]]), FEATURES, "has 15 outputs and the task and 1"),
        (networks()["gaussian"], TASK, SparseFeatures.at_most(7, 2), "the features are 7 and the task reads 6"),
        (networks()["gaussian"], TASK, {"inputs": "nope", "s": 2}, "unknown kind of inputs"),
        (networks()["gaussian"], TASK, {"inputs": "couples"}, "must have inputs and s"),
        (networks()["gaussian"], TASK, {"inputs": "listed(file=a.csv)", "s": 2}, "listed in a file"),
        (networks()["gaussian"], TASK, 3, "must be SparseFeatures, or a mapping"),
        (networks()["gaussian"], "and", FEATURES, "task is of the kind str"),
        (3, TASK, FEATURES, "network is of the kind int"),
        (spoiled(), TASK, FEATURES, "mlp_out.weight of the network holds numbers that are not finite"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(network, task, features, words, tmp_path):
    with pytest.raises(InputError, match=words):
        save_pretrained(network, tmp_path / "new" / "net", task, features)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_replaced_and_nothing_half_written_is_left(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for path in (tmp_path / "full", tmp_path / "full" / "mine.txt"):
        with pytest.raises(InputError, match="name a new folder"):
            save_pretrained(networks()["gaussian"], path, TASK, FEATURES)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "write_json", full)
    with pytest.raises(OSError, match="make room"):
        save_pretrained(networks()["gaussian"], tmp_path / "net", TASK, FEATURES)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    monkeypatch.undo()
    (tmp_path / "empty").mkdir()
    save_pretrained(networks()["gaussian"], tmp_path / "empty", TASK, FEATURES)
    assert from_pretrained(tmp_path / "empty").model.d == 9


def changed(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def weights(folder, **changes):
    path = folder / "model.safetensors"
    tensors = load_file(path) | {name.replace("__", "."): value for name, value in changes.items()}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "truncated or damaged"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "model.safetensors").write_bytes(b"abc"), "no safetensors file, or truncated"),
        (lambda f: changed(f, version=2), "is of version 2, this library reads version 1"),
        (lambda f: changed(f, format=2), "is no folder of a network"),
        (lambda f: changed(f, d=8), r"a network of these sizes has .*mlp_in.weight \(8, 6\)"),
        (lambda f: changed(f, m=7), "and the task and has 21"),
        (lambda f: changed(f, d=10**12), r"more than 10\^10 weights"),
        (lambda f: changed(f, d="9"), "must be a whole number"),
        (lambda f: changed(f, activation="nope"), "unknown activation 'nope'"),
        (lambda f: changed(f, task={"name": "nope", "stored": []}), "unknown task"),
        (lambda f: changed(f, task="and"), "TypeError"),
        (lambda f: changed(f, inputs={"inputs": "nope", "s": 2, "values": "one"}), "unknown kind of inputs"),
        (lambda f: changed(f, inputs={}), "KeyError"),
        (lambda f: weights(f, mlp_in__bias=torch.full((9,), float("inf"))), "mlp_in.bias .* not finite"),
        (lambda f: weights(f, mlp_in__bias=None), "a network of these sizes has"),
        (lambda f: weights(f, mlp_in__bias=torch.ones(9, dtype=torch.int64)), "must be floating-point numbers"),
    ],
)
def test_a_damaged_folder_is_refused_with_its_name(damage, words, tmp_path):
    folder = save_pretrained(networks()["gaussian"], tmp_path / "net", TASK, FEATURES)
    damage(folder)
    with pytest.raises(InputError, match=words) as caught:
        from_pretrained(folder)
    assert "net" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path, words in ((tmp_path / "file", "is a file"), (tmp_path / "none", "is not there"), (3, "kind int")):
        with pytest.raises(InputError, match=words):
            from_pretrained(path)


def test_a_run_is_exported_by_a_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    size = ["--m", "6", "--d", "8", "--steps", "2"]
    assert main(["train", *size, "--out", "run"]) == 0
    assert main(["export", "run", "net"]) == 0
    assert "model.safetensors" in capsys.readouterr().out
    again = from_pretrained("net")
    recorded = json.loads((tmp_path / "run" / "results.json").read_text())["rows"][0]["worst_error"]
    # Both are float64 evaluations of the same weights over all inputs.
    assert evaluate(again.model, again.task, again.features.enumerate()).worst_error == pytest.approx(
        recorded, rel=1e-9
    )
    assert main(["evaluate", "net", "--readoffs", "trained", "least_squares"]) == 0
    shown = capsys.readouterr().out
    assert f"{recorded:.4f}" in next(line for line in shown.splitlines() if line.startswith("trained"))
    assert main(["evaluate", "net", "--m", "7"]) == 2
    assert "describes itself" in capsys.readouterr().err
    assert main(["export", "run", "net"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["compare", *size, "--task", "and", "--no-figures", "--out", "two"]) == 0
    capsys.readouterr()
    assert main(["export", "two", "other"]) == 2
    assert "name one in --network, such as and-seed-0/" in capsys.readouterr().err
    assert main(["export", "two", "other", "--network", "and-seed-0/gaussian-minimax.safetensors"]) == 0
    assert main(["export", "two/and-seed-0/gaussian-minimax.safetensors", "third"]) == 0
    first, second = (from_pretrained(name).model.state_dict() for name in ("other", "third"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = from_pretrained("other")
    best = Network(other.network.layer, minimax(other.network.layer, TASK, INPUTS).readoff)
    # Certificates are exact to 1e-6.
    assert evaluate(other.model, TASK, INPUTS).worst_error == pytest.approx(
        evaluate(best, TASK, INPUTS).worst_error, abs=1e-6
    )
    for words, sentence in ((["nope", "x"], "is missing"), (["two", "x", "--network", "no"], "no network 'no'")):
        assert main(["export", *words]) == 2
        assert sentence in capsys.readouterr().err


def test_the_safetensors_file_says_all_without_this_library(tmp_path):
    network = networks()["gaussian"]
    w = load_file(save_pretrained(network, tmp_path / "net", TASK, FEATURES) / "model.safetensors")
    a = torch.relu(X @ w["mlp_in.weight"].T + w["mlp_in.bias"])
    # Sums of at most 2 products in float32, then of 9 in float64.
    torch.testing.assert_close(a.double() @ w["mlp_out.weight"].T + w["mlp_out.bias"], network(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("key", "value"), [("scale", "abc"), ("scale", None), ("scale", -1), ("origin", None)])
def test_a_wrong_scale_or_origin_is_refused(tmp_path, key, value):
    path = save_pretrained(networks()["gaussian"], tmp_path / "net", TASK, FEATURES) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(InputError, match=rf"config.json.*{key}"):
        from_pretrained(tmp_path / "net")
