"""Write the tables of the pages in docs/results from the tables in analysis/results.

A page holds a comment such as `<!-- table: widths epsilon=0.25 s=2 -->` in front of each of them; a test compares.

    python analysis/page_tables.py          # rewrites the pages of docs/
"""

from __future__ import annotations

import functools
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import bigrams as heads
import circuit_dictionaries
import numpy as np
import rare_latents
import sae_errors
from scipy import stats

from toymodels.atlas.cells import Cell, file_task
from toymodels.atlas.entries import CLOSE
from toymodels.figures.fits import crossing
from toymodels.figures.series import Method, series_of
from toymodels.figures.superposed import lines_of
from toymodels.figures.table import layer_knobs, levels, method_of
from toymodels.runs.table import read_table
from toymodels.theory.statistics import mean_interval

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "analysis" / "results"
MARK = re.compile(r"(<!-- table: (\w+)((?: \w+=\S+)*) -->\n)(?:\|.*\n)*")
Row = dict[str, Any]
Table = list[list[str]]
"""Cells, the header first."""


@functools.cache
def rows_of(name: str) -> list[Row]:
    """Read a committed table, once: rows of runs, or the lines of a study."""
    path = RESULTS / name
    return read_table(path) if name.endswith(".csv") else [json.loads(line) for line in path.read_text().splitlines()]


def with_interval(values: Sequence[float], form: str) -> str:
    """Write the mean ± 95 % t interval of three or more seeds, or the mean of fewer, with their number in brackets."""
    mean, half = mean_interval(values) if len(values) > 2 else (float(np.mean(values)), None)
    words = f"{mean:{form}}" + (f" ± {half:{form}}" if half is not None else "") + f" ({len(values)})"
    return words.replace("-", "−")


def _with_error(values: Sequence[float | None], form: str = ".3f") -> str:
    """Write the mean with its interval and without the number of seeds, or a dash."""
    known = [value for value in values if value is not None]
    return with_interval(known, form).rpartition(" ")[0] if known else "–"


def neurons(values: Sequence[float]) -> str:
    """Write a width with its interval: tenths of neurons below 100."""
    return with_interval(values, ".1f" if np.mean(values) < 100 else ",.0f")


def crossings(rows: Iterable[Row], x: str, level: float) -> dict[int, float]:
    """Return for each seed the x from which on its worst error is below the level, linear in log x between two sizes."""
    seeds: dict[int, dict[int, float]] = {}
    for row in rows:
        seeds.setdefault(row["seed"], {})[row[x]] = row["worst_error"]
    curves = {seed: tuple(np.array(sorted(curve.items())).T) for seed, curve in sorted(seeds.items())}
    return {seed: crossing(sizes, errors[None], level).x for seed, (sizes, errors) in curves.items()}


def grid(columns: Sequence[Any], lines: Sequence[tuple[str, Sequence[str]]], corner: str) -> Table:
    """Lay out cells below a header."""
    return [[corner, *map(str, columns)], *([name, *cells] for name, cells in lines)]


def _searched() -> dict[tuple[Method, int, int], list[Row]]:
    """Return the rows of the search for widths by method, s and m; minimax readoffs first."""
    rows = rows_of("width_needed.csv")
    columns = layer_knobs(rows)
    groups: dict[tuple[Method, int, int], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["readoff"] != "minimax", row["first_layer"] != "trained")):
        groups.setdefault((method_of(row, columns), row["s"], row["m"]), []).append(row)
    return groups


def widths(epsilon: float, s: int) -> Table:
    """Return the width at which the worst error falls to ε, by first layer and readoff, over the number of features."""
    groups = {key: rows for key, rows in _searched().items() if key[1] == s}
    sizes = sorted({m for _, _, m in groups})

    def cell(method: Method, m: int) -> str:
        rows = groups.get((method, s, m))
        if rows is None:
            return "–"
        values = list(crossings(rows, "d", epsilon).values())
        if math.inf in values:
            return f"> {max(row['d'] for row in rows):,} ({len(values)})"
        return neurons(values)

    methods = dict.fromkeys(method for method, _, _ in groups)
    lines = [(method.name, [cell(method, m) for m in sizes]) for method in methods]
    return grid(
        [f"m = {m:,}" for m in sizes],
        [(n, c) for n, c in lines if any(x[0] not in "–>" for x in c)],
        "first layer, readoff",
    )


