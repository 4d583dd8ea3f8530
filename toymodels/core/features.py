"""Sparse features: draw and list inputs in which few features are active.

Any source of inputs is a `Features`, whose docstring says how to write one. Those of `SparseFeatures` are exchangeable: first a
number of active features K is drawn from `counts`, then a uniform subset of that size. "Exactly s", "at most s" and "independent
with probability p" differ in the distribution of K alone. Sources that are not exchangeable are in `toymodels.inputs`. Boolean
features have the value 1 when active; others have a value from a distribution of values.

An input is stored as its active indices, padded with m, and their values; the vector x of length m is made when needed.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from toymodels.core.seeds import seeded
from toymodels.errors import InputError, check_device, check_kind, check_whole
from toymodels.registry import Member, Registry, load_plugins, version_of
from toymodels.theory import counts as count_distributions

ENUMERATION_LIMIT = 3_000_000
"""The number of inputs above which `enumerate` refuses to list them, unless a higher limit is given."""

_ROUNDED = 1e-5
"""How far from 1 the sum of probabilities may be that were written or computed with few digits."""


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
    """Which inputs these are, for tables: "all 1,276" or "20,000 sampled (seed 0)"."""
    values: Float[Tensor, "inputs width"] | None = None
    """Value of each active feature; None if each is 1 (boolean features). Values at the padding are ignored."""
    kept: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    """Tables that fast forms have made of these inputs and keep for their next call."""

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "inputs m"],
        probabilities: Float[Tensor, " inputs"] | None = None,
        enumerated: bool = False,
        description: str = "",
    ) -> Inputs:
        """Make inputs from their vectors x, one a row; without probabilities they are a sample, 1/n each.

        Raises InputError for rows or probabilities that are not finite, or probabilities below 0 or with another sum than 1.
        """
        check_kind(Tensor, "a tensor with a row for each input", x=x)
        if x.ndim != 2 or x.is_complex() or x.is_meta:
            what = "without values (device meta)" if x.is_meta else f"of {x.dtype}"
            raise InputError(f"x has shape {tuple(x.shape)} {what}: it must be real numbers, a row for each input")
        n, m = x.shape
        if probabilities is None:
            shares = even(n, x.device)
        else:
            probabilities = torch.as_tensor(probabilities, device=x.device).reshape(-1)
            total = float(probabilities.double().sum())
            if len(probabilities) != n or not bool((probabilities >= 0).all()) or not abs(total - 1) < _ROUNDED:
                given = f"{len(probabilities):,} numbers with sum {total:g}"
                raise InputError(
                    f"{n:,} inputs need as many probabilities, none below 0, that add up to 1; got {given}"
                )
            shares = probabilities.double() / total
        if not bool(x.isfinite().all()):
            raise InputError("a feature has a value that is not a finite number")
        on = x != 0
        position = on.cumsum(1)
        rows, columns = on.nonzero(as_tuple=True)
        indices = torch.full((n, int(position.max()) if x.numel() else 0), m, device=x.device)
        indices[rows, position[rows, columns] - 1] = columns
        values = None if bool((x[on] == 1).all()) else nn.functional.pad(x, (0, 1)).gather(1, indices)
        words = description or (f"all {n:,}" if enumerated else f"{n:,} sampled")
        return cls(m, indices, shares, enumerated, words, values)

    def __len__(self) -> int:
        return self.indices.shape[0]

    def dense(
        self, rows: slice | Int[Tensor, " rows"] = slice(None), dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "rows m"]:
        """Make the vectors x of some rows."""
        return dense(self.indices[rows], self.m, dtype, None if self.values is None else self.values[rows])

    def to(self, device: torch.device | str) -> Inputs:
        """Return the same inputs on a device."""
        indices, probabilities = self.indices.to(device), self.probabilities.to(device)
        values = None if self.values is None else self.values.to(device)
        return dataclasses.replace(self, indices=indices, probabilities=probabilities, values=values, kept={})

    def blocks(self, size: int) -> Iterator[slice]:
        """Cut the rows into consecutive slices of at most `size`."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


