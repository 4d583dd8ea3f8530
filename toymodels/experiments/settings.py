"""Settings that `train` and `compare` share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from toymodels.core.layers import LAYERS
from toymodels.core.tasks import PairTask
from toymodels.core.training import TrainingSettings
from toymodels.errors import InputError
from toymodels.layers import CONSTRUCTIONS
from toymodels.layers.construction import Request
from toymodels.layers.null_models import CONTROLS
from toymodels.runs.config import ProblemSettings, RunSettings

_MOST_WEIGHTS = 10**10
"""Of a readoff: 40 GB, before its gradient and the optimiser's memory of it."""


def check_layer(name: str) -> None:
    """Raises InputError for an unknown first layer, and for one that is made from a trained layer."""
    if name in CONTROLS:
        raise InputError(
            f"{name} is a control made from the trained layer: name it in layers of compare, beside trained"
        )
    if name not in LAYERS and name not in CONSTRUCTIONS:
        known, more = ", ".join([*LAYERS, *CONSTRUCTIONS]), ", ".join(["trained", *CONTROLS, "all"])
        raise InputError(f"unknown first layer {name!r}: choose one of {known} (and, in layers of compare, {more})")


@dataclass(frozen=True)
class NetworkSettings(RunSettings, TrainingSettings, ProblemSettings):
    """A problem, how networks are trained on it, and how the run is done."""

    layer: str = "gaussian"
    """Where a first layer starts: gaussian (N(0,1), bias 0), kaiming (uniform in ±1/√m), a construction, or your own."""

    layer_scale: int | float = 1.0
    """Standard deviation of the weights of a gaussian layer, from 1e-6 to 1e6."""
    layer_bias: int | float = 0.0
    """Every bias of a gaussian layer."""
    layer_p: int | float | str | None = None
    """Share of weights that are not 0 in bernoulli and ternary layers, in (0, 1], or asymptotic (ln²(m)/√d, bernoulli only);
    default, or best: the one of least predicted error for AND."""

    def __post_init__(self) -> None:
        ProblemSettings.__post_init__(self)
        TrainingSettings.__post_init__(self)
        RunSettings.__post_init__(self)
        if self.layer_p == "best":
            object.__setattr__(self, "layer_p", None)
        names = self.first_layers()
        for name in names:
            check_layer(name)
            if name in CONSTRUCTIONS:
                if self.activation != "relu":
                    raise InputError(f"the construction {name} has an activation of its own: leave activation at relu")
                CONSTRUCTIONS[name].check(self.m, self.d, self.layer_p)
        if self.layer_p is not None and not any(name in CONSTRUCTIONS and CONSTRUCTIONS[name].uses_p for name in names):
            raise InputError("layer_p is for bernoulli and ternary layers, and there is none here: leave it out")
        if not 1e-6 <= self.layer_scale <= 1e6 or not math.isfinite(self.layer_bias):
            raise InputError(
                f"layer_scale = {self.layer_scale:g}, layer_bias = {self.layer_bias:g}: the scale must be from 1e-6 to 1e6 "
                "and the bias a finite one"
            )
        if (self.layer_scale, self.layer_bias) != (1, 0) and "gaussian" not in names:
            raise InputError(
                "layer_scale and layer_bias are for gaussian layers, and there is none here: leave them out"
            )
        outputs = math.comb(self.m, 2) if self.pairs is None else len(self.pairs)
        if outputs * self.d > _MOST_WEIGHTS:
            raise InputError(
                f"a readoff of {outputs:,} pairs from {self.d:,} neurons has {outputs * self.d:.1e} weights, more than "
                f"{_MOST_WEIGHTS:.0e}: take fewer features or neurons, or name pairs"
            )
        for name in ("layer_scale", "layer_bias"):
            object.__setattr__(self, name, float(getattr(self, name)))

    def first_layers(self) -> tuple[str, ...]:
        """The names of all first layers that the run draws."""
        return (self.layer,)

    def request(self, task: PairTask, seed: int) -> Request:
        """What a construction is asked for: these sizes, readoffs for s active features."""
        return Request(self.m, self.d, max(2, round(self.s)), seed, task, self.layer_p)
