"""Settings that `train` and `compare` share."""

from __future__ import annotations

from dataclasses import dataclass

from toymodels.config import ProblemSettings, RunSettings, check_layer
from toymodels.training import TrainingSettings


@dataclass(frozen=True)
class NetworkSettings(RunSettings, TrainingSettings, ProblemSettings):
    """A problem, how networks are trained on it, and how the run is done."""

    layer: str = "gaussian"
    """Where a first layer starts: gaussian (N(0,1), bias 0) or kaiming (uniform in ±1/√m), or one of your own."""

    def __post_init__(self) -> None:
        ProblemSettings.__post_init__(self)
        TrainingSettings.__post_init__(self)
        RunSettings.__post_init__(self)
        check_layer(self.layer)
