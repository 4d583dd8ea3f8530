"""Write a network with its task and its inputs into a folder that anyone can read, and read such a folder.

config.json          format and version, sizes, activation, task, how inputs are drawn, where the first layer came from
model.safetensors    the weights of the plain module: mlp_in, mlp_out (and embed), each weight and bias
task.safetensors     only if the task needs more than its name: chosen pairs, sets of features, a mixing matrix
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from toymodels.core.features import Features, SparseFeatures, make_features
from toymodels.core.layers import ACTIVATIONS, unwrap
from toymodels.core.network import Network
from toymodels.core.tasks import Task, make_task
from toymodels.errors import InputError, check_kind, check_positive, check_whole
from toymodels.ground_truth.module import MLP, NO_LAYER, as_mlp, as_parts, check_finite_weights, check_outputs, filled
from toymodels.runs.storage import (
    check_writable,
    damaged,
    read_json,
    read_tensors,
    write_atomically,
    write_json,
    writing,
)  # fmt: skip

FORMAT = "toymodels-network"
VERSION = 1
"""Version of the folder's layout; a folder of another version is refused."""
_AGAIN = "write the folder again with save_pretrained or `toymodels export`"


@dataclass(frozen=True)
class Pretrained:
    """A network whose features and functions are known."""

    model: MLP
    """The network as a plain torch module, frozen, with the parts mlp_in, act and mlp_out."""
    network: Network
    """The same weights as a first layer and a readoff, as every function of this library takes them."""
    task: Task
    """The functions that it computes."""
    features: Features
    """The distribution of its inputs."""
    config: dict[str, Any]
    """The content of config.json."""


