"""Kill commands with SIGKILL at random moments, again and again: nothing is lost, repeated or changed.

TOYMODELS_KILLS is the number of kills of each kind (default 3), TOYMODELS_KILLS_SEED draws the moments; 25 is 100 in all.
"""

import json
import multiprocessing
import os
import random
import signal
import time

import pytest
from safetensors.torch import load_file

from tests.sweeps.toy import COMMAND, processes, start, write
from toymodels.runs.table import read_table

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("TOYMODELS_KILLS", "3"))
SEED = int(os.environ.get("TOYMODELS_KILLS_SEED", "0"))
SECONDS = 300
"""After which a command hangs."""
SWEEP = f"""method: grid
{COMMAND}parameters:
  m: {{value: 6}}
  steps: {{value: 150}}
  seeds: {{value: [0]}}
  checkpoint_seconds: {{value: 0.02}}
  d: {{values: [3, 4, 5, 6, 7, 8, 9, 10]}}
"""
TRAIN = ["train", "--m", "10", "--d", "20", "--steps", "400", "--seeds", "0", "1", "--checkpoint-seconds", "0.02"]
COMMANDS = {
    "kfac": TRAIN,
    "lbfgs": [*TRAIN, "--optimiser", "lbfgs"],
    "adam": [*TRAIN, "--optimiser", "adam"],
    "compare": [
        "compare", "--m", "10", "--d", "20", "--steps", "200", "--checkpoint-seconds", "0.02", "--no-figures",
        "--task", "and", "xor",
    ],
}  # fmt: skip
DONE = ("results.json", "result.json", "network.safetensors", "*-*.json")
"""Files that are written once, last of all, when a run, a seed, a training or a row is finished."""


def command_here(words, folder):
    """Do a command in this process, which was forked from one that has imported everything."""
    os.setsid()
    with open(folder / "log", "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    import torch

    from toymodels.cli import main
    from toymodels.parallel import processes

    torch.set_num_threads(1)
    processes.cores = lambda: 1  # all jobs in this process
    os._exit(main([*words, "--out", str(folder / "run")]))


def begin(kind, folder):
    """Start the command of this kind in a process group of its own; return (pid, function that returns its exit status)."""
    if kind == "sweep":
        path = write(folder, SWEEP)
        process = start(folder, "sweep", path, "--out", folder / "run", "--workers", 2)

        def status():
            if process.poll() is not None:
                process.communicate()
            return process.poll()

        return process.pid, status
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "toymodels.cli", "toymodels.experiments.comparison", "toymodels.runs.text"]
    )
    process = context.Process(target=command_here, args=(COMMANDS[kind], folder))
    process.start()
    return process.pid, lambda: process.exitcode


def ended(status, until=SECONDS):
    """Wait for the end of a command; return its exit status, or None if it still runs after so many seconds."""
    deadline = time.monotonic() + until
    while (code := status()) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return code


def finished(folder):
    """The times of all files that are written once."""
    return {path: path.stat().st_mtime_ns for pattern in DONE for path in folder.rglob(pattern)}


def content(folder):
    """Everything that a run has made, bit for bit, but for the seconds that it took."""
    made = {}
    for path in folder.rglob("network.safetensors"):
        weights = load_file(path)
        made |= {
            (path.parent.name, name): value.numpy().tobytes()
            for name, value in weights.items()
            if "seconds" not in name
        }
    for path in folder.rglob("metrics.jsonl"):
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        made[path.relative_to(folder)] = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
    rows = [{key: value for key, value in row.items() if key not in ("seconds", "run")} for row in read_table(folder)]
    return made, sorted(map(json.dumps, rows))


@pytest.mark.parametrize("kind", ["sweep", *COMMANDS])
def test_killed_at_random_moments(kind, tmp_path, capfd):
    moments = random.Random(f"{SEED}{kind}")
    whole = tmp_path / "whole"
    whole.mkdir()
    pid, status = begin(kind, whole)
    while not list(whole.rglob("config.json")):
        assert status() is None
        time.sleep(0.01)
    began = time.monotonic()
    assert ended(status) == 0, (whole / "log").read_text() if kind != "sweep" else ""
    seconds = time.monotonic() - began
    expected = content(whole / "run")
    kills = repeated = lost = completed = 0
    while kills < KILLS or completed == 0:
        folder = tmp_path / f"killed-{completed}"
        folder.mkdir(exist_ok=True)
        before = finished(folder)
        pid, status = begin(kind, folder)
        if kills < KILLS:
            deadline = time.monotonic() + SECONDS
            early = moments.random() < 0.1  # otherwise the time counts from when it has begun to work
            while not early and not list(folder.rglob("config.json")) and status() is None:
                time.sleep(0.01)
                assert time.monotonic() < deadline
            ended(status, moments.uniform(0, 0.7 * seconds))
        else:
            ended(status)
        if status() is None:
            workers = [number for number in processes(folder) if number != pid] if kind == "sweep" else []
            whom = moments.choice(["group", "parent", "worker"])
            if whom == "worker" and workers:
                os.kill(moments.choice(workers), signal.SIGKILL)
                ended(status)  # the sweep does that run again
            else:
                leads = os.getpgid(pid) == pid  # not yet, if it has only just begun
                (os.killpg if whom == "group" and leads else os.kill)(pid, signal.SIGKILL)
            kills += 1
            assert ended(status) is not None
            deadline = time.monotonic() + 20
            while kind == "sweep" and processes(folder):
                assert time.monotonic() < deadline, "a worker outlives its parent"
                time.sleep(0.05)
        now = finished(folder)
        lost += len(before.keys() - now.keys())
        repeated += sum(now[path] != when for path, when in before.items() if path in now)
        if status() == 0:
            assert content(folder / "run") == expected
            completed += 1
    with capfd.disabled():
        print(f"\n{kind}: {kills} kills, {completed} runs to their end, {lost} files lost, {repeated} repeated")
    assert lost == repeated == 0
