"""Training without torch's compiler: the same steps, and the compiler is not imported."""

import contextlib
import copy
import subprocess
import sys

import pytest
import torch

from toymodels.core import dispatch
from toymodels.core.features import SparseFeatures
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.settings import TrainingSettings
from toymodels.core.tasks import PairTask
from toymodels.core.training import Trainer
from toymodels.fast import optimisers
from toymodels.layers.random import gaussian

pytestmark = pytest.mark.usefixtures("wing")

SETTINGS = {
    "adam": {"optimiser": "adam", "lr_schedule": "cosine"},
    "adamw": {"optimiser": "adamw", "weight_decay": 0.1},
    "sampled outputs": {"optimiser": "adam", "pairs_per_step": 4},
    "lbfgs": {"optimiser": "lbfgs"},
    "kfac": {"optimiser": "kfac"},
}


def ends(settings):
    """The parameters after some steps, half of them by a trainer that continues from the state of another."""
    task, states = PairTask(6, "and"), []
    for _ in range(2):
        network = Network(gaussian(6, 5, 0), LinearReadoff.constant(task.n_outputs, 5))
        trainer = Trainer(
            network, task, SparseFeatures.at_most(6, 2), TrainingSettings(steps=20, batch=16, **settings), 0
        )
        if states:
            trainer.restore(states[0])
        for _ in range(1 if settings["optimiser"] in ("kfac", "lbfgs") else 5):
            trainer.advance()
        states.append(trainer.state())
    return states[-1]["network"]


@pytest.mark.parametrize("name", SETTINGS)
def test_steps_are_those_of_torch(name, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(optimisers, "sys", type("none loaded", (), {"modules": {}}))  # so that the forms are taken here
        found = ends(SETTINGS[name])
    import torch._dynamo

    expected = ends(SETTINGS[name])
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_steps_of_adam_by_its_function_are_its_own():
    expected = None
    for plain in (True, False):
        with dispatch.plain() if plain else contextlib.nullcontext():
            found = ends(SETTINGS["adam"])
        expected = expected or found
    # The gradients of small networks are summed in another order.
    assert all(torch.allclose(found[key], expected[key], atol=1e-5) for key in expected)
    network = Network(gaussian(6, 5, 0), LinearReadoff.constant(15, 5))
    step = {}
    for name, take in (("torch", lambda one: one.step()), ("function", optimisers.functional_step)):
        copied = copy.deepcopy(network)
        one = torch.optim.Adam(copied.parameters(), lr=0.1, fused=True)
        for number in range(4):
            for parameter in copied.parameters():
                parameter.grad = torch.full_like(parameter, 0.1 * (number - 1))
            (take if number else lambda one: one.step())(one)
        step[name] = copied.state_dict()
    assert all(torch.equal(step["torch"][key], step["function"][key]) for key in step["torch"])


def test_the_compiler_is_not_imported():
    code = (
        "import sys; from tests.fast.test_optimisers import SETTINGS, ends; [ends(s) for s in SETTINGS.values()]; "
        "import torch; assert 'torch._dynamo' not in sys.modules; "
        "assert not hasattr(torch.optim.Optimizer.state_dict.__wrapped__, '__dynamo_disable')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
