"""What goes wrong beside a computation does not cost its result: full disks, W&B, damaged files, files of other runs."""

import builtins
import errno
import functools
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from toymodels.cli import main
from toymodels.errors import InputError
from toymodels.experiments.registry import EXPERIMENTS, Result
from toymodels.experiments.train import TrainConfig, run_train
from toymodels.runs import tracking
from toymodels.runs.record import load_network
from toymodels.runs.storage import load_checkpoint, read_json, save_checkpoint, write_results
from toymodels.runs.table import read_table

TRAIN = ["train", "--m", "6", "--d", "5", "--steps", "10", "--threads", "1", "--checkpoint-seconds", "10000"]
"""No checkpoint depends on how long a busy machine takes: the numbers of writes are counted."""
COMPARE = ["compare", "--m", "6", "--d", "5", "--steps", "10", "--task", "and", "--layers", "gaussian", "trained",
           "--readoffs", "trained", "minimax", "--threads", "1", "--no-figures"]  # fmt: skip


def said(capsys):
    """The last line on standard error, without the progress bars."""
    return capsys.readouterr().err.rstrip("\n").rpartition("\n")[2].rpartition("\r")[2]


def numbers(run):
    return [{key: row[key] for key in row if key not in ("seconds", "run")} for row in read_table(run)]


class Filling:
    """A disk that is full from the n-th time on that a file is written, opened for writing, moved or made safe."""

    def __init__(self, monkeypatch, folder):
        self.calls, self.full = 0, 10**9
        self.folder = str(folder)
        monkeypatch.setattr("toymodels.experiments.build._LOOK_SECONDS", float("inf"))  # no writes that depend on time
        for owner, name in ((os, "fsync"), (os, "replace")):
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name)))
        opened = builtins.open

        def opening(path, mode="r", *arguments, **named):
            if isinstance(path, (str, Path)) and str(path).startswith(self.folder) and set(mode) & set("wa+"):
                return self.counted(opened)(path, mode, *arguments, **named)
            return opened(path, mode, *arguments, **named)

        monkeypatch.setattr(builtins, "open", opening)
        monkeypatch.setattr(io, "open", opening)  # of pathlib

    def counted(self, function):
        def call(*arguments, **named):
            self.calls += 1
            if self.calls >= self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*arguments, **named)

        return call


