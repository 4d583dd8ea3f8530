"""What a comparison does for one task and seed, and what its reader should know."""

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
    return [maker.row(name, readoff) for name in config.rows() for readoff in config.readoffs_of(name, task)]


def notes(config: CompareConfig) -> list[str]:
    """Write what a reader of the table should know of this configuration."""
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
    for name, member in READOFFS.items():
        wanted = (
            member.default if config.readoffs is None else name in {READOFFS.named(r)[0].name for r in config.readoffs}
        )
        if wanted and member.note is not None and frozen:
            lines += Member(name=name, function=member.note).call(offered).split("\n\n")
    lines += _built(config, frozen)
    roles = {LAYERS.named(name)[0].role for name in config.rows()}
    if (
        "minimax" in (config.readoffs or ("minimax",))
        and "trained" in roles
        and config.frozen_layer not in config.rows()
    ):
        lines.append(f"No ratio of genericity: the frozen layer, {config.frozen_layer}, is not among layers.")
    lines += [f"The construction {name} is left out: {why}." for name, why in config.left_out().items() if why]
    if config.features().n_inputs == float("inf"):
        lines.append(
            f"Inputs have real values: errors and minimax readoffs are those of samples of {config.eval_inputs:,} inputs. A "
            "minimax readoff is the best one on its sample; no readoff errs by less than its lower bound over all inputs."
        )
    return [line for line in lines if line]


def _built(config: CompareConfig, names: list[str]) -> list[str]:
    """Say what constructions have chosen for themselves, and which of them are one and the same layer here."""
    lines: list[str] = []
    seen: dict[str, nn.Module] = {}
    for task in config.tasks():
        for name in names:
            member, knobs = LAYERS.named(name, config.knobs)
            if member.role != "construction" or not member.fits(task):
                continue
            layer = first_layer(config, name, task, 0)
            twin = next((other for other, known in seen.items() if other != name and _equal(known, layer)), None)
            if twin is not None:
                lines.append(f"For {task.name}, {name} is the same layer as {twin}.")
            else:
                seen[name] = layer
            chosen = member.aside(member.chosen, config.offered(member, task, 0), knobs) or {}
            lines += [
                f"{name}: {knob} = {value:.3g}, the best one for AND at exactly {config.active} active."
                for knob, value in chosen.items()
            ]
    return list(dict.fromkeys(lines))


def _equal(one: nn.Module, other: nn.Module) -> bool:
    """Whether two layers have the same activation and the same weights."""
    states = one.state_dict(), other.state_dict()
    same = (
        getattr(one, "activation", None) == getattr(other, "activation", None) and states[0].keys() == states[1].keys()
    )
    return same and all(torch.equal(states[0][key], states[1][key]) for key in states[0])
