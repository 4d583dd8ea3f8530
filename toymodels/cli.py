"""The command line: each command is a configuration dataclass and a function of it."""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.metadata
import re
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from toymodels.arguments import parse, plugins_in
from toymodels.errors import InputError, WriteError, nearest, notice
from toymodels.experiments.registry import EXPERIMENTS
from toymodels.given import refuse_all
from toymodels.parallel import stopping
from toymodels.parallel.progress import tell_if_slow
from toymodels.parallel.terminal import show_any_text, visible, write_out
from toymodels.registry import deferred, load_plugins

DESCRIPTION = (
    "Computation in superposition: train, freeze, read off and measure toy networks on U-AND, U-XOR and other tasks."
)


@dataclass(frozen=True)
class ShowConfig:
    """Print a run from its record."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    evaluate: bool = False
    """Rebuild every network from the record alone, repeat its evaluation, and print the old and the new numbers."""


@dataclass(frozen=True)
class RunConfig:
    """Do one run from a file of its configuration, as agents of W&B sweeps call it."""

    kind: tyro.conf.Positional[str]
    """compare or train, or a kind of your own."""
    file: tyro.conf.Positional[Path]
    """JSON: the configuration's fields by name; a missing field has its default. A mapping under a name that is no field sets
    several fields."""
    base: tuple[Path, ...] = ()
    """Files of settings (JSON, or YAML) that several sweeps share; the configuration's own go before them."""
    out: Path | None = None
    """Folder of the record; default runs/ and a name made from the configuration."""
    plugin: tuple[Path, ...] = ()
    """Python files of your own that define the kind, if the configuration does not name them."""


@dataclass(frozen=True)
class CheckConfig:
    """Check every member that a plugin registers, as this library's own members are checked."""

    file: tyro.conf.Positional[Path]
    """Python file of your own."""


@dataclass(frozen=True)
class ResultsConfig:
    """Print one tidy table of all finished runs below a folder."""

    folder: tyro.conf.Positional[Path]
    """Folder of a sweep, of a run, or of several."""
    out: Path | None = None
    """Write the table to this file (.csv or .jsonl) instead of printing it."""


@dataclass(frozen=True)
class CiteConfig:
    """Print how to cite this package, with its version and commit, or those that a run was done with."""

    run: tyro.conf.Positional[Path | None] = None
    """Folder of a run."""


@dataclass(frozen=True)
class ReportConfig:
    """Write all figures and tables of a sweep into one page that opens anywhere."""

    folder: tyro.conf.Positional[Path]
    """Folder of a sweep."""
    out: Path | None = None
    """The HTML file; default report.html in the folder."""


def _show(config: ShowConfig) -> tuple[str, int]:
    from toymodels.experiments.show import describe, evaluate_again

    tables = describe(config.run)
    if not config.evaluate or not (config.run / "results.json").exists():
        return tables, 0
    again, agree = evaluate_again(config.run)
    return f"{tables}\n\n{again}", 0 if agree else 1


def _check(config: CheckConfig) -> tuple[str, int]:
    from toymodels.parallel.processes import work_alone
    from toymodels.testing import check_plugin

    work_alone()  # small trainings, without progress bars
    verdicts = list(check_plugin(config.file))
    lines = [f"{noun} {name}: {wrong or 'passes every check'}" for noun, name, wrong in verdicts]
    return "\n".join(lines), int(any(wrong for *_, wrong in verdicts))


def _results(config: ResultsConfig) -> str:
    from toymodels.runs import table

    return table.write(config.folder, config.out) if config.out else table.describe(config.folder)


def _report(config: ReportConfig) -> str:
    from toymodels.figures.report import write_report

    return f"report: {write_report(config.folder, config.out or config.folder / 'report.html')}"


def _run_one(config: RunConfig) -> str:
    """Do the run that a JSON file describes."""
    from toymodels.runs.identity import from_dict, spread
    from toymodels.sweeps.yaml_file import read_settings

    load_plugins(config.plugin)
    # An agent of W&B adds keys of its own to the sweep's parameters.
    values = {key: value for key, value in read_settings(config.file).items() if not key.startswith("_wandb")}
    bases = [read_settings(path) for path in config.base]
    named = [files for settings in (*bases, values) if (files := settings.get("plugin"))]
    plugins = [file for files in named[-1:] for file in (files if isinstance(files, list) else [files])]
    load_plugins([file for file in plugins if isinstance(file, str)])
    experiment = EXPERIMENTS[config.kind]
    known = experiment.config.__dataclass_fields__
    problems: list[str] = []
    merged: dict[str, Any] = {}
    for settings in (*bases, values):
        single, wrong = spread(settings, known)
        merged |= single
        problems += wrong
    refuse_all(problems)
    if config.out:
        merged["out"] = config.out
    if config.plugin:
        merged["plugin"] = [*config.plugin, *plugins]
    return _do(config.kind, from_dict(experiment.config, merged), merged)


