"""Sweeps on workers that are not ours: a Dask cluster of real processes, and jobs by submitit."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.members import own
from tests.sweeps.toy import COMMAND, GRID, PARAMETERS, ROOT, Here, table, write
from toymodels import registry
from toymodels.cli import main
from toymodels.core.layers import LAYERS
from toymodels.parallel import processes as jobs
from toymodels.runs.table import read_table
from toymodels.sweeps import executors, runner
from toymodels.sweeps.runner import SweepConfig, run_sweep

LONG = GRID.replace(
    "steps: {value: 8}", "steps: {value: 100}\n  plugin: {value: [lab.py]}\n  layer: {value: odd}"
).replace("[3, 4, 5, 6]", "[3, 4, 5, 6, 7, 8]")
LAB = """
import torch
from toymodels.core.layers import LAYERS, FirstLayer

@LAYERS("odd", source="this test")
def odd(m: int, d: int, seed: int) -> FirstLayer:
    weight = torch.randn(d, m, generator=torch.Generator().manual_seed(seed))
    return FirstLayer(weight.round(), torch.ones(d), "relu", "odd")
"""


def dask(*words, **more):
    command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]]
    own = {"OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__ADMIN__LOG_LENGTH": "0", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **own}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **more
    )


@pytest.fixture
def cluster(tmp_path):
    """(address of a scheduler, its two workers)."""
    scheduler = dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", cwd=tmp_path)
    address = next(found[0] for line in scheduler.stderr if (found := re.search(r"tcp://127\.0\.0\.1:\d+", line)))
    options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
    workers = [dask("worker", address, *options, "--local-directory", str(tmp_path / f"worker{i}")) for i in range(2)]
    everything = [*workers, scheduler]
    try:
        yield address, workers
    finally:
        for process in everything:
            process.kill()
        for process in everything:
            process.communicate()


def test_a_cluster_that_loses_a_worker_loses_no_run(cluster, tmp_path, monkeypatch, capfd):
    """Of runs whose first layer is a plugin's, which stands beside the sweep file."""
    address, workers = cluster
    own(monkeypatch, LAYERS)
    monkeypatch.setattr(registry, "_plugins", {})
    write(tmp_path, LAB, "lab.py")
    path = write(tmp_path, LONG)

    def kill_one():
        while not list((tmp_path / "s").glob("runs/*/results.json")):
            time.sleep(0.01)
        workers[0].send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    assert main(["sweep", str(path), "--out", str(tmp_path / "s"), "--scheduler", address]) == 0
    assert not killer.is_alive()
    said = capfd.readouterr().err
    assert "6/6" in said
    assert "Traceback" not in said
    monkeypatch.setattr(jobs, "_alone", False)
    monkeypatch.setattr(runner, "open_backend", lambda *_: Here())
    run_sweep(SweepConfig(path, tmp_path / "alone"))
    assert table(tmp_path / "s") == table(tmp_path / "alone")
    assert [row["layer"] for row in table(tmp_path / "alone")] == ["odd"] * 6


def test_a_scheduler_that_does_not_answer_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executors, "_ANSWER_SECONDS", 1)
    path = write(tmp_path, GRID)
    started = time.monotonic()
    assert main(["sweep", str(path), "--scheduler", "tcp://127.0.0.1:1"]) == 2
    assert time.monotonic() - started < 60
    said = capsys.readouterr().err
    assert "does not answer" in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_jobs_of_submitit(tmp_path):
    """By its local executor, which runs each job in a process of its own."""
    folder, failed = run_sweep(
        SweepConfig(write(tmp_path, GRID.replace("[3, 4, 5, 6]", "[3]")), tmp_path / "s", scheduler="slurm-local")
    )
    assert failed == 0
    assert [row["d"] for row in read_table(folder)] == [3]
    assert len(list((folder / "slurm").glob("*_result.pkl"))) == 1


@pytest.mark.parametrize(
    ("variable", "words"), [("", "Could not detect"), ("TOYMODELS_SLURM_PARTITOIN", "Slurm cannot be used here")]
)
def test_without_slurm_the_word_slurm_is_one_sentence(variable, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    if variable:
        monkeypatch.setenv(variable, "short")
    path = write(tmp_path, GRID)
    assert main(["sweep", str(path), "--scheduler", "slurm"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_workers_that_do_not_share_the_folder_are_said(tmp_path, here, capsys):
    def elsewhere(function, kind, values, folder, failure):
        return Here().submit(function, kind, values, str(tmp_path / "elsewhere" / "runs" / "x"), failure)

    here.submit = elsewhere
    path = write(tmp_path, f"method: grid\n{COMMAND}{PARAMETERS}  d: {{values: [4]}}\n")
    assert main(["sweep", str(path), "--out", str(tmp_path / "s")]) == 1
    assert "give all workers the same files" in capsys.readouterr().err
