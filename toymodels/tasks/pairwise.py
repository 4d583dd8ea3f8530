"""Tasks on pairs of real-valued features: products, minima, maxima and distances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.core.tasks import ALL, TASKS, PairwiseTask, feature_pairs


class PairFunctionTask(PairwiseTask):
    """Output i is g(x_k, x_l) of a pair of features."""

    def __init__(
        self,
        m: int,
        function: Callable[[Tensor, Tensor], Tensor],
        name: str,
        pairs: Int[Tensor, "pairs 2"] | Sequence[Sequence[int]] | None = None,
        active: Sequence[int] = (1, 2, 3),
    ):
        """Take all pairs k < l, or a list; `active` are the cases in which the target is not always 0."""
        self.m, self.name, self.function, self.active = m, name, function, tuple(active)
        self.pairs = feature_pairs(m, pairs)
        self.n_outputs = len(self.pairs)

    @property
    def groups(self) -> Mapping[str, tuple[int, ...]]:
        """The cases in which the target is always 0 (inactive), and the others."""
        return {"inactive": tuple(case for case in range(4) if case not in self.active), "active": self.active}

    def targets(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Float[Tensor, "batch outputs"]:
        """Return g(x_k, x_l)."""
        pairs = self.pairs[outputs].to(x.device)
        return self.function(x.index_select(1, pairs[:, 0]), x.index_select(1, pairs[:, 1]))

    def subset(self, chosen: Int[Tensor, " chosen"]) -> PairFunctionTask:
        """Return the same function of some of the pairs."""
        return PairFunctionTask(self.m, self.function, self.name, self.pairs[chosen], self.active)


def _function_of_pairs(
    name: str, order: int, words: str, function: Callable[[Tensor, Tensor], Tensor], active: Sequence[int] = (1, 2, 3)
) -> None:
    def make(m: int, pairs: Tensor | Sequence[Sequence[int]] | None) -> PairFunctionTask:
        return PairFunctionTask(m, function, name, pairs, active)

    make.__doc__, make.__qualname__ = f"Compute {words} boolean ones.", name
    TASKS(name, order=order)(make)


_function_of_pairs("product", 30, "x_k x_l of pairs of features: the AND of", torch.mul, (3,))
_function_of_pairs("minimum", 31, "min(x_k, x_l) of pairs of features: the AND of", torch.minimum)
_function_of_pairs("maximum", 32, "max(x_k, x_l) of pairs of features: the OR of", torch.maximum)
_function_of_pairs("distance", 33, "|x_k − x_l| of pairs of features: the XOR of", lambda x, y: (x - y).abs())
