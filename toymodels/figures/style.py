"""What every figure shares: colours told apart with any colour vision, quiet axes, files as PDF and PNG."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from toymodels.runs.storage import write_atomically

READOFF_COLOURS = {
    "constant": "0.35",
    "analytic": "#CC79A7",
    "least_squares": "#009E73",
    "balanced": "#56B4E9",
    "trained": "#0072B2",
    "minimax": "#D55E00",
}
"""Of Okabe and Ito's palette."""
READOFF_MARKERS = {
    "constant": "x",
    "analytic": "v",
    "least_squares": "^",
    "balanced": "D",
    "trained": "s",
    "minimax": "o",
}
OTHER_COLOUR, OTHER_MARKER = "#E69F00", "P"
GREY = "0.35"
WIDTH = 7.0
"""Inches: a page's width, two columns of a paper."""


@dataclass(frozen=True)
class Drawing:
    """A figure, and what it shows in words and numbers."""

    name: str
    """Stem of its files."""
    title: str
    figure: Any
    text: str = ""
    """Fits and numbers, as a table in plain text."""


def new_figure(height: float, width: float = WIDTH) -> Any:
    """An empty figure of this size (inches), without any window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def heading(figure: Any, text: str) -> None:
    """The figure's title, in as many lines as it needs; a second call adds a line."""
    before = figure.get_suptitle()
    lines = textwrap.wrap(text, int(14.5 * figure.get_figwidth()))
    figure.suptitle("\n".join([*([before] if before else []), *lines]), fontsize=8.5)


def series_name(layer: str, readoff: str) -> str:
    """A first layer and a readoff in words."""
    first = {"identity": "no layer", "trained": "trained layer"}.get(layer, f"frozen {layer}")
    return f"{first}, {readoff.replace('_', ' ')}"


def series_style(layer: str, readoff: str) -> dict[str, Any]:
    """Colour and marker by readoff; trained layers filled and full lines, frozen ones open and dashed, none grey."""
    colour = READOFF_COLOURS.get(readoff, OTHER_COLOUR)
    if layer == "identity":  # what every layer is to be held against: in the background
        marker = {"constant": "x", "minimax": "+"}.get(readoff, ".")
        return {"color": "0.55", "marker": marker, "markersize": 4, "linewidth": 0.7, "linestyle": ":"}
    return {
        "color": colour,
        "marker": READOFF_MARKERS.get(readoff, OTHER_MARKER),
        "markerfacecolor": colour if layer == "trained" else "white",
        "markersize": 3.4,
        "markeredgewidth": 0.8,
        "linewidth": 0.9,
        "linestyle": "-" if layer == "trained" else (0, (5, 1)),
    }


def quiet(axis: Any) -> None:
    """Small ticks, a faint grid, no box."""
    axis.tick_params(labelsize=7)
    axis.grid(True, which="major", color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def sizes_axis(axis: Any, places: Sequence[int | float], which: str = "x") -> None:
    """A logarithmic axis ticked at the sizes that were measured, as far as their labels have room."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    getattr(axis, f"set_{which}scale")("log")
    line = getattr(axis, f"{which}axis")
    shown: list[int | float] = []
    room = (max(places) / min(places)) ** 0.11 if which == "x" else 1.0
    for place in places:
        if not shown or place >= shown[-1] * room:
            shown.append(place)
    line.set_major_locator(FixedLocator(shown))
    line.set_minor_locator(NullLocator())
    line.set_minor_formatter(NullFormatter())
    line.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def errors_axis(axis: Any) -> None:
    """A logarithmic y axis with plain numbers, at 1, 2 and 5 of each decade, or more where it has one at most."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 12 * low else (1, 1.5, 2, 3, 4, 5, 7)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """The figure as NAME.pdf and NAME.png in the folder."""
    files = [folder / f"{drawing.name}{suffix}" for suffix in (".pdf", ".png")]
    for path in files:
        kind = path.suffix[1:]
        write_atomically(path, partial(drawing.figure.savefig, dpi=200, format=kind))
    return files


def embedded(drawing: Drawing) -> str:
    """The figure as a data: address of an SVG image, the same bytes each time."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "toymodels"}):
        drawing.figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
