"""The benchmarks compare like with like, and their tables hold what was measured. Nothing is timed."""

import inspect
import json
import math
import re
import time

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import harness, minimax, report, samplers, training
from toymodels import PairTask, SparseFeatures, gaussian
from toymodels import minimax as fit


@pytest.mark.parametrize("weight", [20.0, "case"])
@pytest.mark.parametrize("p", [2.0, 4.0])
@pytest.mark.parametrize("form", ["small", "large", "plain"])
def test_both_trainers_take_the_same_step(p, weight, form, monkeypatch):
    """The same loss and the same gradient: sums of 64 × 190 terms, whose roundings in float32 add up as a random walk."""
    tolerance = math.sqrt(64 * 190) * 2**-23
    monkeypatch.setenv("TOYMODELS_PLAIN", "1" if form == "plain" else "0")
    if form == "large":
        monkeypatch.setattr("toymodels.fast.gradients.SMALL", 0)
        monkeypatch.setattr("toymodels.fast.gradients.ALONE", 0)
    ours, plain = training.pair_of_trainers(20, 10, 64, p, weight)
    start = ours.generator.get_state()
    loss = ours.advance().loss
    expected = plain.loss(ours.features.sample(64, torch.Generator().set_state(start)).dense())
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=tolerance)
    theirs = (plain.layer.weight, plain.layer.bias, plain.readoff.weight, plain.readoff.bias)
    mine = (*ours.network.layer.parameters(), *ours.network.readoff.parameters())
    for own, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=0, atol=tolerance * float(other.grad.abs().max()))


@pytest.mark.parametrize("active", [3, 4.3])
def test_the_three_first_layers_are_one(active):
    m, d = 30, 8
    features = SparseFeatures.exactly(m, 3) if active == 3 else SparseFeatures.independent(m, active / m)
    indices, weight, gradient = (
        features.sample(50, torch.Generator().manual_seed(0)).indices,
        torch.randn(d, m),
        torch.randn(50, d),
    )
    found = {name: way() for name, way in samplers.layer_ways(weight, indices, gradient).items()}
    for name, turn in (("columns", lambda g: g[:m].T), ("transposed", lambda g: g)):
        torch.testing.assert_close(found[name][0], found["dense"][0])
        torch.testing.assert_close(turn(found[name][1]), found["dense"][1])


def test_certificates_are_checked_by_their_own_numbers():
    task, inputs, layer = PairTask(10, "and"), SparseFeatures.at_most(10, 2).enumerate(), gaussian(10, 8, 0)
    found = fit(layer, task, inputs)
    x = inputs.dense(dtype=torch.float64)
    a, targets = layer.double()(x).detach().numpy(), task.targets(x).numpy()
    assert minimax.certificates_hold(found, a, targets).startswith("all 45 certificates hold")
    assert minimax.full_program(a, targets[:, 7]) == pytest.approx(found.certificates[7].worst_error, abs=1e-7)
    for damage in ("multipliers", "readoff", "targets"):
        spoilt = fit(layer, task, inputs)
        f = targets.copy()
        if damage == "multipliers":
            spoilt.certificates[44].multipliers[0] += 2e-6
        elif damage == "readoff":
            spoilt.readoff.bias.data[44] += 2e-6
        else:
            f[spoilt.certificates[44].rows[np.abs(spoilt.certificates[44].multipliers).argmax()], 44] += 1e-3
        with pytest.raises(ArithmeticError, match="pair 44"):
            minimax.certificates_hold(spoilt, a, f)


def test_repeats_alternate_and_ratios_are_taken_repeat_by_repeat(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(harness, "matmul", lambda: lambda: 7.0)

    def function(name, seconds):
        def call():
            order.append(name)
            now[0] += seconds

        return call

    found = harness.alternate({"new": function("n", 1.0), "old": function("o", 4.0)}, repeats=3, seconds=4.0)
    assert "".join(order[-15:]) == "nnnno" + "onnnn" + "nnnno"
    assert found.seconds == {"new": [1.0] * 3, "old": [4.0] * 3}
    assert found.ratio("old", "new") == harness.Spread(4, 4, 4)
    assert found.rate("new", 10) == harness.Spread(10, 10, 10)
    assert harness.Spread.of([3.0, 1.0, 8.0]) == harness.Spread(3, 1, 8)


def one_hundred_mib():
    block = torch.ones(100 * 2**18)
    return [harness.peak_mib(), float(block.sum()), torch.get_num_threads()]


def nothing():
    return [harness.peak_mib()]


def test_each_case_has_memory_of_its_own():
    small, large = (harness.run_case(harness.Case("x", measure)) for measure in (nothing, one_hundred_mib))
    # Pages beyond the block: thread stacks and the like, some MiB. What the imports held for a moment and gave back,
    # some MiB again, counts in the small peak alone.
    assert 90 < large[0] - small[0] < 130
    assert large[2] == harness.cores()


def test_the_command_prints_and_stores_a_table_of_what_it_measured(tmp_path, capsys):
    out = tmp_path / "results"
    assert command.main(["--only", "samplers", "--quick", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    lines = [json.loads(text) for text in (out / "results.jsonl").read_text().splitlines()]
    assert [entry["setting"] for entry in lines] == ["m = 100, s = 3, 1,024 inputs", "m = 1,000, s = 3, 1,024 inputs"]
    page = (out / "RESULTS.md").read_text()
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(lines)
    assert {line.count("|") for line in table} == {len(report.HEADER) + 1}
    assert "`python -m benchmarks --only samplers --quick`" in page
    for entry in lines:
        assert entry["setting"] in printed
        for name in ("new", "reference", "ratio", "matmul"):
            assert 0 < entry[name]["least"] <= entry[name]["median"] <= entry[name]["most"] < math.inf
            assert report.spread(entry[name]) in printed
            assert report.spread(entry[name]) in page
        assert 50 < entry["peak_mib"] < 2000
    assert not re.search(r"20\d\d-\d\d", page)  # no dates: a result is of a commit


def test_a_question_that_runs_again_replaces_its_own_lines_only(tmp_path):
    figure = harness.Spread(1, 1, 1)
    row = harness.Row("one", "ms", figure, figure, 300.0)
    report.store(tmp_path, [report.line("b", row, False, "here"), report.line("b", row, False, "here")], ("a", "b"))
    report.store(tmp_path, [report.line("a", row, False, "here")], ("a", "b"))
    report.store(tmp_path, [report.line("b", row, True, "here")], ("a", "b"))
    lines = report.load(tmp_path / "results.jsonl")
    assert [(entry["question"], entry["quick"]) for entry in lines] == [("a", False), ("b", True)]


@pytest.mark.parametrize(("ratio", "peak", "words"), [(6.0, 90.0, "yes, yes"), (4.9, 101.0, "NO, NO")])
def test_a_target_is_met_or_not(ratio, peak, words):
    figure = harness.Spread(ratio, 1, 9)
    row = harness.Row("one", "ms", figure, figure, peak, "other", figure, figure, wanted=5.0, peak_wanted=100.0)
    cells = report.cells(report.line("a", row, False, "here"))
    assert cells[report.HEADER.index("met")] == words


def test_an_unknown_question_is_refused_in_one_sentence(capsys):
    assert command.main(["--only", "nope"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("quick", [True, False])
def test_every_question_has_cases_that_could_run(quick):
    found = [case for module in command.MODULES for case in module(quick)]
    for case in found:  # called with arguments that it has
        inspect.signature(case.measure).bind(**case.arguments)
    assert {case.question for case in found} == set(command.QUESTIONS)
