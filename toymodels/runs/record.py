"""Keep the record of a run: a folder from which its networks can be rebuilt and its evaluation repeated.

config.json        format, kind and configuration, and the digests of the plugins' code
plugins/           a copy of each plugin
environment.json   a list: when each session began, versions, commit, number of cores
results.json       written last: a run that has it is finished
wandb.json         W&B's id of the run, if it is mirrored there
…/metrics.jsonl    one line per reported step
…/*.safetensors    networks: weights, and a description in the header
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from toymodels.core.layers import LAYERS, Embedded, FirstLayer, IdentityLayer, apply, layer_width, make_layer, unwrap
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import Task, make_task
from toymodels.core.training import Progress
from toymodels.errors import InputError, notice
from toymodels.registry import load_plugins, parse_call, plugin_digest
from toymodels.runs.elsewhere import read_weights
from toymodels.runs.identity import difference, from_dict, identity, plugin_code, short_hash, to_dict, upgraded
from toymodels.runs.metrics import metrics_of, wrong_value
from toymodels.runs.storage import (
    cannot_read,
    cannot_write,
    check_writable,
    damaged,
    read_json,
    read_tensors,
    write_atomically,
    write_json,
    write_results,
    writing,
)

FORMAT = 2
"""Version of the record's layout; a record of an unknown version is refused."""
OLD_FORMAT = 1
"""The version before, whose finished runs and networks are still read."""

LOCK = ".lock"
"""Lock file of the process that works in a folder."""


def open_record(kind: str, config: Any, folder: Path | None) -> Path:
    """Make the folder of a run, or open it again if it holds the same run, or the same with fewer seeds.

    Seeds that are added keep what is there. A folder without a name of its own takes over the seeds of the same run with the
    first ones alone. Raises InputError, before anything is written, if the folder holds something else.
    """
    fewer = None if folder else _with_fewer_seeds(kind, config)
    folder = folder or Path("runs") / run_name(kind, config)
    try:
        there = folder.exists()
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise InputError(
            f"{folder} cannot be the folder of a run ({os.strerror(error.errno or 0)}): name another"
        ) from None
    if there and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the record")
    if "config.json" in names:
        saved = load_config(folder)
        other = _difference(folder, saved, kind, config)
        if other and saved.format == FORMAT and _adds_seeds(folder, saved, kind, config):
            with locked(folder):
                (folder / "results.json").unlink(missing_ok=True)  # first: a run with more seeds is not finished
                _write_config(folder, kind, config)
        elif other:
            raise InputError(f"the folder {folder} holds another run ({other}): name another folder or delete it")
        if saved.format != FORMAT and not (folder / "results.json").exists():
            raise InputError(
                f"the unfinished run in {folder} was begun by an earlier version, whose checkpoints this one does not read: "
                "delete it and repeat the run"
            )
    elif any(not name.startswith(".") for name in names):
        # hidden files are ours: a lock, or a file that a killed process was writing
        raise InputError(f"the folder {folder} is not empty and holds no run: name another folder")
    else:
        check_writable(folder / "config.json")
        _write_config(folder, kind, config)
    if fewer is not None and not (folder / "results.json").exists():  # also again, if a process was killed meanwhile
        with suppress(Busy), locked(folder), locked(fewer):
            _take_over(fewer, folder)
    # These may be missing if a process was killed before it wrote them, or changed since.
    for plugin, digest in zip(config.plugin, plugin_code(config), strict=True):
        if not _holds(_copy(folder, plugin, digest), digest):
            write_atomically(_copy(folder, plugin, digest), functools.partial(shutil.copyfile, plugin))
    return folder


def _write_config(folder: Path, kind: str, config: Any) -> None:
    content = {"format": FORMAT, "kind": kind, "config": _published(config), "plugin_code": plugin_code(config)}
    write_json(folder / "config.json", content)


def _adds_seeds(folder: Path, saved: Saved, kind: str, config: Any) -> bool:
    """Whether a run is that of a record with further seeds."""
    more = set(saved.config.get("seeds", ())) < set(config.seeds)
    return more and not _difference(
        folder, saved, kind, dataclasses.replace(config, seeds=tuple(saved.config["seeds"]))
    )


def _with_fewer_seeds(kind: str, config: Any) -> Path | None:
    """Return the folder in runs/ of this run with the first of its seeds alone, as many as there are; None if there is none."""
    for count in range(len(config.seeds) - 1, 0, -1):
        folder = Path("runs") / run_name(kind, dataclasses.replace(config, seeds=config.seeds[:count]))
        if (folder / "config.json").exists():
            return folder
    return None


