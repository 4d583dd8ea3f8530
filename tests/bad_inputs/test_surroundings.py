"""What surrounds a command: where files lie, what a script is like, what libraries say, and what a terminal does."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jaxtyping import config

from tests.bad_inputs.table import SMALL
from toymodels import InputError, Inputs, SparseFeatures, gaussian
from toymodels.cli import main
from toymodels.inputs.listed import read_inputs
from toymodels.parallel import processes
from toymodels.parallel.processes import check_guarded
from toymodels.parallel.terminal import visible
from toymodels.registry import data_file, load_plugins, version_of

LIST = "a,b,c,d,e,f\n1,0,0,0,0,0\n0,1,0,0,0,1\n"


@pytest.mark.parametrize("where", ["beside", "here", "both"])
def test_a_sweep_finds_a_list_of_inputs_beside_its_file_or_in_the_current_folder(where, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sweeps"
    folder.mkdir()
    for place in {"beside": [folder], "here": [tmp_path], "both": [folder, tmp_path]}[where]:
        (place / "in.csv").write_text(LIST)
    (folder / "s.yaml").write_text(SMALL + '  inputs: {value: "listed(file=in.csv)"}\n')
    assert main(["sweep", "sweeps/s.yaml", "--dry-run"]) == 0
    assert "1 runs of train" in capsys.readouterr().out


def test_workers_are_refused_where_a_cluster_has_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(SMALL)
    assert main(["sweep", "s.yaml", "--out", "o", "--scheduler", "tcp://127.0.0.1:1", "--workers", "3"]) == 2
    assert "workers = 3: a Dask cluster has its own number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "spec", "refused"),
    [
        ("run_sweep(config)\n", None, True),
        ('if __name__ == "__main__":\n    run_sweep(config)\n', None, False),
        ("run_sweep(config)\n", object(), False),  # python -m: its spec tells workers not to run it
    ],
)
def test_a_script_without_a_guard_is_refused_before_it_starts_workers(text, spec, refused, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(tmp_path / "mine.py"), __spec__=spec))
    monkeypatch.setattr(processes.multiprocessing.resource_tracker, "ensure_running", lambda: None)
    if refused:
        with pytest.raises(InputError, match="if __name__ == "):
            check_guarded()
    else:
        check_guarded()


def test_an_error_with_the_word_memory_is_not_a_lack_of_it():
    from toymodels.cli import _sentence

    assert _sentence(RuntimeError("unsupported memory format option Contiguous"), "") is None
    for text in ("CUDA out of memory. Tried", "DefaultCPUAllocator: can't allocate memory: you tried"):
        assert "not enough memory" in _sentence(RuntimeError(text), "")[0]


def test_no_name_steers_the_terminal():
    assert visible("a\x1b[31mb\x07\r\x9b2J−é\n\tc") == "a\\x1b[31mb\\x07\\x0d\\x9b2J−é\n\tc"


def test_lists_of_the_same_bytes_are_read_by_their_endings(tmp_path):
    for name in ("in.csv", "in.json"):
        (tmp_path / name).write_text("this test only")
    load_plugins([tmp_path / "in.csv", tmp_path / "in.json"])
    version = version_of(tmp_path / "in.json")
    assert data_file("in.json", version).suffix == ".json"
    with pytest.raises(InputError, match=r"in\.json"):
        read_inputs(data_file("in.json", version))


def test_whole_numbers_of_other_libraries_are_seeds(monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # the type checks that tests put around every function
    for seed in (np.int64(3), np.uint8(3), torch.tensor(3)):
        assert torch.equal(gaussian(6, 4, int(seed)).weight, gaussian(6, 4, seed).weight)
    features = SparseFeatures.at_most(6, np.int64(2))
    assert torch.equal(features.sampled(5, 3).indices, features.sampled(5, np.int32(3)).indices)


def test_inputs_that_a_model_has_made_are_inputs():
    x = torch.eye(6, requires_grad=True)
    assert len(Inputs.of(x)) == len(Inputs.of(x.detach().half())) == 6
