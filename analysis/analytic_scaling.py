"""Does the error of the analytic readoff fall as 1/√d at finite width, and with what constant?

Frozen Gaussian layers of 64 to 65,536 neurons, up to 1,024 features, exactly s = 2, 3, 4, 8 of them active: RMS error at
zeros and ones, and the largest error over a sample of inputs and pairs, against the closed forms. Layers are drawn and
read in blocks of neurons, so memory does not grow with the width. Measuring writes one line per size into
analytic_scaling.jsonl (a stopped run goes on there); the figure and the fits are made from that file alone.

    python analysis/analytic_scaling.py --out analysis/results          # about 4 minutes on one free core
    python analysis/analytic_scaling.py --out analysis/results --plot-only
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from toymodels.arguments import run_script
from toymodels.errors import InputError
from toymodels.experiments.study import Row, stored, study
from toymodels.fast.streaming import analytic_rule, case_errors, sample_cases, stream_outputs
from toymodels.figures.series import GREY, MARKERS, PALETTE
from toymodels.figures.style import Drawing, default_style, heading, new_figure, quiet, save
from toymodels.runs.storage import write_atomically
from toymodels.runs.text import render
from toymodels.theory.counts import case_shares
from toymodels.theory.extremes import max_error_distribution
from toymodels.theory.gates import Gate
from toymodels.theory.quadrants import error_std, rms_by_value
from toymodels.theory.statistics import quantile_interval, root_interval

COLOURS = PALETTE[:4]
BLOCK = 2048
"""Neurons drawn at a time; part of what a seed means."""


@dataclass(frozen=True)
class Scaling:
    """Measure the analytic readoff against theory over widths, and draw the figure."""

    out: Path
    """Folder of the results, analytic_scaling.jsonl and analytic_scaling_fits.jsonl."""
    figures: Path | None = None
    """Folder of the figure, analytic_scaling.pdf and analytic_scaling.png; default that of the results."""
    task: str = "and"
    """The gate on every pair."""
    m: tuple[int, ...] = (64, 1024)
    """Numbers of features; the figure shows the last, the fits are printed for each."""
    s: tuple[int, ...] = (2, 3, 4, 8)
    """Numbers of active features, exactly; at most four, 2 or more each."""
    d: tuple[int, ...] = (64, 256, 1024, 4096, 16384, 65536)
    """Widths: neurons, 10 or more."""
    layers: int = 16
    """Independent layers for each size, 2 or more; their seeds are 0, 1, … with m, s and d."""
    inputs: int = 300
    """Inputs sampled anew for each layer, with about three pairs for each."""
    quick: bool = False
    """Small sizes only, to try the script: one m = 64, d = 64, 256, 1,024, s = 2, 3, 8 layers, 60 inputs."""
    plot_only: bool = False
    """Draw from the stored results, measure nothing."""

    def check(self) -> None:
        """Raise InputError for settings that make no figure."""
        Gate.parse(self.task)
        if not self.m or not self.d or not 1 <= len(self.s) <= len(COLOURS):
            raise InputError("m, d and s need at least one number each, and s at most four")
        if min(self.s) < 2 or max(self.s) > min(self.m) - 2 or min(self.d) < 10:
            raise InputError("s lies between 2 and m − 2, and d is at least 10")
        if self.layers < 2 or self.inputs < 1:
            raise InputError("an interval needs at least 2 layers, and each at least 1 input")

    def sizes(self) -> Scaling:
        """Return the settings in force: those of --quick where it is given."""
        if not self.quick:
            return self
        return dataclasses.replace(self, m=(64,), s=(2, 3), d=(64, 256, 1024), layers=8, inputs=60)

    def keys(self) -> list[Row]:
        """Return what identifies each line of the results."""
        task = Gate.parse(self.task).name
        return [
            {"task": task, "m": m, "s": s, "d": d, "layers": self.layers, "inputs": self.inputs}
            for m, s, d in itertools.product(self.m, self.s, self.d)
        ]


def measure_size(key: Row) -> Row:
    """Measure mean squared errors and the largest error of every layer, and count the errors measured."""
    gate, m, s, d = Gate.parse(key["task"]), key["m"], key["s"], key["d"]
    shares, rule = case_shares(m, s), analytic_rule(gate, s)
    columns: dict[str, list[Any]] = {"zeros": [], "ones": [], "worst": [], "count": []}
    for seed in range(key["layers"]):
        # A seed makes another layer at each size: with one stream for all, wide layers would hold the narrow ones.
        layer_seed, sample_seed = (int(state) for state in np.random.SeedSequence([seed, m, s, d]).generate_state(2))
        x, task = sample_cases(m, s, gate, key["inputs"], sample_seed)
        outputs = stream_outputs(rule, d, task, x, layer_seed, BLOCK)
        errors = case_errors(outputs, task, x)
        for value, name in enumerate(("zeros", "ones")):
            columns[name].append(float(f"{rms_by_value(gate, value, shares, errors.mean_square) ** 2:.6g}"))
        columns["worst"].append(float(f"{errors.worst:.6g}"))
        columns["count"].append(errors.count)
    return {
        "seeds": list(range(key["layers"])), "errors_by_case": np.mean(columns["count"], axis=0).round(2).tolist(),
        "mean_square_zeros": columns["zeros"], "mean_square_ones": columns["ones"], "worst": columns["worst"],
    }  # fmt: skip


def select(rows: list[Row], m: int, s: int) -> list[Row]:
    """Return the rows of one line of the figure, by width."""
    return sorted((row for row in rows if (row["m"], row["s"]) == (m, s)), key=lambda row: row["d"])


def predicted_median(gate: Gate, row: Row, d: int | None = None) -> float:
    """Return the predicted median over layers of the largest of the row's errors, at its width or another."""
    largest = max_error_distribution(gate, row["m"], row["s"], d or row["d"], row["inputs"])
    per_input = tuple(count / row["inputs"] for count in row["errors_by_case"])
    return dataclasses.replace(largest, counts=per_input).quantile(0.5)


