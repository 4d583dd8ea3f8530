"""Bring down the worst error of a first layer along its exact gradient: the command `descend`."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from toymodels.errors import InputError, NoEffectError, check_choice, check_whole
from toymodels.given import conform
from toymodels.parallel.progress import Bar
from toymodels.runs.storage import check_writable, read_tensors, write_atomically

if TYPE_CHECKING:
    from toymodels.core.layers import FirstLayer

_SETTINGS = ("task", "s", "inputs", "summary")


@dataclass(frozen=True)
class DescendConfig:
    """Bring down the worst error of a first layer, over all inputs and outputs, along its exact gradient; keep the best layer."""

    file: tyro.conf.Positional[Path]
    """The layer to start from: weight (d, m) and bias (d), .safetensors or .pt, or network.safetensors of a run."""
    out: Path = Path("descended.safetensors")
    """File of the best layer so far, written after each step; a stopped descent goes on from it."""
    task: str = "and"
    """What is to be computed: and, xor, "and_of(k=3)", …"""
    s: int = 2
    """Number of active features."""
    inputs: str = "at_most"
    """at_most or exactly s of m active."""
    activation: str = "relu"
    """Of the layer, unless the file is of a run: relu, gelu, tanh, quadratic, sigmoid or identity."""
    summary: str = "soft"
    """What is brought down: soft (a soft maximum over outputs, colder and colder), mean (over outputs) or largest."""
    steps: int = 100
    """Steps, each with one to a dozen solutions of all outputs."""

    def __post_init__(self) -> None:
        from toymodels.core.layers import ACTIVATIONS
        from toymodels.core.worst_case import SUMMARIES

        conform(self)
        check_choice(("at_most", "exactly"), inputs=self.inputs)
        check_choice(ACTIVATIONS, activation=self.activation)
        check_choice(SUMMARIES, summary=self.summary)
        check_whole(1, s=self.s, steps=self.steps)
        if self.out.suffix != ".safetensors":
            raise InputError(f"out = {self.out}: name a file that ends in .safetensors")
        if self.out.resolve() == self.file.resolve():
            raise InputError(f"out = {self.out} is the file to start from, and would replace it: name another file")
        check_writable(self.out)


def run_descend(config: DescendConfig) -> str:
    """Descend, or go on with a descent that was stopped; return what was reached."""
    from toymodels.core.features import make_features
    from toymodels.core.minimax import check_minimax
    from toymodels.core.tasks import make_task
    from toymodels.core.worst_case import Descended, descend

    layer = _start(config)
    features = make_features(config.inputs, layer.weight.shape[1], config.s)
    check_minimax(features)
    task = make_task(config.task, features.m)
    inputs = features.enumerate()
    first = _digest(layer)
    done, began_at, said = 0, math.nan, ""
    if config.out.exists():
        layer, done, began_at = _stopped(config, layer, first)
        said = f"went on after {done} steps; "
    began, bar = time.perf_counter(), Bar("descend", config.steps, "step")
    bar.skip(done)

    def keep(reached: Descended) -> None:
        step = done + len(reached.worst) - 1
        best = reached.layer
        start = reached.worst[0] if math.isnan(began_at) else began_at
        facts = {"start": first, "step": step, "first_error": start, "worst_error": reached.worst_error}
        _write(config, best, facts)
        bar.to(step, worst_error=f"{reached.worst_error:.5f}")

    if done >= config.steps:
        return f"{config.out} has all {config.steps} steps already: name more steps, or another file"
    with bar:
        found = descend(layer, task, inputs, config.steps - done, config.summary, after=keep)
    start = found.worst[0] if math.isnan(began_at) else began_at
    proved = "proved" if found.fitted.proved else "not proved"
    seconds = time.perf_counter() - began
    return (
        f"{task.name}, {features.name} active, {task.n_outputs:,} outputs, {len(inputs):,} inputs\n"
        f"{said}worst error {start:.6f} before, {found.worst_error:.6f} after ({proved}), {seconds:.1f} s\nlayer: {config.out}"
    )


def _start(config: DescendConfig) -> FirstLayer:
    from toymodels.runs.record import layer_in_file

    layer, of_run = layer_in_file(config.file, config.activation)
    if of_run is not None and config.activation not in (DescendConfig.activation, layer.activation):
        raise NoEffectError(
            f"{config.file} is of a run, whose activation is {layer.activation}: leave out activation {config.activation}"
        )
    return layer.requires_grad_(True)


def _digest(layer: FirstLayer) -> str:
    """Return a digest of the layer that a descent starts from."""
    digest = hashlib.sha256(layer.activation.encode())
    for value in (layer.weight, layer.bias):
        digest.update(value.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


def _write(config: DescendConfig, layer: Any, facts: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    stated = {**facts, **{name: getattr(config, name) for name in _SETTINGS}}
    tensors = {"weight": layer.weight.detach().contiguous(), "bias": layer.bias.detach().contiguous()}
    header = {"descent": json.dumps(stated)}
    write_atomically(config.out, lambda path: save_file(tensors, str(path), header))


def _stopped(config: DescendConfig, layer: FirstLayer, first: str) -> tuple[FirstLayer, int, float]:
    """Return the best layer of a stopped descent, its steps and its first error. Raises InputError for another one's file."""
    from toymodels.core.layers import FirstLayer

    other = InputError(f"{config.out} is there, and not of this descent: name another file in out, or delete it")
    about, tensors = read_tensors(config.out, "", lambda reason: other)
    try:
        stated = json.loads(about["descent"])
        same = stated["start"] == first and all(stated[name] == getattr(config, name) for name in _SETTINGS)
        step, error = int(stated["step"]), float(stated["first_error"])
        stopped = FirstLayer(tensors["weight"], tensors["bias"], layer.activation)
    except (KeyError, ValueError, TypeError):
        raise other from None
    if not same or stopped.weight.shape != layer.weight.shape:
        raise other
    return stopped, step, error
