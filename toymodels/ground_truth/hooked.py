"""Make a module of TransformerLens from a network: the same outputs, with hook points around every part.

TransformerLens is an extra, `pip install 'toymodels[interp]'`, and imported only here, when a module is made.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from toymodels.errors import InputError
from toymodels.ground_truth.module import as_mlp


def as_hooked(network: nn.Module, m: int) -> Any:
    """Return a `HookedRootModule` of TransformerLens with the outputs of a network, which is one that `as_mlp` takes.

    Hook points: hook_in (what the first layer reads), hook_pre (before the activation function), hook_post (the activations)
    and hook_out (the outputs). `run_with_cache`, `run_with_hooks` and `add_hook` work as on any model of TransformerLens.
    Raises InputError if TransformerLens is not installed, or for a network of another form.
    """
    mlp = as_mlp(network, m)
    if importlib.util.find_spec("transformer_lens") is None:
        raise InputError("hook points need TransformerLens: pip install 'toymodels[interp]'")
    from transformer_lens import HookedRootModule
    from transformer_lens.hook_points import HookPoint

    class HookedMLP(HookedRootModule):
        """A network with hook points."""

        def __init__(self) -> None:
            super().__init__()
            self.mlp = mlp
            self.hook_in, self.hook_pre, self.hook_post, self.hook_out = (HookPoint() for _ in range(4))
            self.setup()

        def forward(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch outputs"]:
            """Return all outputs."""
            pre = self.hook_pre(mlp.mlp_in(self.hook_in(mlp.inputs(x))))
            outputs: Tensor = self.hook_out(mlp.read(self.hook_post(mlp.act(pre))))
            return outputs

    return HookedMLP()