def _take_over(old: Path, new: Path) -> None:
    """Copy what a record holds of the seeds that the other does not have, each folder at once."""
    for inner in old.glob("*seed-*"):
        if inner.name.startswith("."):  # half a copy in the old one
            continue
        copy = new / f".{inner.name}"
        shutil.rmtree(copy, ignore_errors=True)  # half a copy of a killed process
        if inner.is_dir() and not (new / inner.name).exists():
            with writing(copy):
                shutil.copytree(inner, copy)
                copy.rename(new / inner.name)


def _published(config: Any) -> dict[str, Any]:
    """Return a configuration without the places of this machine: a record may be published."""
    values = {key: value for key, value in to_dict(config).items() if key not in ("out", "json")}
    plugins = [path.name if path.is_absolute() else str(path) for path in config.plugin]
    return {**values, "plugin": plugins} if "plugin" in values else values


def begin_session(folder: Path) -> None:
    """Add this session's environment to those in which the run was begun and continued before."""
    path = folder / "environment.json"
    try:
        sessions = read_sessions(path) if path.exists() else []
    except InputError as error:
        notice(f"{error}; it is begun anew")
        sessions = []
    write_json(path, [*sessions, {"began": datetime.now(UTC).isoformat(timespec="seconds"), **environment()}])


def read_sessions(path: Path) -> list[dict[str, Any]]:
    """Read the environments of a run's sessions; an earlier version wrote only that of the first one."""
    advice = "delete it: no result depends on it"
    content = read_json(path, advice=advice)
    sessions = content if isinstance(content, list) else [content]
    if not sessions or not all(isinstance(item, dict) and isinstance(item.get("packages"), dict) for item in sessions):
        raise damaged(path, "it is no list of environments", advice=advice)
    return sessions


def _copy(folder: Path, plugin: Path, digest: str) -> Path:
    """Return the path of a plugin's copy in a record; plugins of the same name have different digests of their code."""
    return folder / "plugins" / f"{plugin.stem}-{digest[:8]}{plugin.suffix}"


def run_name(kind: str, config: Any) -> str:
    """Return the name of a run's folder: the same for the same configuration, and for no other."""
    return f"{kind}-m{config.m}-d{config.d}-{short_hash(config)}"


@dataclass(frozen=True)
class Saved:
    """The configuration of a record."""

    format: int
    kind: str
    config: dict[str, Any]
    """Settings by name, also those of earlier versions by their present names; plugins by paths that can be read."""
    plugin_code: list[str]


def saved_settings(folder: Path, saved: Saved, kind: type[Any], **changes: Any) -> Any:
    """Make the configuration of a record. Raises InputError, with the file's name, for a value that it cannot have."""
    try:
        return from_dict(kind, {**saved.config, **changes})
    except InputError as error:
        raise InputError(f"{folder / 'config.json'}: {error}") from None


def _difference(folder: Path, saved: Saved, kind: str, config: Any) -> str:
    """Describe how a record differs from a run; "" if it is the same run."""
    if saved.kind != kind:
        return f"a {saved.kind}, not a {kind}"
    if set(saved.plugin_code) != set(plugin_code(config)):
        return "the code of a plugin has changed, or another plugin is named"
    # As a present configuration: settings that did not exist then have their defaults.
    return difference(identity(saved_settings(folder, saved, type(config), plugin=config.plugin)), identity(config))


def load_config(folder: Path) -> Saved:
    """Read the configuration of a record. Raises InputError if it is missing, damaged or of an unknown version."""
    content = read_json(folder / "config.json", ("format",))
    version = content["format"]
    if type(version) is not int or version not in (OLD_FORMAT, FORMAT):
        raise InputError(
            f"{folder} was written in format {version!r}, this version reads formats {OLD_FORMAT} and {FORMAT}: repeat the run"
        )
    content = read_json(folder / "config.json", ("kind", "config"))
    code, settings = content.get("plugin_code", []), content["config"]
    plugins: Any = settings.get("plugin", []) if isinstance(settings, dict) else None
    if not (_texts(plugins) and _texts(code)) or len(plugins) != len(code):
        raise damaged(folder / "config.json", "config or plugin_code is wrong")
    if not isinstance(content["kind"], str) or not content["kind"]:
        raise damaged(folder / "config.json", f"kind is {content['kind']!r}")
    wrong = [f"{name} is {settings.get(name)!r}" for name in ("m", "d") if type(settings.get(name)) is not int]
    if wrong:
        raise damaged(folder / "config.json", wrong[0])
    config = upgraded(content["config"])
    if version == OLD_FORMAT:
        # The old version always wrote these; today they are left out at their defaults.
        config = {k: v for k, v in config.items() if (k, v) not in (("layer_scale", 1.0), ("layer_bias", 0.0))}
    config["plugin"] = [
        str(_readable(folder, Path(path), digest)) for path, digest in zip(config.get("plugin", ()), code, strict=True)
    ]
    return Saved(version, content["kind"], config, code)


