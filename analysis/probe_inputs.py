"""What does a linear probe see in the layers of a bench of dictionaries? Least squares from activations to inputs and functions.

Reads the networks in records of `toymodels dictionary`, and writes for each the share of inputs, and of functions, that a probe
reads with a |correlation| of at least the bench's threshold. A probe is told what to look for, and dictionaries are not.

    python analysis/probe_inputs.py analysis/results/dictionaries_probe.jsonl runs/long runs/code
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from toymodels.arguments import run_script
from toymodels.core.features import Inputs, make_features
from toymodels.core.tasks import Task
from toymodels.errors import InputError
from toymodels.runs.record import load_config, load_network
from toymodels.runs.storage import check_writable, write_text


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


@dataclass(frozen=True)
class ProbeInputs:
    """Probe the layers of records of `toymodels dictionary`."""

    out: tyro.conf.Positional[Path]
    """The file to write, .jsonl."""
    records: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs of `toymodels dictionary`."""


def main(given: ProbeInputs) -> str:
    """Write a line for each network of the records; returns what to print."""
    check_writable(given.out)
    saved = {record: load_config(record) for record in given.records}
    if not saved or any(config.kind != "dictionary" for config in saved.values()):
        raise InputError(
            "records must be folders of runs of `toymodels dictionary`: name at least one, and no other runs"
        )
    lines = []
    for record, config in saved.items():
        settings = config.config
        for path in sorted(record.glob(f"*-seed-*/*-{settings['readoff']}.safetensors")):
            network, task, _ = load_network(path)
            features = make_features(settings["inputs"], task.m, settings["s"], settings["values"])
            few = features.n_inputs <= 20_000
            inputs = features.enumerate() if few else features.sampled(20_000, 0)
            shares = probed(network.layer, task, inputs, settings["threshold"])
            about = path.name.removesuffix(f"-{settings['readoff']}.safetensors")
            row = {"first_layer": about, "seed": int(path.parent.name.rpartition("-")[2])}
            lines.append(json.dumps(row | {f"{name}_recall": share for name, share in shares.items()}))
    write_text(given.out, "\n".join(lines) + "\n")
    return str(given.out)


if __name__ == "__main__":
    run_script(ProbeInputs, main)
