"""New: all products x_i x_j of real features in fewer neurons than products, with the squared and the fourth-power loss."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.compressed.exact import worst_over_amplitudes
from toymodels.core.features import SparseFeatures
from toymodels.core.layers import make_layer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import derive_seed
from toymodels.core.settings import TrainingSettings
from toymodels.core.tasks import make_task
from toymodels.core.training import Trainer
from toymodels.diagnosis.registry import COMPUTED
from toymodels.reproductions.registry import REPRODUCTIONS, Line, Row, columns
from toymodels.runs.loop import train


@torch.no_grad()
def shares(network: Network, m: int, inputs: int, seed: int) -> Float[Tensor, " products"]:
    """Return the mean squared error of each product while both of its features are active, as a share of the output 0's."""
    task = make_task("product", m)
    x = SparseFeatures.exactly(m, 2, "symmetric").sampled(inputs, derive_seed(seed, "evaluation")).dense()
    target = task.targets(x).double()
    both = target != 0
    error = network(x).double() - target
    return (error.square() * both).sum(0) / (target.square() * both).sum(0)


def measured(key: Row) -> Row:
    """Train a network for each seed; measure errors product by product, and the largest over all amplitudes of two features."""
    m, d, task = key["m"], key["d"], make_task("product", key["m"])
    settings = TrainingSettings(
        optimiser="adam", steps=key["steps"], batch=key["batch"], p=(key["q"],), weight=1, root=False, lr=0.01,
        lr_schedule="cosine",
    )  # fmt: skip
    found = []
    for seed in key["seeds"]:
        layer = make_layer("kaiming", m, d, derive_seed(seed, "trained layer"))
        network = Network(layer, LinearReadoff.constant(task.n_outputs, d))
        train(Trainer(network, task, SparseFeatures.exactly(m, 2, "symmetric"), settings, seed))
        share = shares(network, m, key["eval"], seed)
        found.append({
            "share": float(share.mean()), "cv": float(share.std(correction=0) / share.mean()),
            "computed": int((share < COMPUTED).sum()), "largest": worst_over_amplitudes(network, task, 2).value,
        })  # fmt: skip
    return columns(found)


def _keys(size: Mapping[str, int], seeds: tuple[int, ...]) -> list[Row]:
    cases = itertools.product((1, 2), (2, 4))
    return [{**size, "q": q, "d": factor * size["d"], "seeds": list(seeds)} for factor, q in cases]


def _lines(rows: Sequence[Row]) -> list[Line]:
    words = {
        "share": "mean MSE of a product, both active / that of the output 0", "cv": "CV over products",
        "computed": "products with MSE below a tenth of that of the output 0",
        "largest": "largest |error| over all amplitudes of two features (exact)",
    }  # fmt: skip
    return [
        Line(f"d = {row['d']}, q = {row['q']}: {label}", row[name]) for row in rows for name, label in words.items()
    ]


REPRODUCTIONS(
    "products", shows="new: all products of two real features, with the squared and the fourth-power loss",
    source="measured here", reduced={"m": 10, "d": 20, "steps": 3000, "batch": 512, "eval": 50_000},
    full={"m": 16, "d": 60, "steps": 50_000, "batch": 2048, "eval": 500_000}, keys=_keys, lines=_lines, minutes=2, order=6,
)(measured)  # fmt: skip
