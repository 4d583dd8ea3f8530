"""Readoffs: the part of a network that reads a task's outputs from activations.

A readoff is any module that takes activations (batch, width) and a slice of outputs; every method here returns a linear one.
A method is a member of `READOFFS`: a function of layer, task, inputs and others, which returns a readoff or, together with a
certificate or other numbers of its own, a `Fitted`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.features import Inputs
from toymodels.core.layers import LayerMember, check_weights
from toymodels.core.tasks import ALL, Task
from toymodels.registry import Member, Registry


class LinearReadoff(nn.Module):
    """o_i(x) = weight_i · a(x) + bias_i, for every output i of a task."""

    weight: Float[Tensor, "outputs neurons"]
    bias: Float[Tensor, " outputs"]

    def __init__(self, weight: Float[Tensor, "outputs neurons"], bias: Float[Tensor, " outputs"]):
        """Take the weights as they are. Raises InputError for what is no matrix with a vector."""
        super().__init__()
        check_weights(weight, bias)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    @classmethod
    def constant(cls, n_outputs: int, width: int, value: float = 0.0) -> LinearReadoff:
        """Make a readoff that ignores the activations and predicts one value: 0 is where training starts, 1/2 a baseline."""
        return cls(torch.zeros(n_outputs, width), torch.full((n_outputs,), value))

    @property
    def n_outputs(self) -> int:
        """The number of outputs."""
        return self.weight.shape[0]

    def forward(self, a: Float[Tensor, "batch neurons"], outputs: slice = ALL) -> Float[Tensor, "batch outputs"]:
        """Return the outputs of a slice, in the readoff's own precision (fitted readoffs are float64)."""
        return nn.functional.linear(a.to(self.weight.dtype), self.weight[outputs], self.bias[outputs])


@dataclass(frozen=True)
class Fitted:
    """A readoff, and what its method knows about it."""

    readoff: nn.Module
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors to be stored with the network, such as certificates."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Columns of its row, such as {"proved": True}."""
    output_worst: Float[Tensor, " outputs"] | None = None
    """Largest |error| of each output over all inputs, if the method measured it; it replaces that over a sample."""
    task: Task | None = None
    """The task it was fitted to and is measured against, if that is not the row's (random labels)."""


@dataclass(frozen=True)
class Combination:
    """A first layer and a task that a readoff may apply to, before either is made."""

    layer: LayerMember
    task: Task
    closed_forms: frozenset[str]
    """The closed forms that hold for the layer."""
    embedded: bool
    """Whether features are embedded before the layer: then a weight is not one on a feature."""


@dataclass(frozen=True, kw_only=True)
class ReadoffMember(Member):
    """A readoff by name: `function` fits it.

    Its parameters are among layer, task, inputs (a sample if there are too many), every_input (all, or InputError), features, m,
    d, s, seed, layer_seed (of the layer's weights), width, trained_readoff, own_readoff, progress, processes, kept (for
    `minimax`: the outputs solved before the run was stopped).
    """

    applies: Callable[[Combination], bool] = lambda combination: True
    """Whether it applies to a first layer and a task: then a comparison has a row for it."""
    sampled: bool = False
    """Whether it is solved for a sample of the outputs only, if there are more than `minimax_pairs`."""
    needs: Literal["sample", "every input"] = "sample"
    """"every input": features must be few enough to list all inputs; with real values it holds for the given sample."""
    kept: bool = True
    """Whether the record stores its network."""
    default: bool = False
    """Whether a comparison has it unless others are named."""
    note: Callable[..., str] | None = None
    """Returns a sentence to print below the table; its parameters are among s, inputs, tasks, combinations, embedded."""


READOFFS = Registry(
    "readoff", ReadoffMember, "toymodels.core.least_squares", "toymodels.core.minimax", "toymodels.readoffs"
)
"""Readoffs by name."""


def as_fitted(result: Fitted | nn.Module) -> Fitted:
    """Wrap a bare readoff."""
    return result if isinstance(result, Fitted) else Fitted(result)


def fit_readoff(name: str, layer: nn.Module, task: Task, inputs: Inputs, **offered: Any) -> Fitted:
    """Fit a readoff by name, with knobs if it has some. Raises InputError for an unknown one, or as its method does."""
    member, knobs = READOFFS.named(name)
    arguments = {"layer": layer, "task": task, "inputs": inputs, "every_input": inputs, **offered}
    return as_fitted(member.call(arguments, knobs))
