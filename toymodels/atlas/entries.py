"""Store the best layer known of a cell, and prove from the stored numbers, by NumPy alone, what it reaches.

An entry is one .safetensors file with these tensors:

    weight (d, m), bias (d)              the layer: activations are max(W x + b, 0)
    readoff (outputs, d), offset         what reads each output: r·a + c
    rows, multipliers, output            a certificate μ of the output with the largest error: Σ|μ| = 1, Σ μ = 0, Σ μ a = 0
    moves (if there are any)             permutations of the features that carry neurons to neurons: readoff and offset are then
                                         those of the first output of each orbit, and carried to the others when the file is read

The stored readoffs, evaluated on every input, give the *worst error*: an upper bound of what the layer reaches. The certificate
gives a *lower bound* for this layer: no readoff of it has a smaller worst error than μ·f (`core.minimax`). Both are computed from
the stored numbers; nothing that a file states of itself is trusted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from toymodels.atlas.cells import Cell, cell_of
from toymodels.atlas.symmetry import Moves, representatives, spread_readoffs
from toymodels.errors import InputError

HERE = Path(__file__).parent / "entries"
"""The folder of the entries that come with this package."""
CLOSE = 1e-6
"""Smallest difference of two worst errors that counts: the gap up to which `core.minimax` calls a readoff proved."""
LEAK = 1e-9
"""Largest |Σ μ| and |Σ μ a|, in units of the neuron's largest activation, of a certificate."""
TENSORS = ("weight", "bias", "readoff", "offset", "rows", "multipliers", "output")
"""The names of an entry's tensors."""


