"""Write results as tables in plain text."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from toymodels.runs.identity import KNOB, NOT_IN_IDENTITY
from toymodels.runs.metrics import ABOUT, Row, all_metrics, metric_columns, title
from toymodels.theory.statistics import mean_interval


def render(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Align columns under their header; `right` lists the columns that are aligned to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def number(value: float | None, interval: float | None = None, form: str = ".4f") -> str:
    """Write a mean, with the half-width of its interval if there is one."""
    if value is None:
        return "-"
    return f"{value:{form}}" + (f" ±{interval:{form}}" if interval is not None else "")


def mean_cell(rows: Iterable[Row], column: str, form: str = ".4f") -> str:
    """Write the mean of a column over the rows that have a value, with its 95 % t interval."""
    values = [row[column] for row in rows if row.get(column) is not None]
    return number(*mean_interval(values), form) if values else "-"


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Group rows by what a function returns for them, in the order of the first row of each group."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def listed(value: Any, none: str = "-") -> str:
    """Write a value, the items of a tuple with commas between."""
    if isinstance(value, tuple):
        return ",".join(listed(item, none) for item in value)
    return none if value is None else str(value)


def aggregate(rows: Sequence[Row]) -> list[Row]:
    """Join the rows that differ only in their seed: means, with the half-width of their 95 % t interval (`NAME_interval`).

    `proved` says whether the certificates of every seed hold.
    """
    measured = set(all_metrics(rows))

    def settings(row: Row) -> str:
        return json.dumps({key: row[key] for key in row if key not in measured and key not in ABOUT}, sort_keys=True)

    table = []
    for members in grouped(rows, settings).values():
        joined = {key: value for key, value in members[0].items() if key != "seed" and key not in measured}
        for name in metric_columns(members):
            values = [row[name] for row in members if row.get(name) is not None]
            joined[name], joined[f"{name}_interval"] = mean_interval(values)
        if joined.get("proved") is not None:
            joined["proved"] = all(row["proved"] for row in members)
        joined["seeds"] = [row["seed"] for row in members]
        table.append(joined)
    return table


def measured(rows: Sequence[Row], about: Sequence[str]) -> str:
    """Write aggregated rows as a table: the columns `about` what they measure, their metrics, inputs and outputs."""
    metrics = metric_columns(rows)
    # The root mean square over everything is left out if there are those of groups, which say more.
    if any(name.startswith("rms_") for name in metrics):
        metrics = [name for name in metrics if name != "rms"]
    cells = []
    for row in rows:
        numbers = [
            number(row.get(name), None if name == "seconds" or name.startswith("within_") else row.get(f"{name}_interval"),
                   ".1f" if name == "seconds" else ".4f")
            for name in metrics
        ]  # fmt: skip
        unproved = " (not proved)" if row.get("proved") is False else ""
        counts = [f"{row[name]:,}" for name in ("n_pairs", "all_pairs") if row.get(name) is not None]
        names = [str(row.get(name)) + (unproved if name == "readoff" else "") for name in about]
        cells.append([*names, *numbers[:-1], str(row.get("covered") or "-"), " of ".join(counts) or "-", *numbers[-1:]])
    heads = [title(name) for name in metrics]
    header = [*(name.replace("first_layer", "layer") for name in about), *heads[:-1], "inputs", "outputs", *heads[-1:]]
    return render(header, cells, right=range(len(about), len(header)))


LEGEND = (
    "worst error: largest |output − target| over inputs and outputs; mean over outputs: of each output's own worst error;\n"
    "RMS: root mean square error where the target is 1 or 0, or the features read are active or not; within 1/4: share of\n"
    "outputs with |error| ≤ 1/4."
)

PROVED = (
    " Minimax errors are the smallest any linear readoff of that layer reaches, each\nproved by a dual certificate unless "
    "marked."
)


def comparison(content: Mapping[str, Any]) -> str:
    """Write the tables of a comparison, one per task, each followed by the sentence on genericity."""
    blocks = []
    rows = content["rows"]
    for task in dict.fromkeys(row["task"] for row in rows):
        table = aggregate([row for row in rows if row["task"] == task])
        seeds = table[0]["seeds"]
        heading = f"U-{task.upper()}, {seeds_in_words(seeds)}" + (
            " (means ± 95 % t interval over seeds)" if len(seeds) > 1 else ""
        )
        blocks.append(f"{heading}\n{measured(table, ('first_layer', 'readoff'))}")
        if task in content["genericity"]:
            blocks.append(sentence(task, content["genericity"][task]))
    proved = any(row["readoff"] == "minimax" for row in rows)
    blocks.append(LEGEND + (PROVED if proved else ""))
    return "\n\n".join([*blocks, *content["notes"]])


def by_seed(content: Mapping[str, Any]) -> str:
    """Write the rows of any run, one for each seed."""
    rows = content["rows"]
    about = [name for name in ("task", "first_layer", "readoff") if len({row.get(name) for row in rows}) > 1]
    singles = [{**joined, "seed": row["seed"]} for row in rows for joined in aggregate([row])]
    return f"{measured(singles, [*about, 'seed'])}\n\n{LEGEND}"


def sentence(task: str, answer: Mapping[str, Any]) -> str:
    """Write the answer on genericity as a sentence."""
    several = len(answer["seeds"]) > 1
    seeds = seeds_in_words(answer["seeds"])
    worst = f"{answer['frozen_worst']:.3g} against {answer['trained_worst']:.3g}" + (
        ", means over seeds" if several else ""
    )
    if answer["ratio"] is None:
        return (
            f"Genericity of U-{task.upper()}: the trained layer reads every output exactly, so there is no ratio of worst errors "
            f"({worst}; {seeds})."
        )
    interval = f" ± {answer['ratio_interval']:.2f}" if answer["ratio_interval"] is not None else ""
    by_output = "the trained layer reads some output exactly, so there are no ratios output by output"
    if answer["pair_ratio_mean"] is not None:
        by_output = (
            f"output by output the ratio is {answer['pair_ratio_mean']:.2f} on average, from {answer['pair_ratio_min']:.2f} to "
            f"{answer['pair_ratio_max']:.2f} over {answer['pairs']:,} outputs{' of each seed' if several else ''}"
        )
    return (
        f"Genericity of U-{task.upper()}: the worst error on the frozen random layer is {answer['ratio']:.2f}{interval} times "
        f"that on the trained layer,\nboth by minimax readoffs ({worst}); {by_output} ({seeds})."
    )


def seeds_in_words(seeds: Sequence[int]) -> str:
    """List the seeds in words."""
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"


def command(kind: str, config: Mapping[str, Any]) -> str:
    """Write the command that repeats a run, with all of its settings, from its record's kind and configuration."""
    words = ["toymodels", kind]
    for name, value in config.items():
        option = "--" + name.replace("_", "-")
        if name == "plugin" and value:
            words += [option, *map(str, value)]
        elif value is None or value == [] or (name in NOT_IN_IDENTITY and not name.startswith(KNOB)):
            continue
        elif isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        else:
            words += [option, *map(str, _flat(value))]
    return shlex.join(words)


def _flat(value: Any) -> list[Any]:
    return [item for part in value for item in _flat(part)] if isinstance(value, list | tuple) else [value]
