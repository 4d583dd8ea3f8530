"""Diagnose the network of a run or of a file: print verdict, reasons and measures; write them and the page into a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from toymodels.errors import InputError, NoEffectError, check_whole
from toymodels.given import conform
from toymodels.registry import load_plugins


@dataclass(frozen=True)
class DiagnoseConfig:
    """Say how a network computes real-valued features or gates: naive, linear copy, sparse or dense code, mixed, undecided."""

    source: tyro.conf.Positional[Path]
    """Folder of a run (train, or compare with a trained layer) or of `save_pretrained`, or a file of weights (.pt,
    .safetensors)."""
    task: str | None = None
    """What the network computes: relu, abs, square or copy, "relu(mixing=symmetric, sigma=0.02)", or a gate of all pairs such as
    and; a run knows its own."""
    matrix: Path | None = None
    """File with the mixing matrix M of the task (one matrix, .pt or .safetensors), if the network was trained with one."""
    m: int | None = None
    """Number of features; default as the shapes say."""
    s: int | float | None = None
    """Active features of the inputs it is judged on: expected (independent) or exact number; default 2. Folders know theirs."""
    inputs: str | None = None
    """Which inputs occur; default independent, for gates at_most. Folders know theirs."""
    values: str | None = None
    """Values of active features; default symmetric, for gates one. Folders know theirs."""
    weights: tuple[str, ...] = ()
    """Names of the two weights in the file, from the inputs on; default: found by their shapes."""
    biases: tuple[str, ...] = ()
    """Names of their biases ("none": no bias)."""
    seed: int = 0
    """Seed of the run's network, and of the sample."""
    eval_inputs: int = 50_000
    """Inputs of the sample, 100 or more; for gates all inputs, if there are no more."""
    out: Path | None = None
    """Folder of diagnosis.json and diagnosis.html; default: nothing is written."""
    plugin: tuple[Path, ...] = ()
    """Python files of your own that register tasks, inputs, …"""

    def __post_init__(self) -> None:
        from toymodels.runs.storage import check_writable

        conform(self)
        load_plugins(self.plugin)
        check_whole(0, seed=self.seed)
        check_whole(100, eval_inputs=self.eval_inputs)
        if self.out is not None:
            check_writable(self.out / "diagnosis.json")


def run_diagnose(config: DiagnoseConfig) -> str:
    """Do the command; return the text to print."""
    from toymodels.core.features import make_features
    from toymodels.core.tasks import PairTask
    from toymodels.diagnosis.page import page, written
    from toymodels.diagnosis.verdict import diagnose
    from toymodels.ground_truth.folder import from_pretrained
    from toymodels.runs import text
    from toymodels.runs.storage import write_json, write_text

    whole = (config.source / "model.safetensors").is_file()  # of save_pretrained
    network, task, name, features = (_of_run if config.source.is_dir() and not whole else _of_file)(config)
    given = [name for name in ("inputs", "s", "values") if getattr(config, name) is not None]
    if whole and not given:
        features = from_pretrained(config.source).features
    elif whole and len(given) < 3:
        raise InputError(
            f"{config.source} knows its own inputs: leave --{given[0]} out, or name all of --inputs, --s and --values for others"
        )
    if features is None:
        s = 2 if config.s is None else config.s
        usual = ("at_most", "one") if isinstance(task, PairTask) else ("independent", "symmetric")
        features = make_features(config.inputs or usual[0], task.m, s, config.values or usual[1])
    found = diagnose(network, task, features, config.eval_inputs, config.seed)
    files: list[Path] = []
    if config.out is not None:
        config.out.mkdir(parents=True, exist_ok=True)
        files = [config.out / "diagnosis.json", config.out / "diagnosis.html"]
        write_json(files[0], {"source": name, "features": features.name, **found.to_dict()})
        write_text(files[1], page(found, name))
    rows = [(row["name"], written(row["value"]), row["what"].removeprefix("Compute ")) for row in found.measures]
    table = text.render(("measure", "value", "what it is"), rows, right=(1,))
    reasons = "\n".join(f"- {reason}" for reason in found.reasons)
    about = f"{name}: {found.subject.n} features, {found.subject.d} neurons, {task.name}, {features.name} active"
    parts = [f"{found.verdict}\n{about}", reasons, table, *(["\n".join(map(str, files))] if files else [])]
    return "\n\n".join(parts)


def _of_file(config: DiagnoseConfig) -> tuple[Any, Any, str, Any]:
    """Read a network and its task from a file of weights or a folder of `save_pretrained`."""
    from toymodels.ground_truth.read import read_network

    read = read_network(config.source, config.task, config.m, weights=config.weights, biases=config.biases)
    return read.network, _with_matrix(config, read.task), config.source.name, None


def _of_run(config: DiagnoseConfig) -> tuple[Any, Any, str, Any]:
    """Read the trained network of a run, with its task and its inputs."""
    from toymodels.core.features import make_features
    from toymodels.figures.networks import trained_networks
    from toymodels.runs.record import load_config, load_network, load_saved_plugins

    own = ("m", "weights", "biases", "matrix", "s", "inputs", "values")
    given = [name for name in own if getattr(config, name) not in (None, ())]
    if given:
        raise NoEffectError(f"{config.source} is a run and knows its own {given[0]}: leave it out")
    saved = load_config(config.source)
    load_saved_plugins(config.source, saved)
    files = trained_networks(config.source, config.seed)
    if config.task is not None:
        files = {name: path for name, path in files.items() if name == config.task}
    if len(files) != 1:
        has = f"its networks are {', '.join(files)}: name one in --task" if files else "it has none that fits"
        raise InputError(f"{config.source} holds {len(files)} trained networks for seed {config.seed}: {has}")
    ((name, path),) = files.items()
    network, task, _ = load_network(path)
    settings = saved.config
    features = make_features(settings["inputs"], task.m, settings["s"], settings["values"])
    return network, task, f"{config.source.name} ({name}, seed {config.seed})", features


def _with_matrix(config: DiagnoseConfig, task: Any) -> Any:
    """Give the task the mixing matrix of a file, if one is named."""
    if config.matrix is None:
        return task
    from toymodels.compressed.measures import check_pointwise
    from toymodels.runs.elsewhere import read_weights
    from toymodels.tasks.pointwise import PointwiseTask

    pointwise = check_pointwise(task)
    matrices = [tensor for tensor in read_weights(config.matrix).values() if tensor.ndim == 2]
    if len(matrices) != 1 or not matrices[0].is_floating_point():
        raise InputError(f"{config.matrix} holds {len(matrices)} matrices: it must hold M alone, of real numbers")
    if pointwise.mixing is not None:
        raise InputError(
            f"the task {task.name} draws a mixing matrix of its own: name the task without mixing, or no matrix"
        )
    return PointwiseTask(task.m, pointwise.function, pointwise.name, matrices[0])