def dense(
    indices: Int[Tensor, "rows width"],
    m: int,
    dtype: torch.dtype = torch.float32,
    values: Float[Tensor, "rows width"] | None = None,
) -> Float[Tensor, "rows m"]:
    """Make vectors from active indices padded with m (the padding goes to a column that is cut off)."""
    x = torch.zeros(indices.shape[0], m + 1, dtype=dtype, device=indices.device)
    if values is None:
        return x.scatter_(1, indices.long(), 1)[:, :m].contiguous()
    return x.scatter_(1, indices.long(), values.to(dtype))[:, :m].contiguous()


@dataclass(frozen=True, kw_only=True)
class ValueDistribution(Member):
    """A distribution of the value of an active feature: `function(shape, generator)` draws independent values."""

    description: str = ""
    """Its description in tables: "uniform on [0, 1]"."""
    constant: bool = False
    """Whether each draw is the same number, so that inputs can be enumerated."""


_SMALL = 2**13
"""Inputs × features up to which sorting all features costs less than the steps of Floyd's algorithm (measured)."""

_SMALL_PAIRS = 2**19
"""Inputs × features² up to which independent features are drawn one by one; the list of active ones is then as wide as m."""

VALUES = Registry("distribution of values", ValueDistribution)
"""Distributions of the value of an active feature, by name. A member draws from (shape, generator) on the generator's device."""

ONE = "one"
"""The distribution of the values of boolean features."""


