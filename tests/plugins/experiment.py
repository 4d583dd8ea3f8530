from dataclasses import dataclass

from toymodels import EXPERIMENTS, Network, balanced, evaluate, gaussian
from toymodels.runs.metrics import metrics_of
from toymodels.runs.settings import ProblemSettings, RunSettings


@dataclass(frozen=True)
class DeadConfig(RunSettings, ProblemSettings):
    """Measure a Gaussian layer of which a share of the neurons is dead."""

    dead: float = 0.5
    """Share of neurons that are dead."""

    def __post_init__(self):
        ProblemSettings.__post_init__(self)
        RunSettings.__post_init__(self)


@EXPERIMENTS("dead_neurons", config=DeadConfig, source="this test")
def dead_neurons(config, folder, report):
    """Measure a layer with dead neurons."""
    features, task = config.features(), config.make_task("and")
    inputs = features.enumerate()
    for seed in config.seeds:
        layer = gaussian(config.m, config.d, seed).requires_grad_(False)
        layer.weight[: int(config.dead * config.d)] = 0
        evaluation = evaluate(Network(layer, balanced(layer, task, features, inputs)), task, inputs).to_dict()
        yield {"task": "and", "first_layer": "dead", "readoff": "balanced", "seed": seed, **metrics_of(evaluation)}
