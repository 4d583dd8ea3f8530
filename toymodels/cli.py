"""The command line, made from the configuration dataclasses."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union

# Idle OpenMP threads that spin would take the core from the process beside them; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import tyro

from toymodels.arguments import parse
from toymodels.errors import InputError
from toymodels.experiments import show
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.experiments.kinds import kind_of
from toymodels.experiments.train import TrainConfig, run_train
from toymodels.laws.sizes import BoundsConfig, WidthConfig
from toymodels.runs.config import from_dict
from toymodels.runs.storage import read_json
from toymodels.sweeps.runner import SweepConfig, run_sweep

DESCRIPTION = "Computation in superposition: train, freeze, read off and measure toy networks on U-AND and U-XOR."


@dataclass(frozen=True)
class ShowConfig:
    """Print a run from its record."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    evaluate: bool = False
    """Rebuild every network of the run from the record alone, repeat its evaluation, and print both figures."""


@dataclass(frozen=True)
class RunConfig:
    """Do one run from a file of its configuration, as agents of W&B sweeps call it."""

    kind: tyro.conf.Positional[str]
    """compare or train."""
    file: tyro.conf.Positional[Path]
    """JSON: the configuration's fields by name; what is left out has its default."""
    out: Path | None = None
    """Folder of the record; default runs/ and a name made from the configuration."""


@dataclass(frozen=True)
class SweepCommand(SweepConfig):
    """Do the runs of a W&B sweep file here, without a server: on all cores, or on a cluster."""

    file: tyro.conf.Positional[Path]
    """Sweep file (YAML), as `wandb sweep` takes it."""


@dataclass(frozen=True)
class ResultsConfig:
    """One tidy table of all finished runs below a folder: a row for each run, seed, gate, first layer and readoff."""

    folder: tyro.conf.Positional[Path]
    """Folder of a sweep, of a run, or of several."""
    out: Path | None = None
    """Write it there (.csv or .jsonl) in place of printing the figures."""


@dataclass(frozen=True)
class ReportConfig:
    """All figures and tables of a sweep in one page that opens anywhere."""

    folder: tyro.conf.Positional[Path]
    """Folder of a sweep."""
    out: Path | None = None
    """The HTML file; default report.html in the folder."""


Command = Union[  # noqa: UP007
    Annotated[CompareConfig, tyro.conf.subcommand("compare")],
    Annotated[TrainConfig, tyro.conf.subcommand("train")],
    Annotated[ShowConfig, tyro.conf.subcommand("show")],
    Annotated[BoundsConfig, tyro.conf.subcommand("bounds")],
    Annotated[WidthConfig, tyro.conf.subcommand("width")],
    Annotated[RunConfig, tyro.conf.subcommand("run")],
    Annotated[SweepCommand, tyro.conf.subcommand("sweep")],
    Annotated[ResultsConfig, tyro.conf.subcommand("results")],
    Annotated[ReportConfig, tyro.conf.subcommand("report")],
]


def _text(config: Any) -> str | None:
    """What a command that does no run prints; None for one that does. Each loads what others do not want."""
    if isinstance(config, ShowConfig):
        return show.describe(config.run, config.evaluate)
    if isinstance(config, ResultsConfig):
        from toymodels.runs import table as results

        return results.write(config.folder, config.out) if config.out else results.describe(config.folder)
    if isinstance(config, ReportConfig):
        from toymodels.figures.report import write_report

        return f"report: {write_report(config.folder, config.out or config.folder / 'report.html')}"
    if isinstance(config, WidthConfig):
        from toymodels.laws.tables import run_width

        return run_width(config)
    if isinstance(config, BoundsConfig):
        from toymodels.laws.tables import run_bounds

        return run_bounds(config)
    return None


def _run_one(config: RunConfig) -> Path:
    """The run that a JSON file describes."""
    kind, values = kind_of(config.kind), read_json(config.file, ())
    if not isinstance(values, dict):
        raise InputError(f"{config.file} holds no configuration: it must be a JSON object of its fields")
    # An agent of W&B adds its own notes to the sweep's parameters.
    values = {key: value for key, value in values.items() if not key.startswith("_wandb")}
    return kind.run(from_dict(kind.config, {**values, **({"out": config.out} if config.out else {})}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `toymodels` and `python -m toymodels`; returns the exit status.

    0: done; 2: a wrong input, in one sentence; 1: a run that failed, or some of a sweep's; 130: stopped by Ctrl-C.
    """
    resumes = ""
    try:
        config = parse(Command, DESCRIPTION, arguments, "toymodels")
        text = _text(config)
        if text is not None:
            print(text)
            return 0
        resumes = "; the same command goes on from there"
        if isinstance(config, SweepConfig):
            folder, failed = run_sweep(config)
            print(f"sweep: {folder}" + (f", {failed} runs failed (reasons in {folder / 'failed'})" if failed else ""))
            return 1 if failed else 0
        if isinstance(config, RunConfig):
            folder = _run_one(config)
        else:
            folder = run_compare(config) if isinstance(config, CompareConfig) else run_train(config)
        print(f"{show.describe(folder)}\n\nrecord: {folder}")
    except InputError as error:
        print(f"toymodels: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"toymodels: {str(stop) or 'stopped'}{resumes}", file=sys.stderr)
        return 130
    except BrokenProcessPool:
        print(
            "toymodels: a worker process was killed (out of memory?); the same command goes on from there",
            file=sys.stderr,
        )
        return 1
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if "memory" not in str(error) and not isinstance(error, MemoryError):
            raise
        print(f"toymodels: not enough memory for this size ({str(error).splitlines()[0]})", file=sys.stderr)
        return 1
    except (ArithmeticError, OSError) as error:
        print(f"toymodels: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
