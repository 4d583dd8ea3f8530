"""Read the four matrices of a network with one hidden ReLU layer, y = W_out ReLU(W_in x + b_in) + b_out, from any module."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.layers import Embedded, FirstLayer, unwrap
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.errors import InputError, check_kind, check_whole


@dataclass(frozen=True)
class TwoLayer:
    """Weights of y = W_out ReLU(W_in x + b_in) + b_out, in float64."""

    w_in: Float[np.ndarray, "d n"]
    b_in: Float[np.ndarray, " d"]
    w_out: Float[np.ndarray, "outputs d"]
    b_out: Float[np.ndarray, " outputs"]

    @property
    def d(self) -> int:
        """The number of neurons."""
        return len(self.w_in)

    @property
    def n(self) -> int:
        """The number of features."""
        return self.w_in.shape[1]

    def __call__(self, x: Float[np.ndarray, "inputs n"]) -> Float[np.ndarray, "inputs outputs"]:
        """Compute the outputs."""
        return np.asarray(np.maximum(x @ self.w_in.T + self.b_in, 0) @ self.w_out.T + self.b_out)


@torch.no_grad()
def two_layer(module: nn.Module, n: int, outputs: int) -> TwoLayer:
    """Read the weights of a module, and check on 64 random inputs that it computes what they say.

    Read are networks of this library (also of embedded features), and modules with two `nn.Linear` whose first one is followed
    by ReLU. Raises InputError for a module of another form, of other sizes or with numbers that are not finite.
    """
    check_kind(nn.Module, "a torch module, such as nn.Sequential(nn.Linear(…), nn.ReLU(), nn.Linear(…))", module=module)
    check_whole(1, n=n, outputs=outputs)
    matrices = _read(module)
    made = TwoLayer(*(tensor.detach().double().cpu().numpy() for tensor in matrices))
    if made.n != n or made.w_out.shape[0] != outputs:
        sizes = f"the network takes {made.n} features to {made.w_out.shape[0]} outputs, the task {n} to {outputs}"
        raise InputError(f"{sizes}: they must be the same")
    if not all(np.isfinite(array).all() for array in (made.w_in, made.b_in, made.w_out, made.b_out)):
        raise InputError("a weight of the network is infinite or not a number: all must be finite")
    x = torch.randn(64, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    module = copy.deepcopy(module).double().eval()
    try:
        returned = module(x)
    except Exception as error:  # of many kinds, of somebody else's module
        raise InputError(f"the module does not take inputs of {n} features: {type(error).__name__}: {error}") from None
    expected = made(x.numpy())
    same = isinstance(returned, Tensor) and returned.shape == expected.shape
    if not same or not np.allclose(returned.numpy(), expected, rtol=1e-6, atol=1e-9 * (1 + np.abs(expected).max())):
        raise InputError(f"the module is not W_out ReLU(W_in x + b) + c: {_FORMS}")
    return made


_FORMS = "one hidden layer of ReLU neurons between two linear layers is what can be read"


def _read(module: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if isinstance(module, Network) and isinstance(module.readoff, LinearReadoff):
        layer: Any = unwrap(module.layer)
        if isinstance(layer, FirstLayer):
            if layer.activation != "relu":
                raise InputError(f"the activation function is {layer.activation}: only ReLU is piecewise linear here")
            frame = module.layer.frame if isinstance(module.layer, Embedded) else None
            weight = layer.weight if frame is None else layer.weight @ frame
            return weight, layer.bias, module.readoff.weight, module.readoff.bias
    linear = [part for part in module.modules() if type(part) is nn.Linear]
    if len(linear) != 2:
        raise InputError(f"the module has {len(linear)} nn.Linear in it: {_FORMS}")
    first, last = linear if linear[0].out_features == linear[1].in_features else linear[::-1]
    if first.out_features != last.in_features:
        raise InputError(f"its linear layers do not fit ({first.out_features} to {last.in_features}): {_FORMS}")
    biases = [part.weight.new_zeros(part.out_features) if part.bias is None else part.bias for part in (first, last)]
    return first.weight, biases[0], last.weight, biases[1]
