"""Signals, sent by small scripts to themselves."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOADING = "stopping.heed_signals(); os.kill(os.getpid(), number); print('lived on')"
TWICE = """
stopping.heed_signals()
stopping.stop_gently("; the same command goes on from there")
try:
    os.kill(os.getpid(), number)
except KeyboardInterrupt:
    os.kill(os.getpid(), number)
"""
LOOP = """
stopping.heed_signals()
stopping.stop_gently("")
with stopping.stop_on_interrupt() as stopped:
    os.kill(os.getpid(), number)
    print(stopped(), flush=True)
    os.kill(os.getpid(), number)
"""
WORKER = """
stopping.leave_to_parent()
os.kill(os.getpid(), signal.SIGINT)
with stopping.stop_by_parent():
    pass
with stopping.stop_by_parent(), stopping.stop_on_interrupt() as stopped:
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)
    print(stopped(), flush=True)
print("lived on")
"""
DONE = "stopping.heed_signals(); stopping.work_is_done(1); os.kill(os.getpid(), number)"


def run(script, number):
    heard = (
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # nohup, by which the test run may have been started, ignores it
    )
    code = f"import os, signal\n{heard}\nfrom toymodels.parallel import stopping\nnumber = {int(number)}\n{script}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_loading_ends_at_once(number):
    assert run(LOADING, number) == (128 + number, "", "toymodels: stopped\n")


def test_the_second_signal_ends_at_once_without_a_traceback():
    said = "toymodels: stopped at once; the same command goes on from there\n"
    assert run(TWICE, signal.SIGINT) == (130, "", said)
    assert run(LOOP, signal.SIGTERM) == (143, "True\n", "toymodels: stopped at once\n")


def test_a_worker_leaves_ctrl_c_to_its_parent_and_takes_sigterm_once():
    assert run(WORKER, signal.SIGTERM) == (143, "True\n", "")


def test_a_signal_after_the_work_changes_nothing():
    assert run(DONE, signal.SIGINT) == (1, "", "")


def test_a_signal_that_nohup_ignores_stays_ignored():
    code, said, _ = run("signal.signal(signal.SIGHUP, signal.SIG_IGN);" + LOADING, signal.SIGHUP)
    assert (code, said) == (0, "lived on\n")
