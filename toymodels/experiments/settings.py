"""Settings that `train` and `compare` share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from toymodels.core.settings import FULL_BATCH, OF_ADAM, TrainingSettings
from toymodels.errors import InputError, NoEffectError, check_different, check_positive
from toymodels.runs.metrics import within_names
from toymodels.runs.settings import ProblemSettings, RunSettings, covers_all

if TYPE_CHECKING:
    from toymodels.core.layers import LayerMember
    from toymodels.core.readoffs import Combination
    from toymodels.core.tasks import Task

_MOST_WEIGHTS = 10**10
"""The most weights of a readoff: 40 GB, without its gradient and the optimiser's moments."""


@dataclass(frozen=True)
class NetworkSettings(RunSettings, TrainingSettings, ProblemSettings):
    """A problem, how networks are trained on it, and how the run is done."""

    layer: str = "gaussian"
    """Initial first layer: gaussian (N(0,1), bias 0), kaiming (uniform in ±1/√m), kaiming_normal (N(0, 2/m), biases
    as kaiming), a construction, or your own. Knobs follow the name in brackets: "gaussian(scale=0.5, bias=-1)"."""
    tolerances: tuple[int | float, ...] | None = None
    """Also measure the share of outputs with an error within each of these (columns within_…)."""
    knobs: dict[str, int | float | str] = field(default_factory=dict)
    """Knobs of all first layers that have them, as in: p 0.3 (in sweeps, records and tables: layer_p)."""

    def __post_init__(self) -> None:
        from toymodels.core.layers import LAYERS
        from toymodels.core.tasks import TASKS
        from toymodels.theory.gates import Gate

        ProblemSettings.__post_init__(self)
        TrainingSettings.__post_init__(self)
        RunSettings.__post_init__(self)
        if self.tolerances is not None:
            for tolerance in self.tolerances:
                check_positive(tolerances=tolerance)
            check_different("tolerance", within_names(self.tolerances), tolerances=[f"{t:g}" for t in self.tolerances])
        pairwise = any(TASKS.named(Gate.alias(name))[0].pairwise for name in self.task_names())
        outputs = len(self.pairs) if self.pairs is not None else math.comb(self.m, 2) if pairwise else 0
        if outputs * self.d > _MOST_WEIGHTS:
            size = f"a readoff of {outputs:,} pairs from {self.d:,} neurons has {outputs * self.d:.1e} weights"
            raise InputError(f"{size}, more than {_MOST_WEIGHTS:.0e}: take fewer features or neurons, or name pairs")
        layers = [LAYERS.named(name, self.knobs) for name in self.first_layers()]
        for name, (member, _) in zip(self.first_layers(), layers, strict=True):
            self._check_layer(name, member)
            self.check_member(name)
        for knob, value in self.knobs.items():
            having = [member.name for member in LAYERS.values() if knob in member.knobs]
            if not having:
                known = dict.fromkeys(knob for member in LAYERS.values() for knob in member.knobs)
                raise InputError(f"no first layer has a knob {knob!r}: the knobs are {', '.join(known)}")
            if not any(knob in member.knobs for member, _ in layers):
                names = " and ".join(filter(None, (", ".join(having[:-1]), having[-1])))
                raise NoEffectError(f"layer_{knob} is for {names} layers, and there is none here: leave it out")
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"layer_{knob} = {value:g}: it must be a finite number")
        # A knob at its default has no effect, and must give the same record as one that is left out.
        changed = {k: v for k, v in self.knobs.items() if any(m.knobs.get(k, v) != v for m, _ in layers)}
        object.__setattr__(self, "knobs", changed)
        object.__setattr__(self, "layer", LAYERS.canonical(self.layer))

    def check_member(self, name: str) -> None:
        """Ask a first layer whether it can be made, with its knobs, for each task that it fits. Raises InputError if not."""
        from toymodels.core.layers import LAYERS

        member, knobs = LAYERS.named(name, self.knobs)
        for task in self.tasks():
            if member.fits(task):
                member.aside(member.check, self.offered(member, task, 0), knobs)

    def _check_layer(self, name: str, member: LayerMember) -> None:
        if member.after_training:
            raise InputError(f"{name} is made from the trained layer: name it, with trained, in layers of compare")
        own = member.own_activation and member.role != "none" and not member.after_training
        if own and self.activation != "relu":
            raise InputError(f"the first layer {name} has an activation of its own: leave activation at relu")

    def check_trained(self, names: Iterable[str]) -> None:
        """Check the first layers, of those named, that are made from the trained one.

        Raises InputError if that is missing, or if it is and `layer` says where it starts.
        """
        from toymodels.core.layers import LAYERS

        members = {name: LAYERS.named(name)[0] for name in names}
        trains = any(member.role == "trained" for member in members.values())
        for name in (name for name, member in members.items() if member.uses_trained):
            if not trains:
                raise InputError(f"the first layer {name} is made from the trained layer: add trained to layers")
            self.check_member(name)
        if self.layer != "gaussian" and not trains:
            raise NoEffectError(f"layer {self.layer} is where the trained layer starts: name trained in layers, too")

    def combination(self, layer: str, task: Task) -> Combination:
        """Return a first layer and a task in the form that a readoff's `applies` takes."""
        from toymodels.core.layers import LAYERS
        from toymodels.core.readoffs import Combination

        member, knobs = LAYERS.named(layer, self.knobs)
        forms = member.aside(member.closed_forms, self.offered(member, task, 0), knobs) or frozenset()
        return Combination(member, task, forms, self.d0 is not None)

    def idle(self) -> dict[str, str]:
        """Return the settings that have no effect under the others, each with the reason."""
        from toymodels.core.layers import LAYERS

        features, tasks = self.features(), self.tasks()
        reasons: dict[str, str] = {}
        chosen = {self.resolve(features, task) for task in tasks}
        if chosen <= set(FULL_BATCH):
            words = self.optimiser if self.optimiser != "auto" else f"auto, which is {chosen.pop()} at this size"
            reasons = dict.fromkeys(
                OF_ADAM, f"it is a setting of adam and adamw, and the optimiser is {words}: name optimiser adam"
            )
        if set(self.p) == {1.0}:
            reasons["root"] = "the first root of a mean is the mean"
        if self.pairs_per_step is not None and all(self.pairs_per_step >= task.n_outputs for task in tasks):
            reasons["pairs_per_step"] = "there are no more outputs"
        if all(covers_all(features, task) for task in tasks):
            reasons["eval_inputs"] = "all inputs are few enough to be used"
        if all(LAYERS.named(name)[0].role == "none" for name in self.first_layers()):
            reasons |= dict.fromkeys(("d", "activation"), "there is no layer of neurons")
        return reasons

    def first_layers(self) -> tuple[str, ...]:
        """Return the names of all first layers that the run draws."""
        return (self.layer,)

    def drawn(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of the named first layers that are drawn, the initial layer in place of the trained one."""
        from toymodels.core.layers import LAYERS

        members = {name: LAYERS.named(name)[0] for name in names}
        drawn = {name: made.role for name, made in members.items() if made.role != "none" and not made.uses_trained}
        return tuple(dict.fromkeys(self.layer if role == "trained" else name for name, role in drawn.items()))

    def task_names(self) -> tuple[str, ...]:
        """Return the names of all tasks of the run."""
        return ()

    def tasks(self, seed: int = 0) -> list[Task]:
        """Make all tasks of the run."""
        return [self.make_task(name, seed) for name in self.task_names()]

    def offered(self, member: LayerMember, task: Task, seed: int) -> dict[str, Any]:
        """Return the values that a first layer may ask for; a construction is made for features with axes of their own."""
        m = self.m if self.d0 is None or member.role == "construction" else self.d0
        return {"m": m, "d": self.d, "s": self.active, "seed": seed, "activation": self.activation, "task": task,
                "features": self.features()}  # fmt: skip


def nothing_trained(layers: Iterable[str], readoffs: Iterable[str]) -> dict[str, str]:
    """Return the settings of training with the reason that they have no effect, if nothing is trained for these."""
    from toymodels.core.layers import LAYERS
    from toymodels.core.readoffs import READOFFS

    learned = any("trained_readoff" in READOFFS.named(readoff)[0].parameters for readoff in readoffs)
    if learned or any(LAYERS.named(layer)[0].after_training for layer in layers):
        return {}
    names = ("checkpoint_seconds", *(setting.name for setting in fields(TrainingSettings)))
    return dict.fromkeys(names, "nothing is trained for these layers and readoffs")
