"""The kinds of runs that a sweep can be made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toymodels.errors import InputError
from toymodels.experiments import compare, genericity, train
from toymodels.experiments.bench import FIGURES
from toymodels.experiments.settings import NetworkSettings


@dataclass(frozen=True)
class Kind:
    """One kind of run."""

    config: type[NetworkSettings]
    run: Callable[[Any], Path]
    """Does the run of a configuration, or goes on with it; returns its folder."""
    summary: Callable[[dict[str, Any]], dict[str, Any]]
    """The figures by which runs are compared, from the content of results.json."""
    needs: tuple[str, ...]
    """The keys of results.json."""
    figures: Callable[[Any], Sequence[str]]
    """The names of the figures in the summary of a configuration's run, nested ones with dots."""


def _of_train(config: train.TrainConfig) -> list[str]:
    names = [name for name in FIGURES if name != "seconds"]
    return names + [f"seed-{seed}.{name}" for seed in config.seeds for name in names]


def _of_compare(config: compare.CompareConfig) -> list[str]:
    names = []
    for gate in config.task:
        task = config.make_task(gate)
        for layer in config.rows():
            for readoff in config.readoffs_of(layer, task):
                names += [f"{task.name}/{layer}/{readoff}.{figure}" for figure in FIGURES]
        if "minimax" in config.readoffs and {config.frozen_layer, "trained"} <= set(config.rows()):
            names.append(f"genericity.{task.name}")
    return names


KINDS: dict[str, Kind] = {
    "compare": Kind(
        compare.CompareConfig, compare.run_compare, genericity.summary, ("rows", "genericity"), _of_compare
    ),
    "train": Kind(train.TrainConfig, train.run_train, train.summary, ("seeds",), _of_train),
}
"""By name, as in the record, on the command line and in a sweep file's command."""


def kind_of(name: str) -> Kind:
    """Raises InputError for an unknown name."""
    if name not in KINDS:
        raise InputError(f"unknown kind of run {name!r}: choose one of {', '.join(KINDS)}")
    return KINDS[name]
