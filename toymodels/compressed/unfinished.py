"""Keep what a long training has done: a stopped one goes on where it was."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from torch import Tensor

from toymodels.runs.storage import load_checkpoint, save_checkpoint

SECONDS = 30.0
"""Time between two states on disk. A shorter training leaves none."""
_folder: ContextVar[Path | None] = ContextVar("folder of unfinished trainings", default=None)


@contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Let trainings of the block keep their states in a folder, which is made when the first state is written."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


class Unfinished:
    """The state of one training on disk. The file's name is a hash of all that the training depends on."""

    def __init__(self, *settings: Any):
        """Name the training: settings are tensors, or objects whose repr says all."""
        digest = hashlib.sha256()
        for setting in settings:
            digest.update(setting.numpy().tobytes() if isinstance(setting, Tensor) else repr(setting).encode())
        folder = _folder.get()
        self._path = None if folder is None else folder / f"{digest.hexdigest()[:16]}.pt"
        self._last = time.monotonic()
        self.written = False
        """Whether this training has a state on disk."""

    def load(self) -> dict[str, Any] | None:
        """Read the state, or return None if there is none. Raises InputError for a damaged file."""
        self.written = self._path is not None and self._path.exists()
        return load_checkpoint(self._path) if self._path is not None and self.written else None

    @property
    def due(self) -> bool:
        """Whether it is time to write the state again."""
        return self._path is not None and time.monotonic() - self._last > SECONDS

    def save(self, state: dict[str, Any]) -> None:
        """Write the state: tensors, numbers, lists and dicts."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(self._path, state)
            self._last, self.written = time.monotonic(), True
