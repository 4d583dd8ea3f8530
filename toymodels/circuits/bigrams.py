"""Skip-bigram heads: one matrix of low rank scores chosen pairs of a query's and a key's features (2024 post, section 3).

A query holds some of m features and a key some of m others, each with a random unit vector in d_resid dimensions: q = Σ
f_i, k = Σ g_j. Bigrams B are pairs (i, j); the true score is the number of bigrams with i in the query and j in the key.
The construction is W = Σ_B f_i g_jᵀ R, R = (d_resid/d_head)·(a random projection of rank d_head), for which g·R g is 1 on
average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.seeds import derive_seed, seeded
from toymodels.errors import InputError, check_positive, check_whole


@dataclass(frozen=True)
class Head:
    """A matrix that scores queries and keys, and the vectors of their features."""

    queries: Float[Tensor, "m d_resid"]
    """The vectors f_i."""
    keys: Float[Tensor, "m d_resid"]
    """The vectors g_j."""
    matrix: Float[Tensor, "d_resid d_resid"]
    """W_QK."""

    def scores(self, query: Float[Tensor, "n m"], key: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
        """Return qᵀ W k for each row: which features are active in the query, and in the key."""
        return ((query @ self.queries @ self.matrix) * (key @ self.keys)).sum(1)


def random_bigrams(m: int, count: int, seed: int) -> Float[Tensor, "m m"]:
    """Draw distinct bigrams, each pair equally likely, as a table of 0 and 1: rows are features of queries.

    Raises InputError for a count below 1 or above m².
    """
    check_whole(1, m=m)
    check_whole(1, m * m, count=count)
    table = torch.zeros(m * m)
    table[torch.randperm(m * m, generator=seeded(seed))[:count]] = 1
    return table.view(m, m)


def _vectors(m: int, d_resid: int, seed: int) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, m, d_resid, generator=seeded(derive_seed(seed, "frozen layer")))
    queries, keys = nn.functional.normalize(drawn, dim=2)
    return queries, keys


def constructed_head(bigrams: Float[Tensor, "m m"], d_resid: int, d_head: int, seed: int) -> Head:
    """Make the head of the construction. Raises InputError unless 1 ≤ d_head ≤ d_resid."""
    check_whole(1, d_resid=d_resid)
    check_whole(1, d_resid, d_head=d_head)
    queries, keys = _vectors(len(bigrams), d_resid, seed)
    generator = seeded(derive_seed(seed, "pairs"))
    basis = torch.linalg.qr(torch.randn(d_resid, d_head, generator=generator)).Q
    return Head(queries, keys, queries.T @ bigrams @ keys @ (basis @ basis.T) * (d_resid / d_head))


def sampled(
    bigrams: Float[Tensor, "m m"], n: int, active: int, seed: int
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    """Draw n queries and keys with `active` features each; every second one holds a bigram that is drawn at random.

    Raises InputError for active features that are not from 1 to m.
    """
    m = len(bigrams)
    check_whole(1, n=n)
    check_whole(1, m, active=active)
    generator = seeded(seed)
    rank = torch.rand(2, n, m, generator=generator)
    pairs = bigrams.nonzero()
    chosen = pairs[torch.randint(len(pairs), (n,), generator=generator)]
    for side in (0, 1):
        rank[side, torch.arange(1, n, 2), chosen[1::2, side]] = 2.0  # active in any case
    query, key = torch.zeros(2, n, m).scatter_(2, rank.topk(active, dim=2).indices, 1.0)
    return query, key


def true_scores(
    bigrams: Float[Tensor, "m m"], query: Float[Tensor, "n m"], key: Float[Tensor, "n m"]
) -> Float[Tensor, " n"]:
    """Return the number of bigrams in each query and key."""
    return ((query @ bigrams) * key).sum(1)


def noise_law(active: int, count: int, d_resid: int, d_head: int) -> float:
    """Return √(k_Q·k_K·|B|/(d_resid·d_head)), the standard deviation of a score where no active feature is in a bigram."""
    check_positive(active=active, count=count, d_resid=d_resid, d_head=d_head)
    return active * math.sqrt(count / (d_resid * d_head))


def score_variance(
    bigrams: Float[Tensor, "m m"], query: Float[Tensor, " m"], key: Float[Tensor, " m"], d_resid: int, d_head: int
) -> float:
    """Compute the variance of one score over the draw of a constructed head, exactly (derived here).

    With α_i = f_i·q and β_j = g_j·R k the score is Σ_B α_i β_j, α independent of β. E[α_i²] = x_i + (k − x_i)/d_resid and
    E[α_i α_i'] = x_i x_i' (1 + 1/d_resid), x the active features, k their number; for β likewise with d_head for d_resid, and
    E[(g·R g)²] = 1 + 2(d_resid − d_head)/(d_head (d_resid + 2)), for |P g|² is Beta(d_head/2, (d_resid − d_head)/2).
    """
    spread = 2 * (d_resid - d_head) / (d_head * (d_resid + 2))
    second = []
    for x, d, own in ((query.double(), d_resid, 0.0), (key.double(), d_head, spread)):
        moments = torch.outer(x, x) * (1 + 1 / d)
        second.append(moments.fill_diagonal_(0) + torch.diag(x * (1 + own) + (x.sum() - x) / d))
    table = bigrams.double()
    square = float((second[0] * (table @ second[1] @ table.T)).sum())
    return square - float(query.double() @ table @ key.double()) ** 2


@torch.enable_grad()
def trained_head(
    bigrams: Float[Tensor, "m m"], d_resid: int, d_head: int, active: int, seed: int, steps: int = 2000
) -> Head:
    """Train W = Q Kᵀ of rank d_head by Adam, for the vectors of `constructed_head`, to true scores of sampled queries and keys.

    The loss is the mean square error where the score is 0 plus that where it is not. Raises InputError for wrong numbers.
    """
    check_whole(1, d_resid, d_head=d_head)
    check_whole(1, steps=steps)
    queries, keys = _vectors(len(bigrams), d_resid, seed)
    generator = seeded(derive_seed(seed, "trained layer"))
    factors = [(torch.randn(d_resid, d_head, generator=generator) / d_resid**0.5).requires_grad_() for _ in range(2)]
    optimiser = torch.optim.Adam(factors, lr=1e-2)
    for step in range(steps):
        query, key = sampled(bigrams, 512, active, derive_seed(seed, "batches") + step)
        truth = true_scores(bigrams, query, key)
        score = ((query @ queries @ factors[0]) * (key @ keys @ factors[1])).sum(1)
        square, ones = (score - truth).square(), truth > 0
        loss = square[ones].mean() + square[~ones].mean()
        if not bool(loss.isfinite()):
            raise InputError("every query and key holds a bigram, or none does: take fewer bigrams")
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * min(1.0, 3 * (steps - step) / steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Head(queries, keys, (factors[0] @ factors[1].T).detach())


def head_errors(
    head: Head, bigrams: Float[Tensor, "m m"], query: Float[Tensor, "n m"], key: Float[Tensor, "n m"]
) -> dict[str, float]:
    """Measure rms_zeros and rms_ones, root mean square errors where the true score is 0 and where it is not, and `wrong`.

    `wrong` is the mean of both groups' shares on the wrong side of 1/2.
    """
    truth, score = true_scores(bigrams, query, key), head.scores(query, key)
    error, ones = (score - truth).double(), truth > 0
    wrong = (score > 0.5) != ones
    return {
        "rms_zeros": float(error[~ones].square().mean().sqrt()),
        "rms_ones": float(error[ones].square().mean().sqrt()),
        "wrong": float((wrong[ones].double().mean() + wrong[~ones].double().mean()) / 2),
    }
