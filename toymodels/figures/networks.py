"""Figures from the networks and histograms that a run stores: errors trained against frozen, and what weights look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from toymodels.core.layers import FirstLayer
from toymodels.core.readoffs import LinearReadoff
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig
from toymodels.experiments.train import TrainConfig
from toymodels.figures.histograms import comparison_figure
from toymodels.figures.style import READOFF_COLOURS, Drawing, heading, new_figure, quiet
from toymodels.runs import text as tables
from toymodels.runs.config import ProblemSettings, from_dict
from toymodels.runs.record import load_config, load_network
from toymodels.runs.storage import read_json

CLASSES = ("++", "+−", "−+", "−−")
"""Signs of a neuron's weights on the pair's two features."""
TRAINED, REFERENCE = READOFF_COLOURS["trained"], "#E69F00"


def finished_runs(folder: Path, kind: str | None = None) -> list[Path]:
    """Finished runs in a folder, which may be one itself, from the smallest up; of one kind (train, compare) if named."""
    found = [path.parent for path in folder.rglob("config.json") if (path.parent / "results.json").exists()]
    saved = {run: load_config(run) for run in found}
    chosen = [run for run in found if kind is None or saved[run]["kind"] == kind]
    return sorted(chosen, key=lambda run: (*(saved[run]["config"].get(name, 0) for name in ("m", "d")), run.name))


def settings_of(run: Path) -> CompareConfig | TrainConfig:
    """The configuration of a run."""
    saved = load_config(run)
    if saved["kind"] == "compare":
        return from_dict(CompareConfig, saved["config"])
    return from_dict(TrainConfig, saved["config"])


def histograms(run: Path) -> list[Drawing]:
    """Of a compare run, for each gate and its first seed: outputs that should be 0 and 1, frozen beside trained.

    Raises InputError for a run that is none, or without a readoff of both layers.
    """
    config = settings_of(run)
    if not isinstance(config, CompareConfig):
        raise InputError(f"{run} is a run of train: histograms of trained against frozen layers need a compare run")
    drawings = []
    for task in config.task:
        name, seed = config.make_task(task).name, config.seeds[0]
        where = run / f"{name}-seed-{seed}"
        stored = [
            where / f"{layer}-{readoff}.json"
            for readoff in ("trained", "minimax")
            for layer in (config.frozen_layer, "trained")
        ]
        rows = [
            read_json(
                path, ("task", "layer", "readoff", "seed", "worst_error", "inputs", "pairs", "all_pairs", "evaluation")
            )
            for path in stored
            if path.exists()
        ]
        figure = comparison_figure(rows, config)
        if figure is not None:
            title = f"Outputs of U-{name.upper()}, trained against frozen ({run.name})"
            drawings.append(Drawing(f"error_histogram-{name}", title, figure))
    if not drawings:
        raise InputError(
            f"{run} has no readoff of both a frozen and a trained layer: there is nothing to set side by side"
        )
    return drawings


@dataclass(frozen=True)
class Weights:
    """A trained network's weights, beside those of Gaussian layers of the same shape and variance."""

    weight: Float[np.ndarray, "neurons m"]
    readoff: Float[np.ndarray, "outputs neurons"]
    pairs: np.ndarray
    """(outputs, 2)."""

    @property
    def scale(self) -> float:
        """Standard deviation of the first layer's weights."""
        return float(self.weight.std())

    def gaussian(self, layers: int = 50) -> Float[np.ndarray, "layers values"]:
        """Singular values of Gaussian layers, descending, each of this shape and standard deviation."""
        rng = np.random.default_rng(0)
        drawn = (rng.normal(0, self.scale, self.weight.shape) for _ in range(layers))
        return np.stack([np.linalg.svd(layer, compute_uv=False) for layer in drawn])

    def by_class(self) -> list[Float[np.ndarray, " weights"]]:
        """Readoff weights of every pair and neuron, by the signs of the neuron's weights on the pair (CLASSES).

        Each in units of the readoff's root mean square. A weight of 0 counts as negative.
        """
        positive = self.weight.T > 0
        first, second = positive[self.pairs[:, 0]], positive[self.pairs[:, 1]]
        unit = self.readoff / np.sqrt(np.mean(self.readoff**2))
        return [unit[(first == a) & (second == b)] for a in (True, False) for b in (True, False)]


def stored_weights(path: Path) -> Weights:
    """Of a stored network. Raises InputError for one without a first layer of weights, or whose readoff is all zero."""
    with torch.no_grad():
        network, task, _ = load_network(path)
    if not isinstance(network.layer, FirstLayer) or not isinstance(network.readoff, LinearReadoff):
        raise InputError(f"{path} has no first layer of weights: name a trained or frozen network")
    found = Weights(
        network.layer.weight.detach().double().numpy(), network.readoff.weight.detach().double().numpy(), task.pairs.numpy()
    )  # fmt: skip
    if not found.readoff.any():
        raise InputError(f"{path} has a readoff of zeros: it computes a constant, and has no classes of weights")
    return found


