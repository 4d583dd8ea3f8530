"""Train networks: one loop for every optimiser, a trained or frozen first layer, sampled or enumerated inputs.

A frozen layer is one whose parameters do not require gradients; there is no other difference.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.core.dispatch import dispatched
from toymodels.core.features import Features, Inputs, Source, as_features, checked_sample
from toymodels.core.kfac import PreconditionedLBFGS, curvature, groups_of
from toymodels.core.layers import apply, check_module
from toymodels.core.losses import Loss, LossValue, case_weights, loss_and_gradients
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import seeded
from toymodels.core.settings import DEFAULT_STEPS, FULL_BATCH, SCHEDULES, TrainingSettings
from toymodels.core.tasks import Task
from toymodels.errors import InputError, check_device, check_kind, check_whole

ROUNDING = 64
"""Largest |error| of an exact fit, in units of the last place of the largest target: kfac goes on to the next exponent.

Sums over 128 neurons leave up to 30; closer than that, a line search takes all its trials and finds nothing."""
CHUNK = 10
"""Iterations of kfac or lbfgs between two looks at the clock (metrics, checkpoint, Ctrl-C), and between two metrics of kfac."""


@dataclass(frozen=True)
class Progress:
    """One line of metrics."""

    step: int
    """Optimiser steps done."""
    p: float
    """Exponent of the loss at this step."""
    loss: Float[Tensor, ""] | float
    """The loss at this step, on the batch (adam) or on all inputs (kfac, lbfgs)."""
    worst_error: Float[Tensor, ""] | float
    """Largest |error| on the batch (adam; on its first 16 inputs if p is 2) or on all inputs (kfac, lbfgs)."""
    seconds: float
    """Training time so far, over all sessions of a resumed run."""


@dispatched
def step_threads(network: Network, task: Task, inputs: int, loss: Loss, precise: bool) -> AbstractContextManager[None]:
    """Return a context that sets the threads for a step on this number of inputs: here torch's own number."""
    return nullcontext()


@dispatched
def optimiser_context() -> AbstractContextManager[None]:
    """Return a context in which optimisers are made, saved and restored: here one without effect."""
    return nullcontext()


@dispatched
def optimiser_step(optimiser: torch.optim.Optimizer) -> None:
    """Take a step with the gradients that the parameters have."""
    optimiser.step()


@dispatched
def adam_steps(
    network: Network,
    task: Task,
    source: Features | Inputs,
    n: int,
    generator: torch.Generator,
    loss: Loss,
    weights: Sequence[float],
    optimiser: torch.optim.Optimizer,
    rates: Sequence[float],
) -> list[LossValue]:
    """Take a step of Adam or AdamW at each learning rate, on n inputs drawn from the source, or all of them if it is a list."""
    reached = []
    for rate in rates:
        optimiser.param_groups[0]["lr"] = rate
        for parameter in network.parameters():
            parameter.grad = None
        inputs = source if isinstance(source, Inputs) else source.sample(n, generator)
        reached.append(loss_and_gradients(network, task, inputs, loss, weights))
        optimiser_step(optimiser)
    return reached


