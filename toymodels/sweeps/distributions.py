"""The distributions of a sweep's parameters, as W&B defines them (github.com/wandb/sweeps, params.py)."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from scipy import special

from toymodels.sweeps.definition import Parameter


def quantile(parameter: Parameter, u: float) -> Any:
    """Return the value below which a draw lies with probability u, 0 ≤ u ≤ 1; a uniform u gives a random draw.

    The logarithms are natural; log_uniform has min ≤ ln x ≤ max, inv_log_uniform min ≤ −ln x ≤ max, and their _values
    forms min ≤ x ≤ max. The q forms round x/q to the nearest whole number, ties to even, and multiply by q; they may
    leave [min, max] by this, and are whole numbers if q is written as one.
    """
    u = min(max(u, 2.0**-54), 1 - 2.0**-53)  # W&B never draws 0 or 1, whose quantiles may be infinite
    kind, numbers = parameter.distribution, parameter.numbers
    if kind == "constant":
        return parameter.values[0]
    if kind == "categorical":
        return parameter.values[math.ceil(u * len(parameter.values)) - 1]
    if kind == "categorical_w_probabilities":
        index = int(np.searchsorted(np.cumsum(parameter.probabilities), u, side="right"))
        return parameter.values[min(index, len(parameter.values) - 1)]
    if kind == "int_uniform":
        low, high = int(numbers["min"]), int(numbers["max"])
        return low + math.ceil(u * (high - low + 1)) - 1
    value = _scaled(parameter, u)
    if "q" not in numbers:
        return value
    steps, q = round(value / numbers["q"]), numbers["q"]
    return steps * q


def _scaled(parameter: Parameter, u: float) -> float:
    """Return the quantile of a continuous distribution before it is rounded to a multiple of q."""
    kind, numbers = parameter.distribution.removeprefix("q_"), parameter.numbers
    if kind == "beta":
        return float(special.betaincinv(numbers["a"], numbers["b"], u))
    if "normal" in kind:
        value = numbers["mu"] + numbers["sigma"] * float(special.ndtri(u))
    else:
        low, high = _ends(parameter)
        value = low + u * (high - low)
    return math.exp(value) if "log" in kind else value


def _ends(parameter: Parameter) -> tuple[float, float]:
    """Return the limits between which the value, or its natural logarithm, is uniform."""
    low, high = float(parameter.numbers["min"]), float(parameter.numbers["max"])
    if parameter.distribution.endswith("_values"):
        return math.log(low), math.log(high)
    return (-high, -low) if parameter.distribution == "inv_log_uniform" else (low, high)


def rank(parameter: Parameter, value: Any) -> float:
    """Return a u in [0, 1] with quantile(parameter, u) = value; for the q forms, before rounding.

    Not for constant, categorical and int_uniform parameters.
    """
    kind, numbers = parameter.distribution.removeprefix("q_"), parameter.numbers
    if kind == "categorical_w_probabilities":
        index = position(parameter, value)
        return sum(parameter.probabilities[:index]) + parameter.probabilities[index] / 2
    if kind == "beta":
        return float(special.betainc(numbers["a"], numbers["b"], min(max(value, 0), 1)))
    if "log" in kind:
        if value <= 0:  # rounded down to 0
            return 0.0
        value = math.log(value)
    if "normal" in kind:
        return float(special.ndtr((value - numbers["mu"]) / numbers["sigma"]))
    low, high = _ends(parameter)
    return min(max((value - low) / (high - low), 0.0), 1.0)


def same(value: Any) -> str:
    """Return a text that is the same for values that W&B holds to be equal: 1 and 1.0, but not 1 and true."""
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value, sort_keys=True)


def position(parameter: Parameter, value: Any) -> int:
    """Return the index of a value in a categorical parameter. Raises ValueError if it is not one of the values."""
    return [same(v) for v in parameter.values].index(same(value))
