"""The record of a run: a folder from which the network can be rebuilt and its evaluation repeated.

config.json        format, kind and configuration
environment.json   versions, commit, machine's cores
results.json       written last: its presence says that the run is finished
…/metrics.jsonl    one line per reported step
…/*.safetensors    networks: weights, and in the header what they are
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from toymodels.runs.config import identity, identity_of, short_hash, to_dict
from toymodels.errors import InputError
from toymodels.core.layers import LAYERS, Embedded, FirstLayer, IdentityLayer, inner
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.runs.storage import check_writable, read_json, write_atomically, write_json
from toymodels.core.tasks import PairTask
from toymodels.core.training import Progress

FORMAT = 1
"""Version of the record's layout; a record of another version is refused, not guessed at."""


LOCK = ".lock"
"""File by which a process that works in a folder keeps others out."""


def open_record(kind: str, config: Any, folder: Path | None) -> Path:
    """Make the folder of a run, or find it again if it holds the same run.

    Raises InputError, before anything is written, if the folder holds something else.
    """
    folder = folder or Path("runs") / run_name(kind, config)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the record")
    if (folder / "config.json").exists():
        there = load_config(folder)
        if there["kind"] != kind or identity_of(there["config"]) != identity(config):
            raise InputError(
                f"the folder {folder} holds another run ({_difference(there, kind, config)}): name another folder or delete it"
            )
    elif folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        # hidden files are ours: a lock, or a file that a killed process was writing
        raise InputError(f"the folder {folder} is not empty and holds no run: name another folder")
    else:
        check_writable(folder / "config.json")
        write_json(folder / "config.json", {"format": FORMAT, "kind": kind, "config": to_dict(config)})
    if not (folder / "environment.json").exists():  # a process killed in between left it out
        write_json(folder / "environment.json", environment())
    return folder


def run_name(kind: str, config: Any) -> str:
    """The name of a run's folder: the same for the same configuration, and for no other."""
    return f"{kind}-m{config.m}-d{config.d}-{short_hash(config)}"


def _difference(there: dict[str, Any], kind: str, config: Any) -> str:
    if there["kind"] != kind:
        return f"a {there['kind']}, not a {kind}"
    new, old = identity(config), identity_of(there["config"])
    key = next(key for key in {**new, **old} if new.get(key) != old.get(key))
    return f"{key} is {old.get(key)} there and {new.get(key)} here"


def load_config(folder: Path) -> dict[str, Any]:
    """{"format", "kind", "config"} of a record. Raises InputError if it is missing, damaged or of another version."""
    content = read_json(folder / "config.json", ("format",))
    version = content["format"]
    if version != FORMAT:
        raise InputError(
            f"{folder} was written in format {version}, this version reads format {FORMAT}: repeat the run"
        )
    return read_json(folder / "config.json", ("kind", "config"))


def environment() -> dict[str, Any]:
    """What a run ran on."""
    names = ("torch", "numpy", "scipy", "highspy", "toymodels")
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in names},
        "commit": commit(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }


