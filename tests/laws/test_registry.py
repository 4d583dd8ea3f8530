"""A law of one's own: one file, in every table, put through the common checks, which catch it where it is wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import toymodels
from toymodels.cli import main
from toymodels.laws.checks import (
    PROBLEMS,
    check_description,
    check_law,
    check_measurement,
    check_prediction,
    check_width,
    strain,
)
from toymodels.laws.measuring import DrawnLayers
from toymodels.laws.registry import LAWS, Law, Measured, Problem, RootLaw, known, law
from toymodels.registry import load_plugins
from toymodels.theory.gates import Gate

PLUGIN = '''
"""The RMS activation of a neuron of a Gaussian layer: a law of a plugin."""

import math

from toymodels.laws.registry import Law, Measured, law


@law(
    "rms_activation", about="RMS activation, over √d", source="this test", inputs="exactly", tables=("bounds", "width")
)
class RMSActivation(Law):
    """√(s/2d): half of the second moment of N(0, s)."""

    def predict(self, problem):
        return math.sqrt(FACTOR * problem.s / 2 / problem.d), "exact"

    def width(self, problem, epsilon):
        return math.ceil(FACTOR * problem.s / 2 / epsilon**2 - 1e-9) + EXTRA

    def measure(self, drawn):
        def square(seed):
            inputs, _ = drawn.sample(seed, drawn.problem.s)
            return float((drawn.layer(seed)(inputs.dense()) ** 2).mean()) / drawn.problem.d

        return Measured(drawn.each(square), f"{drawn.layers}, {drawn.sampled()}", "root mean")
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Register the plugin's law, with its factor and its extra neurons, for one test."""
    monkeypatch.setattr(LAWS, "_members", {name: LAWS[name] for name in LAWS})
    monkeypatch.setattr("toymodels.registry._plugins", {})

    def load(factor=1.0, extra=0) -> Law:
        file = tmp_path / f"mylab_{factor}_{extra}.py"
        file.write_text(PLUGIN.replace("FACTOR", str(factor)).replace("EXTRA", str(extra)))
        LAWS._members.pop("rms_activation", None)
        load_plugins([file])
        return LAWS["rms_activation"]

    return load


def test_a_law_in_a_file_of_ones_own_stands_in_every_table(plugin, tmp_path, capsys):
    source = plugin().plugin
    file, options = tmp_path / "table.json", ["--m", "12", "--task", "and"]
    seeds = ["--seeds", *map(str, range(8))]
    assert main(["--plugin", str(source), "bounds", *options, "--d", "40", "--check", *seeds, "--json", str(file)]) == 0
    row = {row["name"]: row for row in json.loads(file.read_text())["rows"]}["rms_activation"]
    assert row["value"] == pytest.approx(40**-0.5)
    assert row["measured"] == pytest.approx(row["value"], rel=0.1)
    assert row["interval"][0] < row["value"] < row["interval"][1]
    assert (row["kind"], row["inputs"], row["source"], row["note"]) == (
        "prediction",
        "exactly 2 of 12",
        "this test",
        "exact",
    )
    assert "8 layers (seeds 0–7), 300 inputs × about 900 pairs" in row["coverage"]
    assert "rms_activation" in capsys.readouterr().out
    assert main(["--plugin", str(source), "width", *options]) == 0
    assert re.search(r"rms_activation +16 ", capsys.readouterr().out)
    assert main(["check", str(source)]) == 0
    assert "rms_activation" in capsys.readouterr().out


def test_a_law_of_ones_own_passes_the_common_checks(plugin):
    assert plugin().purpose == "√(s/2d): half of the second moment of N(0, s)."
    check_law("rms_activation")