@VALUES(ONE, description="", constant=True, order=0)
def _one(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Give every active feature the value 1: boolean features."""
    return torch.ones(shape, device=generator.device)


@VALUES("constant", description="of one value", constant=True, order=1)
def _constant(shape: tuple[int, ...], generator: torch.Generator, *, value: float | int = 0.5) -> Tensor:
    """Give every active feature one value."""
    if not 1e-30 <= abs(value) <= 1e30:
        raise InputError(f"the value {value:g} of active features: it must be other than 0, from 1e-30 to 1e30 in size")
    return torch.full(shape, float(value), device=generator.device)


@VALUES("uniform", description="uniform on [0, 1]", order=2)
def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw values uniformly from [0, 1]."""
    return torch.rand(shape, device=generator.device, generator=generator)


@VALUES("symmetric", description="uniform on [−1, 1]", order=3)
def _symmetric(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw values uniformly from [−1, 1]."""
    return torch.rand(shape, device=generator.device, generator=generator) * 2 - 1


class Features(ABC):
    """A source of inputs of your own: any distribution of which features are active together, and of their values.

    Set `m`, and define `sample`, which draws inputs; `Inputs.of(x)` makes them from vectors. This is enough to train with Adam
    and to evaluate on samples. Define more if you can:

    * `n_inputs` and `enumerate` if all inputs can be listed, each once, with their probabilities: evaluations are then exact, and
      L-BFGS and minimax readoffs (which look at every input) can be used;
    * `both_active` if the features are too many to list all inputs: the weights of a loss by case (00, 01, 10, 11) are then exact
      for tasks on pairs, and not estimated from 20,000 samples;
    * `case_probabilities` in its place if every pair of features has the same probabilities.

    Register a function that makes it with `@INPUTS("name")`, and `--inputs "name(knob=value)"` names it everywhere; `toymodels
    check FILE.py` checks that samples, list and probabilities agree. `docs/design.md` has an example.
    """

    m: int
    """Number of features, at least 2."""
    name: str = "some"
    """Which features are active, as in "at most 2 of 50" (active)."""
    n_inputs: float | int = math.inf
    """How many inputs have positive probability; infinite if values are real numbers."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Inputs:
        """Draw n independent inputs, 1/n each, on the generator's device."""

    def sampled(self, n: int, seed: int, device: torch.device | str = "cpu") -> Inputs:
        """Draw n inputs from this seed, the same ones on every device, 1/n each."""
        check_whole(least=1, n=n)
        check_device(device)
        inputs = checked_sample(self, n, seeded(seed)).to(device)
        return dataclasses.replace(inputs, description=f"{n:,} sampled (seed {seed})")

    def check_enumerable(self, limit: int = ENUMERATION_LIMIT) -> None:
        """Raise InputError if there are more than `limit` inputs."""
        check_whole(limit=limit)
        if self.n_inputs == math.inf:
            raise InputError(
                f"the features ({self.name} active) have real values, and no list holds all inputs: use a sample of inputs"
            )
        if self.n_inputs > limit:
            raise InputError(
                f"the features ({self.name} active) make {count_in_words(int(self.n_inputs))} inputs, more than the limit of "
                f"{limit:,} for enumeration: take fewer (active) features, raise the limit, or use a sample of inputs"
            )

    def enumerate(self, limit: int = ENUMERATION_LIMIT, device: torch.device | str = "cpu") -> Inputs:
        """List every input of positive probability, with its probability. Raises InputError if they are more than `limit`."""
        raise InputError(f"the features {self.name} have no list of all inputs: use a sample of inputs")

    def case_probabilities(self) -> tuple[float, float, float, float] | None:
        """Return P(x_k, x_l) in the cases 00, 01, 10, 11 if it is known and the same for every pair; else None."""
        return None

    def both_active(self) -> Float[Tensor, "m m"] | None:
        """Return the probability that features k and l are both active (float64; that k is, on the diagonal) if it is known."""
        return None


@runtime_checkable
class Source(Protocol):
    """The least that a source of inputs has."""

    @property
    def m(self) -> int:
        """The number of features."""

    def sample(self, n: int, generator: torch.Generator) -> Any:
        """Draw n independent `Inputs`."""


class _Extended(Features):
    """A source of your own that is no `Features`, with the methods that it lacks."""

    def __init__(self, source: Source):
        names = {"m", *(name for name in dir(Features) if not name.startswith("_"))} - {"sample"}
        vars(self).update({name: getattr(source, name) for name in names if hasattr(source, name)})
        self._source = source

    def sample(self, n: int, generator: torch.Generator) -> Inputs:
        """Draw from the source."""
        inputs: Inputs = self._source.sample(n, generator)
        return inputs


def as_features(source: Source) -> Features:
    """Return a source of inputs with every method of `Features`, also if it is an object with `m` and `sample` alone."""
    return source if isinstance(source, Features) else _Extended(source)


def checked_sample(features: Features, n: int, generator: torch.Generator) -> Inputs:
    """Draw a sample. Raises InputError for a source of your own that returns something else."""
    inputs: Any = features.sample(n, generator)
    if not isinstance(inputs, Inputs) or (len(inputs), inputs.m) != (n, features.m):
        wanted = f"{n:,} Inputs of m = {features.m} features, such as Inputs.of(x) of a tensor x of shape ({n}, {features.m})"
        raise InputError(f"the features {features.name} draw a {type(inputs).__name__}: `sample` must return {wanted}")
    return inputs


_even: dict[tuple[int, torch.device], Tensor] = {}


def even(n: int, device: torch.device) -> Float[Tensor, " {n}"]:
    """Return the probabilities of a sample of n inputs, the same tensor at every call for the latest sizes."""
    if (kept := _even.get((n, device))) is not None:
        return kept
    made = torch.full((n,), 1 / max(n, 1), dtype=torch.float64, device=device)
    if type(made) is Tensor:  # a tensor of FakeTensorMode must not outlive it
        if len(_even) == 8:
            del _even[next(iter(_even))]
        _even[n, device] = made
    return made


@dataclass(frozen=True)
class SparseFeatures(Features):
    """Features of which a uniform subset is active; build it with `exactly`, `at_most` or `independent`."""

    m: int
    counts: tuple[float, ...] = field(repr=False)
    """counts[k] = probability that exactly k features are active, k = 0 … len(counts) − 1 ≤ m."""
    name: str
    values: str = ONE
    """Distribution of the value of an active feature: a member of `VALUES`, with knobs if it has some."""
    p: float | None = field(default=None, repr=False, compare=False)
    """Probability of being active, if features are independent: small samples are then drawn without a sort."""

    def __post_init__(self) -> None:
        check_whole(2, m=self.m)
        check_kind(tuple, "a tuple of probabilities of 0, 1, … active features", counts=self.counts)
        few = 1 <= len(self.counts) <= self.m + 1
        if not (few and min(self.counts) >= 0 and abs(sum(self.counts) - 1) <= 1e-9):
            raise InputError(
                "counts must be probabilities of 0, 1, …, at most m active features that add up to 1; "
                f"got {len(self.counts)} numbers with sum {sum(self.counts):g} for m = {self.m}"
            )
        draw_values(self.values, (1,), torch.Generator())  # a wrong knob is named now

    @classmethod
    def exactly(cls, m: int, s: int, values: str = ONE) -> SparseFeatures:
        """Make exactly s of m active, every subset equally likely. Raises InputError unless 1 ≤ s ≤ m."""
        _check_count(m, s)
        return cls._named(m, count_distributions.exactly(m, s)[: s + 1], f"exactly {s} of {m}", values)

    @classmethod
    def at_most(cls, m: int, s: int, values: str = ONE) -> SparseFeatures:
        """Make at most s of m active, every set of them equally likely (so P(K = k) ∝ C(m, k)).

        Raises InputError unless 1 ≤ s ≤ m.
        """
        _check_count(m, s)
        return cls._named(m, count_distributions.at_most(m, s)[: s + 1], f"at most {s} of {m}", values)

    @classmethod
    def independent(cls, m: int, p: float, values: str = ONE) -> SparseFeatures:
        """Make each feature active with probability p, independently. Raises InputError unless 0 < p < 1."""
        check_kind(Real, "a number", p=p)
        if not 0 < p < 1:
            raise InputError(
                f"the probability of being active is {p:g}: it must lie strictly between 0 and 1, "
                f"that is, between 0 and m = {m} features active in expectation"
            )
        counts = count_distributions.independent(m, p)
        return cls._named(m, counts / counts.sum(), f"each of {m} with probability {p:g}", values, p)

    @classmethod
    def _named(
        cls, m: int, counts: Float[np.ndarray, " counts"], name: str, values: str, p: float | None = None
    ) -> SparseFeatures:
        return cls(m, tuple(counts.tolist()), name + values_in_words(values), VALUES.canonical(values), p)

    @property
    def max_active(self) -> int:
        """The largest number of active features that has positive probability."""
        return max(k for k, probability in enumerate(self.counts) if probability > 0)

    @property
    def n_inputs(self) -> float | int:  # type: ignore[override]
        """The number of inputs of positive probability: exact up to 10^30, else a lower bound; infinite for real values."""
        return count_inputs(self.m, self.counts) if VALUES.named(self.values)[0].constant else math.inf

    def case_probabilities(self) -> tuple[float, float, float, float]:
        """Return the probability that (x_k, x_l) are active as in 00, 01, 10, 11, the same for every pair by symmetry."""
        pairs = self.m * (self.m - 1)
        both = sum(p * k * (k - 1) for k, p in enumerate(self.counts)) / pairs
        single = sum(p * k * (self.m - k) for k, p in enumerate(self.counts)) / pairs
        none = sum(p * (self.m - k) * (self.m - k - 1) for k, p in enumerate(self.counts)) / pairs
        return none, single, single, both

    def sample(self, n: int, generator: torch.Generator) -> Inputs:
        """Draw n independent inputs, 1/n each, on the generator's device.

        Active sets by Floyd's algorithm: cost n·s², no sort over m. If s² is large compared with m, ranks of uniforms cost less;
        if features are independent and the sample is small, a draw for each feature does.
        """
        check_whole(0, n=n)
        check_kind(torch.Generator, "a torch.Generator; `sampled` takes a seed", generator=generator)
        device = generator.device
        if self.p is not None and self.drawn_singly(n):
            active = torch.rand(n, self.m, device=device, generator=generator) < self.p
            indices = torch.where(active, torch.arange(self.m, device=device), self.m)
            return self._sampled(indices, generator, {"active": active})
        counts = torch.tensor(self.counts, dtype=torch.float64, device=device)
        uniform = torch.rand(n, dtype=torch.float64, device=device, generator=generator)
        # The last entry of a cumulative sum may be below 1 because of rounding: a draw above it counts as the last one.
        sizes = torch.searchsorted(counts.cumsum(0), uniform, right=True).clamp_(max=self.max_active)
        widest = self.max_active if self._usually_widest(n) else int(sizes.max())
        choose = _floyd if self._by_steps(n, widest) else _by_rank
        return self._sampled(choose(self.m, sizes, widest, generator), generator, {})

    def _sampled(self, indices: Int[Tensor, "n width"], generator: torch.Generator, kept: dict[Any, Any]) -> Inputs:
        n = len(indices)
        inputs = Inputs(self.m, indices, even(n, generator.device), False, f"{n:,} sampled", None, kept)
        return with_values(inputs, self.values, generator)

    def drawn_singly(self, n: int) -> bool:
        """Whether `sample` draws each feature of n inputs by itself: it is active where a uniform number is below p."""
        return self.p is not None and n * self.m * self.m <= _SMALL_PAIRS

    def drawn_by_steps(self, n: int) -> bool:
        """Whether `sample` draws the size of each of n sets, and then `max_active` members by Floyd's algorithm."""
        return not self.drawn_singly(n) and self._usually_widest(n) and self._by_steps(n, self.max_active)

    def _usually_widest(self, n: int) -> bool:
        """Whether most sets have the largest size: then Python need not wait for the device to find the largest one drawn."""
        return self.counts[self.max_active] > 0.5 or not n

    def _by_steps(self, n: int, widest: int) -> bool:
        """Whether to draw members by many short steps, and not by a sort of all features: not few sets, nor many members."""
        return widest * widest <= 8 * self.m and (widest <= 4 or n * self.m > _SMALL)

    def enumerate(self, limit: int = ENUMERATION_LIMIT, device: torch.device | str = "cpu") -> Inputs:
        """List every input of positive probability, with its probability.

        Raises InputError, before any work, if there are more than `limit`.
        """
        self.check_enumerable(limit)
        check_device(device)
        widest = self.max_active
        blocks, probabilities = [], []
        for k, probability in enumerate(self.counts):
            if probability > 0:
                subsets = _subsets(self.m, k)
                blocks.append(np.pad(subsets, ((0, 0), (0, widest - k)), constant_values=self.m))
                probabilities.append(np.full(len(subsets), probability / len(subsets)))
        indices = torch.from_numpy(np.concatenate(blocks)).to(device)
        shares = torch.from_numpy(np.concatenate(probabilities)).to(device)
        inputs = Inputs(self.m, indices, shares, True, f"all {len(indices):,}")
        return with_values(inputs, self.values, torch.Generator())


def count_inputs(m: int, counts: Sequence[float], patterns: int = 1) -> int:
    """Count the sets of m members with sizes of positive probability, each member shown in one of some patterns.

    Exact up to 10^30, else a lower bound.
    """
    total = 0
    for k, probability in enumerate(counts):
        if probability > 0:
            total += math.comb(m, k) * patterns**k
        if total > 10**30:
            break
    return total


def draw_values(values: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw the values of active features by the name of their distribution. Raises InputError for draws that do not fit."""
    member, knobs = VALUES.named(values)
    drawn: Tensor = member.call({"shape": shape, "generator": generator}, knobs)
    if drawn.shape != shape or not bool(drawn.isfinite().all()):
        found = f"the distribution of values {member.name} drew shape {tuple(drawn.shape)} for {tuple(shape)}"
        raise InputError(f"{found}, or a value that is not finite: it must return finite numbers of that shape")
    return drawn


def with_values(inputs: Inputs, values: str, generator: torch.Generator) -> Inputs:
    """Give the active features of boolean inputs values from a distribution."""
    if values == ONE:
        return inputs
    drawn = draw_values(values, tuple(inputs.indices.shape), generator)
    return dataclasses.replace(inputs, values=drawn.to(inputs.indices.device))


def values_in_words(values: str) -> str:
    """Return what the name of a source says about the values of active features; "" for boolean ones."""
    described = VALUES.named(values)[0].description
    return f" (values {described})" if described else ""


@dataclass(frozen=True, kw_only=True)
class InputsMember(Member):
    """A source of inputs by name: `function` makes the `Features`; its parameters are among m, s and values."""

    counted: bool = False
    """Whether s is a number of active features, and so whole; otherwise it is their expected number."""
    example: Callable[[int, Path], str] | None = None
    """Returns its name with knobs for m features, for the common checks, if it needs knobs; may write files into a folder."""


INPUTS = Registry("kind of inputs", InputsMember, "toymodels.inputs")
"""Sources of inputs by name: which features may be active together. A member makes `Features` from m, s and values."""


@INPUTS("at_most", counted=True, order=0)
def _at_most(m: int, s: int, values: str) -> SparseFeatures:
    """Make at most s of m features active, every set of them equally likely."""
    return SparseFeatures.at_most(m, s, values)


@INPUTS("exactly", counted=True, order=1)
def _exactly(m: int, s: int, values: str) -> SparseFeatures:
    """Make exactly s of m features active, every set equally likely."""
    return SparseFeatures.exactly(m, s, values)


@INPUTS("independent", order=2)
def _independent(m: int, s: int | float, values: str) -> SparseFeatures:
    """Make each feature active with probability s/m, independently."""
    if not 0 < s < m:
        raise InputError(f"s = p·m = {s:g} features active in expectation: it must lie strictly between 0 and m = {m}")
    return SparseFeatures.independent(m, s / m, values)


def make_features(inputs: str, m: int, s: int | float, values: str = ONE) -> Features:
    """Make the source of inputs of this name. Raises InputError for an unknown name or an s that does not fit."""
    member, knobs = INPUTS.named(inputs)
    VALUES.named(values)
    check_kind(Real, "a number", s=s)
    if not math.isfinite(s):
        raise InputError(f"s = {s:g} active features: it must be a finite number")
    if member.counted and s != int(s):
        raise InputError(f"s = {s:g}: {member.name} takes a whole number of active features, from 1 to m")
    features = as_features(member.call({"m": m, "s": int(s) if member.counted else s, "values": values}, knobs))
    if values != ONE and "values" not in member.parameters:
        raise InputError(f"the inputs {member.name} have values of their own: leave values out")
    return features


def pinned(inputs: str) -> tuple[str, tuple[Path, ...]]:
    """Return the standard name of a source of inputs and the data files that it names, with their versions in the name.

    Raises InputError for an unknown name, or a file that is not there.
    """
    member, knobs = INPUTS.named(inputs)
    if not knobs.get("file") or knobs.get("version") or "version" not in member.knobs:
        return INPUTS.canonical(inputs), ()
    path = Path(knobs["file"])
    load_plugins([path])
    knobs |= {"file": path.name, "version": version_of(path)}
    return INPUTS.canonical(f"{member.name}({','.join(f'{key}={value}' for key, value in knobs.items())})"), (path,)


def _check_count(m: int, s: int) -> None:
    check_whole(2, m=m)
    check_kind(Real, "a number", s=s)
    if isinstance(s, bool) or s % 1 or not 1 <= s <= m:
        raise InputError(f"s = {s:g} active features: it must be a whole number from 1 to m = {m}")


def count_in_words(n: int) -> str:
    """Write a count for people to read: "1,276" or "about 10^20"."""
    return f"{n:,}" if n < 10**15 else f"about 10^{math.log10(n):.0f}"


def _subsets(m: int, k: int) -> np.ndarray:
    """List all k-subsets of {0 … m−1} in lexicographic order, shape (C(m, k), k): grow each subset by every later feature."""
    subsets = np.zeros((1, 0), dtype=np.int64)
    last = np.array([-1])
    for _ in range(k):
        later = m - 1 - last
        parent = np.repeat(np.arange(len(subsets)), later)
        first = np.cumsum(later) - later
        last = np.arange(later.sum()) - first[parent] + last[parent] + 1
        subsets = np.column_stack([subsets[parent], last])
    return subsets


def _floyd(m: int, sizes: Int[Tensor, " n"], widest: int, generator: torch.Generator) -> Int[Tensor, "n width"]:
    """Draw uniform subsets by Floyd's algorithm (Bentley & Floyd 1987), all rows at once, row i of size sizes[i].

    Step i in a row of size k draws t uniformly from 0 … j with j = m − k + i, and takes t, or j if t was taken before.
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
    """Draw uniform subsets as the positions of the largest of m uniforms: for rows with many active features."""
    uniform = torch.rand(len(sizes), m, device=sizes.device, generator=generator)
    chosen = uniform.topk(widest, dim=1).indices
    return torch.where(torch.arange(widest, device=sizes.device) < sizes[:, None], chosen, m)
