"""Measure a network from the file of its weights, made elsewhere or by a run, with its own readoff and with others."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from toymodels.errors import InputError, check_choice, check_device, check_different, check_whole
from toymodels.given import conform
from toymodels.registry import Lazy, load_plugins
from toymodels.runs.metrics import metrics_of
from toymodels.runs.settings import evaluation_inputs
from toymodels.runs.storage import check_writable, write_json

_OFFERED = frozenset(
    {"layer", "task", "inputs", "every_input", "features", "m", "d", "s", "seed", "width", "trained_readoff"}
)
"""What readoffs may ask for here."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a network that was made elsewhere, from the file of its weights."""

    file: tyro.conf.Positional[Path]
    """Weights by name: torch.save(net.state_dict(), FILE), or .safetensors (also of a run); or an exported folder."""
    task: str | None = None
    """What it computes: and, xor, "and_of(k=3)", relu, … Outputs are in the task's order: all pairs k < l as (0, 1), (0, 2), …
    A network of a run has its own."""
    m: int | None = None
    """Number of features; default as the shapes say."""
    s: int | float = 2
    """Active features: their number (exactly, at_most) or expected number (independent, couples, unequal)."""
    inputs: str = "at_most"
    """Which inputs occur: at_most, exactly, independent, couples, unequal, "listed(file=inputs.csv)", or your own."""
    values: str = "one"
    """Value of an active feature: one (boolean features), uniform, symmetric, …"""
    pairs: tuple[tuple[int, int], ...] | None = None
    """Pairs (k, l) of features, in the order of the outputs; default all."""
    activation: str = "relu"
    """Between two linear layers: relu, gelu, tanh, quadratic, sigmoid or identity, or your own."""
    weights: tuple[str, ...] = ()
    """Names of the weights in the file, from the inputs to the outputs; default: found by their shapes."""
    biases: tuple[str, ...] = ()
    """Names of their biases ("none": no bias); default: found by names and shapes."""
    readoffs: tuple[str, ...] = ("trained",)
    """trained: the network's own; others are fitted to its hidden layer: minimax, least_squares, balanced, by_class, …"""
    minimax_pairs: int = 2000
    """Minimax readoffs are solved for all outputs, or for a random sample of this many if there are more."""
    eval_inputs: int = 20_000
    """Inputs sampled if there are too many to use all (over 5·10^8 outputs)."""
    seed: int = 0
    """Draws samples of inputs and outputs."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, …"""
    json: Path | None = None
    """Also write every number to this file."""
    plugin: tuple[Path, ...] = ()
    """Python files of your own that register tasks, inputs, readoffs, …"""

    def __post_init__(self) -> None:
        from toymodels.core.layers import ACTIVATIONS
        from toymodels.core.readoffs import READOFFS

        conform(self)
        load_plugins(self.plugin)
        check_choice(ACTIVATIONS, activation=self.activation)
        check_different("readoff", [READOFFS.canonical(name) for name in self.readoffs], readoffs=self.readoffs)
        check_whole(1, minimax_pairs=self.minimax_pairs, eval_inputs=self.eval_inputs)
        check_whole(0, seed=self.seed)
        if self.json is not None:
            check_writable(self.json)
            if self.file.resolve() in (self.json.resolve(), self.json.resolve().parent):
                raise InputError(
                    f"json = {self.json} is the network, or in its folder, and would replace it: name another file"
                )


def measure(config: EvaluateConfig) -> str:
    """Measure the network with each readoff; return its description and a table."""
    from toymodels.core.features import make_features
    from toymodels.core.minimax import check_minimax
    from toymodels.core.readoffs import READOFFS
    from toymodels.ground_truth.read import read_network
    from toymodels.runs import text

    check_device(config.device)
    for name in config.readoffs:
        member = READOFFS.named(name)[0]
        needed = [
            key for key, about in member.parameters.items() if about.default is about.empty and key not in member.knobs
        ]
        if not set(needed) <= _OFFERED:
            raise InputError(
                f"the readoff {name} is one of a construction of ours: name trained, minimax, least_squares, …"
            )
    found = read_network(
        config.file, config.task, config.m, config.activation, config.weights, config.biases, config.pairs
    )
    task = found.task
    features = make_features(config.inputs, task.m, config.s, config.values)
    if any(READOFFS.named(name)[0].needs == "every input" for name in config.readoffs):
        check_minimax(features)
    rows = [_row(config, found.network, task, features, name) for name in config.readoffs]
    if config.json is not None:
        write_json(config.json, {"file": str(config.file), "task": task.name, "m": task.m, "rows": rows})
    shown = [{key: value for key, value in row.items() if key != "evaluation"} for row in rows]
    title = f"{config.file}: {found.description}\n{task.name}, {features.name} active"
    legend = text.LEGEND + (text.PROVED if any("proved" in row for row in rows) else "")
    return f"{title}\n\n{text.measured(shown, ('readoff',))}\n\n{legend}"


def _row(config: EvaluateConfig, network: Any, task: Any, features: Any, name: str) -> dict[str, Any]:
    from toymodels.core.evaluation import evaluate
    from toymodels.core.layers import layer_width
    from toymodels.core.network import Network
    from toymodels.core.readoffs import READOFFS, Fitted, as_fitted
    from toymodels.core.seeds import derive_seed

    member, knobs = READOFFS.named(name)
    part = task.sample(config.minimax_pairs, derive_seed(config.seed, "pairs")) if member.sampled else task
    layer, width = network.layer.to(config.device), layer_width(network.layer, task.m)
    chosen = functools.partial(evaluation_inputs, features, part, config.eval_inputs, config.seed, config.device)

    def every() -> Any:
        return features.enumerate(device=config.device) if features.n_inputs < float("inf") else chosen("fit")

    offered = {
        "layer": layer, "task": part, "inputs": Lazy(lambda: chosen("fit")), "every_input": Lazy(every),
        "features": features, "m": task.m, "d": width, "s": max(2, round(config.s)), "seed": config.seed, "width": width,
        "trained_readoff": Fitted(network.readoff),
    }  # fmt: skip
    started = time.perf_counter()
    fitted = as_fitted(member.call(offered, knobs))
    seconds = {"seconds": time.perf_counter() - started} if name != "trained" else {}
    inputs = every() if member.needs == "every input" else chosen()
    target = fitted.task or part
    evaluation = evaluate(Network(layer, fitted.readoff.to(config.device)), target, inputs).to_dict()
    numbers = {**metrics_of(evaluation), "all_pairs": task.n_outputs, **seconds, **fitted.facts}
    return {"readoff": name, **numbers, "evaluation": evaluation}
