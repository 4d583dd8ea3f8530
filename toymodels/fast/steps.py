"""Take steps of Adam on small networks with little but their arithmetic: fast `adam_steps`.

A step of such a network takes torch less time than Python needs to ask for it. What the steps ask for is therefore looked up
once (`_Bench`), and again only after something has been put in its place; several steps ask that once. Many networks are trained
one after the other in each process at the same speed: there is no call left that several of them could share.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from toymodels.core.dispatch import fast_form
from toymodels.core.features import ONE, Features, Inputs, SparseFeatures
from toymodels.core.layers import FirstLayer
from toymodels.core.losses import Loss, LossValue, LpLoss
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, Task
from toymodels.core.training import adam_steps
from toymodels.fast.compiled import DTYPES, active_below, active_by_steps, adam, add_bias_and_rectify, through_relu
from toymodels.fast.gradients import pairs_apply, tables_apply
from toymodels.fast.small import PairForms, Tables, columns_of
from toymodels.fast.uniform import fill_uniform

_Problem = tuple[Network, Task, Features | Inputs, int, Loss, Sequence[float], torch.optim.Optimizer]
"""What `adam_steps` gets, apart from the generator and the learning rates."""


def _applies(
    network: Network,
    task: Task,
    source: Features | Inputs,
    n: int,
    generator: torch.Generator,
    loss: Loss,
    weights: Sequence[float],
    optimiser: torch.optim.Optimizer,
    rates: Sequence[float],
) -> bool:
    problem = network, task, source, n, loss, weights, optimiser
    bench = _benches.get(optimiser)
    if bench is not None and bench.is_for(problem):
        return True
    if not _possible(problem, generator.device):
        return False
    _benches[optimiser] = _Bench(problem)
    return True


def _possible(problem: _Problem, device: torch.device) -> bool:
    """Whether it is a small linear readoff of pairs on a plain ReLU layer, and a begun Adam as the trainer makes it."""
    network, task, source, n, loss, _, optimiser = problem
    layer, readoff = network.layer, network.readoff
    if not pairs_apply(network, task, loss) or not tables_apply(n * task.n_outputs, loss, device):
        return False
    assert isinstance(readoff, LinearReadoff)
    if type(layer) is not FirstLayer or layer.activation != "relu" or readoff.weight.dtype not in DTYPES:
        return False
    parameters = [layer.weight, layer.bias, readoff.weight, readoff.bias]
    if layer.weight.requires_grad != layer.bias.requires_grad or not all(p.is_contiguous() for p in parameters):
        return False
    if any(p.device.type != "cpu" or p.dtype != readoff.weight.dtype for p in parameters):
        return False
    if isinstance(source, Inputs):
        if source.values is not None:
            return False
    elif not isinstance(source, SparseFeatures) or source.values != ONE:
        return False
    if type(optimiser) not in (torch.optim.Adam, torch.optim.AdamW) or len(optimiser.param_groups) != 1:
        return False
    (group,) = optimiser.param_groups
    trained = [p for p in parameters if p.requires_grad]
    same = {id(p) for p in group["params"]} == {id(p) for p in trained} and readoff.weight.requires_grad
    plain = not group["amsgrad"] and not group["maximize"] and readoff.bias.requires_grad
    return same and plain and all("exp_avg_sq" in optimiser.state.get(p, {}) for p in trained)


@fast_form(adam_steps, _applies)
def small_steps(
    network: Network,
    task: PairTask,
    source: SparseFeatures | Inputs,
    n: int,
    generator: torch.Generator,
    loss: LpLoss,
    weights: Sequence[float],
    optimiser: torch.optim.Adam,
    rates: Sequence[float],
) -> list[LossValue]:
    """Take the steps on tables that stay in the processor's cache. Parameters have no gradients afterwards."""
    bench = _benches[optimiser]
    for parameter in bench.held:
        parameter.grad = None
    return [bench.step(generator, rate) for rate in rates]


class _Parameter:
    """A parameter and its moments, as flat arrays of NumPy."""

    def __init__(self, parameter: Tensor, state: dict[str, Any], gradient: Tensor):
        self.parameter, self.state = parameter, state
        self.mean, self.square, self.step = state["exp_avg"], state["exp_avg_sq"], state["step"]
        flat = (tensor.detach().view(-1).numpy() for tensor in (parameter, gradient, self.mean, self.square))
        self.arrays = *flat, self.step.numpy()

    def is_in_place(self, state: dict[str, Any]) -> bool:
        """Whether the moments are still the same tensors."""
        return (
            self.state is state
            and state["exp_avg"] is self.mean
            and state["exp_avg_sq"] is self.square
            and state["step"] is self.step
            and self.parameter.requires_grad
        )


_Drawn = tuple[Tensor, Any, Tensor, Any]
"""Inputs (m × inputs) for torch and for NumPy, the same as inputs × m, and their probabilities."""


