"""Measure what superposed.py draws: errors over the number of features m where m of them share d0 = d dimensions.

Two kinds of run, all ordinary comparisons in one folder. Searches: for each method and width the number of features m
rises by √2 until every error to be looked at is passed (inputs of at most 2 active, a random sample of pairs); up to
m = d features need no embedding, from then on they are unit vectors in d0 = d dimensions. Crowding: the Bernoulli
construction with its own readoff at a fixed share p of weights, exactly 2 active, m from d0 to 16·d0.

python analysis/measure_superposed.py --out runs/superposed     # a stopped one goes on there
python analysis/measure_superposed.py --d 16 32 --seeds 0 --crowding-d0 32 --out runs/quick
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from toymodels.arguments import parse
from toymodels.core.features import SparseFeatures
from toymodels.core.seeds import derive_seed
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.experiments.needed import through
from toymodels.runs.record import run_name
from toymodels.runs.storage import read_json


@dataclass(frozen=True)
class Method:
    """A first layer behind a frame, with a readoff, and how far it is looked at."""

    layer: str
    readoff: str = "minimax"
    frame: str = "random"
    layer_p: float | None = None
    d: tuple[int, ...] = (16, 32, 64, 128)
    """Widths at which it is measured, among those asked for."""
    most_inputs: int = 33_000
    """Inputs beyond which a problem is not looked at: what a readoff costs grows with them."""


METHODS = {
    "gaussian": Method("gaussian", d=(16, 32, 64, 90, 128, 180, 256), most_inputs=140_000),
    "no_layer": Method("identity"),
    "bernoulli": Method("bernoulli", layer_p=0.5),
    "gaussian_optimised": Method("gaussian", frame="optimised"),
    "bernoulli_own": Method("bernoulli", "own", d=(64, 128, 256, 512), most_inputs=300_000),
    "trained": Method("trained", d=(16, 24, 32, 48), most_inputs=1_200),
}
"""What is compared, by name; the fast ones first."""


@dataclass(frozen=True)
class SuperposedConfig:
    """Measure errors over the number of features in superposition."""

    out: Path = Path("runs/superposed")
    """Folder of the runs; the same command again goes on there."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Of gaussian, no_layer (an affine readoff of the embedding), bernoulli, gaussian_optimised (frame of low coherence),
    bernoulli_own and trained; none: crowding runs only."""
    d: tuple[int, ...] = (16, 24, 32, 48, 64, 90, 128, 180, 256, 512)
    """Widths, and dimensions d0 of the embedding; each method takes those that it can afford."""
    epsilon: tuple[float, ...] = (0.25, 0.5)
    """Errors to find the number of features for."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds, each with frames, layers and pairs of its own."""
    pairs: int = 12
    """Pairs sampled, at most all."""
    steps: int = 800
    """L-BFGS steps of a trained layer, which learns all pairs."""
    crowding_d0: tuple[int, ...] = (64, 128, 256)
    """Dimensions, and widths, of the crowding runs; none: leave them out."""
    crowding_p: float = 0.25
    """Share of weights that are 1 there."""
    crowding_pairs: int = 100
    """Pairs sampled there."""

    def check(self) -> None:
        """Raises InputError for settings that make no run."""
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise InputError(f"unknown method {unknown[0]!r}: choose from {', '.join(METHODS)}")
        if min((*self.d, *self.crowding_d0), default=8) < 8:
            raise InputError(f"d takes widths from 8 up, got {min(*self.d, *self.crowding_d0, 8)}")
        if not self.epsilon or not all(0 < epsilon < 1 for epsilon in self.epsilon):
            raise InputError("epsilon takes errors between 0 and 1, at least one")
        if min(self.pairs, self.crowding_pairs) < 1:
            raise InputError("pairs and crowding_pairs take numbers from 1 up")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds {self.seeds}: they must be different whole numbers from 0 up, at least one")
        if self.steps < 1:
            raise InputError(f"steps = {self.steps}: a trained layer needs at least 1")
        if not self.crowding_d0 and next(self.searches(), None) is None:
            raise InputError(
                "nothing to measure: name a method and a d that it is measured at, or a d0 for the crowding"
            )

    def searches(self) -> Iterator[tuple[str, int, int]]:
        """(method, d, seed) of every search."""
        for seed, name in itertools.product(self.seeds, self.methods):
            yield from ((name, d, seed) for d in self.d if d in METHODS[name].d)


