"""Toy sweeps, done in this process or by commands of their own."""

import itertools
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

from toymodels.experiments import build
from toymodels.runs.table import read_table
from toymodels.sweeps import runner
from toymodels.sweeps.definition import SweepFile
from toymodels.sweeps.search import search

ROOT = Path(__file__).parents[2]

COMMAND = 'command: ["${env}", "toymodels", "run", "train", "${args_json_file}"]\n'
PARAMETERS = "parameters:\n  m: {value: 5}\n  steps: {value: 8}\n  seeds: {value: [0]}\n"
GRID = f"method: grid\n{COMMAND}{PARAMETERS}  d: {{values: [3, 4, 5, 6]}}\n"

FOLLOW = "from tests.sweeps.toy import follow_environment\n\nfollow_environment()\n"
"""A plugin that makes workers do what the environment says."""
DRIVER = """
from tests.sweeps.toy import follow_environment
from toymodels.cli import main

follow_environment()
if __name__ == "__main__":
    raise SystemExit(main())
"""
"""The command line, which logs every training that its workers begin, and loses the processes that it is told to lose."""


def follow_environment():
    """Let this process log each training that it begins in TOY_LOG, and do what the other variables TOY_… say."""
    if "TOY_LOOK" in os.environ:
        build._LOOK_SECONDS = runner._LOOK_SECONDS = float(os.environ["TOY_LOOK"])
    original = build.train_network

    def logged(config, task, layer, seed, folder, *rest):
        with open(os.environ["TOY_LOG"], "a") as log:
            print(folder.parent.name, os.getpid(), file=log)
        while Path(os.environ["TOY_LOG"]).read_text().count("\n") < int(os.environ.get("TOY_MEET", 0)):
            time.sleep(0.01)  # until so many have come
        times = Path(os.environ["TOY_LOG"]).read_text().count(folder.parent.name)
        if times <= int(os.environ.get(f"TOY_KILL_{config.d}", 0)):
            os.kill(os.getpid(), signal.SIGKILL)  # as a system out of memory does
        return original(config, task, layer, seed, folder, *rest)

    build.train_network = logged


class Here:
    """A backend in this process: a run is done when somebody asks whether it is."""

    def __init__(self, before=lambda values: None, slots=2):
        self.before, self._slots, self.handed_over = before, slots, []

    def slots(self):
        return self._slots

    def submit(self, function, kind, values, folder, failure):
        self.handed_over.append(Path(folder).name)
        future = Future()

        def done():
            if not future.done():
                try:
                    self.before(values)
                    future.set_result(function(kind, values, folder, failure))
                except Exception as error:
                    future.set_exception(error)
            return True

        return SimpleNamespace(done=done, result=future.result)

    def interrupt(self):
        self.interrupted = True

    def close(self):
        self.closed = True


def read_sweep(path, known=None):
    """Read the sweep of a file as a plan does, whose configuration has the names `known`."""
    file = SweepFile(path)
    sweep = file.sweep()
    file.check_names(sweep, known)
    file.refuse_collected()
    return sweep


def configurations(sweep, seed=0):
    """Yield the configuration of each run, from number 0 until there are no more."""
    suggested = map(search(sweep, seed).suggest, itertools.count())
    return itertools.takewhile(lambda config: config is not None, suggested)


def write(folder, text, name="toy.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def start(folder, *arguments, **environment):
    """`toymodels …` as a process group of its own, which logs its trainings in folder/log."""
    driver = write(folder, DRIVER, "driver.py")
    environment = {"TOY_LOG": folder / "log", "OMP_NUM_THREADS": "1", "PYTHONPATH": ROOT, **environment}
    return subprocess.Popen(
        [sys.executable, driver, *map(str, arguments)],
        env={**os.environ, "TOY_FOLDER": str(folder), **{key: str(value) for key, value in environment.items()}},
        start_new_session=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process, seconds=180):
    """What a command says until it ends; one that hangs is killed, with all that it started."""
    try:
        return process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise


def trainings(folder):
    """How often each run's training was begun, by the run's name."""
    names = [line.split()[0] for line in (folder / "log").read_text().splitlines()]
    return {name: names.count(name) for name in names}


def processes(folder):
    """Processes alive that a `start` in this folder has left, its own among them."""
    mark, found = f"TOY_FOLDER={folder}".encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            dead = (path / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            if not dead and mark in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def table(folder):
    """The results table without what time alone decides, in an order of its own."""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in read_table(folder)]
    return sorted(rows, key=lambda row: (row["run"], row["seed"]))
