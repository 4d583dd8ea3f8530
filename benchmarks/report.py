"""Results as JSON lines, and tables made from them."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch

from benchmarks.harness import Row, Spread
from toymodels.errors import InputError
from toymodels.parallel.processes import cores
from toymodels.runs.record import commit
from toymodels.runs.storage import write_atomically
from toymodels.runs.text import render

HEADER = ("setting", "unit", "new", "against", "reference", "ratio", "wanted", "met", "matmul", "peak MiB")
LEGEND = (
    "Each figure is the median over repeats (least–largest); new and reference alternate in one process, on all its cores "
    "unless said otherwise. Ratio: how many times better the new code is, repeat by repeat, or measured over predicted. "
    "matmul: that process's own float32 matrix product, GFLOP/s. Peak MiB: the largest resident memory of the process "
    "before any reference ran, Python and torch included."
)


def machine() -> str:
    """What this ran on: processor, cores, threads, versions, commit."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = models[0] if models else cpu
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}, SciPy {scipy.__version__}"
    return f"{cpu}, {cores()} cores, {cores()} threads; {platform.system()}; {versions}; commit {commit() or 'unknown'}"


def line(question: str, row: Row, quick: bool, where: str) -> dict[str, Any]:
    """One line of results."""
    return {"question": question, "quick": quick, "machine": where, **dataclasses.asdict(row)}


def load(path: Path) -> list[dict[str, Any]]:
    """The stored lines; none where there is no file. Raises InputError for a damaged one."""
    try:
        return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged ({error}): delete it and measure again") from None


def store(folder: Path, lines: Sequence[dict[str, Any]], questions: Sequence[str]) -> None:
    """Replace the lines of the questions that ran in results.jsonl, and make RESULTS.md from all of it."""
    names = list(questions)
    kept = [
        other for other in load(folder / "results.jsonl") if other["question"] not in {e["question"] for e in lines}
    ]
    merged = sorted([*kept, *lines], key=lambda e: names.index(e["question"]) if e["question"] in names else len(names))
    text = "".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n" for entry in merged)
    write_atomically(folder / "results.jsonl", lambda path: path.write_text(text))
    page = markdown(merged)
    write_atomically(folder / "RESULTS.md", lambda path: path.write_text(page))


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """The page of results."""
    parts = ["# Benchmarks", f"Made by `python -m benchmarks`; the same numbers are in results.jsonl. {LEGEND}"]
    for question in dict.fromkeys(entry["question"] for entry in lines):
        chosen = [entry for entry in lines if entry["question"] == question]
        flags = " --quick" if chosen[0]["quick"] else ""
        parts += [f"## {question}", f"`python -m benchmarks --only {question}{flags}` on {chosen[0]['machine']}."]
        rule = "|".join("---" for _ in HEADER)
        rows = [f"| {' | '.join(cells(entry))} |" for entry in chosen]
        parts.append("\n".join([f"| {' | '.join(HEADER)} |", f"|{rule}|", *rows]))
        notes = [f"* {entry['setting']}: {entry['note']}" for entry in chosen if entry["note"]]
        parts += ["\n".join(notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The same for a terminal, of one question."""
    right = (2, 4, 5, 6, 8, 9)
    notes = [f"{entry['setting']}: {entry['note']}" for entry in lines if entry["note"]]
    return "\n".join([render(HEADER, [cells(entry) for entry in lines], right), *notes])


def cells(entry: dict[str, Any]) -> tuple[str, ...]:
    """A line as text."""
    ratio, wanted, peak = entry["ratio"], entry["wanted"], entry["peak_wanted"]
    conditions = [f"≥ {wanted:g}"] if wanted is not None else []
    conditions += [f"< {peak:,.0f} MiB"] if peak is not None else []
    met = [ratio["median"] >= wanted] if wanted is not None else []
    met += [entry["peak_mib"] < peak] if peak is not None else []
    return (
        entry["setting"], entry["unit"], spread(entry["new"]), entry["against"], spread(entry["reference"]), spread(ratio),
        ", ".join(conditions), ", ".join("yes" if m else "NO" for m in met), spread(entry["matmul"]),
        f"{entry['peak_mib']:,.0f}",
    )  # fmt: skip


def spread(value: dict[str, float] | None) -> str:
    """Median (least–largest), to three digits."""
    if value is None:
        return ""
    found = Spread(**value)
    if found.least == found.most:
        return short(found.median)
    return f"{short(found.median)} ({short(found.least)}–{short(found.most)})"


def short(value: float) -> str:
    """Three significant digits, or all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