@dataclass(frozen=True)
class Entry:
    """A layer with readoffs of every output and a certificate of one of them."""

    cell: Cell
    weight: Float[np.ndarray, "d m"]
    bias: Float[np.ndarray, " d"]
    readoff: Float[np.ndarray, "outputs d"]
    offset: Float[np.ndarray, " outputs"]
    rows: Int[np.ndarray, " support"]
    """Numbers of the inputs that carry the certificate."""
    multipliers: Float[np.ndarray, " support"]
    output: int
    """The output that the certificate speaks of."""
    moves: Moves | None = None
    """Permutations of the features that carry neurons to neurons; the file then holds readoffs of one output of each orbit."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """How it was found: how, seed, seconds; what the finder says, not proved."""

    def activations(self) -> Float[np.ndarray, "inputs d"]:
        """Compute max(W x + b, 0) on every input of the cell."""
        return np.maximum(self.cell.x() @ self.weight.T + self.bias, 0)


@dataclass(frozen=True)
class Proof:
    """What the stored numbers of an entry prove."""

    worst_error: float
    """The largest |r·a + c − f| over all inputs and outputs."""
    lower_bound: float
    """What no readoff of this layer beats; 0 where the certificate is empty."""

    @property
    def gap(self) -> float:
        """How far the readoffs may be from the best ones of this layer."""
        return self.worst_error - self.lower_bound


def check_layer(cell: Cell, weight: Any, bias: Any) -> None:
    """Raise InputError unless weight and bias are finite numbers in the shapes of the cell."""
    for name, value, shape in (("weight", weight, (cell.d, cell.m)), ("bias", bias, (cell.d,))):
        check_array(name, value, shape)


def check_array(name: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raise InputError unless this is an array of finite real numbers in this shape."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise InputError(f"{name} must be an array of real numbers")
    if value.shape != shape:
        raise InputError(f"{name} has the shape {value.shape}: it must be {shape}")
    if not np.isfinite(value).all():
        raise InputError(f"{name} must be finite, but some numbers are infinite or not a number")


def prove(entry: Entry) -> Proof:
    """Compute from the stored numbers what an entry reaches, on every input and output, and what its layer cannot beat.

    Raises InputError for numbers that are not finite or of other shapes, and for a certificate that proves nothing.
    """
    cell = entry.cell
    check_layer(cell, entry.weight, entry.bias)
    check_array("readoff", entry.readoff, (cell.outputs, cell.d))
    check_array("offset", entry.offset, (cell.outputs,))
    whole = np.asarray(entry.rows).dtype.kind in "iu" and np.asarray(entry.rows).ndim == 1
    if not whole or (len(entry.rows) and not 0 <= entry.rows.min() <= entry.rows.max() < cell.inputs):
        raise InputError(f"rows must be numbers of inputs, from 0 to {cell.inputs - 1}")
    check_array("multipliers", entry.multipliers, (len(entry.rows),))
    if not 0 <= entry.output < cell.outputs:
        raise InputError(f"output = {entry.output}: it must be from 0 to {cell.outputs - 1}")
    with np.errstate(over="ignore", invalid="ignore"):  # which is checked below
        return _proof(entry, entry.activations(), cell.targets())


def _proof(
    entry: Entry, activations: Float[np.ndarray, "inputs d"], targets: Float[np.ndarray, "inputs outputs"]
) -> Proof:
    cell, worst = entry.cell, 0.0
    block = max(1, 2**22 // max(cell.outputs, 1))
    for start in range(0, cell.inputs, block):
        rows = slice(start, start + block)
        error = activations[rows] @ entry.readoff.T.astype(np.float64) + entry.offset - targets[rows]
        if not np.isfinite(error).all():
            raise InputError("the numbers are so large that an output is infinite or not a number: take smaller ones")
        worst = max(worst, float(np.abs(error).max()))
    lower = 0.0
    if len(entry.rows):
        mass = float(np.abs(entry.multipliers).sum())
        if abs(mass - 1) > LEAK:
            raise InputError(f"the certificate proves nothing: its absolute values sum to {mass:.12g}, not to 1")
        size = np.abs(activations).max(0)
        leak = np.abs(entry.multipliers @ activations[entry.rows]) / np.where(size > 0, size, 1)
        leak = max(float(leak.max(initial=0.0)), abs(float(entry.multipliers.sum())))
        if not leak <= LEAK:
            raise InputError(
                f"the certificate proves nothing: it leaks {leak:.1e} of an activation, more than {LEAK:g}"
            )
        lower = float(entry.multipliers @ targets[entry.rows, entry.output])
    return Proof(worst, lower)


def read_entry(path: Path, cell: Cell | None = None) -> Entry:
    """Read an entry; its cell is that of its file's name, unless one is given.

    Raises InputError for a file that is missing, is no such file or has other tensors. Nothing that could run code is read.
    """
    tensors, facts = read_tensors(path)
    missing = [name for name in TENSORS if name not in tensors]
    if missing:
        raise InputError(f"{path} has no {', '.join(missing)}: an entry has the tensors {', '.join(TENSORS)}")
    if tensors["output"].size != 1 or tensors["output"].dtype.kind not in "iu":
        raise InputError(f"{path}: output must be one whole number")
    cell = cell or cell_of(path.stem)
    arrays = {name: tensors[name] for name in TENSORS if name != "output"}
    if (moves := tensors.get("moves")) is not None:
        check_layer(cell, arrays["weight"], arrays["bias"])
        layer = np.column_stack([arrays["weight"], arrays["bias"]])
        whole = spread_readoffs(cell, layer, moves, arrays["readoff"], arrays["offset"])
        arrays["readoff"], arrays["offset"] = whole
    return Entry(cell, **arrays, output=int(tensors["output"].item()), moves=moves, facts=facts)


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the tensors of a .safetensors file and the facts in its header.

    Raises InputError for a file that is missing, or is no such file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"there is no file {path}: name a .safetensors file")
    try:
        with safe_open(str(path), framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            stated = json.loads((file.metadata() or {}).get("facts", "{}"))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is no .safetensors file that can be read ({reason}): name another file") from None
    return tensors, stated if isinstance(stated, dict) else {}


def entry_bytes(entry: Entry) -> bytes:
    """Return the file of an entry. Readoffs may have float32: the worst error is that of the stored numbers."""
    from safetensors.numpy import save

    kept = slice(None) if entry.moves is None else representatives(entry.cell, entry.moves)
    tensors = {
        "weight": np.ascontiguousarray(entry.weight, np.float64),
        "bias": np.ascontiguousarray(entry.bias, np.float64),
        "readoff": np.ascontiguousarray(entry.readoff[kept]),
        "offset": np.ascontiguousarray(entry.offset[kept], np.float64),
        "rows": np.ascontiguousarray(entry.rows, np.int64),
        "multipliers": np.ascontiguousarray(entry.multipliers, np.float64),
        "output": np.array([entry.output], np.int64),
    }
    if entry.moves is not None:
        tensors["moves"] = np.ascontiguousarray(entry.moves, np.int64)
    return save(tensors, {"facts": json.dumps(dict(entry.facts))})


def files_in(folder: Path) -> list[Path]:
    """List the files of entries in a folder, sorted by cell. Raises InputError if the folder is missing."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: name one with files of entries")
    return sorted(folder.glob("*.safetensors"))


def entries_in(folder: Path) -> Iterator[Entry]:
    """Read all entries of a folder."""
    for path in files_in(folder):
        yield read_entry(path)
