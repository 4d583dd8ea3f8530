"""Run experiments: from a configuration to a record on disk with tidy rows.

An experiment is a frozen dataclass of settings and a function that makes rows from them. Everything else is the same for all
experiments: the folder, the lock, the mirror in W&B, results.json, and the printed text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from toymodels.core.settings import OF_ADAM
from toymodels.errors import InputError, NoEffectError, WriteError, check_device, notice
from toymodels.registry import Member, Registry, parse_call, plugin_failures
from toymodels.runs.identity import changed, to_dict
from toymodels.runs.metrics import NOT_SETTINGS, Row, all_metrics
from toymodels.runs.storage import write_json, write_results


@dataclass(frozen=True)
class Result:
    """The measurements of an experiment."""

    rows: Sequence[Row]
    """Tidy rows: what each row measures (task, first_layer, readoff, seed, …), and its numbers."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further content of results.json, such as notes."""


@dataclass(frozen=True, kw_only=True)
class Experiment(Member):
    """A kind of run: `function(config, folder, report)` makes its `Result`, or just rows, and may keep files in the folder.

    `report` takes the progress of the training of a run's only network. If a stopped run is continued, the function finds its
    files in the folder.
    """

    config: type[Any]
    """Its settings: a frozen dataclass, of `RunSettings` and `ProblemSettings` say; its docstring is the command's help."""
    check: Callable[[Any], None] = lambda config: None
    """Raises InputError, before anything is written, for settings that are wrong on this machine or together."""
    text: Callable[[Mapping[str, Any]], str] | None = None
    """Writes the results as text, from the content of results.json; default: a table of means over seeds."""
    summary: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    """Returns the numbers by which sweeps compare runs, from the content of results.json; default: means over all rows."""
    summary_names: Callable[[Any], Sequence[str]] | None = None
    """Returns their names, from the configuration alone, nested ones with dots; None: known only after a run."""
    seconds: Callable[[Any], float] | None = None
    """Estimates the seconds of a run on one core, from its configuration; None: unknown."""
    one_history: bool = False
    """Whether a run of one seed trains one network, whose progress early termination can follow."""
    measures: tuple[str, ...] = ()
    """Columns of its rows with numbers that it measures, beside `runs.metrics.METRICS`: tables take means of them over seeds. All
    other columns are settings, and rows that differ in one are kept apart."""

    def __post_init__(self) -> None:
        """Raise InputError for a measure that is a setting, or says what a row is about."""
        if not self.measures:
            return
        if isinstance(self.measures, str):
            raise InputError(f"measures = {self.measures!r} of {self.name}: it must be a tuple of names of columns")
        settings = {*(setting.name for setting in fields(self.config)), *NOT_SETTINGS}
        wrong = next((name for name in self.measures if name in settings), None)
        if wrong is not None:
            raise InputError(
                f"{self.name} cannot measure {wrong!r}, the name of a setting or of what a row is about: rename it"
            )


EXPERIMENTS = Registry(
    "kind of run",
    Experiment,
    "toymodels.experiments.compare",
    "toymodels.experiments.train",
    "toymodels.experiments.dictionary",
)
"""Kinds of runs by their names in records, on the command line and in a sweep file's command."""


def summary_of(experiment: Experiment, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers by which runs are compared, from the content of results.json."""
    if experiment.summary is not None:
        return experiment.summary(content)
    rows = content["rows"]
    numbers = {name: [row[name] for row in rows if row.get(name) is not None] for name in all_metrics(rows)}
    return {name: sum(values) / len(values) for name, values in numbers.items() if values}


def knobs_of_layers(config: Any, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return all knobs of each first layer in the rows, also those at their defaults; of a trained one, those of its start."""
    from toymodels.core.layers import LAYERS

    known: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["first_layer"] for row in rows if row.get("first_layer")):
        with suppress(InputError):  # no name of a first layer, in a kind of run of somebody's own
            trained = LAYERS[parse_call(name)[0]].role == "trained"
            start = getattr(config, "layer", name) if trained else name
            member, given = LAYERS.named(start, getattr(config, "knobs", {}))
            knobs = {**member.knobs, **given}
            known[name] = {knob: value for knob, value in knobs.items() if isinstance(value, int | float | str)}
    return known


def without_effect(config: Any, given: Collection[str] = ()) -> list[str]:
    """Return a sentence for each setting that is `given`, or not at its default, and has no effect under the others.

    Raises InputError for the learning rate and other settings of Adam if L-BFGS trains.
    """
    if not hasattr(config, "idle"):
        return []
    set_ = changed(config)
    idle = config.idle()
    wrong = [name for name in OF_ADAM if name in idle and name in set_]
    if wrong:
        named = " and ".join(f"{name} = {getattr(config, name)}" for name in wrong)
        raise NoEffectError(f"{named}: no effect, because {idle[wrong[0]]}, or leave it out")
    return [f"{name} has no effect here: {idle[name]}" for name in idle if name in set_ or name in given]


def run(kind: str, config: Any) -> Path:
    """Do or continue a run; return the folder of its record.

    Raises InputError for wrong settings or a folder that holds another run, before anything is written; Interrupted on Ctrl-C.
    """
    from toymodels.parallel.processes import bars
    from toymodels.runs.record import FORMAT, begin_session, load_config, locked, open_record, run_name
    from toymodels.runs.table import read_result, tidy
    from toymodels.runs.tracking import Mirror, check_mirror

    experiment = EXPERIMENTS[kind]
    check_device(config.device)
    experiment.check(config)
    for sentence in without_effect(config):
        if bars():
            notice(sentence)
    check_mirror(config.wandb)
    folder = open_record(kind, config, config.out)
    copy = getattr(config, "json", None)
    if load_config(folder).format != FORMAT:  # finished by an earlier version: it is read, not repeated
        if copy is not None:
            write_json(copy, read_result(folder))
        return folder
    follows = experiment.one_history and len(config.seeds) == 1
    with locked(folder), Mirror(config, kind, folder, follows) as mirror:
        if not (folder / "results.json").exists():
            begin_session(folder)
        with plugin_failures():
            result = experiment.function(config, folder, mirror.progress)
        if not isinstance(result, Result):
            result = Result(list(result))
        rows = tidy(kind, folder.name, to_dict(config), result.rows, experiment.measures)
        about = {"format": FORMAT, "name": run_name(kind, config), "knobs": knobs_of_layers(config, rows)}
        content = {**about, "rows": rows, **result.extra}
        write_results(folder / "results.json", content)
        # What follows may fail, but not cost the results.
        with afterwards("the results were not sent to W&B"):
            mirror.histories()
            mirror.table(result.rows)
            mirror.summary(summary_of(experiment, content))
        if getattr(config, "figures", False):
            with afterwards("no figure was drawn"):
                from toymodels.figures.draw import draw_run

                for path in draw_run(folder):
                    with afterwards(f"{path.name} was not sent to W&B"):
                        mirror.figure(path)
        if copy is not None:
            write_results(copy, content)
    return folder


@contextmanager
def afterwards(what: str) -> Iterator[None]:
    """Say in one sentence what has failed after the results were written, and go on."""
    try:
        yield
    except Exception as error:
        reason = str(error).partition("\n")[0]
        known = isinstance(error, (InputError, WriteError))
        notice(f"{what} ({reason if known else f'{type(error).__name__}: {reason}'}); the results are complete")
