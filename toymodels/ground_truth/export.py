"""Write a network of a run, with its task and its inputs, into a folder for methods of other people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from toymodels.errors import InputError
from toymodels.given import conform
from toymodels.registry import load_plugins


@dataclass(frozen=True)
class ExportConfig:
    """Write a network of a run into a folder: config.json and model.safetensors, with its task and how its inputs are drawn."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run, or one of its network files (.safetensors)."""
    folder: tyro.conf.Positional[Path]
    """The new folder."""
    network: str | None = None
    """Which network of the run, by its path in the folder, such as and-seed-0/gaussian-minimax.safetensors; default the only
    one."""
    plugin: tuple[Path, ...] = ()
    """Python files of your own that define its task or activation."""

    def __post_init__(self) -> None:
        conform(self)
        load_plugins(self.plugin)


def export(config: ExportConfig) -> str:
    """Write the folder; return a sentence that says what it holds.

    Raises InputError for a folder without a run, or if the run has several networks and none is named.
    """
    from toymodels.ground_truth.folder import save_pretrained
    from toymodels.runs.record import load_config, load_network, load_saved_plugins
    from toymodels.runs.text import render

    path = config.run
    if path.suffix == ".safetensors" and not path.is_dir():
        if config.network is not None:
            raise InputError(f"{path} is a network already: leave --network out")
        load_network(path)  # says what is wrong with a file that is missing, or is of no run
        folder = next((parent for parent in path.absolute().parents if (parent / "config.json").exists()), path.parent)
    else:
        folder = path
    saved = load_config(folder)
    load_saved_plugins(folder, saved)
    if folder == path:
        path = _chosen(folder, config.network)
    network, task, _ = load_network(path)
    drawn = {name: saved.config[name] for name in ("inputs", "s", "values")}
    made = save_pretrained(network, config.folder, task, _exact(drawn, task.m))
    rows = [(file.name, f"{file.stat().st_size:,} bytes") for file in sorted(made.iterdir())]
    return f"{render(('file', 'size'), rows, right=(1,))}\n\nfolder: {made} ({task.name} of {task.m} features, from {path})"


def _exact(drawn: dict[str, Any], m: int) -> Any:
    """Return features that describe themselves where there are such, which later versions can draw in the same way."""
    from toymodels.core.features import SparseFeatures, make_features

    features = make_features(drawn["inputs"], m, drawn["s"], drawn["values"])
    return features if isinstance(features, SparseFeatures) else drawn


def _chosen(folder: Path, name: str | None) -> Path:
    """Return the network of a run that is named, or its only one."""
    there = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*.safetensors"))}
    if not there:
        raise InputError(f"{folder} holds no network: the run did not get that far, or keeps none")
    if name is None and len(there) == 1:
        return next(iter(there.values()))
    if name is None or name not in there:
        unknown = f"{folder} holds no network {name!r}" if name is not None else f"{folder} holds {len(there)} networks"
        shown = ", ".join(list(there)[:8]) + (", …" if len(there) > 8 else "")
        raise InputError(f"{unknown}: name one in --network, such as {shown}")
    return there[name]
