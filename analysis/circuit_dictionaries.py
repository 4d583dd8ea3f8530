"""What do sparse dictionaries find in the layers of a circuit: the nodes that a layer reads, those that it computes, or neither?

Random circuits of gates (`Circuit.random`), emulated in superposition, each layer reading the outputs of the one before
(`stages`, without correction). Dictionaries are fitted to the activations of each layer on all inputs with one active single
and one active pair of neighbouring doubles, 3 active nodes in every layer, and scored against the true values of the nodes
that the layer reads and of the gates that it computes. The worst error is that of the circuit's last outputs when the
reconstruction replaces the layer's activations. One line per seed in circuit_dictionaries.jsonl (a stopped run goes on there).

    python analysis/circuit_dictionaries.py --out analysis/results
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from toymodels import fit_dictionary
from toymodels.arguments import run_script
from toymodels.circuits.circuit import Circuit
from toymodels.circuits.depth import stages
from toymodels.core.seeds import derive_seed
from toymodels.errors import InputError, check_different
from toymodels.experiments.study import Row, study
from toymodels.ground_truth.dictionaries import check_dictionary
from toymodels.ground_truth.scores import correlations, found, read_by
from toymodels.runs.storage import check_writable
from toymodels.runs.text import render
from toymodels.theory.statistics import mean_interval

HEADS = {"inputs": "inputs found", "ands": "ANDs found", "others": "ORs and XORs found", "l0": "L0", "explained": "explained",
         "clean": "worst error, clean", "worst": "worst error through it"}  # fmt: skip
"""Columns of the table, and their headings."""


@dataclass(frozen=True)
class CircuitDictionaries:
    """Fit dictionaries to each layer of emulated circuits, and score them."""

    out: Path
    """Folder of the results, circuit_dictionaries.jsonl."""
    m: int = 20
    """Nodes a layer."""
    d: int = 400
    """Neurons a layer."""
    depth: int = 3
    """Layers of the circuit."""
    methods: tuple[str, ...] = ("neurons", "l1(l1=0.1)", "topk", "batch_topk", "transcoder")
    """Dictionaries, of as many latents as a layer reads and computes nodes; transcoders read the outputs of the layer before."""
    seeds: int = 3
    """Independent circuits: seeds 0, 1, …"""

    def check(self) -> None:
        """Raise InputError for settings without a table."""
        if self.seeds < 2 or self.depth < 1:
            raise InputError("the table needs at least two seeds and one layer")
        next(
            stages(Circuit.random(self.m, self.depth, 0), self.d, 3, 0, correct=False)
        )  # refuses sizes that do not fit
        check_different("method", [check_dictionary(name, 2 * self.m) for name in self.methods], methods=self.methods)

    def keys(self) -> list[Row]:
        """Return what identifies each line of the results."""
        size = {"m": self.m, "d": self.d, "depth": self.depth, "methods": list(self.methods)}
        return [{**size, "seed": seed} for seed in range(self.seeds)]


@torch.no_grad()
def measure(key: Row) -> Row:
    """Measure one circuit: scores of each dictionary at each layer."""
    m, seed = key["m"], key["seed"]
    circuit = Circuit.random(m, key["depth"], derive_seed(seed, "task"))
    x = circuit.sample(20 * m * m, 3, derive_seed(seed, "fit")).unique(dim=0)
    weight = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
    emulation = list(stages(circuit, key["d"], 3, derive_seed(seed, "frozen layer"), correct=False))
    truths, values, row = [x, *circuit.run(x)], x, {}
    for depth, stage in enumerate(emulation):
        layer, readoff = stage.computing.layer, stage.computing.readoff
        a = layer(values)
        both = torch.cat([truths[depth], truths[depth + 1]], 1)
        families = {"inputs": slice(0, m), "ands": slice(m, m + m // 2), "others": slice(m + m // 2, 2 * m)}
        for method in key["methods"]:
            fitted = fit_dictionary(method, a, 2 * m, derive_seed(seed, "dictionary"), values)
            read = read_by(fitted, layer, values)
            z, rebuilt = fitted.encode(read), fitted(read)  # type: ignore[operator]
            table = correlations(z, both, weight)
            ends = {}
            for name, end in (("clean", readoff(a)), ("worst", readoff(rebuilt))):
                for later in emulation[depth + 1 :]:
                    end = later.forward(end)
                ends[name] = float((end - truths[-1]).abs().max())
            rest = float((a - rebuilt).square().sum() / (a - a.mean(0)).square().sum())
            row[f"{depth + 1} {method}"] = {
                **{name: found(table[:, part], 1, 0.9)["recall"] for name, part in families.items()},
                "l0": float((z != 0).sum(1).double().mean()), "explained": 1 - rest, **ends,
            }  # fmt: skip
        values = stage.forward(values)
    return {"inputs": len(x), "scores": row}


def table(rows: list[Row]) -> list[list[str]]:
    """Return means with 95 % t intervals over seeds for each layer and dictionary; the header first."""
    lines = []
    for about in rows[0]["scores"]:
        depth, method = about.split(maxsplit=1)
        pairs = [mean_interval([row["scores"][about][name] for row in rows]) for name in HEADS]
        lines.append([depth, method, *(f"{mean:.3f} ± {half:.3f}" for mean, half in pairs)])
    return [["layer", "dictionary", *HEADS.values()], *lines]


def main(settings: CircuitDictionaries) -> str:
    """Measure what is not stored, store; returns what to print."""
    settings.check()
    path = settings.out / "circuit_dictionaries.jsonl"
    check_writable(path)
    torch.set_num_threads(1)  # the products are short, and a second thread slows other processes
    header, *lines = table(study(path, settings.keys(), measure))
    return f"{render(header, lines)}\n{path}"


if __name__ == "__main__":
    run_script(CircuitDictionaries, main)
