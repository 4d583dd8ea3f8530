"""Is a first layer learnt from a few pairs a step as good as one learnt from all (pair-sampling), and how much faster? How
large a layer can be learnt at all (large)?

U-AND of all pairs, at most 2 of m features active, Adam on the unrooted L_4 loss weighted by case: for as many steps with
pairs sampled as with all, then minimax readoffs on the same sample of pairs of all inputs, for both first layers.
"""

from __future__ import annotations

import time

import torch

from benchmarks.harness import Case, Row, Spread, matmul, peak_mib
from toymodels.core.evaluation import evaluate
from toymodels.core.features import Inputs, SparseFeatures
from toymodels.core.least_squares import balanced
from toymodels.core.minimax import minimax
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.settings import TrainingSettings
from toymodels.core.tasks import PairTask
from toymodels.core.training import Trainer
from toymodels.layers.random import kaiming
from toymodels.runs.loop import train

PAIRS = 100
"""Of the minimax readoffs."""


def cases(quick: bool) -> list[Case]:
    """A twentieth and a fifth of the pairs a step, for as many steps and with the same seeds; and one large size."""
    sizes = {"m": 20, "d": 20, "steps": 50, "seeds": 2} if quick else {"m": 60, "d": 60, "steps": 1500, "seeds": 3}
    total = sizes["m"] * (sizes["m"] - 1) // 2
    found = [
        Case("pair-sampling", sampled_against_all, {**sizes, "pairs": total // k}) for k in ((5,) if quick else (20, 5))
    ]
    big = {"m": 40, "d": 20, "steps": 5, "pairs": 100} if quick else {"m": 1000, "d": 500, "steps": 60, "pairs": 16_384}
    return [*found, Case("large", large, big)]


def large(m: int, d: int, steps: int, pairs: int) -> list[Row]:
    """Rows: seconds a step with all pairs and with a sample of them, and what balanced readoffs make of the trained layer.

    The readoffs are exact for a stated sample of pairs, fitted on 20,000 inputs and measured on 20,000 others, beside those
    of the layer as it was drawn.
    """
    features, task = SparseFeatures.exactly(m, 4), PairTask(m, "and")
    product, rates = matmul(), []
    errors: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {"sampled": [], "all": []}
    peaks = {}
    sample = task.subset(torch.randperm(task.n_outputs, generator=torch.Generator().manual_seed(0))[:PAIRS])
    fit, fresh = features.sampled(20_000, 1), features.sampled(20_000, 2)
    for name, count in (("sampled", steps), ("all", 3)):
        settings = TrainingSettings(
            "adam", steps, p=(2.0,), batch=1024, pairs_per_step=pairs if name == "sampled" else None
        )
        network = Network(kaiming(m, d, 0), LinearReadoff.constant(task.n_outputs, d))
        if name == "sampled":
            errors["drawn"] = _balanced(network.layer, sample, features, fit, fresh)
        trainer = Trainer(network, task, features, settings, 0)
        for _ in range(count):
            started = time.perf_counter()
            trainer.advance()
            seconds[name].append(time.perf_counter() - started)
        rates.append(product())
        peaks[name] = peak_mib()
        if name == "sampled":
            errors["trained"] = _balanced(network.layer, sample, features, fit, fresh)
        del trainer, network
    setting = f"m = {m:,}, d = {d}, {task.n_outputs:,} pairs, exactly 4, batch 1,024, p = 2 by case"
    spread = Spread.of(rates)
    what = f"balanced readoffs of {PAIRS} pairs after {steps} steps, seed 0, {fresh.description} inputs"
    return [
        Row(f"{pairs:,} pairs a step: {setting}", "s/step", Spread.of(seconds["sampled"][1:]), spread, peaks["sampled"],
            peak_wanted=6144.0),
        Row(f"all pairs: {setting}", "s/step", Spread.of(seconds["all"][1:]), spread, peaks["all"], peak_wanted=6144.0),
        *(
            Row(f"{figure}, {what}: {setting}", "error", Spread.of([new]), spread, peaks["sampled"], "the layer as drawn",
                Spread.of([old]), Spread.of([old / new]))
            for figure, new, old in zip(("worst error", "RMS"), errors["trained"], errors["drawn"], strict=True)
        ),
    ]  # fmt: skip


def _balanced(
    layer: torch.nn.Module, task: PairTask, features: SparseFeatures, fit: Inputs, fresh: Inputs
) -> list[float]:
    """Worst and RMS error of class-balanced readoffs on inputs that they were not fitted to."""
    found = evaluate(Network(layer, balanced(layer, task, features, fit)), task, fresh)
    return [found.worst_error, found.rms]


def sampled_against_all(m: int, d: int, steps: int, seeds: int, pairs: int) -> list[Row]:
    """Rows: seconds of training, and mean and worst of the minimax worst errors, sampled against all; a repeat each seed."""
    features, task = SparseFeatures.at_most(m, 2), PairTask(m, "and")
    inputs = features.enumerate()
    seconds: dict[str, list[float]] = {"sampled": [], "all": []}
    worst: dict[str, list[float]] = {"sampled": [], "all": []}
    mean: dict[str, list[float]] = {"sampled": [], "all": []}
    peak, product = 0.0, matmul()
    rates = []
    for seed in range(seeds):
        chosen = torch.randperm(task.n_outputs, generator=torch.Generator().manual_seed(seed))[:PAIRS]
        for name in ("sampled", "all"):
            settings = TrainingSettings(
                "adam", steps, p=(4.0,), root=False, batch=1024, lr=3e-3, lr_schedule="cosine",
                pairs_per_step=pairs if name == "sampled" else None,
            )  # fmt: skip
            network = Network(kaiming(m, d, seed), LinearReadoff.constant(task.n_outputs, d))
            started = time.perf_counter()
            train(Trainer(network, task, features, settings, seed))
            seconds[name].append(time.perf_counter() - started)
            peak = peak or peak_mib()
            rates.append(product())
            errors = [c.worst_error for c in minimax(network.layer, task.subset(chosen), inputs).certificates]
            worst[name].append(max(errors))
            mean[name].append(sum(errors) / len(errors))
    setting = f"m = {m}, d = {d}, at most 2, batch 1,024, {steps:,} steps, {pairs} of {task.n_outputs:,} pairs"

    def row(what: str, unit: str, found: dict[str, list[float]]) -> Row:
        ratio = Spread.of([a / b for a, b in zip(found["all"], found["sampled"], strict=True)])
        against = "all pairs every step"
        return Row(
            f"{what}: {setting}",
            unit,
            Spread.of(found["sampled"]),
            Spread.of(rates),
            peak,
            against,
            Spread.of(found["all"]),
            ratio,
        )

    return [
        row("training", "seconds", seconds),
        row(f"mean over {PAIRS} pairs of the minimax worst error", "error", mean),
        row(f"largest of {PAIRS} minimax worst errors", "error", worst),
    ]
