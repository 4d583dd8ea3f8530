"""Turn a network into a plain torch module with named parts, and back.

    x → embed (only if features are embedded) → mlp_in → act → mlp_out → outputs

Every part is an ordinary torch module, so that hooks of torch, nnsight or TransformerLens can be set on it by its name: `mlp_in`
returns the values before the activation function, `act` the activations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.layers import ACTIVATIONS, Embedded, FirstLayer, IdentityLayer, unwrap
from toymodels.core.network import Network, as_network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import Task
from toymodels.errors import InputError, check_choice, check_kind, check_whole

NO_LAYER = "none"
"""Stands for the activation of a network without a first layer."""
_OF_TORCH = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.Identity: "identity"}
"""Torch's own activation modules, and their names here; GELU only in its exact form."""


class Activation(nn.Module):
    """One of `ACTIVATIONS` as a module."""

    def __init__(self, name: str):
        """Take the name. Raises InputError for an unknown one."""
        super().__init__()
        check_choice(ACTIVATIONS, activation=name)
        self.kind = name  # not `name`, which TransformerLens gives every part

    def forward(self, z: Float[Tensor, "batch neurons"]) -> Float[Tensor, "batch neurons"]:
        """Return φ(z)."""
        return ACTIVATIONS[self.kind](z)

    def extra_repr(self) -> str:
        """Return the name, which torch prints."""
        return self.kind


