"""Is a training step faster than plain PyTorch (train-mse, train-lp), and how does its cost grow (scaling)?

U-AND of all pairs, m features independent with 4.3 active in expectation, float32, Adam, all cores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch

from benchmarks.harness import Case, Row, alternate
from benchmarks.reference import PlainTrainer
from toymodels.core.features import SparseFeatures
from toymodels.core.layers import FirstLayer
from toymodels.core.losses import case_weights
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.settings import TrainingSettings
from toymodels.core.tasks import PairTask
from toymodels.core.training import Trainer
from toymodels.layers.random import kaiming

Weighing = Literal["case", "value"]
ACTIVE = 4.3
ONES = 20.0
"""Weight on the ones where the weight is a number."""
PAIRS_PER_STEP = 16_384
WANTED = {(2.0, 1024): 6.0, (2.0, 2048): 10.0, (4.0, 1024): 1.5, (4.0, 2048): 4.0}
PRODUCT_SHARE = 0.75


def cases(quick: bool) -> list[Case]:
    """Both losses over batches; cost about m = 100, d = 50, batch 1,024; and m = 1,000, d = 500."""
    size = {"m": 100, "d": 50, "repeats": 3 if quick else 5, "seconds": 0.2 if quick else 0.5}
    found = []
    for p, question, weights in ((2.0, "train-mse", (ONES, "case")), (4.0, "train-lp", ("case",))):
        for batch in (1024, 2048) if quick else (256, 1024, 2048, 4096):
            for weight in weights:
                found.append(Case(question, against_plain, {**size, "p": p, "batch": batch, "weight": weight}))
    # Small sizes too, where what a step costs beside its arithmetic shows.
    small = {**size, "m": 20, "batch": 256, "weight": "case"}
    found += [Case(q, against_plain, {**small, "p": p}) for q, p in (("train-mse", 2.0), ("train-lp", 4.0))]
    size = {"repeats": 3 if quick else 5, "seconds": 0.2 if quick else 0.5}
    centre = {"m": 100, "d": 50, "batch": 1024}
    ranges = {"m": (50, 200), "d": (25, 100, 200), "batch": (256, 512, 2048, 4096)}
    grown = [{**centre, name: value} for name, values in ranges.items() for value in values]
    for p in (2.0, 4.0):
        for sizes in (centre, *(grown[::3] if quick else grown)):
            found.append(Case("scaling", cost, {**sizes, **size, "p": p}))
    large = {"m": 200, "d": 100} if quick else {"m": 1000, "d": 500}
    for p in (2.0, 4.0):
        arguments = {**large, "batch": 1024, "p": p, "repeats": 3, "seconds": 0.2, "pairs_per_step": PAIRS_PER_STEP}
        found.append(Case("scaling", cost, arguments))
    return found


def trainer(
    m: int, d: int, batch: int, p: float, weight: float | Weighing, network: Network, pairs_per_step: int | None = None
) -> Trainer:
    """Of the library, with settings that are the reference's own (see tests/benchmarks: the steps are equal)."""
    features = SparseFeatures.independent(m, ACTIVE / m)
    settings = TrainingSettings(
        "adam", 10**9, p=(p,), weight=weight, root=False, batch=batch, pairs_per_step=pairs_per_step, lr=1e-3
    )
    return Trainer(network, PairTask(m, "and"), features, settings, seed=0)


def pair_of_trainers(
    m: int, d: int, batch: int, p: float, weight: float | Weighing, fused: bool | None = None
) -> tuple[Trainer, PlainTrainer]:
    """The library's trainer and the plain one, from the same weights, with the same loss."""
    torch.manual_seed(0)
    task, features = PairTask(m, "and"), SparseFeatures.independent(m, ACTIVE / m)
    by_case = case_weights(weight, task.truth, task.case_probabilities(features))
    weights = by_case if isinstance(weight, str) else (by_case[0], by_case[3])
    plain = PlainTrainer(m, d, ACTIVE, batch, weights, p, fused)
    layer = FirstLayer(plain.layer.weight.detach().clone(), plain.layer.bias.detach().clone())
    readoff = LinearReadoff(plain.readoff.weight.detach().clone(), plain.readoff.bias.detach().clone())
    return trainer(m, d, batch, p, weight, Network(layer, readoff)), plain


def against_plain(
    m: int, d: int, batch: int, p: float, weight: float | Weighing, repeats: int, seconds: float
) -> list[Row]:
    """Steps per second of both, of the plain one with fused Adam, and for p other than 2 the share of the products' rate."""
    new, plain = pair_of_trainers(m, d, batch, p, weight)
    fused = pair_of_trainers(m, d, batch, p, weight, fused=True)[1]
    functions: dict[str, Callable[[], object]] = {"new": new.advance, "plain": plain.step, "fused": fused.step}
    if p != 2:
        functions["products"] = three_products(batch, d, plain.readoff.out_features)
    found = alternate(functions, repeats, seconds)
    words = f"{weight:g} on the ones" if isinstance(weight, float) else f"by {weight}"
    row = Row(
        f"m = {m}, d = {d}, batch {batch:,}, p = {p:g}, weights {words}", "steps/s", found.rate("new"), found.matmul,
        found.peak_mib,
    )  # fmt: skip
    others = [("plain", "plain PyTorch", WANTED.get((p, batch))), ("fused", "plain PyTorch, fused Adam", None)]
    others += [("products", "its three matrix products alone", PRODUCT_SHARE)] if p != 2 else []
    return [
        dataclasses.replace(
            row, against=name, reference=found.rate(key), ratio=found.ratio(key, "new"), wanted=wanted
        )
        for key, name, wanted in others
    ]  # fmt: skip


def three_products(batch: int, d: int, pairs: int) -> Callable[[], None]:
    """Activations times readoff, and the two products of its backward pass, into memory that is there already."""
    a, readoff, error = torch.rand(batch, d), torch.rand(pairs, d), torch.rand(batch, pairs)
    outputs, by_readoff, by_a = torch.empty(batch, pairs), torch.empty(pairs, d), torch.empty(batch, d)

    def run() -> None:
        torch.mm(a, readoff.T, out=outputs)
        torch.mm(error.T, a, out=by_readoff)
        torch.mm(error, readoff, out=by_a)

    return run


def cost(
    m: int, d: int, batch: int, p: float, repeats: int, seconds: float, pairs_per_step: int | None = None
) -> list[Row]:
    """Milliseconds per step, by case weights."""
    pairs = m * (m - 1) // 2
    readoff = LinearReadoff(torch.empty(pairs, d).uniform_(-(d**-0.5), d**-0.5), torch.zeros(pairs))
    new = trainer(m, d, batch, p, "case", Network(kaiming(m, d, 0), readoff), pairs_per_step)
    del readoff
    found = alternate({"new": new.advance}, repeats, seconds)
    sampled = f", {pairs_per_step:,} of {pairs:,} pairs a step" if pairs_per_step else ""
    return [
        Row(
            f"m = {m:,}, d = {d}, batch {batch:,}, p = {p:g}{sampled}", "ms/step", found.time("new", 1e3), found.matmul,
            found.peak_mib, peak_wanted=6 * 1024 if m >= 1000 else None,
        )
    ]  # fmt: skip
