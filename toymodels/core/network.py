"""A network is a first layer and a readoff; every measurement is one of a network. Any other module is taken as one."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.layers import IdentityLayer, apply
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import ALL
from toymodels.errors import check_kind


class Network(nn.Module):
    """outputs(x) = readoff(layer(x)).

    The layer is any module taking (batch, m) to (batch, width). The readoff is any module that takes activations
    (batch, width) and a slice of outputs, and returns (batch, outputs of the slice); or an `nn.Linear` or other module that
    takes activations alone.
    """

    def __init__(self, layer: nn.Module, readoff: nn.Module):
        """Join a layer and a readoff. Raises InputError for what is no module."""
        super().__init__()
        wanted = "a torch module, such as FirstLayer(weight, bias) or nn.Linear(neurons, outputs)"
        check_kind(nn.Module, wanted, layer=layer, readoff=readoff)
        self.layer = layer
        self.readoff = as_readoff(readoff)

    def forward(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Float[Tensor, "batch outputs"]:
        """Return the outputs of a slice."""
        return self.readoff(self.layer(x), outputs)


class AllOutputs(nn.Module):
    """A module that knows no slices, as a readoff: it computes all outputs and returns those of the slice."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, a: Float[Tensor, "batch neurons"], outputs: slice = ALL) -> Float[Tensor, "batch outputs"]:
        """Return the outputs of a slice."""
        result: Tensor = self.module(a)[:, outputs]
        return result


def as_readoff(module: nn.Module) -> nn.Module:
    """Return a readoff that takes a slice of outputs; one of an `nn.Linear` has the same parameters."""
    if type(module) is nn.Linear:
        bias = module.weight.new_zeros(module.out_features) if module.bias is None else module.bias
        readoff = LinearReadoff(module.weight, bias)
        readoff.weight = module.weight  # the same parameter, frozen if it is
        if module.bias is None:
            readoff.bias.requires_grad_(False)
        else:
            readoff.bias = module.bias
        return readoff
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    takes_slice = len(kinds) > 1 or inspect.Parameter.VAR_POSITIONAL in kinds
    return module if takes_slice else AllOutputs(module)


@torch.no_grad()
def as_network(module: nn.Module, m: int) -> Network:
    """Return a network as it is; make one of any other module from (batch, m) to (batch, outputs), in evaluation mode.

    If it returns what an `nn.Linear` in it returns, that one is the readoff, and all before it the first layer; otherwise
    the first layer is the whole module, and the readoff hands its outputs on.
    Raises InputError for a module that does not take inputs of m features, or returns no table of outputs.
    """
    returned: list[tuple[nn.Module, Any]] = []
    linear = [part for part in module.modules() if type(part) is nn.Linear]
    hooks = [part.register_forward_hook(lambda part, _, out: returned.append((part, out))) for part in linear]
    try:
        outputs = apply(module, m, "network")
    finally:
        for hook in hooks:
            hook.remove()
    if isinstance(module, Network):
        return module
    last = [part for part, out in returned if out is outputs]
    if not last or sum(part is last[0] for part, _ in returned) > 1:
        return Network(module, AllOutputs(nn.Identity()))
    if last[0] is module:
        return Network(IdentityLayer(m), module)
    name = next(name for name, part in module.named_modules() if part is last[0])
    layer = copy.deepcopy(module)
    layer.set_submodule(name, nn.Identity())
    return Network(layer, last[0])
