"""Settings that `train` and `compare` share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from toymodels.config import ProblemSettings, RunSettings
from toymodels.constructions import CONSTRUCTIONS
from toymodels.constructions.construction import Request
from toymodels.errors import InputError
from toymodels.layers import LAYERS
from toymodels.tasks import PairTask
from toymodels.training import TrainingSettings


def check_layer(name: str) -> None:
    """Raises InputError for an unknown first layer."""
    if name not in LAYERS and name not in CONSTRUCTIONS:
        raise InputError(f"unknown first layer {name!r}: choose one of {', '.join([*LAYERS, *CONSTRUCTIONS])}")


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
    """Share of weights that are not 0 in bernoulli and ternary layers, in (0, 1], or asymptotic; default: the best one."""

    def __post_init__(self) -> None:
        ProblemSettings.__post_init__(self)
        TrainingSettings.__post_init__(self)
        RunSettings.__post_init__(self)
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
        for name in ("layer_scale", "layer_bias"):
            object.__setattr__(self, name, float(getattr(self, name)))

    def first_layers(self) -> tuple[str, ...]:
        """The names of all first layers that the run draws."""
        return (self.layer,)

    def request(self, task: PairTask, seed: int) -> Request:
        """What a construction is asked for: these sizes, readoffs for s active features."""
        return Request(self.m, self.d, max(2, round(self.s)), seed, task, self.layer_p)
