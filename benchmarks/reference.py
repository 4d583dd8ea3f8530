"""The plain reference: U-AND trained as one would write it first, with nothing of this library in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PlainTrainer:
    """Two linear layers with a ReLU between, dense targets x_i·x_j of all pairs, loss by autograd, Adam."""

    def __init__(
        self,
        m: int,
        d: int,
        active: float,
        batch: int,
        weights: Sequence[float],
        exponent: float = 2.0,
        fused: bool | None = None,
    ):
        """`active`: features on in expectation. `weights`: of zeros and ones, or of the cases 00, 01, 10, 11."""
        pairs = torch.triu_indices(m, m, offset=1)
        self.first, self.second = pairs[0], pairs[1]
        self.m, self.probability, self.batch, self.exponent = m, active / m, batch, exponent
        self.weights = torch.tensor(weights)
        self.layer, self.readoff = nn.Linear(m, d), nn.Linear(d, pairs.shape[1])
        self.network = nn.Sequential(self.layer, nn.ReLU(), self.readoff)
        self.optimiser = torch.optim.Adam(self.network.parameters(), fused=fused)

    def loss(self, x: Tensor) -> Tensor:
        """Weighted mean of |output − target|^p."""
        first, second = x[:, self.first], x[:, self.second]
        target = first * second
        if len(self.weights) == 2:
            weight = torch.where(target == 1, self.weights[1], self.weights[0])
        else:
            weight = self.weights[(2 * first + second).long()]
        error = self.network(x) - target
        power = error**2 if self.exponent == 2 else error.abs() ** self.exponent
        return (weight * power).mean()

    def step(self) -> Tensor:
        """One step on a fresh batch."""
        x = (torch.rand(self.batch, self.m) < self.probability).float()
        self.optimiser.zero_grad()
        loss = self.loss(x)
        loss.backward()
        self.optimiser.step()
        return loss.detach()
