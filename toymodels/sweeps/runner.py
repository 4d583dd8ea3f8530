"""`toymodels sweep FILE`: do the runs of a sweep file on the cores of this machine or on a cluster, without a server.

sweep.json, suggestions.jsonl   what is searched, and what the search suggested (suggestions.py)
runs/NAME/                      an ordinary record of one run; NAME depends on the configuration alone
failed/NAME.json                why a run failed; deleted when it has succeeded

A run is finished when its record says so; a command that is started again, after a crash too, continues the other runs. A
run is locked while it is running: two runners on one folder share the work.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from toymodels.errors import InputError, check_whole
from toymodels.given import conform
from toymodels.parallel.processes import cores
from toymodels.parallel.progress import Bar, say
from toymodels.parallel.stopping import stop_on_interrupt
from toymodels.runs.loop import Interrupted
from toymodels.runs.storage import read_json
from toymodels.runs.tracking import check_mirror
from toymodels.sweeps.early_stopping import EarlyStopping
from toymodels.sweeps.executors import Backend, RunningRun, open_backend
from toymodels.sweeps.plan import Plan, most_runs, read_plan
from toymodels.sweeps.suggestions import RUNS, Run, Suggestions
from toymodels.sweeps.work import ENVIRONMENT, Outcome, do_run, record_failure

_LOST = 3
"""How often a run may lose its process before it counts as failed."""
_LOOK_SECONDS = 0.5
"""How often the bar, early termination and the runs of other runners are looked at."""
_POLL_SECONDS = 0.02
_START_SECONDS = 5
"""About how long workers take to start."""


@dataclass(frozen=True)
class SweepConfig:
    """Do the runs of a W&B sweep file without a server: on all cores of this machine, or on a cluster."""

    file: tyro.conf.Positional[Path]
    """Sweep file (YAML), as `wandb sweep` takes it."""
    out: Path | None = None
    """Folder of the sweep; default runs/ and the file's name. The same command again continues it."""
    workers: int | None = None
    """Runs at a time; default one process per core (local), 100 jobs (slurm). A Dask cluster has its own number."""
    count: int | None = None
    """Most runs in all. Random and bayes searches need it, or run_cap in the file: they have no end of their own."""
    seed: int = 0
    """Seed of random and bayes searches."""
    scheduler: str = "local"
    """local, the address of a Dask scheduler (tcp://127.0.0.1:8786), or slurm."""
    wandb: str | None = None
    """Weights & Biases for each run: disabled, offline or online; the same as `--wandb` of a single run."""
    dry_run: bool = False
    """Only say how many runs there are, and about how long they will take."""
    skip_impossible: bool = False
    """Leave out combinations of values that make no run (s above m, say), and count them; otherwise they are refused."""
    plugin: tuple[Path, ...] = ()
    """Python files of your own for every run, in addition to those that the file's parameter `plugin` names."""

    def __post_init__(self) -> None:
        conform(self)
        check_whole(1, **{name: value for name in ("workers", "count") if (value := getattr(self, name)) is not None})
        check_whole(0, seed=self.seed)
        check_mirror(self.wandb)


def run_sweep(config: SweepConfig) -> tuple[Path, int]:
    """Run the sweep; return (folder, number of failed runs).

    Raises InputError before the first run for a file, folder or scheduler that cannot be used, and later for a damaged
    record; Interrupted on Ctrl-C; OSError if the disk is full or the scheduler is gone.
    """
    plan, folder = _planned(config)
    backend = open_backend(config.scheduler, config.workers, folder)
    try:
        suggestions = Suggestions(plan, folder, config.count, config.seed)
        for line in overview(plan, folder, config):
            print(line, file=sys.stderr)
        with stop_on_interrupt() as interrupted:
            return folder, _Runner(plan, suggestions, backend, interrupted).run()
    except BaseException:
        backend.interrupt()
        raise
    finally:
        backend.close()


