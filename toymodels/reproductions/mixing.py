"""arXiv:2606.14673 (Bhagat et al.): y = ReLU(x) + M x, its gain over the naive network, and the transplant."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toymodels.compressed.baselines.semi_nmf import factor_network
from toymodels.compressed.measures import feature_errors
from toymodels.compressed.registry import Compressed
from toymodels.compressed.stack import Recipe, Stack, train_stack
from toymodels.core.network import Network
from toymodels.core.seeds import derive_seed
from toymodels.reproductions.registry import REPRODUCTIONS, Line, Row
from toymodels.tasks.pointwise import mixing_matrix
from toymodels.theory import compressed as theory

PAPER = "arXiv:2606.14673"
N, D, P = 100, 50, 0.01
REDUCED = {"steps": 4000, "batch": 512, "eval": 100_000}
FULL = {"steps": 10_000, "batch": 2048, "eval": 1_600_000}
NAIVE = theory.naive(N, D)
SHIPPED = {0.0: 0.0833, 0.005: 0.0794, 0.01: 0.0774, 0.015: 0.0777, 0.02: 0.0802, 0.03: 0.0922, 0.04: 0.1138}
"""σ: L/p of the semi-NMF network as published (figure 9), with exactly one feature active; asymmetric M."""
SIGMAS = {
    "asymmetric": (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.08),
    "symmetric": (0.01, 0.02, 0.03, 0.04, 0.06, 0.08),
}
READ = {
    ("asymmetric", 0.02): 0.0755,
    ("asymmetric", 0.03): 0.075,
    ("asymmetric", 0.05): 0.0833,
    ("asymmetric", 0.08): 0.115,
}
"""L/p of trained networks, read off figures 2 (σ = 0.02, p = 0.01) and 5b (near σ = 0.028 and 0.048)."""


def recipe(key: Mapping[str, Any], p: float | None = None, occupied: bool = False) -> Recipe:
    """Return the paper's recipe at the size of a key: AdamW 3e-3, weight decay 1e-2, squared error."""
    settings = {"steps": key["steps"], "batch": key["batch"], "occupied": occupied}
    return Recipe(N, D, P if p is None else p, q=2, lr=3e-3, weight_decay=1e-2, initial="kaiming", **settings)


def matrices(kind: str, sigma: float, seeds: Sequence[int]) -> list[Tensor]:
    """Draw a mixing matrix for each seed; zeros for σ = 0."""
    drawn = [mixing_matrix(kind, N, sigma, derive_seed(seed, "task")) if sigma else None for seed in seeds]
    return [torch.zeros(N, N) if matrix is None else matrix for matrix in drawn]


def loss_per_p(network: Network, mixing: Tensor, seed: int, inputs: int) -> float:
    """Measure L/p of a network for a mixing matrix, on inputs drawn from the seed."""
    problem = Compressed(N, D, P, mixing.double().numpy())
    sample = problem.features.sampled(inputs, derive_seed(seed, "evaluation"))
    return feature_errors(network, problem.task, sample).loss / P


def gain(key: Row) -> Row:
    """Measure L/p of trained networks and of semi-NMF networks for one σ: a matrix M, weights and inputs for each seed."""
    seeds, sigma = key["seeds"], key["sigma"]
    mixing = matrices(key["mixing"], sigma, seeds)
    stack = train_stack(recipe(key), seeds, torch.stack(mixing))
    row: dict[str, list[float]] = {
        name: [] for name in ("trained", "semi_nmf", "semi_nmf_published", "single_right", "single_published", "closed")
    }  # fmt: skip
    for i, (seed, M) in enumerate(zip(seeds, mixing, strict=True)):
        matrix = M.double().numpy()
        single = Compressed(N, D, mixing=matrix, single=True)
        right, published = factor_network(single, seed), factor_network(single, seed, published=True)
        for name, network in (("trained", stack.network(i)), ("semi_nmf", right), ("semi_nmf_published", published)):
            row[name].append(loss_per_p(network, M, seed, key["eval"]))
        row["single_right"].append(single.one_active(right))
        row["single_published"].append(single.one_active(published))
        row["closed"].append(theory.non_negative(N, D, matrix))
    return row


