"""The checks of networks that others have shipped."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("shipped_code", ROOT / "analysis" / "shipped_code.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights(seed):
    generator = torch.Generator().manual_seed(seed)
    w_in = torch.rand(6, 12, generator=generator) * (torch.rand(6, 12, generator=generator) < 0.5)
    w_in[0] = 1
    return {"W_in": w_in, "W_out": torch.linalg.pinv(w_in).contiguous()}


def test_both_networks_are_measured(script, tmp_path):
    for seed, name in enumerate(script.NETWORKS):
        save_file(weights(seed), tmp_path / f"{name}.safetensors")
    script.main([str(tmp_path), "--out", str(tmp_path), "--inputs", "400"])
    rows = [json.loads(line) for line in (tmp_path / "shipped.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["n"], row["d"]) for row in rows] == [("L4", 12, 6), ("L2", 12, 6)]
    for seed, row in enumerate(rows):
        w_in = weights(seed)["W_in"].double().numpy()
        cosines = (w_in.T @ w_in) / np.outer(*2 * [np.linalg.norm(w_in, axis=0)])
        assert row["coherence"] == pytest.approx(np.abs(cosines - np.eye(12)).max(), abs=1e-6)
        assert row["cosine"] == pytest.approx(1, abs=1e-6)  # W_out is the pseudo-inverse
        assert (row["least_k"], row["most_k"]) == ((w_in > 0.05).sum(0).min(), (w_in > 0.05).sum(0).max())


@pytest.mark.parametrize("words", [["nowhere"], [".", "--inputs", "3"], ["."]])
def test_wrong_options_are_refused(script, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_file({"enc": torch.ones(2, 3)}, "l4.safetensors")
    save_file({"enc": torch.ones(2, 3)}, "l2.safetensors")
    with pytest.raises(SystemExit) as stop:
        script.main(words)
    assert stop.value.code == 2
    assert "error:" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.jsonl"))
