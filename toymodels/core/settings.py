"""Settings of training; without torch, so that the command line can read them quickly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from toymodels.errors import InputError, NoEffectError, check_choice, check_not_negative, check_positive, check_whole
from toymodels.given import conform

if TYPE_CHECKING:
    from toymodels.core.features import Features
    from toymodels.core.losses import Loss
    from toymodels.core.tasks import Task

FULL_BATCH_LIMIT = 2**25
"""Inputs × outputs up to which "auto" means kfac, on all inputs; above it, Adam on samples."""

OF_ADAM = ("lr", "lr_schedule", "weight_decay", "batch")
"""Settings that the optimisers of FULL_BATCH do not have."""
DEFAULT_STEPS = {"kfac": 500, "lbfgs": 1500, "adam": 3000, "adamw": 3000}
FULL_BATCH = ("kfac", "lbfgs")
"""Optimisers whose every step is on all inputs."""
OPTIMISERS = ("auto", *DEFAULT_STEPS)
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda left: 1.0,
    "linear": lambda left: left,
    "cosine": lambda left: (1 - math.cos(math.pi * left)) / 2,
}
"""The learning rate in units of its first value, by the share of the steps that is left."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained."""

    optimiser: str = "auto"
    """kfac (L-BFGS in a Kronecker-factored metric) or lbfgs, on all inputs in every step; adam or adamw (mini-batches of sampled
    inputs); auto: kfac if inputs × outputs are at most 2^25, else adam."""
    steps: int | None = None
    """Optimiser steps in all, shared evenly among the values of p. Default 500 (kfac), 1,500 (lbfgs) or 3,000 (adam,
    adamw)."""
    loss: str = "lp"
    """lp (weighted L_p), lp_apart (zeros and ones averaged separately, ones times `weight` if it is a number), or your own."""
    p: tuple[int | float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0)
    """Exponents of the loss, each ≥ 1, one after the other; one number for a fixed p."""
    weight: int | float | Literal["case", "value"] = "case"
    """Loss weights: 'case' (input cases 00, 01, 10, 11 weigh the same), 'value' (ones and zeros weigh the same), or a
    positive number on the ones (1: unweighted)."""
    root: bool = True
    """Take the p-th root of the mean |error|^p."""
    batch: int | Literal["all"] = 256
    """Inputs per step (adam, adamw), or 'all': every step on all inputs and their probabilities, without sampling noise."""
    pairs_per_step: int | None = None
    """Outputs sampled each step, in addition to all in the last case (for pairs: both on). Default: all outputs."""
    lr: int | float = 1e-3
    """Learning rate (adam, adamw)."""
    lr_schedule: str = "constant"
    """Learning rate over the steps: constant, or falling to 0 as linear or cosine (adam, adamw)."""
    weight_decay: int | float = 0.0
    """Decoupled weight decay per step (adamw) or L2 penalty (adam)."""

    def __post_init__(self) -> None:
        from toymodels.core.losses import LOSSES, case_weights, check_exponent

        conform(self)
        check_choice(OPTIMISERS, optimiser=self.optimiser)
        check_choice(SCHEDULES, lr_schedule=self.lr_schedule)
        if not self.p:
            raise InputError("p is empty: give at least one exponent of the loss")
        for p in self.p:
            check_exponent(p)
        # 2 and 2.0 are the same exponent and must give the same record.
        object.__setattr__(self, "p", tuple(float(p) for p in self.p))
        member, _ = LOSSES.named(self.loss)
        object.__setattr__(self, "loss", LOSSES.canonical(self.loss))
        if not member.follows_p and (self.p, self.root) != (TrainingSettings.p, True):
            raise NoEffectError(f"p and root have no effect on the loss {self.loss}: leave them out")
        if not isinstance(self.weight, str):
            object.__setattr__(self, "weight", float(self.weight))
        case_weights(self.weight, (0, 1), (0.5, 0.5))
        if isinstance(self.batch, str) and self.batch != "all":
            raise InputError(f"batch = {self.batch!r}: give a number of inputs, or 'all'")
        for name in ("steps", "batch", "pairs_per_step"):
            value = getattr(self, name)
            if not isinstance(value, str) and value is not None:
                check_whole(least=1, **{name: value})
        if self.pairs_per_step is not None and (self.optimiser != "adam" or self.loss != "lp" or self.weight_decay):
            needs = "optimiser adam without weight decay, and the loss lp"
            raise NoEffectError(f"pairs_per_step is for {needs}: name --optimiser adam, or leave it out")
        check_positive(most=1000, lr=self.lr)
        check_not_negative(weight_decay=self.weight_decay)

    @property
    def exponents(self) -> tuple[float, ...]:
        """The exponents of the loss, one after the other; a single 1 for a loss without exponent."""
        from toymodels.core.losses import LOSSES

        return self.p if LOSSES.named(self.loss)[0].follows_p else (1.0,)

    def make_loss(self, stage: int) -> Loss:
        """Make the loss of a stage: the one with the exponent p[stage]."""
        from toymodels.core.losses import make_loss

        ones = 1.0 if isinstance(self.weight, str) else self.weight
        return make_loss(self.loss, self.exponents[stage], self.root, ones)

    def resolve(self, features: Features, task: Task) -> str:
        """Return the optimiser that "auto" stands for with these inputs and outputs."""
        if self.optimiser != "auto":
            return self.optimiser
        every = features.n_inputs * max(task.n_outputs, task.m)
        return "kfac" if every <= FULL_BATCH_LIMIT and every < math.inf else "adam"

    def check_inputs(self, features: Features, task: Task) -> None:
        """Raise InputError if every step needs all inputs (kfac, lbfgs, batch 'all') that cannot be listed, or for weights."""
        from toymodels.core.losses import case_weights

        if task.truth is None:
            case_weights(self.weight, None, (1.0,))
        if self.batch == "all" or self.resolve(features, task) in FULL_BATCH:
            features.check_enumerable()
