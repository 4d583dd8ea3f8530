"""Minimax readoffs with shared work: the optima of the plain form, and processes that change nothing."""

import copy
import dataclasses
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch

from toymodels.core.features import SparseFeatures
from toymodels.core.layers import IdentityLayer
from toymodels.core.minimax import certified, minimax
from toymodels.core.tasks import PairTask, Task
from toymodels.errors import InputError
from toymodels.fast import minimax as module
from toymodels.fast.columns import columns_win
from toymodels.fast.minimax import shared_certified
from toymodels.layers.iid import rademacher
from toymodels.layers.random import gaussian

pytestmark = pytest.mark.usefixtures("wing")  # these tests are about the faster forms

FEATURES = SparseFeatures.at_most(14, 2)


@pytest.mark.parametrize("gate", ["and", "xor", "first_and_not_second"])
@pytest.mark.parametrize(
    "layer",
    [
        gaussian(14, 20, 0),
        rademacher(14, 20, 0),
        IdentityLayer(14),
        torch.nn.Sequential(torch.nn.Linear(14, 5), torch.nn.Tanh()),
    ],
    ids=["gaussian", "rademacher", "identity", "own"],
)
@pytest.mark.parametrize("held", [True, False])
def test_optima_are_those_of_the_plain_form(gate, layer, held, monkeypatch):
    monkeypatch.setattr(module, "holds_all", lambda *_: held)
    check_optima(layer, PairTask(14, gate, [(0, 1), (12, 3), (12, 3), (5, 6)]), FEATURES.enumerate())


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("values", ["one", "uniform", "symmetric"])
def test_optima_on_a_sample_of_features_with_values(held, values, monkeypatch):
    monkeypatch.setattr(module, "holds_all", lambda *_: held)
    layer, inputs = gaussian(100, 6, 0), SparseFeatures.at_most(100, 3, values).sampled(150, 0)
    assert columns_win(layer, 3)  # activations of boolean features are sums of columns
    first, second = inputs.indices[0, :2].tolist()
    for task in (PairTask(100, "xor", [(first, second), (0, 1)]), Products(100).subset(torch.tensor([0, 4]))):
        check_optima(layer, task, inputs)


def check_optima(layer, task, inputs):
    layer = copy.deepcopy(layer).double().requires_grad_(False)
    fast = shared_certified(layer, task, inputs, iter, 1)
    slow = certified.plain(layer, task, inputs, iter, 1)
    assert len(fast) == len(slow) == task.n_outputs
    for one, other in zip(fast, slow, strict=True):
        assert one.proved
        assert other.proved
        assert one.worst_error == pytest.approx(other.worst_error, abs=1e-7)
        assert one.lower_bound == pytest.approx(other.lower_bound, abs=1e-7)
        assert one.half_range == other.half_range


class Products(Task):
    """x_i x_(i + 1): real targets."""

    name = "products"

    def __init__(self, m):
        self.m, self.n_outputs = m, m - 1

    def cases(self, x, outputs=slice(None)):
        return (self.targets(x, outputs) != 0).long()

    def targets(self, x, outputs=slice(None)):
        return (x[:, :-1] * x[:, 1:])[:, outputs]


class LastUndefined(PairTask):
    def targets(self, x, outputs=slice(None)):
        found = super().targets(x)
        found[:, -1] = torch.nan
        return found[:, outputs]


class Counter:
    def __init__(self):
        self.seen = []

    def __call__(self, outputs):
        for output in outputs:
            self.seen.append(output)
            yield output


@pytest.mark.parametrize(
    ("processes", "outputs", "chunk"),
    [
        (3, 2, 1000),  # more processes than outputs
        (2, 91, 8),  # 12 chunks, the last one smaller: more than are ever on their way
    ],
)
def test_processes_change_nothing_in_the_result(monkeypatch, processes, outputs, chunk):
    layer, task = gaussian(14, 20, 0), PairTask(14, "xor").subset(torch.arange(outputs))
    inputs, bar = FEATURES.enumerate(), Counter()
    monkeypatch.setattr(module, "_CHUNK", chunk * len(inputs))
    alone, shared = minimax(layer, task, inputs), minimax(layer, task, inputs, bar, processes=processes)
    assert bar.seen == list(range(outputs))
    assert torch.equal(alone.readoff.weight, shared.readoff.weight)
    assert torch.equal(alone.readoff.bias, shared.readoff.bias)
    for one, other in zip(alone.certificates, shared.certificates, strict=True):
        for field in dataclasses.fields(one):
            assert np.array_equal(getattr(one, field.name), getattr(other, field.name)), field.name


def test_an_error_on_the_way_reaches_the_caller():
    layer, pairs = gaussian(14, 20, 0), [(0, 1), (2, 3), (4, 5)]
    with pytest.raises(InputError, match="the target must be finite"):
        minimax(layer, LastUndefined(14, "and", pairs), FEATURES.enumerate())
    layer.weight.data[0, 0] = torch.inf
    for processes in (1, 2):  # in a worker: where its solver is made
        with pytest.raises(InputError, match="activations must be finite"):
            minimax(layer, PairTask(14, "and", pairs), FEATURES.enumerate(), processes=processes)


ENDLESS = """
import sys, torch
from toymodels import PairTask, SparseFeatures, gaussian, minimax

def progress(outputs):
    for output in outputs:
        print(output, flush=True)
        yield output

if __name__ == "__main__":
    pairs = PairTask(40, "and").pairs
    task = PairTask(40, "and", pairs.repeat(1000, 1))
    minimax(gaussian(40, 40, 0), task, SparseFeatures.at_most(40, 2).enumerate(), progress, processes=2)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("ending", ["ctrl-c", "killed parent", "killed worker"])
def test_no_worker_is_left_behind(tmp_path, ending):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip
    workers = []
    try:
        for _ in range(100):  # a hundred outputs are solved: both workers are at work
            assert run.stdout.readline()
        workers = [pid for pid in children(run.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        if ending == "ctrl-c":
            os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to all at once
        elif ending == "killed parent":
            run.kill()
        else:
            os.kill(workers[0], signal.SIGKILL)
        _, messages = run.communicate(timeout=60)
        deadline = time.monotonic() + 30
        while any(map(alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(alive, workers))
    finally:
        run.kill()
        for pid in filter(alive, workers):
            os.kill(pid, signal.SIGKILL)
    last = {"ctrl-c": "KeyboardInterrupt", "killed worker": BrokenProcessPool.__name__, "killed parent": ""}[ending]
    assert last in (messages.strip().splitlines() or [""])[-1]
    if ending == "ctrl-c":
        assert messages.count("Traceback") == 1  # the parent's own
    if ending != "killed parent":
        assert not list(tmp_path.glob("minimax-*"))


def children(pid):
    return [
        int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()
    ]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
