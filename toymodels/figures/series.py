"""Say how a series of measurements looks and what it is called: colour, marker, label and order of layers and readoffs.

A member of a registry brings its own label, colour, marker and order. What it leaves open comes from a cycle of free colours.
Colours are those of Okabe and Ito, then those of Tol's muted scheme: both are told apart with any colour vision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from toymodels.errors import InputError
from toymodels.registry import Member, Registry
from toymodels.theory.gates import Gate

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, ORANGE, YELLOW, GREY, BLACK = "#56B4E9", "#E69F00", "#F0E442", "0.35", "black"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
"""For lines that stand for no layer or readoff: sizes, numbers of active features."""
MARKERS = "os^Dvp"

Family = Literal["layer", "readoff"]
Key = tuple[str, str]
"""(first layer, readoff) of a series."""


@dataclass(frozen=True)
class Look:
    """How one layer or readoff is shown."""

    label: str
    colour: str
    marker: str
    order: int


_MUTED = ("#882255", "#44AA99", "#332288", "#999933", "#CC6677", "#DDCC77")
_FREE_COLOURS = (ORANGE, BLACK, "0.6", SKY, PURPLE, GREEN, VERMILION, BLUE, *_MUTED, YELLOW)
_FREE_MARKERS = "Phd<>8XDvs"


def looks(family: Family, names: Iterable[str]) -> dict[str, Look]:
    """Return the look of each of these first layers or readoffs, in their order; no two unknown ones look alike."""
    members = {name: _member(family, name) for name in dict.fromkeys(names)}
    fixed = {name: _fixed(family, name, member) for name, member in members.items()}
    free_colours = [c for c in _FREE_COLOURS if c not in {look.colour for look in fixed.values()}] or [GREY]
    free_markers = [c for c in _FREE_MARKERS if c not in {look.marker for look in fixed.values()}] or ["o"]
    found, n_coloured, n_marked = {}, 0, 0
    for name in sorted(fixed, key=lambda name: (fixed[name].order, name)):
        look, colour, marker = fixed[name], fixed[name].colour, fixed[name].marker
        if not colour:
            colour, n_coloured = free_colours[n_coloured % len(free_colours)], n_coloured + 1
        if not marker:
            marker, n_marked = free_markers[n_marked % len(free_markers)], n_marked + 1
        found[name] = Look(look.label, colour, marker, look.order)
    return found


def look(family: Family, name: str) -> Look:
    """Return the look of one first layer or readoff."""
    return looks(family, [name])[name]


def _member(family: Family, name: str) -> Member | None:
    from toymodels.core.layers import LAYERS
    from toymodels.core.readoffs import READOFFS

    registry: Registry[Any] = LAYERS if family == "layer" else READOFFS
    return dict(registry.items()).get(name)


def _fixed(family: Family, name: str, member: Member | None) -> Look:
    """Return what the registry says; colour and marker are empty where it leaves them open."""
    spoken = name.replace("_", " ")
    if member is None:
        return Look(f"frozen {spoken}" if family == "layer" else spoken, "", "", 50)
    frozen = getattr(member, "role", "") in ("random", "construction")
    label = member.label or (f"frozen {spoken}" if frozen else spoken)
    return Look(label, member.colour or "", member.marker or "", member.order)


def series_of(rows: Iterable[Mapping[str, Any]]) -> list[Key]:
    """Return the (first layer, readoff) pairs of a table in the order of layers, then of readoffs."""
    keys = {(str(row["first_layer"]), str(row["readoff"])) for row in rows}
    layers = list(looks("layer", (layer for layer, _ in keys)))
    readoffs = list(looks("readoff", (readoff for _, readoff in keys)))
    return sorted(keys, key=lambda key: (layers.index(key[0]), readoffs.index(key[1])))


class Method(NamedTuple):
    """A first layer with its knobs and frame, and a readoff."""

    layer: str
    readoff: str
    knobs: tuple[tuple[str, Any], ...] = ()
    """(knob, value) of those in which the rows of a table differ."""
    frame: str = "random"

    @property
    def name(self) -> str:
        """The method in words: "frozen bernoulli (p = 0.5), minimax"; the frame is named where it is not a random one."""
        known = _member("layer", self.layer)
        shown = [
            f"{knob} = {format_value(value)}"
            for knob, value in self.knobs
            if value is not None and self.layer != "identity" and (known is None or knob in known.knobs)
        ]
        knobs = f" ({', '.join(shown)})" if shown else ""
        frame = "" if self.frame == "random" else f", {self.frame} frame"
        return f"{look('layer', self.layer).label}{knobs}, {look('readoff', self.readoff).label}{frame}"


def name_of(layer: str, readoff: str) -> str:
    """Name a series: "trained layer, minimax"."""
    return Method(layer, readoff).name


def format_value(value: Any) -> str:
    """Write a value in words: numbers short, exponents as 2→4→8."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "→".join(map(format_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def series_styles(keys: Sequence[Key]) -> dict[Key, dict[str, Any]]:
    """Return how to draw each series: colour and marker by readoff, trained layers filled and full, frozen ones open and dashed.

    No layer stands in grey in the background. Where several frozen layers have one readoff, colours are those of the layers.
    """
    layers, readoffs = looks("layer", (key[0] for key in keys)), looks("readoff", (key[1] for key in keys))
    frozen = {layer for layer, _ in keys if layer not in ("identity", "trained")}
    by_layer = len(frozen) > 1
    styles = {}
    for layer, readoff in keys:
        if layer == "identity":
            marker = {"constant": "x", "minimax": "+"}.get(readoff, ".")
            styles[layer, readoff] = {
                "color": layers[layer].colour, "marker": marker, "markersize": 4, "linewidth": 0.7, "linestyle": ":",
            }  # fmt: skip
            continue
        colour = (layers[layer] if by_layer else readoffs[readoff]).colour
        styles[layer, readoff] = {
            "color": colour,
            "marker": readoffs[readoff].marker,
            "markerfacecolor": colour if layer == "trained" else "white",
            "markersize": 3.4,
            "markeredgewidth": 0.8,
            "linewidth": 0.9,
            "linestyle": "-" if layer == "trained" else (0, (5, 1)),
        }
    return styles


def gate_of(task: str) -> Gate | None:
    """Return the gate that a task computes on pairs, None for a task of another kind."""
    try:
        return Gate.parse(task)
    except InputError:
        return None


def task_title(task: str) -> str:
    """Name a task in a title: U-AND for a gate on all pairs, the task's own name for another."""
    return task if gate_of(task) is None else f"U-{task.upper()}"


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Name seeds: seed 3, seeds 0–4, or seeds 0, 2, 5."""
    if len(seeds) == 1:
        return f"seed\u00a0{seeds[0]}"
    in_a_row = list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    words = f"{seeds[0]}–{seeds[-1]}" if in_a_row and len(seeds) > 2 else ", ".join(map(str, seeds))
    return f"seeds\u00a0{words}"