def weighted_mean(values: np.ndarray, errors: np.ndarray, degrees: int) -> tuple[float, float]:
    """Return (mean with weights 1/error², half-width of its 95 % interval)."""
    weight = 1 / errors**2
    return float(weight @ values / weight.sum()), float(stats.t.ppf(0.975, degrees) / math.sqrt(weight.sum()))


def slope(d: np.ndarray, values: np.ndarray, errors: np.ndarray, degrees: int) -> tuple[float, float]:
    """Return (slope of log values against log d, half-width of its 95 % interval), weighted by relative errors."""
    x, y, weight = np.log(d), np.log(values), (values / errors) ** 2
    centred = x - weight @ x / weight.sum()
    spread = weight @ centred**2
    return float(weight @ (centred * y) / spread), float(stats.t.ppf(0.975, degrees) / math.sqrt(spread))


def fits(settings: Scaling, rows: list[Row]) -> list[Row]:
    """Fit, for each m, s and error, the slope against d and the constant error·√d, with intervals, beside theory.

    The constant of the largest error is that of the widths from 1,024 on, over σ√(2 ln N) for N errors measured: it tends to
    1 slowly, from below.
    """
    gate, found = Gate.parse(settings.task), []
    sigma, n = {s: error_std(gate, s) for s in settings.s}, settings.layers
    for m, s in itertools.product(settings.m, settings.s):
        line = select(rows, m, s)
        d = np.array([row["d"] for row in line], dtype=float)
        for value, name in enumerate(("zeros", "ones")):
            squares = np.array([row[f"mean_square_{name}"] for row in line])
            rms = np.sqrt(squares.mean(axis=1))
            error = squares.std(axis=1, ddof=1) / math.sqrt(n) / (2 * rms)
            theory = rms_by_value(gate, value, case_shares(m, s), sigma[s] ** 2)
            constant = weighted_mean(rms * np.sqrt(d), error * np.sqrt(d), n - 1)
            found.append(_fit(m, s, f"RMS at {name}", slope(d, rms, error, n - 1), -0.5, constant, theory))
        worst = np.array([row["worst"] for row in line])
        typical = np.exp(np.log(worst).mean(axis=1))
        error = typical * np.log(worst).std(axis=1, ddof=1) / math.sqrt(n)
        medians = np.array([predicted_median(gate, row) for row in line])
        wide = d >= min(1024, d.max())
        leading = float(sigma[s].max()) * np.sqrt(2 * np.log([sum(row["errors_by_case"]) for row in line]) / d)
        constant = weighted_mean((typical / leading)[wide], (error / leading)[wide], n - 1)
        theory = weighted_mean((medians / leading)[wide], (error / leading)[wide], n - 1)[0]
        power = slope(d, typical, error, n - 1)
        found.append(_fit(m, s, "largest", power, slope(d, medians, error, n - 1)[0], constant, theory))
    return found


