"""Does error correction between layers let a circuit in superposition go deep, and up to which error does it correct?

Two measurements. (a) One correction layer: errors ±ε of random sign, or Gaussian of RMS ε, on all m features go in, the
worst and the RMS error come out; and the ε at which the worst output error passes 1/2 (the tolerance), and the one at which
ones read 1/2 on average, held against c/√(m·p(1−p)), p = size/(d/2) the share of units that read a
feature. (b) Random circuits emulated layer by layer: worst error after each layer without correction, with it, and without
it at twice the width (as many neurons in all as with it). Measuring writes one line per size into depth.jsonl (a stopped
run goes on there); figure and tables are made from it alone.

    python analysis/depth.py --out analysis/results --figures docs/figures          # under 2 minutes on one free core
    python analysis/depth.py --out analysis/results --figures docs/figures --plot-only
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri

from toymodels.arguments import run_script
from toymodels.circuits.circuit import Circuit
from toymodels.circuits.correction import correction_layer, noisy_moments, step
from toymodels.circuits.depth import errors_by_depth, failing_depth, stages
from toymodels.circuits.sets import default_size
from toymodels.core.features import SparseFeatures
from toymodels.errors import InputError
from toymodels.experiments.study import Row, stored, study
from toymodels.figures.series import GREY, MARKERS, PALETTE
from toymodels.figures.style import Drawing, default_style, errors_axis, heading, new_figure, quiet, save
from toymodels.runs.storage import check_writable
from toymodels.runs.text import render
from toymodels.theory.statistics import mean_interval

COLOURS = PALETTE[:3]
MODES = ("without", "with", "without, 2d")
"""Emulations of a circuit: d neurons a layer, the same with corrections between, and 2d neurons a layer without."""


@dataclass(frozen=True)
class Depth:
    """Measure one correction layer over input errors, and emulated circuits over depth; draw the figure."""

    out: Path
    """Folder of the results, depth.jsonl."""
    figures: Path | None = None
    """Folder of the figure, depth.pdf and depth.png; default that of the results."""
    m: tuple[int, ...] = (200, 400, 800, 1600)
    """Nodes of each layer of the circuits, even; the figure shows the last three."""
    d: tuple[int, ...] = (1000, 2000, 4000)
    """Widths of the emulations; the figure shows the last."""
    s: int = 3
    """Active nodes of the circuits' inputs, a multiple of 3 for as many in all layers."""
    layers: int = 10
    """Depth of the circuits."""
    seeds: int = 5
    """Independent circuits, emulations and corrections for each size, 2 or more; their seeds are 0, 1, …"""
    inputs: int = 32
    """Inputs sampled for each."""
    corrections: tuple[tuple[int, int, int], ...] = (
        (500, 1000, 3), (500, 4000, 3), (2000, 4000, 3), (2000, 1000, 3), (1000, 2000, 1), (500, 4000, 8),
    )  # fmt: skip
    """(m, d, s) of the single correction layers; the figure shows the first three."""
    quick: bool = False
    """Small sizes only, to try the script: m = 20, 40, d = 200, 400, 3 layers, 2 seeds, 8 inputs."""
    plot_only: bool = False
    """Draw from the stored results, measure nothing."""

    def check(self) -> None:
        """Raise InputError for settings that make no figure; sizes are checked where they are used, before measuring."""
        if not self.m or not self.d or not self.corrections:
            raise InputError("m, d and corrections need at least one size each")
        if self.seeds < 2 or self.inputs < 1:
            raise InputError("an interval needs at least 2 seeds, and each at least 1 input")
        for name, sizes in (("m", self.m), ("d", self.d), ("corrections", self.corrections)):
            if len(set(sizes)) < len(sizes):
                raise InputError(f"{name} names a size twice: each is measured once")
        for m, _, s in self.corrections:
            if not 1 <= s <= m:
                raise InputError(f"corrections are triples (m, d, s) with s from 1 to m, got m = {m}, s = {s}")
        for m in self.m:
            Circuit.random(m, self.layers, 0).sample(1, self.s, 0)
        for _, d, s in (*self.corrections, *((0, d, self.s) for d in self.d)):
            default_size(d // 4, s)

    def sizes(self) -> Depth:
        """Return the settings in force: those of --quick where it is given."""
        if not self.quick:
            return self
        corrections = ((40, 400, 1), (40, 800, 1), (80, 800, 1))
        return dataclasses.replace(self, m=(20, 40), d=(200, 400), layers=3, seeds=2, inputs=8, corrections=corrections)

    def keys(self) -> list[Row]:
        """Return what identifies each line of the results."""
        common = {"seeds": self.seeds, "inputs": self.inputs}
        single = [
            {"kind": "correction", "m": m, "d": d, "s": s, "size": size, "noise": noise, **common}
            for m, d, s in self.corrections
            for size, noise in itertools.product(published_and_derived(d, s), ("sign", "gaussian"))
        ]
        deep = [
            {"kind": "depth", "m": m, "d": d, "s": self.s, "layers": self.layers, "mode": mode, **common}
            for d, m, mode in itertools.product(self.d, self.m, MODES)
        ]
        return single + deep


def published_and_derived(d: int, s: int) -> tuple[int, int]:
    """Return sizes of sets: default_size, p of order 1/√(s·n), and that of p = √(s/d), for which the paper states a tolerance."""
    n = d // 2
    return default_size(n, s), min(max(round(n * math.sqrt(s / d)), 1), n - 1)


GRID = [round(0.01 * 10 ** (i / 6), 4) for i in range(11)]
"""Input errors ε, 0.01 to 0.46."""


def measure_correction(key: Row) -> Row:
    """Measure worst and RMS output errors of every seed over the input errors, and the tolerances of each."""
    lines = [_one_correction(key, seed) for seed in range(key["seeds"])]
    return {"epsilon": GRID, **{name: [line[name] for line in lines] for name in lines[0]}}


@torch.no_grad()
def _one_correction(key: Row, seed: int) -> Row:
    m, d, s = key["m"], key["d"], key["s"]
    layer_seed, sample_seed, noise_seed = np.random.SeedSequence([seed, m, d, s]).generate_state(3).tolist()
    network = correction_layer(m, d, s, layer_seed, key["size"])
    x = SparseFeatures.exactly(m, s).sampled(key["inputs"], sample_seed).dense()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(noise_seed))
    noise = noise.sign() if key["noise"] == "sign" else noise

    def error(epsilon: float) -> torch.Tensor:
        return network(x + epsilon * noise) - x

    errors = [error(epsilon) for epsilon in GRID]
    return {
        "worst": [_short(e.abs().max()) for e in errors],
        "rms": [_short(e.square().mean().sqrt()) for e in errors],
        "tolerance": _short(_crossing(lambda epsilon: float(error(epsilon).abs().max()) > 0.5)),
        "halves": _short(_crossing(lambda epsilon: float(error(epsilon)[x > 0].mean()) < -0.5)),
    }


