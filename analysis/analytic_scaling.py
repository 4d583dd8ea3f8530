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
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from tqdm import tqdm

from toymodels.arguments import parse
from toymodels.errors import InputError
from toymodels.fast.streaming import analytic_rule, case_errors, sample_cases, stream_outputs
from toymodels.runs.storage import write_atomically
from toymodels.theory.counts import case_shares
from toymodels.theory.extremes import max_error_distribution
from toymodels.theory.gates import Gate
from toymodels.theory.quadrants import error_std, rms_by_value
from toymodels.theory.statistics import quantile_interval, root_interval

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Blue, vermilion, green and purple of Okabe and Ito's palette, told apart with any colour vision."""
MARKERS = ("o", "s", "^", "D")
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
        """Raises InputError for settings that make no figure."""
        Gate.parse(self.task)
        if not self.m or not self.d or not 1 <= len(self.s) <= len(COLOURS):
            raise InputError("m, d and s need at least one number each, and s at most four")
        if min(self.s) < 2 or max(self.s) > min(self.m) - 2 or min(self.d) < 10:
            raise InputError("s lies between 2 and m − 2, and d is at least 10")
        if self.layers < 2 or self.inputs < 1:
            raise InputError("an interval needs at least 2 layers, and each at least 1 input")

    def sizes(self) -> Scaling:
        """The settings in force: those of --quick where it is given."""
        if not self.quick:
            return self
        return dataclasses.replace(self, m=(64,), s=(2, 3), d=(64, 256, 1024), layers=8, inputs=60)


def measure_size(gate: Gate, m: int, s: int, d: int, layers: int, inputs: int) -> dict[str, Any]:
    """One line of results: mean squared errors and the largest error of every layer, and how many errors were looked at."""
    shares, rule = case_shares(m, s), analytic_rule(gate, s)
    found: dict[str, list[Any]] = {"zeros": [], "ones": [], "worst": [], "count": []}
    for seed in range(layers):
        # A seed makes another layer at each size: with one stream for all, wide layers would hold the narrow ones.
        layer_seed, sample_seed = (int(state) for state in np.random.SeedSequence([seed, m, s, d]).generate_state(2))
        x, task = sample_cases(m, s, gate, inputs, sample_seed)
        outputs = stream_outputs(rule, d, task, x, layer_seed, BLOCK)
        errors = case_errors(outputs, task, x)
        for value, name in enumerate(("zeros", "ones")):
            found[name].append(float(f"{rms_by_value(gate, value, shares, errors.mean_square) ** 2:.6g}"))
        found["worst"].append(float(f"{errors.worst:.6g}"))
        found["count"].append(errors.count)
    return {
        "task": gate.name, "m": m, "s": s, "d": d, "layers": layers, "inputs": inputs, "seeds": list(range(layers)),
        "errors_by_case": np.mean(found["count"], axis=0).round(2).tolist(),
        "mean_square_zeros": found["zeros"], "mean_square_ones": found["ones"], "worst": found["worst"],
    }  # fmt: skip


def measure(settings: Scaling, path: Path) -> None:
    """Every size that the file does not hold yet, each added to it as soon as it is there."""
    gate, rows = Gate.parse(settings.task), load(path) if path.exists() else []
    known = {tuple(row[key] for key in ("task", "m", "s", "d", "layers", "inputs")) for row in rows}
    sizes = [(m, s, d) for m, s, d in itertools.product(settings.m, settings.s, settings.d)]
    todo = [z for z in sizes if (gate.name, *z, settings.layers, settings.inputs) not in known]
    with tqdm(total=sum(d for _, _, d in todo), unit="neuron", unit_scale=True, desc="measuring") as bar:
        for m, s, d in todo:
            rows.append(measure_size(gate, m, s, d, settings.layers, settings.inputs))
            text = "".join(json.dumps(row) + "\n" for row in rows)
            write_atomically(path, lambda temporary, text=text: temporary.write_text(text))
            bar.update(d)


