"""Early termination at work: looks at the metrics of a sweep's runs, and asks those that have fallen behind to stop."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from toymodels.experiments.build import STOP
from toymodels.runs.record import read_metrics
from toymodels.sweeps.definition import Hyperband
from toymodels.sweeps.early import bands, should_stop
from toymodels.sweeps.plan import EARLY_METRIC


class Stopper:
    """Of the runs in one folder, of one seed each."""

    def __init__(self, early: Hyperband, goal: str, runs: Path):
        self._early, self._goal, self._runs = early, goal, runs
        self._bands = bands(early)
        self._read: dict[str, tuple[int, list[float]]] = {}  # bytes, and the history in them

    def look(self, running: Iterable[str]) -> None:
        """Compare every run that is at work with all others, whoever does or did them, and stop what is behind."""
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