def test_the_common_checks_catch_a_wrong_law(plugin):
    for factor in (1.3, 0.75):
        with pytest.raises(AssertionError, match="strain"):
            check_measurement(plugin(factor=factor))
    for extra in (1, -1):
        with pytest.raises(AssertionError):
            check_width(plugin(extra=extra))
    with pytest.raises(AssertionError):
        check_description(Law(name="no_source", function=lambda problem: 1.0, about="nothing"))
    with pytest.raises(AssertionError):
        check_prediction(Law(name="nan", function=lambda problem: (float("nan"), "oh"), about="nothing"))


def test_a_function_is_a_law_with_a_width_found_by_search(monkeypatch):
    monkeypatch.setattr(LAWS, "_members", {name: LAWS[name] for name in LAWS})

    @law("half_root", base=RootLaw, about="half of s/√d", source="this test", tables=("bounds", "width"))
    def half_root(problem: Problem) -> float:
        """Half of s over the root of d."""
        return problem.s / 2 / problem.d**0.5

    searched = Law(name="searched", function=half_root, about="the same")
    assert LAWS["half_root"].width(PROBLEMS[0], 0.25) == searched.width(PROBLEMS[0], 0.25) == 16
    assert known(lambda: LAWS["half_root"].predict(PROBLEMS[0])) == (pytest.approx(1 / 40**0.5), "")
    check_width(LAWS["half_root"])
    check_measurement(LAWS["half_root"])  # there is none


@pytest.mark.parametrize(("m", "s", "inputs"), [(4, 3, "exactly"), (3, 3, "at_most"), (4, 4, "exactly")])
def test_largest_errors_are_those_of_cases_that_occur(m, s, inputs):
    """With s of m active and s > m − 2 no pair is off: a measurement of that case would be 0."""
    drawn = DrawnLayers(Problem(Gate.parse("and"), m=m, s=s, d=40, inputs=inputs, seeds=tuple(range(40))))
    for name in ("optimal_rms", "varying_rms", "kernel_rms", "bernoulli_rms"):
        predicted, note = known(lambda name=name: LAWS[name].predict(drawn.problem))
        if name == "bernoulli_rms":
            assert predicted is None
            assert "all four cases must occur" in note
        else:
            assert strain(LAWS[name], LAWS[name].measure(drawn), predicted) <= 1


def test_a_name_is_taken_once():
    with pytest.raises(toymodels.InputError, match="two members 'pca_floor'"):
        law("pca_floor", about="another")(lambda problem: 0.0)


def test_estimates_of_a_measurement():
    samples = [1.0, 4.0, 9.0, 16.0]
    assert Measured([2.5], "one").estimate == (2.5, None)
    assert Measured(samples, "some", "mean").estimate[0] == 7.5
    assert Measured(samples, "some", "root mean").estimate[0] == 7.5**0.5
    assert Measured(samples, "some", "quantile", 0.5).estimate[0] == 6.5


def test_problems_in_words():
    problem = Problem(Gate.parse("and"), m=9, s=3)
    assert [problem.domain(kind) for kind in ("given", "exactly")] == ["at most 3 of 9", "exactly 3 of 9"]
    assert [problem.domain(kind) for kind in ("none", "all")] == ["none", "all"]
    assert problem.at(7).d == 7
    assert problem.counts.sum() == pytest.approx(1)


LIGHT = """
import sys, types
package = types.ModuleType("toymodels")  # without what the package's own face imports
package.__path__ = [{path!r}]
sys.modules["toymodels"] = package
import toymodels.laws.sizes
assert not {{"torch", "scipy.stats", "scipy"}} & set(sys.modules), "sizes"
from toymodels.laws.tables import run_bounds, run_width
text = run_bounds(toymodels.laws.sizes.BoundsConfig()) + run_width(toymodels.laws.sizes.WidthConfig())
assert "bernoulli_rms" in text
assert not {{"torch", "scipy.stats"}} & set(sys.modules), "tables"
"""


def test_tables_need_no_torch_and_configurations_nothing_heavy():
    code = LIGHT.format(path=str(Path(toymodels.__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
