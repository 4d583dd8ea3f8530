"""Run a trainer to its end: write checkpoints, stop on a signal, and check the loss every few steps."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from toymodels.core.training import Progress, Trainer
from toymodels.errors import InputError
from toymodels.parallel.stopping import stop_on_interrupt
from toymodels.runs.identity import difference
from toymodels.runs.storage import load_checkpoint, save_checkpoint

READ_EVERY = 10
"""Steps between two checks of the loss, for which Python waits for the device."""
STOP_WITHIN = 0.1
"""Seconds that a signal may wait for steps that are taken at once; a step that takes longer is taken alone."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C stopped the training between two steps; a checkpoint, if there is one, keeps everything done so far."""


def train(
    trainer: Trainer,
    checkpoint: Path | None = None,
    every_seconds: float | int = 20.0,
    report: Callable[[Progress], None] = lambda progress: None,
    before_checkpoint: Callable[[], dict[str, Any]] = dict,
    on_restore: Callable[[dict[str, Any]], None] = lambda extra: None,
    run: Mapping[str, Any] | None = None,
) -> None:
    """Run a trainer to its end, from its checkpoint if there is one.

    A checkpoint is written every so many seconds (less often if writing takes over a tenth of the time) and on Ctrl-C; a run
    that continues from it ends at the same weights as one that was never interrupted. `report` gets every step's line of
    metrics, as numbers, a few steps at a time. `before_checkpoint` returns data of the caller to be stored with the state (the
    length of its metrics file, say), and `on_restore` gets them back. `run` identifies the run: a checkpoint of another one is
    refused.
    Raises Interrupted on Ctrl-C, InputError for a checkpoint that cannot be read, ArithmeticError for a loss that is
    not finite.
    """
    if checkpoint is not None and checkpoint.exists():
        saved = load_checkpoint(checkpoint)
        try:
            other = difference(saved.get("run") or {}, run) if run is not None and saved.get("run") else ""
            if not other:
                trainer.restore(saved["trainer"])
                on_restore(saved["extra"])
        except Exception as error:  # whatever a file of tensors, numbers, lists and dicts may hold
            other = type(error).__name__
        if other:
            raise InputError(f"the checkpoint {checkpoint} is of another run ({other}): delete it to start over")

    waiting: list[Progress] = []

    def read() -> None:
        lines = as_numbers(waiting)
        waiting.clear()
        for line in lines:
            trainer.check_finite(float(line.loss), line.step)
            report(line)

    def save() -> None:
        read()
        if checkpoint is not None:
            save_checkpoint(
                checkpoint, {"trainer": trainer.state(), "extra": before_checkpoint(), "run": dict(run or {})}
            )

    written, pause = time.monotonic(), every_seconds
    with stop_on_interrupt() as interrupted:
        most = 1
        while not trainer.finished:
            started = time.perf_counter()
            lines = trainer.advance_by(most)
            waiting += lines
            each = (time.perf_counter() - started) / len(lines)
            most = max(1, min(READ_EVERY, int(STOP_WITHIN / each)))
            # Numbers can be read at once; for tensors, Python may have to wait for the device.
            if len(waiting) >= READ_EVERY or trainer.finished or isinstance(waiting[-1].loss, float):
                read()
            if interrupted():
                save()
                raise Interrupted(f"stopped after step {trainer.step} of {trainer.steps}")
            if time.monotonic() - written > pause:
                started = time.monotonic()
                save()
                written = time.monotonic()
                # Large networks take seconds to write: at most a tenth of the time is spent on checkpoints.
                pause = max(every_seconds, 10 * (written - started))
    read()


def as_numbers(lines: Sequence[Progress]) -> list[Progress]:
    """Replace the tensors in lines of metrics by numbers, in one transfer from the device."""
    if all(isinstance(line.loss, float) and isinstance(line.worst_error, float) for line in lines):
        return list(lines)
    both = [[torch.as_tensor(line.loss), torch.as_tensor(line.worst_error)] for line in lines]
    values = torch.stack([torch.stack([value.double() for value in pair]) for pair in both]).tolist()
    return [
        dataclasses.replace(line, loss=loss, worst_error=worst)
        for line, (loss, worst) in zip(lines, values, strict=True)
    ]
