"""Number the runs of a sweep, the same for every runner on its folder and after every restart.

sweep.json           parameters, method and seed of the search; a folder holds one sweep
suggestions.jsonl    the configuration of each run, by number, as the search suggested it
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from toymodels.errors import InputError
from toymodels.runs.storage import check_writable, read_json, write_json, writing
from toymodels.sweeps.definition import SweepFile
from toymodels.sweeps.distributions import same
from toymodels.sweeps.plan import Plan, most_runs
from toymodels.sweeps.search import Finished, search
from toymodels.sweeps.work import LOCKS

FORMAT = 1
RUNS, FAILED = "runs", "failed"
"""Subfolders of a sweep's folder: the runs, and the reasons why runs failed."""


@dataclass
class Run:
    """A run that has been suggested."""

    number: int
    config: dict[str, Any]
    """The configuration that the search suggested."""
    folder: Path
    refused: str = ""
    """Why the configuration is not valid, if it is not."""
    lost: int = 0
    """How often its process was killed."""

    @property
    def name(self) -> str:
        """The run's name, which depends on the configuration alone."""
        return self.folder.name

    @property
    def failure(self) -> Path:
        """The file that says why the run failed, if it did."""
        return self.folder.parent.parent / FAILED / f"{self.name}.json"


class Suggestions:
    """The runs of a plan, in one folder."""

    def __init__(self, plan: Plan, folder: Path, count: int | None, seed: int):
        """Make the folder, or open it again. Raises InputError for one that holds anything but this sweep."""
        self.plan, self.folder, self._seed = plan, folder, seed
        self._search = search(plan.sweep, seed)
        self.total = most_runs(plan.sweep, count)
        """The most runs that the search will suggest."""
        self._ended: dict[int, Finished] = {}
        self._read, self._suggested = b"", list[dict[str, Any]]()  # the file's bytes, and the configurations in them
        self._open()

    def _open(self) -> None:
        text = self.plan.sweep.path.read_text("utf-8-sig")
        raw = yaml.safe_load(text)
        searched = {key: raw.get(key) for key in ("method", "parameters", "metric", "early_terminate")}
        searched |= {"base": dict(self.plan.base)} if self.plan.base else {}
        mine = {"format": FORMAT, "kind": self.plan.kind_name, "seed": self._seed, "sweep": searched}
        code = self.plan.plugin_code
        path = self.folder / "sweep.json"
        if path.exists():
            try:
                saved = read_json(path, tuple(mine))
            except InputError:
                raise InputError(
                    f"{path} is truncated or damaged: delete it, and the same command continues the runs beside it"
                ) from None
            same_sweep = json.loads(json.dumps(mine)) == {key: saved[key] for key in mine}
            same_code = code == saved.get("plugin_code", [])
            if same_code and not same_sweep and self._extends(saved, searched):
                with FileLock(self.folder / ".suggestions.lock"):  # the numbers of the runs are others now
                    self._path.unlink(missing_ok=True)
                    write_json(path, {**mine, "plugin_code": code, "file": text})
            elif not (same_sweep and same_code):
                other = "another sweep (other parameters, method, kind or seed)"
                held = "a sweep with other code in its plugins" if same_sweep else other
                raise InputError(f"the folder {self.folder} holds {held}: name another with --out, or delete it")
            return
        if self.folder.is_file() or (self.folder.exists() and _foreign(self.folder)):
            raise InputError(f"{self.folder} is not empty and holds no sweep: name another folder with --out")
        check_writable(path)
        write_json(path, {**mine, "plugin_code": code, "file": text})

    def _extends(self, saved: dict[str, Any], searched: dict[str, Any]) -> bool:
        """Whether the sweep is the grid that the folder holds, with further values: finished runs then stay and count."""
        if self.plan.sweep.method != "grid" or saved["kind"] != self.plan.kind_name:
            return False
        others = [{k: v for k, v in sweep.items() if k != "parameters"} for sweep in (saved["sweep"], searched)]
        try:
            before = SweepFile(self.folder / "sweep.json", str(saved["file"])).sweep()
        except (InputError, KeyError):
            return False
        old, new = (
            {p.name: set(map(same, axis)) for p, axis in zip(sweep.parameters, search(sweep).axes, strict=True)}
            for sweep in (before, self.plan.sweep)
        )
        return others[0] == others[1] and old.keys() == new.keys() and all(old[name] <= new[name] for name in old)

    def __iter__(self) -> Iterator[Run]:
        """Yield the runs by number until the search ends."""
        number = 0
        while (run := self.run(number)) is not None:
            yield run
            number += 1

    def run(self, number: int) -> Run | None:
        """Return run `number`, counted from 0; None if the search has ended before it or the metric's target is reached.

        Raises InputError for a damaged file of suggestions.
        """
        if number >= self.total:
            return None
        with FileLock(self.folder / ".suggestions.lock"):
            known = self._known()
            ended = self._finished(known)
            if number < len(known) and self.plan.sweep.method == "bayes" and not self._has_target:
                return self._run(number, known[number])
            suggested = self._search.suggest(number, ended)
            if number < len(known):
                run = self._run(number, known[number])
                if suggested is None and self.plan.result(run.folder) is None:
                    return None
                if suggested not in (None, known[number]) and self.plan.sweep.method != "bayes":
                    raise InputError(f"{self._path} is of another sweep: delete it, and the same command continues")
                return run
            if suggested is not None:
                self._append(number, suggested)
        return None if suggested is None else self._run(number, suggested)

    @property
    def _has_target(self) -> bool:
        return self.plan.sweep.metric is not None and self.plan.sweep.metric.target is not None

    def _run(self, number: int, suggested: dict[str, Any]) -> Run:
        try:
            return Run(number, suggested, self.folder / RUNS / self.plan.name(suggested))
        except InputError as error:  # bayes learns that this configuration fails
            return Run(number, suggested, self.folder / RUNS / f"number-{number}", refused=str(error))

    def _finished(self, known: list[dict[str, Any]]) -> list[Finished]:
        """Return all runs that have ended, in whichever runner: what the search may learn from."""
        if self.plan.sweep.method != "bayes" and not self._has_target:
            return []
        for number, suggested in enumerate(known):
            if number in self._ended and self._ended[number].metric is not None:
                continue
            run = self._run(number, suggested)
            result = None if run.refused else self.plan.result(run.folder)
            if result is not None:
                self._ended[number] = Finished(number, suggested, self.plan.metric(result))
            elif run.refused or run.failure.exists():
                self._ended[number] = Finished(number, suggested, None)
        return [self._ended[number] for number in sorted(self._ended)]

    @property
    def _path(self) -> Path:
        return self.folder / "suggestions.jsonl"

    def _known(self) -> list[dict[str, Any]]:
        """Read the configurations suggested so far. Nobody has used a last line that is incomplete after a kill."""
        whole = self._whole()
        if whole == self._read:
            return self._suggested
        try:
            entries = [json.loads(text) for text in whole.decode().splitlines()]
            if [entry["number"] for entry in entries] != list(range(len(entries))):
                raise ValueError("runs are missing")
            self._read, self._suggested = whole, [dict(entry["config"]) for entry in entries]
            return self._suggested
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(
                f"{self._path} is damaged ({error}): delete it, and the same command continues (bayes searches anew)"
            ) from None

    def _whole(self) -> bytes:
        content = self._path.read_bytes() if self._path.exists() else b""
        return content[: content.rfind(b"\n") + 1]

    def _append(self, number: int, suggested: dict[str, Any]) -> None:
        whole = len(self._whole())
        with writing(self._path), open(self._path, "ab") as file:
            file.truncate(whole)
            file.write((json.dumps({"number": number, "config": suggested}) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())


def _foreign(folder: Path) -> bool:
    """Whether a folder holds anything that no sweep has made."""
    own = (RUNS, FAILED, LOCKS, "suggestions.jsonl", "slurm")
    # Another runner may be writing its files at this moment, under names that begin with a dot.
    return any(p.name not in own and not p.name.startswith(".") for p in folder.iterdir())
