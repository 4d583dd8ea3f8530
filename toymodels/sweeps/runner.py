"""`toymodels sweep FILE`: the runs of a sweep file, on the cores of this machine or on a cluster, without a server.

sweep.json, suggestions.jsonl   what is searched, and what the search suggested (suggestions.py)
runs/NAME/                      one folder a run, an ordinary record; NAME is made from the configuration alone
failed/NAME.json                why a run failed; gone when it has succeeded

A run is finished when its record says so, so whoever starts again, after whatever end, goes on with what is not. Runs are
locked while they are at work: two runners on one folder share them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

from toymodels.errors import InputError
from toymodels.runs.loop import Interrupted, stop_on_interrupt
from toymodels.runs.storage import read_json
from toymodels.runs.tracking import check_mirror
from toymodels.sweeps.executors import Handle, Place, open_place
from toymodels.sweeps.plan import Plan, read_plan
from toymodels.sweeps.stopper import Stopper
from toymodels.sweeps.suggestions import RUNS, Run, Suggestions
from toymodels.sweeps.work import Outcome, do_run, record_failure

_LOST = 3
"""How often a run may lose its process before it counts as failed."""
_LOOK_SECONDS = 0.5
"""How often the bar, early termination and what another runner is at are looked at."""
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class SweepConfig:
    """Do the runs of a W&B sweep file here, without a server: on all cores, or on a cluster."""

    file: tyro.conf.Positional[Path]
    """Sweep file (YAML), as `wandb sweep` takes it."""
    out: Path | None = None
    """Folder of the sweep; default runs/ and the file's name. The same command again goes on there."""
    workers: int | None = None
    """Runs at a time; default a process on each core (local), 100 jobs (slurm). A Dask cluster has its own number."""
    count: int | None = None
    """Most runs in all. Random and bayes searches need it, or run_cap in the file: they have no end of their own."""
    seed: int = 0
    """Of random and bayes searches."""
    scheduler: str = "local"
    """local, the address of a Dask scheduler (tcp://127.0.0.1:8786), or slurm."""
    wandb: str | None = None
    """Weights & Biases for each run: disabled, offline or online; as `--wandb` of a single run."""
    plugin: tuple[Path, ...] = ()
    """Python files of your own for every run, beside those that the file's parameter `plugin` names."""

    def __post_init__(self) -> None:
        for name in ("workers", "count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} = {value}: it must be at least 1")
        if self.seed < 0:
            raise InputError(f"seed = {self.seed}: it must be 0 or more")
        check_mirror(self.wandb)


def run_sweep(config: SweepConfig) -> tuple[Path, int]:
    """(folder, number of failed runs).

    Raises InputError before the first run for a file, folder or scheduler that will not do, and later for a damaged
    record; Interrupted on Ctrl-C; OSError where the disk is full or the scheduler is gone.
    """
    plan = read_plan(config.file, config.count, config.seed, config.wandb, config.plugin)
    # A cluster's workers stand in folders of their own.
    folder = (config.out or Path("runs") / config.file.stem).resolve()
    place = open_place(config.scheduler, config.workers, folder)
    try:
        suggestions = Suggestions(plan, folder, config.count, config.seed)
        with stop_on_interrupt() as interrupted:
            return folder, _Runner(plan, suggestions, place, interrupted).run()
    except BaseException:
        place.interrupt()
        raise
    finally:
        place.close()


