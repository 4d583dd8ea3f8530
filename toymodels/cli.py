"""The command line, made from the configuration dataclasses."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Union

# Idle OpenMP threads that spin would take the core from the process beside them; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import tyro

from toymodels.errors import InputError
from toymodels.experiments import show
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.experiments.sizes import BoundsConfig, WidthConfig
from toymodels.experiments.train import TrainConfig, run_train

DESCRIPTION = "Computation in superposition: train, freeze, read off and measure toy networks on U-AND and U-XOR."


@dataclass(frozen=True)
class ShowConfig:
    """Print a run from its record."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    evaluate: bool = False
    """Rebuild every network of the run from the record alone, repeat its evaluation, and print both figures."""


Command = Union[  # noqa: UP007
    Annotated[CompareConfig, tyro.conf.subcommand("compare")],
    Annotated[TrainConfig, tyro.conf.subcommand("train")],
    Annotated[ShowConfig, tyro.conf.subcommand("show")],
    Annotated[BoundsConfig, tyro.conf.subcommand("bounds")],
    Annotated[WidthConfig, tyro.conf.subcommand("width")],
]


def parse(arguments: Sequence[str] | None) -> CompareConfig | TrainConfig | ShowConfig | BoundsConfig | WidthConfig:
    """The configuration that the arguments ask for. Raises InputError, in one sentence, for arguments that make none."""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            return tyro.cli(Command, args=arguments, prog="toymodels", description=DESCRIPTION)
    except SystemExit as stop:
        if not stop.code:
            raise
        cause: BaseException | None = stop
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__context__
        raise cause or InputError(_sentence(shown.getvalue())) from None


def _sentence(box: str) -> str:
    """What tyro says in the first part of its box, in one line; the box is drawn with lines or, in ASCII, with dashes."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]  # the first line is the box's title
    ruled = [not line.strip("─-╰╯") for line in lines]
    start = 1 if ruled and ruled[0] else 0
    end = ruled.index(True, start) if True in ruled[start:] else len(lines)
    return " ".join(lines[start:end]) + " (see --help)"


def _sizes(config: BoundsConfig | WidthConfig) -> str:
    """The tables of `bounds` and `width`; they load more of SciPy than other commands want."""
    if isinstance(config, WidthConfig):
        from toymodels.experiments.width import run_width

        return run_width(config)
    from toymodels.experiments.bounds import run_bounds

    return run_bounds(config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `toymodels` and `python -m toymodels`; returns the exit status.

    0: done; 2: a wrong input, in one sentence; 1: a run that failed; 130: stopped by Ctrl-C.
    """
    resumes = ""
    try:
        config = parse(arguments)
        if isinstance(config, ShowConfig):
            print(show.describe(config.run, config.evaluate))
            return 0
        if isinstance(config, (BoundsConfig, WidthConfig)):
            print(_sizes(config))
            return 0
        resumes = "; the same command goes on from there"
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
