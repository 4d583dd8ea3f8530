"""`toymodels bounds` and `toymodels width`, as a person meets them."""

import json
import math

import numpy as np
import pytest
from scipy.stats import binom

from toymodels.cli import main
from toymodels.experiments.checks import check, quantile_interval, root_interval
from toymodels.experiments.predictions import rows
from toymodels.experiments.sizes import BoundsConfig, WidthConfig
from toymodels.experiments.width import by_law, smallest
from toymodels.experiments.width import rows as width_rows
from toymodels.theory import counts, floors
from toymodels.theory.extremes import maximum_law
from toymodels.theory.fitted import fitted_error
from toymodels.theory.gates import Gate
from toymodels.theory.quadrants import predicted_rms

AND, XOR = Gate.parse("and"), Gate.parse("xor")
KINDS = {"baseline", "floor", "prediction", "lower bound on width", "readoff's law"}

BAD = [
    (["bounds", "--s", "1"], "at least 2 active features"),
    (["bounds", "--d", "0"], "needs at least 1"),
    (["bounds", "--m", "4", "--s", "5"], "from 1 to m = 4"),
    (["bounds", "--s", "2.5"], "2.5"),
    (["bounds", "--task", "and", "nope"], "unknown gate or task 'nope'"),
    (["bounds", "--task", "0123"], "unknown gate or task"),
    (["bounds", "--task", "and", "0001"], "twice"),
    (["bounds", "--inputs", "independent"], "at_most and exactly"),
    (["bounds", "--seeds", "1", "1"], "different whole numbers"),
    (["bounds", "--outputs", "5000"], "between 0 and 1,225"),
    (["bounds", "--bits", "0"], "at least 1"),
    (["bounds", "--json", "."], "is a folder"),
    (["width", "--epsilon", "0"], "positive number"),
    (["width", "--epsilon", "-1"], "positive number"),
    (["width", "--s", "1"], "at least 2 active features"),
    (["width", "--d", "3"], "--d"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bad_input_is_one_sentence_status_2_and_nothing_written(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, *([] if "--json" in arguments else ["--json", "table.json"])]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_bounds_prints_and_writes_every_number_with_its_source(tmp_path, capsys):
    file = tmp_path / "table.json"
    assert main(["bounds", "--m", "50", "--d", "100", "--s", "2", "--task", "and", "xor", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    content = json.loads(file.read_text())
    for row in content["rows"]:
        assert {"task", "name", "value", "kind", "source", "inputs", "about"} <= row.keys()
        assert row["kind"] in KINDS
        assert row["source"]
        assert row["value"] is not None or row["note"].startswith("not computed: ")
        assert row["name"] in text
    law = counts.at_most(50, 2)
    for gate in (AND, XOR):
        value = {row["name"]: row["value"] for row in content["rows"] if row["task"] == gate.name}
        assert value["affine_floor"] == abs(gate.coefficients[3]) / 4
        assert value["analytic_rms_11"] == pytest.approx(predicted_rms(gate, 2, 100, 3))
        # At exactly 2 of 50, XOR is 0 on 00 and on 11.
        n00, _, _, n11 = counts.case_counts(50, 2)
        squares = [predicted_rms(gate, 2, 100, case) ** 2 for case in (0, 3)]
        if gate is XOR:
            assert value["analytic_rms_zeros"] == pytest.approx(
                math.sqrt((n00 * squares[0] + n11 * squares[1]) / (n00 + n11))
            )
        else:
            assert value["analytic_rms_zeros"] == pytest.approx(0.42791, abs=1e-5)
            assert value["analytic_rms_ones"] == pytest.approx(0.41606, abs=1e-5)
        assert value["pca_floor"] == floors.square_floor(gate, law, 100).per_output * 1225
        assert value["pca_floor"] == pytest.approx(value["pca_floor_share"] * value["zero_predictor"])
        assert value["welch_bound"] == 0
        assert value["balanced_rms_00"] == fitted_error(gate, 50, 2, 100, at_most=True).rms[0]
        assert value["analytic_max_median"] == maximum_law(gate, 50, 2, 100, 1225).quantile(0.5)
        assert value["optimal_rms"] < value["analytic_rms_00"]
    exact = {row["inputs"] for row in content["rows"] if row["name"].startswith("analytic")}
    assert exact == {"exactly 2 of 50"}


@pytest.mark.parametrize("inputs", ["exactly", "at_most"])
@pytest.mark.parametrize(
    ("m", "d", "s", "name"),
    [
        (2, 1, 2, "and"), (3, 1, 3, "false"), (3, 9, 2, "true"), (5, 9, 3, "first"), (5, 500, 5, "xnor"),
        (300, 5000, 3, "and"), (4000, 20, 2, "xnor"),
    ],
)  # fmt: skip
def test_what_a_size_does_not_allow_is_said_and_never_skipped(m, d, s, inputs, name):
    gate = Gate.parse(name)
    usual = [row.name for row in rows(BoundsConfig(inputs=inputs), gate)]
    found = rows(BoundsConfig(m=m, d=d, s=s, inputs=inputs), gate)
    assert [row.name for row in found] == usual
    for row in found:
        assert row.value is None or math.isfinite(row.value)
        assert (row.value is None) == row.note.startswith("not computed: ")
    widths = width_rows(WidthConfig(m=m, s=s, inputs=inputs), gate) if m <= 1000 else []
    assert all(row.value is not None or row.note.startswith("not computed: ") for row in widths)


def test_check_measures_beside_the_predictions(tmp_path, capsys):
    file = tmp_path / "table.json"
    size = ["--m", "12", "--d", "40", "--s", "2", "--task", "and", "--seeds", *map(str, range(8))]
    assert main(["bounds", *size, "--check", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    row = {row["name"]: row for row in json.loads(file.read_text())["rows"]}
    assert "8 layers (seeds 0–7), all 66 inputs × all 66 pairs" in text
    assert row["analytic_rms_zeros"]["coverage"] == "8 layers (seeds 0–7), all 66 inputs × all 66 pairs"
    for name in row:
        assert row[name]["coverage"], name
        if row[name]["kind"] == "prediction":
            assert row[name]["measured"] == pytest.approx(row[name]["value"], rel=0.35), name
            low, high = row[name]["interval"] or (row[name]["measured"],) * 2
            assert low <= row[name]["measured"] <= high
        if row[name]["kind"] == "floor":
            assert row[name]["measured"] >= row[name]["value"] - 1e-7, name
    assert row["affine_floor"]["measured"] == pytest.approx(0.25, abs=1e-7)
    assert row["zero_predictor"]["measured"] == pytest.approx(row["zero_predictor"]["value"], rel=1e-9)
    assert row["counting_width"]["coverage"].startswith("not measured: ")


def test_check_samples_where_inputs_are_many_and_says_so():
    config = BoundsConfig(m=200, d=3000, s=3, inputs="exactly", task=("xor",), seeds=(0, 1, 2))
    found, measured = check(config, XOR, rows(config, XOR))
    by_name = {row.name: (row, seen) for row, seen in zip(found, measured, strict=True)}
    assert len(by_name) == len(found)
    assert all(seen.measured is not None or seen.coverage.startswith("not measured: ") for _, seen in by_name.values())
    row, seen = by_name["analytic_max_median_sampled"]
    assert "300 inputs × about 900 pairs" in seen.coverage
    assert seen.measured == pytest.approx(row.value, rel=0.15)
    assert row.value < by_name["analytic_max_median"][0].value
    assert by_name["analytic_max_median"][1].measured is None
    for case in ("00", "01", "10", "11"):
        row, seen = by_name[f"analytic_rms_{case}"]
        assert seen.measured == pytest.approx(row.value, rel=0.15)


def test_width_answers_by_every_law_and_bound(tmp_path, capsys):
    file = tmp_path / "width.json"
    arguments = ["width", "--epsilon", "0.25", "--m", "100", "--s", "2", "--task", "and", "--json", str(file)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "they must be measured" in text
    d = {row["name"]: row["value"] for row in json.loads(file.read_text())["rows"]}
    assert d["analytic_rms_zeros"] == 293
    assert d["affine_floor"] == 0
    law = maximum_law(AND, 100, 2, int(d["analytic_max_median"]), math.comb(100, 2))
    assert law.quantile(0.5) == pytest.approx(0.25, rel=1e-3)
    assert fitted_error(AND, 100, 2, int(d["balanced_rms"]), at_most=True).rms.max() <= 0.25
    assert fitted_error(AND, 100, 2, int(d["balanced_rms"]) - 1, at_most=True).rms.max() > 0.25
    assert floors.welch_bound(100, int(d["welch_bound"])) <= 0.25 < floors.welch_bound(100, int(d["welch_bound"]) - 1)
    assert max(v for k, v in d.items() if k.endswith("floor")) <= min(v for k, v in d.items() if "_rms" in k)
    narrow = {row.name: row for row in width_rows(WidthConfig(epsilon=0.2), AND)}
    assert narrow["affine_floor"].value == 1
    assert narrow["analytic_rms_zeros"].value > 293


def test_smallest_and_by_law():
    for answer in (1, 2, 7, 64, 65, 1000):
        assert smallest(lambda d, answer=answer: d >= answer) == answer
    assert smallest(lambda d: True, least=10) == 10
    assert by_law(4.0, 0.25) == 256
    assert by_law(4.0001, 0.25) == 257


def test_intervals_hold_what_they_should():
    generator = np.random.default_rng(0)
    samples = generator.exponential(size=(2000, 20))
    medians = [quantile_interval(row.tolist(), 0.5) for row in samples]
    held = np.mean([low <= math.log(2) <= high for _, (low, high) in medians])
    # Order statistics 6 and 15 of 20 hold the median with probability 0.9586; 2,000 draws, limits of 1 in 1,000.
    exact = binom.cdf(14, 20, 0.5) - binom.cdf(5, 20, 0.5)
    assert abs(held - exact) < 3.3 * math.sqrt(exact * (1 - exact) / 2000)
    assert quantile_interval([1.0, 2.0, 3.0], 0.5)[1] is None
    assert quantile_interval(samples[0].tolist(), 0.05)[1] is None
    assert root_interval([4.0]) == (2.0, None)
    value, (low, high) = root_interval([3.0, 5.0])
    assert (value, low) == (2.0, 0.0)
    assert high > 2


def test_help_says_units_and_defaults(capsys):
    for command, words in (
        ("bounds", ("--check", "--outputs", "neurons", "default: 100")),
        ("width", ("--epsilon", "0.25")),
    ):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert all(word in text for word in words)


def test_the_largest_error_has_a_spread_however_many_the_inputs():
    """2·10^19 inputs: P(no error beyond t on one of them) rounds to 1, so its complement must be what is kept."""
    law = maximum_law(AND, 1000, 8, 10_000, math.comb(1000, 8))
    low, middle, high = (law.quantile(q) for q in (0.05, 0.5, 0.95))
    assert 1.005 < middle / low < high / low < 1.1
    assert [law.cdf(law.quantile(q)) for q in (0.05, 0.95)] == pytest.approx([0.05, 0.95], abs=1e-4)