def commit() -> str | None:
    """The commit of this package's own checkout, marked where files differ from it; None without git or a checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # installed inside somebody else's checkout: not ours
        return git("rev-parse", "HEAD") + ("-modified" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


class Busy(InputError):  # noqa: N818
    """Another process is at work in the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder. Raises Busy if one is at work in it; a killed one is not."""
    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout:
        raise Busy(f"another process is at work in {folder}: wait for it, or name another folder") from None


class Metrics:
    """metrics.jsonl: one line per report; its length is kept in the checkpoint, so that a resumed run repeats no line."""

    def __init__(self, path: Path):
        """Starts empty; `restore` goes on where a checkpoint left off instead."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._path = path
        self._lines: list[str] = []
        self._length = 0

    def add(self, progress: Progress) -> None:
        """Append a line (kept in memory until the next `flush`)."""
        self._lines.append(json.dumps(asdict(progress)) + "\n")

    def flush(self) -> dict[str, Any]:
        """Write what there is; returns what a checkpoint keeps of this file."""
        with open(self._path, "rb+") as file:
            file.seek(self._length)
            file.write("".join(self._lines).encode())
            file.truncate()
            self._length = file.tell()
            file.flush()
            os.fsync(file.fileno())
        self._lines.clear()
        return {"metrics_bytes": self._length}

    def restore(self, kept: dict[str, Any]) -> None:
        """Forget what was written after the checkpoint."""
        self._length = min(kept["metrics_bytes"], self._path.stat().st_size)


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file; a last line cut off by a kill is left out."""
    if path.exists():
        for text in path.read_text(errors="replace").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                return
            if not isinstance(line, dict) or not line.keys() >= {"step", "p", "loss", "worst_error"}:
                return
            yield line


def save_network(path: Path, network: Network, task: PairTask, extra: dict[str, Tensor] | None = None) -> None:
    """Weights of a network on a gate over pairs, with all that `load_network` needs to rebuild it."""
    layer, readoff = inner(network.layer), network.readoff
    about = {"format": str(FORMAT), "gate": task.gate.name, "m": str(task.m), "layer": type(layer).__name__}
    if isinstance(layer, FirstLayer):
        about |= {"activation": layer.activation, "law": layer.law, "scale": repr(layer.scale)}
    elif not isinstance(layer, IdentityLayer):
        about |= {"law": str(getattr(layer, "law", "")), "activation": str(getattr(layer, "activation", "relu"))}
    if not isinstance(readoff, LinearReadoff):
        raise InputError("only linear readoffs are stored: give the readoff as a LinearReadoff")
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    tensors["pairs"] = task.pairs
    for name, value in (extra or {}).items():
        tensors[f"extra.{name}"] = value.cpu().contiguous()
    write_atomically(path, lambda temporary: save_file(tensors, str(temporary), about))


def load_network(path: Path | str) -> tuple[Network, PairTask, dict[str, Tensor]]:
    """(network, task, extra tensors) of a file written by `save_network`.

    A layer of your own is rebuilt by its `law`, looked up in `LAYERS`.
    Raises InputError for a file that is missing, truncated, of another version, or whose layer is unknown.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} is missing: the run did not get that far, repeat its command to go on")
    try:
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is truncated or damaged ({error}): delete the run's folder and repeat the run"
        ) from None
    if about.get("format") != str(FORMAT):
        raise InputError(
            f"{path} is of format {about.get('format')}, this version reads format {FORMAT}: repeat the run"
        )
    extra = {name.removeprefix("extra."): tensors.pop(name) for name in list(tensors) if name.startswith("extra.")}
    task = PairTask(int(about["m"]), about["gate"], tensors.pop("pairs"))
    readoff = LinearReadoff(tensors.pop("readoff.weight"), tensors.pop("readoff.bias"))
    weights = {name.removeprefix("layer."): value for name, value in tensors.items()}
    frame = weights.pop("frame", None)
    if frame is not None:  # the rest is the layer behind it
        weights = {name.removeprefix("layer."): value for name, value in weights.items()}
    seen = task.m if frame is None else len(frame)
    layer: nn.Module
    if about["layer"] == "FirstLayer":
        layer = FirstLayer(weights["weight"], weights["bias"], about["activation"], about["law"], float(about["scale"]))
    elif about["layer"] == "IdentityLayer":
        layer = IdentityLayer(seen)
    elif about["law"] in LAYERS:
        layer = LAYERS[about["law"]](seen, readoff.weight.shape[1], 0, about["activation"])
        layer.load_state_dict(weights)
    else:
        raise InputError(
            f"{path} holds a layer {about['layer']} of law {about['law']!r}, which LAYERS does not know: add it first"
        )
    return Network(layer if frame is None else Embedded(frame, layer), readoff), task, extra