def _crossing(passed: Callable[[float], bool], low: float = 0.01, high: float = 4.0, ratio: float = 1.02) -> float:
    """Find where `passed` changes from no to yes, within `ratio`, by bisection of the logarithm; 0 if it is yes at 0."""
    if passed(0.0):
        return 0.0
    while high / low > ratio:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if passed(middle) else (middle, high)
    return math.sqrt(low * high)


def measure_depth(key: Row) -> Row:
    """Measure worst and RMS error and the share of wrong inputs after every layer, and the first depth that fails, by seed."""
    m, s, columns = key["m"], key["s"], {"worst": [], "rms": [], "wrong": [], "active": [], "fails": []}
    d = 2 * key["d"] if key["mode"] == "without, 2d" else key["d"]
    for seed in range(key["seeds"]):
        circuit = Circuit.random(m, key["layers"], seed)
        x = circuit.sample(key["inputs"], s, seed)
        errors = errors_by_depth(circuit, stages(circuit, d, s, seed, key["mode"] == "with"), x)
        for name in ("worst", "rms", "wrong", "active"):
            columns[name].append([_short(getattr(e, name)) for e in errors])
        columns["fails"].append(failing_depth(errors))
    return columns


def _short(value: float | torch.Tensor) -> float:
    return float(f"{float(value):.4g}")


def measure(key: Row) -> Row:
    """Measure one line of the results."""
    return measure_correction(key) if key["kind"] == "correction" else measure_depth(key)