def _texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _holds(copy: Path, digest: str) -> bool:
    return copy.is_file() and plugin_digest(copy) == digest


def load_saved_plugins(folder: Path, saved: Saved) -> None:
    """Load the plugins of a record. Raises ChangedCopyError for a copy that was changed, InputError for one that is missing."""
    for path, digest in zip(map(Path, saved.config["plugin"]), saved.plugin_code, strict=True):
        if path.is_file() and not _holds(path, digest):
            raise ChangedCopyError(
                f"{path} was changed, and is not the code that the run in {folder} used: put it back, or repeat the run in "
                "another folder"
            )
    load_plugins(saved.config["plugin"])


def _readable(folder: Path, plugin: Path, digest: str) -> Path:
    """Return the plugin itself if it has not changed, else the record's copy."""
    return plugin if _holds(plugin, digest) else _copy(folder, plugin, digest)


def environment() -> dict[str, Any]:
    """Return versions and machine, for the record."""
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
    """Return the commit of this package's own checkout, marked if files are modified; None without git or a checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails if the package is installed in another checkout
        return git("rev-parse", "HEAD") + ("-modified" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


class ChangedCopyError(InputError):
    """The copy of a plugin in a record is not the code that the run used."""


class Busy(InputError):  # noqa: N818
    """Another process is working in the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder. Raises Busy if one works in it; a lock of a killed one does not count."""
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise Busy(f"another process is at work in {folder}: wait for it, or name another folder") from None
    except OSError as error:
        raise cannot_write(folder / LOCK, error) from error
    try:
        yield
    finally:
        lock.release()


class Metrics:
    """metrics.jsonl: one line per report; its length is kept in the checkpoint, so that a resumed run repeats no line."""

    def __init__(self, path: Path):
        """Start an empty file; `restore` returns to the state of a checkpoint."""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        self._path = path
        self._lines: list[str] = []
        self._length = 0

    def add(self, progress: Progress) -> None:
        """Append a line (kept in memory until the next `flush`)."""
        self._lines.append(json.dumps(vars(progress)) + "\n")  # `asdict` would copy the numbers first

    def flush(self) -> dict[str, Any]:
        """Write all lines; return what a checkpoint keeps of this file."""
        with writing(self._path), open(self._path, "rb+") as file:
            file.seek(self._length)
            file.write("".join(self._lines).encode())
            file.truncate()
            self._length = file.tell()
            file.flush()
            os.fsync(file.fileno())
        self._lines.clear()
        return {"metrics_bytes": self._length}

    def restore(self, kept: dict[str, Any]) -> None:
        """Discard the lines that were written after the checkpoint."""
        self._length = max(0, min(int(kept["metrics_bytes"]), self._path.stat().st_size))


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Read the lines of a metrics file, without a last line that is incomplete after a kill."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    except OSError as error:
        raise cannot_read(path, error) from None
    for text in lines:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(line, dict):
            return
        if not all(isinstance(line.get(name), int | float) for name in ("step", "p", "loss", "worst_error")):
            return
        yield line


def read_row(path: Path, run: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Read a row that `write_row` has written. Raises InputError if it is damaged, or another run's or network's."""
    row = read_own_row(path, run, about, ("evaluation", "worst_error"))
    try:
        wrong = wrong_value(metrics_of(row["evaluation"]))
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        wrong = f"its evaluation lacks {error}"
    if wrong:
        raise damaged(path, wrong, advice=_MEASURE_AGAIN)
    return row


_MEASURE_AGAIN = "delete it, and the same command measures it again"


