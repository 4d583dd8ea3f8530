"""Print, prove, extend and search the atlas of the best layers known: the command `atlas`."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from toymodels.atlas.cells import Cell, cell_of, file_task, set_size
from toymodels.atlas.entries import (
    CLOSE,
    HERE,
    TENSORS,
    Entry,
    Proof,
    check_layer,
    entries_in,
    entry_bytes,
    files_in,
    prove,
    read_entry,
    read_tensors,
)
from toymodels.atlas.floors import floor_of
from toymodels.atlas.known import errors_serving, least_known, least_known_width, least_possible_width
from toymodels.errors import InputError, NoEffectError, check_positive, check_whole
from toymodels.given import conform
from toymodels.parallel.progress import Bar
from toymodels.runs import text
from toymodels.runs.storage import check_writable, write_atomically, write_text

FORGED = 1e-6
"""How far the worst error that a file states of itself may be from the one that its numbers prove."""


@dataclass(frozen=True)
class AtlasConfig:
    """Print the best layers known; prove them from the stored numbers (check), take one (submit), look for more (search)."""

    action: tyro.conf.Positional[Literal["print", "check", "submit", "search"]] = "print"
    """print, check, submit or search."""
    file: tyro.conf.Positional[Path | None] = None
    """submit: the layer, .safetensors or .pt, with tensors weight (d, m) and bias (d): a file of the atlas is one, and the
    network of a run."""
    task: tuple[str, ...] = ()
    """Tasks: and, xor, another gate on pairs, "and_of(k=3)", …; default all in the atlas. submit needs one, unless the
    file's name is that of a cell or the file is a run's."""
    s: tuple[int, ...] = ()
    """At most so many features are active; default all in the atlas (search and submit: 2)."""
    m: tuple[int, ...] = ()
    """Numbers of features; default all in the atlas."""
    d: tuple[int, ...] = ()
    """Numbers of neurons; default all in the atlas."""
    epsilon: tuple[int | float, ...] = ()
    """print: errors to reach; for each the least d known, and the d below which no layer reaches it, in place of the map."""
    seconds: int | float = 10.0
    """search: seconds for each cell, about."""
    seed: int = 0
    """search: draws the starts."""
    folder: Path | None = None
    """Folder of the entries; default those of this package. search and submit write better ones into it."""
    out: Path | None = None
    """print: folder for the table (atlas.csv) and the figure of it."""

    def __post_init__(self) -> None:
        conform(self)
        for task in self.task:
            set_size(task)
        for name in ("s", "m", "d"):
            for number in getattr(self, name):
                check_whole(1, **{name: number})
        check_positive(seconds=self.seconds)
        check_whole(0, seed=self.seed)
        if (self.action == "submit") != (self.file is not None):
            raise InputError(
                "submit takes the file of one layer, as in `toymodels atlas submit layer.safetensors`; no other action does"
            )
        if self.action != "search" and (self.seconds, self.seed) != (AtlasConfig.seconds, AtlasConfig.seed):
            raise NoEffectError("seconds and seed are of a search: leave them out, or name search")
        if self.action != "print" and self.out is not None:
            raise NoEffectError("out is for the printed table: leave it out, or name print")
        check_positive(**{f"epsilon[{i}]": error for i, error in enumerate(self.epsilon)})
        if self.action != "print" and self.epsilon:
            raise NoEffectError("epsilon is for the printed table: leave it out, or name print")
        if self.action == "search" and not (self.task and self.m and self.d):
            raise InputError("a search needs at least one task, m and d, as in --task and --m 6 --d 4 5")
        if self.out is not None:
            check_writable(self.out / "atlas.csv")

    @property
    def home(self) -> Path:
        """The folder of the entries."""
        return HERE if self.folder is None else self.folder

    def wanted(self, cell: Cell) -> bool:
        """Whether the settings ask for a cell."""
        tasks = [file_task(task) for task in self.task]
        chosen = ((tasks, file_task(cell.task)), (self.s, cell.s), (self.m, cell.m), (self.d, cell.d))
        return all(not some or value in some for some, value in chosen)

    def cells(self) -> list[Cell]:
        """List the cells of a search, the smallest first."""
        sizes = itertools.product(self.task, self.s or (2,), sorted(self.m), sorted(self.d))
        return [Cell(*size) for size in sizes]


def run_atlas(config: AtlasConfig) -> str | tuple[str, int]:
    """Do what the settings ask for; return what to print, and an exit status."""
    actions: dict[str, Callable[[AtlasConfig], str | tuple[str, int]]]
    actions = {"print": show, "check": check, "submit": submit, "search": search}
    return actions[config.action](config)


def show(config: AtlasConfig) -> str:
    """Prove the entries and print a map for each task and number of active features; also write it, if asked to."""
    rows = list(_rows(config))
    if not rows:
        raise InputError(f"no entry of {config.home} is of these tasks and sizes: leave some out")
    tables = []
    for task, s in sorted({(row["task"], row["s"]) for row in rows}):
        here = {(row["m"], row["d"]): row for row in rows if (row["task"], row["s"]) == (task, s)}
        if config.epsilon:
            title = f"{task}, at most {s} active: neurons for a worst error of ε"
            tables.append(f"{title}\n{_widths(config, rows, task, s)}")
            continue
        features, widths = (sorted(set(sizes)) for sizes in zip(*here, strict=True))
        lines = [[str(d), *(_cell_text(here.get((m, d))) for m in features)] for d in widths]
        table = text.render(("d", *(f"m = {m}" for m in features)), lines, range(len(features) + 1))
        tables.append(f"{task}, at most {s} active\n{table}")
    legend = "Worst error of the best layer known, and below which no layer is; =: they are equal."
    tables.append(f"Cells: {len(rows)}. {legend}")
    if config.out is not None:
        tables.append("\n".join(map(str, write(rows, config.out))))
    return "\n\n".join(tables)


def _widths(config: AtlasConfig, rows: Sequence[dict[str, Any]], task: str, s: int) -> str:
    """Make a table of the least d known for each error and m, and of the d below which no layer reaches it."""
    errors = {Cell(row["task"], row["s"], row["m"], row["d"]): row["worst_error"] for row in rows}

    def cell(m: int, error: float) -> str:
        known, least = least_known_width(task, s, m, error, errors), least_possible_width(task, s, m, error)
        return f"{known} =" if known == least else f"{known or 'unknown'} ≥ {least}"

    features = sorted({row["m"] for row in rows if (row["task"], row["s"]) == (task, s)})
    lines = [[str(m), *(cell(m, error) for error in config.epsilon)] for m in features]
    return text.render(("m", *(f"ε = {error:g}" for error in config.epsilon)), lines, range(len(config.epsilon) + 1))


def _cell_text(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    known = row["worst_error"] - row["floor"] <= CLOSE
    return f"{row['worst_error']:.4f} " + ("=" if known else f"≥ {row['floor']:.3f}")


def write(rows: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Write the table, then draw it."""
    from toymodels.runs.table import csv_text

    write_text(folder / "atlas.csv", csv_text(rows))
    from toymodels.figures.atlas_map import draw_atlas
    from toymodels.figures.style import save

    return [folder / "atlas.csv", *save(draw_atlas(rows), folder)]


