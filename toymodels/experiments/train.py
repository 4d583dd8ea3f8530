"""Train one network per seed and measure it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toymodels.experiments.registry import EXPERIMENTS, Result, Row
from toymodels.experiments.registry import run as run_experiment
from toymodels.experiments.settings import NetworkSettings
from toymodels.given import conform
from toymodels.parallel.progress import plan, tell_if_slow
from toymodels.registry import deferred, load_plugins
from toymodels.runs.identity import network_identity
from toymodels.runs.metrics import metric_columns
from toymodels.runs.settings import evaluation_inputs


@dataclass(frozen=True)
class TrainConfig(NetworkSettings):
    """Train a network on one task, for each seed, and measure its errors.

    The same command again continues a stopped or killed run, or shows a finished one.
    """

    task: str = "and"
    """Gate on every pair: and, xor, or, nand, … by name, or a truth table for the cases 00, 01, 10, 11 (0001 is AND); and_of(k=3)
    and other gates of k inputs; relu, product, …; or your own."""
    train_first: bool = True
    """Train the first layer; otherwise it stays frozen and only the readoff learns."""

    def __post_init__(self) -> None:
        from toymodels.core.tasks import task_name

        conform(self)
        load_plugins(self.plugin)  # before the names below are looked up
        object.__setattr__(self, "task", task_name(self.task))
        super().__post_init__()

    def task_names(self) -> tuple[str, ...]:
        """Return the name of the task."""
        return (self.task,)


def train_seed(
    config: TrainConfig,
    seed: int,
    folder: Path,
    report: Callable[..., None] = lambda progress: None,
    position: int = 0,
) -> Row:
    """Train and measure one seed; return its row, from the record if it is finished."""
    from toymodels.core.evaluation import evaluate
    from toymodels.experiments.build import first_layer, row_of, train_network
    from toymodels.runs.record import read_row, write_row

    folder, run = folder / f"seed-{seed}", network_identity(config, seed)
    if (folder / "result.json").exists():
        return read_row(folder / "result.json", run, {"task": config.task, "seed": seed, "readoff": "trained"})
    task = config.make_task(config.task, seed)
    plan(step=1)
    purpose = "trained layer" if config.train_first else "frozen layer"
    layer = first_layer(config, config.layer, task, seed, purpose).requires_grad_(config.train_first)
    network, facts = train_network(config, task, layer, seed, folder, f"{task.name} seed {seed}", position, report)
    with tell_if_slow(f"{task.name} seed {seed}: measuring errors"):
        inputs = evaluation_inputs(config.features(), task, config.eval_inputs, seed, config.device)
        evaluation = evaluate(network, task, inputs, tolerances=config.tolerances or ()).to_dict()
    name = "trained" if config.train_first else config.layer
    row = row_of(config, task, name, "trained", seed, facts, evaluation)
    write_row(folder / "result.json", run, row)
    return row


def _summary(content: dict[str, Any]) -> dict[str, Any]:
    """Return means over seeds, and the numbers of each seed as "seed-SEED"."""
    names = [name for name in metric_columns(content["rows"]) if name != "seconds"]
    rows = {row["seed"]: {name: row[name] for name in names} for row in content["rows"]}
    means: dict[str, Any] = {name: sum(row[name] for row in rows.values()) / len(rows) for name in names}
    return means | {f"seed-{seed}": row for seed, row in rows.items()}


def _summary_names(config: TrainConfig) -> Sequence[str]:
    from toymodels.experiments.genericity import metric_names

    names = [name for name in metric_names(config.make_task(config.task), config.tolerances) if name != "seconds"]
    return names + [f"seed-{seed}.{name}" for seed in config.seeds for name in names]


@EXPERIMENTS(
    "train", order=1, config=TrainConfig, check=deferred("experiments.build", "check_run"), summary=_summary,
    summary_names=_summary_names, seconds=deferred("experiments.times", "of_training"), one_history=True,
)  # fmt: skip
def train(config: TrainConfig, folder: Path, report: Callable[..., None]) -> Result:
    """Train a network on one task, for each seed, and measure its errors."""
    from toymodels.parallel.processes import run_jobs

    if len(config.seeds) == 1:
        rows = run_jobs(train_seed, [(config, config.seeds[0], folder, report)], config.threads)
    else:
        rows = run_jobs(train_seed, [(config, seed, folder) for seed in config.seeds], config.threads)
    return Result([{key: value for key, value in row.items() if key != "evaluation"} for row in rows])


def run_train(config: TrainConfig) -> Path:
    """Do or continue the run; return the folder of its record (see `experiments.registry.run`)."""
    return run_experiment("train", config)
