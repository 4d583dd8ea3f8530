"""A study measures each case once, keeps it at once, and goes on where it was stopped."""

import pytest

from toymodels.errors import InputError
from toymodels.experiments.study import load, stored, study

KEYS = [{"m": m, "d": d} for m in (2, 3) for d in (10, 20)]


def test_cases_are_measured_once_and_returned_in_order(tmp_path):
    path, measured = tmp_path / "new" / "rows.jsonl", []

    def measure(key):
        measured.append(key)
        return {"error": key["m"] / key["d"]}

    rows = study(path, KEYS, measure)
    assert measured == KEYS
    assert rows == [{**key, "error": key["m"] / key["d"]} for key in KEYS] == load(path)
    assert study(path, KEYS[::-1], measure) == rows[::-1]
    assert stored(path, KEYS[1:2]) == rows[1:2]
    assert measured == KEYS
    more = study(path, [{"m": 4, "d": 10}, *KEYS[:1]], measure)
    assert [row["m"] for row in more] == [4, 2]
    assert len(load(path)) == 5


def test_what_was_measured_before_a_stop_is_kept(tmp_path):
    path = tmp_path / "rows.jsonl"

    def measure(key):
        if key["m"] == 3:
            raise KeyboardInterrupt
        return {"error": 1.0}

    with pytest.raises(KeyboardInterrupt):
        study(path, KEYS, measure)
    assert [row["m"] for row in load(path)] == [2, 2]
    with pytest.raises(InputError, match="lacks m = 3, d = 10: measure it first"):
        stored(path, KEYS)


def test_damaged_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="is missing: measure first"):
        stored(tmp_path / "rows.jsonl", KEYS)
    for content in (b"{", b"5\n", b"\xff\xfe"):
        (tmp_path / "rows.jsonl").write_bytes(content)
        for use in (lambda path: stored(path, KEYS), lambda path: study(path, KEYS, dict)):
            with pytest.raises(InputError, match="damaged"):
                use(tmp_path / "rows.jsonl")