def load(path: Path) -> list[dict[str, Any]]:
    """The stored results. Raises InputError for a file that is missing or damaged."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        raise InputError(f"{path} is missing: measure first, without --plot-only") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged ({error}): delete it and measure again") from None


def select(settings: Scaling, rows: list[dict[str, Any]], m: int, s: int) -> list[dict[str, Any]]:
    """The rows of one line of the figure, by width. Raises InputError if one is missing."""
    keys = ("task", "m", "s", "layers", "inputs")
    wanted = (Gate.parse(settings.task).name, m, s, settings.layers, settings.inputs)
    found = {row["d"]: row for row in rows if tuple(row[key] for key in keys) == wanted}
    missing = [d for d in settings.d if d not in found]
    if missing:
        raise InputError(
            f"the results hold no m = {m}, s = {s}, d = {missing[0]} with these settings: measure it first"
        )
    return [found[d] for d in sorted(settings.d)]


def predicted_median(gate: Gate, row: dict[str, Any], d: int | None = None) -> float:
    """Median over layers of the largest of as many errors as the row looked at, at its width or another."""
    law = max_error_distribution(gate, row["m"], row["s"], d or row["d"], row["inputs"])
    per_input = tuple(count / row["inputs"] for count in row["errors_by_case"])
    return dataclasses.replace(law, counts=per_input).quantile(0.5)


def weighted_mean(values: np.ndarray, errors: np.ndarray, degrees: int) -> tuple[float, float]:
    """(mean with weights 1/error², half-width of its 95 % interval)."""
    weight = 1 / errors**2
    return float(weight @ values / weight.sum()), float(stats.t.ppf(0.975, degrees) / math.sqrt(weight.sum()))


def slope(d: np.ndarray, values: np.ndarray, errors: np.ndarray, degrees: int) -> tuple[float, float]:
    """(slope of log values against log d, half-width of its 95 % interval), weighted by the values' relative errors."""
    x, y, weight = np.log(d), np.log(values), (values / errors) ** 2
    centred = x - weight @ x / weight.sum()
    spread = weight @ centred**2
    return float(weight @ (centred * y) / spread), float(stats.t.ppf(0.975, degrees) / math.sqrt(spread))


