"""arXiv:2607.04800: what the code looks like that the fourth power makes, which checks tell it from the naive network, and α."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from toymodels.compressed.codes import best_scale
from toymodels.compressed.stack import Recipe, initial_stack, train_stack
from toymodels.compressed.weights import TwoLayer
from toymodels.core.network import Network
from toymodels.core.seeds import derive_seed
from toymodels.diagnosis.verdict import subject_of
from toymodels.reproductions.l4 import FULL, PAPER, REDUCED, evaluated, features, trained
from toymodels.reproductions.registry import REPRODUCTIONS, Line, Row, of_cases
from toymodels.tasks.pointwise import FUNCTIONS, PointwiseTask
from toymodels.theory.compressed import several_alpha, single_alpha

ON = 0.05
"""A weight of W_in above it is on, as in the paper."""
KINDS = {"L4": (4, False), "L2": (2, False), "tied L4": (4, True)}
"""Name: exponent of the loss, and whether W_out is tied to the pseudo-inverse."""
WORDS = {
    "loss": "MSE over all outputs × 10³", "largest": "largest |error| seen", "least_mse": "least MSE of a feature",
    "most_mse": "largest MSE of a feature", "coherence": "coherence of the columns of W_in",
    "rank": "‖sR − 1‖² with the best s; no network is below n − d", "swap": "swap test",
    "cosine": "cosine of W_out and pinv(W_in)", "scale": "best c of the decoder c·pinv(W_in) for |error|^4",
    "start": "E|error|⁴ of the random start / after training",
    "on_mean": f"mean of weights above {ON:g}", "on_sd": "their standard deviation",
    "off_mean": "mean of the other weights", "least_k": "fewest neurons that are on for a feature", "most_k": "most",
    "least_load": "fewest features on a neuron", "most_load": "most features on a neuron",
    "at_1": "own output to one feature at 1", "at_minus_1": "own output to one feature at −1",
}  # fmt: skip
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "L4": {
        "loss": (2.39, 0.005), "largest": (0.66, 0.005), "least_mse": (0.0199, 5e-5), "most_mse": (0.0241, 5e-5),
        "coherence": (0.236, 5e-4), "rank": (50.4, 0.05), "swap": (1.0, 5e-5), "cosine": (0.996, 5e-4),
        "scale": (1.62, 0.005), "start": (56, 0.5),
        "on_mean": (0.340, 5e-4), "on_sd": (0.057, 5e-4), "off_mean": (-0.017, 5e-4), "least_k": (5, 0), "most_k": (6, 0),
        "least_load": (10, 0), "most_load": (12, 0), "at_1": (0.81, 0.005), "at_minus_1": (-0.04, 0.005),
    },
    "L2": {
        "loss": (1.65, 0.005), "largest": (0.99, 0.005), "coherence": (0.967, 5e-4), "rank": (50.0, 0.05),
        "swap": (0.71, 0.005), "cosine": (1.0, 5e-4),
    },
    "tied L4": {"coherence": (0.299, 5e-4), "swap": (0.64, 0.005)},
}  # fmt: skip
"""Kind: measure: published number of one network, and half a unit of its last digit."""
EDGES = np.linspace(-0.5, 0.7, 61)
"""Edges of the counts of weights."""


def swap_rate(layers: TwoLayer, on: Bool[np.ndarray, "d n"]) -> float:
    """Compute how often feature i's weights on the on-neurons of j, others 0, have their largest output at j.

    Over all ordered pairs with equally many on-neurons.
    """
    degree, hits, tries = on.sum(0), 0, 0
    for j in range(layers.n):
        givers = np.flatnonzero((degree == degree[j]) & (degree > 0) & (np.arange(layers.n) != j))
        if len(givers):
            columns = np.zeros((layers.d, len(givers)))
            columns[on[:, j]] = np.stack([layers.w_in[on[:, i], i] for i in givers], 1)
            hits += int(((layers.w_out @ np.maximum(columns, 0)).argmax(0) == j).sum())
            tries += len(givers)
    return hits / tries if tries else float("nan")


def checks(network: Network, seed: int, key: Mapping[str, Any]) -> Row:
    """Measure every number of `WORDS` but the start of a network without biases, and its errors by feature, least first."""
    errors = evaluated(network, seed, key)
    subject = subject_of(network, PointwiseTask(key["n"], FUNCTIONS["relu"], "relu"), features(key), 1000, seed)
    layers, on = subject.layers, subject.layers.w_in > ON
    response, pinv = subject.responses(), np.linalg.pinv(layers.w_in)
    scale = response.trace() / (response**2).sum()
    fit = features(key).sampled(20_000, derive_seed(seed, "fit")).dense().double()
    hidden = torch.relu(fit @ torch.from_numpy(layers.w_in).T)
    per_feature, per_neuron = on.sum(0), on.sum(1)
    return {
        "loss": 1e3 * errors.loss, "largest": errors.largest, "least_mse": float(errors.mse.min()),
        "most_mse": float(errors.mse.max()), "coherence": subject.value("coherence"),
        "rank": float(((scale * response - np.eye(key["n"])) ** 2).sum()), "swap": swap_rate(layers, on),
        "cosine": float((layers.w_out * pinv).sum() / np.linalg.norm(layers.w_out) / np.linalg.norm(pinv)),
        "scale": best_scale(hidden @ torch.from_numpy(pinv).T, torch.relu(fit))[0], "fourth": errors.fourth,
        "on_mean": float(layers.w_in[on].mean()), "on_sd": float(layers.w_in[on].std()),
        "off_mean": float(layers.w_in[~on].mean()), "least_k": int(per_feature.min()), "most_k": int(per_feature.max()),
        "least_load": int(per_neuron.min()), "most_load": int(per_neuron.max()),
        "at_1": float(response.diagonal().mean()), "at_minus_1": float(subject.responses(-1.0).diagonal().mean()),
        "mse": [round(value, 6) for value in sorted(errors.mse.tolist())],
    }  # fmt: skip


def of_kind(key: Row) -> Row:
    """Train networks of one kind, measure every check of each, and count the weights of W_in of all by size."""
    q, tied = KINDS[key["kind"]]
    stack = trained({**key, "q": q}, tied=tied)
    start = initial_stack(Recipe(key["n"], key["d"]), key["seeds"])
    found = []
    for i, seed in enumerate(key["seeds"]):
        one = checks(stack.network(i), seed, key)
        found.append({**one, "start": evaluated(start.network(i), seed, key).fourth / one["fourth"]})
    counts = np.histogram(stack.w_in.clamp(EDGES[0], EDGES[-1]).numpy(), EDGES)[0]
    return {**{name: [one[name] for one in found] for name in (*WORDS, "mse")}, "weights": counts.tolist()}


def code_lines(rows: Sequence[Row]) -> list[Line]:
    """Set every check of every kind beside the published number."""
    lines = []
    for row in rows:
        for name, label in WORDS.items():
            known = PUBLISHED[row["kind"]].get(name, (None, 0.0))
            lines.append(Line(f"{row['kind']}: {label}", row[name], *known))
    return lines


def _draw(rows: Sequence[Row]) -> Any:
    """Draw the errors of all features, least first, each seed a line; and how the weights of W_in are distributed."""
    from toymodels.figures.series import PALETTE
    from toymodels.figures.style import heading, new_figure, quiet

    figure = new_figure(3.0)
    left, right = figure.subplots(1, 2)
    middle = (EDGES[1:] + EDGES[:-1]) / 2
    for row, colour in zip(rows, PALETTE, strict=False):
        for k, values in enumerate(row["mse"]):
            left.plot(values, color=colour, linewidth=0.8, alpha=0.7, label=row["kind"] if k == 0 else None)
        counts = np.array(row["weights"])
        right.step(middle, counts / counts.sum() / (EDGES[1] - EDGES[0]), where="mid", color=colour, linewidth=1)
    left.axhline(1 / 3, color="0.5", linewidth=0.8, linestyle=":", label="output 0")
    left.legend(fontsize=6, frameon=False)
    right.set(yscale="log", xlim=(-0.1, EDGES[-1]))
    quiet(left, xlabel="feature, by its error", ylabel="MSE while x_i > 0")
    quiet(right, xlabel="weight of W_in (last step: all above)", ylabel="density")
    first = rows[0]
    size = f"n = {first['n']}, d = {first['d']}, {first['steps']:,} steps of {first['batch']:,} inputs"
    heading(figure, f"Networks for ReLU(x) trained on |error|^4 and |error|^2: {size}, {len(first['seeds'])} seeds")
    return figure


REPRODUCTIONS(
    "code", shows=f"{PAPER}, figure 2, the learned code, the swap test, and which checks separate it from the naive network",
    source=PAPER, reduced=REDUCED, full=FULL, keys=of_cases({"kind": kind} for kind in KINDS), lines=code_lines, draw=_draw,
    minutes=3, order=3,
)(of_kind)  # fmt: skip


ALPHAS = {
    (3, 2): 1.01, (7, 3): 1.32, (20, 5): 2.05, (10, 1): 3.04, (50, 5): 3.62, (100, 10): 3.99, (200, 20): 4.34,
    (1000, 100): 4.74,
}  # fmt: skip
"""Features and neurons: α of one trained network."""
P = 0.02


def alpha(key: Row) -> Row:
    """Train networks of one size at q = 4 and p = 0.02; measure the trace of their one-hot responses over d."""
    recipe = Recipe(key["n"], key["d"], P, q=4, occupied=True, steps=key["steps"], batch=key["batch"])
    stack = train_stack(recipe, key["seeds"])
    traces = (torch.relu(stack.w_in) * stack.w_out.mT).double().sum((1, 2))
    return {"alpha": (traces / key["d"]).tolist()}


def _alpha_keys(size: Mapping[str, int], seeds: tuple[int, ...]) -> list[Row]:
    known = {name: value for name, value in size.items() if name != "largest"}
    return [{"n": n, "d": d, **known, "seeds": list(seeds)} for n, d in ALPHAS if n <= size["largest"]]


def _alpha_lines(rows: Sequence[Row]) -> list[Line]:
    lines = []
    for row in rows:
        n, d = row["n"], row["d"]
        lines.append(Line(f"n/d = {n}/{d}: α", row["alpha"], ALPHAS[n, d], 0.005))
        lines.append(Line(f"n/d = {n}/{d}: best α of αP, one active", [single_alpha(n, d)]))
        lines.append(Line(f"n/d = {n}/{d}: best α of αP, several active (Gaussian)", [several_alpha(n, d, P)]))
    return lines


REPRODUCTIONS(
    "alpha", shows=f"{PAPER}, scaling: the α of one-hot responses αP of networks of eight sizes", source=PAPER,
    reduced={"steps": 4000, "batch": 1024, "largest": 200}, full={"steps": 100_000, "batch": 8192, "largest": 1000},
    keys=_alpha_keys, lines=_alpha_lines, minutes=4, order=3,
)(alpha)  # fmt: skip
