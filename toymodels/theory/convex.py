"""Compute worst errors that no layer of a width beats, by Radon's theorem: sharper than rank for very few or many neurons.

Take d + 2 points in R^d: the activations of inputs on which some output is 1 and all other outputs are 0, one input for each of
these outputs. By Radon (1921) they fall in two sides I and J with Σ_I λ_i a_i = Σ_J κ_j a_j, λ, κ ≥ 0, Σ λ = Σ κ = 1. Read both
sides by the output p of the largest λ_p: the left is at least λ_p(1 − ε) − (1 − λ_p)ε = λ_p − ε, the right at most ε. Hence
ε ≥ λ_p/2 ≥ 1/(2|I|); with I the smaller side, |I| ≤ (d + 2)/2.

With d + 1 such inputs (all outputs of a layer that is one neuron too narrow to compute them) take the input without active
features, on which every output is 0, as the last point, and the side without it as I: |I| ≤ d + 1, and ε ≥ 1/(2(d + 1)).

With one neuron, ε ≥ 1/2 for three outputs: no better than the constant 1/2. Activations do not matter.
"""

from __future__ import annotations

from toymodels.errors import check_whole


def radon_floor(outputs: int, d: int) -> float:
    """Return the worst error that no layer of d neurons beats, if each output is 1 on an input of its own where all others are 0.

    That is so for the AND of k features on all sets of k, where k may be active. 0 from d = outputs on: a neuron for each
    output has no error. Raises InputError for less than one output or neuron.
    """
    check_whole(1, outputs=outputs, d=d)
    if outputs >= d + 2:
        return 1 / (2 * ((d + 2) // 2))
    return 1 / (2 * outputs) if outputs == d + 1 else 0.0
