"""A given list of inputs with their probabilities, from a file."""

from __future__ import annotations

import csv
import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.core.features import ENUMERATION_LIMIT, INPUTS, Features, Inputs, even
from toymodels.errors import InputError
from toymodels.registry import data_file, plugin_digest

PROBABILITY = "probability"
"""The column or key of an input's probability."""

_MOST = 2**28
"""Inputs × features that a list may have: 1 GiB."""


class Listed(Features):
    """The inputs of a list, each with its probability."""

    def __init__(
        self, x: Float[Tensor, "inputs m"], probabilities: Float[Tensor, " inputs"] | None = None, name: str = "a list"
    ):
        """Take vectors x, one a row, and their probabilities (default: the same for all); equal rows are added up.

        Raises InputError for an empty list, fewer than 2 features, or what is no probability or has another sum than 1.
        """
        n, m = x.shape
        if n < 1 or m < 2:
            raise InputError(f"a list of {n} inputs of {m} features: there must be at least one input and two features")
        given = Inputs.of(x, probabilities)
        rows, which = torch.unique(x, dim=0, return_inverse=True)
        shares = torch.zeros(len(rows), dtype=torch.float64).index_add_(0, which, given.probabilities)
        self._inputs = Inputs.of(rows[shares > 0], shares[shares > 0] / shares.sum(), enumerated=True)
        self.m, self.n_inputs = m, len(self._inputs)
        self.name = f"one of {self.n_inputs:,} inputs of {name}"

    def both_active(self) -> Float[Tensor, "m m"]:
        """Return the probability that two features are both active."""
        table = torch.zeros(self.m, self.m, dtype=torch.float64)
        for rows in self._inputs.blocks(2**16):
            on = (self._inputs.dense(rows) != 0).double()
            table += on.T @ (on * self._inputs.probabilities[rows, None])
        return table

    def sample(self, n: int, generator: torch.Generator) -> Inputs:
        """Draw n independent inputs, 1/n each, on the generator's device."""
        device = generator.device
        every, ends = self._inputs.to(device), self._inputs.probabilities.cumsum(0).to(device)
        uniform = torch.rand(n, dtype=torch.float64, device=device, generator=generator)
        rows = torch.searchsorted(ends, uniform, right=True).clamp_(max=len(every) - 1)
        values = None if every.values is None else every.values[rows]
        return Inputs(self.m, every.indices[rows], even(n, device), False, f"{n:,} sampled", values)

    def enumerate(self, limit: int = ENUMERATION_LIMIT, device: torch.device | str = "cpu") -> Inputs:
        """Return the list. Raises InputError if it has more than `limit` inputs."""
        self.check_enumerable(limit)
        return self._inputs.to(device)


def read_inputs(path: Path, name: str = "") -> Listed:
    """Read a list of inputs from a file.

    .csv: a column for each feature, in their order, below a line of their names; a column "probability" if they differ.
    .json: a list of objects such as {"active": [0, 3], "values": [1, 0.5], "probability": 0.2}; or {"m": 12, "inputs": […]}, if
    the last features are never active. Without probabilities all inputs have the same one.
    Raises InputError, with the line or the number of the input, for a file that is not such a list.
    """
    if path.suffix not in (".csv", ".json"):
        raise InputError(f"the list of inputs {path} is neither .csv nor .json: name a file of one of these kinds")
    return _read(path, name or path.name, plugin_digest(path))


@functools.lru_cache(maxsize=4)
def _read(path: Path, name: str, digest: str) -> Listed:
    """Read a file; a configuration asks for its features again and again."""
    try:
        text = path.read_text("utf-8-sig")
        x, shares = _from_csv(text) if path.suffix == ".csv" else _from_json(text)
        return Listed(x, shares, name)
    except UnicodeDecodeError:
        raise InputError(f"the list of inputs {path} is no text in UTF-8: save it as such") from None
    except (ValueError, csv.Error, OverflowError, RecursionError) as error:
        raise InputError(f"the list of inputs {path}: {error}") from None


