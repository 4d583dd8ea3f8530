"""Early termination by Hyperband, as W&B decides it (github.com/wandb/sweeps, hyperband_stopping.py)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from toymodels.experiments.build import STOP
from toymodels.runs.record import read_metrics
from toymodels.sweeps.definition import Hyperband
from toymodels.sweeps.plan import EARLY_METRIC

_MOST_BANDS = 100  # W&B's own limit
_LAST = 1e15  # no history is longer; with a large eta W&B's last bands would overflow


class EarlyStopping:
    """Compare the metrics of a sweep's runs, of one seed each, and ask those that have fallen behind to stop."""

    def __init__(self, early: Hyperband, goal: str, runs: Path):
        self._early, self._goal, self._runs = early, goal, runs
        self._bands = bands(early)
        self._read: dict[str, tuple[int, list[float]]] = {}  # by run: the bytes read, and the history in them

    def look(self, running: Iterable[str]) -> None:
        """Compare each of the running runs with all runs in the folder, of any runner, and stop those that are behind."""
        histories = {path.name: self._history(path) for path in self._runs.glob("*") if path.is_dir()}
        for name in running:
            stop = self._runs / name / STOP
            if not histories.get(name) or stop.exists():
                continue
            others = [history for other, history in histories.items() if other != name]
            if should_stop(self._bands, histories[name], others, self._goal, self._early.eta, self._early.strict):
                stop.touch()

    def _history(self, run: Path) -> list[float]:
        for path in run.glob("seed-*/metrics.jsonl"):
            size = path.stat().st_size
            if self._read.get(run.name, (-1, []))[0] != size:
                self._read[run.name] = size, [line[EARLY_METRIC] for line in read_metrics(path)]
        return self._read.get(run.name, (0, []))[1]


def bands(early: Hyperband) -> tuple[int, ...]:
    """Return the iterations, counted from 1 and rising, at which runs are compared.

    min_iter·eta^k for k = 0, 1, …; or, where max_iter and s are given, max_iter/eta^k for k = 1, …, s. Rounded down.
    """
    if early.max_iter is not None and early.s is not None:
        below, band = [], float(early.max_iter)
        for _ in range(early.s):
            band /= early.eta
            if band < 1:
                break
            below.append(int(band))
        return tuple(sorted(below))
    if early.min_iter is None:
        raise ValueError("early termination without bands: give min_iter, or both max_iter and s")
    above: list[int] = []
    start: int | float = early.min_iter
    while len(above) < _MOST_BANDS and start < _LAST:
        above.append(int(start))
        start *= early.eta
    return tuple(above)


def should_stop(
    bands: Sequence[int],
    history: Sequence[float | int | None],
    others: Sequence[Sequence[float | int | None]],
    goal: str,
    eta: int | float,
    strict: bool,
) -> bool:
    """Whether a running run is to be stopped.

    `history` is its metric at each iteration logged so far, `others` those of all other runs of the sweep, running,
    finished or stopped. At the last band b that the run has reached, the n values logged at iteration b, its own among
    them, are sorted from the best; the threshold is the one with index ⌊n/eta⌋, counted from 0. A strict run is stopped
    when its value at b is worse than the threshold; otherwise only when its best value so far is. Values that are not
    finite numbers are left out, so that later ones move up.
    """
    sign = -1 if goal == "maximize" else 1
    own, *rest = [
        [sign * float(v) for v in values if v is not None and math.isfinite(v)] for values in (history, *others)
    ]
    band = max((b for b in bands if b <= len(own)), default=None)
    if band is None:
        return False
    at_band = sorted(values[band - 1] for values in (own, *rest) if len(values) >= band)
    threshold = at_band[int(1.0 / eta * len(at_band))]  # in W&B's order of operations: its rounding decides ties
    return (own[band - 1] if strict else min(own)) > threshold