def _gain_keys(size: Mapping[str, int], seeds: tuple[int, ...]) -> list[Row]:
    return [
        {"mixing": mixing, "sigma": sigma, **size, "seeds": list(seeds)}
        for mixing, sigmas in SIGMAS.items()
        for sigma in sigmas
    ]


def _gain_lines(rows: Sequence[Row]) -> list[Line]:
    lines = []
    for row in rows:
        sigma, name = row["sigma"], f"{row['mixing']} σ = {row['sigma']:g}"
        known = READ.get((row["mixing"], sigma))
        lines.append(Line(f"{name}: trained L/p", row["trained"], known, 0.03 * (known or 0)))
        lines.append(Line(f"{name}: semi-NMF, transpose right", row["semi_nmf"]))
        lines.append(Line(f"{name}: semi-NMF as published", row["semi_nmf_published"]))
        shipped = SHIPPED.get(sigma) if row["mixing"] == "asymmetric" else None
        lines.append(Line(f"{name}: one active, semi-NMF, transpose right", row["single_right"]))
        lines.append(
            Line(
                f"{name}: one active, semi-NMF as published", row["single_published"], shipped, 5e-5 if shipped else 0.0
            )
        )
        lines.append(Line(f"{name}: one active, closed form for W_in ≥ 0", row["closed"]))
    return lines


def below_naive(rows: Sequence[Row], name: str) -> float:
    """Find the σ at which the mean of a column crosses the naive L/p from below, by lines between the σ measured."""
    points = [(row["sigma"], float(np.mean(row[name])) - NAIVE) for row in rows if row["sigma"]]
    for (a, low), (b, high) in itertools.pairwise(points):
        if low < 0 <= high:
            return float(a - low * (b - a) / (high - low))
    return float("nan")


def _gain_answer(rows: Sequence[Row]) -> str:
    """Say which network gains over the naive one, and up to which σ."""
    labels = {
        "trained": "trained", "semi_nmf": "semi-NMF", "semi_nmf_published": "semi-NMF as published",
        "single_right": "semi-NMF, one active", "single_published": "semi-NMF as published, one active",
    }  # fmt: skip
    sentences = []
    for mixing in SIGMAS:
        part = [row for row in rows if row["mixing"] == mixing and row["sigma"]]
        words = []
        for name, label in labels.items():
            means = [float(np.mean(row[name])) for row in part]
            least, crossed = int(np.argmin(means)), below_naive(part, name)
            range_ = f"above naive from σ = {crossed:.3f}" if crossed == crossed else "below naive at every σ measured"
            at = f"least {means[least]:.4f} at σ = {part[least]['sigma']:g}, {range_}"
            words.append(f"{label}: {at if means[least] < NAIVE else 'never below naive'}")
        sentences.append(f"{mixing.capitalize()} M, L/p (naive {NAIVE:.4f}): {'; '.join(words)}.")
    return " ".join(sentences)


def _draw_gain(rows: Sequence[Row]) -> Any:
    """Draw L/p over σ for trained networks, both semi-NMF networks and the closed form; bars: 95 % t intervals."""
    from toymodels.figures.series import PALETTE
    from toymodels.figures.style import heading, legend, new_figure, quiet
    from toymodels.theory.statistics import mean_interval

    figure = new_figure(3.2)
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    labels = {
        "trained": "trained", "semi_nmf": "semi-NMF, transpose right", "semi_nmf_published": "semi-NMF as published",
        "closed": "closed form (W_in ≥ 0, one active)",
    }  # fmt: skip
    for axis, mixing in zip(axes, ("asymmetric", "symmetric"), strict=True):
        part = [row for row in rows if row["mixing"] == mixing]
        if not part:
            continue
        for (name, label), colour in zip(labels.items(), PALETTE, strict=False):
            means = [mean_interval(row[name]) for row in part]
            bars = [half or 0.0 for _, half in means]
            axis.errorbar(
                [row["sigma"] for row in part], [mean for mean, _ in means], bars, color=colour, label=label, linewidth=1,
                marker="o", markersize=2.5, linestyle="--" if name == "closed" else "-",
            )  # fmt: skip
        axis.axhline(NAIVE, color="0.5", linewidth=0.8, linestyle=":", label="naive, M = 0: 1/12")
        axis.set_xlabel("σ, standard deviation of the entries of M", fontsize=8)
        axis.set_title(f"{mixing} M", fontsize=8)
        axis.set_ylim(0.04, 0.15)
        quiet(axis)
    axes[0].set_ylabel("L/p", fontsize=8)
    legend(figure, columns=3)
    first = rows[0]
    size = f"n = {N}, d = {D}, p = {P}, {first['steps']:,} steps of {first['batch']:,}"
    about = f"{size}, {len(first['seeds'])} draws of M, weights and inputs"
    heading(figure, f"Squared loss per p on ReLU(x) + M x: {about}")
    return figure


