"""Do one run of a sweep in a worker process, on this machine or another."""

from __future__ import annotations

import os
import shutil
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from toymodels.errors import InputError
from toymodels.experiments import registry
from toymodels.experiments.registry import EXPERIMENTS
from toymodels.parallel import processes, stopping
from toymodels.registry import load_plugins
from toymodels.runs.identity import from_dict
from toymodels.runs.record import Busy
from toymodels.runs.storage import FULL, write_json

LOCKS = "locks"
"""Subfolder of a sweep's folder, with a lock for each run."""
ENVIRONMENT = "_environment"
"""A key beside a run's settings: environment variables of the run, such as W&B's project."""
_FULL_BYTES = 2**16
"""Free space below which a failed run means a full disk: torch and safetensors do not raise OSError for it."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: str
    """finished; failed (reason recorded); busy (another runner does it); stopped (to be continued); full (disk)."""
    reason: str = ""


def do_run(kind: str, values: dict[str, Any], folder: str, failure: str) -> Outcome:
    """Do one run in its folder, or continue it. Every error is returned as an outcome, except that the process is killed.

    `failure` is the file that says why the run failed; it is deleted when the run succeeds.
    """
    processes.work_alone()
    values = dict(values)
    os.environ.update(values.pop(ENVIRONMENT, {}))
    target = Path(folder)
    # Not the run's own lock, which lies in its folder: another runner would find the folder without it.
    lock = Path(failure).parent.parent / LOCKS / f"{target.name}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            if not (target / "results.json").exists():  # another runner may have done it since it was handed over
                load_plugins(values.get("plugin", ()))
                registry.run(kind, from_dict(EXPERIMENTS[kind].config, {**values, "out": folder}))
            Path(failure).unlink(missing_ok=True)
        return Outcome("finished")
    except (Busy, Timeout) as error:
        return Outcome("busy", str(error))
    except KeyboardInterrupt as stop:
        return Outcome("stopped", str(stop))
    except Exception as error:
        if _disk_is_full(error, target):
            return Outcome("full", f"no space left for {target}")
        known = isinstance(error, (InputError, ArithmeticError))
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        record_failure(Path(failure), values, reason, "" if known else traceback.format_exc())
        return Outcome("failed", reason)


def _disk_is_full(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return _free(folder) < _FULL_BYTES


def _free(folder: Path) -> int:
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def record_failure(path: Path, values: dict[str, Any], reason: str, trace: str = "") -> None:
    """Write why a run failed, for people and for the results table."""
    write_json(path, {"reason": reason, "config": values, "traceback": trace})


def start_worker(parent: int) -> None:
    """Prepare a local worker process: it leaves Ctrl-C to its parent, and does not outlive it."""
    stopping.leave_to_parent()
    processes.work_alone()
    processes.end_with_parent(parent)
