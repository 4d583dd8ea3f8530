"""Pass three times over a table of errors of pairs, where torch would pass ten times: loops compiled by Numba when first called.

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
from jaxtyping import Float

from toymodels.theory.gates import bilinear

WHOLE = (2, 4, 8)
"""Exponents p whose powers are computed here; other powers cost as much as a pass of torch's, and are left to it."""


def _compiled(function: Callable[..., Any]) -> Any:
    """Compile a function that may add numbers in another order; what is not a number stays so. Others may run meanwhile."""
    plain = inspect.unwrap(function)  # without the type checks of tests
    settings: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    }
    try:
        return numba.njit(cache=True, **settings)(plain)
    except RuntimeError:  # no folder for the cache can be written
        return numba.njit(**settings)(plain)


@_compiled
def subtract_targets(errors, bias, columns, first, second, targets):  # type: ignore[no-untyped-def]
    """Turn outputs without their bias into errors.

    `errors` (pairs × inputs) is overwritten. `columns` (features × inputs) are the inputs, `first` and `second` (pairs) the
    features of each pair, `targets` the coefficients of a bilinear form.
    """
    constant, of_k, of_l, of_both = targets
    for pair in range(errors.shape[0]):
        k, l, offset = first[pair], second[pair], bias[pair] - constant
        for i in range(errors.shape[1]):
            errors[pair, i] += offset - (of_k * columns[k, i] + (of_l + of_both * columns[k, i]) * columns[l, i])


@_compiled
def _largest_of(bits, sign):  # type: ignore[no-untyped-def]
    """Return the bits of the largest |number|, from all numbers as whole numbers of the same bits; `sign` masks the sign bit.

    A processor finds the largest of several whole numbers at once, and what is not a number is the largest.
    """
    largest = bits[0, 0] & sign
    for pair in range(bits.shape[0]):
        for i in range(bits.shape[1]):
            size = bits[pair, i] & sign
            largest = size if size > largest else largest
    return largest


@_compiled
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


@_compiled
def weigh_powers(powers, errors, inverse, columns, first, second, shares, weights, totals):  # type: ignore[no-untyped-def]
    """Do the same for any p, where `powers` holds sign(e) |e|^(p − 1): these are overwritten, and the errors are not."""
    w, of_k, of_l, of_both = weights
    sum_of_powers, zero = 0.0, errors.dtype.type(0)
    for pair in range(errors.shape[0]):
        k, l = first[pair], second[pair]
        power = total = zero
        for i in range(errors.shape[1]):
            weight = w + of_k * columns[k, i] + (of_l + of_both * columns[k, i]) * columns[l, i]
            slope = shares[i] * weight * powers[pair, i]
            power += slope * (errors[pair, i] * inverse)
            total += slope
            powers[pair, i] = slope
        sum_of_powers += power
        totals[pair] = total
    return sum_of_powers


@_compiled
def active_below(uniform, p, columns):  # type: ignore[no-untyped-def]
    """Write 1 into `columns` (features × inputs) where `uniform` (inputs × features) is below p, else 0."""
    for feature in range(columns.shape[0]):
        for i in range(columns.shape[1]):
            columns[feature, i] = uniform[i, feature] < p


@_compiled
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


@_compiled
def adam(parameter, gradient, mean, square, factor, lr, kept, beta1, beta2, eps, decay, step):  # type: ignore[no-untyped-def]
    """Take a step of Adam (Kingma & Ba 2015, Algorithm 1) with factor·gradient, all flat: overwrites the first, third and fourth.

    `decay` is added to the gradient, times the parameter (Adam); the parameter is multiplied by `kept` (AdamW: 1 − lr·decay).
    """
    kind = parameter.dtype.type
    size, scale = kind(lr / (1 - beta1**step)), kind(1 / math.sqrt(1 - beta2**step))
    b1, b2, new1, new2 = kind(beta1), kind(beta2), kind(1 - beta1), kind(1 - beta2)
    factor, kept, decay, eps = kind(factor), kind(kept), kind(decay), kind(eps)
    for i in range(parameter.shape[0]):
        g = factor * gradient[i] + decay * parameter[i]
        mean[i] = b1 * mean[i] + new1 * g
        square[i] = b2 * square[i] + new2 * g * g
        parameter[i] = kept * parameter[i] - size * mean[i] / (np.sqrt(square[i]) * scale + eps)


def largest_size(numbers: Float[np.ndarray, "rows columns"]) -> float:
    """Return the largest |number| of a table; not a number, if one is none.

    Never within a loop that writes the numbers: a compiler may read whole numbers before it writes real ones, though they lie in
    the same place.
    """
    sign = _SIGN[numbers.dtype]
    return float(sign.dtype.type(_largest_of(numbers.view(sign.dtype), sign)).view(numbers.dtype))


_SIGN: dict[Any, Any] = {np.dtype(np.float32): np.int32(2**31 - 1), np.dtype(np.float64): np.int64(2**63 - 1)}
"""All bits but the sign."""
DTYPES = (torch.float32, torch.float64)
"""Types that these loops take."""


@functools.lru_cache(maxsize=64)
def coefficients(by_case: tuple[float | int, ...], kind: np.dtype[Any]) -> tuple[Any, ...]:
    """Return the coefficients of the bilinear form that has these values in the cases 00, 01, 10, 11."""
    return tuple(map(kind.type, bilinear(by_case)))