REPRODUCTIONS(
    "mixing_gain", shows=f"{PAPER}, figures 5b and 9: L/p over σ, with both semi-NMF networks and the closed form", source=PAPER,
    reduced=REDUCED, full=FULL, keys=_gain_keys, lines=_gain_lines, draw=_draw_gain, answer=_gain_answer, minutes=14, order=10,
)(gain)  # fmt: skip


EARLY = (10, 30, 100, 300)
"""Steps without M after which the transplanted network is judged: the published curve may begin after some."""


def transplant(key: Row) -> Row:
    """Train with M (asymmetric, σ = 0.025), set M = 0 and train on: L/p before, at and after the change, for each seed."""
    seeds = key["seeds"]
    mixing = matrices("asymmetric", 0.025, seeds)
    clean = torch.zeros(N, N)
    first = train_stack(recipe(key), seeds, torch.stack(mixing))

    def later(until: int | None = None) -> Stack:
        # Other inputs than those of the first training: another seed of the same network.
        return train_stack(replace(recipe(key), until=until), [seed + 1_000_000 for seed in seeds], start=first)

    def losses(stack: Stack, targets: Sequence[Tensor]) -> list[float]:
        return [loss_per_p(stack.network(i), targets[i], seed, key["eval"]) for i, seed in enumerate(seeds)]

    nothing = [clean] * len(seeds)
    return {
        "with": losses(first, mixing), "jump": losses(first, nothing), "after": losses(later(), nothing),
        "early": [losses(later(steps), nothing) for steps in key["later"]],
        "fresh": losses(train_stack(recipe(key), seeds), nothing),
    }  # fmt: skip


def _transplant_keys(size: Mapping[str, int], seeds: tuple[int, ...]) -> list[Row]:
    return [{"what": "transplant", "later": [n for n in EARLY if n < size["steps"]], **size, "seeds": list(seeds)}]


def _transplant_lines(rows: Sequence[Row]) -> list[Line]:
    (row,) = rows
    later = zip(row["later"], row["early"], strict=True)
    return [
        Line("trained with M: L/p", row["with"], 0.0745, 0.03 * 0.0745),
        Line("the same weights, M = 0: L/p", row["jump"], 0.088, 0.03 * 0.088),
        *(Line(f"after {steps:,} steps with M = 0: L/p", losses) for steps, losses in later),
        Line("trained on with M = 0: L/p", row["after"], 0.0835, 0.0005 + 0.03 * 0.0835),
        Line("trained with M = 0 from the start: L/p", row["fresh"]),
    ]


def _transplant_answer(rows: Sequence[Row]) -> str:
    """Say whether anything of the gain survives without M."""
    lines = _transplant_lines(rows)
    above = sum(line.mean - (line.half or 0) > NAIVE for line in (lines[1], lines[-2]))
    words = "the interval holds the naive loss, or lies below it: this run does not say that the gain went with M"
    if above == 2:
        words = "nothing of the gain is left: it went with M, as that of a copy of the linear part M x"
    return f"The naive network has L/p = {NAIVE:.4f}. Without M {words}."


REPRODUCTIONS(
    "transplant", shows=f"{PAPER}, figure 6: weights trained with M, then M = 0", source=PAPER,
    reduced=REDUCED, full=FULL, keys=_transplant_keys, lines=_transplant_lines, answer=_transplant_answer, minutes=3, order=11,
)(transplant)  # fmt: skip
