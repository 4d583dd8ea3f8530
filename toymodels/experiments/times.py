"""Estimate how long runs take on one core, within a factor of 3 or so. The constants were measured on a core of 2.5 GHz."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toymodels.core.layers import LAYERS
from toymodels.core.readoffs import READOFFS
from toymodels.core.settings import DEFAULT_STEPS, FULL_BATCH
from toymodels.runs.settings import covers_all

if TYPE_CHECKING:
    from toymodels.core.tasks import Task
    from toymodels.experiments.compare import CompareConfig
    from toymodels.experiments.settings import NetworkSettings
    from toymodels.experiments.train import TrainConfig

_RUN, _STEP, _ENTRY, _PRODUCT = 0.2, 5e-4, 2e-9, 8e-11
"""Seconds of a run, of a step, of an output on an input, and of a neuron read for it."""
_PROGRAM, PIVOTS = 2e-3, 4.5e-10
"""Seconds of a minimax readoff of one output, and more for each input × neuron² (measured: 6 ms at 1,276 × 100², 0.9 s at
32,897 × 256²)."""


def _entries(config: NetworkSettings, task: Task, inputs: float | int) -> float:
    return inputs * task.n_outputs * (_ENTRY + _PRODUCT * config.d)


def _inputs(config: NetworkSettings, task: Task) -> float | int:
    features = config.features()
    return features.n_inputs if covers_all(features, task) else config.eval_inputs


def _training(config: NetworkSettings, task: Task) -> float:
    optimiser = config.resolve(config.features(), task)
    every = optimiser in FULL_BATCH or config.batch == "all"
    batch = config.features().n_inputs if every else int(config.batch)
    return (config.steps or DEFAULT_STEPS[optimiser]) * (_STEP + _entries(config, task, batch))


def of_training(config: TrainConfig) -> float:
    """Estimate the seconds of `train`."""
    (task,) = config.tasks()
    evaluation = _entries(config, task, _inputs(config, task))
    return _RUN + len(config.seeds) * (_training(config, task) + evaluation)


def of_comparison(config: CompareConfig) -> float:
    """Estimate the seconds of `compare`."""
    seconds = 0.0
    for task in config.tasks():
        inputs = _inputs(config, task)
        every = min(config.features().n_inputs, 1e9)
        solved = min(task.n_outputs, config.minimax_pairs) * (_PROGRAM + PIVOTS * every * config.d**2)
        trains = False
        for name in config.rows():
            members = [READOFFS.named(readoff)[0] for readoff in config.readoffs_of(name, task)]
            layer = LAYERS.named(name)[0]
            trains |= layer.after_training
            seconds += len(members) * _entries(config, task, inputs) + solved * sum(m.sampled for m in members)
            frozen = any("trained_readoff" in member.parameters for member in members) and layer.role != "trained"
            seconds += _training(config, task) if frozen else 0
        seconds += _training(config, task) if trains else 0
    return _RUN + len(config.seeds) * seconds
