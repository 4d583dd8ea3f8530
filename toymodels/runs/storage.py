"""Files that are whole or absent: everything is written beside its place and then moved there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from toymodels.errors import InputError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary neighbour of `path`, then move it into place; a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raises InputError, before any work, for a file that could not be written at its end."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{path} cannot be written: name a file in a folder that can be")


def write_json(path: Path, content: Any) -> None:
    """Strict JSON (no NaN), indented, written atomically."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


def read_json(path: Path, keys: Sequence[str] = ()) -> Any:
    """A JSON file, which must be an object with these keys. Raises InputError if it is missing, not whole or not that."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing: this is not the folder of a run, or the run did not get that far"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is truncated or damaged ({error}): delete the run's folder and repeat the run"
        ) from None
    if keys and not (isinstance(content, dict) and content.keys() >= set(keys)):
        raise InputError(f"{path} is damaged (it lacks {', '.join(keys)}): delete the run's folder and repeat the run")
    return content


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Tensors, numbers and plain containers only: it is read back without unpickling code."""
    write_atomically(path, lambda temporary: torch.save(state, temporary))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Raises InputError for a checkpoint that cannot be read."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise InputError(
            f"the checkpoint {path} cannot be read ({type(error).__name__}): delete it to start over"
        ) from None
    return state
