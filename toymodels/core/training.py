"""Training: one loop for both optimisers, for a trained or a frozen first layer, on sampled or enumerated inputs.

A frozen layer is one whose parameters do not require gradients; nothing else differs.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from toymodels.core.features import Inputs, SparseFeatures
from toymodels.core.losses import LossSums, LpLoss, case_weights, check_exponent
from toymodels.core.network import Network
from toymodels.core.tasks import PairTask, Task
from toymodels.errors import InputError
from toymodels.fast.gradients import Block, loss_and_gradients, pair_gradients, pairs_apply
from toymodels.fast.pair_lp import Rows
from toymodels.parallel.threads import by_hand
from toymodels.runs.storage import load_checkpoint, save_checkpoint

OPTIMISERS = ("auto", "lbfgs", "adam", "adamw")
SCHEDULES = ("constant", "linear", "cosine")
AVERAGES = ("together", "apart")
FULL_BATCH_LIMIT = 2**25
"""Inputs × outputs up to which "auto" takes full-batch L-BFGS on enumerated inputs; beyond it, Adam on samples."""
LBFGS_CHUNK = 10
"""L-BFGS iterations between two looks at the clock (metrics, checkpoint, Ctrl-C)."""
_LARGE = 2**24
"""Parameters from which an optimiser's own pass over them is worth torch's threads."""
_BLOCK = 2**25
"""Largest block of inputs × outputs held at once, in numbers."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained."""

    optimiser: str = "auto"
    """lbfgs (full batch, on all inputs), adam or adamw (mini-batches of sampled inputs); auto: lbfgs where inputs ×
    outputs are at most 2^25, else adam."""
    steps: int | None = None
    """Optimiser steps in all, shared evenly among the values of p. Default 1,500 (lbfgs) or 3,000 (adam, adamw)."""
    p: tuple[int | float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0)
    """Exponents of the loss, each ≥ 1, one after the other; one number for a fixed p."""
    weight: int | float | str = "case"
    """Loss weights: 'case' (input cases 00, 01, 10, 11 weigh the same), 'value' (ones and zeros weigh the same), or a
    positive number on the ones (1: unweighted)."""
    root: bool = True
    """Take the p-th root of the mean |error|^p."""
    average: str = "together"
    """together, or apart: ones and zeros averaged apart, the two means added (the ones' times `weight` if a number)."""
    batch: int | str = 256
    """Inputs per step (adam, adamw), or 'all': every step on all inputs and their probabilities, without sampling noise."""
    pairs_per_step: int | None = None
    """Pairs sampled each step to stand for all others, beside all whose features are both on (adam). Default: all pairs."""
    lr: int | float = 1e-3
    """Learning rate (adam, adamw)."""
    lr_schedule: str = "constant"
    """Learning rate over the steps: constant, or falling to 0 by a linear or cosine law (adam, adamw)."""
    weight_decay: int | float = 0.0
    """Decoupled weight decay per step (adamw) or L2 penalty (adam)."""

    def __post_init__(self) -> None:
        _one_of("optimiser", self.optimiser, OPTIMISERS)
        _one_of("lr_schedule", self.lr_schedule, SCHEDULES)
        _one_of("average", self.average, AVERAGES)
        if not self.p:
            raise InputError("p is empty: give at least one exponent of the loss")
        for p in self.p:
            check_exponent(p)
        # 2 and 2.0 are the same exponent and must give the same record.
        object.__setattr__(self, "p", tuple(float(p) for p in self.p))
        if not isinstance(self.weight, str):
            object.__setattr__(self, "weight", float(self.weight))
        case_weights(self.weight, (0, 1), (0.5, 0.5))
        if isinstance(self.batch, str) and self.batch != "all":
            raise InputError(f"batch = {self.batch!r}: give a number of inputs, or 'all'")
        for name in ("steps", "batch", "pairs_per_step"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise InputError(f"{name} = {value}: it must be at least 1")
        if self.pairs_per_step is not None and (
            self.optimiser != "adam" or self.average != "together" or self.weight_decay
        ):
            raise InputError(
                "pairs_per_step is for optimiser adam without weight decay, with all outputs averaged together: "
                "name --optimiser adam, or leave it out"
            )
        if not 0 < self.lr <= 1000:
            raise InputError(f"lr = {self.lr:g}: the learning rate must be a positive number, 1,000 at most")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay = {self.weight_decay:g}: it must be 0 or a positive number")

    def resolve(self, features: SparseFeatures, task: Task) -> str:
        """The optimiser that "auto" stands for here."""
        if self.optimiser != "auto":
            return self.optimiser
        return "lbfgs" if features.n_inputs * max(task.n_outputs, task.m) <= FULL_BATCH_LIMIT else "adam"

    def check_inputs(self, features: SparseFeatures, task: Task) -> None:
        """Raises InputError where every step needs all inputs (lbfgs, batch 'all') and they are too many to enumerate."""
        if self.batch == "all" or self.resolve(features, task) == "lbfgs":
            features.check_enumerable()


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"unknown {name} {value!r}: choose one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Progress:
    """One line of metrics."""

    step: int
    """Optimiser steps done."""
    p: float
    """Exponent of the loss at this step."""
    loss: float
    """The loss at this step, on the batch (adam) or on all inputs (lbfgs)."""
    worst_error: float
    """Largest |error| on the batch (adam; on its first 16 inputs where p is 2) or on all inputs (lbfgs)."""
    seconds: float
    """Training time so far, over all sessions of a resumed run."""


class Trainer:
    """Trains one network; its whole state can be saved between steps and restored to go on to the same result."""

    def __init__(
        self,
        network: Network,
        task: Task,
        features: SparseFeatures,
        settings: TrainingSettings,
        seed: int,
        device: torch.device | str = "cpu",
    ):
        """`seed` draws the batches (adam) and samples of pairs. Raises InputError if all inputs are asked for and are too many to
        enumerate, or a sample of pairs of a task or readoff that has none."""
        self.network, self.task, self.features, self.settings = network.to(device), task, features, settings
        self.optimiser_name = settings.resolve(features, task)
        self.steps = settings.steps or (1500 if self.optimiser_name == "lbfgs" else 3000)
        self.device = torch.device(device)
        self.generator = torch.Generator().manual_seed(seed)
        weights = case_weights(settings.weight, task.truth, task.case_probabilities(features))
        self._weights = weights
        self._ones = settings.weight if isinstance(settings.weight, float | int) else 1.0
        self.step = 0
        self.seconds = 0.0
        self._stage = -1
        self._inputs: Inputs | None = None
        self._rows: list[Rows] | None = None
        self._blocks: list[Block] | None = None
        if self.optimiser_name == "lbfgs" or settings.batch == "all":
            self._inputs = features.enumerate(device=device)
        self._sampling = settings.pairs_per_step is not None and settings.pairs_per_step < task.n_outputs
        if self._sampling and not pairs_apply(network, task, self._loss(0)):
            raise InputError("pairs_per_step needs a task on pairs and a linear readoff: leave it out")
        # Of a small network, what is not done in blocks is too short for torch's own threads.
        size = sum(parameter.numel() for parameter in network.parameters())
        self._small = self.device.type == "cpu" and size < _LARGE and pairs_apply(network, task, self._loss(0))
        self._optimisers = self._new_optimisers()

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps

    def advance(self) -> Progress:
        """One Adam step, or up to LBFGS_CHUNK iterations of L-BFGS. Raises ArithmeticError if the loss is not finite."""
        started = time.perf_counter()
        stage = self._stage_of(self.step)
        if stage != self._stage and self.optimiser_name == "lbfgs":
            self._optimisers = self._new_optimisers()  # the curvature of another p is no guide
        self._stage = stage
        loss = self._loss(stage)
        with by_hand() if self._small and not self._without_outputs(loss) else nullcontext():
            sums = self._lbfgs(loss) if self.optimiser_name == "lbfgs" else self._adam(loss)
        value = self._finite(loss, sums)
        self.seconds += time.perf_counter() - started
        return Progress(self.step, loss.p, value, sums.largest, self.seconds)

    def state(self) -> dict[str, Any]:
        """Everything that the coming steps depend on."""
        return {
            "step": self.step,
            "stage": self._stage,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.step, self._stage, self.seconds = state["step"], state["stage"], state["seconds"]
        self.network.load_state_dict(state["network"])
        for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.generator.set_state(state["generator"].cpu())

    def _stage_of(self, step: int) -> int:
        return step * len(self.settings.p) // self.steps

    def _stage_end(self, stage: int) -> int:
        return -(-(stage + 1) * self.steps // len(self.settings.p))

    def _loss(self, stage: int) -> LpLoss:
        return LpLoss(self.settings.p[stage], self.settings.root, self.settings.average == "apart", float(self._ones))

    def _new_optimisers(self) -> list[torch.optim.Optimizer]:
        trainable = [p for p in self.network.parameters() if p.requires_grad]
        settings = self.settings
        if self.optimiser_name == "lbfgs":
            return [
                torch.optim.LBFGS(
                    trainable,
                    max_eval=10**9,
                    tolerance_grad=0,
                    tolerance_change=0,
                    history_size=10,
                    line_search_fn="strong_wolfe",
                )
            ]
        if self._sampling:
            # A readoff that was not looked at stays as it is, and so do its moments; the first layer moves every step.
            layer = [p for p in self.network.layer.parameters() if p.requires_grad]
            readoff: list[torch.optim.Optimizer] = [
                torch.optim.SparseAdam(list(self.network.readoff.parameters()), lr=settings.lr)
            ]
            return readoff + ([torch.optim.Adam(layer, lr=settings.lr, fused=True)] if layer else [])
        kind = torch.optim.Adam if self.optimiser_name == "adam" else torch.optim.AdamW
        return [kind(trainable, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)]

    def _lbfgs(self, loss: LpLoss) -> LossSums:
        iterations = min(LBFGS_CHUNK, self._stage_end(self._stage) - self.step)
        (optimiser,) = self._optimisers
        optimiser.param_groups[0]["max_iter"] = iterations
        sums: LossSums | None = None

        def closure() -> float:
            nonlocal sums
            optimiser.zero_grad()
            sums = self._gradients(loss)
            return self._finite(loss, sums)  # a line search never ends on a loss that is no number

        optimiser.step(closure)
        self.step += iterations
        assert sums is not None
        return sums

    def _adam(self, loss: LpLoss) -> LossSums:
        share = 1 - self.step / self.steps
        factor = {"constant": 1.0, "linear": share, "cosine": (1 - math.cos(math.pi * share)) / 2}
        for optimiser in self._optimisers:
            optimiser.param_groups[0]["lr"] = self.settings.lr * factor[self.settings.lr_schedule]
            optimiser.zero_grad()
        sums = self._gradients(loss)
        for optimiser in self._optimisers:
            optimiser.step()
        self.step += 1
        return sums

    def _gradients(self, loss: LpLoss) -> LossSums:
        """Loss and gradients of a step: on all inputs, or on a fresh batch; with a fresh sample of pairs if one is asked for."""
        inputs = self._inputs if self._inputs is not None else self._batch()
        if not pairs_apply(self.network, self.task, loss):
            return loss_and_gradients(self.network, loss, lambda: self._make_blocks(inputs))
        assert isinstance(self.task, PairTask)
        rows = self._rows
        if rows is None:
            rows = list(Rows.of(inputs, next(self.network.readoff.parameters()).dtype))
            if self._inputs is not None:
                self._rows = rows
        sample = None
        if self._sampling:
            assert self.settings.pairs_per_step is not None
            order = torch.randperm(self.task.n_outputs, generator=self.generator)
            sample = order[: self.settings.pairs_per_step].to(self.device)
        squared = self._without_outputs(loss)
        return pair_gradients(self.network, loss, self.task, rows, self._weights, sample, squared)

    def _without_outputs(self, loss: LpLoss) -> bool:
        """Whether a step takes the squared loss from Gram matrices; L-BFGS compares losses to more digits than they hold."""
        return loss.p == 2 and self.optimiser_name != "lbfgs"

    def _batch(self) -> Inputs:
        assert isinstance(self.settings.batch, int)
        indices = self.features.sample(self.settings.batch, self.generator, self.device)
        law = torch.full((len(indices),), 1 / len(indices), dtype=torch.float64, device=self.device)
        return Inputs(self.features.m, indices, law, False, "batch")

    def _finite(self, loss: LpLoss, sums: LossSums) -> float:
        value = loss.value(sums)
        if not math.isfinite(value):
            raise ArithmeticError(
                f"the loss is no longer finite at step {self.step}: lower the learning rate (adam, adamw), or take a smaller "
                "p or its root"
            )
        return value

    def _make_blocks(self, inputs: Inputs) -> Iterator[Block]:
        if self._blocks is not None:
            yield from self._blocks
            return
        blocks = []
        keep = inputs is self._inputs and len(inputs) * self.task.n_outputs <= _BLOCK
        for rows in inputs.blocks(max(1, _BLOCK // self.task.n_outputs)):
            x = inputs.dense(rows)
            weights = self.task.by_case(x, self._weights)
            weights *= inputs.probabilities[rows, None].to(weights.dtype)
            block = Block(x, self.task.targets(x), weights)
            blocks = [block] if keep else []
            yield block
        if keep:
            self._blocks = blocks


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C, once: a flag to be looked at between steps, so that what there is stays whole. Twice: stop at once.

    Only the main thread can take signals; elsewhere the flag is never set.
    """
    stopped = False

    def handler(_signal: int, _frame: object) -> None:
        nonlocal stopped
        if stopped:
            raise KeyboardInterrupt
        stopped = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    # A cluster that takes its machine back sends the second. A worker that ignores the first leaves it to its parent.
    both = (signal.SIGINT, signal.SIGTERM)
    signals = [number for number in both if signal.getsignal(number) is not signal.SIG_IGN]
    previous = [signal.signal(number, handler) for number in signals]
    try:
        yield lambda: stopped
    finally:
        for number, handle in zip(signals, previous, strict=True):
            signal.signal(number, handle)


class Interrupted(KeyboardInterrupt):
    """Training stopped by Ctrl-C between two steps; the checkpoint, if any, holds all that was done."""


def train(
    trainer: Trainer,
    checkpoint: Path | None = None,
    every_seconds: float | int = 20.0,
    report: Callable[[Progress], None] = lambda progress: None,
    before_checkpoint: Callable[[], dict[str, Any]] = dict,
    on_restore: Callable[[dict[str, Any]], None] = lambda extra: None,
) -> None:
    """Run a trainer to its end, from its checkpoint if there is one.

    A checkpoint is written every so many seconds (fewer where writing takes over a tenth of them) and on Ctrl-C;
    a run that goes on from it ends at the same weights
    as one that was never interrupted. `before_checkpoint` returns what the caller wants kept beside the state (the
    length of its metrics file, say), `on_restore` gets it back.
    Raises Interrupted on Ctrl-C, InputError for a checkpoint that cannot be read, ArithmeticError for a loss that is
    not finite.
    """
    if checkpoint is not None and checkpoint.exists():
        saved = load_checkpoint(checkpoint)
        try:
            trainer.restore(saved["trainer"])
            on_restore(saved["extra"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = type(error).__name__
            raise InputError(
                f"the checkpoint {checkpoint} is of another run ({reason}): delete it to start over"
            ) from None

    def save() -> None:
        if checkpoint is not None:
            save_checkpoint(checkpoint, {"trainer": trainer.state(), "extra": before_checkpoint()})

    written, pause = time.monotonic(), every_seconds
    with stop_on_interrupt() as interrupted:
        while not trainer.finished:
            report(trainer.advance())
            if interrupted():
                save()
                raise Interrupted(f"stopped after step {trainer.step} of {trainer.steps}")
            if time.monotonic() - written > pause:
                started = time.monotonic()
                save()
                written = time.monotonic()
                # Large networks take seconds to write: no more than a tenth of the time goes into checkpoints.
                pause = max(every_seconds, 10 * (written - started))
