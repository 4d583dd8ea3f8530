"""Networks that were made elsewhere: read their weights from a file, and find out how they fit together.

Weights are matrices and vectors by name (a state_dict). They are taken as a chain of linear layers with the same activation
between them. Nothing that could run code is read from a file.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from toymodels.core.layers import FirstLayer, IdentityLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import Task
from toymodels.errors import InputError

NONE = "none"
"""Stands for a bias that is not there."""
_MOST = 5
"""Matrices up to which every order of them is tried."""
_NAMES = (("weight", "bias"), ("kernel", "bias"), ("W", "b"), ("w", "b"))
"""How a weight is named, and its bias."""
_INSIDE = ("state_dict", "model_state_dict", "model", "network", "net", "params")
"""Keys below which training scripts put the weights."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors file, or from one of `torch.save(net.state_dict(), FILE)`, in any nesting.

    Raises InputError for a file that is missing or holds no such weights; nothing else is unpickled.
    """
    if not path.is_file():
        state = "is a link to nothing" if path.is_symlink() else "is not there"
        if path.exists():
            state = "is a folder: `toymodels show` prints a run" if path.is_dir() else "is a pipe or a device"
        raise InputError(f"{path} {state}; name a file of weights, .pt or .safetensors")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(str(path))
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on TorchScript archives, which are refused
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, for files that are something else
        reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        if not path.stat().st_size:
            reason = "the file is empty"
        elif not isinstance(error, RuntimeError | OSError) and not reason.strip("0123456789'"):
            reason = "it is something else"
        right = "save them by torch.save(net.state_dict(), FILE) or as safetensors"
        unsafe = "whole modules and other Python objects are not read, because they can run code"
        raise InputError(f"{path} holds no weights that can be read ({reason}): {right}; {unsafe}") from None
    found = list(_state_dicts(content))
    if not found:
        raise InputError(f"{path} holds no matrix by name: save the weights by torch.save(net.state_dict(), FILE)")
    if len(found) > 1:
        raise InputError(
            f"{path} holds {len(found)} sets of weights: save those of one network, net.state_dict(), alone"
        )
    for name, tensor in found[0].items():
        if tensor.is_meta or tensor.layout != torch.strided or not tensor.numel():
            layout = f"shape {_shape(tensor)} in the layout {tensor.layout}"
            what = "no values (device meta)" if tensor.is_meta else layout
            raise InputError(f"{path}: {name} has {what}: weights must be dense tensors with at least one number")
    return found[0]


def _state_dicts(content: Any) -> Iterator[dict[str, Tensor]]:
    """Yield the dictionaries of tensors, with at least one matrix, that are not inside of others."""
    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    if not isinstance(content, Mapping):
        return
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if any(tensor.ndim == 2 for tensor in tensors.values()):
        yield tensors
        return
    usual = [content[key] for key in _INSIDE if key in content]
    for inner in usual or content.values():
        yield from _state_dicts(inner)


@dataclass(frozen=True)
class Elsewhere:
    """A network that was made elsewhere, and how it was put together."""

    network: Network
    task: Task
    description: str
    """Its sizes and the names of its tensors."""


@dataclass(frozen=True)
class _Chain:
    """An order of the matrices in which they fit."""

    names: tuple[str, ...]
    flipped: tuple[bool, ...]
    """Which are stored as (inputs, outputs)."""
    task: Task


def find_network(
    tensors: Mapping[str, Tensor],
    make_task: Callable[[int], Task],
    m: int | None = None,
    activation: str = "relu",
    weights: Sequence[str] = (),
    biases: Sequence[str] = (),
) -> Elsewhere:
    """Put matrices and vectors together to a network that computes the task, whose size m follows from the shapes.

    `weights` and `biases` name the tensors from the inputs to the outputs ("none": no bias); without them every tensor must have
    its place, found by shapes and names. Raises InputError if there is no way, or more than one, and lists what there is.
    """
    there = "; it has " + ", ".join(f"{name} {_shape(tensor)}" for name, tensor in tensors.items())
    unknown = [name for name in (*weights, *biases) if name not in tensors and name != NONE]
    if unknown:
        raise InputError(f"there is no tensor {unknown[0]!r}{there}")
    matrices = [name for name in weights or tensors if tensors[name].ndim == 2]
    if len(matrices) < len(weights):
        raise InputError(f"weights must be matrices{there}")
    if not weights and len(matrices) > _MOST:
        raise InputError(f"{len(matrices)} matrices: name those of the network in --weights, from the inputs on{there}")
    orders = [tuple(matrices)] if weights else itertools.permutations(matrices)
    chains = [chain for order in orders for chain in _chains(tensors, order, make_task, m)]
    chains = [chain for chain in chains if sum(chain.flipped) == min(sum(other.flipped) for other in chains)]
    if not chains:
        task = make_task(tensors[matrices[0]].shape[1] if m is None else m)
        outputs = f"the {task.n_outputs:,} outputs of the task {task.name}, {task.outputs_in_words}"
        raise InputError(f"the weights make no chain from m = {task.m} features to {outputs}{there}")
    if len(chains) > 1:
        ways = " or ".join(f"{' → '.join(c.names)} with m = {c.task.m}" for c in chains[:2])
        raise InputError(f"the weights fit together in more than one way ({ways}): name them in --weights, or m{there}")
    chain = chains[0]
    values = [tensors[name].T if flip else tensors[name] for name, flip in zip(chain.names, chain.flipped, strict=True)]
    if biases and len(biases) != len(values):
        raise InputError(f"{len(biases)} biases for {len(values)} weights: name one for each, or {NONE}")
    named = biases or _biases(tensors, chain.names, [len(value) for value in values], there)
    unused = set(tensors) - set(chain.names) - set(named)
    if unused and not weights:
        advice = "name the weights that make the network, or build its module in Python and call toymodels.evaluate"
        raise InputError(f"{', '.join(sorted(unused))} have no place in a chain of linear layers: {advice}{there}")
    return _assembled(tensors, chain, values, named, activation)


def _chains(
    tensors: Mapping[str, Tensor], order: Sequence[str], make_task: Callable[[int], Task], m: int | None
) -> Iterator[_Chain]:
    for size in dict.fromkeys(reversed(tensors[order[0]].shape)) if m is None else (m,):
        width, flipped = size, []
        for name in order:
            rows, columns = tensors[name].shape
            if width not in (rows, columns):
                break
            flipped.append(columns != width)
            width = columns if flipped[-1] else rows
        else:
            try:
                task = make_task(size)
            except InputError:
                if m is not None:
                    raise
                continue
            if task.n_outputs == width:
                yield _Chain(tuple(order), tuple(flipped), task)


def _biases(tensors: Mapping[str, Tensor], names: Sequence[str], sizes: Sequence[int], there: str) -> list[str]:
    """Find the bias of each weight: by its name, or else as the only vector of its size."""
    vectors = [name for name, tensor in tensors.items() if tensor.ndim == 1]
    found: list[str] = []
    for name, size in zip(names, sizes, strict=True):
        likely = [new.join(name.rsplit(old, 1)) for old, new in _NAMES if old in name]
        fitting = [vector for vector in vectors if len(tensors[vector]) == size and vector not in found]
        named = [vector for vector in likely if vector in fitting]
        if not named and len(fitting) > 1:
            raise InputError(f"{name} may have the bias {' or '.join(fitting)}: name the biases in --biases{there}")
        found.append((named or fitting or [NONE])[0])
    return found


def _assembled(
    tensors: Mapping[str, Tensor], chain: _Chain, values: Sequence[Tensor], biases: Sequence[str], activation: str
) -> Elsewhere:
    steps: list[tuple[Float[Tensor, "outputs inputs"], Float[Tensor, " outputs"]]] = []
    words = []
    for name, value, bias, flipped in zip(chain.names, values, biases, chain.flipped, strict=True):
        vector = tensors[bias] if bias != NONE else value.new_zeros(len(value))
        if vector.shape != (len(value),):
            raise InputError(f"the bias {bias} has shape {_shape(vector)} and its weight {name} {len(value)} outputs")
        if not value.is_floating_point() or not vector.is_floating_point():
            raise InputError(f"{name} or {bias} holds no real numbers: weights must be floating-point numbers")
        steps.append((value.double().contiguous(), vector.double()))
        words.append(f"{name}{' (transposed)' if flipped else ''} and {bias if bias != NONE else 'no bias'}")
    hidden = [FirstLayer(weight, bias, activation) for weight, bias in steps[:-1]]
    layer: nn.Module = (
        hidden[0] if len(hidden) == 1 else nn.Sequential(*hidden) if hidden else IdentityLayer(chain.task.m)
    )
    sizes = [f"{chain.task.m} features", *(f"{part.width} neurons ({activation})" for part in hidden)]
    sizes.append(f"{chain.task.n_outputs:,} outputs, {chain.task.outputs_in_words}")
    network = Network(layer, LinearReadoff(*steps[-1]))
    return Elsewhere(network, chain.task, f"{' → '.join(sizes)}\n{', then '.join(words)}")


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "number"
