"""Other people's tools load our networks, and see the same activations; one command measures theirs."""

import importlib
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.ground_truth.optional import installed
from toymodels import InputError, Network, PairTask, SparseFeatures, evaluate, save_pretrained
from toymodels.cli import main
from toymodels.core.layers import Embedded
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import seeded
from toymodels.ground_truth.hooked import as_hooked
from toymodels.ground_truth.module import MLP, as_mlp
from toymodels.layers.random import gaussian

M, D = 6, 9
TASK = PairTask(M, "and")
FEATURES = SparseFeatures.at_most(M, 2)
X = FEATURES.enumerate().dense()
READOFF = LinearReadoff(
    torch.randn(15, D, generator=seeded(1), dtype=torch.float64), torch.zeros(15, dtype=torch.float64)
)
FRAME = nn.functional.normalize(torch.randn(4, M, generator=seeded(2)), dim=0)
NETWORKS = {
    "plain": Network(gaussian(M, D, 0), READOFF),
    "embedded": Network(Embedded(FRAME, gaussian(4, D, 0)), READOFF),
}


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_transformer_lens_caches_and_replaces_the_activations(name):
    installed("transformer_lens")
    network = NETWORKS[name]
    hooked = as_hooked(network, M)
    out, cache = hooked.run_with_cache(X)
    assert torch.equal(out, network(X))
    assert set(cache) == {"hook_in", "hook_pre", "hook_post", "hook_out"}
    assert torch.equal(cache["hook_post"], network.layer(X))
    assert torch.equal(cache["hook_pre"].relu(), cache["hook_post"])
    torch.testing.assert_close(cache["hook_in"], X if name == "plain" else X @ FRAME.T)
    assert torch.equal(cache["hook_out"], out)
    doubled = hooked.run_with_hooks(X, fwd_hooks=[("hook_post", lambda a, hook: 2 * a)])
    torch.testing.assert_close(doubled, network.readoff(2 * network.layer(X)))


def test_hook_points_without_their_package_are_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"need TransformerLens: pip install 'toymodels\[interp\]'"):
        as_hooked(NETWORKS["plain"], M)


@torch.no_grad()
def test_nnsight_reads_and_replaces_the_activations():
    nnsight = installed("nnsight")
    network = NETWORKS["plain"]
    model = nnsight.NNsight(as_mlp(network, M))
    with model.trace(X):
        activations = model.act.output.save()
        out = model.mlp_out.output.save()
    assert torch.equal(activations, network.layer(X))
    assert torch.equal(out, network(X))
    with model.trace(X):
        model.act.output[:] = 0
        none = model.mlp_out.output.save()
    assert torch.equal(none, READOFF.bias.expand(len(X), -1))


@pytest.mark.parametrize("by", ["from_pretrained", "from_run_info"])
@torch.no_grad()
def test_the_loader_of_spd_finds_class_folder_and_linear_parts(by, tmp_path):
    """SPD is on no package index; this follows its loader: the class by its path, `from_pretrained` or `from_run_info`, then
    each linear part, found by name, is replaced by a product of two matrices."""
    folder = save_pretrained(NETWORKS["plain"], tmp_path / "net", TASK, FEATURES)
    module, _, name = "toymodels.ground_truth.module.MLP".rpartition(".")
    loaded = getattr(importlib.import_module(module), name)
    if by == "from_pretrained":
        model = loaded.from_pretrained(str(folder))
    else:
        model = loaded.from_run_info(SimpleNamespace(checkpoint_path=folder / "model.safetensors", config=None))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    out = model(X)
    # The readoff is float64 in the network and float32 here: sums of 9 products.
    torch.testing.assert_close(out.double(), NETWORKS["plain"](X), rtol=1e-5, atol=1e-5)
    linear = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    assert set(linear) == {"mlp_in", "mlp_out"}
    for part in linear.values():
        u, s, v = torch.linalg.svd(part.weight, full_matrices=False)
        part.register_forward_hook(
            lambda part, args, _, first=v.T * s, second=u.T: args[0] @ first @ second + part.bias
        )
    torch.testing.assert_close(model(X), out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("info", [3, SimpleNamespace(), SimpleNamespace(checkpoint_path=None)])
def test_a_runs_information_without_a_path_is_refused(info):
    with pytest.raises(InputError, match=f"of the kind {type(info).__name__}: it must have a checkpoint_path"):
        MLP.from_run_info(info)


TEN_LINES = """
import torch
from torch import nn

torch.manual_seed(0)
pairs = torch.triu_indices(6, 6, 1)
model = nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 15))
optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
for step in range(300):
    x = (torch.rand(256, 6) < 0.4).float()
    loss = (model(x) - x[:, pairs[0]] * x[:, pairs[1]]).square().mean()
    optimiser.zero_grad(), loss.backward(), optimiser.step()
torch.save(model.state_dict(), "mine.pt")
"""


def test_a_network_of_plain_pytorch_is_measured_by_one_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(TEN_LINES, names)
    assert main(["evaluate", "mine.pt", "--task", "and", "--s", "2", "--readoffs", "trained"]) == 0
    shown = capsys.readouterr().out
    # All inputs with at most 2 active, without this library.
    x = torch.tensor([[bits >> k & 1 for k in range(6)] for bits in range(64) if bits.bit_count() <= 2]).float()
    with torch.no_grad():
        error = names["model"](x) - torch.stack([x[:, k] * x[:, l] for k in range(6) for l in range(k + 1, 6)], 1)
    worst = float(error.abs().max())
    assert worst < 0.25  # better than any affine readoff: it was trained
    assert f"{worst:.4f}" in next(line for line in shown.splitlines() if line.startswith("trained"))
    assert evaluate(names["model"], TASK, FEATURES.enumerate()).worst_error == pytest.approx(worst, rel=1e-5)