def _do(kind: str, config: Any, given: Collection[str] = ()) -> str:
    """Do a run. `given` are the settings that the user has set, at their defaults or not."""
    from toymodels.experiments import registry
    from toymodels.experiments.show import describe
    from toymodels.runs.identity import changed

    set_ = changed(config)
    for sentence in registry.without_effect(config, given):
        if sentence.partition(" ")[0] not in set_:  # of the others `run` says it
            notice(sentence)

    folder = registry.run(kind, config)
    try:
        tables = describe(folder)
    except InputError as error:  # the run is done: a table that cannot be printed is no failure of it
        tables = str(error)
    return f"{tables}\n\nrecord: {folder}"


def _given(words: Sequence[str]) -> set[str]:
    """Return the names of the settings that a command line sets."""
    options = [word.partition("=")[0].removeprefix("--") for word in words if word.startswith("--")]
    return {option.removeprefix("no-").replace("-", "_") for option in options}


@dataclass(frozen=True)
class Command:
    """A command: its configuration, imported when it is needed, and its function."""

    text: str
    config: Callable[[], type[Any]]
    function: Callable[[Any], str | tuple[str, int]]
    """Returns the text to print, and an exit status if it is not 0."""
    resumes: bool = False
    """Whether the same command continues a stopped one."""
    prepare: Callable[[], Callable[[Sequence[str]], list[str]]] = lambda: list
    """Returns a function that turns the words of the command line into words that the configuration knows."""


def _of(module: str, name: str) -> Callable[[], Any]:
    """Return a function that imports and returns a name when it is called."""
    return lambda: getattr(importlib.import_module(f"toymodels.{module}"), name)


def _own(config: type[Any], function: Callable[[Any], str | tuple[str, int]], resumes: bool = False) -> Command:
    """Return a command whose configuration is defined in this module, and described by its docstring."""
    return Command(config.__doc__ or "", lambda: config, function, resumes)


def _lazy(module: str, config: str, function: str, text: str, resumes: bool = False, prepare: str = "") -> Command:
    """Return a command whose configuration and function are those of another module, imported when they are needed."""
    words = _of(module, prepare) if prepare else lambda: list
    return Command(text, _of(module, config), deferred(module, function), resumes, words)


def _sweep(config: Any) -> tuple[str, int]:
    from toymodels.sweeps.runner import dry_run, run_sweep

    if config.dry_run:
        return dry_run(config), 0
    folder, failed = run_sweep(config)
    reasons = f", failed runs: {failed:,} (reasons in {folder / 'failed'})" if failed else ""
    return f"sweep: {folder}{reasons}", 1 if failed else 0


def _experiment(name: str) -> Command:
    experiment = EXPERIMENTS[name]
    return Command(experiment.purpose, lambda: experiment.config, lambda config: _do(name, config), resumes=True)


def commands() -> dict[str, Command]:
    """Return all commands by name, those of experiments first."""
    experiments = {name: _experiment(name) for name in EXPERIMENTS}
    return {
        **experiments,
        "show": _own(ShowConfig, _show),
        "evaluate": _lazy("experiments.measure", "EvaluateConfig", "measure",
                          "Measure a network that was made elsewhere, from the file of its weights."),
        "export": _lazy("ground_truth.export", "ExportConfig", "export",
                        "Write a network of a run, with its task and inputs, into a folder that other programs can read."),
        "bounds": Command("Print each prediction and floor at one size with its source, and measurements beside them.",
                          _of("laws.sizes", "BoundsConfig"), deferred("laws.tables", "run_bounds")),
        "width": Command("Print how wide the layer must be for an error ε, by each law and each lower bound.",
                         _of("laws.sizes", "WidthConfig"), deferred("laws.tables", "run_width")),
        "run": _own(RunConfig, _run_one, True),
        "sweep": Command("Do the runs of a W&B sweep file without a server: on all cores of this machine, or on a cluster.",
                         _of("sweeps.runner", "SweepConfig"), _sweep, True),
        "search": _lazy("experiments.search", "SearchConfig", "measure",
                        "Find how wide each first layer must be for an error, or how many features fit in a width.", True),
        "atlas": _lazy("experiments.atlas", "AtlasConfig", "run_atlas",
                       "Print, prove, extend or search the atlas of the best layers known, cell by cell.", True),
        "descend": _lazy("experiments.descend", "DescendConfig", "run_descend",
                         "Bring down the worst error of a first layer along its exact gradient.", True),
        "check": _own(CheckConfig, _check),
        "results": _own(ResultsConfig, _results),
        "runs": _lazy("experiments.listing", "RunsConfig", "run_listing",
                      "List the runs and sweeps below a folder, or compare two runs."),
        "draw": _lazy("figures.draw", "DrawConfig", "run_draw",
                      "Draw a figure from a table of results or from the record of a run.", prepare="with_knobs"),
        "report": _own(ReportConfig, _report),
        "diagnose": _lazy("diagnosis.command", "DiagnoseConfig", "run_diagnose",
                          "Say how a network computes real-valued features: naive, linear copy, sparse or dense code, mixed, "
                          "undecided."),
        "reproduce": _lazy("reproductions.command", "ReproduceConfig", "reproduce",
                           "Measure a published figure or table again, ours beside the published number.", True),
        "cite": _own(CiteConfig, lambda config: deferred("runs.citation", "citation")(config.run)),
    }  # fmt: skip


