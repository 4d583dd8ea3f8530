import json
import os

import pytest
import torch

from tests.members import own
from toymodels.core.layers import LAYERS, IdentityLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask
from toymodels.core.training import Progress
from toymodels.errors import InputError
from toymodels.experiments.train import TrainConfig
from toymodels.layers.random import gaussian
from toymodels.runs.record import (
    Metrics,
    begin_session,
    commit,
    load_config,
    load_network,
    locked,
    open_record,
    read_metrics,
    read_sessions,
    save_network,
)
from toymodels.runs.storage import write_atomically

TASK = PairTask(6, "xor", [(0, 5), (4, 2)])


def readoff(width):
    return LinearReadoff(torch.randn(2, width, dtype=torch.float64), torch.randn(2, dtype=torch.float64))


@pytest.mark.parametrize("layer", [gaussian(6, 4, 0, "gelu", scale=2.0, bias=0.5), IdentityLayer(6)])
def test_a_network_comes_back_whole(layer, tmp_path):
    network = Network(layer, readoff(4 if layer.origin == "gaussian" else 6))
    save_network(tmp_path / "n.safetensors", network, TASK, {"note": torch.tensor([1, 2])})
    again, task, extra = load_network(tmp_path / "n.safetensors")
    x = torch.rand(3, 6)
    assert torch.equal(network(x), again(x))
    assert task.pairs.tolist() == TASK.pairs.tolist()
    assert (task.gate, extra["note"].tolist()) == (TASK.gate, [1, 2])
    assert (again.layer.origin, getattr(again.layer, "scale", None)) == (layer.origin, getattr(layer, "scale", None))


class Cosine(torch.nn.Module):
    origin = "cosine"

    def __init__(self, m, d, seed, activation="relu"):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(d, m, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x):
        return torch.cos(x @ self.weight.T)


def test_a_layer_of_ones_own_is_rebuilt_by_its_name(tmp_path, monkeypatch):
    network = Network(Cosine(6, 4, 3), readoff(4))
    save_network(tmp_path / "n.safetensors", network, TASK)
    with pytest.raises(InputError, match=r"a layer Cosine of the name 'cosine', .* name the plugin"):
        load_network(tmp_path / "n.safetensors")
    own(monkeypatch, LAYERS)("cosine")(Cosine)
    x = torch.rand(3, 6)
    assert torch.equal(load_network(tmp_path / "n.safetensors")[0](x), network(x))


def test_damaged_missing_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "n.safetensors"
    with pytest.raises(InputError, match="is missing"):
        load_network(path)
    save_network(path, Network(gaussian(6, 4, 0), readoff(4)), TASK)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="truncated or damaged"):
        load_network(path)


def test_a_folder_belongs_to_one_configuration(tmp_path):
    config = TrainConfig(m=6, d=4)
    folder = open_record("train", config, tmp_path / "run")
    assert open_record("train", TrainConfig(m=6, d=4, threads=2), folder) == folder  # threads change no result
    with pytest.raises(InputError, match="d is 4 there and 5 here"):
        open_record("train", TrainConfig(m=6, d=5), folder)
    with pytest.raises(InputError, match="a train, not a compare"):
        open_record("compare", config, folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("dear")
    with pytest.raises(InputError, match="holds no run"):
        open_record("train", config, tmp_path / "other")
    with pytest.raises(InputError, match="is a file"):
        open_record("train", config, tmp_path / "other" / "thesis.tex")
    assert sorted(p.name for p in (tmp_path / "other").iterdir()) == ["thesis.tex"]


@pytest.mark.parametrize("moment", range(6))
def test_a_process_killed_while_it_makes_its_folder_is_in_nobodys_way(moment, tmp_path):
    """At every change that it makes to the disk: before and after a file is written beside its place, and moved there."""
    child = os.fork()
    if child == 0:
        left = iter(range(moment))

        def killable(function):
            def call(*arguments, **more):
                if next(left, None) is None:
                    os._exit(9)  # no clean-up, as after kill -9
                return function(*arguments, **more)

            return call

        os.replace, os.fsync = killable(os.replace), killable(os.fsync)
        begin_session(open_record("train", TrainConfig(m=6, d=4), tmp_path / "run"))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (9 if moment < 4 else 0)  # two files, two calls each
    folder = open_record("train", TrainConfig(m=6, d=4), tmp_path / "run")
    begin_session(folder)
    assert load_config(folder).config["d"] == 4
    assert len(read_sessions(folder / "environment.json")) == (1 if moment < 4 else 2)


def test_records_truncated_or_of_another_version_are_refused(tmp_path):
    folder = open_record("train", TrainConfig(m=6, d=4), tmp_path / "run")
    path = folder / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(InputError, match="format 99"):
        load_config(folder)
    path.write_text(json.dumps(content)[:40])
    with pytest.raises(InputError, match="truncated or damaged"):
        load_config(folder)
    with pytest.raises(InputError, match="is missing"):
        load_config(tmp_path / "nowhere")


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_metrics_forget_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"

    def line(step):
        return Progress(step, 2.0, 0.5, 0.5, 0.1)

    first = Metrics(path)
    first.add(line(1))
    kept = first.flush()
    first.add(line(2))
    first.flush()
    second = Metrics(path)
    second.restore(kept)
    second.add(line(3))
    second.flush()
    assert [m["step"] for m in read_metrics(path)] == [1, 3]
    path.write_text(path.read_text() + '{"step": 4, "lo')
    assert [m["step"] for m in read_metrics(path)] == [1, 3]


def test_two_processes_do_not_share_a_folder(tmp_path):
    with locked(tmp_path), pytest.raises(InputError, match="another process is at work"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert commit() is None


@pytest.mark.parametrize("content", ["null", "[]", "{}", '{"format": 1}', '{"format": 1, "kind": "train"}'])
def test_a_configuration_that_is_json_but_no_configuration_is_refused(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match="damaged"):
        load_config(tmp_path)


def test_metrics_that_are_no_metrics_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "p": 2, "loss": 1, "worst_error": 1}\n{}\n')
    assert len(list(read_metrics(path))) == 1
    path.write_bytes(b"\xff\xfe\x00")
    assert list(read_metrics(path)) == []
