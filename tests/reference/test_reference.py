"""Numbers of the code before the house was rebuilt (commit 9a73484), which later code must give again."""

import json
from pathlib import Path

import pytest

from toymodels.experiments.registry import EXPERIMENTS, run
from toymodels.runs.identity import from_dict
from toymodels.runs.table import read_table

REFERENCE = json.loads((Path(__file__).parent / "numbers.json").read_text())
METRICS = ("worst_error", "mean_worst_error", "rms_ones", "rms_zeros", "within_quarter")
CASES = [(kind, name) for kind in ("compare", "train") for name in REFERENCE[kind]]


def made_by_training(row):
    return "trained" in (row["first_layer"], row["readoff"]) or row["first_layer"] in (
        "gaussian_like",
        "spectrum_matched",
        "shuffled",
        "shuffled_within",
    )


def check(kind, reference, folder):
    config = from_dict(EXPERIMENTS[kind].config, {**reference["config"], "out": folder})
    rows = {
        (row["task"], row["first_layer"], row["readoff"], row["seed"]): row for row in read_table(run(kind, config))
    }
    assert len(rows) == len(reference["rows"])
    worst = {}
    for old in reference["rows"]:
        new = rows[old["task"], old["first_layer"], old["readoff"], old["seed"]]
        assert (new["covered"], new["n_pairs"]) == (old["covered"], old["n_pairs"])
        # These said of all seeds together whether their certificates hold.
        seeds = [
            row["proved"] for key, row in rows.items() if key[:3] == (old["task"], old["first_layer"], old["readoff"])
        ]
        assert (None if seeds[0] is None else all(seeds)) == old["proved"]
        for metric in METRICS:
            group = "trained" if made_by_training(old) else "fitted"
            difference = abs(new[metric] - old[metric])
            worst[group] = max(worst.get(group, (0.0,)), (difference, metric, *list(old.items())[:4]))
    return worst


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_rows_are_as_before(kind, name, tmp_path):
    worst = check(kind, REFERENCE[kind][name], tmp_path / "run")
    print(kind, name, worst)
    assert worst.get("fitted", (0.0,))[0] <= 1e-6, worst