def _from_csv(text: str) -> tuple[Tensor, Tensor | None]:
    header, *lines = [*csv.reader(text.splitlines(), strict=True)] or [[""]]
    names = [name.strip() for name in header]
    if names and all(_is_number(name) for name in names):
        raise InputError(
            "its first line holds numbers: it must name the columns, a feature each, and perhaps probability"
        )
    rows = []
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        if len(line) != len(names) or not all(_is_number(cell) for cell in line):
            raise InputError(f"line {number} is not {len(names)} numbers, one for each column")
        rows.append([float(cell) for cell in line])
    table = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(names))
    if PROBABILITY not in names:
        return table.float(), None
    column = names.index(PROBABILITY)
    others = [position for position in range(len(names)) if position != column]
    return table[:, others].float(), table[:, column]


def _from_json(text: str) -> tuple[Tensor, Tensor | None]:
    content = json.loads(text)
    entries = content.get("inputs") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise InputError("it must hold a list of inputs, each an object with the key active")
    rows = [_entry(number, entry) for number, entry in enumerate(entries)]
    m = content.get("m") if isinstance(content, dict) else None
    least = 1 + max((k for active, *_ in rows for k in active), default=-1)
    m = least if m is None else m
    if not isinstance(m, int) or isinstance(m, bool) or m < least:
        raise InputError(f"m = {m!r}: it must be a whole number of features, from {least} up")
    if m * len(rows) > _MOST:
        raise InputError(f"{len(rows):,} inputs of {m:,} features are more than {_MOST:,} numbers: list fewer")
    x = torch.zeros(len(rows), m)
    for number, (active, values, _) in enumerate(rows):
        x[number, active] = torch.tensor(values, dtype=torch.float32)
    given = [share for *_, share in rows if share is not None]
    if given and len(given) < len(rows):
        raise InputError(f"{len(given)} of {len(rows)} inputs have a probability: give one to each, or to none")
    return x, torch.tensor(given, dtype=torch.float64) if given else None


def _entry(number: int, entry: Any) -> tuple[list[int], Sequence[float], float | None]:
    """Return (active features, their values, probability or None) of one object of the list."""
    wanted = 'an object such as {"active": [0, 3], "probability": 0.2}'
    if not isinstance(entry, dict) or not {"active"} <= entry.keys() <= {"active", "values", PROBABILITY}:
        raise InputError(f"input {number} is not {wanted}")
    active, share = entry["active"], entry.get(PROBABILITY)
    whole = isinstance(active, list) and all(isinstance(k, int) and not isinstance(k, bool) and k >= 0 for k in active)
    if not whole or len(set(active)) < len(active):
        raise InputError(f"input {number}: active is a list of different features, counted from 0")
    values = entry.get("values", [1.0] * len(active))
    if not isinstance(values, list) or len(values) != len(active) or not all(map(_is_real, values)) or 0 in values:
        raise InputError(f"input {number}: values are {len(active)} numbers other than 0, one for each active feature")
    if share is not None and not _is_real(share):
        raise InputError(f"input {number}: its probability must be a number")
    return active, [float(value) for value in values], None if share is None else float(share)


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _example(m: int, folder: Path) -> str:
    """Write a list in which feature i is active alone, with a probability ∝ i + 1."""
    path = folder / "inputs.csv"
    lines = [",".join([*(f"x{k}" for k in range(m)), PROBABILITY])]
    for i in range(m):
        lines.append(",".join([*(str(int(k == i)) for k in range(m)), str((i + 1) / math.comb(m + 1, 2))]))
    path.write_text("\n".join(lines))
    return f"listed(file={path})"


@INPUTS("listed", order=12, source="your file", example=_example)
def listed(m: int, *, file: str = "", version: str = "") -> Listed:
    """Take the inputs and probabilities of a .csv or .json file: "listed(file=inputs.csv)"; s does not change them.

    A record keeps a copy of the file; `version` names the start of its SHA-256, and is set by the record itself.
    """
    if not file:
        raise InputError('listed needs a file of inputs: "listed(file=inputs.csv)", or .json')
    features = read_inputs(data_file(file, version), Path(file).name)
    if features.m != m:
        hint = (
            "a column named probability is none" if file.endswith(".csv") else 'a key "m" beside "inputs" can name more'
        )
        raise InputError(f"the list {file} has {features.m} features ({hint}) and m is {m}: they must be the same")
    return features
