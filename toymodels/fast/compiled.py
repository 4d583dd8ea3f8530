"""Pass over a table of errors of pairs once or twice, where torch would pass ten times: loops that Numba compiles at first use.

A table has a row for each pair (k, l) and a column for each input. Targets and weights of a pair are bilinear in (x_k, x_l)
(`gates.bilinear`), so that they are computed from two rows of the inputs while an error is at hand, and are never stored.
Compiled code is kept on disk, beside this file or in the user's cache.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba import types
from numba.extending import intrinsic

from toymodels.theory.gates import bilinear

WHOLE = (2, 4, 8)
"""Exponents p whose powers are computed here; other powers cost as much as a pass of torch's, and are left to it."""


def compiled_loop(function: Callable[..., Any]) -> Any:
    """Compile a function that may add numbers in another order; what is not a number stays so. Others may run meanwhile."""
    plain = inspect.unwrap(function)  # without the type checks of tests
    fast = {"reassoc", "contract", "nsz", "arcp"}
    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fast}
    try:
        return numba.njit(cache=True, **settings)(plain)
    except RuntimeError:  # no folder for the cache can be written
        return numba.njit(**settings)(plain)


_untyped: Any = intrinsic


@_untyped
def same_bits(context, number):  # type: ignore[no-untyped-def]
    """Return the whole number that has the bits of a real one, or the real number that has those of a whole one."""
    other = _OTHER_KIND[number]

    def code(target, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.bitcast(values[0], target.get_value_type(other))

    return other(number), code


@compiled_loop
def subtract_targets(outputs, bias, columns, first, second, targets):  # type: ignore[no-untyped-def]
    """Turn outputs without their bias into errors; return the largest |error|, which is not a number if one is none.

    `outputs` (pairs × inputs) is overwritten. `columns` (features × inputs) are the inputs, `first` and `second` (pairs) the
    features of each pair, `targets` the coefficients of a bilinear form.
    """
    constant, of_k, of_l, of_both = targets
    # A processor finds the largest of several whole numbers at once, and what is not a number is the largest.
    largest = same_bits(outputs.dtype.type(0))
    for pair in range(outputs.shape[0]):
        k, l, offset = first[pair], second[pair], bias[pair] - constant
        for i in range(outputs.shape[1]):
            target = of_k * columns[k, i] + (of_l + of_both * columns[k, i]) * columns[l, i]
            error = outputs[pair, i] + (offset - target)
            outputs[pair, i] = error
            size = same_bits(abs(error))
            largest = size if size > largest else largest
    return same_bits(largest)


def _slopes_of_outputs(p: int) -> Any:
    """Return the loop for an exponent."""

    def loop(outputs, bias, columns, first, second, targets, shares, weights, totals):  # type: ignore[no-untyped-def]
        constant, target_of_k, target_of_l, target_of_both = targets
        weight, weight_of_k, weight_of_l, weight_of_both = weights
        kind, inputs = outputs.dtype, outputs.shape[1]
        zero = kind.type(0)
        sum_of_powers, largest, at = 0.0, same_bits(zero), -1
        # What a feature k gives to targets and weights is computed once for all its pairs, which mostly follow each other.
        from_k, by_l = np.empty(inputs, kind), np.empty(inputs, kind)
        share, share_by_l = np.empty(inputs, kind), np.empty(inputs, kind)
        for pair in range(outputs.shape[0]):
            k, l, offset = first[pair], second[pair], bias[pair]
            if k != at:
                at = k
                for i in range(inputs):
                    from_k[i] = -constant - target_of_k * columns[k, i]
                    by_l[i] = -target_of_l - target_of_both * columns[k, i]
                    share[i] = shares[i] * (weight + weight_of_k * columns[k, i])
                    share_by_l[i] = shares[i] * (weight_of_l + weight_of_both * columns[k, i])
            power = total = zero
            for i in range(inputs):
                e = (outputs[pair, i] + offset) + (from_k[i] + by_l[i] * columns[l, i])
                square = e * e
                raised = e if p == 2 else (square * e if p == 4 else square * square * square * e)
                slope = (share[i] + share_by_l[i] * columns[l, i]) * raised
                power += slope * e
                total += slope
                size = same_bits(abs(e))
                largest = size if size > largest else largest
                outputs[pair, i] = slope
            sum_of_powers += power
            totals[pair] = total
        return sum_of_powers, same_bits(largest)

    return compiled_loop(loop)


SLOPES_OF_OUTPUTS: dict[float, Any] = {p: _slopes_of_outputs(p) for p in WHOLE}
"""Turn outputs without their bias into slopes P w sign(e) |e|^(p − 1); return Σ P w |e|^p and the largest |error|.

Takes what `subtract_targets` takes, the inputs' probabilities P, the coefficients of the bilinear form of w, and an array for the
slopes' sums over inputs. The largest error is not a number if one is none. (A loop without a choice inside works on several
inputs at once.)
"""


@compiled_loop
def weigh_powers(powers, errors, columns, first, second, shares, weights, totals):  # type: ignore[no-untyped-def]
    """Turn powers sign(e) |e|^(p − 1), for any p, into slopes P w sign(e) |e|^(p − 1) of errors e; return Σ P w |e|^p."""
    w, of_k, of_l, of_both = weights
    sum_of_powers, zero = 0.0, errors.dtype.type(0)
    for pair in range(errors.shape[0]):
        k, l = first[pair], second[pair]
        power = total = zero
        for i in range(errors.shape[1]):
            weight = w + of_k * columns[k, i] + (of_l + of_both * columns[k, i]) * columns[l, i]
            slope = shares[i] * weight * powers[pair, i]
            power += slope * errors[pair, i]
            total += slope
            powers[pair, i] = slope
        sum_of_powers += power
        totals[pair] = total
    return sum_of_powers


@compiled_loop
def active_below(numbers, p, columns):  # type: ignore[no-untyped-def]
    """Replace numbers (inputs × features) by 1 where they are below p, else by 0; write the same into `columns`, transposed."""
    flat = numbers.reshape(-1)  # both at once in one loop would take twice as long
    for i in range(flat.shape[0]):
        flat[i] = flat[i] < p
    for feature in range(columns.shape[0]):
        for i in range(columns.shape[1]):
            columns[feature, i] = numbers[i, feature]


@compiled_loop
def active_by_steps(ends, uniform, columns):  # type: ignore[no-untyped-def]
    """Write 1 into `columns` (features × inputs) where a feature is active, else 0: Floyd's algorithm (Bentley & Floyd 1987).

    `ends` are the cumulative probabilities of 0, 1, … active features, `uniform` (1 + most active features × inputs) numbers
    for the size of each set and for its members: the same sets as `SparseFeatures.sample` makes of these numbers.
    """
    m, widest = columns.shape[0], uniform.shape[0] - 1
    columns[:] = 0
    for i in range(columns.shape[1]):
        size = 0
        while size < widest and ends[size] <= uniform[0, i]:
            size += 1
        for step in range(size):
            top = m - size + step
            feature = int(uniform[1 + step, i] * (top + 1))
            columns[feature if columns[feature, i] == 0 else top, i] = 1


@compiled_loop
def add_bias_and_rectify(activations, bias):  # type: ignore[no-untyped-def]
    """Replace activations (neurons × inputs) by what a ReLU makes of them plus the bias; what is not a number stays so."""
    zero = activations.dtype.type(0)
    for neuron in range(activations.shape[0]):
        for i in range(activations.shape[1]):
            activation = activations[neuron, i] + bias[neuron]
            activations[neuron, i] = zero if activation < zero else activation


@compiled_loop
def through_relu(slopes, activations, totals):  # type: ignore[no-untyped-def]
    """Set slopes (neurons × inputs) to 0 where the activation is 0; write their sums over inputs into `totals`."""
    zero = slopes.dtype.type(0)
    for neuron in range(slopes.shape[0]):
        total = zero
        for i in range(slopes.shape[1]):
            slope = slopes[neuron, i] if activations[neuron, i] > 0 else zero
            slopes[neuron, i] = slope
            total += slope
        totals[neuron] = total


@compiled_loop
def adam(parameter, gradient, mean, square, steps, factor, lr, kept, beta1, beta2, eps, decay):  # type: ignore[no-untyped-def]
    """Take a step of Adam (Kingma & Ba 2015, Algorithm 1) with factor·gradient, all flat: overwrites all but the gradient.

    `decay` is added to the gradient, times the parameter (Adam); the parameter is multiplied by `kept` (AdamW: 1 − lr·decay).
    `steps` holds the number of steps.
    """
    kind = parameter.dtype.type
    steps[()] += 1
    step = float(steps[()])
    size, scale = kind(lr / (1 - beta1**step)), kind(1 / math.sqrt(1 - beta2**step))
    b1, b2, new1, new2 = kind(beta1), kind(beta2), kind(1 - beta1), kind(1 - beta2)
    factor, kept, decay, eps = kind(factor), kind(kept), kind(decay), kind(eps)
    for i in range(parameter.shape[0]):
        g = factor * gradient[i] + decay * parameter[i]
        mean[i] = b1 * mean[i] + new1 * g
        square[i] = b2 * square[i] + new2 * g * g
        parameter[i] = kept * parameter[i] - size * mean[i] / (np.sqrt(square[i]) * scale + eps)


_OTHER_KIND: dict[Any, Any] = {
    types.float32: types.int32, types.float64: types.int64, types.int32: types.float32, types.int64: types.float64,
}  # fmt: skip
DTYPES = (torch.float32, torch.float64)
"""Types that these loops take."""


@functools.lru_cache(maxsize=64)
def coefficients(by_case: tuple[float | int, ...], kind: np.dtype[Any]) -> tuple[Any, ...]:
    """Return the coefficients of the bilinear form that has these values in the cases 00, 01, 10, 11."""
    return tuple(map(kind.type, bilinear(by_case)))
