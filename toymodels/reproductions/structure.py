"""arXiv:2606.14673, figures 5a, 7 and 8: what the product W_out W_in of trained networks is, for each family of M.

The best matrix of rank d for 1 + M, which is all that a network with W_in ≥ 0 can have for one active feature, predicts the
numbers of these figures without a free parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from toymodels.compressed.registry import Compressed
from toymodels.compressed.stack import train_stack
from toymodels.reproductions import mixing
from toymodels.reproductions.mixing import PAPER
from toymodels.reproductions.registry import REPRODUCTIONS, Line, Row, columns, of_cases
from toymodels.theory import compressed as theory

EMBEDDING = 1000**-0.5
"""σ of the embedding in 1,000 dimensions."""
FAMILIES = (
    ("embedding", EMBEDDING), ("symmetric", 0.025), *(("asymmetric", sigma) for sigma in (0.02, 0.025, 0.03)),
)  # fmt: skip
SPARSE_END = {
    ("embedding", EMBEDDING): 0.0597, ("symmetric", 0.025): 0.0602, ("asymmetric", 0.025): 0.0717,
}  # fmt: skip
"""L/p at the sparse end of figure 5a; the σ of the two Gaussian families is not said: that of figure 6 is taken."""
COSINES = {0.1: 0.99, 0.4: 0.95, 0.7: 0.15}
"""Figure 7, σ = 0.03: cosines at 10, 40 and 70 of 100 singular vectors."""
SLOPES = {"off": 1.859, "on": 3.383, "intercept": 0.620}
"""Figure 8; its σ is not said: those of figures 2, 6 and 7 are taken."""


def slopes(product: Float[np.ndarray, "n n"], M: Float[np.ndarray, "n n"]) -> dict[str, float]:
    """Regress the entries of a matrix on those of M, off the diagonal and on it."""
    off = ~np.eye(len(M), dtype=bool)
    on_slope, intercept = (
        np.polyfit(np.diag(M), np.diag(product), 1) if np.diag(M).any() else (np.nan, product.trace() / len(M))
    )
    return {"off": float(np.polyfit(M[off], product[off], 1)[0]), "on": float(on_slope), "intercept": float(intercept)}


def best_copy(M: Float[np.ndarray, "n n"], d: int) -> Float[np.ndarray, "n n"]:
    """Compute the best matrix of rank d for 1 + M."""
    left, values, right = np.linalg.svd(np.eye(len(M)) + M)
    return np.asarray(left[:, :d] * values[:d] @ right[:d])


def cosines(product: Float[np.ndarray, "n n"], M: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """Compute the cosine of W_out W_in v_i with u_i, for each pair of singular vectors of 1 + M, largest values first."""
    left, _, right = np.linalg.svd(np.eye(len(M)) + M)
    images = product @ right.T
    return np.asarray((left * images).sum(0) / np.linalg.norm(images, axis=0).clip(1e-300))


def family(key: Row) -> Row:
    """Train networks with M of one family; measure L/p, the product's cosines and slopes, and the negative part of W_in."""
    seeds, kind, sigma = key["seeds"], key["mixing"], key["sigma"]
    drawn = mixing.matrices(kind, sigma, seeds)
    stack = train_stack(mixing.recipe(key, occupied=True), seeds, torch.stack(drawn))
    found = []
    for i, drawn_matrix in enumerate(drawn):
        M = drawn_matrix.double().numpy()
        made, w_in = stack.network(i), stack.w_in[i].double()
        product = (stack.w_out[i].double() @ w_in).numpy()
        found.append({
            "single": Compressed(mixing.N, mixing.D, mixing=M, single=True).one_active(made),
            "closed": theory.non_negative(mixing.N, mixing.D, M), "cosines": cosines(product, M).tolist(),
            "negative": float(torch.relu(-w_in).square().sum() / w_in.square().sum()), **slopes(product, M),
            **{f"copy_{name}": value for name, value in slopes(best_copy(M, mixing.D), M).items()},
        })  # fmt: skip
    return {name: values for name, values in columns(found).items() if np.isfinite(values).all()}


