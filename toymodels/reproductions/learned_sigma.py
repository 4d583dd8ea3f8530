"""arXiv:2606.14673: σ, the scale of the mixing matrix, as a parameter that is trained with the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from toymodels.compressed.stack import train_stack
from toymodels.reproductions import mixing
from toymodels.reproductions.mixing import FULL, NAIVE, PAPER, REDUCED
from toymodels.reproductions.registry import REPRODUCTIONS, Line, Row, columns, of_cases
from toymodels.reproductions.structure import EMBEDDING
from toymodels.theory import compressed as theory

KINDS = {"asymmetric": 1.0, "symmetric": 1.0, "embedding": EMBEDDING}
"""Families of M, and the σ they are drawn with; all are trained with entries of standard deviation σ."""
CASES = (("asymmetric", 0.01), ("asymmetric", 0.06), ("symmetric", 0.01), ("embedding", 0.01))
"""Families and σ at the start: the paper's, and one above the least loss, so that the same end is no matter of too few steps."""


def best_closed(M: np.ndarray) -> tuple[float, float]:
    """Find the σ in (0, 0.2) with the least closed form for W_in ≥ 0 and one active feature; return it and that L/p."""
    n, d = mixing.N, mixing.D
    best = minimize_scalar(lambda sigma: theory.non_negative(n, d, sigma * M), bounds=(0, 0.2), method="bounded")
    return float(best.x), float(best.fun)


def learned(key: Row) -> Row:
    """Train networks together with their σ; measure σ at the end, and L/p there and with M = 0."""
    seeds, kind = key["seeds"], key["mixing"]
    drawn = [M / KINDS[kind] for M in mixing.matrices(kind, KINDS[kind], seeds)]
    stack = train_stack(replace(mixing.recipe(key), sigma=key["start"]), seeds, torch.stack(drawn))
    assert stack.sigma is not None
    found = []
    for i, (seed, M, sigma) in enumerate(zip(seeds, drawn, stack.sigma.tolist(), strict=True)):
        loss, clean = (mixing.loss_per_p(stack.network(i), part * M, seed, key["eval"]) for part in (sigma, 0))
        best, floor = best_closed(np.sign(sigma) * M.double().numpy())
        found.append({"sigma": sigma, "loss": loss, "clean": clean, "best": best, "floor": floor})
    return columns(found)


def by_sign(row: Row) -> list[tuple[str, list[int]]]:
    """Divide the seeds by the sign of σ at the end, where it matters: −M is as likely as M but for the embedding."""
    if row["mixing"] != "embedding":
        return [("", list(range(len(row["sigma"]))))]
    signs = (("σ > 0, ", 1), ("σ < 0, ", -1))
    parts = [(words, [i for i, sigma in enumerate(row["sigma"]) if sign * sigma > 0]) for words, sign in signs]
    return [(f"{words}{len(seeds)} seeds, ", seeds) for words, seeds in parts if seeds]


def _lines(rows: Sequence[Row]) -> list[Line]:
    words = {
        "sigma": "|σ| at the end", "best": "|σ| of the least closed form", "loss": "L/p",
        "floor": "L/p of the closed form at its own σ", "clean": "L/p with M = 0",
    }  # fmt: skip
    lines = []
    for row in rows:
        for part, seeds in by_sign(row):
            about = f"{row['mixing']} from {row['start']:g}, {part}".rstrip(", ")
            lines += [Line(f"{about}: {label}", [abs(row[name][i]) for i in seeds]) for name, label in words.items()]
    return lines


def _answer(rows: Sequence[Row]) -> str:
    """Say to what σ goes, and whether the network beats the naive one there."""
    words = []
    for row in rows:
        below, negative = sum(loss < NAIVE for loss in row["loss"]), sum(sigma < 0 for sigma in row["sigma"])
        size = list(map(abs, row["sigma"]))
        words.append(
            f"{row['mixing']} M, σ from {row['start']:g}: |σ| to {min(size):.4f} … {max(size):.4f} ({negative} negative), L/p "
            f"below the naive {NAIVE:.4f} for {below} of {len(size)} seeds"
        )
    return "; ".join(words) + "."


REPRODUCTIONS(
    "learned_sigma", shows=f"{PAPER}, σ trained with the network: to what value it goes, L/p there and with M = 0", source=PAPER,
    reduced=REDUCED, full=FULL, keys=of_cases({"mixing": kind, "start": start} for kind, start in CASES), lines=_lines,
    answer=_answer, minutes=2, order=14,
)(learned)  # fmt: skip