def _planned(config: SweepConfig) -> tuple[Plan, Path]:
    here = config.scheduler == "local"
    skip = config.skip_impossible
    plan = read_plan(config.file, config.count, config.seed, config.wandb, config.plugin, skip, here)
    if plan.sweep.method == "grid" and config.seed:
        raise InputError(f"seed = {config.seed}: a grid draws nothing: leave --seed out")
    # An absolute path, because a cluster's workers have other current folders.
    return plan, (config.out or Path("runs") / config.file.stem).resolve()


def dry_run(config: SweepConfig) -> str:
    """Say what the sweep would do; write nothing. Raises InputError as `run_sweep` does."""
    return "\n".join(overview(*_planned(config), config))


def overview(plan: Plan, folder: Path, config: SweepConfig) -> list[str]:
    """Say how many runs there are, how long they will take, and what in the file has no effect."""
    survey, sweep = plan.survey, plan.sweep
    assert survey is not None
    total = most_runs(sweep, config.count)
    name = sweep.name or sweep.path.stem
    about = f" ({sweep.description})" if sweep.description else ""
    done = [run for run in survey.names if (folder / RUNS / run / "results.json").exists()]
    impossible = sum(map(len, survey.impossible.values()))
    counted = [f"{name}{about}: {total:,} runs of {plan.kind_name}"]
    if impossible:
        counted.append(f"{impossible:,} of them impossible and skipped ({next(iter(survey.impossible))})")
    if done:
        counted.append(f"{len(done):,} finished already")
    shares = [seconds for run, seconds in survey.names.items() if run not in done]
    if shares and not math.isnan(sum(shares)):
        left = sum(shares) * total / survey.checked
        at_once = min(config.workers or cores(), len(shares)) if config.scheduler == "local" else 1
        workers = "on one core" if at_once == 1 else f"on {at_once} cores"
        counted.append(f"about {in_words(left / at_once + _START_SECONDS)} {workers}, within a factor of 3 or so")
    of = "" if survey.checked == total else f" (of the first {survey.checked:,})"
    notes = [f"{name}: {note}" for note in survey.notes]
    if survey.equal:
        notes.append(f"{name}: {len(survey.equal):,} runs are equal to others{of}, such as {survey.equal[0]}")
    return [", ".join(counted), *notes]


