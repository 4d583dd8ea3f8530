"""The study of bigrams at toy size: measured, stored, drawn again; and its committed numbers bear out the page."""

import importlib.util
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from toymodels import InputError
from toymodels.circuits.bigrams import constructed_head, random_bigrams, sampled, trained_head
from toymodels.core.seeds import derive_seed

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("bigrams", ROOT / "analysis" / "bigrams.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bigrams"] = module
    spec.loader.exec_module(module)
    return module


def test_measures_stores_and_draws(script, tmp_path):
    small = {"m": (8,), "d_resid": 6, "d_head": (3,), "bigrams": (4, 9), "active": (1, 2), "seeds": 2, "steps": 3}
    text = script.main(script.Bigrams(out=tmp_path, **small))
    rows = [json.loads(line) for line in (tmp_path / "bigrams.jsonl").read_text().splitlines()]
    assert [(row["bigrams"], row["active"], len(row["trained"])) for row in rows] == [
        (4, 1, 2),
        (4, 2, 0),
        (9, 1, 2),
        (9, 2, 0),
    ]
    assert rows[1]["law"] == pytest.approx(2 * (4 / 18) ** 0.5)
    assert (tmp_path / "bigrams.png").stat().st_size > 10_000
    assert "m = 8: noise = (" in text
    assert script.main(script.Bigrams(out=tmp_path, plot_only=True, **small)) == text


def test_every_number_of_a_line_is_recomputed(script):
    m, d, h, active, steps = 8, 6, 3, 2, 3
    size = {"m": m, "d_resid": d, "d_head": h, "bigrams": 9, "active": active, "seeds": 2, "steps": steps}
    row = script.measure_size(size)
    assert row["law"] == pytest.approx(2 * (9 / 18) ** 0.5)
    for seed in range(2):
        bigrams = random_bigrams(m, 9, derive_seed(seed, "task"))
        query, key = sampled(bigrams, script.ROWS, active, derive_seed(seed, "evaluation"))
        pairs = [(int(i), int(j)) for i, j in bigrams.nonzero()]
        q, k = query.double().numpy(), key.double().numpy()
        truth = sum(q[:, i] * k[:, j] for i, j in pairs)
        # Σ over two bigrams of E[α_i α_i'] E[β_j β_j'], the moments of `score_variance`; its own test draws heads.
        spread = 2 * (d - h) / (h * (d + 2))
        exact = []
        for a, b in zip(q[truth == 0][: script.EXACT], k[truth == 0][: script.EXACT], strict=True):
            total = 0.0
            for (i, j), (i2, j2) in itertools.product(pairs, pairs):
                alpha = a[i] + (active - a[i]) / d if i == i2 else a[i] * a[i2] * (1 + 1 / d)
                beta = b[j] * (1 + spread) + (active - b[j]) / h if j == j2 else b[j] * b[j2] * (1 + 1 / h)
                total += alpha * beta
            exact.append(total)
        assert row["exact"][seed] == pytest.approx(np.mean(exact), rel=1e-9)
        heads = {
            "constructed": constructed_head(bigrams, d, h, seed),
            "trained": trained_head(bigrams, d, h, active, seed, steps),
        }
        for name, head in heads.items():
            w = (head.queries @ head.matrix @ head.keys.T).double().numpy()
            score = np.array([one[x == 1][:, y == 1].sum() for one, x, y in zip([w] * len(q), q, k, strict=True)])
            error, ones = score - truth, truth > 0
            wrong = np.where(ones, score <= 0.5, score > 0.5)
            expected = {
                "rms_zeros": (error[~ones] ** 2).mean() ** 0.5, "rms_ones": (error[ones] ** 2).mean() ** 0.5,
                "wrong": (wrong[ones].mean() + wrong[~ones].mean()) / 2,
            }  # fmt: skip
            assert row[name][seed] == pytest.approx(expected, rel=1e-4)  # scores are float32 there


def test_slope_and_constant_are_those_of_a_line(script):
    rows = [{"law": law, "constructed": [{"rms_zeros": c * law**1.5} for c in (2.0, 2.2)]} for law in (0.1, 0.4, 1.0)]
    (slope, by), (constant, of) = script.fit(rows)
    assert (slope, by, constant) == pytest.approx((1.5, 0, 2.1))
    assert of == pytest.approx(12.706 * 0.1, rel=1e-3)  # Student's t for two seeds times the standard error


def test_the_exact_noise_is_that_of_the_committed_heads():
    rows = [json.loads(line) for line in (ROOT / "analysis/results/bigrams.jsonl").read_text().splitlines()]
    ratios = []
    for row in rows:
        squares = [error["rms_zeros"] ** 2 for error in row["constructed"]]
        ratios.append(np.mean(squares) / np.mean(row["exact"]))
    # Over all sizes: the mean of the ratios has a standard error from their own spread.
    error = np.std(ratios, ddof=1) / len(ratios) ** 0.5
    assert abs(np.mean(ratios) - 1) < 5 * error
    assert abs(np.mean(ratios) - 1.25**2) > 5 * error  # a law that is 1.25 times too large


@pytest.mark.parametrize("wrong", [
    {"seeds": 1}, {"d_head": (65,)}, {"bigrams": (5000,)}, {"m": ()}, {"active": (0,)}, {"d_head": (8, 8)}])  # fmt: skip
def test_settings_without_a_figure_are_refused(script, tmp_path, wrong):
    with pytest.raises(InputError, match=r"must be at (most|least)|needs at least|is empty|twice"):
        script.main(script.Bigrams(out=tmp_path, **wrong))


def test_what_the_page_answers_stands_in_the_results(script):
    page = " ".join((ROOT / "docs/results/bigrams.md").read_text().split())
    rows = [json.loads(line) for line in (ROOT / "analysis/results/bigrams.jsonl").read_text().splitlines()]
    by_m = {m: script.fit([row for row in rows if row["m"] == m]) for m in (64, 256)}
    (slope, by), (constant, of) = by_m[256]
    assert f"{slope:.2f} ± {by:.2f} with 256 features" in page
    assert f"{constant:.2f} ± {of:.2f} measured at m = 256" in page
    (slope, by), (constant, of) = by_m[64]
    assert f"{slope:.2f} ± {by:.2f} with 64" in page
    assert f"{constant:.2f} ± {of:.2f} at m = 64" in page
    for m, (_, (constant, of)) in by_m.items():
        expected = [(1 + (64 + d_head) / m) ** 0.5 for d_head in (8, 32)]
        assert min(expected) - of < constant < max(expected) + of
    held = {
        name: {
            (row["m"], row["d_head"], row["bigrams"])
            for row in rows
            if row["steps"] and np.mean([error["wrong"] for error in row[name]]) <= 0.05
        }
        for name in ("constructed", "trained")
    }
    assert held["constructed"] == {(256, 32, 16)}
    assert held["trained"] == {(m, *size) for m in (64, 256) for size in ((8, 16), (32, 16), (32, 64))}
