"""Settings that runs share: the problem, and how a run is done. Imports little, because every command reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toymodels.errors import InputError, NoEffectError, check_choice, check_different, check_not_negative, check_whole
from toymodels.given import conform
from toymodels.registry import DATA, load_plugins, version_of

if TYPE_CHECKING:
    from torch import Tensor

    from toymodels.core.features import Features, Inputs
    from toymodels.core.tasks import Task

EXHAUSTIVE_LIMIT = 500_000_000
"""Inputs × outputs up to which an evaluation uses every input."""

MOST_FEATURES = 10_000_000
MODES = ("disabled", "offline", "online")
"""Of Weights & Biases."""


@dataclass(frozen=True)
class ProblemSettings:
    """The problem: features, task size and width."""

    m: int = 50
    """Number of features, at least 2."""
    d: int = 100
    """Width: neurons in the hidden layer, at least 1."""
    s: int | float = 2
    """Active features: their number (exactly, at_most) or expected number, 0 < s < m (independent, couples, unequal)."""
    inputs: str = "at_most"
    """Which inputs occur: at_most or exactly s of m active, independent with probability s/m each, couples that fire together,
    unequal probabilities, listed(file=inputs.csv), or your own."""
    values: str = "one"
    """Value of an active feature: one (boolean features), constant(value=…), uniform on [0, 1], symmetric (uniform on [−1, 1]),
    or your own distribution."""
    pairs: tuple[tuple[int, int], ...] | None = None
    """Pairs (k, l) of features to compute, counted from 0; default all m(m−1)/2. On the command line: 0 1 0 2 …"""
    d0: int | None = None
    """Dimensions, 1 to m, in which the features are embedded as unit vectors; default: an axis for each feature."""
    frame: str | None = None
    """Directions of embedded features: random (the default) or optimised (low coherence); needs d0."""
    activation: str = "relu"
    """relu, gelu, tanh, quadratic, sigmoid or identity, or your own."""
    plugin: tuple[Path, ...] = ()
    """Python files of your own that register first layers, readoffs, tasks, losses, … to be named in these settings."""

    def __post_init__(self) -> None:
        from toymodels.core.features import pinned
        from toymodels.core.frames import FRAMES, check_frame
        from toymodels.core.layers import ACTIVATIONS
        from toymodels.core.tasks import feature_pairs

        conform(self)
        load_plugins(self.plugin)
        inputs, files = pinned(self.inputs)
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "plugin", tuple(dict.fromkeys((*self.plugin, *files))))
        for path in self.plugin:
            if path.suffix in DATA and version_of(path) not in inputs:
                raise InputError(
                    f"the plugin {path} is no Python file: name data where it is read, as in listed(file={path})"
                )
        check_whole(most=MOST_FEATURES, m=self.m)
        check_whole(1, d=self.d)
        check_choice(ACTIVATIONS, activation=self.activation)
        self.features()
        if self.d0 is not None:
            check_frame(self.m, self.d0)
        if self.frame is not None and (self.d0 is None or self.frame not in FRAMES):
            allowed = f"it needs d0, the dimensions in which features are embedded, and is one of {', '.join(FRAMES)}"
            raise NoEffectError(f"frame {self.frame!r}: {allowed}")
        if self.s == int(self.s):
            object.__setattr__(self, "s", int(self.s))  # 2 and 2.0 are the same number and must give the same record
        if self.pairs is not None:
            feature_pairs(self.m, self.pairs)
            check_different("pair", self.pairs, pairs=[f"{k} {l}" for k, l in self.pairs])

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load the plugins, too, when the settings are sent to another process."""
        self.__dict__.update(state)
        load_plugins(self.plugin)

    def features(self) -> Features:
        """Make the distribution of inputs. Raises InputError for an s that does not fit."""
        from toymodels.core.features import make_features

        return make_features(self.inputs, self.m, self.s, self.values)

    def make_frame(self, seed: int) -> Tensor | None:
        """Make the features' directions, (d0, m), the same for every first layer of a seed; None if each has an axis."""
        from toymodels.core.frames import FRAMES
        from toymodels.core.seeds import derive_seed

        if self.d0 is None:
            return None
        return FRAMES[self.frame or "random"](self.m, self.d0, derive_seed(seed, "frame"))

    def make_task(self, name: str, seed: int = 0) -> Task:
        """Make the task of this name, on the chosen pairs; `seed` draws its random parts."""
        from toymodels.core.seeds import derive_seed
        from toymodels.core.tasks import make_task

        return make_task(name, self.m, self.pairs, derive_seed(seed, "task"))

    @property
    def active(self) -> int:
        """The number of active features for which closed forms and constructions are made: s, rounded, at least 2."""
        return max(2, round(self.s))


@dataclass(frozen=True)
class RunSettings:
    """How a run is done. Seeds, device, eval_inputs and threads change its results."""

    seeds: tuple[int, ...] = (0,)
    """Seeds; each gives a result of its own."""
    eval_inputs: int = 20_000
    """Inputs sampled for evaluation and fitted readoffs if there are too many to use all (over 5·10^8 outputs)."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, …"""
    out: Path | None = None
    """Folder of the record; default runs/ and a name made from the configuration. The same command again continues there."""
    wandb: str | None = None
    """Weights & Biases: disabled, offline or online. Default: WANDB_MODE if set, online under a sweep agent, else disabled."""
    checkpoint_seconds: int | float = 20.0
    """Seconds between two checkpoints of a training; a killed run repeats at most this much."""
    threads: int | None = None
    """Threads per process; default all cores for one job at a time, 1 if jobs run in parallel or a Python session loaded torch
    before toymodels (unless OMP_WAIT_POLICY was set: idle threads spin otherwise). Their number changes the order of
    sums, and so the course of a training: errors of trained networks differ in the second or third digit."""

    def __post_init__(self) -> None:
        conform(self)
        check_seeds(self.seeds)
        check_whole(least=1, eval_inputs=self.eval_inputs)
        check_not_negative(checkpoint_seconds=self.checkpoint_seconds)
        if self.threads is not None:
            check_whole(least=1, threads=self.threads)
        if self.wandb is not None:
            check_choice(MODES, wandb=self.wandb)


def check_seeds(seeds: tuple[int, ...]) -> None:
    """Raise InputError unless there is at least one seed, and they are different whole numbers from 0 up."""
    if not seeds:
        raise InputError("seeds is empty: give at least one")
    check_whole(**{f"seeds[{position}]": seed for position, seed in enumerate(seeds)})
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds {seeds}: they must be different whole numbers from 0 up")


def covers_all(features: Features, task: Task) -> bool:
    """Whether an evaluation uses every input."""
    from toymodels.core.features import ENUMERATION_LIMIT

    return features.n_inputs <= ENUMERATION_LIMIT and features.n_inputs * task.n_outputs <= EXHAUSTIVE_LIMIT


def evaluation_inputs(
    features: Features, task: Task, eval_inputs: int, seed: int, device: str, purpose: str = "evaluation"
) -> Inputs:
    """Return all inputs if inputs × outputs are within EXHAUSTIVE_LIMIT, otherwise a sample drawn for this purpose.

    Readoffs are fitted on the sample of the purpose "fit", so that they are not measured on the inputs they were fitted to.
    """
    from toymodels.core.seeds import derive_seed

    if covers_all(features, task):
        return features.enumerate(device=device)
    return features.sampled(eval_inputs, derive_seed(seed, purpose), device)