def growth(epsilon: float, s: int) -> Table:
    """Return the exponent by which widths of frozen layers grow from each number of features to its double."""
    groups = {key: rows for key, rows in _searched().items() if key[1] == s and key[0].readoff == "minimax"}
    values = {key: list(crossings(rows, "d", epsilon).values()) for key, rows in groups.items()}
    sizes = sorted({m for _, _, m in groups})

    def cell(method: Method, m: int) -> str:
        first, second = values.get((method, s, m), []), values.get((method, s, 2 * m), [])
        if not first or not second or math.inf in first + second:
            return "–"
        seeds = f"({len(first)}, {len(second)})"
        exponent = math.log2(np.mean(second) / np.mean(first))
        if min(len(first), len(second)) < 3:
            return f"{exponent:.2f} {seeds}"
        errors = [np.std(w, ddof=1) / np.mean(w) / math.sqrt(len(w)) / math.log(2) for w in (first, second)]
        half = stats.t.ppf(0.975, min(len(first), len(second)) - 1) * math.hypot(*errors)
        return f"{exponent:.2f} ± {half:.2f} {seeds}"

    methods = dict.fromkeys(method for method, _, _ in groups)
    lines = [(method.name, [cell(method, m) for m in sizes[:-1]]) for method in methods]
    columns = [f"m = {m:,} to {2 * m:,}" for m in sizes[:-1]]
    return grid(columns, [(name, cells) for name, cells in lines if set(cells) != {"–"}], "first layer, readoff")


def saved(s: int) -> Table:
    """Return by how much trained layers are narrower than the frozen ones of least mean width, seed by seed."""
    groups = {key: rows for key, rows in _searched().items() if key[1] == s and key[0].readoff == "minimax"}
    lines: list[tuple[str, Sequence[str]]] = []
    for epsilon in (0.25, 0.2, 0.1):
        for m in sorted({m for method, _, m in groups if method.layer == "trained"}):
            found = {k[0]: crossings(rows, "d", epsilon) for k, rows in groups.items() if k[2] == m}
            trained = next(values for method, values in found.items() if method.layer == "trained")
            # A Bernoulli(1/2) layer is the draw of the Rademacher layer of its seed.
            rivals = {k: v for k, v in found.items() if k.layer not in ("trained", "bernoulli")}
            others = {k: v for k, v in rivals.items() if math.inf not in v.values()}
            if math.inf in trained.values() or not others:
                continue
            best = min(others, key=lambda method: np.mean(list(others[method].values())))
            both = sorted(trained.keys() & others[best].keys())
            shares = [100 * (1 - trained[seed] / others[best][seed]) for seed in both]
            lines.append((
                f"{epsilon:g}",
                [str(m), neurons(list(trained.values())), best.name.removeprefix("frozen "),
                 neurons(list(others[best].values())), with_interval(shares, ".0f")],
            ))  # fmt: skip
    return grid(["m", "trained", "best frozen layer", "its width", "saved, %"], lines, "ε")


def losses(task: str, steps: int) -> Table:
    """Return the worst error of trained networks over the exponent of the loss and its weights."""
    rows = [row for row in rows_of("which_loss.csv") if (row["task"], row["steps"]) == (task, steps)]
    exponents = sorted({tuple(row["p"]) for row in rows}, key=lambda p: (len(p), p))

    def cell(p: tuple[float, ...], weight: Any) -> str:
        found = [row["worst_error"] for row in rows if (tuple(row["p"]), row["weight"]) == (p, weight)]
        return _with_error(found, ".3f")

    lines = [("→".join(f"{x:g}" for x in p), [cell(p, weight) for weight in (1.0, "value", "case")]) for p in exponents]
    return grid(["weight 1", "by value", "by case"], lines, "p")


def over(sweep: str, task: str, x: str, keep: str = "", column: str = "worst_error") -> Table:
    """Return an error of each first layer and readoff over a setting x of a sweep; `keep` is a setting's value, as in d:64."""
    rows = [row for row in rows_of(f"sweeps/{sweep}.csv") if row["task"] == task]
    if keep:
        name, _, value = keep.partition(":")
        rows = [row for row in rows if str(row[name]) == value]
    knobs = layer_knobs(rows)
    methods = dict.fromkeys(method_of(row, knobs) for row in rows)
    keys = series_of(rows)
    columns = levels(rows, x)

    def cell(method: Method, value: Any) -> str:
        errors = [row[column] for row in rows if method_of(row, knobs) == method and row[x] == value]
        return _with_error(errors, ".3f") if errors else ""

    lines = [
        (method.name, [cell(method, value) for value in columns])
        for method in sorted(methods, key=lambda method: keys.index((method.layer, method.readoff)))
    ]
    return grid([f"{x} = {value}" for value in columns], lines, "first layer, readoff")