class _Runner:
    def __init__(self, plan: Plan, suggestions: Suggestions, place: Place, interrupted: Callable[[], bool]):
        self._plan, self._suggestions, self._place, self._interrupted = plan, suggestions, place, interrupted
        self._next: int | None = 0  # the run to ask for; None when there are no more
        self._seen: set[str] = set()
        self._active: list[tuple[Run, Handle]] = []
        self._waiting: list[Run] = []  # in another runner's hands, or to be done again
        self._asked, self._began = 0.0, time.time()
        self._done, self._failed = 0, 0
        early, metric = plan.sweep.early_terminate, plan.sweep.metric
        self._stopper = Stopper(early, metric.goal, suggestions.folder / RUNS) if early and metric else None

    def run(self) -> int:
        """All runs; returns how many have failed."""
        name = self._plan.sweep.name or self._plan.sweep.path.stem
        # Time left is the mean time of a run, not of the latest ones: they come in bursts, as many as there are workers.
        with tqdm(total=self._suggestions.total, desc=name, unit="run", smoothing=0) as self._bar:
            while True:
                self._hand_over_new()
                self._hand_over_waiting()
                self._show()
                if self._interrupted():
                    raise Interrupted(f"stopped with {self._done} runs finished")
                if not self._active and not self._waiting:
                    break
                self._wait()
                self._collect()
                if self._stopper is not None:
                    self._stopper.look(run.name for run, _ in self._active)
            self._bar.total = self._bar.n  # the search may end before its limit
            self._bar.refresh()
        return self._failed

    def _hand_over_new(self) -> None:
        while self._next is not None and len(self._active) < self._place.slots() and not self._interrupted():
            run = self._suggestions.run(self._next)
            self._next = None if run is None else self._next + 1
            if run is None:
                return
            if run.name in self._seen:  # the same configuration again
                self._bar.initial += 1
                self._bar.update()
                continue
            self._seen.add(run.name)
            if run.refused:
                self._fail(run, run.refused)
            else:
                self._hand_over(run, found=True)

    def _hand_over_waiting(self) -> None:
        """Those in another's hands are asked for at the end, when there are no others to do, and now and then."""
        if time.monotonic() - self._asked < _LOOK_SECONDS:
            return
        self._asked = time.monotonic()
        for run in list(self._waiting):
            if len(self._active) < self._place.slots():
                self._waiting.remove(run)
                self._hand_over(run, found=False)

    def _hand_over(self, run: Run, found: bool) -> None:
        """To a worker, unless it has ended already; `found`: it was so when this runner came, and took no time."""
        if self._plan.result(run.folder) is not None:
            run.failure.unlink(missing_ok=True)
            self._bar.initial += found
            self._count(run)
        elif run.failure.exists() and run.failure.stat().st_mtime > self._began:
            self._fail(run, read_json(run.failure, ("reason",))["reason"])  # in another runner's hands
        else:
            values = self._plan.values(run.config)
            handle = self._place.submit(do_run, self._plan.kind_name, values, str(run.folder), str(run.failure))
            self._active.append((run, handle))

    def _wait(self) -> None:
        """Until a run has ended, or half a second."""
        until = time.monotonic() + _LOOK_SECONDS
        while time.monotonic() < until and not self._interrupted():
            if any(handle.done() for _, handle in self._active):
                return
            time.sleep(_POLL_SECONDS)

    def _collect(self) -> None:
        ended = [(run, handle) for run, handle in self._active if handle.done()]
        self._active = [pair for pair in self._active if pair not in ended]
        for run, handle in ended:
            try:
                outcome = handle.result()
            except Exception as error:  # its process was killed, or whatever a cluster says of that
                outcome = self._lost(run, error)
            if outcome.status == "full":
                raise OSError(f"the disk is full ({outcome.reason}): make room, and the same command goes on")
            if outcome.status == "failed":
                self._fail(run, outcome.reason)
            elif outcome.status == "finished" and self._plan.result(run.folder) is not None:
                self._count(run)
            elif outcome.status == "finished":
                self._fail(run, f"it was done where {run.folder} is another folder: give the workers the same files")
            else:
                self._waiting.append(run)

    def _lost(self, run: Run, error: Exception) -> Outcome:
        run.lost += 1
        if run.lost < _LOST:
            return Outcome("again")
        said = str(error).splitlines() or [""]
        return Outcome("failed", f"its process was killed {run.lost} times (out of memory? {said[0]})")

    def _count(self, run: Run) -> None:
        self._done += 1
        self._bar.update()

    def _fail(self, run: Run, reason: str) -> None:
        if not run.failure.exists():
            record_failure(run.failure, run.config, reason)
        self._failed += 1
        self._bar.write(f"run {run.number} failed: {reason.splitlines()[0]}", file=sys.stderr)
        self._bar.update()

    def _show(self) -> None:
        figures = {"failed": self._failed, "at work": len(self._active)}
        before = self._bar.postfix
        self._bar.set_postfix(figures, refresh=False)
        # On a terminal the clock goes on; in a file only what is new is worth a line.
        if self._bar.postfix != before or sys.stderr.isatty():
            self._bar.refresh()
