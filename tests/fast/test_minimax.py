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

from toymodels.core.evaluation import evaluate
from toymodels.core.features import SparseFeatures
from toymodels.core.layers import IdentityLayer
from toymodels.core.least_squares import balanced
from toymodels.core.minimax import check_minimax, minimax
from toymodels.core.network import Network
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.fast import minimax as module
from toymodels.layers.random import gaussian

FEATURES = SparseFeatures.at_most(14, 2)


@pytest.mark.parametrize(("gate", "floor"), [("and", 0.25), ("xor", 0.5), ("or", 0.25), ("first", 0.0)])
def test_the_affine_baseline_is_minimax_on_the_identity_layer(gate, floor):
    task, inputs = PairTask(14, gate, [(0, 1), (3, 12)]), FEATURES.enumerate()
    fitted = minimax(IdentityLayer(14), task, inputs)
    assert fitted.proved
    # The optimum is tied many times over; the certificate still names no more inputs than a vertex has.
    assert all(len(certificate.rows) <= 14 + 2 for certificate in fitted.certificates)
    assert evaluate(Network(IdentityLayer(14), fitted.readoff), task, inputs).worst_error == pytest.approx(
        floor, abs=1e-7
    )


@pytest.mark.parametrize("gate", ["and", "xor"])
def test_no_other_readoff_beats_it_and_its_errors_are_those_the_evaluation_finds(gate):
    layer, task, inputs = gaussian(14, 20, 0), PairTask(14, gate), FEATURES.enumerate()
    best = minimax(layer, task, inputs)
    assert best.proved
    measured = evaluate(Network(layer, best.readoff), task, inputs).output_worst.numpy()
    assert np.allclose(measured, [c.worst_error for c in best.certificates], atol=1e-9)
    rival = evaluate(Network(layer, balanced(layer, task, FEATURES, inputs)), task, inputs).output_worst.numpy()
    assert (measured <= rival + 1e-9).all()
    assert (measured < rival - 1e-3).any()


def test_a_sample_of_inputs_bounds_the_worst_error_from_below():
    layer, task = gaussian(14, 20, 0), PairTask(14, "and", [(0, 1), (2, 3)])
    some, every = minimax(layer, task, FEATURES.sampled(60, 0)), minimax(layer, task, FEATURES.enumerate())
    for lower, upper in zip(some.certificates, every.certificates, strict=True):
        assert lower.lower_bound <= upper.worst_error + 1e-9


def test_activations_that_are_not_finite_are_refused():
    layer = gaussian(14, 20, 0)
    layer.weight.data[0, 0] = torch.inf
    with pytest.raises(InputError):
        minimax(layer, PairTask(14, "and", [(0, 1)]), FEATURES.enumerate())


def test_too_many_inputs_are_refused_with_the_count():
    with pytest.raises(InputError, match="make 10,586,800, more than 3,000,000"):
        check_minimax(SparseFeatures.exactly(400, 3))
    check_minimax(FEATURES)


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
        (4, 3, 1000),  # more processes than outputs
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


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_on_the_way_reaches_the_caller(processes):
    layer, pairs = gaussian(14, 20, 0), [(0, 1), (2, 3), (4, 5)]
    with pytest.raises(InputError, match="the target must be finite"):
        minimax(layer, LastUndefined(14, "and", pairs), FEATURES.enumerate(), processes=processes)
    layer.weight.data[0, 0] = torch.inf
    with pytest.raises(InputError, match="activations must be finite"):
        minimax(layer, PairTask(14, "and", pairs), FEATURES.enumerate(), processes=processes)


def test_fewer_than_one_process_is_refused():
    with pytest.raises(InputError, match="processes = 0"):
        minimax(gaussian(14, 20, 0), PairTask(14, "and"), FEATURES.enumerate(), processes=0)


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