@functools.cache
def whole(words, folder):
    """The numbers of a command that is done in one go, and how often it writes."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk = Filling(monkeypatch, folder)
        assert main([*words, "--out", str(folder / "run")]) == 0
    return numbers(folder / "run"), disk.calls


@pytest.mark.parametrize("tenth", range(10))
@pytest.mark.parametrize("words", [TRAIN, pytest.param(COMPARE, marks=pytest.mark.long)], ids=["train", "compare"])
def test_a_disk_that_is_full_at_any_moment_is_one_sentence_and_the_same_command_goes_on(
    words, tenth, tmp_path, tmp_path_factory, monkeypatch, capsys
):
    expected, writes = whole(tuple(words), tmp_path_factory.getbasetemp() / words[0])
    command = [*words, "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        disk = Filling(patch, tmp_path)
        disk.full = 1 + tenth * (writes - 1) // 9
        assert main(command) == 1
        last = said(capsys)
    assert last.startswith(f"toymodels: {tmp_path}")
    assert "cannot be written (No space left on device): make room, and give the same command again" in last
    assert main(command) == 0
    assert numbers(tmp_path / "run") == expected


@pytest.mark.long
@pytest.mark.parametrize("size", [300, 1_000, 2_000, 3_000, 4_000, 6_000, 8_000, 9_000, 10_000, 11_000])
def test_a_file_that_may_not_grow_is_one_sentence(size, tmp_path):
    """With the system's own limit on the size of a file: real writes fail, those of torch and safetensors too."""
    command = [sys.executable, "-m", "toymodels", *COMPARE, "--checkpoint-seconds", "0", "--out", str(tmp_path / "run")]
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))}
    # Python 3.11 keeps bytecode that it could write only in part, and later imports fail.
    kept = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    stopped = subprocess.run(command, capture_output=True, text=True, env=kept, **limit, check=False)
    last = stopped.stderr.rstrip("\n").rpartition("\n")[2].rpartition("\r")[2]
    assert stopped.returncode == 1, stopped.stderr
    assert last.startswith(f"toymodels: {tmp_path}")
    assert "cannot be written (File too large): make room" in last
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("kilobytes", [4, 8, 16, 28, 40])
def test_a_small_disk(kilobytes, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        command = [sys.executable, "-m", "toymodels", *COMPARE, "--out", str(disk / "run")]
        stopped = subprocess.run(command, capture_output=True, text=True, check=False)
        last = stopped.stderr.rstrip("\n").rpartition("\n")[2].rpartition("\r")[2]
        assert stopped.returncode == 1, stopped.stderr
        assert last.startswith(f"toymodels: {disk}")
        assert "No space left on device" in last
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_what_libraries_write_can_be_read_by_whom_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        run_train(TrainConfig(m=6, d=5, steps=5, threads=1, out=tmp_path / "run"))
        save_checkpoint(tmp_path / "checkpoint.pt", {})
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert {"network.safetensors", "checkpoint.pt", "results.json"} <= modes.keys()
    assert set(modes.values()) == {0o640}


@pytest.mark.parametrize("name", ["config.json", "results.json", "network.safetensors", "checkpoint.pt"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(name, tmp_path, monkeypatch):
    run = run_train(TrainConfig(m=6, d=5, steps=5, threads=1, out=tmp_path / "run"))
    save_checkpoint(run / "seed-0" / "checkpoint.pt", {})
    (path,) = run.rglob(name)
    opened = io.open

    def opening(file, *arguments, **named):
        if str(file) == str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(file, *arguments, **named)

    monkeypatch.setattr(io, "open", opening)
    monkeypatch.setattr(builtins, "open", opening)
    read = {".safetensors": load_network, ".pt": load_checkpoint}.get(path.suffix, read_json)
    with pytest.raises(InputError) as refused:
        read(path)
    assert str(refused.value) == f"{path} cannot be read (Permission denied): ask its owner for permission (chmod)"


@pytest.fixture
def two(tmp_path, capsys):
    """Runs of AND and XOR, of which that of AND is not finished."""
    for task in ("and", "xor"):
        assert main([*TRAIN, "--task", task, "--out", str(tmp_path / task)]) == 0
    for path in (tmp_path / "and" / "results.json", tmp_path / "and" / "seed-0" / "result.json"):
        path.unlink()
    capsys.readouterr()
    return tmp_path


def with_header(source, target, **changes):
    with safe_open(str(source), "pt") as file:
        about = {**file.metadata(), **changes}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, str(target), {name: value for name, value in about.items() if value is not None})


@pytest.mark.parametrize("header", [{}, {"run": None}, {"run": None, "task": "and", "m": "7"}, {"run": "[" * 10**5}])
def test_a_network_of_another_run_is_refused(header, two, capsys):
    with_header(*(two / task / "seed-0" / "network.safetensors" for task in ("xor", "and")), **header)
    assert main([*TRAIN, "--task", "and", "--out", str(two / "and")]) == 2
    last = said(capsys)
    assert f"{two / 'and' / 'seed-0' / 'network.safetensors'} is" in last
    assert "a network of another run" in last or "is no network of a record" in last
    assert not (two / "and" / "results.json").exists()


def test_a_checkpoint_of_another_run_is_refused(tmp_path, monkeypatch, capsys):
    words = [*TRAIN, "--checkpoint-seconds", "0", "--steps", "40"]
    network = "seed-0/network.safetensors"
    with monkeypatch.context() as patch:  # stopped before the network is stored
        patch.setattr("toymodels.experiments.build.save_network", lambda *_: pytest.fail("stop"))
        for task in ("and", "xor"):
            with pytest.raises(pytest.fail.Exception):
                main([*words, "--task", task, "--out", str(tmp_path / task)])
    shutil.copy(tmp_path / "xor" / "seed-0" / "checkpoint.pt", tmp_path / "and" / "seed-0")
    capsys.readouterr()
    assert main([*words, "--task", "and", "--out", str(tmp_path / "and")]) == 2
    assert "checkpoint.pt is of another run (task is xor there and and here): delete it to start over" in said(capsys)
    assert not (tmp_path / "and" / network).exists()
    assert main([*words, "--task", "xor", "--out", str(tmp_path / "xor")]) == 0  # its own is taken


@pytest.mark.parametrize(
    "state", [torch.zeros(3), {"trainer": {"step": "1", "stage": 0, "seconds": 0.0}, "extra": {}}, []]
)
def test_a_checkpoint_that_is_none_is_one_sentence(state, two, capsys):
    (two / "and" / "seed-0" / "network.safetensors").unlink()
    torch.save(state, two / "and" / "seed-0" / "checkpoint.pt")
    assert main([*TRAIN, "--task", "and", "--out", str(two / "and")]) == 2
    assert re.search(
        r"the checkpoint .*checkpoint.pt (is of another run|cannot be read) \(.*delete it to start over", said(capsys)
    )


def test_a_row_of_another_run_is_refused(two, capsys):
    shutil.copy(two / "xor" / "seed-0" / "result.json", two / "and" / "seed-0")
    assert main([*TRAIN, "--task", "and", "--out", str(two / "and")]) == 2
    assert "result.json is of another run (task is xor there and and here)" in said(capsys)


@pytest.mark.parametrize("change", [{"evaluation": {}}, {"worst_error": -1.0}, {"rms": "small"}, {"of": []}])
def test_a_damaged_row_never_makes_a_finished_run(change, two, capsys):
    row = json.loads((two / "xor" / "seed-0" / "result.json").read_text())
    path = two / "xor" / "seed-0" / "result.json"
    path.write_text(json.dumps({**row, **change}))
    (two / "xor" / "results.json").unlink()
    assert main([*TRAIN, "--task", "xor", "--out", str(two / "xor")]) == 2
    assert f"{path} is damaged (" in said(capsys)
    assert not (two / "xor" / "results.json").exists()


def test_a_seed_that_is_moved_into_a_larger_run_is_taken(tmp_path):
    """The same training with one more seed."""
    run_train(TrainConfig(m=6, d=5, steps=5, threads=1, out=tmp_path / "one"))
    run_train(TrainConfig(m=6, d=5, steps=5, threads=1, seeds=(0, 1), out=tmp_path / "two"))
    shutil.copytree(tmp_path / "one" / "seed-0", tmp_path / "more" / "seed-0")
    shutil.copy(tmp_path / "two" / "config.json", tmp_path / "more")
    run_train(TrainConfig(m=6, d=5, steps=5, threads=1, seeds=(0, 1), out=tmp_path / "more"))
    assert numbers(tmp_path / "more") == numbers(tmp_path / "two")


def test_every_session_of_a_run_has_its_environment(two, monkeypatch):
    monkeypatch.setattr("toymodels.runs.record.commit", lambda: "another")
    sessions = read_json(two / "and" / "environment.json")
    assert [main([*TRAIN, "--task", task, "--out", str(two / task)]) for task in ("and", "xor")] == [0, 0]
    later = read_json(two / "and" / "environment.json")
    assert len(later) == 2
    assert later[0] == sessions[0]
    assert later[1]["commit"] == "another" != sessions[0]["commit"]
    assert len(read_json(two / "xor" / "environment.json")) == 1  # it was finished


def test_a_record_names_no_place_of_this_machine(tmp_path):
    plugin = tmp_path / "lab.py"
    plugin.write_text("")
    run_train(TrainConfig(m=6, d=5, steps=5, threads=1, plugin=(plugin,), out=tmp_path / "run"))
    plugin.unlink()
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "run").rglob("*.json"))
    assert main(["show", str(tmp_path / "run"), "--evaluate"]) == 0  # by the copy in the record