def optimisers(task: str, column: str) -> Table:
    """Return the worst error reached, or the seconds taken, by optimiser and number of steps, for each size."""
    tables = rows_of("optimisers.csv"), rows_of("optimisers_large.csv")
    rows = [row for table in tables for row in table if row["task"] == task]
    trainings = [(name, steps) for name in levels(rows, "optimiser") for steps in levels(rows, "steps")]
    sizes = sorted({(row["m"], row["d"], row["s"]) for row in rows})

    def cell(size: tuple[int, ...], training: tuple[str, int]) -> str:
        found = [
            row[column]
            for row in rows
            if ((row["m"], row["d"], row["s"]), (row["optimiser"], row["steps"])) == (size, training)
        ]
        if column == "seconds":
            known = [value for value in found if value is not None]  # of the largest size only one seed was timed
            return f"{np.mean(known):.1f}" if known else "–"
        return _with_error(found)

    lines = [(f"{name}, {steps:,}", [cell(size, (name, steps)) for size in sizes]) for name, steps in trainings]
    return grid([f"m = {m}, d = {d}, s = {s}" for m, d, s in sizes], lines, "optimiser, steps")


def genericity(task: str) -> Table:
    """Return the worst error of the frozen layer over that of the trained one, seed by seed, over m and d."""
    rows = [row for row in rows_of("genericity_map.csv") if (row["task"], row["readoff"]) == (task, "minimax")]
    errors = {(row["first_layer"], row["m"], row["d"], row["seed"]): row["worst_error"] for row in rows}

    def cell(m: int, d: int) -> str:
        keys = [(m, d, seed) for seed in levels(rows, "seed")]
        pairs = [(errors.get(("gaussian", *key)), errors.get(("trained", *key))) for key in keys]
        ratios = [frozen / trained for frozen, trained in pairs if frozen and trained and trained > 1e-6]
        return _with_error(ratios, ".2f") if len(ratios) == len(pairs) else "fits all"

    widths = levels(rows, "d")
    return grid([f"d = {d}" for d in widths], [(str(m), [cell(m, d) for d in widths]) for m in levels(rows, "m")], "m")


def affine_level(task: str) -> Table:
    """Return the width from which on the worst error is below that of an affine readoff without a layer."""
    level = {"and": 0.25, "xor": 0.5}[task]
    rows = [row for row in rows_of("error_over_d.csv") if row["task"] == task and row["first_layer"] != "identity"]
    methods = {(row["first_layer"], row["readoff"]): None for row in rows}
    sizes = levels(rows, "m")

    def cell(method: tuple[str, str], m: int) -> str:
        chosen = [row for row in rows if (row["first_layer"], row["readoff"], row["m"]) == (*method, m)]
        values = list(crossings(chosen, "d", level).values())
        return f"> {max(levels(chosen, 'd'))}" if math.inf in values else _with_error(values, ".0f")

    return grid(
        [f"m = {m}" for m in sizes],
        [(", ".join(k), [cell(k, m) for m in sizes]) for k in methods],
        "first layer, readoff",
    )


def scaling() -> Table:
    """Return the fitted exponents and constants of the analytic readoff's errors beside theory."""
    header = ["s", "error", "exponent of d", "theory", "constant", "theory"]
    cells = [
        [str(row["s"]), row["error"], f"{row['slope']:.4f} ± {row['slope_interval']:.4f}", f"{row['slope_theory']:.4f}",
         f"{row['constant']:.3f} ± {row['constant_interval']:.3f}", f"{row['constant_theory']:.3f}"]
        for row in rows_of("analytic_scaling_fits.jsonl") if row["m"] == 1024
    ]  # fmt: skip
    return [header, *cells]


def capacity(epsilon: float) -> Table:
    """Return the number of features up to which the worst error is below ε, over the width."""
    searched = [row for row in rows_of("superposed.csv") if row["readoff"] == "minimax"]
    lines = {method: line for method, line in lines_of(searched).items() if method.layer != "identity"}
    sizes = sorted({d for line in lines.values() for d in line})

    def cell(line: dict[int, Any], d: int) -> str:
        if d not in line:
            return "–"
        found = line[d].capacity(epsilon).x
        words = f"< {line[d].m[0]}" if found == 0 else f"> {line[d].m[-1]}" if found == math.inf else f"{found:.0f}"
        return f"{words} ({len(line[d].errors)})"

    return grid(
        [f"d = {d}" for d in sizes],
        [(k.name, [cell(line, d) for d in sizes]) for k, line in lines.items()],
        "first layer, readoff",
    )