def select(rows: list[Row], **values: Any) -> list[Row]:
    """Return the rows with these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in values.items())]


def _plus_minus(values: list[float]) -> str:
    mean, half = mean_interval(values)
    return f"{mean:.3f} ± {half:.3f}"


def tolerance_table(settings: Depth, rows: list[Row]) -> str:
    """Write tolerances and their constants, for every single correction layer."""
    cells: list[tuple[str, ...]] = []
    fits: dict[str, list[tuple[float, float]]] = {"halves": [], "tolerance": [], "paper": []}
    for row in select(rows, kind="correction"):
        p = row["size"] / (row["d"] // 2)
        noise, paper = math.sqrt(row["m"] * p * (1 - p)), (row["m"] ** 2 * row["s"] / row["d"]) ** 0.25
        tolerance, halves = row["tolerance"], row["halves"]
        cells.append((
            str(row["m"]), str(row["d"]), str(row["s"]), str(row["size"]), row["noise"], _plus_minus(tolerance),
            _plus_minus([noise * value for value in tolerance]), f"{np.mean(tolerance) * paper:.3f}", _plus_minus(halves),
            _plus_minus([noise * value for value in halves]), _plus_minus([rms[0] for rms in row["rms"]]),
            f"{math.sqrt(2 * row['s'] / row['d']):.3f}",
        ))  # fmt: skip
        if row["noise"] == "sign" and min(*tolerance, *halves) > 0:
            fits["halves"].append((noise, np.mean(halves)))
            fits["tolerance"].append((noise, np.mean(tolerance)))
            if row["size"] == published_and_derived(row["d"], row["s"])[1]:
                fits["paper"].append((paper, np.mean(tolerance)))
    header = (
        "m",
        "d",
        "s",
        "size",
        "noise",
        "tolerance",
        "c",
        "c by Thm 21",
        "ones halved",
        "c",
        "RMS out, ε = 0.01",
        "√(2s/d)",
    )
    return (
        "One correction layer: tolerance = input error ε at which the worst output error passes 1/2 (0: it does without any);\n"
        f"ones halved: ε at which ones read 1/2 on average; {settings.inputs} inputs × {settings.seeds} seeds, ± 95 %\n"
        f"{render(header, cells, right=(0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11))}\n"
        "c = ε·√(m·p(1−p)), p = size/(d/2); by Theorem 21: tolerance·m^(1/2)·s^(1/4)/d^(1/4). Sign noise:\n"
        f"ones halved, all sizes: {_fitted(fits['halves'])}; predicted c = {_halving():.3f}\n"
        f"tolerance, all sizes: {_fitted(fits['tolerance'])}\n"
        f"tolerance by Theorem 21, p = √(s/d) only: {_fitted(fits['paper'])}"
    )


def _halving() -> float:
    """Return the τ at which ones read 1/2: E[step(1 + τg)] − E[step(τg)] = 1 − 2·E[step(τg)], g standard normal (many units)."""
    normal = torch.from_numpy(ndtri((np.arange(4096) + 0.5) / 4096))
    return _crossing(lambda tau: float(step(tau * normal).mean()) > 0.25, ratio=1.001)


def _fitted(points: list[tuple[float, float]]) -> str:
    """Write the constant c of ε = c/x from points (x, ε), and the power of x that fits best."""
    if len(points) < 3:
        return "too few sizes for a fit"
    x, epsilon = np.array(points).T
    constants, power = x * epsilon, np.polyfit(np.log(x), np.log(epsilon), 1)[0]
    mean = np.exp(np.log(constants).mean())
    return f"c = {mean:.3f}, {constants.min():.3f} to {constants.max():.3f} over {len(x)}; fitted power {power:.2f} (theory −1)"


def depth_table(settings: Depth, rows: list[Row]) -> str:
    """Write the depth at which each emulation fails, and its errors after the first and the last layer."""
    cells = []
    for row in select(rows, kind="depth"):
        fails = sorted(row["layers"] + 1 if depth is None else depth for depth in row["fails"])
        depths = " ".join(f">{row['layers']}" if depth > row["layers"] else str(depth) for depth in fails)
        wrong = [np.flatnonzero(np.array(line) > 0) for line in row["wrong"]]
        first = sorted(int(depths[0]) + 1 if len(depths) else row["layers"] + 1 for depths in wrong)
        booleans = " ".join(f">{row['layers']}" if depth > row["layers"] else str(depth) for depth in first)
        cells.append((
            str(row["d"]), str(row["m"]), str(row["s"]), row["mode"], depths, booleans,
            _plus_minus([line[0] for line in row["worst"]]), _plus_minus([line[-1] for line in row["worst"]]),
            _plus_minus([line[-1] for line in row["wrong"]]),
        ))  # fmt: skip
    header = (
        "d",
        "m",
        "s",
        "correction",
        "worst > 1/2 at",
        "a boolean wrong at",
        "worst, layer 1",
        "worst, last",
        "wrong, last",
    )
    return (
        f"Circuits of {settings.layers} layers, {settings.inputs} inputs sampled for each of {settings.seeds} seeds; "
        f"depths by seed, sorted; wrong: share of inputs with a wrong boolean; ± 95 %\n"
        f"{render(header, cells, right=(0, 1, 2, 6, 7, 8))}"
    )


def plot(settings: Depth, rows: list[Row]) -> Drawing:
    """Draw errors out over errors in, and errors over depth."""
    figure = new_figure(3.7)
    left, right = figure.subplots(1, 2)
    _plot_corrections(settings, rows, left)
    _plot_depths(settings, rows, right)
    title = (
        f"Error correction between layers: worst error over all nodes and {settings.inputs} sampled inputs, "
        f"mean and 95 % interval over {settings.seeds} seeds (0–{settings.seeds - 1})"
    )
    heading(figure, title)
    text = f"{tolerance_table(settings, rows)}\n\n{depth_table(settings, rows)}"
    return Drawing("depth", title, figure, text)


def _band(axis: Any, x: Any, lines: list[list[float]], **look: Any) -> None:
    """Draw means over seeds with intervals; bars end at 1e-3, because a logarithmic axis cannot show less than 0."""
    mean, half = np.array([mean_interval(list(values)) for values in zip(*lines, strict=True)], dtype=float).T
    axis.errorbar(x, mean, [np.minimum(half, mean - 1e-3), half], elinewidth=0.7, linewidth=0.9, markersize=3, **look)


def _plot_corrections(settings: Depth, rows: list[Row], axis: Any) -> None:
    for index, (m, d, s) in enumerate(settings.corrections[:3]):
        size = published_and_derived(d, s)[0]
        row = select(rows, kind="correction", m=m, d=d, s=s, size=size, noise="sign")[0]
        colour, marker = COLOURS[index], MARKERS[index]
        name = f"m = {m:,}, d = {d:,}, s = {s}"
        _band(axis, row["epsilon"], row["worst"], color=colour, marker=marker, label=f"worst, {name}")
        look = {"color": colour, "marker": marker, "markerfacecolor": "white", "linestyle": "none"}
        _band(axis, row["epsilon"], row["rms"], **look)
        grid = np.geomspace(row["epsilon"][0], row["epsilon"][-1], 40)
        axis.plot(grid, [_predicted_rms(m, d, s, float(e), size) for e in grid], color=colour, linewidth=0.7)
    ends = [GRID[0], GRID[-1]]
    axis.plot(ends, ends, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="out = in")
    axis.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axis.set_xscale("log")
    axis.set_xlabel("input error: ±ε on every feature", fontsize=8)
    axis.set_ylabel("output error", fontsize=8)
    axis.set_title("(a) one correction layer; open: RMS, lines: predicted", fontsize=7.5)
    quiet(axis)
    errors_axis(axis)
    _plain_ticks(axis)
    axis.legend(fontsize=5.8, frameon=False, loc="upper left")


def _predicted_rms(m: int, d: int, s: int, epsilon: float, size: int) -> float:
    law = noisy_moments(m, d, s, epsilon, size)
    zero, one = law.zero_mean**2 + law.zero_std**2, law.one_mean**2 + law.one_std**2
    return math.sqrt(((m - s) * zero + s * one) / m)


def _plain_ticks(axis: Any) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    axis.xaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.4]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _plot_depths(settings: Depth, rows: list[Row], axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    styles = {"with": "-", "without": (0, (5, 1.5)), "without, 2d": ":"}
    d, depths = settings.d[-1], np.arange(1, settings.layers + 1)
    for index, m in enumerate(settings.m[-3:]):
        for offset, (mode, line) in enumerate(styles.items()):
            row = select(rows, kind="depth", m=m, d=d, mode=mode)[0]
            colour, filled = COLOURS[index], mode == "with"
            look = {"color": colour, "marker": MARKERS[index], "linestyle": line}
            name = f"{m:,}, {mode}"
            shifted = depths + 0.06 * (offset - 1)
            _band(axis, shifted, row["worst"], markerfacecolor=colour if filled else "white", label=name, **look)
    axis.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("layers of the circuit", fontsize=8)
    axis.set_ylabel("worst error", fontsize=8)
    axis.set_ylim(0, 1.45)
    axis.set_title(f"(b) random circuits, d = {d:,}, s = {settings.s} active", fontsize=7.5)
    quiet(axis)
    # A column for each m, filled from the top: two columns would part the entries of one m.
    look = {"fontsize": 5.4, "title_fontsize": 5.4, "columnspacing": 1.2, "handlelength": 2.4, "frameon": False}
    axis.legend(ncols=3, loc="upper left", title="nodes m, with or without correction", alignment="left", **look)


def main(settings: Depth) -> str:
    """Measure (unless told not to), store, draw; returns what to print."""
    settings = settings.sizes()
    settings.check()
    path = settings.out / "depth.jsonl"
    for file in (path, (settings.figures or settings.out) / "depth.png"):
        check_writable(file)
    torch.set_num_threads(1)
    keys = settings.keys()
    rows = stored(path, keys) if settings.plot_only else study(path, keys, measure)
    with default_style():
        drawing = plot(settings, rows)
    files = save(drawing, settings.figures or settings.out)
    return "\n".join([drawing.title, drawing.text, "", *(str(file) for file in (path, *files))])


if __name__ == "__main__":
    run_script(Depth, main)