def sizes(method: Method, d: int) -> list[int]:
    """Numbers of features d·2^(k/2), whole and even, from d/16 (4 at least) to what the method affords and 40·√d, rising."""
    rising = (2 * round(d * 2 ** (k / 2) / 2) for k in range(-2 * int(math.log2(d / 4)), 12))
    fitting = [m for m in rising if max(4, d / 16) <= m <= 40 * math.sqrt(d)]
    return [m for m in fitting if SparseFeatures.at_most(m, 2).n_inputs <= method.most_inputs]


def sample(m: int, pairs: int, seed: int) -> tuple[tuple[int, int], ...]:
    """The pairs that a comparison with minimax_pairs would draw: the same for all methods of a seed."""
    task = PairTask(m, "and")
    order = torch.randperm(task.n_outputs, generator=torch.Generator().manual_seed(derive_seed(seed, "pairs")))
    return tuple((int(k), int(l)) for k, l in task.pairs[order[:pairs].sort().values].tolist())


def superposed(config: SuperposedConfig, name: str, m: int, d: int, seed: int) -> CompareConfig:
    """One run of a search. Up to m = d there is no frame: an orthonormal one would be the same problem."""
    method, learns, embedded = METHODS[name], name == "trained", m > d
    return CompareConfig(
        m=m, d=d, s=2, inputs="at_most", task=("and",), seeds=(seed,), figures=False, threads=1,
        d0=d if embedded else None, frame=method.frame if embedded else None, layer_p=method.layer_p,
        pairs=None if learns else sample(m, config.pairs, seed), minimax_pairs=config.pairs,
        steps=config.steps if learns else 3000, layers=(method.layer,), readoffs=(method.readoff,),
    )  # fmt: skip


def crowded(config: SuperposedConfig, d0: int, ratio: float, seed: int) -> CompareConfig:
    """One run of the crowding: m = ratio·d0 features; inputs that are too many are sampled."""
    m = round(ratio * d0)
    return CompareConfig(
        m=m, d=d0, d0=d0, frame="random", s=2, inputs="exactly", task=("and",), seeds=(seed,), figures=False, threads=1,
        pairs=sample(m, config.crowding_pairs, seed), layers=("bernoulli",), readoffs=("own",),
        layer_p=config.crowding_p, eval_inputs=4000,
    )  # fmt: skip


def done(config: CompareConfig, folder: Path) -> float:
    """Worst error of a run, done now or read."""
    there = folder / run_name("compare", config)
    if not (there / "results.json").exists():
        run_compare(dataclasses.replace(config, out=there))
    return max(float(row["worst_error"]) for row in read_json(there / "results.json", ("rows",))["rows"])


def measure(config: SuperposedConfig) -> Path:
    """Do all runs, or go on with them, one at a time; returns their folder. Raises InputError as `check` before any."""
    config.check()
    torch.set_num_threads(1)
    for d0, seed in itertools.product(config.crowding_d0, config.seeds):
        for k in range(9):
            done(crowded(config, d0, 2 ** (k / 2), seed), config.out)
    for name, d, seed in config.searches():

        def worst(negative: int, name: str = name, d: int = d, seed: int = seed) -> float:
            return done(superposed(config, name, -negative, d, seed), config.out)

        # Errors rise with m: along −m they fall, as `through` has it.
        grid = [-m for m in reversed(sizes(METHODS[name], d))]
        through(worst, grid, config.epsilon, -min(d, -grid[0]))
    return config.out


if __name__ == "__main__":
    try:
        print(f"runs: {measure(parse(SuperposedConfig, __doc__))}")
    except (InputError, OSError) as error:
        print(f"measure_superposed: {error}", file=sys.stderr)
        sys.exit(2)
