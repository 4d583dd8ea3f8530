"""The study of SAE errors at toy size: measured, stored, drawn again; fates of latents are counted right."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
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


def test_what_the_page_answers_stands_in_the_results():
    page = " ".join((ROOT / "docs/results/sae_errors.md").read_text().partition("U-AND, m = 12")[0].split())
    rows = [json.loads(line) for line in (ROOT / "analysis/results/sae_errors.jsonl").read_text().splitlines()]
    moves = [row for row in rows if row["part"] == "moves"]

    def of(layer, d, method, behind, move, over=None):
        at = [row["moves"][f"{method} {behind} 1"] for row in moves if (row["layer"], row["d"]) == (layer, d)]
        assert len(at) == 3
        return with_interval([one[move] / (one[over] if over else 1) for one in at])

    def with_interval(values):
        # Student's t for three seeds.
        return float(np.mean(values)), 4.3027 * float(np.std(values, ddof=1)) / 3**0.5

    def words(pair, digits):
        return f"{pair[0]:.{digits}f} ± {pair[1]:.{digits}f}"

    wide = ("gaussian", 80, "l1(l1=0.1)", "thresholded")
    assert f"{words(of(*wide, 'functions'), 3)} against {words(of(*wide, 'random'), 3)}" in page
    linear = of("gaussian", 80, "l1(l1=0.1)", "linear", "functions", "random")
    assert linear[0] + linear[1] < 1
    for layer, said in (
        ("gaussian", "of a random move for l1, {} for batch_topk"),
        ("trained", "for l1 and {} for batch_topk"),
    ):
        first, second = (
            words(of(layer, 80, method, "thresholded", "sae_error", "random"), 2)
            for method in ("l1(l1=0.1)", "batch_topk")
        )
        assert f"{first} {said.format(second)}" in page
    for layer, d in (("gaussian", 40), ("gaussian", 80), ("trained", 80)):
        for method in ("l1(l1=0.1)", "batch_topk"):
            assert of(layer, d, method, "linear", "sae_error", "random")[0] < 1
    exponents = {
        (layer, behind, kind): np.mean([row["exponents"][f"{behind} {kind}"]["p"] for row in moves
                                        if (row["layer"], row["d"]) == (layer, 80)])
        for layer in ("gaussian", "trained") for behind in ("linear", "thresholded", "corrected")
        for kind in ("functions", "random")
    }  # fmt: skip
    ands = [p for (_, behind, kind), p in exponents.items() if kind == "functions" and behind != "linear"]
    assert f"{min(ands):.1f} to {max(ands):.1f} with thresholds" in page
    random = [p for (_, _, kind), p in exponents.items() if kind == "random"]
    assert f"{min(random):.1f} to {max(random):.1f} along random" in page
    plain = [p for (_, behind, kind), p in exponents.items() if kind == "functions" and behind == "linear"]
    assert f"{min(plain):.1f} to {max(plain):.1f} along ANDs without" in page
    rare = [row for row in rows if row["part"] == "rare"]
    half = [np.array(row["densities"][3]) for row in rare]
    few = [(x > 0) & (x < 0.1 * row["rarest"]) for x, row in zip(half, rare, strict=True)]
    assert (sum(x.sum() for x in few), sum(map(len, half)), len(rare)) == (4, 702, 9)
    ends = np.concatenate([np.array(row["densities"][-1])[x] for x, row in zip(few, rare, strict=True)])
    before = np.concatenate([x[chosen] for x, chosen in zip(half, few, strict=True)])
    assert ((ends == 0).sum(), ((ends > 0) & (ends < before)).sum(), (ends >= before).sum()) == (3, 0, 1)
