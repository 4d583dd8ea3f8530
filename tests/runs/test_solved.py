"""A stop during minimax readoffs keeps the outputs that are solved."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from toymodels.cli import main
from toymodels.core.features import SparseFeatures
from toymodels.core.minimax import minimax
from toymodels.core.tasks import PairTask
from toymodels.fast import minimax as fast
from toymodels.layers.random import gaussian
from toymodels.runs.solved import SolvedOutputs
from toymodels.runs.storage import read_json

LAYER, TASK, INPUTS = gaussian(8, 6, 0), PairTask(8, "and"), SparseFeatures.at_most(8, 2).enumerate()
STOP = 21


class Stop:
    """Progress that counts the outputs to be solved, and is stopped by Ctrl-C before output number `at`."""

    def __init__(self, at=None):
        self.at, self.wanted = at, []

    def __call__(self, outputs):
        self.wanted = list(outputs)
        for output in self.wanted:
            if output == self.at:
                raise KeyboardInterrupt
            yield output


@pytest.fixture(params=["plain", "held", "exchanged"])
def way(request, monkeypatch):
    """How the outputs are solved: one by one, or in groups of 16, with all activations held or from blocks of inputs."""
    monkeypatch.setenv("TOYMODELS_PLAIN", "1" if request.param == "plain" else "0")
    if request.param == "exchanged":
        monkeypatch.setattr(fast, "holds_all", lambda *_: False)
    return request.param


def stopped(path):
    with pytest.raises(KeyboardInterrupt):
        minimax(LAYER, TASK, INPUTS, Stop(STOP), kept=SolvedOutputs(path))
    return path


def same(one, other):
    assert torch.equal(one.readoff.weight, other.readoff.weight)
    assert torch.equal(one.readoff.bias, other.readoff.bias)
    for a, b in zip(one.certificates, other.certificates, strict=True):
        assert (a.worst_error, a.lower_bound, a.method, a.iterations) == (
            b.worst_error,
            b.lower_bound,
            b.method,
            b.iterations,
        )
        assert np.array_equal(a.rows, b.rows)
        assert np.array_equal(a.multipliers, b.multipliers)


def test_a_stopped_search_goes_on_to_the_same_readoffs(way, tmp_path):
    whole = minimax(LAYER, TASK, INPUTS)
    path, progress = stopped(tmp_path / "some" / "file"), Stop()
    same(minimax(LAYER, TASK, INPUTS, progress, kept=SolvedOutputs(path)), whole)
    assert progress.wanted[0] == (STOP if way == "plain" else 16)
    again = Stop()
    same(minimax(LAYER, TASK, INPUTS, again, kept=SolvedOutputs(path)), whole)  # now all are known
    assert again.wanted == []


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda content: content[:-30], STOP - 1),
        (lambda content: content.replace(b'"offset": ', b'"offset": 1', 1), 0),
        (lambda content: content.replace(b"\n", b"\n\n", 1), 0),
        (lambda content: b"\n".join(content.split(b"\n")[:5] + content.split(b"\n")[6:]), 4),
        (lambda content: b"[" * 100_000, 0),
        (lambda content: b"", 0),
    ],
    ids=["cut", "changed", "line", "missing", "nested", "empty"],
)
def test_what_is_damaged_is_solved_again(damage, left, tmp_path, wing):
    path, progress = stopped(tmp_path / "file"), Stop()
    path.write_bytes(damage(path.read_bytes()))
    same(minimax(LAYER, TASK, INPUTS, progress, kept=SolvedOutputs(path)), minimax(LAYER, TASK, INPUTS))
    assert progress.wanted[0] == left // 16 * 16
    last = Stop()
    minimax(LAYER, TASK, INPUTS, last, kept=SolvedOutputs(path))
    assert last.wanted == []


@pytest.mark.parametrize("other", ["layer", "task", "inputs"])
def test_outputs_of_another_problem_are_not_taken(other, tmp_path):
    path, progress = stopped(tmp_path / "file"), Stop()
    layer = gaussian(8, 6, 1) if other == "layer" else LAYER
    task = PairTask(8, "xor") if other == "task" else TASK
    inputs = SparseFeatures.at_most(8, 3).enumerate() if other == "inputs" else INPUTS
    found = minimax(layer, task, inputs, progress, kept=SolvedOutputs(path))
    assert progress.wanted[0] == 0
    same(found, minimax(layer, task, inputs))


def test_a_stopped_comparison_keeps_its_pairs(tmp_path, monkeypatch, capsys, wing):
    words = ["compare", "--m", "8", "--d", "6", "--task", "and", "--layers", "gaussian", "--readoffs", "minimax",
             "--threads", "1", "--no-figures", "--out"]  # fmt: skip
    assert main([*words, str(tmp_path / "whole")]) == 0
    solve, solved = fast.ChebyshevSolver.solve_all, []

    def stop(self, targets):
        if solved:
            raise KeyboardInterrupt
        solved.extend(targets)
        return solve(self, targets)

    monkeypatch.setattr(fast.ChebyshevSolver, "solve_all", stop)
    run = tmp_path / "run"
    assert main([*words, str(run)]) == 130
    capsys.readouterr()
    assert main(["show", str(run)]) == 0
    assert "and-seed-0/gaussian-minimax: 16 outputs solved" in capsys.readouterr().out
    assert len(solved) == 16
    monkeypatch.setattr(fast.ChebyshevSolver, "solve_all", lambda self, new: solved.extend(new) or solve(self, new))
    assert main([*words, str(run)]) == 0
    assert len(solved) == TASK.n_outputs
    assert not list(run.rglob("*.unfinished"))
    rows = [read_json(folder / "and-seed-0" / "gaussian-minimax.json") for folder in (run, tmp_path / "whole")]
    assert rows[0] | {"seconds": 0} == rows[1] | {"seconds": 0}
    networks = [folder / "and-seed-0" / "gaussian-minimax.safetensors" for folder in (run, tmp_path / "whole")]
    one, other = map(load_file, networks)
    assert all(torch.equal(one[name], other[name]) for name in {**one, **other})
