"""What does a linear probe see in the layers of a bench of dictionaries? Least squares from activations to inputs and functions.

Reads the networks in records of `toymodels dictionary`, and writes for each the share of inputs, and of functions, that a probe
reads with a |correlation| of at least the bench's threshold. A probe is told what to look for, and dictionaries are not.

    python analysis/probe_inputs.py analysis/results/dictionaries_probe.jsonl runs/long runs/code
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from toymodels.core.features import Inputs, make_features
from toymodels.core.tasks import Task
from toymodels.runs.record import load_config, load_network


@torch.no_grad()
def probed(layer: torch.nn.Module, task: Task, inputs: Inputs, threshold: float) -> dict[str, float]:
    """Return the shares of features and of functions that the least squares fit of each to (1, activations) finds."""
    x = inputs.dense()
    root = inputs.probabilities.double().sqrt().numpy()[:, None]
    a = root * np.hstack([np.ones((len(x), 1)), layer(x).double().numpy()])
    shares = {}
    for name, values in (("features", x), ("functions", task.targets(x))):
        y = root * values.double().numpy()
        rest = y - a @ np.linalg.lstsq(a, y, rcond=1e-10)[0]
        total = (y**2).sum(0) - (root * y).sum(0) ** 2 / (root**2).sum()
        explained = 1 - (rest**2).sum(0) / total  # of a least squares fit: the square of the correlation
        shares[name] = float((explained >= threshold**2).mean())
    return shares


def main(out: Path, records: list[Path]) -> None:
    """Write a line for each network of the records."""
    with open(out, "w") as file:
        for record in records:
            settings = load_config(record).config
            for path in sorted(record.glob(f"*-seed-*/*-{settings['readoff']}.safetensors")):
                network, task, _ = load_network(path)
                features = make_features(settings["inputs"], task.m, settings["s"], settings["values"])
                few = features.n_inputs <= 20_000
                inputs = features.enumerate() if few else features.sampled(20_000, 0)
                shares = probed(network.layer, task, inputs, settings["threshold"])
                about = path.name.removesuffix(f"-{settings['readoff']}.safetensors")
                row = {"first_layer": about, "seed": int(path.parent.name.rpartition("-")[2])}
                row |= {f"{name}_recall": share for name, share in shares.items()}
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
