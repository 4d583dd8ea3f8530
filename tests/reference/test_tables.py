"""The tables of `bounds` and `width`, and what --check measures, are those of commit 9a73484."""

import json
from pathlib import Path

import pytest

from toymodels.cli import main

TABLES = json.loads((Path(__file__).parent / "numbers.json").read_text())["tables"]


@pytest.mark.parametrize("name", TABLES)
def test_numbers_are_those_of_the_reference(name, tmp_path, capsys):
    file = tmp_path / "table.json"
    assert main([*TABLES[name]["words"], "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    reference = TABLES[name]["rows"]
    assert [(row["task"], row["name"], row["kind"]) for row in rows] == [
        (r["task"], r["name"], r["kind"]) for r in reference
    ]
    for row, before in zip(rows, reference, strict=True):
        assert row.keys() >= before.keys()
        # Minimax errors are proved to 1e-7 of a half range; all else is the same arithmetic.
        for key in {"value", "measured", "interval"} & before.keys():
            numbers = before[key] if before[key] is None else pytest.approx(before[key], rel=1e-6, abs=1e-9)
            assert row[key] == numbers, (row["task"], row["name"], key)
