"""Networks from elsewhere are measured in three lines, or refused in a sentence."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from toymodels import InputError, Network, PairTask, SparseFeatures, as_mlp, evaluate, minimax, save_pretrained
from toymodels.core.readoffs import LinearReadoff
from toymodels.ground_truth.read import read_network
from toymodels.layers.random import gaussian
from toymodels.runs.record import save_network

M = 6
TASK = PairTask(M, "and")
FEATURES = SparseFeatures.at_most(M, 2)
INPUTS = FEATURES.enumerate()


def sequential():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(M, 4), nn.ReLU(), nn.Linear(4, 15))


class Strange(nn.Module):
    """No nn.Linear says how many features it reads."""

    def forward(self, x):
        return x[:, torch.triu_indices(M, M, 1)[0]] / 3


def sources(folder):
    net = sequential()
    torch.save(net.state_dict(), folder / "a.pt")
    save_file(net.state_dict(), folder / "b.safetensors")
    save_pretrained(net, folder / "net", TASK, FEATURES)
    network = Network(gaussian(M, 4, 0), LinearReadoff(net[2].weight.detach(), net[2].bias.detach()))
    save_network(folder / "c.safetensors", network, TASK)
    return {
        "module": ((net, "and"), net),
        "plain module": ((as_mlp(net, M), TASK), net),
        "state_dict": ((net.state_dict(), "and"), net),
        "file of torch": ((folder / "a.pt", "and"), net),
        "file of safetensors": ((str(folder / "b.safetensors"), TASK), net),
        "folder": ((folder / "net",), net),
        "file of a run": ((folder / "c.safetensors",), network),
        "module without linear": ((Strange(), "and", M), Strange()),
    }


NAMES = ["module", "plain module", "state_dict", "file of torch", "file of safetensors", "folder", "file of a run",
         "module without linear"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_measured_in_three_lines(name, tmp_path):
    arguments, module = sources(tmp_path)[name]
    read = read_network(*arguments)
    worst = evaluate(read.network, read.task, INPUTS).worst_error
    # The same weights in float64, at most in another order of sums.
    assert worst == pytest.approx(evaluate(module, TASK, INPUTS).worst_error, rel=1e-12)
    best = Network(read.network.layer, minimax(read.network.layer, read.task, INPUTS).readoff)
    # A minimax readoff is the best one of its layer, to the accuracy of its certificates.
    assert evaluate(best, read.task, INPUTS).worst_error <= worst + 1e-6
    assert "features → 15 outputs" in read.description or "15 outputs, one for each pair" in read.description


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((sequential(), None), "name the task"),
        ((sequential(), "nonsense"), "unknown task"),
        ((sequential(), "relu"), "has 15 outputs and the task relu 6"),
        ((sequential(), "and", 7), "does not take a batch of inputs with m = 7"),
        ((sequential(), TASK, 7), "leave m out"),
        ((Strange(), "and"), "give m"),
        ((3, "and"), "source is of the kind int"),
        (({"w": 3}, "and"), "w is of the kind int"),
        (({}, "and"), "hold no matrix"),
        (({"w": torch.zeros(3)}, "and"), "hold no matrix"),
        (({name: w * torch.nan for name, w in sequential().state_dict().items()}, "and"), "not finite"),
        ((sequential(), "and", None, "gelu"), "leave out activation"),
        ((sequential().state_dict(), 3), "task is of the kind int"),
        ((sequential().state_dict(), "and", None, "nope"), "unknown activation"),
        ((sequential().state_dict(), "and", 0), "m = 0"),
        ((sequential().state_dict(), "and", None, "relu", "mlp_in.weight"), "weights is of the kind str"),
        (("nothing.pt", "and"), "is not there"),
    ],
)
@pytest.mark.unchecked
def test_what_does_not_fit_is_refused(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        read_network(*arguments)


def test_a_folder_is_measured_as_a_network_for_another_task(tmp_path):
    save_pretrained(sequential(), tmp_path / "net", TASK, FEATURES)
    assert read_network(tmp_path / "net", "xor").task.name == "xor"
    with pytest.raises(InputError, match="reads 6 features, and m is 7"):
        read_network(tmp_path / "net", m=7)
    with pytest.raises(InputError, match="describes itself: leave out activation"):
        read_network(tmp_path / "net", activation="tanh")
    with pytest.raises(InputError, match="has pairs of its own"):
        read_network(tmp_path / "net", pairs=[(0, 1)])
    with pytest.raises(InputError, match="has 15 outputs and the task relu 6"):
        read_network(tmp_path / "net", "relu")
