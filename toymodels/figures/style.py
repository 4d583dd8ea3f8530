"""Draw every figure alike: sizes, axes, legends, titles; save it as PDF and PNG, or embed it in a page.

Nothing here opens a window or reads the user's matplotlib settings: each figure has a canvas of its own, and
`default_style` puts matplotlib's defaults in force.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from toymodels.runs.storage import write_atomically

WIDTH = 7.0
"""Inches: the width of a page, or of two columns of a paper."""
LETTERS_PER_INCH = 14.5
"""Letters of a title that fit into an inch of the figure's width."""


@dataclass(frozen=True)
class Drawing:
    """A figure, its title, and its numbers."""

    name: str
    """Name of its files, without the ending."""
    title: str
    figure: Any
    """A matplotlib Figure."""
    text: str = ""
    """Fits and numbers, as a table in plain text."""


@contextmanager
def default_style() -> Iterator[None]:
    """Put matplotlib's defaults in force: a user's style file changes no figure. What was in force comes back at the end."""
    matplotlib = _matplotlib()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def _matplotlib() -> Any:
    """Import matplotlib, whatever MPLBACKEND and the user's style file say: figures use neither."""
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    except ImportError:
        raise
    except Exception:  # matplotlibrc cannot be read
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]  # parts of the import that failed
        style = os.environ.get("MATPLOTLIBRC")
        os.environ["MATPLOTLIBRC"] = os.devnull
        import matplotlib

        os.environ.pop("MATPLOTLIBRC")
        os.environ.update({"MATPLOTLIBRC": style} if style is not None else {})
    if backend is not None:
        os.environ["MPLBACKEND"] = backend
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend  # for figures that the user draws in this process
    return matplotlib


def new_figure(height: float | int, width: float | int = WIDTH) -> Any:
    """Make an empty figure of this size in inches, without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def heading(figure: Any, text: str) -> None:
    """Write the figure's title in as many lines as it needs; a second call adds a line."""
    before = figure.get_suptitle()
    lines = textwrap.wrap(text, int(LETTERS_PER_INCH * figure.get_figwidth()))
    figure.suptitle("\n".join([*([before] if before else []), *lines]), fontsize=8.5)


_LINES = 4
"""Lines of a legend that a figure's height has room for."""


def legend(figure: Any, columns: int = 3, axes: Iterable[Any] | None = None, fontsize: float | int = 6.5) -> None:
    """Draw one legend below all panels, each label of these axes (default: of all) once.

    A long one makes the figure higher, so that panels keep their size.
    """
    drawn = [axis.get_legend_handles_labels() for axis in (figure.axes if axes is None else axes)]
    entries = {label: handle for handles, labels in drawn for handle, label in zip(handles, labels, strict=True)}
    if entries:
        lines = -(-len(entries) // columns)
        figure.set_figheight(figure.get_figheight() + max(0, lines - _LINES) * fontsize / 50)
        style = {"loc": "outside lower center", "ncols": columns, "fontsize": fontsize, "frameon": False}
        figure.legend(entries.values(), entries.keys(), **style)


def outer_labels(axes: Any, x: str, y: str) -> None:
    """Label the x axes of the last line of panels, and the y axes of the first column; `axes` holds lines of panels."""
    for axis in axes[-1]:
        axis.set_xlabel(x, fontsize=8)
    for line in axes:
        line[0].set_ylabel(y, fontsize=8)


def quiet(axis: Any, **labels: str) -> None:
    """Give an axis small ticks, a faint grid and no box, and small `labels`: xlabel, ylabel, title."""
    for name, text in labels.items():
        getattr(axis, f"set_{name}")(text, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(True, which="major", color="0.92", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def sizes_axis(axis: Any, sizes: Sequence[int | float], which: str = "x") -> None:
    """Make an axis ("x" or "y") logarithmic, with ticks at the sizes measured, as far as their labels have room."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    getattr(axis, f"set_{which}scale")("log")
    line = getattr(axis, f"{which}axis")
    ticks: list[int | float] = []
    gap = (max(sizes) / min(sizes)) ** 0.11 if which == "x" else 1.0
    for size in sizes:
        if not ticks or size >= ticks[-1] * gap:
            ticks.append(size)
    line.set_major_locator(FixedLocator(ticks))
    line.set_minor_locator(NullLocator())
    line.set_minor_formatter(NullFormatter())
    line.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def errors_axis(axis: Any) -> None:
    """Make the y axis logarithmic with plain numbers: at 1, 2 and 5 of each decade, or more in less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 12 * low else (1, 1.5, 2, 3, 4, 5, 7)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """Write the figure as NAME.pdf and NAME.png into the folder; returns both paths."""
    files = [folder / f"{drawing.name}{suffix}" for suffix in (".pdf", ".png")]
    with default_style():
        for path in files:
            write_atomically(path, partial(drawing.figure.savefig, dpi=200, format=path.suffix[1:]))
    return files


def embedded(drawing: Drawing) -> str:
    """Return the figure as the data: address of an SVG image, the same bytes each time."""
    with default_style():
        _matplotlib().rcParams["svg.hashsalt"] = "toymodels"
        buffer = io.BytesIO()
        drawing.figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
