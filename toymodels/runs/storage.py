"""Atomic writes: write a temporary file, then rename it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from toymodels.errors import InputError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary file beside `path`, then rename it, so that a reader never sees half a file."""
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
    """Raise InputError, before any work, for a file that could not be written after it."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{path} cannot be written: name a file in a folder that can be")


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON (no NaN), indented, atomically."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


def read_json(path: Path, keys: Sequence[str] = ()) -> Any:
    """Read a JSON file, which must be an object with these keys. Raises InputError if it is missing, damaged or lacks them."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing: this is not the folder of a run, or the run did not get that far"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise damaged(path, str(error), "truncated or damaged") from None
    if keys and not (isinstance(content, dict) and content.keys() >= set(keys)):
        raise damaged(path, f"it lacks {', '.join(keys)}")
    return content


def damaged(path: Path, reason: str, state: str = "damaged") -> InputError:
    """Return the InputError for a file of a record that cannot be used."""
    return InputError(f"{path} is {state} ({reason}): delete the run's folder and repeat the run")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors, numbers and plain containers only, which can be read without unpickling code."""
    write_atomically(path, lambda temporary: torch.save(state, temporary))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Raises InputError for one that cannot be read."""
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        raise InputError(
            f"the checkpoint {path} cannot be read ({type(error).__name__}): delete it to start over"
        ) from None
    return state
