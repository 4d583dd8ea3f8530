"""Compute loss and gradients of small networks on tables that stay in the processor's cache: fast `loss_and_gradients`.

A table has a row for each pair and a column for each input. Between the three products that no form avoids, compiled loops
(`fast.compiled`) pass over it three times. Tables are kept from step to step: new memory for each of them would cost as much as
the arithmetic.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

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
from toymodels.fast.compiled import DTYPES, WHOLE, coefficients, largest_size, subtract_targets
from toymodels.fast.gradients import add_gradient, pairs_apply, tables_apply, value_and_factor
from toymodels.fast.pair_lp import slopes_of
from toymodels.fast.pairs import tables_of


def _applies(
    network: Network,
    task: Task,
    inputs: Inputs,
    loss: Loss,
    weights: Sequence[float],
    sample: Int[Tensor, " chosen"] | None = None,
    precise: bool = False,
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
    value, factor, unit = tables.slopes_of(
        weight, bias.numpy(), activations, columns.numpy(), shares, task, weights, loss
    )
    slopes = tables.slopes
    if readoff.weight.requires_grad:
        gradient = torch.empty_like(weight)
        add_gradient(readoff.weight, torch.addmm(gradient, slopes, activations.T, beta=0, alpha=factor))
        add_gradient(readoff.bias, tables.totals * factor)
    if trained:
        back = torch.addmm(torch.empty_like(activations), weight.T, slopes, beta=0, alpha=factor)
        if relu is not None:
            torch.ops.aten.threshold_backward(back, activations, 0, grad_input=back)
            for parameter, slope in ((relu.weight, back @ columns.T), (relu.bias, back.sum(1))):
                if parameter.requires_grad:
                    add_gradient(parameter, slope)
        else:
            for parameter, slope in zip(
                trained, torch.autograd.grad(traced, trained, back.T, allow_unused=True), strict=True
            ):
                add_gradient(parameter, torch.zeros_like(parameter) if slope is None else slope)
    return LossValue(value, unit)


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


class Tables(threading.local):
    """The table of a size, and a number for each pair, for torch and for NumPy; kept for each thread."""

    size: object = None
    outputs: Tensor
    errors: Any
    """The same numbers as `outputs`."""
    powers: Tensor | None
    """A second table, for exponents that need it."""
    totals: Tensor
    sums: Any
    """The same numbers as `totals`."""
    slopes: Tensor
    """The table that holds the slopes."""

    @classmethod
    def of(cls, pairs: int, inputs: int, dtype: torch.dtype) -> Tables:
        """Return the tables of this thread, made again if the size changes."""
        if _tables.size != (pairs, inputs, dtype):
            _tables.outputs, _tables.powers = torch.empty(pairs, inputs, dtype=dtype), None
            _tables.totals = torch.empty(pairs, dtype=dtype)
            _tables.errors, _tables.sums = _tables.outputs.numpy(), _tables.totals.numpy()
            _tables.size = pairs, inputs, dtype
        return _tables

    def slopes_of(
        self,
        weight: Float[Tensor, "pairs neurons"],
        bias: Float[np.ndarray, " pairs"],
        activations: Float[Tensor, "neurons inputs"],
        columns: Float[np.ndarray, "m inputs"],
        shares: Float[np.ndarray, " inputs"],
        task: PairTask,
        weights: Sequence[float],
        loss: LpLoss,
    ) -> tuple[float, float, float]:
        """Return (loss, factor, largest |error|); factor·slopes are then the slopes of the loss in the outputs.

        Their sums over inputs are factor·totals.
        """
        torch.mm(weight, activations, out=self.outputs)
        kind, features = shares.dtype, tables_of(task).features
        subtract_targets(self.errors, bias, columns, *features, coefficients(tuple(task.truth), kind))
        unit, most = largest_size(self.errors), float(np.finfo(kind.type).max)
        inverse = 1.0
        if unit > 0 and 1 / unit <= most:  # a product is faster than a quotient
            inverse = 1 / unit
        elif unit > 0:
            self.outputs.div_(unit)
        if loss.p not in WHOLE and self.powers is None:
            self.powers = torch.empty_like(self.outputs)
        cases = coefficients(tuple(weights), kind)
        power, self.slopes = slopes_of(
            self.outputs, inverse, loss.p, self.powers, columns, features, shares, cases, self.sums
        )
        value, factor = value_and_factor(loss, power / task.n_outputs, unit, task.n_outputs)
        if abs(factor) > most:  # torch takes an infinite factor, but no larger number than its type holds
            factor = math.copysign(math.inf, factor)
        return value, factor, unit


_tables = Tables()
