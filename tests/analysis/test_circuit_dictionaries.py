"""Dictionaries on the layers of a circuit, at toy size: measured, stored, and recomputed from the parts."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from toymodels import InputError, fit_dictionary
from toymodels.circuits.circuit import Circuit
from toymodels.circuits.depth import errors_by_depth, fold, stages
from toymodels.core.seeds import derive_seed

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("circuit_dictionaries", ROOT / "analysis" / "circuit_dictionaries.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["circuit_dictionaries"] = module
    spec.loader.exec_module(module)
    return module


SMALL = {"m": 8, "d": 60, "depth": 2, "methods": ("neurons", "topk(k=2,steps=20)", "transcoder(steps=20)"), "seeds": 2}


def test_measures_stores_and_writes_a_line_for_each_layer_and_dictionary(script, tmp_path):
    text = script.main(script.CircuitDictionaries(out=tmp_path, **SMALL))
    rows = [json.loads(line) for line in (tmp_path / "circuit_dictionaries.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    names = [line.split()[:2] for line in text.splitlines()[2:-1]]
    assert names == [[str(depth), method] for depth in (1, 2) for method in SMALL["methods"]]
    before = (tmp_path / "circuit_dictionaries.jsonl").read_bytes()
    assert script.main(script.CircuitDictionaries(out=tmp_path, **SMALL)) == text
    assert (tmp_path / "circuit_dictionaries.jsonl").read_bytes() == before
    for row in rows:
        for depth in (1, 2):
            neurons = row["scores"][f"{depth} neurons"]
            assert neurons["worst"] == neurons["clean"]  # nothing is replaced
            assert neurons["explained"] == 1
    with pytest.raises(InputError, match="at least two seeds"):
        script.main(script.CircuitDictionaries(out=tmp_path, **{**SMALL, "seeds": 1}))


def test_scores_of_a_layer_are_those_of_the_folded_network(script):
    """The second layer of two: its activations, what replaces them and the last outputs, from the plain ReLU network."""
    method = "topk(k=2,steps=20)"
    row = script.measure({"m": 8, "d": 60, "depth": 2, "methods": [method, "transcoder(steps=20)"], "seed": 1})
    circuit = Circuit.random(8, 2, derive_seed(1, "task"))
    x = circuit.sample(1280, 3, derive_seed(1, "fit")).unique(dim=0)
    assert row["inputs"] == len(x) == 16  # 4 singles and 4 pairs of neighbouring doubles
    emulation = list(stages(circuit, 60, 3, derive_seed(1, "frozen layer"), correct=False))
    plain = fold(emulation)
    a = plain[1](plain[0](x))
    got = row["scores"][f"2 {method}"]
    assert got["clean"] == pytest.approx(errors_by_depth(circuit, emulation, x)[-1].worst, rel=1e-5)
    fitted = fit_dictionary(
        method, emulation[1].computing.layer(emulation[0].forward(x)), 16, derive_seed(1, "dictionary")
    )
    rebuilt, values = fitted(a), circuit.run(x)
    # Weights are multiplied in another order there, and errors are differences of larger numbers.
    assert got["worst"] == pytest.approx(float((plain[2](rebuilt) - values[1]).abs().max()), rel=1e-3)
    rest = float((a - rebuilt).square().sum() / (a - a.mean(0)).square().sum())
    assert got["explained"] == pytest.approx(1 - rest, rel=1e-3)
    z = fitted.encode(a).double().numpy()
    live = z[:, z.std(0) > 1e-9]
    table = np.abs(np.corrcoef(live.T, torch.cat(values, 1).double().numpy().T))[: live.shape[1], live.shape[1] :]
    for name, part in (("inputs", table[:, :8]), ("ands", table[:, 8:12]), ("others", table[:, 12:])):
        assert got[name] <= (np.nan_to_num(part).max(0) >= 0.9).mean() + 1e-9
    # A first layer that is replaced is followed by the second.
    one = fit_dictionary(method, plain[0](x), 16, derive_seed(1, "dictionary"))
    ends = emulation[1].forward(emulation[0].computing.readoff(one(plain[0](x))))
    assert row["scores"][f"1 {method}"]["worst"] == pytest.approx(float((ends - values[1]).abs().max()), rel=1e-4)


def test_what_the_page_says_stands_in_the_results():
    page = " ".join((ROOT / "docs/results/dictionaries.md").read_text().split())
    rows = [
        json.loads(line) for line in (ROOT / "analysis/results/circuit_dictionaries.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 3

    def means(method, name):
        return [float(np.mean([row["scores"][f"{depth} {method}"][name] for row in rows])) for depth in (1, 2, 3)]

    def span(values):
        return f"{100 * min(values):.0f} % to {100 * max(values):.0f} %"

    assert f"{span(means('l1(l1=0.1)', 'ands'))} of the ANDs. topk" in page
    assert f"nearly as much, {span(means('transcoder', 'ands'))} of the ANDs" in page
    assert means("saelens", "ands") == [1, 1, 1]
    assert means("saelens", "inputs") == [0.5, 0.5, 0.5]
    assert means("saelens", "worst") == pytest.approx(means("saelens", "clean"), abs=0.02)
    for method in ("l1(l1=0.1)", "transcoder", "saelens"):
        assert all(0.45 <= share <= 0.5 for share in means(method, "inputs"))  # "about half"
        assert means(method, "others") == [0, 0, 0]
    for method in ("topk", "batch_topk"):
        assert min(min(means(method, name)) for name in ("inputs", "ands", "others")) > 0.2
        assert means(method, "worst") == pytest.approx(means(method, "clean"), abs=0.001)
    assert min(means("neurons", "ands") + means("neurons", "others")) > 0.96
    assert sum(row["scores"]["1 neurons"]["clean"] > 0.5 for row in rows) == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"methods": ("nope",)}, "unknown sparse"),
        ({"methods": ()}, "is empty"),
        ({"m": 7}, "m even"),
        ({"d": 0}, "d = 0"),
    ],
)
def test_settings_without_a_table_are_refused(script, tmp_path, wrong, words):
    with pytest.raises(InputError, match=words):
        script.main(script.CircuitDictionaries(out=tmp_path, **{**SMALL, **wrong}))
    assert not list(tmp_path.iterdir())
