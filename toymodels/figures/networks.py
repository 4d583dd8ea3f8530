"""Weights of the trained networks that a run stores, beside those of Gaussian layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError
from toymodels.figures.registry import figure
from toymodels.figures.series import ORANGE, gate_of, look, task_title
from toymodels.figures.style import Drawing, heading, new_figure, quiet
from toymodels.runs import table
from toymodels.runs import text as tables
from toymodels.runs.record import load_config, load_network

CLASSES = ("++", "+−", "−+", "−−")
"""Signs of a neuron's weights on the pair's two features."""
GAUSSIAN_LAYERS = 50
"""Gaussian layers that a spectrum is compared with."""


def finished_runs(folder: Path) -> list[Path]:
    """Return the finished runs in a folder, which may be one itself, from the smallest problem up."""
    first = {run: content["rows"][0] for run, content in table.finished_runs(folder)[0].items()}
    return sorted(first, key=lambda run: (*(first[run].get(name) or 0 for name in ("m", "d")), run.name))


@dataclass(frozen=True)
class Weights:
    """A trained network's weights, beside those of Gaussian layers of the same shape and variance."""

    weight: Float[np.ndarray, "neurons m"]
    readoff: Float[np.ndarray, "outputs neurons"]
    pairs: np.ndarray | None = None
    """(outputs, 2): the two features of each output; None for a task of another kind."""

    @property
    def scale(self) -> float:
        """Standard deviation of the first layer's weights."""
        return float(self.weight.std())

    def gaussian(self, layers: int = GAUSSIAN_LAYERS) -> Float[np.ndarray, "layers values"]:
        """Return singular values of Gaussian layers, descending, each layer of this shape and standard deviation."""
        rng = np.random.default_rng(0)
        drawn = (rng.normal(0, self.scale, self.weight.shape) for _ in range(layers))
        return np.stack([np.linalg.svd(layer, compute_uv=False) for layer in drawn])

    def by_class(self) -> list[Float[np.ndarray, " weights"]]:
        """Group readoff weights of every pair and neuron by the signs of the neuron's weights on the pair (CLASSES).

        Each is in units of the readoff's root mean square. A weight of 0 counts as negative. Empty for a task without pairs.
        """
        if self.pairs is None:
            return []
        positive = self.weight.T > 0
        first, second = positive[self.pairs[:, 0]], positive[self.pairs[:, 1]]
        unit = self.readoff / np.sqrt(np.mean(self.readoff**2))
        return [unit[(first == a) & (second == b)] for a in (True, False) for b in (True, False)]


def stored_weights(path: Path) -> Weights:
    """Load the weights of a stored network.

    Raises InputError for one without a first layer of weights, or whose readoff is all zero.
    """
    network, task, _ = load_network(path)
    weight, readoff = getattr(network.layer, "weight", None), getattr(network.readoff, "weight", None)
    if weight is None or readoff is None:
        raise InputError(f"{path} has no first layer of weights, or no readoff of weights: name a trained network")
    pairs = getattr(task, "pairs", None)
    found = Weights(
        weight.detach().double().numpy(), readoff.detach().double().numpy(), None if pairs is None else pairs.numpy()
    )
    if not found.readoff.any():
        raise InputError(f"{path} has a readoff of zeros: it computes a constant, and has no classes of weights")
    return found


def trained_networks(run: Path, seed: int) -> dict[str, Path]:
    """Return the file of the trained network of each task of a run, for one seed.

    In a comparison that is the network with its own readoff or, if none was asked for, with the minimax one.
    """
    saved = load_config(run)
    if saved.kind == "train":
        path = run / f"seed-{seed}" / "network.safetensors"
        task = str(saved.config["task"])
        gate = gate_of(task)
        return {gate.name if gate else task: path} if path.is_file() else {}
    files: dict[str, Path] = {}
    for readoff in ("trained", "minimax"):
        for path in sorted(run.glob(f"*-seed-{seed}/trained-{readoff}.safetensors")):
            files.setdefault(path.parent.name.rpartition("-seed-")[0], path)
    return files


def _first_seed(run: Path) -> int:
    return int(load_config(run).config["seeds"][0])


@figure("weights", order=91, applies=lambda run: bool(trained_networks(run, _first_seed(run))))
def weights(run: Path, *, task: str | None = None, seed: int | None = None) -> list[Drawing]:
    """Draw the weights of a trained network beside Gaussian ones: distribution, spectrum, readoff by sign class.

    A figure for each task of a run, or for one; of the first seed unless another is named. First-layer weights stand against a
    Gaussian of the same variance, singular values against those of Gaussian layers; readoff weights are grouped by the signs of
    the neuron's weights on the pair. Raises InputError for a run without a trained network.
    """
    files = trained_networks(run, _first_seed(run) if seed is None else seed)
    files = {name: path for name, path in files.items() if task in (None, name)}
    if not files:
        raise InputError(f"{run} has no trained network: run train, or compare with a readoff of the trained layer")
    config = load_config(run).config
    return [_draw(name, stored_weights(path), path, config) for name, path in files.items()]


