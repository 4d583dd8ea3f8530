"""Pass twice over a table of errors of pairs, where torch would pass ten times: loops compiled by Numba when first called.

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


@compiled_loop
def slopes_of_errors(p, errors, inverse, columns, first, second, shares, weights, totals):  # type: ignore[no-untyped-def]
    """Overwrite errors by their slopes P w sign(e) |e|^(p − 1), for a p in `WHOLE`; return Σ P w |e|^p.

    Here e = error·inverse, `shares` are the inputs' probabilities P, and `weights` the coefficients of the bilinear form of w.
    Sums of slopes over inputs go into `totals`. (A loop without a choice inside works on several inputs at once.)
    """
    w, of_k, of_l, of_both = weights
    sum_of_powers, zero = 0.0, errors.dtype.type(0)
    for pair in range(errors.shape[0]):
        k, l = first[pair], second[pair]
        power = total = zero
        if p == 2:
            for i in range(errors.shape[1]):
                e = errors[pair, i] * inverse
                weight = w + of_k * columns[k, i] + (of_l + of_both * columns[k, i]) * columns[l, i]
                slope = shares[i] * weight * e
                power += slope * e
                total += slope
                errors[pair, i] = slope
        elif p == 4:
            for i in range(errors.shape[1]):
                e = errors[pair, i] * inverse
                weight = w + of_k * columns[k, i] + (of_l + of_both * columns[k, i]) * columns[l, i]
                slope = shares[i] * weight * (e * e * e)
                power += slope * e
                total += slope
                errors[pair, i] = slope
        else:
            for i in range(errors.shape[1]):
                e = errors[pair, i] * inverse
                square = e * e
                weight = w + of_k * columns[k, i] + (of_l + of_both * columns[k, i]) * columns[l, i]
                slope = shares[i] * weight * (square * square * square * e)
                power += slope * e
                total += slope
                errors[pair, i] = slope
        sum_of_powers += power
        totals[pair] = total
    return sum_of_powers


@compiled_loop
def slopes_of_outputs(p, outputs, bias, columns, first, second, targets, shares, weights, totals):  # type: ignore[no-untyped-def]
    """Subtract the targets, and overwrite errors by their slopes, in units of the largest error; return Σ P w |e|^p and the unit.

    Where there is no such unit (all errors are 0, one is not a number), the slopes are those of the errors themselves.
    """
    unit = subtract_targets(outputs, bias, columns, first, second, targets)
    one, large = outputs.dtype.type(1), outputs.dtype.type(1e30)
    inverse = one / unit if unit > 0 else one
    if np.isinf(inverse):
        for pair in range(outputs.shape[0]):
            for i in range(outputs.shape[1]):
                outputs[pair, i] *= large
        inverse = one / (unit * large)
    return slopes_of_errors(p, outputs, inverse, columns, first, second, shares, weights, totals), unit


@compiled_loop
def weigh_powers(powers, errors, columns, first, second, shares, weights, totals):  # type: ignore[no-untyped-def]
    """Do the same for any p, where `powers` holds sign(e) |e|^(p − 1): these are overwritten, and the errors are not."""
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
def active_below(uniform, p, columns):  # type: ignore[no-untyped-def]
    """Write 1 into `columns` (features × inputs) where `uniform` (inputs × features) is below p, else 0."""
    for feature in range(columns.shape[0]):
        for i in range(columns.shape[1]):
            columns[feature, i] = uniform[i, feature] < p


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
