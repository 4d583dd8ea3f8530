"""Sparse boolean features: who is active.

Every distribution here is exchangeable: first a number of active features K is drawn from `counts`, then a uniform
subset of that size. "Exactly s", "at most s" and "independent with probability p" differ in the law of K alone.

An input is held as its active indices, padded with m; the 0/1 vector is made from them on demand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.errors import InputError
from toymodels.theory import counts as laws

ENUMERATION_LIMIT = 3_000_000
"""Inputs; more than this are refused by `enumerate` unless a higher limit is asked for."""


@dataclass(frozen=True)
class Inputs:
    """A finite list of inputs with probabilities: all of a distribution's inputs, or a sample of them."""

    m: int
    """Number of features."""
    indices: Int[Tensor, "inputs width"]
    """Active features of each input, in any order, padded with m."""
    probabilities: Float[Tensor, " inputs"]
    """Probability of each input (float64, sum 1); 1/n each for a sample."""
    enumerated: bool
    """Whether these are all the inputs of positive probability."""
    description: str
    """How inputs were covered, for tables: "all 1,276" or "20,000 sampled (seed 0)"."""

    def __len__(self) -> int:
        return self.indices.shape[0]

    def dense(self, rows: slice = slice(None), dtype: torch.dtype = torch.float32) -> Float[Tensor, "rows m"]:
        """The 0/1 vectors of some rows."""
        return dense(self.indices[rows], self.m, dtype)

    def blocks(self, size: int) -> Iterator[slice]:
        """Consecutive slices of at most `size` rows."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


def dense(indices: Int[Tensor, "rows width"], m: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "rows m"]:
    """0/1 vectors from active indices padded with m (the padding falls into a column that is cut off)."""
    x = torch.zeros(indices.shape[0], m + 1, dtype=dtype, device=indices.device)
    return x.scatter_(1, indices.long(), 1)[:, :m].contiguous()


@dataclass(frozen=True)
class SparseFeatures:
    """An exchangeable distribution over {0,1}^m; build it with `exactly`, `at_most` or `independent`."""

    m: int
    """Number of features, at least 2."""
    counts: tuple[float, ...] = field(repr=False)
    """counts[k] = probability that exactly k features are active, k = 0 … len(counts) − 1 ≤ m."""
    name: str
    """For tables, such as "at most 2 of 50"."""

    def __post_init__(self) -> None:
        _check_features(self.m)
        if not 1 <= len(self.counts) <= self.m + 1 or min(self.counts) < 0 or abs(sum(self.counts) - 1) > 1e-9:
            raise InputError(
                "counts must be probabilities of 0, 1, …, at most m active features that add up to 1; "
                f"got {len(self.counts)} numbers with sum {sum(self.counts):g} for m = {self.m}"
            )

    @classmethod
    def exactly(cls, m: int, s: int) -> SparseFeatures:
        """Exactly s of m active, every subset equally likely. Raises InputError unless 1 ≤ s ≤ m."""
        _check_count(m, s)
        return cls(m, tuple(laws.exactly(m, s)[: s + 1].tolist()), f"exactly {s} of {m}")

    @classmethod
    def at_most(cls, m: int, s: int) -> SparseFeatures:
        """At most s of m active, every admissible *input* equally likely (so P(K = k) ∝ C(m, k)).

        Raises InputError unless 1 ≤ s ≤ m.
        """
        _check_count(m, s)
        return cls(m, tuple(laws.at_most(m, s)[: s + 1].tolist()), f"at most {s} of {m}")

    @classmethod
    def independent(cls, m: int, p: float) -> SparseFeatures:
        """Each feature active with probability p, independently. Raises InputError unless 0 < p < 1."""
        if not 0 < p < 1:
            raise InputError(
                f"the probability of being active is {p:g}: it must lie strictly between 0 and 1, "
                f"that is, between 0 and m = {m} features active in expectation"
            )
        law = laws.independent(m, p)
        return cls(m, tuple((law / law.sum()).tolist()), f"{m} independent, {p * m:g} active in expectation")

    @property
    def max_active(self) -> int:
        """The largest number of active features that has positive probability."""
        return max(k for k, probability in enumerate(self.counts) if probability > 0)

    @property
    def n_inputs(self) -> int:
        """How many inputs have positive probability, found without enumerating: exact up to 10^30, else at least that."""
        total = 0
        for k, probability in enumerate(self.counts):
            if probability > 0:
                total += math.comb(self.m, k)
            if total > 10**30:
                break
        return total

    def case_probabilities(self) -> tuple[float, float, float, float]:
        """P(x_k, x_l) of any one pair in the cases 00, 01, 10, 11 (the same for every pair, by exchangeability)."""
        pairs = self.m * (self.m - 1)
        both = sum(p * k * (k - 1) for k, p in enumerate(self.counts)) / pairs
        one = sum(p * k * (self.m - k) for k, p in enumerate(self.counts)) / pairs
        none = sum(p * (self.m - k) * (self.m - k - 1) for k, p in enumerate(self.counts)) / pairs
        return none, one, one, both

    def sample(
        self, n: int, generator: torch.Generator, device: torch.device | str | None = None
    ) -> Int[Tensor, "n width"]:
        """Active indices of n independent inputs, padded with m; `dense` makes the 0/1 tensor of them.

        Drawn on the generator's device (so the same seed gives the same inputs whatever `device` is), then moved.
        Floyd's algorithm: cost n·s², no sort over m. Where s² is large against m, ranks of uniforms cost less.
        """
        law = torch.tensor(self.counts, dtype=torch.float64, device=generator.device)
        uniform = torch.rand(n, dtype=torch.float64, device=generator.device, generator=generator)
        # The last entry of a cumulative sum may fall short of 1 by rounding: no draw may land beyond it.
        sizes = torch.searchsorted(law.cumsum(0), uniform, right=True).clamp_(max=self.max_active)
        widest = int(sizes.max()) if n else 0
        choose = _floyd if widest * widest <= 8 * self.m else _by_rank
        return choose(self.m, sizes, widest, generator).to(device or generator.device)

    def sampled(self, n: int, seed: int, device: torch.device | str = "cpu") -> Inputs:
        """A stated sample: n inputs drawn with this seed, 1/n each."""
        if n < 1:
            raise InputError(f"a sample needs at least 1 input, got {n}")
        indices = self.sample(n, torch.Generator().manual_seed(seed), device)
        probabilities = torch.full((n,), 1 / n, dtype=torch.float64, device=device)
        return Inputs(self.m, indices, probabilities, False, f"{n:,} sampled (seed {seed})")

    def check_enumerable(self, limit: int = ENUMERATION_LIMIT) -> None:
        """Raises InputError if there are more than `limit` inputs."""
        if self.n_inputs > limit:
            raise InputError(
                f"{self.name} active features make {count_in_words(self.n_inputs)} inputs, more than the limit of {limit:,} "
                "for enumeration: take fewer (active) features, raise the limit, or use a sample of inputs"
            )

    def enumerate(self, limit: int = ENUMERATION_LIMIT, device: torch.device | str = "cpu") -> Inputs:
        """Every input of positive probability, with its probability.

        Raises InputError, before any work, if there are more than `limit`.
        """
        self.check_enumerable(limit)
        widest = self.max_active
        blocks, probabilities = [], []
        for k, probability in enumerate(self.counts):
            if probability > 0:
                subsets = _subsets(self.m, k)
                blocks.append(np.pad(subsets, ((0, 0), (0, widest - k)), constant_values=self.m))
                probabilities.append(np.full(len(subsets), probability / len(subsets)))
        indices = torch.from_numpy(np.concatenate(blocks)).to(device)
        law = torch.from_numpy(np.concatenate(probabilities)).to(device)
        return Inputs(self.m, indices, law, True, f"all {len(indices):,}")


def _check_features(m: int) -> None:
    if m < 2:
        raise InputError(f"m = {m} features: pairs need at least 2")


def _check_count(m: int, s: int) -> None:
    _check_features(m)
    if s != int(s) or not 1 <= s <= m:
        raise InputError(f"s = {s:g} active features: it must be a whole number from 1 to m = {m}")


def count_in_words(n: int) -> str:
    """A count as a person reads it, however large."""
    return f"{n:,}" if n < 10**15 else f"about 10^{math.log10(n):.0f}"


def _subsets(m: int, k: int) -> np.ndarray:
    """All k-subsets of {0 … m−1} in lexicographic order, shape (C(m, k), k): each subset grown by every later feature."""
    subsets = np.zeros((1, 0), dtype=np.int64)
    last = np.array([-1])
    for _ in range(k):
        room = m - 1 - last
        parent = np.repeat(np.arange(len(subsets)), room)
        first = np.cumsum(room) - room
        last = np.arange(room.sum()) - first[parent] + last[parent] + 1
        subsets = np.column_stack([subsets[parent], last])
    return subsets


def _floyd(m: int, sizes: Int[Tensor, " n"], widest: int, generator: torch.Generator) -> Int[Tensor, "n width"]:
    """Uniform subsets by Floyd's algorithm (Bentley & Floyd 1987), all rows at once, row i of size sizes[i].

    Step i of a row of size k draws t uniformly from 0 … j with j = m − k + i, and takes t, or j if t was taken before.
    """
    n = len(sizes)
    chosen = torch.full((n, widest), m, dtype=torch.int64, device=sizes.device)
    for i in range(widest):
        top = m - sizes + i
        draw = (torch.rand(n, dtype=torch.float64, device=sizes.device, generator=generator) * (top + 1)).long()
        draw = torch.where((chosen[:, :i] == draw[:, None]).any(1), top, draw)
        chosen[:, i] = torch.where(i < sizes, draw, m)
    return chosen


def _by_rank(m: int, sizes: Int[Tensor, " n"], widest: int, generator: torch.Generator) -> Int[Tensor, "n width"]:
    """Uniform subsets as the places of the largest of m uniforms: for rows with many active features."""
    uniform = torch.rand(len(sizes), m, device=sizes.device, generator=generator)
    chosen = uniform.topk(widest, dim=1).indices
    return torch.where(torch.arange(widest, device=sizes.device) < sizes[:, None], chosen, m)