class MLP(nn.Module):
    """outputs(x) = mlp_out(act(mlp_in(embed(x)))): a network of this library as plain torch modules."""

    def __init__(self, m: int, d: int, n_outputs: int, activation: str = "relu", d0: int | None = None):
        """Make the parts, with weights 0, for m features, d neurons and a number of outputs.

        `d0` is the number of dimensions in which features are embedded; None: each has an axis. The activation "none" stands
        for a network without a first layer, which has d = m (or d0) activations: its inputs.
        Raises InputError for sizes below 1, an unknown activation, or another d without a first layer.
        """
        super().__init__()
        check_whole(1, m=m, d=d, n_outputs=n_outputs)
        check_kind(str, f"the name of one of {', '.join(ACTIVATIONS)}", activation=activation)
        if d0 is not None:
            check_whole(1, d0=d0)
        self.m, self.d, self.n_outputs, self.d0, self.activation = m, d, n_outputs, d0, activation
        read = m if d0 is None else d0
        if d0 is not None:
            self.embed = nn.utils.skip_init(nn.Linear, m, d0, bias=False, device=torch.get_default_device())
        if activation == NO_LAYER:
            if d != read:
                raise InputError(f"d = {d}: without a first layer the activations are the {read} numbers that go in")
            self.mlp_in: nn.Module = nn.Identity()
            self.act: nn.Module = nn.Identity()
        else:
            self.act = Activation(activation)
            self.mlp_in = nn.utils.skip_init(nn.Linear, read, d, device=torch.get_default_device())
        self.mlp_out = nn.utils.skip_init(nn.Linear, d, n_outputs, device=torch.get_default_device())
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def inputs(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch inputs"]:
        """Return what the first layer reads: x, or its embedding."""
        return x if self.d0 is None else self.embed(x)

    def activations(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch neurons"]:
        """Return the activations of the hidden layer."""
        activations: Tensor = self.act(self.mlp_in(self.inputs(x)))
        return activations

    def forward(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch outputs"]:
        """Return all outputs, in the precision of `mlp_out` (fitted readoffs are float64)."""
        return self.read(self.activations(x))

    def read(self, a: Float[Tensor, "batch neurons"]) -> Float[Tensor, "batch outputs"]:
        """Return all outputs that given activations have."""
        weight = getattr(self.mlp_out, "weight", a)  # another part may stand in its place
        outputs: Tensor = self.mlp_out(a.to(weight.dtype))
        return outputs

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> MLP:
        """Read the module from a folder of `save_pretrained`, in float32 throughout, as Hugging Face's classes and SPD's do.

        In a configuration of SPD (stochastic parameter decomposition) the class is `pretrained_model_class` and the folder
        `pretrained_model_name`. Raises InputError as `toymodels.from_pretrained` does.
        """
        from toymodels.ground_truth.folder import from_pretrained

        return from_pretrained(folder).model.float()

    @classmethod
    def from_run_info(cls, run_info: Any) -> MLP:
        """Read the module that belongs to a run's information, as SPD's `LoadableModule` does: from its `checkpoint_path`.

        The path is that of the folder, or of a file in it. Raises InputError for something without such a path, and as
        `toymodels.from_pretrained` does.
        """
        path = getattr(run_info, "checkpoint_path", None)
        if not isinstance(path, str | Path):
            raise InputError(
                f"run_info is of the kind {type(run_info).__name__}: it must have a checkpoint_path, the path of a folder of "
                "save_pretrained or of a file in it"
            )
        path = Path(path)
        return cls.from_pretrained(path if path.is_dir() else path.parent)


def as_mlp(network: nn.Module, m: int) -> MLP:
    """Return the plain module that has the same outputs as a network with a first layer (or none) and a linear readoff.

    Takes a `Network`, or any module that `as_network` can divide into a linear layer, an activation function and a linear
    layer, such as nn.Sequential(nn.Linear, nn.ReLU, nn.Linear). The weights are copied.
    Raises InputError for a network of another form.
    """
    check_kind(nn.Module, "a torch module, such as a Network", network=network)
    check_whole(1, m=m)
    if isinstance(network, MLP):
        if network.m != m:
            raise InputError(f"the network reads {network.m} features, and m is {m}: they must be the same")
        return network
    whole = as_network(network, m)
    layer, readoff = _plain_layer(whole.layer), whole.readoff
    if not isinstance(readoff, LinearReadoff):
        raise InputError(
            f"the readoff is a {type(readoff).__name__}: a plain module has a linear one, LinearReadoff or nn.Linear"
        )
    inner = unwrap(layer)
    frame = layer.frame if isinstance(layer, Embedded) else None
    activation = inner.activation if isinstance(inner, FirstLayer) else NO_LAYER
    outputs, d = readoff.weight.shape
    mlp = MLP(m, d, outputs, activation, None if frame is None else len(frame))
    weights = {"mlp_out.weight": readoff.weight, "mlp_out.bias": readoff.bias}
    if isinstance(inner, FirstLayer):
        weights |= {"mlp_in.weight": inner.weight, "mlp_in.bias": inner.bias}
    if frame is not None:
        weights["embed.weight"] = frame
    return filled(mlp, weights).train(network.training)


def filled(mlp: MLP, weights: dict[str, Tensor]) -> MLP:
    """Give a module copies of these weights, each in its own precision. Raises InputError for others."""
    expected = {name: tuple(parameter.shape) for name, parameter in mlp.named_parameters()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if given != expected:
        shown = [", ".join(f"{name} {shape}" for name, shape in sorted(sizes.items())) for sizes in (given, expected)]
        raise InputError(f"the weights are {shown[0]}: a network of these sizes has {shown[1]}")
    wrong = [name for name, tensor in weights.items() if not tensor.is_floating_point()]
    if wrong:
        raise InputError(f"{wrong[0]} holds no real numbers: weights must be floating-point numbers")
    copies = {name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}
    mlp.load_state_dict(copies, assign=True)
    return mlp


def as_parts(mlp: MLP, origin: str = "given", scale: float | int = 1.0) -> Network:
    """Return the `Network` (first layer and readoff) that has the same outputs as a plain module; the weights are shared.

    `origin` and `scale` say how the first layer was made (see `FirstLayer`).
    """
    check_kind(MLP, "an MLP, as as_mlp makes it", mlp=mlp)
    layer: nn.Module
    if isinstance(mlp.mlp_in, nn.Linear):
        layer = FirstLayer(mlp.mlp_in.weight.detach(), mlp.mlp_in.bias.detach(), mlp.activation, origin, scale)
    else:
        layer = IdentityLayer(mlp.d)
    if mlp.d0 is not None:
        layer = Embedded(mlp.embed.weight.detach(), layer)
    return Network(layer, LinearReadoff(mlp.mlp_out.weight.detach(), mlp.mlp_out.bias.detach()))


def _plain_layer(layer: nn.Module) -> nn.Module:
    """Return a layer of this library for torch's nn.Linear with an activation module. Raises InputError for others."""
    inner = unwrap(layer)
    if isinstance(inner, FirstLayer | IdentityLayer):
        return layer
    parts = [part for part in inner if type(part) is not nn.Identity] if isinstance(inner, nn.Sequential) else [inner]
    linear = parts[0] if parts else None
    names = [_activation_name(part) for part in parts[1:]]
    if type(linear) is not nn.Linear or len(names) > 1 or None in names:
        found = ", ".join(type(part).__name__ for part in parts) or "nothing"
        raise InputError(
            f"the first layer is of the kind {type(inner).__name__} ({found}): a plain module has one linear layer and one "
            f"activation function ({', '.join(ACTIVATIONS)})"
        )
    bias = linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias
    first = FirstLayer(linear.weight.detach(), bias.detach(), str(names[0]) if names else "identity")
    return Embedded(layer.frame, first) if isinstance(layer, Embedded) else first


def _activation_name(part: nn.Module) -> str | None:
    if isinstance(part, Activation):
        return part.kind
    if type(part) is nn.GELU:
        return "gelu" if part.approximate == "none" else None
    return _OF_TORCH.get(type(part))


def check_outputs(what: str, outputs: int, task: Task) -> None:
    """Raise InputError for another number of outputs than the task has."""
    if outputs != task.n_outputs:
        raise InputError(
            f"{what} has {outputs:,} outputs and the task {task.name} {task.n_outputs:,}, {task.outputs_in_words}"
        )


def check_finite_weights(module: nn.Module, what: str) -> None:
    """Raise InputError if a weight is not a finite number."""
    for name, tensor in module.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{name} of {what} holds numbers that are not finite: weights must be finite numbers")
