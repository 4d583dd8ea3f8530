"""Keep the outputs of a minimax readoff that are solved already, so that a stopped run does not solve them again.

One file for each row that is being made: a line with the key of the problem, then a line for each solved output, each after its
own checksum. The file is deleted when the row is in the record.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from toymodels.core.minimax import Chebyshev
from toymodels.runs.storage import cannot_read, writing

ENDING = ".unfinished"
"""Ending of these files' names."""
_ARRAYS = {"coefficients": "<f8", "rows": "<i8", "multipliers": "<f8"}
_FIELDS = {field.name for field in dataclasses.fields(Chebyshev)}


class SolvedOutputs:
    """The solved outputs of one row; `minimax` takes it as `kept`."""

    def __init__(self, path: Path):
        """Name the file; it is made when the first output is solved."""
        self.path = path
        self.seconds = 0.0
        """What solving the known outputs took, in earlier sessions."""
        self._began = time.perf_counter()
        self._key = ""
        self._length = 0  # bytes of the file that are right

    def known(self, key: str) -> list[Chebyshev]:
        """Return the certificates of outputs 0, 1, … that the file holds of the problem with this key, as far as it is whole."""
        self._key, self._length, self._began = key, 0, time.perf_counter()
        certificates: list[Chebyshev] = []
        # Whatever is wrong with a line: it and those after it are solved again.
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            for line in self._lines():
                content = _decoded(line)
                if self._length == 0:
                    if content["key"] != key:
                        break
                elif content["output"] > len(certificates):
                    break
                else:
                    self.seconds = float(content.pop("seconds"))
                    del certificates[content.pop("output") :]
                    certificates.append(Chebyshev(**content))
                self._length += len(line)
        return certificates

    def keep(self, output: int, certificate: Chebyshev) -> None:
        """Add a solved output. Raises WriteError if it cannot be written."""
        content = {name: getattr(certificate, name) for name in _FIELDS}
        content |= {name: base64.b64encode(content[name].astype(kind)).decode() for name, kind in _ARRAYS.items()}
        content |= {"output": output, "seconds": self.seconds + time.perf_counter() - self._began}
        text = b"".join(map(_encoded, [content] if self._length else [{"key": self._key}, content]))
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            with open(self.path, "rb+") as file:
                file.seek(self._length)
                file.truncate()
                file.write(text)
        self._length += len(text)

    def delete(self) -> None:
        """Delete the file, if it is there."""
        self.path.unlink(missing_ok=True)

    def _lines(self) -> list[bytes]:
        try:
            return self.path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise cannot_read(self.path, error) from None


def count(path: Path) -> int:
    """Return how many outputs a file holds."""
    with suppress(OSError):
        return max(0, path.read_bytes().count(b"\n") - 1)
    return 0


def _encoded(content: dict[str, Any]) -> bytes:
    body = json.dumps(content, default=float).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decoded(line: bytes) -> dict[str, Any]:
    """Return what a line holds. Raises ValueError or a similar error for one that is not whole."""
    body = line[9:-1]
    if line != b"%08x %s\n" % (zlib.crc32(body), body):
        raise ValueError("another checksum")
    content: dict[str, Any] = json.loads(body)
    for name, kind in _ARRAYS.items():
        if name in content:
            content[name] = np.frombuffer(base64.b64decode(content[name]), kind).copy()
    return content
