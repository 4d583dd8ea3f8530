"""Experiments: a configuration goes in, a record on disk with tidy rows comes out.

An experiment is a frozen dataclass of settings and a function that makes rows of it. What surrounds it is the same for all: the
folder, the lock, the mirror in W&B, results.json, and what is printed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toymodels.registry import Member, Registry

Row = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What an experiment has measured."""

    rows: Sequence[Row]
    """Tidy rows: what a row speaks of (task, first_layer, readoff, seed, …), and its numbers."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More that belongs into results.json, such as notes, as JSON holds it."""


@dataclass(frozen=True, kw_only=True)
class Experiment(Member):
    """A kind of run: `function(config, folder, report)` makes its `Result`, or just rows, and may keep files in the folder.

    `report` takes the progress of a lone network's training. Where a stopped run is begun again, the function finds in the
    folder what it kept there.
    """

    config: type[Any]
    """Its settings: a frozen dataclass, of `RunSettings` and `ProblemSettings` say; its docstring is the command's help."""
    check: Callable[[Any], None] = lambda config: None
    """Raises InputError, before anything is written, for settings that are wrong on this machine or together."""
    text: Callable[[Mapping[str, Any]], str] | None = None
    """Results in words, from the content of results.json; default: a table of means over seeds."""
    summary: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    """The numbers by which sweeps compare runs, from the content of results.json; default: means over all rows."""
    summary_names: Callable[[Any], Sequence[str]] | None = None
    """Their names, from the configuration alone, nested ones with dots; None: known only after a run."""
    one_history: bool = False
    """Whether a run of one seed is the training of one network, whose progress early termination can follow."""


EXPERIMENTS = Registry("kind of run", Experiment, "toymodels.experiments.compare", "toymodels.experiments.train")
"""Kinds of runs by name, as in the record, on the command line and in a sweep file's command."""


def summary_of(experiment: Experiment, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers by which runs are compared, from the content of results.json."""
    from toymodels.runs.metrics import is_metric

    if experiment.summary is not None:
        return experiment.summary(content)
    numbers: dict[str, list[float]] = {}
    for row in content["rows"]:
        for name, value in row.items():
            if is_metric(name) and value is not None:
                numbers.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in numbers.items()}


def run(kind: str, config: Any) -> Path:
    """Do a run, or go on with it; return the folder of its record.

    Raises InputError for wrong settings or a folder that holds another run, before anything is written; Interrupted on Ctrl-C.
    """
    from toymodels.runs.identity import to_dict
    from toymodels.runs.record import FORMAT, load_config, locked, open_record, run_name
    from toymodels.runs.settings import check_device
    from toymodels.runs.storage import write_json
    from toymodels.runs.table import read_result, tidy
    from toymodels.runs.tracking import Mirror, check_mirror

    experiment = EXPERIMENTS[kind]
    check_device(config.device)
    experiment.check(config)
    check_mirror(config.wandb)
    folder = open_record(kind, config, config.out)
    if load_config(folder).format != FORMAT:  # finished by an earlier version: it is read, not made again
        if getattr(config, "json", None) is not None:
            write_json(config.json, read_result(folder))
        return folder
    with locked(folder), Mirror(config, kind, folder) as mirror:
        result = experiment.function(config, folder, mirror.progress)
        if not isinstance(result, Result):
            result = Result(list(result))
        rows = tidy(kind, folder.name, to_dict(config), result.rows)
        content = {"format": FORMAT, "name": run_name(kind, config), "rows": rows, **result.extra}
        write_json(folder / "results.json", content)
        if getattr(config, "json", None) is not None:
            write_json(config.json, content)
        mirror.histories(folder)
        mirror.table(result.rows)
        mirror.summary(summary_of(experiment, content))
        for path in _draw(config, folder):
            mirror.figure(path)
    return folder


def _draw(config: Any, folder: Path) -> list[Path]:
    """Draw the figures of a finished run, if its settings say so; a figure that fails costs one sentence, not the run."""
    if not getattr(config, "figures", False):
        return []
    try:
        from toymodels.figures.draw import draw_run

        return draw_run(folder)
    except Exception as error:  # results are on disk already, whatever happens to a picture
        reason = str(error).partition("\n")[0]
        print(
            f"toymodels: no figure was drawn ({type(error).__name__}: {reason}); the results are complete",
            file=sys.stderr,
        )
        return []