def depth(d: int) -> Table:
    """Return after how many of ten layers circuits fail, and the worst error of the last layer."""
    rows = [row for row in rows_of("depth.jsonl") if row["kind"] == "depth" and row["d"] == d]
    header = [
        "nodes m",
        "correction",
        "first layer with worst error above 1/2, by seed",
        "worst error, layer 1",
        "layer 10",
    ]
    cells = []
    for row in rows:
        failing = [next((i + 1 for i, e in enumerate(line) if e > 0.5), 99) for line in row["worst"]]
        words = " ".join("none" if layer == 99 else str(layer) for layer in sorted(failing))
        ends = [_with_error([line[i] for line in row["worst"]], ".3f") for i in (0, -1)]
        cells.append([str(row["m"]), row["mode"], words, *ends])
    return [header, *cells]


def targeted() -> Table:
    """Return how many gates a targeted layer holds below worst error 1/2: geometric mean (least to most) over seeds."""

    def spread(values: Sequence[int]) -> str:
        mean = math.exp(sum(math.log(max(value, 0.5)) for value in values) / len(values))
        return f"{mean:.0f} ({min(values)} to {max(values)})"

    header = ["m", "d", "all pairs", "predicted, own neurons", "measured, own neurons", "measured, all common neurons"]
    rows = rows_of("targeted_gates.jsonl")
    return [
        header,
        *(
            [*(f"{row[k]:,}" for k in ("m", "d", "pairs", "predicted")), spread(row["own"]), spread(row["common"])]
            for row in rows
        ),
    ]


def best_p() -> Table:
    """Return the best and the published probability of a Bernoulli layer, and the worst errors predicted for them."""
    header = ["m", "s", "d", "best p", "worst error", "ln²(m)/√d", "worst error"]

    def cells(row: Row) -> list[str]:
        possible = row["asymptotic_p"] < 1
        published = (
            [f"{row['asymptotic_p']:.3f}", f"{row['median_worst_error_asymptotic']:.3f}"]
            if possible
            else ["above 1", "–"]
        )
        return [
            f"{row['m']:,}",
            str(row["s"]),
            f"{row['d']:,}",
            f"{row['best_p']:.3f}",
            f"{row['median_worst_error']:.3f}",
            *published,
        ]

    import csv

    with open(RESULTS / "bernoulli_probability.csv", newline="") as file:
        read = [
            {k: int(v) if k in "msd" else v if k == "kind" else float(v or "nan") for k, v in line.items()}
            for line in csv.DictReader(file)
        ]
    return [header, *map(cells, read)]


def compare(task: str) -> Table:
    """Return the rows of the default comparison (`make compare`)."""
    names = ("worst_error", "mean_worst_error", "rms_ones", "rms_zeros")
    header = ["first layer", "readoff", "worst error", "mean over outputs", "RMS at ones", "RMS at zeros"]
    rows = [row for row in rows_of("compare.csv") if row["task"] == task]
    return [header, *([row["first_layer"], row["readoff"], *(f"{row[name]:.4f}" for name in names)] for row in rows)]


def by_class() -> Table:
    """Return the errors of the readoff by sign class and of the minimax readoff, for each first layer."""
    rows, header = rows_of("by_class.csv"), ["first layer", "readoff", "worst error", "RMS at ones", "RMS at zeros"]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["first_layer"], row["readoff"]), []).append(row)
    names = ("worst_error", "rms_ones", "rms_zeros")
    return [
        header,
        *(
            [*key, *(with_interval([row[name] for row in members], ".3f") for name in names)]
            for key, members in groups.items()
        ),
    ]


def null_models() -> Table:
    """Return the worst errors of the null models of a trained layer, of the task and of random labels as sparse."""
    rows = rows_of("null_models.csv")
    counts = levels(rows, "s")

    def cell(layer: str, readoff: str, s: int) -> str:
        errors = [
            row["worst_error"] for row in rows if (row["first_layer"], row["readoff"], row["s"]) == (layer, readoff, s)
        ]
        return _with_error(errors, ".3f")

    columns = [(readoff, s) for s in counts for readoff in ("minimax", "random_labels")]
    names = [f"{'AND' if readoff == 'minimax' else 'random labels'}, s = {s}" for readoff, s in columns]
    layers = dict.fromkeys(row["first_layer"] for row in rows)
    return grid(names, [(layer, [cell(layer, *column) for column in columns]) for layer in layers], "first layer")


