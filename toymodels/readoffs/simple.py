"""Readoffs that are not fitted here: a constant, a construction's own, and the one trained with its layer."""

from __future__ import annotations

from torch import nn

from toymodels.core.readoffs import READOFFS, Combination, Fitted, LinearReadoff
from toymodels.core.tasks import Task


@READOFFS(
    "constant", order=0, colour="0.35", marker="x", default=True, source="best constant for zeros and ones",
    applies=lambda c: c.layer.role == "none" and c.task.truth is not None,
)  # fmt: skip
def constant(task: Task, width: int) -> LinearReadoff:
    """Predict 1/2 for every input."""
    return LinearReadoff.constant(task.n_outputs, width, 0.5)


@READOFFS(
    "zero", order=1, default=True, source="doing nothing",
    applies=lambda c: c.layer.role == "none" and c.task.truth is None,
)  # fmt: skip
def zero(task: Task, width: int) -> LinearReadoff:
    """Predict 0 for every input."""
    return LinearReadoff.constant(task.n_outputs, width, 0.0)


def _has_own(combination: Combination) -> bool:
    return combination.layer.own_readoff is not None and combination.layer.reads(combination.task)


def _note(s: int, inputs: str, combinations: list[Combination], embedded: bool) -> str:
    made = [c for c in combinations if c.layer.own_readoff is not None]
    if not made:
        return ""
    own = dict.fromkeys(f"{c.layer.name}: {c.layer.own_source}" for c in made if _has_own(c))
    lines = [
        f"own: the construction's readoff, made for exactly {s} active features"
        + ("" if inputs == "exactly" else "; on inputs with another number it is biased, by design")
        + (", and for features with an axis each" if embedded else "")
        + f": {'; '.join(own)}."
    ]
    for task in dict.fromkeys(c.task.name for c in made):
        none = dict.fromkeys(c.layer.name for c in made if c.task.name == task and not _has_own(c))
        if none:
            lines.append(f"Without a readoff of their own for {task}: {', '.join(none)}.")
    return "\n\n".join(lines)


@READOFFS(
    "own", order=50, colour="#E69F00", marker="P", default=True, applies=_has_own, note=_note,
    source="the construction's authors",
)  # fmt: skip
def own(own_readoff: nn.Module) -> nn.Module:
    """Read as the construction's authors do: for features with axes of their own, even if they are embedded."""
    return own_readoff


@READOFFS(
    "trained", order=70, colour="#0072B2", marker="s", default=True, applies=lambda c: c.layer.role != "none",
    source="Mendel et al. 2024, comments",
)  # fmt: skip
def trained(trained_readoff: Fitted) -> Fitted:
    """Train the readoff by the loss, together with its layer or on a frozen one."""
    return trained_readoff
