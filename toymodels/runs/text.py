"""Tables in plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def render(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns lined up under their header; `right` names the columns that are flush right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def number(value: float, interval: float | None, form: str = ".4f") -> str:
    """A mean, with the half-width of its interval where there is one."""
    return f"{value:{form}}" + (f" ±{interval:{form}}" if interval is not None else "")


def comparison(result: dict[str, Any]) -> str:
    """The tables of a comparison, a task each, and the sentence on genericity below each."""
    blocks = []
    header = (
        "layer", "readoff", "worst error", "mean over pairs", "RMS at ones", "RMS at zeros", "within 1/4", "inputs", "pairs",
        "seconds",
    )  # fmt: skip
    for task in dict.fromkeys(row["task"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["task"] == task]
        cells = [
            (
                row["layer"],
                row["readoff"] + ("" if row.get("proved", True) else " (not proved)"),
                *(
                    number(row[k], row[f"{k}_interval"])
                    for k in ("worst_error", "mean_worst_error", "rms_ones", "rms_zeros")
                ),
                number(row["within_quarter"], None),
                row["inputs"],
                f"{row['pairs']:,} of {row['all_pairs']:,}",
                number(row["seconds"], None, ".1f"),
            )
            for row in rows
        ]
        seeds = rows[0]["seeds"]
        title = f"U-{task.upper()}, {_seeds(seeds)}" + (
            " (means ± 95 % t interval over seeds)" if len(seeds) > 1 else ""
        )
        blocks.append(f"{title}\n{render(header, cells, right=(2, 3, 4, 5, 6, 7, 8, 9))}")
        if task in result["genericity"]:
            blocks.append(sentence(task, result["genericity"][task]))
    blocks.append(
        "worst error: largest |output − target| over inputs and pairs; mean over pairs: of each pair's own worst error;\n"
        "RMS by target value; within 1/4: share of all outputs with |error| ≤ 1/4. Minimax errors are the smallest any\n"
        "linear readoff of that layer reaches, each proved by a dual certificate unless marked."
    )
    blocks += result["notes"]
    return "\n\n".join(blocks)


def sentence(task: str, answer: dict[str, Any]) -> str:
    """The genericity answer in words."""
    several = len(answer["seeds"]) > 1
    worst = f"{answer['frozen_worst']:.3g} against {answer['trained_worst']:.3g}" + (
        ", means over seeds" if several else ""
    )
    if answer["ratio"] is None:
        return (
            f"Genericity of U-{task.upper()}: the trained layer reads some pair exactly, so there is no ratio of worst errors "
            f"({worst}; {_seeds(answer['seeds'])})."
        )
    interval = f" ± {answer['ratio_interval']:.2f}" if answer["ratio_interval"] is not None else ""
    return (
        f"Genericity of U-{task.upper()}: the worst error on the frozen random layer is {answer['ratio']:.2f}{interval} times "
        f"that on the trained layer,\nboth by minimax readoffs ({worst}); pair by pair the ratio is "
        f"{answer['pair_ratio_mean']:.2f} on average, from {answer['pair_ratio_min']:.2f} to {answer['pair_ratio_max']:.2f} "
        f"over {answer['pairs']:,} pairs{' of each seed' if several else ''} ({_seeds(answer['seeds'])})."
    )


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