def _draw(task: str, network: Weights, path: Path, config: Mapping[str, Any]) -> Drawing:
    trained = look("layer", "trained").colour
    drawing = new_figure(2.75)
    axes = drawing.subplots(1, 2 if network.pairs is None else 3)
    low, high = network.weight.min(), network.weight.max()
    edges = np.linspace(low, high, 61)
    density, _ = np.histogram(network.weight, edges, density=True)
    axes[0].stairs(np.where(density > 0, density, np.nan), edges, fill=True, color=trained, alpha=0.6, label="trained")
    x = np.linspace(low, high, 200)
    normal = np.exp(-((x / network.scale) ** 2) / 2) / (network.scale * np.sqrt(2 * np.pi))
    axes[0].plot(x, normal, color=ORANGE, linewidth=1.2, label="Gaussian, same variance")
    axes[0].set_yscale("log")
    axes[0].set_ylim(bottom=0.5 * float(density[density > 0].min()))
    axes[0].set_xlabel("first-layer weight", fontsize=8)
    axes[0].set_ylabel("density", fontsize=8)
    own, gaussian = np.linalg.svd(network.weight, compute_uv=False), network.gaussian()
    ranks = np.arange(1, len(own) + 1)
    ends = np.quantile(gaussian, (0.025, 0.975), axis=0)
    label = f"{len(gaussian)} Gaussian layers, 95 %"
    axes[1].fill_between(ranks, *ends, color=ORANGE, alpha=0.4, linewidth=0, label=label)
    axes[1].plot(ranks, own, color=trained, marker="o", markersize=2, linewidth=0.8, label="trained")
    axes[1].set_ylim(bottom=0)
    axes[1].set_xlabel("rank", fontsize=8)
    axes[1].set_ylabel("singular value of the first layer", fontsize=8)
    classes = network.by_class()
    if classes:
        _draw_classes(axes[2], classes, trained)
    for axis, title in zip(axes, ("first-layer weights", "spectrum", "readoff by sign class"), strict=False):
        axis.set_title(title, fontsize=8)
        quiet(axis)
    for axis in axes[:2]:
        axis.legend(fontsize=6, frameon=False)
    seed, readoff = path.parent.name.replace("-", " "), path.stem.split("-")[-1].replace("network", "trained")
    about = f"m = {config['m']}, d = {config['d']}, {seed}, readoff {readoff}{'; boxes: quartiles and 95 %' if classes else ''}"
    heading(drawing, f"Weights of a trained network for {task_title(task)}: {about}")
    title = f"Weights trained for {task_title(task)}"
    return Drawing(f"weights-{task}", title, drawing, _classes_table(network, classes, own, gaussian))


def _draw_classes(axis: Any, classes: Sequence[np.ndarray], colour: str) -> None:
    """Draw the readoff weights of each class of signs as a box."""
    axis.boxplot(
        [values if len(values) else np.array([np.nan]) for values in classes],
        tick_labels=list(CLASSES),
        whis=(2.5, 97.5),
        showfliers=False,
        widths=0.6,
        medianprops={"color": colour, "linewidth": 1.4},
        boxprops={"linewidth": 0.8},
        whiskerprops={"linewidth": 0.8},
    )
    axis.axhline(0, color="0.6", linewidth=0.6)
    axis.set_xlabel("signs of its weights on the pair", fontsize=8)
    axis.set_ylabel("readoff weight / its RMS", fontsize=8)


def _classes_table(
    network: Weights,
    classes: Sequence[np.ndarray],
    own: Float[np.ndarray, " values"],
    gaussian: Float[np.ndarray, "layers values"],
) -> str:
    total = sum(len(values) for values in classes)
    cells = [
        (name, f"{len(values) / total:.3f}", f"{values.mean():+.3f}", f"{values.std():.3f}")
        if len(values)
        else (name, "0", "–", "–")
        for name, values in zip(CLASSES, classes, strict=False)
    ]
    w = network.weight / network.scale
    kurtosis = float(((w - w.mean()) ** 4).mean()) - 3
    shares = tables.render(("class", "share", "mean readoff", "spread"), cells, right=(1, 2, 3))
    by_class = f"\nReadoff weights over the readoff's RMS, by the signs of the neuron's two weights:\n{shares}"
    return (
        f"First-layer weights: mean {network.weight.mean():+.4f}, standard deviation {network.scale:.4f}, excess kurtosis "
        f"{kurtosis:+.2f} (Gaussian: 0).\nLargest and smallest singular value {own[0]:.3f} and {own[-1]:.3f}; Gaussian layers "
        f"of that shape and variance: {gaussian[:, 0].mean():.3f} and {gaussian[:, -1].mean():.3f} (means of {len(gaussian)})."
        + (by_class if classes else "")
    )
