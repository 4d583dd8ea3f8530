"""Configurations: the same names in Python, on the command line, in sweep files, in records and in result tables."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from toymodels.errors import InputError
from toymodels.core.features import ENUMERATION_LIMIT, Inputs, SparseFeatures
from toymodels.core.frames import FRAMES, check_frame
from toymodels.core.layers import ACTIVATIONS
from toymodels.core.tasks import PairTask, Task

EXHAUSTIVE_LIMIT = 500_000_000
"""Inputs × outputs up to which an evaluation covers every input."""

INPUTS = ("at_most", "exactly", "independent")

C = TypeVar("C", bound="ProblemSettings")


@dataclass(frozen=True)
class ProblemSettings:
    """The problem: features, task size and width."""

    # A dictionary read back as a configuration may not hold an unknown key.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    m: int = 50
    """Number of boolean features, at least 2."""
    d: int = 100
    """Width: neurons in the hidden layer, at least 1."""
    s: int | float = 2
    """Active features: their number (exactly, at_most) or expected number p·m, 0 < s < m (independent)."""
    inputs: str = "at_most"
    """Which inputs are admissible: at_most or exactly s of m active, or independent with probability s/m each."""
    pairs: tuple[tuple[int, int], ...] | None = None
    """Pairs (k, l) of features to compute, counted from 0; default all m(m−1)/2. On the command line: 0 1 0 2 …"""
    d0: int | None = None
    """Dimensions, 1 to m, that the features are embedded in as unit vectors; default: an axis for each feature."""
    frame: str | None = None
    """Directions of embedded features: random (the default) or optimised (low coherence); needs d0."""
    activation: str = "relu"
    """relu, gelu, tanh, quadratic, sigmoid or identity."""

    def __post_init__(self) -> None:
        if self.d < 1:
            raise InputError(f"d = {self.d} neurons: the layer needs at least 1")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"unknown activation {self.activation!r}: choose one of {', '.join(ACTIVATIONS)}")
        if not math.isfinite(self.s):
            raise InputError(f"s = {self.s:g} active features: it must be a finite number")
        self.features()
        if self.d0 is not None:
            check_frame(self.m, self.d0)
        if self.frame is not None and (self.d0 is None or self.frame not in FRAMES):
            raise InputError(
                f"frame {self.frame!r}: it takes d0, the dimensions that features are embedded in, and is one of "
                f"{', '.join(FRAMES)}"
            )
        if self.s == int(self.s):
            object.__setattr__(self, "s", int(self.s))  # 2 and 2.0 are the same number and must give the same record
        if self.pairs is not None:
            PairTask(self.m, "and", self.pairs)

    def features(self) -> SparseFeatures:
        """The distribution of inputs. Raises InputError for an s that does not fit."""
        if self.inputs == "independent":
            if not 0 < self.s < self.m:
                raise InputError(
                    f"s = p·m = {self.s:g} features active in expectation: it must lie strictly between 0 and m = {self.m}"
                )
            return SparseFeatures.independent(self.m, self.s / self.m)
        if self.inputs not in INPUTS:
            raise InputError(f"unknown inputs {self.inputs!r}: choose one of {', '.join(INPUTS)}")
        if self.s != int(self.s):
            raise InputError(f"s = {self.s:g}: {self.inputs} takes a whole number of active features, from 1 to m")
        make = SparseFeatures.at_most if self.inputs == "at_most" else SparseFeatures.exactly
        return make(self.m, int(self.s))

    def make_frame(self, seed: int) -> Tensor | None:
        """The features' directions, (d0, m), the same for every first layer of a seed; None if each has an axis."""
        if self.d0 is None:
            return None
        return FRAMES[self.frame or "random"](self.m, self.d0, derive_seed(seed, "frame"))

    def make_task(self, gate: str) -> PairTask:
        """The task of this gate on the chosen pairs."""
        return PairTask(self.m, gate, self.pairs)


