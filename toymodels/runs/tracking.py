"""Mirror a run in Weights & Biases. The record on disk does not depend on it.

wandb.json in the record keeps W&B's id of the run: however often it is stopped and continued, online or offline, it is one run
there, and each step is sent once.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from toymodels.core.training import Progress
from toymodels.errors import InputError, check_choice, notice
from toymodels.parallel.processes import bars
from toymodels.runs.identity import identity
from toymodels.runs.record import read_metrics
from toymodels.runs.settings import MODES, RunSettings
from toymodels.runs.storage import read_json, write_json

_KEPT = "wandb.json"


def wandb_mode(chosen: str | None) -> str:
    """Return the mode: the chosen one, else WANDB_MODE, else online under a sweep agent, else disabled."""
    return chosen or os.environ.get("WANDB_MODE") or ("online" if "WANDB_SWEEP_ID" in os.environ else "disabled")


def check_mirror(chosen: str | None) -> None:
    """Raise InputError for a mode that W&B does not have."""
    mode = wandb_mode(chosen)
    if chosen is not None:
        check_choice(MODES, wandb=chosen)
    elif mode not in MODES:
        raise InputError(f"WANDB_MODE is {mode!r}: set it to disabled, offline or online")


class Mirror:
    """Sends configuration, curves, final table and figures to W&B; does nothing if the mode is disabled."""

    def __init__(self, config: RunSettings, kind: str, folder: Path, follows: bool = False):
        """`follows`: the run trains one network, whose metrics are sent while it trains."""
        self._config, self._kind, self._folder, self._follows = config, kind, folder, follows
        self._run: Any = None
        self._mode = wandb_mode(config.wandb)
        self._known = 0
        """Steps below this one, or so many lines of several networks, are in W&B from before the run was stopped."""
        self._caught_up = False

    def __enter__(self) -> Mirror:
        mode, path = self._mode, self._folder / _KEPT
        kept: dict[str, Any] = read_json(path, ("id",)) if path.exists() else {}
        run_id = os.environ.get("WANDB_RUN_ID") or kept.get("id") or secrets.token_hex(4)
        if mode != "disabled" and kept != {"id": run_id, "complete": mode}:
            import wandb  # slow to import

            write_json(path, {"id": run_id})
            if mode == "offline":
                # What an earlier process wrote until it was stopped is written again, from the record.
                for earlier in (self._folder / "wandb").glob(f"offline-run-*-{run_id}"):
                    shutil.rmtree(earlier, ignore_errors=True)
            # An agent's run belongs to the project of its sweep, whose id W&B keeps also in an offline run.
            project = None if "WANDB_SWEEP_ID" in os.environ else os.environ.get("WANDB_PROJECT", "toymodels")
            sweep = self._folder.resolve().parent.parent
            # One of many workers must not write to the terminal.
            quiet: dict[str, Any] = {} if bars() else {"silent": True, "console": "off"}
            try:
                self._run = wandb.init(
                    project=project,
                    group=sweep.name if (sweep / "sweep.json").exists() else None,
                    job_type=self._kind,
                    name=self._folder.name,
                    config=identity(self._config),
                    mode=mode,  # type: ignore[arg-type]
                    id=run_id,
                    resume="allow" if mode == "online" else None,
                    dir=str(self._folder),
                    settings=wandb.Settings(**quiet),
                )
            except wandb.Error as error:
                reason = str(error).splitlines()[0]
                raise InputError(f"W&B did not start ({reason}): run wandb login, or take --wandb offline") from None
            self._known = self._run.starting_step
        return self

    def progress(self, progress: Progress) -> None:
        """Send one line of metrics of a run's only network while it trains."""
        if self._run is not None:
            self._catch_up(progress.step)
            self._curve(asdict(progress))

    def _catch_up(self, step: int | float) -> None:
        """Send the lines before this step that the record has from before the run was stopped, and W&B has not."""
        if not self._caught_up:
            self._caught_up = True
            for path in self._folder.rglob("metrics.jsonl"):
                for line in read_metrics(path):
                    if line["step"] < step:
                        self._curve(line)

    def _curve(self, line: dict[str, Any]) -> None:
        if self._run is not None and line["step"] >= self._known:
            try:
                self._run.log({key: line[key] for key in ("p", "loss", "worst_error")}, step=line["step"])
            except Exception as error:  # the training must not end for it
                self._run = None
                notice(f"W&B gets no more of this run ({type(error).__name__}: {error}); the run goes on")

    def histories(self) -> None:
        """Send the metrics of several networks, each with a step axis of its own; or the rest of those of the only one."""
        if self._run is not None and self._follows:
            self._catch_up(math.inf)
        elif self._run is not None:
            for path in sorted(self._folder.rglob("metrics.jsonl")):
                name = str(path.parent.relative_to(self._folder))
                self._run.define_metric(f"{name}/*", step_metric=f"{name}/step")
                for line in read_metrics(path):
                    if self._known > 0:
                        self._known -= 1
                    else:
                        self._run.log({f"{name}/{key}": value for key, value in line.items()})

    def table(self, rows: Sequence[dict[str, Any]]) -> None:
        """Send the final table."""
        if self._run is not None and rows:
            import wandb

            columns: list[str | int] = list(dict.fromkeys(name for row in rows for name in row))
            data = [[row.get(str(name)) for name in columns] for row in rows]
            self._run.log({"results": wandb.Table(columns=columns, data=data)})

    def summary(self, figures: dict[str, Any]) -> None:
        """Send the final numbers, by which W&B's sweeps and tables compare runs."""
        if self._run is not None:
            self._run.summary.update(figures)

    def figure(self, path: Path) -> None:
        """Send a figure, from its PNG file."""
        if self._run is not None:
            import wandb

            self._run.log({path.stem: wandb.Image(str(path))})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None:
            try:
                self._run.finish(exit_code=0 if error is None else 1)
            except Exception as failure:  # the record is complete
                notice(
                    f"W&B did not end this run ({type(failure).__name__}: {failure}); the record does not depend on it"
                )
                return
            if error is None:
                write_json(self._folder / _KEPT, {"id": self._run.id, "complete": self._mode})
