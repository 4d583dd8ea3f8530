"""The probe reads what a layer holds, and only that."""

import importlib.util
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from toymodels import InputError, PairTask, SparseFeatures
from toymodels.core.layers import FirstLayer

SPEC = importlib.util.spec_from_file_location(
    "probe_inputs", Path(__file__).parents[2] / "analysis" / "probe_inputs.py"
)
M = 5
TASK, INPUTS = PairTask(M, "and"), SparseFeatures.at_most(M, 3).enumerate()


@pytest.fixture(scope="module")
def script():
    module = importlib.util.module_from_spec(SPEC)
    sys.modules[SPEC.name] = module
    SPEC.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def probed(script):
    return script.probed


def test_what_is_no_record_of_dictionaries_is_refused(script, tmp_path):
    for records, words in (((), "name at least one"), ((tmp_path / "nope",), "is missing")):
        with pytest.raises(InputError, match=words):
            script.main(script.ProbeInputs(tmp_path / "out.jsonl", records))
    assert not list(tmp_path.iterdir())


def test_inputs_alone_or_inputs_and_functions(probed):
    features = torch.eye(M)
    pairs = torch.stack([features[k] + features[l] for k, l in itertools.combinations(range(M), 2)])
    assert probed(FirstLayer(features, torch.zeros(M)), TASK, INPUTS, 0.9) == {"features": 1, "functions": 0}
    both = FirstLayer(torch.cat([features, pairs]), torch.cat([torch.zeros(M), -torch.ones(len(pairs))]))
    assert probed(both, TASK, INPUTS, 0.9) == {"features": 1, "functions": 1}


def test_the_threshold_is_one_of_the_correlation(probed):
    layer = FirstLayer(torch.randn(3, M, generator=torch.Generator().manual_seed(0)), torch.zeros(3))
    a, x = layer(INPUTS.dense()).detach().double().numpy(), INPUTS.dense().double().numpy()
    fit = np.hstack([a, np.ones((len(a), 1))])
    found = [np.corrcoef(fit @ np.linalg.lstsq(fit, y, rcond=None)[0], y)[0, 1] for y in x.T]
    cut = float(np.sort(found)[1] + np.sort(found)[2]) / 2
    assert probed(layer, TASK, INPUTS, cut)["features"] == 0.6