def _rows(config: AtlasConfig) -> Iterator[dict[str, Any]]:
    for path in files_in(config.home):
        cell = cell_of(path.stem)
        if config.wanted(cell):
            entry = read_entry(path)
            yield _row(entry, prove(entry), floor_of(cell))


def _row(entry: Entry, proof: Proof, floor: float) -> dict[str, Any]:
    cell = entry.cell
    return {
        "kind": "atlas", "run": cell.name, "task": cell.task, "seed": entry.facts.get("seed", 0), "first_layer": "best known",
        "readoff": "minimax", "inputs": "at_most", "s": cell.s, "m": cell.m, "d": cell.d, "outputs": cell.outputs,
        "worst_error": proof.worst_error, "lower_bound": proof.lower_bound, "floor": floor,
        "how": entry.facts.get("how", ""), "seconds": entry.facts.get("seconds", ""),
    }  # fmt: skip


def check(config: AtlasConfig) -> tuple[str, int]:
    """Prove every entry from its stored numbers; say which fail, and how far readoffs are from the best ones of their layers."""
    began = time.perf_counter()
    wrong: list[str] = []
    proofs: dict[Cell, Proof] = {}
    for path in files_in(config.home):
        try:
            cell = cell_of(path.stem)
            if not config.wanted(cell):
                continue
            entry = read_entry(path)
            proofs[cell] = prove(entry)
            wrong += [f"{cell.name}: {reason}" for reason in failures(entry, proofs[cell])]
        except InputError as error:
            wrong.append(f"{path.name}: {error}")
    if not proofs and not wrong:
        raise InputError(f"no entry of {config.home} is of these tasks and sizes: leave some out")
    largest = max((proof.gap for proof in proofs.values()), default=0.0)
    seconds = time.perf_counter() - began
    if wrong:
        return "\n".join([*wrong, f"failures: {len(wrong)}, entries: {len(proofs)}"]), 1
    closest = f"the readoffs of each are within {max(largest, 0):.1e} of the best of its layer"
    return "\n".join([*_disorder(proofs), f"entries proved: {len(proofs)}, in {seconds:.1f} s; {closest}"]), 0


def failures(entry: Entry, proof: Proof) -> Iterator[str]:
    """Yield what is wrong with an entry whose numbers are sound: what it states, its readoffs, the floor."""
    cell, stated = entry.cell, entry.facts.get("worst_error", proof.worst_error)
    if not isinstance(stated, int | float) or not abs(stated - proof.worst_error) <= FORGED:
        yield f"the file states a worst error of {stated}, and its numbers have {proof.worst_error:.6f}"
    if abs(proof.gap) > CLOSE:
        yield f"the readoffs reach {proof.worst_error:.6f}, and the certificate proves no more than {proof.lower_bound:.6f}"
    floor = floor_of(cell)
    if proof.worst_error < floor - CLOSE:
        yield f"a worst error of {proof.worst_error:.6f} is below the floor {floor:.6f} that holds for every layer"