class Broken:
    """A run of W&B that fails at one of its calls."""

    def __init__(self, call):
        self.call, self.summary, self.calls = call, self, []
        self.starting_step, self.id = 0, "0000"

    def __getattr__(self, name):
        def call(*_, **__):
            self.calls.append(name)
            if name == self.call and (name != "log" or self.calls.count("log") > 2):
                raise ConnectionError("no network")

        return call


@pytest.mark.parametrize("call", ["log", "define_metric", "update", "finish"])
def test_wandb_that_fails_costs_a_sentence(call, tmp_path, monkeypatch, capsys):
    broken = Broken(call)
    fake = type(sys)("wandb")
    fake.init, fake.Settings, fake.Error = lambda **_: broken, dict, RuntimeError
    fake.Table = fake.Image = dict
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(tracking, "wandb_mode", lambda _: "offline")
    seeds = ["--seeds", "0", "1"] if call == "define_metric" else []
    assert main([*TRAIN, *seeds, "--out", str(tmp_path / "run")]) == 0
    text = capsys.readouterr()
    assert "ConnectionError: no network" in text.err
    assert "record: " in text.out
    assert len(read_table(tmp_path / "run")) == 1 + bool(seeds)


def test_a_number_that_is_not_finite_is_an_empty_cell(tmp_path, capsys):
    write_results(tmp_path / "r.json", {"rows": [{"rms": float("inf"), "worst_error": torch.tensor(0.5)}]})
    assert read_json(tmp_path / "r.json") == {"rows": [{"rms": None, "worst_error": 0.5}]}
    assert "r.json has 1 empty cells" in said(capsys)


def test_an_experiment_of_few_columns_has_a_table(tmp_path, monkeypatch, capsys):
    """Neither its outputs nor its inputs need a column."""
    train = EXPERIMENTS["train"]
    monkeypatch.setattr(
        type(train),
        "function",
        property(lambda self: lambda *_: Result([{"seed": 0, "worst_error": 0.5}])),
        raising=False,
    )
    assert main([*TRAIN, "--out", str(tmp_path / "run")]) == 0
    assert "0.5000" in capsys.readouterr().out
    assert main(["results", str(tmp_path)]) == 0
