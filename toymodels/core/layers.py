"""First layers, the part of a network that computes. A layer is any torch module from (batch, m) to (batch, width)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.features import Inputs
from toymodels.core.tasks import Task
from toymodels.errors import InputError, check_choice, check_kind, check_whole
from toymodels.registry import Member, Registry

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "tanh": torch.tanh,
    "quadratic": torch.square,
    "sigmoid": torch.sigmoid,
    "identity": lambda z: z,
}
"""Activation functions by name. Add your own here, for example in a plugin, to name it in settings."""


class FirstLayer(nn.Module):
    """a(x) = φ(Wx + b): the single hidden layer, trainable or frozen (`requires_grad_`)."""

    weight: Float[Tensor, "neurons m"]
    bias: Float[Tensor, " neurons"]

    def __init__(
        self,
        weight: Float[Tensor, "neurons m"],
        bias: Float[Tensor, " neurons"],
        activation: str = "relu",
        origin: str = "given",
        scale: float | int = 1.0,
    ):
        """Take the weights as they are; `origin` says how they were made ("gaussian", "trained", …).

        `scale` is the standard deviation of weights that were drawn. Closed forms hold for some origins only.
        Raises InputError for an unknown activation, or what is no matrix with a vector.
        """
        super().__init__()
        check_kind(str, f"the name of one of {', '.join(ACTIVATIONS)}", activation=activation)
        check_choice(ACTIVATIONS, activation=activation)
        check_weights(weight, bias)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.activation = activation
        self.origin = origin
        self.scale = scale

    @property
    def width(self) -> int:
        """The number of neurons d."""
        return self.weight.shape[0]

    def forward(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch neurons"]:
        """Return the activations."""
        return ACTIVATIONS[self.activation](nn.functional.linear(x, self.weight, self.bias))


class IdentityLayer(nn.Module):
    """No layer at all: the activations are the features. Readoffs of it are affine functions of the input."""

    origin = "identity"

    def __init__(self, m: int):
        """Take the number of features. Raises InputError for less than 1."""
        super().__init__()
        check_whole(1, m=m)
        self.width = m

    def forward(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch m"]:
        """Return the input itself."""
        return x


class Embedded(nn.Module):
    """A layer that sees features in superposition: a(x) = layer(F x), with the columns of F as the features' directions."""

    frame: Float[Tensor, "d0 m"]

    def __init__(self, frame: Float[Tensor, "d0 m"], layer: nn.Module):
        """Put a fixed frame (see `core.frames`) before a layer that takes (batch, d0)."""
        super().__init__()
        self.register_buffer("frame", frame)
        self.layer = layer

    def forward(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch neurons"]:
        """Return the activations."""
        return self.layer(nn.functional.linear(x, self.frame))


def unwrap(layer: nn.Module) -> nn.Module:
    """Return the layer itself, without the embedding in front of it."""
    return layer.layer if isinstance(layer, Embedded) else layer


def embed_before(frame: Float[Tensor, "d0 m"], layer: FirstLayer) -> Embedded:
    """Turn a layer for features with axes of their own into one for embedded features: W = Ŵ Fᵀ reads F x if Ŵ reads x.

    Section 1.3 of the 2024 post: neuron i sees Ŵ_i · (FᵀF) x, its features and the interference of all others.
    """
    weight = layer.weight.detach() @ frame.T
    return Embedded(frame, FirstLayer(weight, layer.bias.detach().clone(), layer.activation, layer.origin, layer.scale))


@torch.no_grad()
def layer_width(layer: nn.Module, m: int) -> int:
    """Return the number of activations of a layer: its own `width`, or that of its output for one input."""
    width = getattr(unwrap(layer), "width", None)
    if isinstance(width, int):
        return width
    parameter = next(layer.parameters(), torch.zeros(0))
    return int(layer(torch.zeros(1, m, dtype=parameter.dtype, device=parameter.device)).shape[1])


Role = Literal["none", "random", "construction", "trained", "refined", "null"]


@dataclass(frozen=True, kw_only=True)
class LayerMember(Member):
    """A first layer by name: `function` makes it; its parameters are among m, d, seed, activation, task, s, features, trained."""

    role: Role = "random"
    """none: no layer; random: drawn; construction: published, with a readoff of its own; trained; refined, null: made from the
    trained one, to be better than it or to keep one property of it."""
    own_readoff: Callable[..., nn.Module] | None = None
    """Makes its own readoff; its parameters are among layer, task, s, m, d, seed and the knobs."""
    own_source: str = ""
    """Where that readoff comes from."""
    reads: Callable[[Task], bool] = lambda task: True
    """Whether its own readoff computes a task."""
    fits: Callable[[Task], bool] = lambda task: True
    """Whether the layer can be made for a task."""
    check: Callable[..., object] | None = None
    """Raises InputError, before any work, for m, d, activation or knobs that the layer cannot have; called as `function` is."""
    chosen: Callable[..., Mapping[str, Any]] | None = None
    """The knobs that it chooses by itself for a problem; called as `function` is."""
    closed_forms: Callable[..., frozenset[str]] | None = None
    """Names of the closed forms that hold for it ("quadrants": the analytic readoff); called as `function` is."""

    def __post_init__(self) -> None:
        if self.order == 50:
            order = {"none": 0, "random": 10, "construction": 20, "trained": 80, "refined": 85, "null": 90}[self.role]
            object.__setattr__(self, "order", order)

    @property
    def uses_trained(self) -> bool:
        """Whether it is made from the trained layer."""
        return "trained" in self.parameters

    @property
    def after_training(self) -> bool:
        """Whether it is the trained layer, or is made from it."""
        return self.role == "trained" or self.uses_trained

    @property
    def own_activation(self) -> bool:
        """Whether it always has the same activation, whatever the settings say."""
        return "activation" not in self.parameters

    def aside(self, function: Callable[..., Any] | None, offered: Mapping[str, Any], knobs: Mapping[str, Any]) -> Any:
        """Call another function of the member (`check`, `own_readoff`, …) as `function` is called; None if it has none."""
        if function is None:
            return None
        helper = Member(name=self.name, function=function)
        accepted = {name: value for name, value in {**self.knobs, **knobs}.items() if name in helper.parameters}
        return helper.call({**offered, **accepted}, {k: v for k, v in accepted.items() if k in helper.knobs})


LAYERS = Registry("first layer", LayerMember, "toymodels.layers")
"""First layers by name. A member is called with those of its parameters: m (its inputs: the features, or the dimensions in which
they are embedded), d, seed, activation, task, s, features, trained. All other parameters are knobs."""


def make_layer(name: str, m: int, d: int, seed: int, activation: str = "relu", **offered: Any) -> nn.Module:
    """Make a new first layer by name, with knobs if it has some ("gaussian(bias=-1)").

    Raises InputError for an unknown name or knob, d < 1 or an unknown activation.
    """
    member, knobs = LAYERS.named(name)
    check_whole(1, m=m, d=d)
    problem = {"m": m, "d": d, "seed": seed, "activation": activation, **offered}
    member.aside(member.check, problem, knobs)
    layer: nn.Module = member.call(problem, knobs)
    check_made(layer, name, m)
    return mark_origin(layer, name)


def apply(module: nn.Module, m: int, noun: str) -> Tensor:
    """Return what a module makes of two empty inputs. Raises InputError if it does not take m features or returns no table."""
    parts = ((*part.parameters(recurse=False), *part.buffers(recurse=False)) for part in module.modules())
    first = (tensor for part in parts for tensor in part if tensor.is_floating_point())
    parameter = next(first, torch.zeros(0))  # parts that come later convert what they get
    try:
        outputs = module(torch.zeros(2, m, dtype=parameter.dtype, device=parameter.device))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the {noun} does not take a batch of inputs with m = {m} features: {reason}") from None
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != 2 or outputs.is_complex():
        shape = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        shape += " of complex numbers" if isinstance(outputs, Tensor) and outputs.is_complex() else ""
        raise InputError(f"the {noun} returns {shape} for 2 inputs: it must return one row of numbers for each input")
    return outputs


def check_problem(module: Any, task: Any, inputs: Any, noun: str = "layer") -> None:
    """Raise InputError unless these are a module with weights that are real numbers, a task, and inputs that fit the task."""
    check_module(module, noun)
    check_kind(Task, "a Task, such as PairTask(m, 'and') or make_task('relu', m)", task=task)
    check_kind(Inputs, "Inputs, such as features.enumerate() or features.sampled(1000, seed=0)", inputs=inputs)
    if inputs.m != task.m:
        raise InputError(f"the inputs have {inputs.m} features and the task {task.m}: they must be the same")
    if not len(inputs):
        raise InputError("there are no inputs: an error needs at least one")


def check_module(module: Any, noun: str) -> None:
    """Raise InputError unless this is a torch module whose weights are there and real numbers."""
    check_kind(nn.Module, "a torch module, from (batch, m) to a row of numbers for each input", **{noun: module})
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor) and (tensor.is_complex() or tensor.is_meta):
            wrong = "has no values yet (device meta)" if tensor.is_meta else "holds complex numbers"
            raise InputError(f"{name} of the {noun} {wrong}: weights must be real numbers")