def _fit(
    m: int, s: int, error: str, power: tuple[float, float], power_theory: float, constant: tuple[float, float],
    theory: float,
) -> Row:  # fmt: skip
    return {
        "m": m, "s": s, "error": error, "slope": power[0], "slope_interval": power[1], "slope_theory": power_theory,
        "constant": constant[0], "constant_interval": constant[1], "constant_theory": theory,
    }  # fmt: skip


def table(settings: Scaling, found: list[Row]) -> str:
    """Write the fits as a table in plain text."""
    cells = [
        (str(f["m"]), str(f["s"]), f["error"], f"{f['slope']:.4f} ± {f['slope_interval']:.4f}", f"{f['slope_theory']:.4f}",
         f"{f['constant']:.4f} ± {f['constant_interval']:.4f}", f"{f['constant_theory']:.4f}")
        for f in found
    ]  # fmt: skip
    header = ("m", "s", "error", "slope", "theory", "constant", "theory")
    return (
        f"U-{Gate.parse(settings.task).name.upper()}, analytic readoff, d = {min(settings.d):,} to {max(settings.d):,}; "
        f"{settings.inputs} inputs and about {3 * settings.inputs:,} pairs sampled for each of {settings.layers} layers "
        f"(seeds 0–{settings.layers - 1}); ± 95 %\n{render(header, cells, right=(0, 1, 3, 4, 5, 6))}\n"
        "slope: of log error against log d. constant of an RMS error: error·√d; of the largest: over σ√(2 ln N/d), N errors\n"
        "measured, widths from 1,024 on (mean logarithm over layers; theory: median)."
    )


def label(axis: Any, text: str, x: float, y: float, colour: str) -> None:
    """Write the name of a line to the right of its last point."""
    axis.annotate(text, (x, y), (6, 0), textcoords="offset points", color=colour, fontsize=7, va="center")


def fitted(found: list[Row], m: int, error: str) -> str:
    """Write the slopes and constants of the lines of one panel."""
    lines = ["fitted slope, constant (theory)"]
    for fit in found:
        if (fit["m"], fit["error"]) == (m, error):
            constant = f"{fit['constant']:.3f} ± {fit['constant_interval']:.3f} ({fit['constant_theory']:.3f})"
            lines.append(f"s = {fit['s']}:  {fit['slope']:.4f} ± {fit['slope_interval']:.4f},  {constant}")
    return "\n".join(lines)