def reproduced(name: str, full: int = 0, published: int = 0) -> Table:
    """Set the numbers of a reproduction beside the published ones; ± is the 95 % t interval over seeds.

    With full=1 those of the paper's own size, as far as they were measured, with the seeds that were; with published=1 only
    the numbers that are published.
    """
    from toymodels.experiments.study import stored
    from toymodels.reproductions.registry import REPRODUCTIONS

    member = REPRODUCTIONS[name]
    path = RESULTS / "compressed" / f"{name}{'_full' * full}.jsonl"
    measured = rows_of(f"compressed/{path.name}")
    keys = member.keys(dict(member.reduced), member.seeds)
    if full:
        keys = member.keys(dict(member.full), tuple(measured[0]["seeds"]))
        keys = [key for key in keys if any(all(row.get(n) == v for n, v in key.items()) for row in measured)]
    lines = []
    for line in member.lines(stored(path, keys)):
        if published and line.published is None:
            continue
        half = "" if line.half is None else f" ± {line.half:.2g}"
        known = "–" if line.published is None else f"{line.published:.4g}"
        what = line.what.replace("|", "\\|")  # which would end the cell
        lines.append([what, known, f"{line.mean:.4g}{half}", line.verdict.replace("-", "−")])
    return [["number", "published", "ours", "verdict"], *lines]


def code_checks() -> Table:
    """Set the checks of the code beside the published numbers: on the authors' own weights, and on ours."""
    from toymodels.reproductions.l4_code import WORDS, code_lines

    theirs = {row["kind"]: row for row in rows_of("compressed/shipped.jsonl")}
    rows = rows_of("compressed/code.jsonl")
    cells = [(row["kind"], name) for row in rows for name in WORDS]
    lines = []
    for (kind, name), line in zip(cells, code_lines(rows), strict=True):
        half = "" if line.half is None else f" ± {line.half:.2g}"
        published = "–" if line.published is None else f"{line.published:.4g}"
        measured = theirs.get(kind, {}).get(name)
        shipped = "–" if measured is None else f"{measured:.4g}"
        what = line.what.replace("|", "\\|")
        lines.append(
            [cell.replace("-", "−") for cell in (what, published, shipped, f"{line.mean:.4g}{half}", line.verdict)]
        )
    return [["number", "published", "their weights, measured here", "ours", "ours and published"], *lines]


def mixing_gain() -> Table:
    """Lay out L/p by σ: trained and semi-NMF networks at p = 0.01, then semi-NMF and its floor with one feature active."""

    columns = ("trained", "semi_nmf", "semi_nmf_published", "single_right", "single_published", "closed")
    lines = [
        [row["mixing"], f"{row['sigma']:g}", *(_with_error(row[name], ".4f") for name in columns)]
        for row in rows_of("compressed/mixing_gain.jsonl")
    ]
    heads = ["M", "σ", "trained", "semi-NMF, transpose right", "semi-NMF as published"]
    return [[*heads, "one active: right", "as published", "closed form"], *lines]


def naive_crossings() -> Table:
    """Return the σ at which L/p crosses the naive one from below, each draw of M by itself."""
    from toymodels.reproductions.mixing import below_naive

    rows = rows_of("compressed/mixing_gain.jsonl")
    heads = {
        "trained": "trained",
        "semi_nmf": "semi-NMF",
        "single_right": "semi-NMF, one active",
        "closed": "closed form, one active",
    }
    lines = []
    for mixing in levels(rows, "mixing"):
        part = [row for row in rows if row["mixing"] == mixing]
        draws = range(len(part[0]["seeds"]))
        found = {
            name: [below_naive([{**row, name: row[name][draw]} for row in part], name) for draw in draws]
            for name in heads
        }
        lines.append([mixing, *(_with_error(found[name], ".4f") for name in heads)])
    return [["M", *heads.values()], *lines]


def n_max() -> Table:
    """Lay out n_max by width for each number of active features and exponent of the loss, with the exponents of d."""
    from toymodels.reproductions.n_max import closed_form, exponents, groups

    rows = rows_of("compressed/n_max.jsonl")
    parts = groups(rows)
    widths = [row["d"] for row in next(iter(parts.values()))]
    columns = [
        [*(_with_error(row["n_max"], ".1f") for row in part), _with_error(exponents(part), ".3f")]
        for part in parts.values()
    ]
    for values in ([closed_form(d, 4) for d in widths], [d**2 / math.log(d) for d in widths]):
        slope = np.polyfit(np.log(widths), np.log(values), 1)[0]
        columns.append([*(f"{value:.1f}" for value in values), f"{slope:.3f}"])
    lines = [list(cells) for cells in zip([*map(str, widths), "exponent"], *columns, strict=True)]
    for row in (row for row in rows if "times" in row):
        cells = [_with_error(row["n_max"], ".1f") if case == (row["active"], row["q"]) else "" for case in parts]
        lines.append([f"{row['d']}, trained {row['times']} times as long", *cells, "", ""])
    heads = [f"{'one' if active == 1 else 'two'} active, q = {q}" for active, q in parts]
    return [["d", *heads, "closed form, one active, q = 4", "d²/log d"], *lines]


