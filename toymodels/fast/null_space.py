"""Take the steps of `fast.interior_point` by changes of the measure, where few measures annihilate the activations.

A step changes errors by e = G y and the measure by W e − c t − b, which Gᵀ annihilates; W are the weights of the inputs, c the
coupling to t. With k unknowns y that is a system GᵀW G of size k; the measures that Gᵀ annihilates, Z λ with an orthonormal
basis Z, have inputs − k dimensions. If those are fewer, it is cheaper to solve

    e = W⁻¹ (b + c t − Z λ),  Zᵀ e = 0,  so that  ZᵀW⁻¹Z λ = ZᵀW⁻¹ (b + c t).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import linalg

from toymodels.fast.systems import Solve


class NullSpace:
    """The measures that Gᵀ annihilates, for G with GᵀG = n·1."""

    def __init__(self, G: Float[np.ndarray, "inputs basis"]):
        """Compute their orthonormal basis Z."""
        self._G = G
        self._Z = linalg.qr(G)[0][:, G.shape[1] :]

    @staticmethod
    def pays(inputs: int, unknowns: int) -> bool:
        """Whether its systems are so much smaller that they cost less, although they need float64 from the first step on."""
        return unknowns >= 48 and 0 < 5 * (inputs - unknowns) < 2 * unknowns

    def solver(
        self,
        ratios: Float[np.ndarray, "targets 2 inputs"],
        weights: Float[np.ndarray, "targets inputs"],
        errors: Float[np.ndarray, "targets inputs"],
    ) -> Solve:
        """Return the function that solves the systems of a step.

        `errors` + target should be G y. What rounding has added to it is taken away by the step: large errors W⁻¹(…) − Z λ of
        inputs with small weights would otherwise reach the inputs that hold the solution.
        """
        G, Z = self._G, self._Z
        inverse, coupling = 1 / weights, ratios[:, 0] - ratios[:, 1]
        matrices = np.stack([(Z.T * row) @ Z for row in inverse])
        # If there are many solutions, this picks one of them.
        matrices.reshape(len(matrices), -1)[:, :: Z.shape[1] + 1] *= 1 + 1e-14
        drift = errors @ Z

        def moved(b: np.ndarray, removed: np.ndarray | float) -> np.ndarray:
            try:
                by_measure = np.linalg.solve(matrices, ((inverse * b) @ Z + removed)[..., None])[..., 0]
            except np.linalg.LinAlgError:  # one of them is singular: factors do all of them again
                return np.full_like(b, np.nan)
            moves: np.ndarray = inverse * (b - by_measure @ Z.T)
            return moves

        by_t = moved(coupling, 0.0)
        # Σ w − c²/w, without the difference of nearly equal numbers, and what the measure adds to it.
        size = 4 * (inverse * ratios[:, 0] * ratios[:, 1]).sum(1) + (weights * (inverse * coupling - by_t) ** 2).sum(1)

        def solve(b: np.ndarray | None, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            moves = np.zeros_like(by_t) if b is None else moved(b, drift)
            t = (last + (coupling * moves).sum(1)) / size
            moves += t[:, None] * by_t
            return np.column_stack([moves @ G / len(G), t]), moves

        return solve

    def vertex(
        self, f: Float[np.ndarray, " inputs"], weight: np.ndarray, measure: np.ndarray, close: float
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Do what `interior_point._vertex` does: the measure is the one that is 0 outside of the k + 1 inputs."""
        G, Z = self._G, self._Z
        n, k = G.shape
        order = np.argpartition(weight, n - k - 1)
        free, held = order[: n - k - 1], order[n - k - 1 :]
        signs = np.sign(measure[held])
        try:
            inverse = np.linalg.inv(np.vstack([Z[free], signs @ Z[held]]))
        except np.linalg.LinAlgError:
            return None
        mass, solution = Z[held] @ inverse[:, -1], -(f @ Z) @ inverse
        t = -solution[-1]
        if not ((mass * signs > 0).all() and (np.abs(solution[:-1]) <= t * (1 + close)).all()):
            return None
        errors, balanced = np.empty(n), np.zeros(n)
        errors[free], errors[held], balanced[held] = solution[:-1], -t * signs, mass
        return G.T @ (errors + f) / n, balanced
