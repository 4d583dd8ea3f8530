"""Read a network from anywhere, a module, weights by name, a file or a folder, for the functions that measure it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from toymodels.core.layers import ACTIVATIONS, apply, check_module
from toymodels.core.network import Network, as_network
from toymodels.core.tasks import Task, make_task
from toymodels.errors import InputError, NoEffectError, check_choice, check_kind, check_whole
from toymodels.ground_truth.folder import from_pretrained
from toymodels.ground_truth.module import MLP, check_finite_weights, check_outputs
from toymodels.runs.elsewhere import Elsewhere, find_network, read_weights
from toymodels.runs.record import is_network, load_network

Pairs = Sequence[tuple[int, int]] | None


def read_network(
    source: nn.Module | Mapping[str, Tensor] | Path | str,
    task: Task | str | None = None,
    m: int | None = None,
    activation: str = "relu",
    weights: Sequence[str] = (),
    biases: Sequence[str] = (),
    pairs: Pairs = None,
) -> Elsewhere:
    """Make a network of a torch module, a state_dict, a file of weights (.pt, .safetensors) or a folder of `save_pretrained`.

    `task` is what it computes: a Task or its name; files of a run and folders have their own. m is found by the shapes if it is
    left out. `activation` stands between the matrices of a state_dict, which `weights` and `biases` name where shapes allow
    more than one order (see `toymodels evaluate`); `pairs` are those of a task that is named. The result has the fields
    `network`, `task` and `description`.
    Raises InputError if parts are missing or do not fit together.
    """
    if m is not None:
        check_whole(1, m=m)
    wanted = "a torch module, a state_dict, or the path of a file of weights or of a folder"
    check_kind((nn.Module, Mapping, str, Path), wanted, source=source)
    if task is not None:
        check_kind((Task, str), "a Task, or its name, such as 'and'", task=task)
    check_kind(str, f"the name of one of {', '.join(ACTIVATIONS)}", activation=activation)
    check_choice(ACTIVATIONS, activation=activation)
    check_kind(
        (list, tuple), "a list of names, such as ['mlp_in.weight', 'mlp_out.weight']", weights=weights, biases=biases
    )
    if isinstance(task, Task):
        if m is not None and m != task.m:
            raise InputError(f"m = {m}, and the task reads {task.m} features: leave m out")
        m = task.m
    if isinstance(source, str | Path):
        path = Path(source)
        own = read_described(path)
        if own is not None:
            if weights or biases or activation != "relu":
                raise InputError(f"{path} describes itself: leave out activation, weights and biases")
            if pairs is not None and task is None:
                raise NoEffectError(f"{path} has pairs of its own: leave pairs out, or name a task with them")
            return _for_task(path, *own, task, m, pairs)
        source = read_weights(path)
    if task is None:
        advice = "name the task, as in --task and (in Python, task='and')"
        raise InputError(f"the weights do not say what their network computes: {advice}")
    if isinstance(source, nn.Module):
        if weights or biases or activation != "relu":
            raise InputError("a module says itself how its parts fit: leave out activation, weights and biases")
        return _module(source, task, m, pairs)
    for name, tensor in source.items():
        check_kind(Tensor, "a tensor of weights", **{str(name): tensor})
    if not any(tensor.ndim == 2 for tensor in source.values()):
        raise InputError("the weights hold no matrix: give all tensors by name, as net.state_dict() returns them")

    def task_of(size: int) -> Task:
        return task if isinstance(task, Task) else make_task(task, size, pairs)

    found = find_network(dict(source), task_of, m, activation, weights, biases)
    check_finite_weights(found.network, "the network")
    return found


def read_described(path: Path) -> tuple[Network, Task] | None:
    """Read a network that says itself what it computes, from a folder of `save_pretrained` or a file of a run.

    None for another file. Raises InputError for a folder that holds no such network, or what is damaged.
    """
    if path.is_dir():
        read = from_pretrained(path)
        return read.network, read.task
    return load_network(path)[:2] if is_network(path) else None


def _for_task(
    path: Path, network: Network, own: Task, task: Task | str | None, m: int | None, pairs: Pairs
) -> Elsewhere:
    """Return a network that has a task of its own as one for that, or for another task that is named."""
    if m is not None and m != own.m:
        raise InputError(f"{path} describes itself, it reads {own.m} features, and m is {m}: leave m out")
    chosen = make_task(task, own.m, pairs) if isinstance(task, str) else task or own
    check_outputs(path.name, own.n_outputs, chosen)
    return Elsewhere(network, chosen, f"a network with its task, {chosen.m} features → {chosen.n_outputs:,} outputs")


def _module(module: nn.Module, task: Task | str, m: int | None, pairs: Pairs) -> Elsewhere:
    check_module(module, "network")
    check_finite_weights(module, "the module")
    if m is None:
        first = next((part for part in module.modules() if type(part) is nn.Linear), None)
        m = module.m if isinstance(module, MLP) else None if first is None else first.in_features
    if m is None:
        raise InputError("the module has no nn.Linear that says how many features it reads: give m")
    network = as_network(module, m)
    whole = make_task(task, m, pairs) if isinstance(task, str) else task
    check_outputs("the module", apply(network, m, "network").shape[1], whole)
    return Elsewhere(network, whole, f"a {type(module).__name__}, {m} features → {whole.n_outputs:,} outputs")
