"""Ask every wrong input once, and print how many were answered, by entry point: `python -m tests.bad_inputs`."""

import contextlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from tests.bad_inputs.cases import ACCEPTED, ANSWERED, SILENT, TRACEBACK, judge, make_run
from tests.bad_inputs.every import CASES
from toymodels.runs.text import render


def count() -> tuple[str, bool]:
    """Return the table of counts, with the inputs that were not answered below it, and whether all were."""
    counts: dict[str, Counter[str]] = {}
    wrong, began = [], time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        make_run(Path(made))
        for case in CASES:
            with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
                verdict, said = judge(case, Path(made))
            counts.setdefault(case.entry, Counter())[verdict] += 1
            if verdict != ANSWERED or case.expected not in said:
                lacks = f" (it lacks {case.expected!r})" if verdict == ANSWERED else ""
                wrong.append(f"{case.entry}, {case.name}: {verdict}{lacks}: {said.strip()[-300:]}")
    counts["all"] = sum(counts.values(), Counter())
    verdicts = (ANSWERED, TRACEBACK, SILENT, ACCEPTED)
    lines = [(entry, str(c.total()), *(str(c[verdict]) for verdict in verdicts)) for entry, c in counts.items()]
    table = render(("where it enters", "inputs", *verdicts), lines, right=range(1, 6))
    return "\n".join([table, f"\n{time.monotonic() - began:.0f} seconds", *wrong]), not wrong


if __name__ == "__main__":
    torch.set_num_threads(1)
    table, whole = count()
    print(table)
    sys.exit(not whole)