def trained_networks(run: Path) -> list[tuple[str, Path]]:
    """(gate, file) of the trained network of each gate and first seed of a run."""
    config = settings_of(run)
    seed = config.seeds[0]
    if isinstance(config, TrainConfig):
        files = [(config.make_task(config.task).name, run / f"seed-{seed}" / "network.safetensors")]
    else:
        names = [config.make_task(task).name for task in config.task]
        # The first that there is: with its own readoff, or, if none was asked for, with the minimax one.
        kinds = ("trained-trained.safetensors", "trained-minimax.safetensors")
        found = [(name, [run / f"{name}-seed-{seed}" / kind for kind in kinds]) for name in names]
        files = [(name, next((path for path in paths if path.is_file()), paths[0])) for name, paths in found]
    return [(name, path) for name, path in files if path.is_file()]


def weights(run: Path) -> list[Drawing]:
    """What a trained network's weights look like, a figure for each gate of a run, for its first seed.

    First-layer weights against a Gaussian of the same variance; its singular values against those of Gaussian layers;
    readoff weights by the signs of the neuron's weights on the pair. Raises InputError for a run without a trained one.
    """
    config = settings_of(run)
    found = trained_networks(run)
    if not found:
        raise InputError(f"{run} has no trained network: run train, or compare with a readoff of the trained layer")
    return [_weights_figure(name, stored_weights(path), path, config) for name, path in found]


def _weights_figure(gate: str, found: Weights, path: Path, config: ProblemSettings) -> Drawing:
    figure = new_figure(2.75)
    axes = figure.subplots(1, 3)
    low, high = found.weight.min(), found.weight.max()
    edges = np.linspace(low, high, 61)
    density, _ = np.histogram(found.weight, edges, density=True)
    axes[0].stairs(np.where(density > 0, density, np.nan), edges, fill=True, color=TRAINED, alpha=0.6, label="trained")
    x = np.linspace(low, high, 200)
    normal = np.exp(-((x / found.scale) ** 2) / 2) / (found.scale * np.sqrt(2 * np.pi))
    axes[0].plot(x, normal, color=REFERENCE, linewidth=1.2, label="Gaussian, same variance")
    axes[0].set_yscale("log")
    axes[0].set_ylim(bottom=0.5 * float(density[density > 0].min()))
    axes[0].set_xlabel("first-layer weight", fontsize=8)
    axes[0].set_ylabel("density", fontsize=8)
    own, drawn = np.linalg.svd(found.weight, compute_uv=False), found.gaussian()
    ranks = np.arange(1, len(own) + 1)
    ends = np.quantile(drawn, (0.025, 0.975), axis=0)
    axes[1].fill_between(ranks, *ends, color=REFERENCE, alpha=0.4, linewidth=0, label="50 Gaussian layers, 95 %")
    axes[1].plot(ranks, own, color=TRAINED, marker="o", markersize=2, linewidth=0.8, label="trained")
    axes[1].set_ylim(bottom=0)
    axes[1].set_xlabel("rank", fontsize=8)
    axes[1].set_ylabel("singular value of the first layer", fontsize=8)
    classes = found.by_class()
    shown = [values if len(values) else np.array([np.nan]) for values in classes]
    axes[2].boxplot(
        shown,
        tick_labels=list(CLASSES),
        whis=(2.5, 97.5),
        showfliers=False,
        widths=0.6,
        medianprops={"color": TRAINED, "linewidth": 1.4},
        boxprops={"linewidth": 0.8},
        whiskerprops={"linewidth": 0.8},
    )
    axes[2].axhline(0, color="0.6", linewidth=0.6)
    axes[2].set_xlabel("signs of its weights on the pair", fontsize=8)
    axes[2].set_ylabel("readoff weight / its RMS", fontsize=8)
    for axis, title in zip(axes, ("first-layer weights", "spectrum", "readoff by sign class"), strict=True):
        axis.set_title(title, fontsize=8)
        quiet(axis)
    for axis in axes[:2]:
        axis.legend(fontsize=6, frameon=False)
    readoff = path.stem.split("-")[-1]
    about = f"m = {config.m}, d = {config.d}, {path.parent.name.replace('-', ' ')}, readoff {readoff}; boxes: quartiles and 95 %"
    heading(figure, f"Weights of a trained network for U-{gate.upper()}: {about}")
    return Drawing(
        f"weights-{gate}", f"Weights trained for U-{gate.upper()}", figure, _classes_table(found, classes, own, drawn)
    )


def _classes_table(
    found: Weights,
    classes: Sequence[np.ndarray],
    own: Float[np.ndarray, " values"],
    drawn: Float[np.ndarray, "layers values"],
) -> str:
    total = sum(len(values) for values in classes)
    cells = [
        (name, f"{len(values) / total:.3f}", f"{values.mean():+.3f}", f"{values.std():.3f}")
        if len(values)
        else (name, "0", "–", "–")
        for name, values in zip(CLASSES, classes, strict=True)
    ]
    w = found.weight / found.scale
    kurtosis = float(((w - w.mean()) ** 4).mean()) - 3
    table = tables.render(("class", "share", "mean readoff", "spread"), cells, right=(1, 2, 3))
    return (
        f"First-layer weights: mean {found.weight.mean():+.4f}, standard deviation {found.scale:.4f}, excess kurtosis "
        f"{kurtosis:+.2f} (Gaussian: 0).\nLargest and smallest singular value {own[0]:.3f} and {own[-1]:.3f}; Gaussian layers "
        f"of that shape and variance: {drawn[:, 0].mean():.3f} and {drawn[:, -1].mean():.3f} (means of {len(drawn)}).\n"
        f"Readoff weights over the readoff's RMS, by the signs of the neuron's two weights:\n{table}"
    )
