"""Stand-in tables of results, of known content, with the columns of `toymodels.runs.table.read_table`."""

import itertools
import json

import numpy as np
from toymodels.runs.config import NOT_IN_IDENTITY, to_dict

from toymodels.experiments.compare import CompareConfig
from toymodels.experiments.train import TrainConfig

LINES = (("identity", "constant"), ("gaussian", "analytic"), ("gaussian", "minimax"), ("trained", "trained"),
         ("trained", "minimax"))  # fmt: skip
LAWS = {("identity", "constant"): (0.5, 0.0), ("gaussian", "analytic"): (20.0, -0.5), ("gaussian", "minimax"): (2.0, -0.5),
        ("trained", "trained"): (1.8, -0.6), ("trained", "minimax"): (1.6, -0.6)}  # fmt: skip
"""(constant, exponent of d) of the worst error for AND; twice that for XOR."""


def row(config, task, seed, layer, readoff, error, inputs=None):
    """One row."""
    kind = "compare" if isinstance(config, CompareConfig) else "train"
    left_out = NOT_IN_IDENTITY | {"seeds", "task", "readoffs", "layers"}
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in to_dict(config).items() if k not in left_out}
    count = inputs or config.features().n_inputs
    return {
        "kind": kind, "run": f"run-{config.m}-{config.d}", **settings, "task": task, "seed": seed, "first_layer": layer,
        "readoff": readoff, "worst_error": error, "mean_worst_error": 0.8 * error, "rms_ones": 0.5 * error,
        "rms_zeros": 0.4 * error, "within_quarter": 0.9, "seconds": 1.0, "covered": f"all {count:,}",
        "n_pairs": config.m * (config.m - 1) // 2, "proved": True if readoff == "minimax" else None,
        "stopped_at": None,
    }  # fmt: skip


def noise(seed, *key):
    """A factor near 1, the same each time."""
    text = json.dumps(key)
    return float(np.exp(0.03 * np.random.default_rng([seed, *text.encode()]).standard_normal()))


def widths(d=(8, 16, 32, 64), m=(16, 24), tasks=("and", "xor"), seeds=(0, 1, 2), **settings):
    """A table of compare runs over m and d whose errors follow LAWS."""
    settings = {"inputs": "exactly", "steps": 10, **settings}
    rows = []
    for features, width in itertools.product(m, d):
        config = CompareConfig(m=features, d=width, **settings)
        for task, seed, line in itertools.product(tasks, seeds, LINES):
            constant, exponent = LAWS[line]
            error = (2 if task == "xor" else 1) * constant * width**exponent
            rows.append(row(config, task, seed, *line, error * noise(seed, features, width, task, line)))
    return rows


def losses(seeds=(0, 1, 2)):
    """A table of train runs over exponents, weights and lengths; the least error is at p = 8, weight case."""
    rows = []
    exponents = ((2,), (8,), (2, 4, 8))
    for (i, p), (j, weight), steps in itertools.product(
        enumerate(exponents), enumerate((1, "value", "case")), (100, 400)
    ):
        config = TrainConfig(m=10, d=12, p=p, weight=weight, steps=steps)
        for seed in seeds:
            error = (0.3 + 0.1 * abs(i - 1) + 0.05 * (2 - j)) * (1.2 if steps == 100 else 1.0)
            rows.append(row(config, "and", seed, "trained", "trained", error * noise(seed, i, j, steps)))
    return rows


def draws(n=12):
    """A table of train runs with random learning rates."""
    rng = np.random.default_rng(0)
    configs = [
        TrainConfig(m=10, d=12, optimiser="adam", lr=float(lr), lr_schedule=("constant", "cosine")[i % 2])
        for i, lr in enumerate(np.exp(rng.uniform(-9, -2, n)))
    ]
    return [row(c, "and", 0, "trained", "trained", 0.2 + 5 * c.lr) for c in configs]


def write(rows, path):
    """As JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
