"""Use torch's optimisers without the import of torch's compiler, which takes as long as the import of torch itself.

`torch.optim` imports `torch._dynamo` when the first optimiser is made, to keep some methods out of compiled code. A process that
compiles nothing need not wait for it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

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


@fast_form(optimiser_step, _not_imported)
@torch.no_grad()
def unwrapped_step(optimiser: torch.optim.Optimizer) -> None:
    """Take a step by the optimiser's own function, without the wrapper that talks to the compiler."""
    inspect.unwrap(type(optimiser).step)(optimiser)
