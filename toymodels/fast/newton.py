"""Pass over slacks and multipliers of an interior-point step once for each thing to do: loops compiled by Numba.

Arrays `slacks` and `multipliers` have shape (targets, 2, inputs): t − e and t + e of an error e, and what multiplies them. A
step changes t by `up` (targets) and e by `moves` (targets × inputs), so that slacks change by up ∓ moves. It may be taken
until a slack, or a multiplier, is 0: `lengths` (targets × 2) are these shares of it, at most 1. Each loop holds a few
numbers of an input at once, where NumPy would write and read them again and again.
"""

from __future__ import annotations

from toymodels.fast.compiled import compiled_loop, same_bits


@compiled_loop
def weigh(slacks, multipliers, ratios, weights, differences, gaps, masses):  # type: ignore[no-untyped-def]
    """Compute multiplier/slack, and sums over the two sides and over inputs.

    `ratios` is each quotient and `weights` (targets × inputs) the sum of both. `differences` (2·targets × inputs) holds the
    difference of the sides' multipliers, then that of the ratios. `gaps` and `masses` (targets) are Σ slack·multiplier and
    Σ multiplier.
    """
    targets = slacks.shape[0]
    for t in range(targets):
        gap = mass = 0.0
        for i in range(slacks.shape[2]):
            u, v = multipliers[t, 0, i], multipliers[t, 1, i]
            p, q = u / slacks[t, 0, i], v / slacks[t, 1, i]
            gap += u * slacks[t, 0, i] + v * slacks[t, 1, i]
            mass += u + v
            ratios[t, 0, i], ratios[t, 1, i] = p, q
            weights[t, i] = p + q
            differences[t, i], differences[targets + t, i] = u - v, p - q
        gaps[t], masses[t] = gap, mass


@compiled_loop
def change(slacks, multipliers, ratios, wanted, up, moves, changes, lengths):  # type: ignore[no-untyped-def]
    """Compute the `changes` of the multipliers that make slack·multiplier change by `wanted`·slack, and the lengths."""
    for t in range(slacks.shape[0]):
        for side in range(2):
            sign = 2.0 * side - 1.0
            # A processor finds the largest of several whole numbers at once (see `compiled.subtract_targets`).
            slack_limit = multiplier_limit = same_bits(1.0)
            if side == 1:
                slack_limit, multiplier_limit = same_bits(1.0 / lengths[t, 0]), same_bits(1.0 / lengths[t, 1])
            for i in range(slacks.shape[2]):
                d = up[t] + sign * moves[t, i]
                c = wanted[t, side, i] - ratios[t, side, i] * d
                changes[t, side, i] = c
                a, b = same_bits(-d / slacks[t, side, i]), same_bits(-c / multipliers[t, side, i])
                slack_limit = a if a > slack_limit else slack_limit
                multiplier_limit = b if b > multiplier_limit else multiplier_limit
            lengths[t, 0], lengths[t, 1] = 1.0 / same_bits(slack_limit), 1.0 / same_bits(multiplier_limit)


@compiled_loop
def towards_centre(slacks, multipliers, up, moves, changes, lengths, gaps, wanted, differences, totals, centres):  # type: ignore[no-untyped-def]
    """Compute what the corrector wants, from the predictor's step: Mehrotra's centre and second-order term.

    `differences` (targets × inputs) is what is wanted below less what is wanted above, `totals` (targets) the sum of all.
    """
    n = slacks.shape[2]
    for t in range(slacks.shape[0]):
        primal, dual, reached, total = lengths[t, 0], lengths[t, 1], 0.0, 0.0
        for i in range(n):
            above, below = up[t] - moves[t, i], up[t] + moves[t, i]
            reached += (slacks[t, 0, i] + primal * above) * (multipliers[t, 0, i] + dual * changes[t, 0, i])
            reached += (slacks[t, 1, i] + primal * below) * (multipliers[t, 1, i] + dual * changes[t, 1, i])
        centre = (reached / gaps[t]) ** 3 * gaps[t] / (2 * n)
        for i in range(n):
            above, below = up[t] - moves[t, i], up[t] + moves[t, i]
            into_u = (centre - changes[t, 0, i] * above) / slacks[t, 0, i] - multipliers[t, 0, i]
            into_v = (centre - changes[t, 1, i] * below) / slacks[t, 1, i] - multipliers[t, 1, i]
            wanted[t, 0, i], wanted[t, 1, i], differences[t, i] = into_u, into_v, into_v - into_u
            total += into_u + into_v
        centres[t], totals[t] = centre, total


@compiled_loop
def towards_longer(slacks, multipliers, up, moves, changes, lengths, centres, wanted, differences, totals):  # type: ignore[no-untyped-def]
    """Add to what is wanted what lets a step be longer by 0.3: products that it would take away from the centre go back.

    (Gondzio, "Multiple centrality corrections", Computational Optimization and Applications 6, 1996.)
    """
    for t in range(slacks.shape[0]):
        primal, dual = min(1.0, lengths[t, 0] + 0.3), min(1.0, lengths[t, 1] + 0.3)
        low, high, total = 0.1 * centres[t], 10 * centres[t], 0.0
        for i in range(slacks.shape[2]):
            above, below = up[t] - moves[t, i], up[t] + moves[t, i]
            u = (slacks[t, 0, i] + primal * above) * (multipliers[t, 0, i] + dual * changes[t, 0, i])
            v = (slacks[t, 1, i] + primal * below) * (multipliers[t, 1, i] + dual * changes[t, 1, i])
            into_u = wanted[t, 0, i] + max(min(max(u, low), high) - u, -high) / slacks[t, 0, i]
            into_v = wanted[t, 1, i] + max(min(max(v, low), high) - v, -high) / slacks[t, 1, i]
            wanted[t, 0, i], wanted[t, 1, i], differences[t, i] = into_u, into_v, into_v - into_u
            total += into_u + into_v
        totals[t] = total


@compiled_loop
def take(slacks, multipliers, up, moves, changes, lengths):  # type: ignore[no-untyped-def]
    """Change slacks and multipliers by a step of these lengths."""
    for t in range(slacks.shape[0]):
        primal, dual = lengths[t, 0], lengths[t, 1]
        for i in range(slacks.shape[2]):
            slacks[t, 0, i] += primal * (up[t] - moves[t, i])
            slacks[t, 1, i] += primal * (up[t] + moves[t, i])
            multipliers[t, 0, i] += dual * changes[t, 0, i]
            multipliers[t, 1, i] += dual * changes[t, 1, i]
