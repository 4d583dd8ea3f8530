"""Sweeps on workers that are not ours: a Dask cluster of real processes, and jobs by submitit."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.sweeps.toy import COMMAND, GRID, PARAMETERS, Here, finish, table, write
from toymodels.cli import main
from toymodels.parallel import processes as jobs
from toymodels.runs.table import read_table
from toymodels.sweeps import runner
from toymodels.sweeps.runner import SweepConfig, run_sweep

LONG = GRID.replace("steps: {value: 20}", "steps: {value: 150}").replace("[3, 4, 5, 6]", "[3, 4, 5, 6, 7, 8, 9, 10]")


def dask(*words, **more):
    command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__ADMIN__LOG_LENGTH": "0"}
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


def test_a_cluster_that_loses_a_worker_loses_no_run(cluster, tmp_path):
    address, workers = cluster
    path = write(tmp_path, LONG)
    process = subprocess.Popen(
        [sys.executable, "-m", "toymodels", "sweep", path, "--out", tmp_path / "s", "--scheduler", address],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "s").glob("runs/*/results.json"))) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    workers[0].send_signal(signal.SIGKILL)
    said = finish(process)
    assert process.returncode == 0, said
    assert "8/8" in said
    assert "Traceback" not in said
    with pytest.MonkeyPatch.context() as patch:  # not before: the command above has workers of its own
        patch.setattr(jobs, "_alone", False)
        patch.setattr(runner, "open_place", lambda *_: Here())
        run_sweep(SweepConfig(path, tmp_path / "alone"))
    assert table(tmp_path / "s") == table(tmp_path / "alone")
    assert len(table(tmp_path / "alone")) == 8


def test_a_scheduler_that_does_not_answer_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, GRID)
    started = time.monotonic()
    assert main(["sweep", str(path), "--scheduler", "tcp://127.0.0.1:1"]) == 2
    assert time.monotonic() - started < 15
    said = capsys.readouterr().err
    assert "does not answer" in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_jobs_of_submitit(tmp_path):
    """By its local executor, which runs each job in a process of its own."""
    folder, failed = run_sweep(
        SweepConfig(write(tmp_path, GRID.replace("[3, 4, 5, 6]", "[3, 4]")), tmp_path / "s", scheduler="slurm-local")
    )
    assert failed == 0
    assert [row["d"] for row in read_table(folder)] == [3, 4]
    assert len(list((folder / "slurm").glob("*_result.pkl"))) == 2


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
    assert "give the workers the same files" in capsys.readouterr().err
