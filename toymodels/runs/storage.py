"""Atomic writes: write a temporary file, then rename it. What a file cannot be written or read for is one sentence."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from safetensors import SafetensorError, safe_open

from toymodels.errors import InputError, WriteError, notice

if TYPE_CHECKING:
    from torch import Tensor

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors that mean: no room for the file."""


_OF_RECORDS = frozenset(
    {"config.json", "environment.json", "results.json", "result.json", "wandb.json", "sweep.json", "suggestions.jsonl"}
    | {"metrics.jsonl", "checkpoint.pt", "network.safetensors"}
)

REPEAT = "delete the run's folder and repeat the run"
"""What to do about a damaged file of a record."""


def cannot_write(path: Path, error: OSError) -> WriteError:
    """Return the error for a file that cannot be written, which says what to do."""
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    advice = "name a file or folder that can be written"
    if number in FULL:
        advice = "make room, and give the same command again: what is finished is kept"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "ask its owner for permission (chmod), or name another folder"
    return WriteError(number, f"{path} cannot be written ({reason}): {advice}")


def cannot_read(path: Path, error: OSError) -> InputError:
    """Return the error for a file that is there but cannot be read. It is not damaged, and must not be deleted."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    advice = "name another file"
    if error.errno in (errno.EACCES, errno.EPERM):
        advice = "ask its owner for permission (chmod)"
    return InputError(f"{path} cannot be read ({reason}): {advice}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk, also one that a library reports in its own way, into a WriteError that names the file."""
    try:
        yield
    except WriteError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            number = re.search(r"\(os error (\d+)\)", str(cause))  # safetensors
            cause = OSError(int(number[1]), "") if number else cause.__context__  # torch
        if cause is None:
            raise
        raise cannot_write(path, cause) from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary file beside `path`, then rename it, so that a reader never sees half a file.

    The file's permissions are those of any new file. Raises WriteError if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()
            permissions = temporary.stat().st_mode & 0o777  # some libraries make files that only their owner can read
            write(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(permissions)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whatever the terminal's encoding is, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="surrogateescape"))


def check_writable(path: Path) -> None:
    """Raise InputError, before any work, for a file that could not be written after it, or is a part of a record."""
    if path.name in _OF_RECORDS and path.is_file():
        raise InputError(f"{path} is a file of a record, which would be lost: name another file")
    try:
        folder = path.parent
        while not folder.exists() and not folder.is_symlink():
            folder = folder.parent
        able = not path.is_dir() and folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
        reason = "" if folder.exists() else f" ({folder} is a link to nothing)"
        reason = " (it is a folder)" if path.is_dir() else reason
    except (OSError, RuntimeError) as error:  # a name that is too long; links in a circle
        able, reason = False, f" ({os.strerror(error.errno)})" if isinstance(error, OSError) and error.errno else ""
    if not able:
        raise InputError(f"{path} cannot be written{reason}: name a file in a folder that can be")


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON (no NaN), indented, atomically; NumPy's and torch's numbers and arrays become plain ones.

    Raises InputError for a number that is not finite.
    """
    try:
        text = json.dumps(content, indent=1, allow_nan=False, default=_plain) + "\n"
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path} cannot be written ({error}): a record holds finite numbers, texts and lists"
        ) from None
    write_text(path, text)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy's and torch's
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no number, text or list")


def write_results(path: Path, content: Any) -> None:
    """Write results as JSON. A number that is not finite becomes null, an empty cell, and a sentence on standard error says so.

    So that nothing that was computed is lost for one number.
    """
    with suppress(InputError):
        return write_json(path, content)
    lost: list[str] = []
    # Each NaN or infinity is read as what `lost.append` returns: None.
    write_json(path, json.loads(json.dumps(content, default=_plain), parse_constant=lost.append))
    if lost:
        notice(f"{path} has {len(lost):,} empty cells: these numbers were infinite or no numbers")


def read_json(path: Path, keys: Sequence[str] = (), advice: str = REPEAT) -> Any:
    """Read a JSON file, which must be an object with these keys. Raises InputError if it is missing, damaged or lacks them."""
    try:
        check_regular(path)
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refused)
    except NotADirectoryError:
        raise InputError(f"{path.parent} is not a folder: name the folder of a run") from None
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing: this is not the folder of a run, or the run did not get that far"
        ) from None
    except OSError as error:
        raise cannot_read(path, error) from None
    except (ValueError, RecursionError) as error:  # also for no text, numbers of 5,000 digits, lists in lists in …
        raise damaged(path, str(error), "truncated or damaged", advice) from None
    if keys and not (isinstance(content, dict) and content.keys() >= set(keys)):
        raise damaged(path, f"it lacks {', '.join(keys)}", advice=advice)
    return content


def check_regular(path: Path) -> None:
    """Raise InputError for a pipe or a device, which would have no end; FileNotFoundError for nothing."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path} cannot be read (it is a pipe or a device): name another file")


def read_tensors(
    path: Path, missing: str, wrong: Callable[[str], InputError]
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read (metadata, tensors) of a safetensors file.

    Raises InputError if it is not there, with the advice `missing`, or cannot be read; and the one that `wrong` makes of a reason
    if it is no such file.
    """
    if not path.exists():
        raise InputError(f"{path} is missing: {missing}")
    try:
        check_regular(path)
        with open(path, "rb"):  # safetensors says "no such file" about one that may not be read
            pass
    except OSError as error:
        raise cannot_read(path, error) from None
    try:
        with safe_open(str(path), "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise wrong(f"it is no safetensors file, or truncated or damaged: {error}") from None


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number that a record holds")


def damaged(path: Path, reason: str, state: str = "damaged", advice: str = REPEAT) -> InputError:
    """Return the InputError for a file of a record that cannot be used."""
    return InputError(f"{path} is {state} ({reason}): {advice}")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors, numbers and plain containers only, which can be read without unpickling code."""
    import torch  # slow to import, and used for checkpoints alone

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:  # torch does not say why it cannot write to a path
            torch.save(state, file)

    write_atomically(path, write)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Raises InputError for one that cannot be read."""
    import torch

    try:
        check_regular(path)
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        if not isinstance(state, dict):
            raise TypeError
    except OSError as error:
        raise cannot_read(path, error) from None
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the checkpoint {path} cannot be read ({type(error).__name__}): delete it to start over"
        ) from None
    return state
