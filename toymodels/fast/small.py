"""Compute loss and gradients of small networks on tables that stay in the processor's cache: fast `loss_and_gradients`.

A table has a row for each pair and a column for each input, so that a feature's values can be copied as whole rows. Tables are
kept from step to step: new memory for each of them would cost as much as the arithmetic.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

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
from toymodels.fast.gradients import add_gradient, pairs_apply, tables_apply, value_and_factor
from toymodels.fast.pair_lp import signed_power
from toymodels.theory.gates import bilinear


def _applies(
    network: Network,
    task: Task,
    inputs: Inputs,
    loss: Loss,
    weights: Sequence[float],
    sample: Int[Tensor, " chosen"] | None = None,
    precise: bool = False,
) -> bool:
    on_cpu = inputs.indices.device.type == "cpu" and inputs.values is None
    return on_cpu and pairs_apply(network, task, loss) and tables_apply(task, inputs, loss, sample, precise)


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
    columns, probability = _columns(inputs, weight.dtype)
    parameters = (layer.weight, layer.bias) if type(layer) is FirstLayer else layer.parameters()
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    relu = layer if type(layer) is FirstLayer and layer.activation == "relu" else None
    if relu is not None:
        activations = torch.addmm(relu.bias[:, None], relu.weight, columns).relu_()
    else:
        with torch.set_grad_enabled(bool(trained)):
            traced = layer(columns.T)
        activations = traced.detach().T.contiguous()

    tables = _Tables.of(task.n_outputs, columns.shape[1], weight.dtype)
    errors, slopes = tables.errors, tables.slopes
    torch.addmm(bias[:, None], weight, activations, out=errors)
    fixed = _fixed(inputs, task, tuple(weights), columns, probability) if inputs.enumerated else None
    if fixed is not None:
        errors.sub_(fixed.targets)
    else:
        first, second = task.pairs.T
        values = torch.index_select(columns, 0, second, out=tables.second)
        _subtract(errors, task.truth, columns, first, values, tables.spare)
    unit = max(-float(errors.amin()), float(errors.amax()))
    if unit > 0 and 1 / unit <= torch.finfo(weight.dtype).max:  # a product is faster than a quotient
        errors.mul_(1 / unit)
    elif unit > 0:
        errors.div_(unit)
    signed_power(errors, loss.p - 1, slopes)
    if fixed is not None:
        slopes.mul_(fixed.shares)
        even = 1.0
    else:
        even = _multiply(slopes, weights, columns, first, values, tables.spare) / len(inputs)
    power = even * float(torch.dot(slopes.view(-1), errors.view(-1)))
    value, factor = value_and_factor(loss, power / task.n_outputs, unit, task.n_outputs)
    factor *= even
    if (
        abs(factor) > torch.finfo(weight.dtype).max
    ):  # torch takes an infinite factor, but no larger number than its type holds
        factor = math.copysign(math.inf, factor)

    if readoff.weight.requires_grad:
        gradient = torch.empty_like(weight)
        add_gradient(readoff.weight, torch.addmm(gradient, slopes, activations.T, beta=0, alpha=factor))
        add_gradient(readoff.bias, slopes.sum(1).mul_(factor))
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


def _columns(inputs: Inputs, dtype: torch.dtype) -> tuple[Float[Tensor, "m inputs"], Float[Tensor, " inputs"] | None]:
    """Return the transposed inputs, and their probabilities unless these are all the same."""
    kept = inputs.kept.get(("columns", dtype))
    if kept is None:
        active = inputs.kept.get("active")
        if active is None:
            columns = torch.zeros(inputs.m + 1, len(inputs), dtype=dtype).scatter_(0, inputs.indices.T, 1)[: inputs.m]
        else:
            columns = active.T.to(dtype, memory_format=torch.contiguous_format)
        even = not inputs.enumerated or bool((inputs.probabilities == inputs.probabilities[0]).all())
        kept = columns, None if even else inputs.probabilities.to(dtype)
        inputs.kept["columns", dtype] = kept
    return kept


class _Fixed(NamedTuple):
    """Targets, and weights times probabilities, of inputs that are the same in every step."""

    targets: Float[Tensor, "pairs inputs"]
    shares: Float[Tensor, "pairs inputs"]


def _fixed(
    inputs: Inputs, task: PairTask, weights: tuple[float, ...], columns: Tensor, probability: Tensor | None
) -> _Fixed:
    key = "fixed", weights, columns.dtype
    task_of, tables = inputs.kept.get(key, (None, None))
    if task_of is not task:
        x = columns.T
        shares = task.by_case(x, weights).T
        shares = shares / len(inputs) if probability is None else shares * probability
        tables = _Fixed(task.targets(x).T.contiguous(), shares.contiguous())
        inputs.kept[key] = task, tables
    assert tables is not None
    return tables


class _Tables(threading.local):
    """The four tables of a size, kept for each thread."""

    def __init__(self) -> None:
        self.size: object = None

    @classmethod
    def of(cls, pairs: int, inputs: int, dtype: torch.dtype) -> _Tables:
        """Return the tables of this thread, made again if the size changes."""
        if _tables.size != (pairs, inputs, dtype):
            _tables.size = pairs, inputs, dtype
            _tables.errors, _tables.slopes, _tables.second, _tables.spare = torch.empty(4, pairs, inputs, dtype=dtype)
        return _tables


_tables = _Tables()


def _subtract(
    errors: Tensor, truth: Sequence[int], columns: Tensor, first: Tensor, values: Tensor, spare: Tensor
) -> None:
    """Subtract the targets α + β·x_k + (γ + δ·x_k)·x_l, where `values` holds x_l."""
    alpha, beta, gamma, delta = bilinear(truth)
    if gamma or delta:
        torch.index_select(gamma + delta * columns, 0, first, out=spare)
        errors.addcmul_(spare, values, value=-1)
    if alpha or beta:
        errors.sub_(torch.index_select(alpha + beta * columns, 0, first, out=spare))


def _multiply(
    slopes: Tensor, weights: Sequence[float], columns: Tensor, first: Tensor, values: Tensor, spare: Tensor
) -> float:
    """Multiply by the weights of the cases up to a constant, which is returned; overwrites `values`."""
    if len(set(weights)) == 1:
        return float(weights[0])
    alpha, beta, gamma, delta = bilinear(weights)
    torch.index_select(gamma + delta * columns, 0, first, out=spare)
    values.mul_(spare).add_(torch.index_select(alpha + beta * columns, 0, first, out=spare))
    slopes.mul_(values)
    return 1.0
