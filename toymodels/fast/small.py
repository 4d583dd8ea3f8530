"""Compute loss and gradients of small networks on tables that stay in the processor's cache: fast `loss_and_gradients`.

A table has a row for each pair and a column for each input. Between the three products that no form avoids, a compiled loop
(`fast.compiled`) passes over it once if the exponent is 2, 4 or 8. Tables are kept from step to step: new memory for each of them
would cost as much as the arithmetic.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.core.dispatch import fast_form
from toymodels.core.features import Inputs
from toymodels.core.layers import FirstLayer
from toymodels.core.losses import Loss, LossValue, LpLoss, loss_and_gradients
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, Task
from toymodels.fast.compiled import DTYPES, SLOPES_OF_OUTPUTS, coefficients, subtract_targets, weigh_powers
from toymodels.fast.gradients import add_gradient, pairs_apply, tables_apply, value_and_factor
from toymodels.fast.pair_lp import signed_power
from toymodels.fast.pairs import tables_of

_TAME = 2.0**80
"""Powers of errors between this and its inverse fit float32 (2^-126 to 2^128), with room for probabilities and weights."""


def _applies(
    network: Network, task: Task, inputs: Inputs, loss: Loss, weights: Any, sample: Any = None, precise: bool = False
) -> bool:
    device = inputs.indices.device
    if device.type != "cpu" or inputs.values is not None or sample is not None or not pairs_apply(network, task, loss):
        return False
    real = network.readoff.weight.dtype in DTYPES
    return real and tables_apply(len(inputs) * task.n_outputs, loss, device, precise)


@fast_form(loss_and_gradients, _applies)
@torch.no_grad()
def small_gradients(
    network: Network,
    task: PairTask,
    inputs: Inputs,
    loss: LpLoss,
    weights: Sequence[float],
    sample: Int[Tensor, " chosen"] | None = None,
    precise: bool = False,
) -> LossValue:
    """Add the gradients, by three products over all pairs and inputs at once. Errors are measured in units of the largest."""
    layer, readoff = network.layer, network.readoff
    assert isinstance(readoff, LinearReadoff)
    weight, bias = readoff.weight.detach(), readoff.bias.detach()
    columns, shares = columns_of(inputs, weight.dtype)
    parameters = (layer.weight, layer.bias) if type(layer) is FirstLayer else layer.parameters()
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    relu = layer if type(layer) is FirstLayer and layer.activation == "relu" else None
    if relu is not None:
        activations = torch.addmm(relu.bias[:, None], relu.weight, columns).relu_()
    else:
        with torch.set_grad_enabled(bool(trained)):
            traced = layer(columns.T)
        activations = traced.detach().T.contiguous()

    tables = Tables.of(task.n_outputs, columns.shape[1], weight.dtype)
    forms = PairForms.of(task, weights, shares.dtype)
    totals = torch.empty_like(bias)
    value, factor, largest = tables.slopes_of(
        weight, bias.numpy(), activations, columns.numpy(), shares, forms, loss, totals.numpy()
    )
    slopes = tables.slopes
    if readoff.weight.requires_grad:
        gradient = torch.empty_like(weight)
        add_gradient(readoff.weight, torch.addmm(gradient, slopes, activations.T, beta=0, alpha=factor))
        add_gradient(readoff.bias, totals.mul_(factor))
    if trained:
        back = torch.addmm(torch.empty_like(activations), weight.T, slopes, beta=0, alpha=factor)
        if relu is not None:
            torch.ops.aten.threshold_backward(back, activations, 0, grad_input=back)
            for parameter, slope in ((relu.weight, back @ columns.T), (relu.bias, back.sum(1))):
                if parameter.requires_grad:
                    add_gradient(parameter, slope)
        else:
            layer_slopes = torch.autograd.grad(traced, trained, back.T, allow_unused=True)
            for parameter, slope in zip(trained, layer_slopes, strict=True):
                add_gradient(parameter, torch.zeros_like(parameter) if slope is None else slope)
    return LossValue(value, largest)


def columns_of(inputs: Inputs, dtype: torch.dtype) -> tuple[Float[Tensor, "m inputs"], Float[np.ndarray, " inputs"]]:
    """Return the transposed inputs, and their probabilities."""
    kept = inputs.kept.get(("columns", dtype))
    if kept is None:
        active = inputs.kept.get("active")
        if active is None:
            columns = torch.zeros(inputs.m + 1, len(inputs), dtype=dtype).scatter_(0, inputs.indices.T, 1)[: inputs.m]
        else:
            columns = active.T.to(dtype, memory_format=torch.contiguous_format)
        kept = inputs.kept["columns", dtype] = columns, inputs.probabilities.to(dtype).numpy()
    return kept


class PairForms(NamedTuple):
    """What the compiled loops need of a task and of weights by case."""

    features: tuple[np.ndarray, np.ndarray]
    """The first and the second feature of each pair."""
    targets: tuple[Any, ...]
    """Coefficients of the bilinear form of the targets."""
    weights: tuple[Any, ...]
    """And of the weights."""
    most: float
    """The largest number of the type."""

    @classmethod
    def of(cls, task: PairTask, weights: Sequence[float], kind: np.dtype[Any]) -> PairForms:
        """Return them for numbers of a type."""
        targets, cases = (coefficients(tuple(values), kind) for values in (task.truth, weights))
        return cls(tables_of(task).features, targets, cases, float(np.finfo(kind.type).max))


class Tables(threading.local):
    """The table of a size, for torch and for NumPy; kept for each thread."""

    size: object = None
    outputs: Tensor
    errors: Any
    """The same numbers as `outputs`."""
    powers: Tensor | None
    """A second table, for what `SLOPES_OF_OUTPUTS` does not do."""
    slopes: Tensor
    """The table that holds the slopes."""

    @classmethod
    def of(cls, pairs: int, inputs: int, dtype: torch.dtype) -> Tables:
        """Return the tables of this thread, made again if the size changes."""
        if _tables.size != (pairs, inputs, dtype):
            _tables.outputs, _tables.powers = torch.empty(pairs, inputs, dtype=dtype), None
            _tables.errors = _tables.outputs.numpy()
            _tables.size = pairs, inputs, dtype
        return _tables

    def slopes_of(
        self,
        weight: Float[Tensor, "pairs neurons"],
        bias: Float[np.ndarray, " pairs"],
        activations: Float[Tensor, "neurons inputs"],
        columns: Float[np.ndarray, "m inputs"],
        shares: Float[np.ndarray, " inputs"],
        forms: PairForms,
        loss: LpLoss,
        totals: Float[np.ndarray, " pairs"],
    ) -> tuple[float, float, float]:
        """Return (loss, factor, largest |error|); factor·slopes are then the slopes of the loss in the outputs.

        Their sums over inputs, factor·totals, are those in the bias: `totals` is overwritten.
        """
        torch.mm(weight, activations, out=self.outputs)
        pairs, cases, unit = (columns, *forms.features), (shares, forms.weights, totals), 1.0
        loop, tame = SLOPES_OF_OUTPUTS.get(loss.p), _TAME ** (1 / loss.p)
        if loop is not None:
            self.slopes = self.outputs
            power, largest = loop(self.errors, bias, *pairs, forms.targets, *cases)
        if loop is None or (0 < largest < math.inf and not 1 / tame < largest < tame):
            # Powers of the errors themselves may be too large or too small for their type.
            if loop is not None:
                torch.mm(weight, activations, out=self.outputs)
            largest = subtract_targets(self.errors, bias, *pairs, forms.targets)
            if largest > 0:
                unit = largest
                self.outputs.div_(unit)
            if self.powers is None:
                self.powers = torch.empty_like(self.outputs)
            self.slopes = signed_power(self.outputs, loss.p - 1, self.powers)
            power = weigh_powers(self.slopes.numpy(), self.errors, *pairs, *cases)
        n_outputs = len(self.errors)
        value, factor = value_and_factor(loss, power / n_outputs, unit, n_outputs)
        if abs(factor) > forms.most:  # torch takes an infinite factor, but no larger number than its type holds
            factor = math.copysign(math.inf, factor)
        return value, factor, largest


_tables = Tables()
