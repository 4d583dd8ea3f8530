"""`toymodels bounds` and `toymodels width`, as a person meets them."""

import json
import math

import pytest

from toymodels.cli import main
from toymodels.laws.registry import Problem
from toymodels.laws.sizes import BoundsConfig, WidthConfig
from toymodels.laws.tables import check_rows, make_rows
from toymodels.theory import counts, floors
from toymodels.theory.extremes import max_error_distribution
from toymodels.theory.fitted import fitted_error
from toymodels.theory.gates import Gate
from toymodels.theory.quadrants import error_std

AND, XOR = Gate.parse("and"), Gate.parse("xor")
KINDS = {"baseline", "floor", "prediction", "lower bound on width", "readoff's law"}

BAD = [
    (["bounds", "--s", "1"], "s = 1: it must be at least 2"),
    (["bounds", "--d", "0"], "d = 0: it must be at least 1"),
    (["bounds", "--m", "4", "--s", "5"], "s = 5: it must be at most 4"),
    (["bounds", "--s", "2.5"], "2.5"),
    (["bounds", "--task", "and", "nope"], "unknown gate or task 'nope'"),
    (["bounds", "--task", "0123"], "unknown gate or task"),
    (["bounds", "--task", "and", "0001"], "twice"),
    (["bounds", "--inputs", "independent"], "choose one of at_most, exactly"),
    (["bounds", "--seeds", "1", "1"], "names a seed twice"),
    (["bounds", "--outputs", "5000"], "at most 1225"),
    (["bounds", "--bits", "0"], "at least 1"),
    (["bounds", "--json", "."], "is a folder"),
    (["width", "--epsilon", "0"], "from 1e-9 to 1e6"),
    (["width", "--epsilon", "-1"], "from 1e-9 to 1e6"),
    (["width", "--s", "1"], "s = 1: it must be at least 2"),
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
    active = counts.at_most(50, 2)
    for gate in (AND, XOR):
        value = {row["name"]: row["value"] for row in content["rows"] if row["task"] == gate.name}
        assert value["affine_floor"] == abs(gate.coefficients[3]) / 4
        assert value["analytic_rms_11"] == pytest.approx(error_std(gate, 2)[3] / 10)
        # At exactly 2 of 50, XOR is 0 on 00 and on 11.
        n00, _, _, n11 = counts.case_counts(50, 2)
        squares = [error_std(gate, 2)[case] ** 2 / 100 for case in (0, 3)]
        if gate is XOR:
            assert value["analytic_rms_zeros"] == pytest.approx(
                math.sqrt((n00 * squares[0] + n11 * squares[1]) / (n00 + n11))
            )
        else:
            assert value["analytic_rms_zeros"] == pytest.approx(0.42791, abs=1e-5)
            assert value["analytic_rms_ones"] == pytest.approx(0.41606, abs=1e-5)
        assert value["pca_floor"] == floors.square_floor(gate, active, 100).per_output * 1225
        assert value["pca_floor"] == pytest.approx(value["pca_floor_share"] * value["zero_predictor"])
        assert value["welch_bound"] == 0
        assert value["balanced_rms_00"] == fitted_error(gate, 50, 2, 100, at_most=True).rms[0]
        assert value["analytic_max_median"] == max_error_distribution(gate, 50, 2, 100, 1225).quantile(0.5)
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
    usual = [row.name for row in make_rows(BoundsConfig(inputs=inputs).problem(gate))]
    found = make_rows(Problem(gate, m, s, d, inputs))
    assert [row.name for row in found] == usual
    for row in found:
        assert row.value is None or math.isfinite(row.value)
        assert (row.value is None) == row.note.startswith("not computed: ")
    widths = make_rows(Problem(gate, m, s, inputs=inputs), 0.25) if m <= 1000 else []
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
    problem = BoundsConfig(m=200, d=1000, s=3, inputs="exactly", seeds=(0, 1, 2), check=True).problem(XOR)
    found, measured = make_rows(problem), check_rows(problem)
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
    predicted = max_error_distribution(AND, 100, 2, int(d["analytic_max_median"]), math.comb(100, 2))
    assert predicted.quantile(0.5) == pytest.approx(0.25, rel=1e-3)
    assert fitted_error(AND, 100, 2, int(d["balanced_rms"]), at_most=True).rms.max() <= 0.25
    assert fitted_error(AND, 100, 2, int(d["balanced_rms"]) - 1, at_most=True).rms.max() > 0.25
    assert floors.welch_bound(100, int(d["welch_bound"])) <= 0.25 < floors.welch_bound(100, int(d["welch_bound"]) - 1)
    # Floors of the worst error: widths for an RMS error may be smaller.
    assert 0 < max(v for k, v in d.items() if k.endswith("floor")) <= d["analytic_max_median"]
    assert d["worst_error_floor"] < d["polynomial_floor"]
    assert d["pca_floor"] <= min(v for k, v in d.items() if "_rms" in k)
    narrow = {row.name: row for row in make_rows(WidthConfig().problem(AND), 0.2)}
    assert narrow["affine_floor"].value == 1
    assert narrow["analytic_rms_zeros"].value > 293


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
