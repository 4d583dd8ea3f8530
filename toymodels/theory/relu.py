"""Compute worst errors that no layer of ReLU neurons beats, where other activations do.

Both floors are for the AND of all sets of k features where at most s >= k of m are active (docs/theory.md, section 8.18).

*Fewer neurons than the P outputs*: ε >= 1/(2(P − 1)). Other activations reach 1/(2P) with P − 1. With a smaller error
the activations of P − 1 neurons on 0 and on each feature alone would be means of those on the sets of k, with weights that are
all positive. As ReLU neurons are never negative and convex, no neuron but a constant one has that.

*Two and three neurons*: ε >= 1/2, the error of a constant, for pairs of at least 6 and of at least 26 features. An error below
1/2 tells each pair from all others by a plane. But where all neurons are on, activations are sums of points, which lie in the
way of one another in few dimensions. Four neurons are enough to be below 1/2 for any number of features.
"""

from __future__ import annotations

import math

from toymodels.errors import check_whole

CONSTANT = {2: 6, 3: 26}
"""Up to how many neurons reach no error below 1/2 for pairs, and of features from which that is so."""


def relu_floor(m: int, k: int, d: int) -> float:
    """Return the worst error that no d ReLU neurons beat for the AND of every k of m features, at most s >= k active.

    0 where these proofs say nothing. Raises InputError unless 2 <= k <= m and d >= 1.
    """
    check_whole(2, m=m)
    check_whole(2, m, k=k)
    check_whole(1, d=d)
    if k == 2 and any(d <= most and m >= features for most, features in CONSTANT.items()):
        return 0.5
    outputs = math.comb(m, k)
    return 1 / (2 * (outputs - 1)) if d < outputs and outputs >= 2 * k else 0.0