def in_words(seconds: float) -> str:
    """Write a time for people to read, with one or two digits."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 1):.0f} seconds"


_SORTED = 1000
"""Runs that a grid may have to be done in another order than that of their numbers: all are suggested before the first begins."""


class _Runner:
    def __init__(self, plan: Plan, suggestions: Suggestions, backend: Backend, interrupted: Callable[[], bool]):
        self._plan, self._suggestions, self._backend, self._interrupted = plan, suggestions, backend, interrupted
        self._runs = self._in_order()
        self._seen: set[str] = set()
        self._active: list[tuple[Run, RunningRun]] = []
        self._waiting: list[Run] = []  # another runner does them, or they are to be done again
        self._asked, self._began = 0.0, time.time()
        self._done, self._failed = 0, 0
        early, metric = plan.sweep.early_terminate, plan.sweep.metric
        self._early = EarlyStopping(early, metric.goal, suggestions.folder / RUNS) if early and metric else None

    def run(self) -> int:
        """Do all runs; return how many have failed."""
        name = self._plan.sweep.name or self._plan.sweep.path.stem
        # The time left is estimated from all runs, not from the latest ones, because runs end in bursts.
        with Bar(name, self._suggestions.total, "run", leave=True, even=True) as self._bar:
            while True:
                self._submit_new()
                self._submit_waiting()
                self._show()
                if self._interrupted():
                    raise Interrupted(f"stopped with {self._done} runs finished")
                if not self._active and not self._waiting:
                    break
                self._wait()
                self._collect()
                if self._early is not None:
                    self._early.look(run.name for run, _ in self._active)
            self._bar.ends_here()  # the search may end before its limit
        return self._failed

    def _in_order(self) -> Iterator[Run]:
        """Suggest all runs: of a grid those that take longest come first, so that no worker is left alone with one at the end."""
        sweep, survey, total = self._plan.sweep, self._plan.survey, self._suggestions.total
        seconds = survey.names if survey is not None else {}
        known = sweep.method == "grid" and sweep.metric is None and all(map(math.isfinite, seconds.values()))
        if known and total <= _SORTED:
            yield from sorted(self._suggestions, key=lambda run: -seconds.get(run.name, 0.0))
        else:
            yield from self._suggestions

    def _submit_new(self) -> None:
        while len(self._active) < self._backend.slots() and not self._interrupted():
            run = next(self._runs, None)
            if run is None:
                return
            if run.name in self._seen:  # the same configuration again
                self._bar.skip(1)
                continue
            self._seen.add(run.name)
            if run.refused and self._plan.skip:
                self._bar.skip(1)
            elif run.refused:
                self._fail(run, run.refused)
            else:
                self._submit(run, first=True)

    def _submit_waiting(self) -> None:
        """Look again, when a slot is free, at the runs that another runner was doing."""
        if time.monotonic() - self._asked < _LOOK_SECONDS:
            return
        self._asked = time.monotonic()
        for run in list(self._waiting):
            if len(self._active) < self._backend.slots():
                self._waiting.remove(run)
                self._submit(run, first=False)

    def _submit(self, run: Run, first: bool) -> None:
        """Submit a run that has not ended. At the `first` look, an ended run does not count for the bar's estimate."""
        if self._plan.result(run.folder) is not None:
            run.failure.unlink(missing_ok=True)
            self._count(repeated=first)
        elif run.failure.exists() and run.failure.stat().st_mtime > self._began:
            self._fail(run, read_json(run.failure, ("reason",))["reason"])  # it failed in another runner
        else:
            values = {**self._plan.values(run.config), ENVIRONMENT: self._plan.environment}
            running = self._backend.submit(do_run, self._plan.kind_name, values, str(run.folder), str(run.failure))
            self._active.append((run, running))

    def _wait(self) -> None:
        """Wait until a run has ended, _LOOK_SECONDS at the most."""
        until = time.monotonic() + _LOOK_SECONDS
        while time.monotonic() < until and not self._interrupted():
            if any(running.done() for _, running in self._active):
                return
            time.sleep(_POLL_SECONDS)

    def _collect(self) -> None:
        ended = [(run, running) for run, running in self._active if running.done()]
        self._active = [pair for pair in self._active if pair not in ended]
        for run, running in ended:
            try:
                outcome = running.result()
            except Exception as error:  # its process was killed; each backend raises its own kind of error then
                outcome = self._lost(run, error)
            if outcome.status == "full":
                raise OSError(f"the disk is full ({outcome.reason}): make room, and the same command continues")
            if outcome.status == "failed":
                self._fail(run, outcome.reason)
            elif outcome.status == "finished" and self._plan.result(run.folder) is not None:
                self._count()
            elif outcome.status == "finished":
                self._fail(run, f"its worker wrote to another {run.folder}: give all workers the same files")
            else:
                self._waiting.append(run)

    def _lost(self, run: Run, error: Exception) -> Outcome:
        run.lost += 1
        if run.lost < _LOST:
            say(f"run {run.number}: its process was killed (out of memory?); it is done again")
            return Outcome("again")
        first_line = next(iter(str(error).splitlines()), "")
        return Outcome("failed", f"its process was killed {run.lost} times (out of memory? {first_line})")

    def _count(self, repeated: bool = False) -> None:
        self._done += 1
        if repeated:
            self._bar.skip(1)
        else:
            self._bar.to(self._bar.done + 1)

    def _fail(self, run: Run, reason: str) -> None:
        if not run.failure.exists():
            record_failure(run.failure, run.config, reason)
        self._failed += 1
        say(f"run {run.number} failed: {reason.splitlines()[0]}")
        self._bar.to(self._bar.done + 1)

    def _show(self) -> None:
        self._bar.note(failed=self._failed, running=len(self._active))
        self._bar.refresh()