@dataclass(frozen=True)
class RunSettings:
    """How a run is done. Seeds, device and eval_inputs change its results; threads their last digits."""

    seeds: tuple[int, ...] = (0,)
    """Seeds, each a run of its own with its own result."""
    eval_inputs: int = 20_000
    """Inputs sampled for evaluation and fitted readoffs where they are too many to cover all (over 5·10^8 outputs)."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, …"""
    out: Path | None = None
    """Folder of the record; default runs/ and a name made from the configuration. The same command again goes on there."""
    wandb: str | None = None
    """Weights & Biases: disabled, offline or online. Default: WANDB_MODE if set, online under a sweep agent, else disabled."""
    checkpoint_seconds: int | float = 20.0
    """Seconds between two checkpoints of a training; a killed run repeats at most this much."""
    threads: int | None = None
    """Threads per process; default all cores for one job at a time, 1 where jobs run side by side."""

    def __post_init__(self) -> None:
        if not self.seeds:
            raise InputError("seeds is empty: give at least one")
        if min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds {self.seeds}: they must be different whole numbers from 0 up")
        if self.eval_inputs < 1:
            raise InputError(f"eval_inputs = {self.eval_inputs}: it must be at least 1")
        if not self.checkpoint_seconds >= 0:
            raise InputError(f"checkpoint_seconds = {self.checkpoint_seconds:g}: it must be 0 or a positive number")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads = {self.threads}: it must be at least 1")
        if self.wandb not in (None, "disabled", "offline", "online"):
            raise InputError(f"unknown wandb mode {self.wandb!r}: choose one of disabled, offline, online")


NOT_IN_IDENTITY = frozenset({"out", "wandb", "threads", "json", "figures", "checkpoint_seconds"})
"""Settings that do not change what a run computes: two runs that differ in these alone are the same run."""


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as JSON holds it."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def identity(config: Any) -> dict[str, Any]:
    """What makes a run this run and no other."""
    return identity_of(to_dict(config))


def identity_of(saved: dict[str, Any]) -> dict[str, Any]:
    """The identity of a configuration read from a record."""
    # A setting left at None does nothing: so a record from before there was one stays the record of the same run.
    return {key: value for key, value in saved.items() if key not in NOT_IN_IDENTITY and value is not None}


def short_hash(config: Any) -> str:
    """Eight hexadecimal digits of the identity."""
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:8]


def from_dict(cls: type[C], values: dict[str, Any]) -> C:
    """A configuration from a dictionary (a record, a sweep). Raises InputError for an unknown key or a wrong value."""
    try:
        found: C = _reader(cls).validate_python(values)  # type: ignore[arg-type]  # a class can be hashed
        return found
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InputError):
            raise cause from None
        key = str(first["loc"][0]) if first["loc"] else "configuration"
        if first["type"] == "unexpected_keyword_argument":
            names = ", ".join(f.name for f in dataclasses.fields(cls))
            raise InputError(f"unknown key {key!r} in the configuration: the keys are {names}") from None
        raise InputError(f"the value {first['input']!r} of {key!r} is not valid: {first['msg']}") from None


@functools.cache
def _reader(cls: Any) -> Any:
    return TypeAdapter(cls)


def check_device(device: str) -> None:
    """Raises InputError for a device that this machine does not have, or that is neither a CPU nor a CUDA GPU."""
    try:
        if torch.device(device).type not in ("cpu", "cuda"):
            raise ValueError("it is neither cpu nor cuda")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the device {device!r} is not there ({reason}): use cpu, or see torch.cuda.is_available()"
        ) from None


_ROLES = ("trained layer", "frozen layer", "batches", "evaluation", "pairs", "fit", "frame", "labels")


def derive_seed(seed: int, role: str) -> int:
    """Independent streams from one seed: a frozen layer is no copy of the trained layer's start."""
    return int(np.random.SeedSequence(seed, spawn_key=(_ROLES.index(role),)).generate_state(1)[0])


def cover(
    features: SparseFeatures, task: Task, eval_inputs: int, seed: int, device: str, role: str = "evaluation"
) -> Inputs:
    """All inputs where inputs × outputs are within EXHAUSTIVE_LIMIT, otherwise a stated sample.

    Readoffs are fitted on the sample of the role "fit", and never measured on the inputs that they were fitted to.
    """
    if features.n_inputs <= ENUMERATION_LIMIT and features.n_inputs * task.n_outputs <= EXHAUSTIVE_LIMIT:
        return features.enumerate(device=device)
    return features.sampled(eval_inputs, derive_seed(seed, role), device)
