"""Stand-in tables of results, of known content, with the columns of `toymodels.runs.table.read_table`."""

import itertools
import json
import math

import numpy as np

LINES = (("identity", "constant"), ("gaussian", "analytic"), ("gaussian", "minimax"), ("trained", "trained"),
         ("trained", "minimax"))  # fmt: skip
LAWS = {("identity", "constant"): (0.5, 0.0), ("gaussian", "analytic"): (20.0, -0.5), ("gaussian", "minimax"): (2.0, -0.5),
        ("trained", "trained"): (1.8, -0.6), ("trained", "minimax"): (1.6, -0.6)}  # fmt: skip
"""(constant, exponent of d) of the worst error for AND; twice that for XOR."""
SETTINGS = {
    "m": 10, "d": 12, "s": 2, "inputs": "at_most", "pairs": None, "d0": None, "frame": None, "activation": "relu",
    "optimiser": "auto", "steps": None, "p": (2.0, 4.0, 8.0), "weight": "case", "lr": 1e-3, "lr_schedule": "constant",
    "eval_inputs": 20_000, "layer": "gaussian", "frozen_layer": "gaussian",
}  # fmt: skip


def row(task, seed, layer, readoff, error, kind="compare", **settings):
    """One row."""
    settings = {**SETTINGS, **settings}
    m, s = settings["m"], settings["s"]
    count = sum(math.comb(m, active) for active in range(s + 1)) if settings["inputs"] == "at_most" else math.comb(m, s)
    return {
        "kind": kind, "run": f"run-{m}-{settings['d']}", **settings, "task": task, "seed": seed, "first_layer": layer,
        "readoff": readoff, "worst_error": error, "mean_worst_error": 0.8 * error, "rms": 0.42 * error,
        "rms_ones": 0.5 * error, "rms_zeros": 0.4 * error, "rms_active": None, "rms_inactive": None,
        "within_quarter": 0.9, "seconds": 1.0, "covered": f"all {count:,}", "n_pairs": m * (m - 1) // 2,
        "proved": True if readoff == "minimax" else None, "stopped_at": None,
    }  # fmt: skip


def noise(seed, *key):
    """A factor near 1, the same each time."""
    text = json.dumps(key)
    return float(np.exp(0.03 * np.random.default_rng([seed, *text.encode()]).standard_normal()))


def widths(d=(8, 16, 32, 64), m=(16, 24), tasks=("and", "xor"), seeds=(0, 1, 2), lines=LINES, **settings):
    """A table of compare runs over m and d whose errors follow LAWS."""
    settings = {"inputs": "exactly", "steps": 10, **settings}
    rows = []
    for features, width, task, seed, line in itertools.product(m, d, tasks, seeds, lines):
        constant, exponent = LAWS[line]
        error = (2 if task == "xor" else 1) * constant * width**exponent * noise(seed, features, width, task, line)
        rows.append(row(task, seed, *line, error, m=features, d=width, **settings))
    return rows


def search(d=(8, 16, 32, 64, 128, 256)):
    """A table of a search for widths: minimax and closed-form readoffs."""
    lines = [line for line in LINES if line[1] in ("minimax", "analytic")]
    return widths(d=d, tasks=("and",), inputs="at_most", lines=lines)


def losses(seeds=(0, 1, 2)):
    """A table of train runs over exponents, weights and lengths; the least error is at p = 8, weight case."""
    rows = []
    exponents = ((2.0,), (8.0,), (2.0, 4.0, 8.0))
    for (i, p), (j, weight), steps in itertools.product(
        enumerate(exponents), enumerate((1.0, "value", "case")), (100, 400)
    ):
        for seed in seeds:
            error = (
                (0.3 + 0.1 * abs(i - 1) + 0.05 * (2 - j)) * (1.2 if steps == 100 else 1.0) * noise(seed, i, j, steps)
            )
            rows.append(row("and", seed, "trained", "trained", error, "train", p=p, weight=weight, steps=steps))
    return rows


def optimisers():
    """A table of train runs by two optimisers, with several numbers of steps."""
    return [
        row("and", seed, "trained", "trained", 3 * steps**-0.4 * noise(seed, optimiser, steps), "train", optimiser=optimiser,
            steps=steps) | {"seconds": steps / 100}
        for optimiser in ("kfac", "lbfgs") for steps in (100, 400) for seed in (0, 1, 2)
    ]  # fmt: skip


def draws(n=12):
    """A table of train runs with random learning rates."""
    rates = np.exp(np.random.default_rng(0).uniform(-9, -2, n)).tolist()
    return [
        row("and", 0, "trained", "trained", 0.2 + 5 * lr, "train", lr=lr, lr_schedule=("constant", "cosine")[i % 2])
        for i, lr in enumerate(rates)
    ]


CAPACITY = {"gaussian": (0.5, 1.25), "trained": (1.0, 1.0)}
"""(constant, exponent over d) of the number of superposed features at ε = 1/4."""


def superposed(layers=("gaussian", "trained"), d=(16, 32, 64), seeds=(0, 1), **settings):
    """A table over features in superposition: errors linear in log m, 1/4 at CAPACITY; seeds a factor 2^(±1/8) beside it."""
    rows = []
    for layer, width in itertools.product(layers, d):
        constant, power = CAPACITY[layer]
        for m in (round(width * 2 ** (k / 2)) for k in range(-4, 5)):
            about = {"d0": width if m > width else None, "frame": "random" if m > width else None, **settings}
            for seed in seeds:
                error = 0.25 + 0.05 * math.log(m / (constant * width**power * 2 ** ((seed - 0.5) / 4)))
                rows.append(row("and", seed, layer, "minimax", error, m=m, d=width, **about))
    return rows


TABLES = {
    "optimisers": optimisers(),
    "widths": widths(d=(8, 16), m=(12, 16), seeds=(0, 1)),
    "losses": losses(seeds=(0, 1)),
    "draws": draws(),
    "search": search(d=(8, 16, 32)),
    "superposed": superposed(),
}
"""Tables for what every figure must do: each figure applies to one of them."""


def write(rows, path):
    """Write a table as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