def read_own_row(
    path: Path, run: Mapping[str, Any], about: Mapping[str, Any], columns: Sequence[str] = ()
) -> dict[str, Any]:
    """Read a row that `write_row` has written, with or without an evaluation, which is not looked at.

    Raises InputError if it is damaged, lacks one of the columns, or is another run's or another network's.
    """
    row: dict[str, Any] = read_json(path, ("seed", *about, *columns), _MEASURE_AGAIN)
    said = row.pop("of", run)
    if not isinstance(said, dict):
        raise damaged(path, "it names no run", advice=_MEASURE_AGAIN)
    other = difference(said, run) or difference({name: row[name] for name in about}, about)
    if other:
        raise InputError(f"{path} is of another run ({other}): {_MEASURE_AGAIN}")
    wrong = wrong_value({**row, "evaluation": None})
    if wrong:
        raise damaged(path, wrong, advice=_MEASURE_AGAIN)
    return row


def write_row(path: Path, run: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """Write a row of results with its evaluation, and the run it is of."""
    write_results(path, {**row, "of": run})


def save_network(
    path: Path,
    network: Network,
    task: Task,
    extra: Mapping[str, Tensor] | None = None,
    run: Mapping[str, Any] | None = None,
) -> None:
    """Write the weights of a network, with everything that `load_network` needs to rebuild it and its task.

    `run` identifies the run that it belongs to (see `identity.network_identity`).
    """
    layer, readoff = unwrap(network.layer), network.readoff
    about = {"format": str(FORMAT), "task": task.name, "m": str(task.m), "layer": type(layer).__name__}
    about |= {name: str(getattr(layer, name, "")) for name in ("activation", "origin", "scale")}
    if run is not None:
        about["run"] = json.dumps(run, sort_keys=True)
    if not isinstance(readoff, LinearReadoff):
        raise InputError("only linear readoffs are stored: give the readoff as a LinearReadoff")
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    tensors |= {f"task.{name}": value.cpu().contiguous() for name, value in task.stored().items()}
    tensors |= {f"extra.{name}": value.cpu().contiguous() for name, value in (extra or {}).items()}
    write_atomically(path, lambda temporary: save_file(tensors, str(temporary), about))


def is_network(path: Path) -> bool:
    """Whether a file says that `save_network` has written it."""
    if not path.is_file():
        return False
    try:
        with safe_open(str(path), "pt") as file:
            return {"format", "layer"} <= (file.metadata() or {}).keys()
    except (SafetensorError, OSError):
        return False


def layer_in_file(path: Path, activation: str = "relu") -> tuple[FirstLayer, Task | None]:
    """Return the layer in a file, in float64: the first of a network that a run has stored, with its task, or weight and bias.

    Raises InputError for a run's layer that is not φ(Wx + b), and a file without weight (d, m) and bias (d), or not finite.
    """
    if is_network(path):
        network, task, _ = load_network(path)
        if not isinstance(network.layer, FirstLayer):
            kind = type(network.layer).__name__
            raise InputError(f"the first layer in {path} is a {kind}: what is wanted is a layer φ(Wx + b)")
        return network.layer.double(), task
    tensors = read_weights(path)
    if not {"weight", "bias"} <= set(tensors):
        raise InputError(f"{path} has the tensors {', '.join(tensors)}: it must have weight (d, m) and bias (d)")
    weight, bias = tensors["weight"].double(), tensors["bias"].double()
    if not bool(weight.isfinite().all() and bias.isfinite().all()):
        raise InputError(f"{path}: weight and bias must be finite, but some numbers are infinite or not a number")
    return FirstLayer(weight, bias, activation), None


def load_network(path: Path | str) -> tuple[Network, Task, dict[str, Tensor]]:
    """Read (network, task, extra tensors) from a file written by `save_network`.

    Tasks, and layers of your own, are made again by their names in `TASKS` and `LAYERS`.
    Raises InputError, which names the file, if it is missing, truncated, of another version, or its parts do not fit together.
    """
    path = Path(path)
    about, tensors = read_tensors(
        path, "the run did not get that far, repeat its command to continue", functools.partial(_no_network, path)
    )
    version = about.get("format")
    if version == str(OLD_FORMAT):
        about |= {"task": about.get("gate", ""), "origin": about.get("law", "")}
        tensors |= {"task.pairs": tensors.pop("pairs")} if "pairs" in tensors else {}
    elif version is not None and version != str(FORMAT):
        raise InputError(
            f"{path} is of format {version}, this version reads formats {OLD_FORMAT} and {FORMAT}: repeat the run"
        )
    try:
        missing = [name for name in ("format", "task", "m", "layer", "origin") if name not in about]
        missing += [f"the tensor {name}" for name in ("readoff.weight", "readoff.bias") if name not in tensors]
        if missing:
            raise InputError(f"it lacks {', '.join(missing)}")
        return _rebuilt(about, tensors, path)
    except InputError as error:
        raise error if str(path) in str(error) else _no_network(path, str(error)) from None
    except Exception as error:  # of the many that a wrong shape, name or number may cause
        reason = str(error).partition("\n")[0]
        raise _no_network(
            path, f"its weights or their description do not fit: {type(error).__name__}: {reason}"
        ) from None


def _no_network(path: Path, reason: str) -> InputError:
    advice = "a network made elsewhere is measured by `toymodels evaluate`; one of a run is made again by its command"
    return InputError(f"{path} is no network of a record ({reason}): {advice}, in another folder")


def _rebuilt(
    about: Mapping[str, str], tensors: dict[str, Tensor], path: Path
) -> tuple[Network, Task, dict[str, Tensor]]:
    """Make the network and its task. Raises InputError, or any other exception, for what does not fit together."""
    extra, stored = _taken(tensors, "extra."), _taken(tensors, "task.")
    m = int(about["m"])
    readoff = LinearReadoff(tensors.pop("readoff.weight"), tensors.pop("readoff.bias"))
    weights = _taken(tensors, "layer.")
    frame = weights.pop("frame", None)
    if frame is not None:  # the other weights are those of the embedded layer
        weights = _taken(weights, "layer.")
    layer = _layer(about, weights, m if frame is None else len(frame), readoff.weight.shape[1], path)
    reads = layer.weight.shape[1] if isinstance(layer, FirstLayer) else readoff.weight.shape[1]
    if frame is None and isinstance(layer, FirstLayer | IdentityLayer) and reads != m:
        raise InputError(f"its first layer reads {reads} features, and m is {m}")
    network = Network(layer if frame is None else Embedded(frame, layer), readoff)
    outputs = apply(network, m, "network").shape[1]
    task = make_task(about["task"], m, stored=stored)
    if outputs != task.n_outputs:
        raise InputError(
            f"it has {outputs} outputs, and its task {task.name} {task.n_outputs}, {task.outputs_in_words}"
        )
    return network, task, extra


def load_own_network(
    path: Path, run: Mapping[str, Any], task: Task, width: int | None = None
) -> tuple[Network, dict[str, Tensor]]:
    """Read (network, extra tensors) of this run from a file. Raises InputError if it holds a network of another run or task."""
    network, found, extra = load_network(path)
    with safe_open(str(path), "pt") as file:
        said = (file.metadata() or {}).get("run")  # files of earlier versions do not say
    try:
        other = "" if said is None else difference(json.loads(said), run)
    except (ValueError, TypeError, AttributeError, RecursionError):
        other = "it names no run"
    d = layer_width(network.layer, found.m)
    other = other or difference(
        {"task": found.name, "m": found.m, "d": d, "outputs": found.n_outputs},
        {"task": task.name, "m": task.m, "d": width or d, "outputs": task.n_outputs},
    )
    there, here = found.stored(), task.stored()
    if not other and (there.keys() != here.keys() or not all(torch.equal(there[name], here[name]) for name in here)):
        other = "it computes other outputs, such as those of other pairs"
    if other:
        raise InputError(f"{path} is a network of another run ({other}): move it away, and give the same command again")
    return network, extra


def _taken(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove the tensors whose names have this prefix, and return them by their names without it."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}


def _layer(about: Mapping[str, str], weights: dict[str, Tensor], m: int, d: int, path: Path) -> nn.Module:
    origin = about["origin"]
    if about["layer"] == FirstLayer.__name__:
        return FirstLayer(weights["weight"], weights["bias"], about["activation"], origin, float(about["scale"]))
    if about["layer"] == IdentityLayer.__name__:
        return IdentityLayer(m)
    name = parse_call(origin)[0]
    if name not in LAYERS:
        unknown = f"a layer {about['layer']} of the name {origin!r}, which is no first layer known here"
        raise InputError(f"{path} holds {unknown}: name the plugin that registers it")
    layer = make_layer(origin, m, d, 0, about["activation"] or "relu")
    layer.load_state_dict(weights)
    return layer