def check_weights(weight: Any, bias: Any) -> None:
    """Raise InputError unless these are a matrix and a vector of real numbers, with an entry of the vector for each row."""
    check_kind(Tensor, "a tensor, such as torch.tensor(values)", weight=weight, bias=bias)
    real = weight.is_floating_point() and bias.is_floating_point()
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or not real:
        shown = f"weight {tuple(weight.shape)} {weight.dtype}, bias {tuple(bias.shape)} {bias.dtype}"
        raise InputError(f"{shown}: it must be a matrix, and a vector with a number for each of its rows, of floats")


def check_made(layer: Any, name: str, m: int) -> None:
    """Raise InputError unless a layer is a torch module that takes (batch, m) to finite (batch, width)."""
    if not isinstance(layer, nn.Module):
        raise InputError(f"the first layer {name} must be a torch module; it is {type(layer).__name__}")
    with torch.no_grad():
        if not bool(apply(layer, m, f"first layer {name}").isfinite().all()):
            raise InputError(
                f"the first layer {name} returns numbers that are not finite for inputs without active features"
            )


def mark_origin(layer: nn.Module, name: str) -> nn.Module:
    """Set the origin of a layer that has none, so that a record can name it."""
    if not hasattr(layer, "origin"):
        layer.origin = name  # type: ignore[assignment]
    return layer
