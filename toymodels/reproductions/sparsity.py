"""arXiv:2606.14673, figures 2, 3 and 10: networks trained at one p, judged at it and at others; their one-hot responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.compressed.registry import Compressed
from toymodels.compressed.stack import Stack, train_stack
from toymodels.core.seeds import derive_seed, seeded
from toymodels.reproductions import mixing
from toymodels.reproductions.mixing import FULL, PAPER
from toymodels.reproductions.registry import REPRODUCTIONS, Line, Row, of_cases
from toymodels.theory import compressed as theory

REDUCED = {"steps": 2500, "batch": 512, "eval": 50_000}
"""All inputs have an active feature, as 63 % of those of `mixing.REDUCED` have: as many of them are seen."""
SIGMA = 0.02
PROBABILITIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
CASES = [
    *({"sigma": SIGMA, "p": p} for p in (*PROBABILITIES, 1.0)), *({"sigma": 0.0, "p": p} for p in (0.01, 0.05, 0.1, 0.2, 0.5)),
]  # fmt: skip
SAME = dict(zip(PROBABILITIES, (0.072, 0.0725, 0.074, 0.0755, 0.0775, 0.0795, 0.080, 0.079, 0.072), strict=True))
"""L/p at the p of the training, read off figure 2; the next one at p = 1."""
DENSE = {0.001: 0.125, 0.02: 0.102, 0.1: 0.077, 0.5: 0.0575}
READING = 0.03
"""Relative accuracy of numbers read off a figure."""
_BLOCK = 20_000


def loss_per_p(
    stack: Stack, p: float, matrices: Float[Tensor, "stack n n"], seeds: Sequence[int], inputs: int
) -> list[float]:
    """Measure the L/p of each network on inputs that have an active feature; the others, without error, count as 0."""
    recipe = mixing.recipe({"steps": 1, "batch": 1}, p, occupied=True)
    generators = [seeded(derive_seed(seed, "evaluation")) for seed in seeds]
    total, left = torch.zeros(len(seeds), dtype=torch.float64), inputs
    while left > 0:
        x = recipe.draw(min(left, _BLOCK), generators)
        errors = stack(x) - torch.relu(x) - x @ matrices.mT
        total += (errors.double() ** 2).mean(2).sum(1)
        left -= x.shape[1]
    occupied = (1 - (1 - p) ** recipe.n) / p
    return [float(loss) for loss in total / inputs * occupied]


def at_sparsity(key: Row) -> Row:
    """Train networks at one p, a matrix M for each seed; measure L/p at this p, at p = 1 and with one active, and responses."""
    seeds, p = key["seeds"], key["p"]
    drawn = mixing.matrices("asymmetric", key["sigma"], seeds)
    matrices = torch.stack(drawn)
    stack = train_stack(mixing.recipe(key, p, occupied=True), seeds, matrices)
    responses = torch.relu(stack.w_in).mT @ stack.w_out.mT  # row i: all outputs to feature i alone at 1
    problems = [Compressed(mixing.N, mixing.D, mixing=M.double().numpy(), single=True) for M in drawn]
    return {
        "same": loss_per_p(stack, p, matrices, seeds, key["eval"]),
        "dense": loss_per_p(stack, 1.0, matrices, seeds, key["eval"]),
        "single": [problem.one_active(stack.network(i)) for i, problem in enumerate(problems)],
        "own": [sorted(r.diagonal().tolist()) for r in responses],
    }  # fmt: skip


def _lines(rows: Sequence[Row]) -> list[Line]:
    lines = []
    for row in rows:
        p, mixed = row["p"], row["sigma"] > 0
        name = f"σ = {row['sigma']:g}, p = {p:g}"
        same, dense = (SAME.get(p), DENSE.get(p)) if mixed else (0.0835 if p == mixing.P else None, None)  # figure 5a
        lines.append(Line(f"{name}: L/p", row["same"], same, READING * (same or 0)))
        if mixed:
            lines.append(Line(f"{name}: L/p at p = 1", row["dense"], dense, READING * (dense or 0)))
        known = 0.0835 if (row["sigma"], p) == (0.0, mixing.P) else None  # figure 5a, sparse end
        lines.append(Line(f"{name}: L/p, one active (exact)", row["single"], known, READING * (known or 0)))
    for p in (*PROBABILITIES, 1.0):
        offset = [theory.naive_with_offset(mixing.N, mixing.D, p)]
        lines.append(Line(f"σ = 0, p = {p:g}: naive with offset p/4, L/p (closed form)", offset))
    return lines + _response_lines(rows)


def _response_lines(rows: Sequence[Row]) -> list[Line]:
    """Compare the responses of figure 3: every feature by about a half, or half of them by 1."""
    own = {row["p"]: np.array(row["own"]) for row in rows if row["sigma"] > 0}
    sparse, dense = own[PROBABILITIES[0]], own[1.0]
    upper, lower = dense[:, mixing.N - mixing.D :], dense[:, : mixing.N - mixing.D]
    cases = [
        ("p = 0.001: smallest response to one feature at 1", sparse.min(1), 0.36),
        ("p = 0.001: largest", sparse.max(1), 0.75),
        ("p = 1: smallest response of the upper half", upper.min(1), 0.8),
        ("p = 1: largest", upper.max(1), 1.0),
        ("p = 1: smallest of the lower half", lower.min(1), 0.05),
        ("p = 1: largest of the lower half", lower.max(1), 0.12),
    ]
    return [Line(name, values.tolist(), known, 0.03) for name, values, known in cases]


def _mean(row: Row, name: str) -> float:
    return float(np.mean(row[name]))


def _answer(rows: Sequence[Row]) -> str:
    """Say what figures 2, 3 and 10 show."""
    mixed, clean = ([row for row in rows if (row["sigma"] > 0) == wanted] for wanted in (True, False))
    sparse, last = mixed[0], mixed[-1]
    offsets = {row["p"]: theory.naive_with_offset(mixing.N, mixing.D, row["p"]) for row in clean}
    naive = theory.naive(mixing.N, mixing.D)
    below = [f"{row['p']:g}" for row in clean if max(row["same"]) < naive]
    beats = [f"{row['p']:g}" for row in clean if max(row["same"]) < offsets[row["p"]]]
    nearest = min(_mean(row, "same") / offsets[row["p"]] for row in clean)
    own = np.array(last["own"])
    return (
        f"Trained at p = {sparse['p']:g} with M, L/p is {_mean(sparse, 'same'):.4f} there (naive without M {naive:.4f}) and "
        f"{_mean(sparse, 'dense'):.4f} at p = 1; of the networks trained at p = 1, {np.mean(own > 0.5) * mixing.N:.1f} of "
        f"{mixing.N} features have a response above 1/2. Without M all seeds are below the naive loss at p = "
        f"{', '.join(below) or 'none'}, and below naive with the offset p/4 at p = {', '.join(beats) or 'none'}; the least ratio "
        f"to it is {nearest:.3f}."
    )


def _draw(rows: Sequence[Row]) -> Any:
    """Draw L/p over p (figures 2 and 10), and sorted one-hot responses (figure 3), each seed a line."""
    from toymodels.figures.series import PALETTE
    from toymodels.figures.style import heading, new_figure, quiet
    from toymodels.theory.statistics import mean_interval

    figure = new_figure(3.0)
    left, right = figure.subplots(1, 2)
    mixed, clean = ([row for row in rows if (row["sigma"] > 0) == wanted] for wanted in (True, False))
    curves = (
        (mixed, "same", f"σ = {SIGMA:g}, at the p of training"), (mixed, "dense", f"σ = {SIGMA:g}, at p = 1"),
        (clean, "same", "M = 0, at the p of training"),
    )  # fmt: skip
    for (part, name, label), colour in zip(curves, PALETTE, strict=False):
        means = [mean_interval(row[name]) for row in part]
        left.errorbar(
            [row["p"] for row in part], [mean for mean, _ in means], [half or 0.0 for _, half in means], color=colour,
            label=label, linewidth=1, marker="o", markersize=2.5,
        )  # fmt: skip
    p = np.geomspace(PROBABILITIES[0], 1, 50)
    left.axhline(theory.naive(mixing.N, mixing.D), color="0.5", linewidth=0.8, linestyle=":", label="naive, M = 0")
    offset = [theory.naive_with_offset(mixing.N, mixing.D, float(value)) for value in p]
    left.plot(p, offset, color="0.5", linewidth=0.8, linestyle="--", label="naive with offset, M = 0")
    left.set(xscale="log")
    left.legend(fontsize=6, frameon=False)
    for row, colour in ((mixed[0], PALETTE[0]), (mixed[-1], PALETTE[1])):
        for k, own in enumerate(row["own"]):
            shown = f"trained at p = {row['p']:g}" if k == 0 else None
            right.plot(own, color=colour, linewidth=0.8, alpha=0.7, label=shown)
    right.legend(fontsize=6, frameon=False)
    quiet(left, xlabel="p of the training", ylabel="L/p")
    quiet(right, xlabel="feature, by its response", ylabel="own output to one feature at 1")
    first = rows[0]
    size = f"n = {mixing.N}, d = {mixing.D}, {first['steps']:,} steps of {first['batch']:,} inputs"
    heading(figure, f"Trained on ReLU(x) + M x: {size}, {len(first['seeds'])} seeds")
    return figure


REPRODUCTIONS(
    "sparsity", shows=f"{PAPER}, figures 2, 3 and 10: L/p over p, at p = 1, one-hot responses, naive with offset", source=PAPER,
    reduced=REDUCED, full=FULL, keys=of_cases(CASES), lines=_lines, draw=_draw, answer=_answer, minutes=15, order=12,
)(at_sparsity)  # fmt: skip