def _overview() -> str:
    known = commands()
    width = max(map(len, known))
    lines = [f"  {name.ljust(width)}  {command.text}" for name, command in known.items()]
    return "\n".join([
        "usage: toymodels COMMAND [OPTIONS]", "", DESCRIPTION, "", *lines, "",
        "toymodels COMMAND --help prints every option of a command. --plugin FILE.py before or after COMMAND adds members of",
        "your own (first layers, readoffs, tasks, losses, kinds of runs, …). toymodels --version prints the version.",
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, as `toymodels` and `python -m toymodels` do, and return the exit status.

    0: done; 2: a wrong input, described in one sentence; 1: failed runs, a full disk, networks that differ; 128 + the number of
    the signal that stopped it (130: Ctrl-C, 143: SIGTERM, 129: SIGHUP); 141: nobody reads its output any more.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    resumes, again = "", "; the same command goes on from there"
    stderr = sys.stderr
    show_any_text()
    stopping.forget_signal()
    try:
        early, words = plugins_in(words)
        load_plugins(early)
        if words and words[0] in ("-h", "--help"):
            write_out(_overview())
            return 0
        if not words:
            print(_overview(), file=sys.stderr)
            return 2
        if words[0] in ("-V", "--version"):
            write_out(f"toymodels {importlib.metadata.version('toymodels')}")
            return 0
        known = commands()
        if words[0] not in known:
            hint = f"{nearest(words[0], known)}choose one of {', '.join(known)} (see toymodels --help)"
            raise InputError(f"unknown command {words[0]!r}: {hint}")
        command = known[words[0]]
        with tell_if_slow(f"toymodels {words[0]}: at work"):
            config = parse(command.config(), command.prepare()(words[1:]), f"toymodels {words[0]}", early)
            resumes = again if command.resumes else ""
            stopping.stop_gently(resumes)
            printed = command.function(config) if words[0] not in EXPERIMENTS else _do(words[0], config, _given(words))
        text, status = printed if isinstance(printed, tuple) else (printed, 0)
        write_out(text)
        return status
    except BrokenPipeError:  # as in `toymodels results … | head`
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as stop:
        return _stopped(str(stop), resumes)
    except Exception as error:
        if stopping.received():  # an import that is interrupted, or a pool whose workers end, raises errors of its own
            return _stopped("", resumes)
        said = _sentence(error, again)
        if said is None:
            raise
        print(f"toymodels: {visible(said[0])}", file=sys.stderr)
        return said[1]
    finally:
        sys.stderr = stderr


def _stopped(how_far: str, resumes: str) -> int:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"toymodels: {how_far or 'stopped'}{resumes}", file=sys.stderr, flush=True)
    return 128 + (stopping.received() or signal.SIGINT)


def _sentence(error: Exception, again: str) -> tuple[str, int] | None:
    """Return the sentence for an error, and the exit status; None for an error of ours that nobody expected."""
    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, BrokenProcessPool):
        return f"a worker process was killed (out of memory?){again}", 1
    out_of_memory = re.search(r"allocate|out of memory|not enough memory", str(error))
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and out_of_memory):
        # torch raises RuntimeError if memory runs out
        return f"not enough memory for this size ({str(error).partition(chr(10))[0]})", 1
    if isinstance(error, OSError) and not isinstance(error, WriteError):
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR) and error.filename:
            return f"{str(error.filename)[:80]}: {error.strerror}: name another file or folder", 2
        reason = str(error.strerror or error)
        return (f"{error.filename}: {reason}" if error.filename and error.strerror else reason), 1
    return (str(error), 1) if isinstance(error, ArithmeticError | OSError) else None


if __name__ == "__main__":
    sys.exit(main())