def save_pretrained(network: nn.Module, folder: Path | str, task: Task, features: Features | Mapping[str, Any]) -> Path:
    """Write a network, its task and the distribution of its inputs into a new folder; return the folder.

    `features` is a `SparseFeatures`, or settings by name for any other source of inputs, {"inputs": "couples", "s": 2,
    "values": "one"}, as a command names them. The folder appears whole or not at all.
    Raises InputError, before anything is written, for a network without one linear hidden layer and a linear readoff, for sizes
    that do not fit, weights that are not finite, a task that `make_task` cannot make again, or a folder that is not empty.
    """
    check_kind(Task, "a Task, such as PairTask(m, 'and') or make_task('relu', m)", task=task)
    check_kind((str, Path), "the path of a new folder", folder=folder)
    drawn = _drawn(features, task.m)
    mlp = as_mlp(network, task.m)
    check_outputs("the network", mlp.n_outputs, task)
    check_finite_weights(mlp, "the network")
    stored = _needed(task)
    inner = unwrap(network.layer) if isinstance(network, Network) else None
    config = {
        "format": FORMAT,
        "version": VERSION,
        "toymodels": importlib.metadata.version("toymodels"),
        "m": mlp.m,
        "d": mlp.d,
        "outputs": mlp.n_outputs,
        "d0": mlp.d0,
        "activation": mlp.activation,
        "origin": str(getattr(inner, "origin", "given")),
        "scale": float(getattr(inner, "scale", 1.0)),
        "task": {"name": task.name, "outputs_in_words": task.outputs_in_words, "stored": sorted(stored)},
        "inputs": drawn,
    }
    target = Path(folder)
    _check_new(target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        try:
            part.mkdir()
            _save(part / "model.safetensors", mlp.state_dict())
            if stored:
                _save(part / "task.safetensors", stored)
            write_json(part / "config.json", config)
            os.replace(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return target


def from_pretrained(folder: Path | str) -> Pretrained:
    """Read a network from a folder that `save_pretrained` has written. Nothing that could run code is read.

    Raises InputError, which names the file, if one is missing or damaged, of another version, if shapes do not fit the sizes in
    config.json, or if a weight is not finite.
    """
    check_kind((str, Path), "the path of a folder", folder=folder)
    folder = Path(folder)
    path = folder / "config.json"
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "is not there"
        raise InputError(f"{folder} {state}: name a folder that save_pretrained or `toymodels export` has written")
    if not path.exists():
        raise InputError(f"{folder} is a folder and has no config.json, so it holds no network: {_AGAIN}")
    config: dict[str, Any] = read_json(path, ("format",), _AGAIN)
    if config["format"] != FORMAT:
        raise InputError(
            f"{folder} is no folder of a network (its config.json is of the format {config['format']!r}): name one that "
            "save_pretrained has written, or export the run in it by `toymodels export`"
        )
    if config.get("version") != VERSION:
        raise InputError(
            f"{folder} is of version {config.get('version')!r}, this library reads version {VERSION}: {_AGAIN}"
        )
    read_json(path, ("m", "d", "outputs", "d0", "activation", "origin", "scale", "task", "inputs"), _AGAIN)
    try:
        mlp = _sized(config)
        task = _task(config, folder)
        features = _source(config["inputs"], mlp.m)
    except InputError as error:
        raise damaged(path, str(error), advice=_AGAIN) from None
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}", advice=_AGAIN) from None
    if mlp.n_outputs != task.n_outputs:
        raise damaged(path, f"outputs is {mlp.n_outputs}, and the task {task.name} has {task.n_outputs}", advice=_AGAIN)
    weights = folder / "model.safetensors"
    try:
        filled(mlp, _load(weights))
        check_finite_weights(mlp, "the network")
    except InputError as error:
        raise error if str(weights) in str(error) else damaged(weights, str(error), advice=_AGAIN) from None
    mlp.requires_grad_(False).eval()
    network = as_parts(mlp, str(config["origin"]), float(config["scale"])).requires_grad_(False)
    return Pretrained(mlp, network, task, features, config)


def _sized(config: Mapping[str, Any]) -> MLP:
    """Make the module of the sizes in a configuration; sizes that would need more than 10^10 weights are refused."""
    m, d, outputs, d0 = (config[name] for name in ("m", "d", "outputs", "d0"))
    check_whole(1, m=m, d=d, outputs=outputs)
    if d0 is not None:
        check_whole(1, d0=d0)
    check_positive(scale=config["scale"])
    check_kind(str, "a text", origin=config["origin"])
    if max(m, d) * max(d, outputs) > 10**10:
        raise InputError(f"m = {m}, d = {d}, outputs = {outputs}: more than 10^10 weights")
    activation = config["activation"]
    if activation != NO_LAYER and activation not in ACTIVATIONS:
        known = f"known are {', '.join(ACTIVATIONS)}; load the plugin that defines it first"
        raise InputError(f"unknown activation {activation!r}: {known}")
    with torch.device("meta"):
        return MLP(m, d, outputs, activation, d0)


def _drawn(features: Features | Mapping[str, Any], m: int) -> dict[str, Any]:
    """Return the words and numbers from which a source of inputs can be made again. Raises InputError if there are none."""
    if isinstance(features, SparseFeatures):
        drawn: dict[str, Any] = {
            "name": features.name, "counts": list(features.counts), "values": features.values, "p": features.p
        }  # fmt: skip
    elif isinstance(features, Mapping):
        wrong = sorted(set(features) - {"inputs", "s", "values"}, key=str)
        if wrong or not {"inputs", "s"} <= set(features):
            raise InputError(
                f"features has the keys {sorted(map(str, features))}: it must have inputs and s, and may have values"
            )
        drawn = {"inputs": features["inputs"], "s": features["s"], "values": features.get("values", "one")}
        if str(drawn["inputs"]).partition("(")[0].strip() == "listed":
            raise InputError(
                "inputs listed in a file cannot be drawn again from the folder: name another source of inputs"
            )
    else:
        raise InputError(
            f"features is of the kind {type(features).__name__}: it must be SparseFeatures, or a mapping with the keys inputs, s "
            'and values, such as {"inputs": "couples", "s": 2, "values": "one"}'
        )
    made = _source(drawn, m)
    number = features.m if isinstance(features, SparseFeatures) else made.m
    if number != m:
        raise InputError(f"the features are {number} and the task reads {m}: they must be the same")
    return drawn


def _source(drawn: Mapping[str, Any], m: int) -> Features:
    """Make the source of inputs that a configuration describes."""
    check_kind(Mapping, "a mapping of settings", inputs=drawn)
    if "counts" in drawn:
        return SparseFeatures(m, tuple(map(float, drawn["counts"])), str(drawn["name"]), drawn["values"], drawn["p"])
    return make_features(drawn["inputs"], m, drawn["s"], drawn["values"])


def _needed(task: Task) -> dict[str, Tensor]:
    """Return the tensors without which `make_task` makes another task; none if the name says all.

    Raises InputError for a task that cannot be made again.
    """
    stored = {name: tensor.detach().cpu() for name, tensor in task.stored().items()}
    try:
        plain = make_task(task.name, task.m).stored()
        if plain.keys() == stored.keys() and all(torch.equal(plain[name], stored[name]) for name in stored):
            return {}
        again = make_task(task.name, task.m, stored=stored)
    except InputError as error:
        raise InputError(
            f"the task {task.name} cannot be made again from its name ({error}): register it in TASKS"
        ) from None
    if again.n_outputs != task.n_outputs:
        raise InputError(f"the task {task.name} is made again with other outputs: name in stored() all that it needs")
    return stored


def _task(config: Mapping[str, Any], folder: Path) -> Task:
    about = config["task"]
    names = about["stored"]
    if not names:
        return make_task(about["name"], config["m"])
    stored = _load(folder / "task.safetensors")
    if sorted(stored) != list(names):
        raise InputError(f"task.safetensors holds {', '.join(sorted(stored))}, and must hold {', '.join(names)}")
    return make_task(about["name"], config["m"], stored=stored)


def _check_new(folder: Path) -> None:
    """Raise InputError unless a folder of this name can be made."""
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise InputError(f"{folder} is a file or a link: name a new folder")
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"the folder {folder} is not empty: name a new folder, so that nothing is replaced")
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): name another folder") from None
    check_writable(folder / "config.json")


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda temporary: save_file(whole, str(temporary), {"format": "pt"}))


def _load(path: Path) -> dict[str, Tensor]:
    return read_tensors(path, _AGAIN, lambda reason: damaged(path, reason, advice=_AGAIN))[1]