def confusion(seeds: int) -> Table:
    """Count the verdicts of `diagnose` on networks of each known nature."""
    from toymodels.diagnosis.verdict import VERDICTS

    lines = []
    for row in rows_of("compressed/confusion.jsonl"):
        given = row["verdicts"][:seeds]
        wrong = "–" if row["right"] is None else f"{np.mean([verdict != row['right'] for verdict in given]):.0%}"
        counts = [str(given.count(verdict)) if verdict in given else "" for verdict in VERDICTS]
        lines.append([row["nature"], row["right"] or "no single one", *counts, wrong])
    return [["network", "known nature", *VERDICTS, "wrong"], *lines]


def reasons() -> Table:
    """Give the verdict on one network of each known nature, with its reasons."""
    rows = rows_of("compressed/confusion.jsonl")
    lines = [[row["nature"], row["verdicts"][0], " ".join(row["reasons"])] for row in rows]
    return [["network", "verdict", "reasons"], *lines]


@functools.cache
def _atlas() -> dict[Cell, tuple[float, float]]:
    """Prove all entries of the atlas; return (worst error, floor) by cell."""
    from toymodels.atlas.entries import HERE, entries_in, prove
    from toymodels.atlas.floors import floor_of

    return {entry.cell: (prove(entry).worst_error, floor_of(entry.cell)) for entry in entries_in(HERE)}


def atlas(task: str, s: int, most: int = 8) -> Table:
    """Return the worst error of the best layer known, and the floor, over d (lines) and m up to `most` (columns)."""
    known = [(of, values) for of, values in _atlas().items() if (file_task(of.task), of.s) == (task, s)]
    cells = {(of.m, of.d): values for of, values in known if of.m <= most}
    sizes = sorted({m for m, _ in cells})

    def cell(m: int, d: int) -> str:
        if (m, d) not in cells:
            return ""
        best, floor = cells[m, d]
        return f"**{best:.4f}**" if best - floor <= CLOSE else f"{best:.4f} ({floor:.3f})"

    lines = [(str(d), [cell(m, d) for m in sizes]) for d in sorted({d for _, d in cells})]
    return grid([f"m = {m}" for m in sizes], lines, "d")


def atlas_cells(cells: str) -> Table:
    """Return what is known of some cells of AND, named m6d4s2,…: the best worst error, the floor, and how it was found."""
    from toymodels.atlas.entries import HERE, read_entry

    lines = []
    for name in cells.split(","):
        m, d, s = map(int, re.fullmatch(r"m(\d+)d(\d+)s(\d+)", name).groups())
        cell = Cell("and", s, m, d)
        facts = read_entry(HERE / f"{cell.name}.safetensors").facts
        best, floor = _atlas()[cell]
        lines.append((f"{m}, {d}, {s}", [f"{best:.4f}", f"{floor:.3f}", str(facts["how"]), f"{facts['seconds']:.0f}"]))
    return grid(["best known", "no layer is below", "how it was found", "seconds"], lines, "m, d, at most s")


LEVELS = (("at most 1/4", 1 / 4, False), ("below 1/4", 1 / 4, True), ("at most 0.2", 0.2, False))
LEVELS += (("below 1/8", 1 / 8, True), ("at most 0.1", 0.1, False), ("0", 0.0, False))


def atlas_widths(task: str, s: int) -> Table:
    """Return, for each m, the least d known for some errors, and the d below which no layer has them."""
    from toymodels.atlas.known import least_known_width, least_possible_width

    errors = {cell: best for cell, (best, _) in _atlas().items() if file_task(cell.task) == task}
    full = next(iter(errors)).task

    def cell(m: int, level: float, strictly: bool) -> str:
        known = least_known_width(full, s, m, level, errors, strictly)
        least = least_possible_width(full, s, m, level, strictly)
        return f"**{known}**" if known == least else f"{known} (≥ {least})"

    sizes = sorted({cell.m for cell in errors if cell.s == s})
    lines = [(str(m), [cell(m, level, strictly) for _, level, strictly in LEVELS]) for m in sizes]
    return grid([name for name, *_ in LEVELS], lines, "m")