class Trainer:
    """Trains one network; its whole state can be saved between steps, and restored to continue to the same result."""

    def __init__(
        self,
        network: Network,
        task: Task,
        features: Source,
        settings: TrainingSettings,
        seed: int,
        device: torch.device | str = "cpu",
    ):
        """Prepare a training; `seed` draws the batches (adam) and samples of outputs, on the device.

        Raises InputError for arguments that do not fit together, if all inputs are needed and are too many to enumerate, or if
        outputs are sampled and the readoff is not linear.
        """
        check_kind(Network, "a Network(layer, readoff)", network=network)
        check_module(network, "network")
        check_kind(Task, "a Task, such as PairTask(m, 'and') or make_task('relu', m)", task=task)
        wanted = "a source of inputs, such as SparseFeatures.at_most(m, 2), not a list of them"
        check_kind(Source, wanted, features=features)
        check_kind(TrainingSettings, "TrainingSettings(…)", settings=settings)
        features = as_features(features)
        if features.m != task.m:
            raise InputError(f"the features are {features.m} and the task has {task.m}: they must be the same")
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise InputError("nothing can be trained: no weight of layer or readoff requires gradients")
        check_device(device)
        self.network, self.task, self.features, self.settings = network.to(device), task, features, settings
        self.optimiser_name = settings.resolve(features, task)
        self.steps = settings.steps or DEFAULT_STEPS[self.optimiser_name]
        self._full_batch = self.optimiser_name in FULL_BATCH
        self.device = torch.device(device)
        self.generator = seeded(seed, self.device)
        self._weights = case_weights(settings.weight, task.truth, task.case_probabilities(features))
        self._exponents = settings.exponents
        self._losses = [settings.make_loss(stage) for stage in range(len(self._exponents))]
        self.step = 0
        self.seconds = 0.0
        self._stage = -1
        self._inputs: Inputs | None = None
        if self._full_batch or settings.batch == "all":
            self._inputs = features.enumerate(device=device)
        else:
            checked_sample(features, 2, seeded(0, self.device))
        self._size = len(self._inputs) if self._inputs is not None else int(settings.batch)
        """Inputs of a step."""
        self._sampling = settings.pairs_per_step is not None and settings.pairs_per_step < task.n_outputs
        if self._sampling and not isinstance(network.readoff, LinearReadoff):
            raise InputError("pairs_per_step needs a linear readoff: leave it out")
        self._trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        with torch.no_grad():
            outputs = apply(copy.deepcopy(network).eval(), task.m, "network")
        if outputs.shape[1] != task.n_outputs:
            raise InputError(f"the network has {outputs.shape[1]} outputs, the task {task.name} {task.n_outputs}")
        if not bool(outputs.isfinite().all()):
            raise InputError("the network returns numbers that are not finite: a weight is infinite or not a number")
        with optimiser_context():
            self._optimisers = self._new_optimisers()

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps

    def advance(self) -> Progress:
        """Take one Adam step, or up to CHUNK iterations of kfac or L-BFGS.

        These two raise ArithmeticError if the loss is not finite; with Adam the caller must check the loss when it reads it.
        """
        return self.advance_by(1)[0]

    def advance_by(self, steps: int) -> list[Progress]:
        """Take up to so many Adam steps, and return a line of metrics for each; kfac and L-BFGS go on as by `advance`.

        A small network takes many steps at once in less time than one by one, to the same weights. The first step of a training
        is taken alone, and no call goes beyond the end of an exponent. Each line has an equal share of the time. Raises what
        `advance` raises, and InputError if `steps` is no whole number from 1.
        """
        check_whole(1, steps=steps)
        if self.finished:
            raise InputError(f"all {self.steps:,} steps are done: make a new Trainer with more")
        started, before = time.perf_counter(), self.seconds
        stage = self.step * len(self._losses) // self.steps
        if stage != self._stage and self._full_batch:
            with optimiser_context():
                self._optimisers = self._new_optimisers()  # the curvature estimated for another p does not help
        self._stage = stage
        loss = self._losses[stage]
        with step_threads(self.network, self.task, self._size, loss, self._full_batch):
            if self._full_batch:
                reached = [self._kfac(loss) if self.optimiser_name == "kfac" else self._lbfgs(loss)]
            else:
                # The first step makes Adam's moments, without which no other form than the plain one applies.
                count = min(steps, self._stage_end(stage) - self.step) if self.step > 0 else 1
                reached = self._adam(loss, count)
        self.seconds += time.perf_counter() - started
        last, each, p = len(reached) - 1, (self.seconds - before) / len(reached), self._exponents[stage]
        return [
            Progress(self.step - last + i, p, one.value, one.largest, self.seconds - (last - i) * each)
            for i, one in enumerate(reached)
        ]

    def state(self) -> dict[str, Any]:
        """Return everything that the next steps depend on."""
        with optimiser_context():
            optimisers = [optimiser.state_dict() for optimiser in self._optimisers]
        return {
            "step": self.step,
            "stage": self._stage,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "optimisers": optimisers,
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a saved state. Raises ValueError or a similar error for one that is not of such a training."""
        right = (
            isinstance(state["step"], int) and isinstance(state["stage"], int) and isinstance(state["seconds"], float)
        )
        if not right or not 0 <= state["step"] <= self.steps or not -1 <= state["stage"] < len(self._losses):
            raise ValueError("no state of such a training")
        self.step, self._stage, self.seconds = state["step"], state["stage"], state["seconds"]
        self.network.load_state_dict(state["network"])
        with optimiser_context():
            for optimiser, saved in zip(self._optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
        self.generator.set_state(state["generator"].cpu())

    def _stage_end(self, stage: int) -> int:
        return -(-(stage + 1) * self.steps // len(self._losses))

    def _new_optimisers(self) -> list[Any]:
        trainable, settings = self._trained, self.settings
        if self.optimiser_name == "kfac":
            return [PreconditionedLBFGS(groups_of(self.network))]
        if self.optimiser_name == "lbfgs":
            lbfgs = torch.optim.LBFGS(
                trainable, max_eval=10**9, tolerance_grad=0, tolerance_change=0, history_size=10,
                line_search_fn="strong_wolfe",
            )  # fmt: skip
            return [lbfgs]
        if self._sampling:
            # The readoff of an output that was not sampled keeps its weights and moments; the first layer changes every step.
            layer = [p for p in self.network.layer.parameters() if p.requires_grad]
            readoff = torch.optim.SparseAdam(list(self.network.readoff.parameters()), lr=settings.lr)
            return [readoff, *([torch.optim.Adam(layer, lr=settings.lr, fused=True)] if layer else [])]
        kind = torch.optim.Adam if self.optimiser_name == "adam" else torch.optim.AdamW
        return [kind(trainable, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)]

    def _kfac(self, loss: Loss) -> LossValue:
        end = self._stage_end(self._stage)
        iterations = min(CHUNK, end - self.step)
        (optimiser,) = self._optimisers
        reached = LossValue(math.nan, math.nan)

        def evaluate() -> float:
            nonlocal reached
            reached = self._gradients(loss, self._inputs, precise=True)
            return float(reached.value)

        assert self._inputs is not None
        try:
            goes_on = optimiser.minimise(evaluate, curvature(self.network, self._inputs), iterations)
        except ArithmeticError:
            self.check_finite(float(reached.value), self.step)
            raise
        # An exact fit leaves rounding, in which a search for a lower value has no end.
        exact = ROUNDING * torch.finfo(self._trained[0].dtype).eps * max(map(abs, self.task.truth or ()), default=0)
        self.step = self.step + iterations if goes_on and not float(reached.largest) <= exact else end
        return reached

    def _lbfgs(self, loss: Loss) -> LossValue:
        iterations = min(CHUNK, self._stage_end(self._stage) - self.step)
        (optimiser,) = self._optimisers
        optimiser.param_groups[0]["max_iter"] = iterations
        reached = LossValue(math.nan, math.nan)

        def closure() -> float:
            nonlocal reached
            self._forget_gradients()
            reached = self._gradients(loss, self._inputs, precise=True)
            value = float(reached.value)
            self.check_finite(value, self.step)  # a line search does not end if the loss is NaN
            return value

        optimiser.step(closure)
        self.step += iterations
        return reached

    def _adam(self, loss: Loss, count: int) -> list[LossValue]:
        schedule = SCHEDULES[self.settings.lr_schedule]
        rates = [self.settings.lr * schedule(1 - step / self.steps) for step in range(self.step, self.step + count)]
        source = self.features if self._inputs is None else self._inputs
        if not self._sampling:
            (optimiser,) = self._optimisers
            given = self.network, self.task, source, self._size, self.generator, loss, self._weights
            reached = adam_steps(*given, optimiser, rates)
        else:
            reached = []
            for rate in rates:
                self._forget_gradients()
                inputs = source if isinstance(source, Inputs) else source.sample(self._size, self.generator)
                reached.append(self._gradients(loss, inputs))
                for optimiser in self._optimisers:
                    optimiser.param_groups[0]["lr"] = rate
                    optimiser_step(optimiser)
        self.step += count
        return reached

    def _forget_gradients(self) -> None:
        for parameter in self._trained:
            parameter.grad = None

    def _gradients(self, loss: Loss, inputs: Inputs | None, precise: bool = False) -> LossValue:
        assert inputs is not None
        sample: Int[Tensor, " chosen"] | None = None
        if self._sampling:
            order = torch.randperm(self.task.n_outputs, generator=self.generator, device=self.device)
            sample = order[: self.settings.pairs_per_step]
        return loss_and_gradients(self.network, self.task, inputs, loss, self._weights, sample, precise)

    @staticmethod
    def check_finite(loss: float, step: int) -> None:
        """Raise ArithmeticError for a loss that is not a finite number."""
        if not math.isfinite(loss):
            raise ArithmeticError(
                f"the loss is no longer finite at step {step}: take a smaller p or its root, a weight nearer to 1 or a larger "
                "s; with adam or adamw also a smaller lr"
            )
