"""Tables are read whole, and like is compared with like."""

import csv
import json

import pytest

from tests.figures import standin
from toymodels.errors import InputError
from toymodels.figures.series import series_of
from toymodels.figures.table import (
    Varies,
    coverage,
    errors_by_seed,
    filter_rows,
    layer_knobs,
    load_table,
    require,
    require_fixed,
    select_series,
    split_by,
    varied,
)
from toymodels.runs.metrics import check_metric, error_label
from toymodels.runs.table import levels


def test_json_lines_and_csv_hold_the_same(tmp_path):
    rows = standin.losses(seeds=(0,))
    standin.write(rows, tmp_path / "table.jsonl")
    with open(tmp_path / "table.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(rows[0])
        table.writerows([[v if isinstance(v, str) else json.dumps(v) for v in row.values()] for row in rows])
    found = load_table(tmp_path / "table.jsonl")
    assert found == load_table(tmp_path / "table.csv")
    assert levels(found, "p") == [(2.0,), (8.0,), (2.0, 4.0, 8.0)]
    assert levels(found, "weight") == [1.0, "case", "value"]


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "list.jsonl").write_text("[1, 2]\n")
    (tmp_path / "broken.jsonl").write_text('{"m": \n')
    (tmp_path / "notes.txt").write_text("m = 3")
    for name, words in (
        ("nowhere", "does not exist"),
        ("empty", "no finished run"),
        ("empty.jsonl", "not a table"),
        ("list.jsonl", "not a table"),
        ("broken.jsonl", "not a table"),
        ("notes.txt", "is no table"),
    ):
        with pytest.raises(InputError, match=words):
            load_table(tmp_path / name)


def test_columns_are_required():
    rows = standin.widths(d=(8, 16), m=(16,))
    require(rows, ("p",), ("worst_error",))
    for change, words in (
        ({"worst_error": None}, "row 3 of the table has no worst_error"),
        ({"worst_error": "0.1"}, "row 3 of the table has worst_error = '0.1'"),
        ({"worst_error": float("nan")}, "worst_error = nan"),
        ({"worst_error": -0.1}, "from 0 up"),
        ({"seed": None}, "no seed"),
        ({"p": None}, "no p"),
    ):
        with pytest.raises(InputError, match=words):
            require([*rows[:2], {**rows[2], **change}, *rows[3:]], ("p",), ("worst_error",))


def test_conditions():
    rows = standin.losses()
    assert levels(filter_rows(rows, ["steps=400", "weight=case"]), "steps") == [400]
    assert levels(filter_rows(rows, ["p=[8.0]"]), "p") == [(8.0,)]
    for condition, words in (("steps", "NAME=VALUE"), ("colour=3", "NAME=VALUE"), ("steps=7", "steps is 100, 400")):
        with pytest.raises(InputError, match=words):
            filter_rows(rows, [condition])


def test_what_varies_is_seen():
    rows = standin.losses()
    assert set(varied(rows)) == {"p", "weight", "steps"}
    assert len(require_fixed(rows, ("p", "weight", "steps"))) == len(rows)
    with pytest.raises(InputError, match=r"steps varies too \(100, 400\).*--where steps=100"):
        require_fixed(rows, ("p", "weight"))
    with pytest.raises(Varies) as varies:
        require_fixed(rows, ("p", "weight"))
    parts = split_by(rows, varies.value.setting)
    assert [words for words, _ in parts] == ["steps = 100", "steps = 400"]
    assert sum(len(part) for _, part in parts) == len(rows)
    # The gate, the seed and what differs in measuring alone are no settings.
    assert varied(standin.widths(d=(8,), m=(16,))) == []
    # A setting that some runs of a kind leave at its default varies; one that another kind does not have does not.
    some = [{**row, "layer_p": 0.5 if row["steps"] == 100 else None} for row in rows]
    assert set(varied(some)) == {"p", "weight", "steps", "layer_p"}
    assert layer_knobs(some) == ("layer_p",)
    with pytest.raises(InputError, match=r"layer_p varies too \(none, 0.5\)"):
        require_fixed(some, ("p", "weight", "steps"))
    other = [{**row, "kind": "compare", "minimax_pairs": 5} for row in rows]
    assert "minimax_pairs" not in varied([*rows, *other])


def test_lines_and_seeds():
    rows = standin.widths(d=(16, 8), m=(16,))
    assert series_of(rows) == list(standin.LINES)
    members = select_series(rows, "xor", ("trained", "minimax"))
    places, found = errors_by_seed(members[:-1], "d", "worst_error")
    assert places == [8, 16]
    assert found.shape == (3, 2)
    last = members[-1]
    missing = found[last["seed"], places.index(last["d"])]
    assert missing != missing  # nan
    for row in members[:-1]:
        assert found[row["seed"], places.index(row["d"])] == row["worst_error"]


def test_the_domain_in_words():
    rows = standin.widths(d=(8,), m=(16,))
    assert coverage(rows) == "exactly 2 active, all 120 inputs, all pairs, seeds\u00a00–2"
    assert "all inputs" in coverage(standin.widths(d=(8,)))
    sampled = [{**row, "covered": "20,000 sampled", "n_pairs": 50, "seed": 4} for row in rows]
    assert coverage(sampled) == (
        "exactly 2 active, 20,000 sampled inputs, all pairs, or those chosen or sampled, seed\u00a04"
    )


def test_errors_of_a_groups_own_name_have_words():
    assert error_label("rms_zeros") == "RMS error where the target is 0"
    assert error_label("rms_left_half") == "RMS error at left half"
    for column in ("seconds", "within_quarter", "rms_zeros_interval", "lr"):
        with pytest.raises(InputError, match=f"unknown metric '{column}': .*choose one of worst_error"):
            check_metric(column)
    check_metric("lr", [{"measures": ("lr",)}])