def _disorder(proofs: dict[Cell, Proof]) -> Iterator[str]:
    """Yield notes on cells in which a construction, or another entry's layer, would do better: no fault of their entries."""
    errors = {cell: proof.worst_error for cell, proof in proofs.items()}
    for cell, error in errors.items():
        known, name = least_known(cell, errors)
        if known < error - CLOSE:
            yield f"note: {cell.name}: {error:.6f} is more than {known:.6f} of {name}, whose layer would do"


def submit(config: AtlasConfig) -> str:
    """Verify a layer that somebody offers; store it if it is a record. Raises InputError, with the reason, if it is none."""
    assert config.file is not None
    entry = _offered(config.file, config)
    proof = prove(entry)
    cell = entry.cell
    if wrong := next(failures(entry, proof), None):
        raise InputError(f"{config.file} is refused: {wrong}")
    error, name = least_known(cell, errors_serving(cell, config.home))
    if not proof.worst_error < error - CLOSE:
        reached = f"its worst error is {proof.worst_error:.6f}, and {error:.6f} is known ({name})"
        raise InputError(f"{config.file} is no record: {reached}")
    entry = dataclasses.replace(entry, facts={"how": "submitted", **entry.facts})
    kept = _keep(entry, proof.worst_error, config.home)
    before = "nothing was known" if math.isinf(error) else f"{error:.6f} was known ({name})"
    record = f"a record for {cell.in_words}: {proof.worst_error:.6f}; {before}; no layer is below {floor_of(cell):.6f}"
    return f"{record}\nstored: {kept}"


def _offered(file: Path, config: AtlasConfig) -> Entry:
    """Return the entry in a file; solve the readoffs of a layer without. Raises InputError for what is no layer of a cell."""
    from toymodels.runs.record import layer_in_file

    tensors, facts = read_tensors(file) if file.suffix == ".safetensors" else ({}, {})
    whole = set(TENSORS) <= set(tensors)
    if not whole:
        layer, of_run = layer_in_file(file)
        if layer.activation != "relu":
            raise InputError(f"the neurons in {file} are {layer.activation}: layers of the atlas are of ReLU")
        tensors = {name: getattr(layer, name).detach().numpy() for name in ("weight", "bias")}
        if of_run is not None:
            facts = {"how": "trained"}
            config = dataclasses.replace(config, task=config.task or (of_run.name,))
    weight, bias = tensors["weight"], tensors["bias"]
    if weight.ndim != 2 or not weight.size:
        raise InputError(f"{file}: weight has the shape {weight.shape}: it must be a matrix (d, m)")
    try:
        cell = cell_of(file.stem)
    except InputError:
        if len(config.task) != 1 or len(config.s) > 1:
            raise InputError(
                f"{file} does not say what its layer is for: name one task, and s if it is not 2, as in --task and --s 2"
            ) from None
        cell = Cell(config.task[0], config.s[0] if config.s else 2, weight.shape[1], weight.shape[0])
    if not config.wanted(cell):
        raise InputError(f"{file} is for {cell.in_words}, and the settings name another task or size: leave them out")
    check_layer(cell, weight, bias)
    if whole:
        return read_entry(file, cell)
    from toymodels.atlas.search import solved

    said: dict[str, Any] = {key: facts[key] for key in ("how", "seed", "seconds") if key in facts}
    return solved(cell, np.column_stack([weight, bias]).astype(np.float64), said)


def _keep(entry: Entry, error: float, folder: Path) -> Path:
    """Write an entry, with the worst error that its numbers prove."""
    path = folder / f"{entry.cell.name}.safetensors"
    if path.exists() and prove(read_entry(path)).worst_error < error:
        return path  # another search has stored a better one meanwhile
    content = entry_bytes(dataclasses.replace(entry, facts={**entry.facts, "worst_error": error}))
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return path


def search(config: AtlasConfig) -> str:
    """Search each cell, and store a better layer at once: a search that is stopped loses at most the cell it is at."""
    from toymodels.atlas.search import improve

    folder = config.home
    cells = config.cells()
    folder.mkdir(parents=True, exist_ok=True)
    known = {entry.cell: entry for entry in entries_in(folder)}
    lines = []
    for cell in Bar("atlas", len(cells), "cell").over(cells):
        entry = improve(cell, known, config.seed, config.seconds)
        if entry is None:
            before = f"{prove(known[cell]).worst_error:.6f}" if cell in known else "nothing"
            lines.append(f"{cell.name}: {before} is known, nothing better found")
            continue
        known[cell], error = entry, prove(entry).worst_error
        _keep(entry, error, folder)
        lines.append(f"{cell.name}: {error:.6f} ({entry.facts['how']}, {entry.facts['seconds']} s)")
    return "\n".join([*lines, f"entries: {folder}"])
