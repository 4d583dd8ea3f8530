"""The study of SAE errors at toy size: measured, stored, drawn again; fates of latents are counted right."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from toymodels import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("sae_errors", ROOT / "analysis" / "sae_errors.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["sae_errors"] = module
    spec.loader.exec_module(module)
    return module


SMALL = {"m": 4, "s": 2, "layers": ("gaussian",), "d": (10,), "methods": ("topk(k=2,steps=4)",), "factors": (1.0, 2.0),
         "seeds": 2, "steps": 8, "bases": 5}  # fmt: skip


def test_measures_stores_and_draws(script, tmp_path):
    text = script.main(script.SAEErrors(out=tmp_path, **SMALL))
    rows = [json.loads(line) for line in (tmp_path / "sae_errors.jsonl").read_text().splitlines()]
    assert [row["part"] for row in rows] == ["moves"] * 2 + ["rare"] * 6
    for row in rows[:2]:
        assert row["worst"]["linear"] == pytest.approx(row["clean_worst_error"], rel=1e-6)
        one, two = (row["moves"][f"topk(k=2,steps=4) linear {factor}"] for factor in (1, 2))
        assert one == pytest.approx(two, rel=1e-6)  # a linear readoff knows no lengths
    for row in rows[2:]:
        assert row["times"] == list(range(1, 9))
        assert all(
            len(density) == 10 and min(density) >= 0 and max(density) <= 1 + 1e-9 for density in row["densities"]
        )
    assert (tmp_path / "sae_errors.png").stat().st_size > 10_000
    assert script.main(script.SAEErrors(out=tmp_path, plot_only=True, **SMALL)) == text


def test_fates_of_rare_latents_are_counted(script):
    # Latents at half time and at the end: rare then dead, rare then rarer, rare then more often, dead, frequent.
    row = {"rarest": 0.1, "densities": [[0.005, 0.005, 0.005, 0, 0.5], [0, 0.004, 0.3, 0, 0.5]]}
    assert script.rare_row([row]) == ["0.200", "0.400", "0.600", "0.200", "1", "1", "1"]


@pytest.mark.parametrize("wrong", [{"seeds": 1}, {"layers": ("nope",)}, {"d": (1, 2)}, {"s": 9}])
def test_settings_without_a_figure_are_refused(script, tmp_path, wrong):
    with pytest.raises(InputError, match=r"must have a width|needs at least"):
        script.main(script.SAEErrors(out=tmp_path, **{**SMALL, **wrong}))
