import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from toymodels.errors import InputError
from toymodels.parallel.processes import cores, run_jobs


def work(number, position):
    if number < 0:
        raise InputError("negative")
    return number * 2, os.getpid(), torch.get_num_threads()


def test_results_come_in_order_from_processes_of_one_thread():
    results = run_jobs(work, [(i,) for i in range(4)], threads=1)
    assert [r[0] for r in results] == [0, 2, 4, 6]
    if cores() > 1:
        assert os.getpid() not in {r[1] for r in results}
    assert {r[2] for r in results} == {1}


def test_a_lone_job_runs_here():
    assert run_jobs(work, [(3,)], threads=1) == [(6, os.getpid(), 1)]


def test_the_first_failure_is_raised():
    with pytest.raises(InputError, match="negative"):
        run_jobs(work, [(1,), (-1,)], threads=1)


def sleep(path, position):
    with open(f"{path}.{os.getpid()}", "w"):
        time.sleep(60)


@pytest.mark.skipif(cores() < 2, reason="on one core jobs run in this process")
def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    code = f"from tests.parallel.test_processes import sleep, run_jobs; run_jobs(sleep, [({str(tmp_path / 'pid')!r},)] * 2, 1)"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(path.suffix[1:]) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while any(os.path.exists(f"/proc/{pid}") for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # a zombie nobody has collected is not alive
        return file.read().split(")")[1].split()[0] != "Z"
