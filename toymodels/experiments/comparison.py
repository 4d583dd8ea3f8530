"""Make the rows of a comparison for one task and seed, and the notes below its tables."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from toymodels.core.layers import LAYERS
from toymodels.core.readoffs import READOFFS
from toymodels.core.seeds import derive_seed
from toymodels.experiments.build import first_layer
from toymodels.experiments.compare import CompareConfig
from toymodels.experiments.registry import Row
from toymodels.experiments.rows import RowMaker
from toymodels.registry import Member


def compare_one(config: CompareConfig, task_name: str, seed: int, folder: Path, position: int = 0) -> list[Row]:
    """Make all rows of one task and one seed."""
    task = config.make_task(task_name, seed)
    sample = task.sample(config.minimax_pairs, derive_seed(seed, "pairs"))
    maker = RowMaker(config, task, sample, seed, folder / f"{task.name}-seed-{seed}", position)
    rows = [(name, readoff) for name in config.rows() for readoff in config.readoffs_of(name, task)]
    maker.plan(rows)
    return [maker.row(name, readoff) for name, readoff in rows]


def notes(config: CompareConfig) -> list[str]:
    """Write notes for readers of the table of this configuration."""
    tasks = config.tasks()
    frozen = [name for name in config.rows() if LAYERS.named(name)[0].role not in ("none", "trained")]
    fitting = [(name, task) for name in frozen for task in tasks if LAYERS.named(name)[0].fits(task)]
    offered = {
        "s": config.active,
        "inputs": config.inputs,
        "tasks": tasks,
        "combinations": [config.combination(name, task) for name, task in fitting],
        "embedded": config.d0 is not None,
    }
    lines: list[str] = []
    chosen = None if config.readoffs is None else {READOFFS.named(readoff)[0].name for readoff in config.readoffs}
    for name, member in READOFFS.items():
        if (member.default if chosen is None else name in chosen) and member.note is not None and frozen:
            lines += Member(name=name, function=member.note).call(offered).split("\n\n")
    lines += _built(config, frozen)
    roles = {LAYERS.named(name)[0].role for name in config.rows()}
    minimax = "minimax" in (config.readoffs or ("minimax",))
    if minimax and "trained" in roles and config.frozen_layer not in config.rows():
        lines.append(f"No ratio of genericity: the frozen layer, {config.frozen_layer}, is not among layers.")
    lines += [f"The construction {name} is left out: {why}." for name, why in config.left_out().items() if why]
    if config.features().n_inputs == float("inf"):
        lines.append(
            f"Inputs have real values: errors and minimax readoffs are those of samples of {config.eval_inputs:,} inputs. A "
            "minimax readoff is the best one on its sample; no readoff has a worst error below its lower bound over all inputs."
        )
    return [line for line in lines if line]


def _built(config: CompareConfig, names: list[str]) -> list[str]:
    """List the knobs that constructions have chosen themselves, and constructions that are the same layer."""
    lines: list[str] = []
    seen: dict[str, nn.Module] = {}
    for task in config.tasks():
        for name in names:
            member, knobs = LAYERS.named(name, config.knobs)
            if member.role != "construction" or not member.fits(task):
                continue
            layer = first_layer(config, name, task, 0)
            equal = next((known for known, drawn in seen.items() if known != name and _equal(drawn, layer)), None)
            if equal is not None:
                lines.append(f"For U-{task.name.upper()}, {name} is the same layer as {equal}.")
            else:
                seen[name] = layer
            chosen = member.aside(member.chosen, config.offered(member, task, 0), knobs) or {}
            lines += [
                f"{name}: {knob} = {value:.3g}, the best one for AND at exactly {config.active} active."
                for knob, value in chosen.items()
            ]
    return list(dict.fromkeys(lines))


def _equal(*layers: nn.Module) -> bool:
    """Whether two layers have the same activation and the same weights."""
    first, second = (layer.state_dict() for layer in layers)
    same = len({getattr(layer, "activation", None) for layer in layers}) == 1 and first.keys() == second.keys()
    return same and all(torch.equal(first[key], second[key]) for key in first)