def fits(settings: Scaling, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each m, s and error: the fitted slope against d, and the constant error·√d, with intervals, beside theory.

    The constant of the largest error is that of the widths from 1,024 on, over σ√(2 ln N) for the N errors looked at: it
    tends to 1 slowly, from below.
    """
    gate, found = Gate.parse(settings.task), []
    sigma = {s: error_std(gate, s) for s in settings.s}
    for m, s in itertools.product(settings.m, settings.s):
        line = select(settings, rows, m, s)
        d, n = np.array([row["d"] for row in line], dtype=float), settings.layers
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
    m: int,
    s: int,
    error: str,
    power: tuple[float, float],
    power_theory: float,
    constant: tuple[float, float],
    theory: float,
) -> dict[str, Any]:
    return {
        "m": m,
        "s": s,
        "error": error,
        "slope": power[0],
        "slope_interval": power[1],
        "slope_theory": power_theory,
        "constant": constant[0],
        "constant_interval": constant[1],
        "constant_theory": theory,
    }


def table(settings: Scaling, found: list[dict[str, Any]]) -> str:
    """The fits in words."""
    from toymodels.runs.text import render

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
        "looked at, widths from 1,024 on (mean logarithm over layers; theory: median)."
    )


def label(axis: Any, text: str, x: float, y: float, colour: str) -> None:
    """The name of a line, to the right of its last point."""
    axis.annotate(text, (x, y), (6, 0), textcoords="offset points", color=colour, fontsize=7, va="center")


def fitted(found: list[dict[str, Any]], m: int, error: str) -> str:
    """Slopes and constants of the lines of one panel."""
    lines = ["fitted slope, constant (theory)"]
    for fit in found:
        if (fit["m"], fit["error"]) == (m, error):
            constant = f"{fit['constant']:.3f} ± {fit['constant_interval']:.3f} ({fit['constant_theory']:.3f})"
            lines.append(f"s = {fit['s']}:  {fit['slope']:.4f} ± {fit['slope_interval']:.4f},  {constant}")
    return "\n".join(lines)


def plot(settings: Scaling, rows: list[dict[str, Any]], found: list[dict[str, Any]], folder: Path) -> list[Path]:
    """The figure, as PDF and PNG: errors over widths above, measured over predicted below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    gate, m = Gate.parse(settings.task), settings.m[-1]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex=True, height_ratios=(2.6, 1))
    grid = np.geomspace(min(settings.d), max(settings.d), 60).round().astype(int)
    for index, s in enumerate(settings.s):
        colour, marker = COLOURS[index], MARKERS[index]
        line, sigma = select(settings, rows, m, s), error_std(gate, s)
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
        axes[0, 1].plot(
            grid, [predicted_median(gate, line[0], int(width)) for width in grid], color=colour, linewidth=1
        )
        axes[0, 1].errorbar(d, middle, bars, **style)
        label(axes[0, 1], f"s = {s}", d[-1], medians[-1], colour)
        axes[1, 1].errorbar(dodge, middle / medians, bars / medians, **style)
    for axis in axes[0]:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        floor = gate.affine_floor
        axis.axhline(floor, color="0.35", linewidth=0.8, linestyle=(0, (4, 3)))
        left = axis is axes[0, 1]  # where no line crosses it
        axis.annotate(f"affine floor {floor:g}", (0.01 if left else 1, floor), (0, 2.5), textcoords="offset points",
                      xycoords=("axes fraction", "data"), color="0.35", fontsize=6.5, ha="left" if left else "right")  # fmt: skip
    for axis in axes[1]:
        axis.axhline(1, color="0.35", linewidth=0.8)
        axis.set_xlabel("width d (neurons)", fontsize=8)
    span = math.log2(max(settings.d) / min(settings.d)) + 1
    for axis in axes.flat:
        axis.set_xscale("log", base=2)
        axis.set_xlim(min(settings.d) / 1.6, max(settings.d) * 2 ** (0.2 * span))  # room for the labels
        axis.xaxis.set_major_locator(FixedLocator(sorted(settings.d)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.tick_params(labelsize=7)
        axis.grid(True, which="major", color="0.92", linewidth=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    n = sum(select(settings, rows, m, settings.s[0])[0]["errors_by_case"])
    axes[0, 0].set_title("RMS error at zeros;\nlines: σ/√d", fontsize=8.5)
    axes[0, 1].set_title(f"largest of {n:,.0f} errors, median over layers;\nlines: predicted median", fontsize=8.5)
    for axis, error in zip(axes[0], ("RMS at zeros", "largest"), strict=True):
        style = {"fontsize": 5.4, "color": "0.2", "ha": "right", "va": "top"}
        axis.text(1, 1, fitted(found, m, error), transform=axis.transAxes, **style)
    axes[0, 0].set_ylabel("error (output − target)", fontsize=8)
    axes[1, 0].set_ylabel("measured /\npredicted", fontsize=8)
    axes[1, 0].set_title("RMS at zeros (filled) and at ones (open)", fontsize=7.5)
    axes[1, 1].set_title("largest error, median", fontsize=7.5)
    figure.suptitle(
        f"U-{gate.name.upper()}, analytic readoff of frozen Gaussian layers: m = {m:,}, exactly s active; {settings.inputs} "
        f"inputs × about {3 * settings.inputs:,} pairs\nsampled for each of {settings.layers} layers "
        f"(seeds 0–{settings.layers - 1}); bars: 95 % intervals over layers",
        fontsize=8.5,
    )  # fmt: skip
    files = [folder / f"analytic_scaling{suffix}" for suffix in (".pdf", ".png")]
    for path in files:
        kind = path.suffix[1:]
        write_atomically(path, lambda temporary, kind=kind: figure.savefig(temporary, dpi=160, format=kind))
    return files


def main(settings: Scaling) -> str:
    """Measure (unless told not to), store, fit, draw; returns what to print."""
    settings = settings.sizes()
    settings.check()
    path = settings.out / "analytic_scaling.jsonl"
    if not settings.plot_only:
        torch.set_num_threads(1)  # the products are short, and a second thread slows whoever works beside
        measure(settings, path)
    rows = load(path)
    found = fits(settings, rows)
    text = "".join(json.dumps(fit) + "\n" for fit in found)
    write_atomically(settings.out / "analytic_scaling_fits.jsonl", lambda temporary: temporary.write_text(text))
    files = plot(settings, rows, found, settings.figures or settings.out)
    return "\n".join([table(settings, found), "", *(str(file) for file in (path, *files))])


if __name__ == "__main__":
    try:
        print(main(parse(Scaling)))
    except InputError as error:
        print(f"analytic_scaling: {error}", file=sys.stderr)
        sys.exit(2)