def _lines(rows: Sequence[Row]) -> list[Line]:
    lines = []
    words = {
        "off": "slope on M off the diagonal", "on": "slope on M on the diagonal", "intercept": "mean of the diagonal at M = 0",
    }  # fmt: skip
    for row in rows:
        case = (row["mixing"], row["sigma"])
        name = f"{case[0]} σ = {case[1]:.3g}"
        known = SPARSE_END.get(case)
        lines.append(Line(f"{name}: L/p, one active", row["single"], known, 0.03 * (known or 0)))
        lines.append(Line(f"{name}: closed form for W_in ≥ 0", row["closed"]))
        lines.append(Line(f"{name}: share of ‖W_in‖² in negative weights", row["negative"]))
        if case == ("asymmetric", 0.03):
            values = np.array(row["cosines"])
            for place, cosine in COSINES.items():
                index = int(place * mixing.N) - 1
                lines.append(
                    Line(f"{name}: cosine at singular vector {index + 1}", values[:, index].tolist(), cosine, 0.05)
                )
        for kind, label in words.items():
            if kind in row:
                published = SLOPES[kind] if row["mixing"] == "asymmetric" else None
                lines.append(Line(f"{name}: {label}", row[kind], published, 5e-4))
                lines.append(Line(f"{name}: the same of the best copy of rank d", row[f"copy_{kind}"]))
    return lines


def _answer(rows: Sequence[Row]) -> str:
    """Say how far the linear copy predicts what training finds."""
    ratios = [float(np.mean(row["single"]) / np.mean(row["closed"])) for row in rows]
    off = [float(np.mean(row["off"]) / np.mean(row["copy_off"])) for row in rows]
    return (
        f"With one feature active the trained networks have {min(ratios):.3f} to {max(ratios):.3f} times the closed form for "
        f"W_in ≥ 0, and their product W_out W_in follows M off the diagonal with {min(off):.2f} to {max(off):.2f} times the "
        f"slope of the best copy of rank d."
    )


def _draw(rows: Sequence[Row]) -> Any:
    """Draw the cosines with singular vectors of 1 + M (figure 7), each seed a line, and slopes beside those of the best copy."""
    from toymodels.figures.series import PALETTE
    from toymodels.figures.style import heading, new_figure, quiet
    from toymodels.theory.statistics import mean_interval

    figure = new_figure(3.0)
    left, right = figure.subplots(1, 2)
    for row, colour in zip(rows, PALETTE, strict=False):
        for k, values in enumerate(row["cosines"]):
            label = f"{row['mixing']} σ = {row['sigma']:.3g}" if k == 0 else None
            left.plot(np.arange(1, len(values) + 1), values, color=colour, linewidth=0.6, alpha=0.7, label=label)
        mean, half = mean_interval(row["off"])
        right.errorbar([np.mean(row["copy_off"])], [mean], [half or 0.0], color=colour, marker="o", markersize=4)
    ends = [min(np.mean(row["copy_off"]) for row in rows), max(np.mean(row["copy_off"]) for row in rows)]
    right.plot(ends, ends, color="0.5", linewidth=0.8, linestyle=":")
    left.legend(fontsize=6, frameon=False)
    quiet(left, xlabel="singular vector of 1 + M, largest value first", ylabel="cosine with W_out W_in")
    quiet(right, xlabel="slope on M of the best copy of rank d", ylabel="slope on M of W_out W_in")
    first = rows[0]
    size = f"n = {mixing.N}, d = {mixing.D}, p = {mixing.P}, {first['steps']:,} steps of {first['batch']:,}"
    heading(figure, f"W_out W_in of networks trained on ReLU(x) + M x: {size}, {len(first['seeds'])} seeds")
    return figure


REPRODUCTIONS(
    "structure", shows=f"{PAPER}, figures 5a, 7 and 8: L/p by family of M, W_out W_in against 1 + M", source=PAPER,
    reduced={"steps": 2500, "batch": 256}, full={"steps": 20_000, "batch": 2048},
    keys=of_cases({"mixing": kind, "sigma": sigma} for kind, sigma in FAMILIES), lines=_lines, draw=_draw, answer=_answer,
    minutes=2, order=13,
)(family)  # fmt: skip
