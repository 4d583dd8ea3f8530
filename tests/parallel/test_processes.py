import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import toymodels
from toymodels.errors import InputError
from toymodels.parallel import processes
from toymodels.parallel.processes import cores, run_jobs
from toymodels.parallel.stopping import stop_on_interrupt


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


STOPPED_WHILE_IT_SENDS = """
from toymodels.parallel.processes import worker_pool

def nothing():
    pass

def large():
    return bytes(300_000_000)  # takes a pipe a fifth of a second

if __name__ == "__main__":
    with worker_pool(1, nothing, ()) as pool:
        pool.submit(large)
        while not pool._result_queue._reader.poll():
            pass
        raise KeyboardInterrupt
"""


def test_a_worker_that_is_stopped_while_it_sends_a_result_is_not_waited_for(tmp_path):
    (tmp_path / "script.py").write_text(STOPPED_WHILE_IT_SENDS)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip().endswith("KeyboardInterrupt")


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


def last_long(path, number, position):
    """Note how this job is stopped, or fail if the other one has begun."""
    Path(f"{path}{number}").touch()
    if number == 0:
        while not Path(f"{path}1").exists():
            time.sleep(0.01)
        if "stopped" not in path:
            raise InputError("negative")
    with stop_on_interrupt() as stopped:
        while not stopped():
            time.sleep(0.01)
    Path(f"{path}{number}-stopped").touch()
    raise KeyboardInterrupt


@pytest.mark.long
@pytest.mark.skipif(cores() < 2, reason="on one core jobs run in this process")
@pytest.mark.parametrize("why", ["stopped", "failed"])
def test_jobs_stop_at_their_next_step_if_the_parent_is_stopped_or_one_fails(why, tmp_path):
    path = tmp_path / why

    def interrupt():
        while not Path(f"{path}1").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    if why == "stopped":
        threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt if why == "stopped" else InputError):
        run_jobs(last_long, [(str(path), 0), (str(path), 1)], threads=1)
    assert Path(f"{path}1-stopped").exists()
    assert not multiprocessing.active_children()


def test_one_thread_where_idle_ones_would_spin(monkeypatch):
    """Torch was loaded first: then nothing can be done about its policy of waiting."""
    monkeypatch.setattr(processes, "cores", lambda: 3)
    before = torch.get_num_threads()
    try:
        for spin, threads in ((False, 3), (True, 1)):
            monkeypatch.setattr(toymodels, "IDLE_THREADS_SPIN", spin)
            assert run_jobs(work, [(3,)])[0][2] == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("first", "policy", "spin"), [("", "PASSIVE", False), ("sys.modules['torch'] = sys", None, True)]
)
def test_idle_threads_wait_passively_unless_torch_is_loaded(first, policy, spin):
    code = f"import os, sys; {first}\nimport toymodels; print(os.environ.get('OMP_WAIT_POLICY'), toymodels.IDLE_THREADS_SPIN)"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[2], capture_output=True
    )
    assert done.stdout.decode() == f"{policy} {spin}\n"


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # a zombie nobody has collected is not alive
        return file.read().split(")")[1].split()[0] != "Z"