def _reached(rows: Sequence[Row], epsilon: float) -> tuple[str, list[float]]:
    """Return the mean width of an error, over the seeds that reach it, in words and theirs; none if no seed does."""
    found = [width for width in crossings(rows, "d", epsilon).values() if width < math.inf]
    if rows and not found:
        return f"> {max(row['d'] for row in rows)} ({len({row['seed'] for row in rows})})", []
    return (neurons(found) if rows else "–"), found


def atlas_narrower(s: int) -> Table:
    """Return the widths of trained layers, on 12 pairs and on all, beside the least known on all pairs, and what is saved."""
    from toymodels.atlas.known import known_width, least_possible_width

    lines: list[tuple[str, Sequence[str]]] = []
    groups = {key: rows for key, rows in _searched().items() if key[0].layer == "trained" and key[1] == s}
    for (_, _, m), rows in groups.items():
        for name, epsilon, strictly in (*LEVELS[:3], LEVELS[4]):
            known = known_width("and", s, m, epsilon, strictly)
            if known is None:
                continue
            whole = [row for row in rows_of("width_all_pairs.csv") if (row["s"], row["m"]) == (s, m)]
            (some, few), (every, all_pairs) = _reached(rows, epsilon), _reached(whole, epsilon)
            shares = [100 * (1 - known / width) for width in all_pairs or few]
            more = with_interval(shares, ".0f") if shares else "–"
            least = str(least_possible_width("and", s, m, epsilon, strictly))
            lines.append((str(m), [name, some, every, str(known), more, least]))
    columns = [
        "error",
        "trained, 12 pairs",
        "trained, all pairs",
        "best known, all pairs",
        "saved, %",
        "no layer below",
    ]
    return grid(columns, lines, "m")


def atlas_growth() -> Table:
    """Return the exponent x of c·m^x fitted to the least widths known, with a 95 % interval from the scatter about the line."""
    from toymodels.atlas.known import known_width

    names = (*LEVELS[1:3], ("at most 1/6", 1 / 6, False), LEVELS[4])
    lines: list[tuple[str, Sequence[str]]] = []
    for s, sizes in ((2, (8, 16, 32, 64)), (3, (8, 12, 16, 32))):
        for name, epsilon, strictly in names:
            found = [(m, d) for m in sizes if (d := known_width("and", s, m, epsilon, strictly)) is not None]
            if len(found) < 3:
                continue
            x, y = np.log(np.array(found, float)).T
            fit = stats.linregress(x, y)
            half = stats.t.ppf(0.975, len(x) - 2) * fit.stderr
            rest = 100 * np.abs(np.expm1(y - fit.intercept - fit.slope * x)).max()
            widths = ", ".join(f"{d} ({m})" for m, d in found)
            lines.append((f"{s}, {name}", [widths, f"{fit.slope:.2f} ± {half:.2f}", f"{rest:.0f} %"]))
    return grid(["least d known (m)", "exponent", "largest residual"], lines, "s, worst error")


DICTIONARY_COLUMNS = {
    "show": {
        "features_recall": "inputs found",
        "functions_recall": "functions found",
        "l0": "L0",
        "explained": "explained",
        "clean_worst_error": "worst error, clean",
        "worst_error": "worst error through it",
        "rms": "RMS through it",
    },
    "scores": {
        "features_correlation": "features \\|r\\|",
        "features_recall": "features found",
        "functions_correlation": "ANDs \\|r\\|",
        "functions_recall": "ANDs found",
        "precision": "precision",
        "l0": "L0",
        "explained": "explained",
        "dead": "dead",
        "ultra_rare": "ultra-rare",
    },
    "errors": {
        "clean_worst_error": "worst error, clean",
        "worst_error": "worst error through it",
        "clean_rms": "RMS, clean",
        "rms": "RMS through it",
    },
    "moves": {
        "sensitivity_sae_error": "SAE error",
        "sensitivity_random": "random",
        "sensitivity_features": "feature",
        "sensitivity_functions": "AND",
        "sensitivity_principal": "principal",
    },
}
"""Columns of the tables of dictionaries, and their headings."""