def plot(settings: Scaling, rows: list[Row], found: list[Row]) -> Drawing:
    """Draw errors over widths above, measured over predicted below."""
    gate, m = Gate.parse(settings.task), settings.m[-1]
    figure = new_figure(4.5)
    axes = figure.subplots(2, 2, sharex=True, height_ratios=(2.6, 1))
    grid = np.geomspace(min(settings.d), max(settings.d), 60).round().astype(int)
    for index, s in enumerate(settings.s):
        colour, marker = COLOURS[index], MARKERS[index]
        line, sigma = select(rows, m, s), error_std(gate, s)
        d = np.array([row["d"] for row in line], dtype=float)
        dodge = d * 1.16 ** (index - (len(settings.s) - 1) / 2)
        style = {"color": colour, "marker": marker, "markersize": 3.6, "linestyle": "none", "elinewidth": 0.9}
        for value, name in enumerate(("zeros", "ones")):
            theory = rms_by_value(gate, value, case_shares(m, s), sigma**2)
            points = [root_interval(row[f"mean_square_{name}"]) for row in line]
            rms = np.array([point[0] for point in points])
            bars = np.abs(np.array([point[1] for point in points]).T - rms)
            look = {**style, "markerfacecolor": "white" if value else colour, "markeredgewidth": 0.8}
            shift = dodge * (1.05 if value else 1 / 1.05)
            axes[1, 0].errorbar(shift, rms * np.sqrt(d) / theory, bars * np.sqrt(d) / theory, **look)
            if not value:
                axes[0, 0].plot(grid, theory / np.sqrt(grid), color=colour, linewidth=1)
                axes[0, 0].errorbar(d, rms, bars, **look)
                label(axes[0, 0], f"s = {s}", d[-1], theory / math.sqrt(d[-1]), colour)
        medians = np.array([predicted_median(gate, row) for row in line])
        points = [quantile_interval(row["worst"], 0.5) for row in line]
        middle = np.array([point[0] for point in points])
        ends = np.array([point[1] or (point[0], point[0]) for point in points]).T
        bars = np.abs(ends - middle)
        predicted = [predicted_median(gate, line[0], int(width)) for width in grid]
        axes[0, 1].plot(grid, predicted, color=colour, linewidth=1)
        axes[0, 1].errorbar(d, middle, bars, **style)
        label(axes[0, 1], f"s = {s}", d[-1], medians[-1], colour)
        axes[1, 1].errorbar(dodge, middle / medians, bars / medians, **style)
    _finish(settings, axes, gate)
    n = sum(select(rows, m, settings.s[0])[0]["errors_by_case"])
    axes[0, 0].set_title("RMS error at zeros;\nlines: σ/√d", fontsize=8.5)
    axes[0, 1].set_title(f"largest of {n:,.0f} errors, median over layers;\nlines: predicted median", fontsize=8.5)
    for axis, error in zip(axes[0], ("RMS at zeros", "largest"), strict=True):
        style = {"fontsize": 5.4, "color": "0.2", "ha": "right", "va": "top"}
        axis.text(1, 1, fitted(found, m, error), transform=axis.transAxes, **style)
    title = (
        f"U-{gate.name.upper()}, analytic readoff of frozen Gaussian layers: m = {m:,}, exactly s active; {settings.inputs} "
        f"inputs × about {3 * settings.inputs:,} pairs sampled for each of {settings.layers} layers "
        f"(seeds 0–{settings.layers - 1}); bars: 95 % intervals over layers"
    )
    heading(figure, title)
    return Drawing("analytic_scaling", title, figure, table(settings, found))


def _finish(settings: Scaling, axes: Any, gate: Gate) -> None:
    """Label and scale the axes, and draw the affine floor and the line of agreement."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    for axis in axes[0]:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        floor = gate.affine_floor
        axis.axhline(floor, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        left = axis is axes[0, 1]  # where no line crosses it
        axis.annotate(f"affine floor {floor:g}", (0.01 if left else 1, floor), (0, 2.5), textcoords="offset points",
                      xycoords=("axes fraction", "data"), color=GREY, fontsize=6.5, ha="left" if left else "right")  # fmt: skip
    for axis in axes[1]:
        axis.axhline(1, color=GREY, linewidth=0.8)
        axis.set_xlabel("width d (neurons)", fontsize=8)
    octaves = math.log2(max(settings.d) / min(settings.d)) + 1
    for axis in axes.flat:
        axis.set_xscale("log", base=2)
        axis.set_xlim(min(settings.d) / 1.6, max(settings.d) * 2 ** (0.2 * octaves))  # room for the labels
        axis.xaxis.set_major_locator(FixedLocator(sorted(settings.d)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        quiet(axis)
    axes[0, 0].set_ylabel("error (output − target)", fontsize=8)
    axes[1, 0].set_ylabel("measured /\npredicted", fontsize=8)
    axes[1, 0].set_title("RMS at zeros (filled) and at ones (open)", fontsize=7.5)
    axes[1, 1].set_title("largest error, median", fontsize=7.5)


def main(settings: Scaling) -> str:
    """Measure (unless told not to), store, fit, draw; returns what to print."""
    settings = settings.sizes()
    settings.check()
    path = settings.out / "analytic_scaling.jsonl"
    torch.set_num_threads(1)  # the products are short, and a second thread slows other processes
    rows = stored(path, settings.keys()) if settings.plot_only else study(path, settings.keys(), measure_size)
    found = fits(settings, rows)
    text = "".join(json.dumps(fit) + "\n" for fit in found)
    write_atomically(settings.out / "analytic_scaling_fits.jsonl", partial(Path.write_text, data=text))
    with default_style():
        drawing = plot(settings, rows, found)
    files = save(drawing, settings.figures or settings.out)
    return "\n".join([drawing.text, "", *map(str, (path, *files))])


if __name__ == "__main__":
    run_script(Scaling, main)
