"""Networks, tasks and inputs on which both forms of the evaluation are measured."""

import dataclasses

import torch

from toymodels.core.features import SparseFeatures
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import Task
from toymodels.layers.random import gaussian


def network(m=9, d=5, outputs=36, seed=0):
    rng = torch.Generator().manual_seed(seed)
    readoff = LinearReadoff(torch.randn(outputs, d, generator=rng) / 4, torch.randn(outputs, generator=rng) / 4)
    return Network(gaussian(m, d, seed), readoff)


class AnyReadoff(torch.nn.Module):
    """A readoff that evaluation knows nothing of, in a task that it knows nothing of."""

    def __init__(self, readoff):
        super().__init__()
        self.readoff = readoff

    def forward(self, a, outputs):
        return self.readoff(a, outputs)


class AnyTask(Task):
    def __init__(self, task):
        self.m, self.n_outputs, self.truth, self.name, self.task = task.m, task.n_outputs, task.truth, "any", task

    def cases(self, x, outputs=slice(None)):
        return self.task.cases(x, outputs)


LISTED = torch.tensor([[3, 1], [1, 3], [0, 8], [3, 1], [7, 2]])


def every_weight_different(features, ends_alike):
    """Probabilities that fall in no runs: one draw for each input."""
    inputs = features.enumerate()
    weight = torch.rand(len(inputs), dtype=torch.float64, generator=torch.Generator().manual_seed(5)) + 0.1
    if ends_alike:
        weight[-1] = weight[0]
    return dataclasses.replace(inputs, probabilities=weight / weight.sum())


INPUTS = {
    "at most": SparseFeatures.at_most(9, 3).enumerate(),
    "exactly": SparseFeatures.exactly(9, 3).enumerate(),
    "up to 4": SparseFeatures(9, (0.3, 0.4, 0.0, 0.2, 0.1), "up to 4").enumerate(),
    "sampled": SparseFeatures.at_most(9, 3).sampled(77, 0),
    "weighted": every_weight_different(SparseFeatures.at_most(9, 3), ends_alike=False),
    "weighted, ends alike": every_weight_different(SparseFeatures.at_most(9, 3), ends_alike=True),
}
