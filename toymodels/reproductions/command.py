"""Run a reproduction: measure what is missing, write the comparison, draw, and print a table with verdicts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from toymodels.errors import InputError, NoEffectError, check_different, check_whole
from toymodels.given import conform


@dataclass(frozen=True)
class ReproduceConfig:
    """Measure a published figure or table again, and compare."""

    name: tyro.conf.Positional[str | None] = None
    """Which one; --list prints all."""
    list: bool = False
    """Print all names, with what they show and how long they take."""
    seeds: tuple[int, ...] = ()
    """Seeds; default 0 to 4, or those of the reproduction (confusion: 100 to 119). Each draws weights, inputs and mixing
    matrices of its own. An interval needs at least 2."""
    full: bool = False
    """The paper's own size, which takes hours, in place of the reduced one."""
    out: Path | None = None
    """Folder of the rows, the comparison and the figure; default runs/reproduce/NAME."""
    figures: bool = True
    """Draw the figure, if there is one."""

    def __post_init__(self) -> None:
        from toymodels.runs.identity import changed

        conform(self)
        if self.seeds:
            check_different("seed", self.seeds, seeds=[str(seed) for seed in self.seeds])
        for seed in self.seeds:
            check_whole(0, 2**31, seeds=seed)
        if self.list and self.name is not None:
            raise NoEffectError(f"--list prints all reproductions: leave out {self.name}, or --list")
        if self.name is None and changed(self) - {"list"}:
            raise NoEffectError("seeds, full, out and figures are of one reproduction: name it, as in q_table")


def reproduce(config: ReproduceConfig) -> str:
    """Do the command; return the text to print."""
    from toymodels.reproductions.registry import REPRODUCTIONS
    from toymodels.runs.storage import check_writable

    if config.list or config.name is None:
        return list_all()
    member = REPRODUCTIONS[config.name]
    folder = config.out or Path("runs/reproduce") / member.name
    if folder.exists() and not folder.is_dir():
        raise InputError(f"out = {folder} is a file: name a folder")
    _check_own(folder, member.name)
    check_writable(folder / "comparison.json")
    return run(member, folder, config.seeds or member.seeds, config.full, config.figures)


def _check_own(folder: Path, name: str) -> None:
    """Raise InputError for a folder that holds something else than this reproduction, finished or not."""
    from toymodels.runs.storage import read_json

    if (folder / "comparison.json").exists():
        other = read_json(folder / "comparison.json", ("name",))["name"]
        if other != name:
            raise InputError(f"the folder {folder} holds the reproduction {other}: name another folder in out")
    elif folder.is_dir() and any(path.name != "rows.jsonl" and path.name[0] != "." for path in folder.iterdir()):
        raise InputError(f"the folder {folder} is not empty and holds no reproduction: name another folder in out")


def list_all() -> str:
    """Return all reproductions in plain text, a line each."""
    from toymodels.reproductions.registry import REPRODUCTIONS
    from toymodels.runs import text

    lines = [(member.name, f"{member.minutes:g}", member.shows) for member in REPRODUCTIONS.values()]
    return text.render(("name", "minutes", "shows"), lines, right=(1,))


def run(member: Any, folder: Path, seeds: tuple[int, ...], full: bool = False, figures: bool = True) -> str:
    """Measure what the folder does not hold yet; write comparison.json, then the figure; return the table."""
    from toymodels.compressed.unfinished import kept_in
    from toymodels.experiments.registry import afterwards
    from toymodels.experiments.study import study
    from toymodels.figures.style import Drawing, default_style, save
    from toymodels.runs import text
    from toymodels.runs.storage import write_json

    size = dict(member.full if full else member.reduced)
    keys = member.keys(size, seeds)
    folder.mkdir(parents=True, exist_ok=True)
    with kept_in(folder / ".training"):
        rows = study(folder / "rows.jsonl", keys, lambda key: member.call({"key": key}))
    shutil.rmtree(folder / ".training", ignore_errors=True)
    lines = member.lines(rows)
    answer = member.answer(rows) if member.answer is not None else ""
    content = {
        "name": member.name, "shows": member.shows, "source": member.source, "size": size, "full": full,
        "seeds": list(seeds), "lines": [line.to_dict() for line in lines], "answer": answer,
    }  # fmt: skip
    write_json(folder / "comparison.json", content)
    written = [folder / "rows.jsonl", folder / "comparison.json"]
    if figures and member.draw is not None:
        with afterwards("no figure was drawn"), default_style():
            written += save(Drawing(member.name, member.shows, member.draw(rows)), folder)
    cells = [
        (
            line.what, "–" if line.published is None else f"{line.published:.4g}", text.number(line.mean, line.half, ".4g"),
            line.verdict,
        )
        for line in lines
    ]  # fmt: skip
    table = text.render(("number", "published", "ours (95 % t interval over seeds)", "verdict"), cells, right=(1, 2))
    settings = ", ".join(f"{name} {value:,}" for name, value in size.items())
    words = f"{len(seeds)} seeds, each with weights, inputs and matrices of its own"
    about = f"{'full' if full else 'reduced'} size ({settings}), {words}"
    parts = [f"{member.shows}\n{about}", table, *([answer] if answer else []), "\n".join(map(str, written))]
    return "\n\n".join(parts)
