"""The sparse Bernoulli construction (Construction 1.2 of Vaintrob, Mendel, Hänni 2024; Theorem 1 of arXiv:2408.05451)."""

from __future__ import annotations

from torch import nn

from toymodels.core.layers import LAYERS, FirstLayer
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, Task
from toymodels.errors import InputError, check_whole
from toymodels.layers import iid
from toymodels.readoffs.by_class import mean_readoff


def _check(m: int, d: int, p: float | int | str) -> None:
    check_whole(2, d=d)
    if p != "best":
        share = iid.connection_probability(p, m, d, 2)
        if share == 1:
            raise InputError("p = 1 makes all neurons of a bernoulli layer equal: take a p below 1")
        iid.check_some(share, m, d)


def _chosen(m: int, d: int, s: int, p: float | int | str) -> dict[str, float]:
    return {"p": iid.connection_probability(p, m, d, s)} if p == "best" else {}


def _own(layer: nn.Module, task: Task, m: int, d: int, s: int, p: float | int | str) -> LinearReadoff:
    return mean_readoff(layer, task, s, iid.connection_probability(p, m, d, s), "affine")


def is_pair_and(task: Task) -> bool:
    """Whether the task is the AND of pairs."""
    return isinstance(task, PairTask) and task.gate.name == "and"


@LAYERS(
    "bernoulli", role="construction", order=20, colour="#009E73", marker="^",
    source="Vaintrob, Mendel, Hänni 2024, Construction 1.2; arXiv:2408.05451, Theorem 1",
    own_readoff=_own, own_source="mean over common neurons, debiased (Vaintrob et al. 2024, Construction 1.2)",
    reads=is_pair_and, check=_check, chosen=_chosen,
)  # fmt: skip
def bernoulli_layer(m: int, d: int, seed: int, s: int, *, p: float | int | str = "best") -> FirstLayer:
    """Draw weights 1 with probability p, else 0, bias −1; p a number, best (least predicted error for AND) or asymptotic."""
    return iid.bernoulli(m, d, seed, iid.connection_probability(p, m, d, s))