class _Bench:
    """All that a step works on."""

    def __init__(self, problem: _Problem):
        network, task, source, n, loss, weights, optimiser = problem
        layer, readoff = network.layer, network.readoff
        assert isinstance(layer, FirstLayer)
        assert isinstance(readoff, LinearReadoff)
        assert isinstance(task, PairTask)
        assert isinstance(loss, LpLoss)
        self.key = network, layer, readoff, task, source
        self.task, self.source, self.n, self.loss, self.weights = task, source, n, loss, tuple(weights)
        self.frozen = not layer.weight.requires_grad
        self.held = layer.weight, layer.bias, readoff.weight, readoff.bias
        self.addresses = [parameter.data_ptr() for parameter in self.held]
        self.weight, bias, self.read, offset = (parameter.detach() for parameter in self.held)
        slopes = [torch.empty_like(parameter) for parameter in self.held]
        self.layer_slopes, bias_slopes, self.read_slopes, offset_slopes = slopes
        self.dtype = kind = self.read.dtype
        self.columns, self.draw = torch.empty(task.m, n, dtype=kind), self._sampled
        self.rows = self.columns.T
        if isinstance(source, SparseFeatures) and source.drawn_singly(n):
            self.p, self.draw = np.float32(source.p), self._drawn_singly
            self.uniform_array = np.empty((n, task.m), np.float32)
            self.uniform = self.uniform_array.reshape(-1)
            if kind == torch.float32:
                self.rows = torch.from_numpy(self.uniform_array)  # a product of rows is faster than one of columns
        elif isinstance(source, SparseFeatures) and source.drawn_by_steps(n):
            self.ends, self.draw = np.cumsum(source.counts), self._drawn_by_steps
            uniform = torch.empty(1 + source.max_active, n, dtype=torch.float64)
            self.uniform_rows, self.uniform_array = list(uniform), uniform.numpy()
        self.activations, self.back = torch.empty(2, len(bias), n, dtype=kind)
        # To make a view takes as long as a small product.
        self.read_across, self.activations_across = self.read.T, self.activations.T
        self.columns_array, self.active, self.back_array, self.bias_totals, self.offset_totals = (
            tensor.numpy() for tensor in (self.columns, self.activations, self.back, bias_slopes, offset_slopes)
        )
        self.bias, self.offset, self.shares = bias.numpy(), offset.numpy(), np.full(n, 1 / n, self.columns_array.dtype)
        self.forms = PairForms.of(task, weights, self.shares.dtype)
        (self.group,) = optimiser.param_groups
        self.states, self.decoupled = optimiser.state, type(optimiser) is torch.optim.AdamW
        trained = [pair for pair in zip(self.held, slopes, strict=True) if pair[0].requires_grad]
        self.parameters = [_Parameter(parameter, self.states[parameter], slope) for parameter, slope in trained]

    def is_for(self, problem: _Problem) -> bool:
        """Whether it was made for such a step, and nothing has been replaced since."""
        network, task, source, n, loss, weights, optimiser = problem
        modules = network._modules
        layer, readoff = modules["layer"], modules["readoff"]
        now = network, layer, readoff, task, source
        return (
            all(map(operator.is_, now, self.key))
            and n == self.n
            and (loss is self.loss or loss == self.loss)
            and (weights is self.weights or tuple(weights) == self.weights)
            and optimiser.param_groups[0] is self.group
            and layer.activation == "relu"  # type: ignore[union-attr]
            and all(map(operator.is_, (*layer._parameters.values(), *readoff._parameters.values()), self.held))  # type: ignore[union-attr]
            and [parameter.data_ptr() for parameter in self.held] == self.addresses
            and self.held[0].requires_grad is not self.frozen
            and all(one.is_in_place(self.states[one.parameter]) for one in self.parameters)
        )

    def step(self, generator: torch.Generator, lr: float) -> LossValue:
        """Draw inputs, and change the parameters."""
        columns, columns_array, rows, shares = self.draw(generator)
        torch.mm(self.weight, columns, out=self.activations)
        add_bias_and_rectify(self.active, self.bias)
        tables = Tables.of(self.task.n_outputs, self.n, self.dtype)
        value, factor, largest = tables.slopes_of(
            self.read, self.offset, self.activations, columns_array, shares, self.forms, self.loss, self.offset_totals
        )
        torch.mm(tables.slopes, self.activations_across, out=self.read_slopes)
        if not self.frozen:
            torch.mm(self.read_across, tables.slopes, out=self.back)
            through_relu(self.back_array, self.active, self.bias_totals)
            torch.mm(self.back, rows, out=self.layer_slopes)
        group = self.group
        group["lr"] = lr
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        kept, added = (1 - lr * decay, 0.0) if self.decoupled else (1.0, decay)
        for one in self.parameters:
            adam(*one.arrays, factor, lr, kept, beta1, beta2, group["eps"], added)
        return LossValue(value, largest)

    def _sampled(self, generator: torch.Generator) -> _Drawn:
        """Return the inputs that the source draws, or those that are the same in every step."""
        inputs = self.source if isinstance(self.source, Inputs) else self.source.sample(self.n, generator)
        columns, shares = columns_of(inputs, self.dtype)
        return columns, columns.numpy(), columns.T, shares

    def _drawn_singly(self, generator: torch.Generator) -> _Drawn:
        """Draw the same inputs as a source of independent features does."""
        fill_uniform(self.uniform, generator)
        active_below(self.uniform_array, self.p, self.columns_array)
        return self.columns, self.columns_array, self.rows, self.shares

    def _drawn_by_steps(self, generator: torch.Generator) -> _Drawn:
        """Draw the same inputs as a source of sets does, whose sizes are known before their members."""
        for row in self.uniform_rows:
            torch.rand(self.n, generator=generator, out=row)
        active_by_steps(self.ends, self.uniform_array, self.columns_array)
        return self.columns, self.columns_array, self.rows, self.shares


_benches: WeakKeyDictionary[torch.optim.Optimizer, _Bench] = WeakKeyDictionary()
