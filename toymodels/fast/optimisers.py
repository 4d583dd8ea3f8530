"""Use torch's optimisers without what they do beside their arithmetic, such as the import of torch's compiler, which is slow.

`torch.optim` imports `torch._dynamo` when the first optimiser is made, to keep some methods out of compiled code. A process that
compiles nothing need not wait for it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.adam import adam

from toymodels.core.dispatch import fast_form
from toymodels.core.training import optimiser_context, optimiser_step

_METHODS = ("add_param_group", "state_dict", "load_state_dict")
"""The methods that torch wraps; a wrapper imports the compiler unless the method has the attribute `_READY`."""
_READY = "__dynamo_disable"


def _not_imported(*_: object) -> bool:
    return "torch._dynamo" not in sys.modules


@fast_form(optimiser_context, _not_imported)
@contextmanager
def without_compiler() -> Iterator[None]:
    """Call the wrapped methods of optimisers as they are inside the context; nothing of torch stays changed."""
    wrapped = [getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None) for name in _METHODS]
    methods = [method for method in wrapped if method is not None and not hasattr(method, _READY)]
    for method in methods:
        setattr(method, _READY, method)
    try:
        yield
    finally:
        for method in methods:
            delattr(method, _READY)


def _is_begun(optimiser: torch.optim.Optimizer) -> bool:
    """Whether it is Adam in one group, fused as the trainer makes it, with the moments of a first step."""
    if type(optimiser) is not torch.optim.Adam or len(optimiser.param_groups) != 1:
        return False
    (group,) = optimiser.param_groups
    alike = group["fused"] and not group["amsgrad"] and not group["maximize"]
    return alike and all(p in optimiser.state and p.grad is not None for p in group["params"])


@fast_form(optimiser_step, _is_begun)
@torch.no_grad()
def functional_step(optimiser: torch.optim.Optimizer) -> None:
    """Take a step of Adam by the function that its `step` ends in: for small networks what comes before takes longer."""
    (group,) = optimiser.param_groups
    parameters, (beta1, beta2) = group["params"], group["betas"]
    states = [optimiser.state[parameter] for parameter in parameters]
    means, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
    names = ("lr", "weight_decay", "eps", "maximize", "amsgrad", "fused")
    settings: dict[str, Any] = {name: group[name] for name in names}
    gradients = [parameter.grad for parameter in parameters]
    adam(parameters, gradients, means, squares, [], steps, beta1=beta1, beta2=beta2, **settings)


@fast_form(optimiser_step, _not_imported)
@torch.no_grad()
def unwrapped_step(optimiser: torch.optim.Optimizer) -> None:
    """Take a step by the optimiser's own function, without the wrapper that talks to the compiler."""
    inspect.unwrap(type(optimiser).step)(optimiser)