def dictionaries(columns: str, latents: int, file: str = "dictionaries") -> Table:
    """Return means with intervals for each first layer and dictionary with this number of latents (neurons: in both).

    Files are joined by +. The table "show" has no dictionaries that are not trained.
    """
    heads = DICTIONARY_COLUMNS[columns]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in (row for part in file.split("+") for row in rows_of(f"{part}.csv")):
        if columns == "show" and row["dictionary"] == "l1(steps=1)":
            continue
        if row["latents"] == latents or (row["dictionary"] == "neurons" and columns != "moves"):
            groups.setdefault((row["first_layer"], row["dictionary"]), []).append(row)
    names = {"l1(steps=1)": "l1, not trained", "saelens": "gated, 0.1", "saelens(sparsity=0.3)": "gated, 0.3"}
    lines = [
        [about[0], names.get(short := re.sub(r",?steps=4500", "", about[1]).replace("()", ""), short)]
        + [_with_error([row[name] for row in rows], ".3f") for name in heads]
        for about, rows in sorted(groups.items(), key=lambda group: group[0][0])
    ]
    header = ["first layer", "dictionary", *heads.values()]
    if columns == "moves":
        header.append("SAE error / random")
        for line, (_, rows) in zip(lines, sorted(groups.items(), key=lambda group: group[0][0]), strict=True):
            ratios = [row["sensitivity_sae_error"] / row["sensitivity_random"] for row in rows]
            line.append(_with_error(ratios, ".2f"))
    return [header, *lines]


def probe() -> Table:
    """Return the shares of inputs and functions that a least squares probe of each layer reads."""
    groups: dict[str, list[Row]] = {}
    for row in rows_of("dictionaries_probe.jsonl"):
        groups.setdefault(row["first_layer"], []).append(row)
    heads = {"features_recall": "inputs found", "functions_recall": "functions found"}
    lines = [
        [name, *(_with_error([row[head] for row in rows], ".3f") for head in heads)] for name, rows in groups.items()
    ]
    return [["first layer", *heads.values()], *lines]


def bigrams(m: int) -> Table:
    """Return the noise and wrong scores of heads for one m (see the script bigrams)."""
    return heads.table(rows_of("bigrams.jsonl"), m)


def sae_moves(behind: str, factor: int) -> Table:
    """Return the change of an output per length of a move (see sae_errors)."""
    return sae_errors.moves_table(rows_of("sae_errors.jsonl"), behind, factor)


def sae_worst() -> Table:
    """Return the worst error of each layer (see sae_errors)."""
    return sae_errors.worst_table(rows_of("sae_errors.jsonl"))


def sae_exponents() -> Table:
    """Return the exponent p (see sae_errors)."""
    return sae_errors.exponents_table(rows_of("sae_errors.jsonl"))


def rare(part: str) -> Table:
    """Return a table of the study of rare latents: numbers, fates or weights (see rare_latents)."""
    table: Table = getattr(rare_latents, f"{part}_table")(rows_of("rare_latents.jsonl"))
    return table


def circuit() -> Table:
    """Return scores of dictionaries in the layers of a circuit (see circuit_dictionaries)."""
    return circuit_dictionaries.table(rows_of("circuit_dictionaries.jsonl"))


TABLES: dict[str, Callable[..., Table]] = {
    function.__name__: function
    for function in (
        compare,
        widths,
        growth,
        saved,
        losses,
        over,
        optimisers,
        genericity,
        affine_level,
        scaling,
        capacity,
        depth,
        targeted,
        best_p,
        by_class,
        null_models,
        reproduced,
        n_max,
        confusion,
        reasons,
        code_checks,
        mixing_gain,
        naive_crossings,
        atlas,
        atlas_cells,
        atlas_widths,
        atlas_narrower,
        atlas_growth,
        dictionaries,
        probe,
        bigrams,
        sae_moves,
        sae_worst,
        sae_exponents,
        rare,
        circuit,
    )
}


def rendered(text: str) -> str:
    """Return a page with every table made anew."""

    def table(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            return match[0]
        arguments = dict(word.split("=") for word in match[3].split())
        header, *lines = TABLES[match[2]](
            **{k: int(v) if v.isdigit() else float(v) if v[0].isdigit() else v for k, v in arguments.items()}
        )
        body = [header, ["---"] * len(header), *lines]
        return match[1] + "".join(f"| {' | '.join(cells)} |\n" for cells in body)

    return MARK.sub(table, text)


if __name__ == "__main__":
    for page in sorted((ROOT / "docs").rglob("*.md")):
        before = page.read_text()
        after = rendered(before)
        if after != before:
            page.write_text(after)
            print(f"{page.relative_to(ROOT)}: tables written", file=sys.stderr)
