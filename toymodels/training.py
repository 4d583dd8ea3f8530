"""Training: one loop for both optimisers, for a trained or a frozen first layer, on sampled or enumerated inputs.

A frozen layer is one whose parameters do not require gradients; nothing else differs.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toymodels.errors import InputError
from toymodels.features import Inputs, SparseFeatures
from toymodels.losses import LossSums, LpLoss, case_weights, check_exponent
from toymodels.network import Network
from toymodels.readoffs.linear import LinearReadoff
from toymodels.squared import squared_loss
from toymodels.storage import load_checkpoint, save_checkpoint
from toymodels.tasks import PairTask, Task

OPTIMISERS = ("auto", "lbfgs", "adam", "adamw")
SCHEDULES = ("constant", "linear", "cosine")
AVERAGES = ("together", "apart")
FULL_BATCH_LIMIT = 2**25
"""Inputs × outputs up to which "auto" takes full-batch L-BFGS on enumerated inputs; beyond it, Adam on samples."""
LBFGS_CHUNK = 10
"""L-BFGS iterations between two looks at the clock (metrics, checkpoint, Ctrl-C)."""
_BLOCK = 2**25
"""Largest block of inputs × outputs held at once, in numbers."""
_LOOK = 16
"""Inputs on which the largest error is looked at where the loss needs no outputs."""


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
    batch: int = 256
    """Inputs per step (adam, adamw)."""
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
        for name in ("steps", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} = {value}: it must be at least 1")
        if not 0 < self.lr <= 1000:
            raise InputError(f"lr = {self.lr:g}: the learning rate must be a positive number, 1,000 at most")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay = {self.weight_decay:g}: it must be 0 or a positive number")

    def resolve(self, features: SparseFeatures, task: Task) -> str:
        """The optimiser that "auto" stands for here."""
        if self.optimiser != "auto":
            return self.optimiser
        return "lbfgs" if features.n_inputs * max(task.n_outputs, task.m) <= FULL_BATCH_LIMIT else "adam"


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"unknown {name} {value!r}: choose one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Block:
    """Some inputs with what the loss needs of them."""

    x: Tensor
    targets: Tensor
    weights: Tensor
    """P(x)·w_case for each input and output."""


def loss_and_gradients(network: Network, loss: LpLoss, blocks: Callable[[], Iterator[Block]]) -> LossSums:
    """Add the loss's gradients to the network's parameters; return its sums over all inputs (value, largest error).

    One block: one pass, exact. Several: the p-th root and the scaling need sums over all blocks before any gradient,
    so a first pass without gradients finds them; memory stays that of a block.
    """
    remaining = blocks()
    block, following = next(remaining), next(remaining, None)
    if following is None:
        outputs = network(block.x)
        sums, gradient = loss.sums_and_gradient(outputs.detach() - block.targets, block.targets, block.weights)
        outputs.backward(gradient)
        return sums
    total: LossSums | None = None
    for block in blocks():
        with torch.no_grad():
            part = loss.sums(network(block.x) - block.targets, block.targets, block.weights)
        total = part if total is None else total.join(part, loss.p, loss.apart)
    assert total is not None
    for block in blocks():
        outputs = network(block.x)
        outputs.backward(loss.gradient(outputs.detach() - block.targets, block.targets, block.weights, total))
    return total


def squared_applies(network: Network, task: Task, loss: LpLoss) -> bool:
    """Whether a step can do without its outputs: a squared loss, averaged together, of a linear readoff of pairs."""
    return loss.p == 2 and not loss.apart and isinstance(task, PairTask) and isinstance(network.readoff, LinearReadoff)


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
        """`seed` draws the batches (adam). Raises InputError if L-BFGS is asked for on inputs too many to enumerate."""
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
        self._blocks: list[Block] | None = None
        if self.optimiser_name == "lbfgs":
            self._inputs = features.enumerate(device=device)
            if len(self._inputs) * task.n_outputs <= _BLOCK:
                self._blocks = list(self._full_batch())
        self._optimiser = self._new_optimiser()

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps

    def advance(self) -> Progress:
        """One Adam step, or up to LBFGS_CHUNK iterations of L-BFGS. Raises ArithmeticError if the loss is not finite."""
        started = time.perf_counter()
        stage = self._stage_of(self.step)
        if stage != self._stage and self.optimiser_name == "lbfgs":
            self._optimiser = self._new_optimiser()  # the curvature of another p is no guide
        self._stage = stage
        loss = LpLoss(self.settings.p[stage], self.settings.root, self.settings.average == "apart", float(self._ones))
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
            "optimiser": self._optimiser.state_dict(),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.step, self._stage, self.seconds = state["step"], state["stage"], state["seconds"]
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())

    def _stage_of(self, step: int) -> int:
        return step * len(self.settings.p) // self.steps

    def _stage_end(self, stage: int) -> int:
        return -(-(stage + 1) * self.steps // len(self.settings.p))

    def _new_optimiser(self) -> torch.optim.Optimizer:
        trainable = [p for p in self.network.parameters() if p.requires_grad]
        settings = self.settings
        if self.optimiser_name == "lbfgs":
            return torch.optim.LBFGS(
                trainable,
                max_eval=10**9,
                tolerance_grad=0,
                tolerance_change=0,
                history_size=10,
                line_search_fn="strong_wolfe",
            )
        kind = torch.optim.Adam if self.optimiser_name == "adam" else torch.optim.AdamW
        return kind(trainable, lr=settings.lr, weight_decay=settings.weight_decay)

    def _lbfgs(self, loss: LpLoss) -> LossSums:
        iterations = min(LBFGS_CHUNK, self._stage_end(self._stage) - self.step)
        self._optimiser.param_groups[0]["max_iter"] = iterations
        sums: LossSums | None = None

        def closure() -> float:
            nonlocal sums
            self._optimiser.zero_grad()
            sums = loss_and_gradients(self.network, loss, self._full_batch)
            return self._finite(loss, sums)  # a line search never ends on a loss that is no number

        self._optimiser.step(closure)
        self.step += iterations
        assert sums is not None
        return sums

    def _adam(self, loss: LpLoss) -> LossSums:
        share = 1 - self.step / self.steps
        factor = {"constant": 1.0, "linear": share, "cosine": (1 - math.cos(math.pi * share)) / 2}
        self._optimiser.param_groups[0]["lr"] = self.settings.lr * factor[self.settings.lr_schedule]
        indices = self.features.sample(self.settings.batch, self.generator, self.device)
        law = torch.full((len(indices),), 1 / len(indices), dtype=torch.float64, device=self.device)
        batch = Inputs(self.features.m, indices, law, False, "batch")
        self._optimiser.zero_grad()
        if squared_applies(self.network, self.task, loss):
            sums = self._squared(loss, batch)
        else:
            sums = loss_and_gradients(self.network, loss, lambda: self._make_blocks(batch))
        self._optimiser.step()
        self.step += 1
        return sums

    def _squared(self, loss: LpLoss, batch: Inputs) -> LossSums:
        """Gradients of the squared loss without its outputs; the largest error is that of the batch's first inputs."""
        readoff, task = self.network.readoff, self.task
        assert isinstance(readoff, LinearReadoff)
        assert isinstance(task, PairTask)
        x = batch.dense()
        a = self.network.layer(x)
        mean = squared_loss(a, readoff.weight, readoff.bias, task, batch.indices, batch.probabilities, self._weights)
        # Rounding may leave a mean of nearly 0 a little below it, where a root has no gradient.
        (mean.clamp(min=1e-30).sqrt() if loss.root else mean).backward()
        with torch.no_grad():
            few = x[:_LOOK]
            low, high = torch.aminmax(self.network(few) - task.targets(few))
            largest = max(-float(low), float(high))
            # The sums are stated so that the loss's own formula gives back the mean.
            power = max(float(mean), 0.0) * task.n_outputs / largest**2 if largest != 0 else 0.0
        return LossSums((largest, largest), (power, 0.0), (float(task.n_outputs), 1.0))

    def _finite(self, loss: LpLoss, sums: LossSums) -> float:
        value = loss.value(sums)
        if not math.isfinite(value):
            raise ArithmeticError(
                f"the loss is no longer finite at step {self.step}: lower the learning rate (adam, adamw), or take a smaller "
                "p or its root"
            )
        return value

    def _full_batch(self) -> Iterator[Block]:
        if self._blocks is not None:
            return iter(self._blocks)
        assert self._inputs is not None
        return self._make_blocks(self._inputs)

    def _make_blocks(self, inputs: Inputs) -> Iterator[Block]:
        for rows in inputs.blocks(max(1, _BLOCK // self.task.n_outputs)):
            x = inputs.dense(rows)
            weights = self.task.by_case(x, self._weights)
            weights *= inputs.probabilities[rows, None].to(weights.dtype)
            yield Block(x, self.task.targets(x), weights)


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
    signals = (signal.SIGINT, signal.SIGTERM)  # a cluster that takes its machine back sends the second
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

    A checkpoint is written every so many seconds and on Ctrl-C; a run that goes on from it ends at the same weights
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

    written = time.monotonic()
    with stop_on_interrupt() as interrupted:
        while not trainer.finished:
            report(trainer.advance())
            if interrupted():
                save()
                raise Interrupted(f"stopped after step {trainer.step} of {trainer.steps}")
            if time.monotonic() - written > every_seconds:
                save()
                written = time.monotonic()
