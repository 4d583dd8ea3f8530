"""The command line as a person meets it."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from toymodels.cli import main
from toymodels.parallel import processes, stopping
from toymodels.runs.storage import read_json

SMALL = ["--m", "10", "--d", "16", "--steps", "60"]
TWO_SEEDS = ["--seeds", "0", "1", "--minimax-pairs", "12"]

BAD = [
    (["train", "--m", "4", "--s", "5"], "from 1 to m = 4"),
    (["train", "--m", "1"], "at least 2"),
    (["train", "--d", "0"], "at least 1"),
    (["train", "--p", "0.5"], "exponent of the loss"),
    (["train", "--inputs", "independent", "--s", "50"], "strictly between 0 and m = 50"),
    (["train", "--inputs", "independent", "--s", "-1"], "strictly between 0 and m = 50"),
    (["train", "--task", "nope"], "unknown task 'nope': choose one of and, xor"),
    (["train", "--task", "0123"], "unknown task '0123'"),
    (["compare", "--task", "and", "nope"], "unknown task 'nope'"),
    (["train", "--activation", "swish"], "unknown activation 'swish'"),
    (["train", "--optimiser", "sgd"], "unknown optimiser 'sgd'"),
    (["train", "--neurons", "3"], "--neurons"),
    (["train", "--m", "many"], "many"),
    (["train", "--weight", "0"], "positive number"),
    (["train", "--weight", "-2"], "positive number"),
    (["train", "--pairs", "0", "50"], "out of range"),
    (["train", "--pairs", "3", "3"], "k = l"),
    (["train", "--device", "cuda:99"], "is not there"),
    (["train", "--m", "200", "--s", "5", "--optimiser", "lbfgs"], "inputs, more than the limit of 3,000,000"),
    (["compare", "--m", "400", "--s", "3", "--inputs", "exactly"], "make 10,586,800, more than 3,000,000"),
    (["compare", "--readoffs", "psychic"], "unknown readoff 'psychic'"),
    (["train", "--s", "inf"], "must be a finite number"),
    (["train", "--s", "nan"], "must be a finite number"),
    (["train", "--m", "3000", "--s", "1500", "--pairs", "0", "1", "--optimiser", "lbfgs"], "about 10^"),
    (["train", "--device", "meta"], "neither cpu nor cuda"),
    (["train", "--lr", "1e300"], "1000 at most"),
    (["train", "--layer-scale", "1e300"], "from 1e-6 to 1e6"),
    (["train", "--p", "1e8"], "from 1 to 1,000"),
    (["compare", "--json", "."], "cannot be written"),
    (["compare", "--activation", "tanh", "--readoffs", "analytic"], "name another readoff"),
    (["compare", "--frozen-layer", "identity"], "name a random layer"),
    (["train", "--out", "/dev/null/run"], "cannot be written"),
    (["nonsense"], "unknown command 'nonsense': choose one of compare, train, dictionary, show"),
    (["train", "--layer-p"], "--layer-p has no value"),
    (["train", "--plugin"], "--plugin names no file"),
    (["show", "nowhere"], "is missing"),
]


@pytest.fixture(scope="module", autouse=True)
def one_core():
    """Let this process see a single core: others take longer to start than these runs do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "cores", lambda: 1)
        yield


@pytest.mark.parametrize(
    ("arguments", "words"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_sentence_status_2_and_nothing_written(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    said = [line for line in captured.err.splitlines() if not line.endswith("at work …")]  # on a busy machine
    assert len(said) == 1
    assert words in said[0]
    assert list(tmp_path.iterdir()) == []


def test_a_signal_of_an_earlier_command_is_forgotten(monkeypatch, capsys):
    monkeypatch.setattr(stopping, "_received", signal.SIGINT)
    assert main(["unknown"]) == 2
    assert "unknown command" in capsys.readouterr().err


def test_no_command_at_all_prints_what_there_is(capsys):
    assert main([]) == 2
    nothing = capsys.readouterr()
    assert nothing.out == ""
    assert main(["--help"]) == 0
    asked = capsys.readouterr()
    assert asked.err == ""
    assert asked.out == nothing.err
    for word in ("compare", "train", "show", "sweep", "results", "--plugin FILE.py"):
        assert word in asked.out


def test_a_wandb_mode_that_is_none_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "foo")
    assert main(["train", *SMALL]) == 2
    assert "WANDB_MODE is 'foo'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{}", "null", "[]", '{"seeds": [{}]}'])
def test_results_that_are_json_but_no_results_are_said(content, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", *SMALL, "--out", str(run)]) == 0
    (run / "results.json").write_text(content)
    capsys.readouterr()
    assert main(["show", str(run)]) == 2
    assert "damaged" in capsys.readouterr().err


def test_a_checkpoint_of_another_run_is_said(tmp_path, capsys):
    from toymodels.runs.storage import save_checkpoint

    run = tmp_path / "run"
    save_checkpoint(tmp_path / "c.pt", {"trainer": {}, "extra": {}})
    assert main(["train", *SMALL, "--out", str(run)]) == 0
    for path in (run / "results.json", run / "seed-0" / "result.json", run / "seed-0" / "network.safetensors"):
        path.unlink()
    (tmp_path / "c.pt").rename(run / "seed-0" / "checkpoint.pt")
    assert main(["train", *SMALL, "--out", str(run)]) == 2
    assert "of another run" in capsys.readouterr().err


def test_a_folder_with_another_configuration_is_left_alone(tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", *SMALL, "--out", run]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["train", "--m", "10", "--d", "17", "--steps", "60", "--out", run]) == 2
    assert "d is 16 there and 17 here" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", ["results.json", "config.json", "version", "network"])
def test_damaged_records_and_other_versions_are_said(damage, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", *SMALL, "--out", str(run)]) == 0
    if damage == "version":
        content = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps({**content, "format": 0}))
    else:
        path = run / "seed-0" / "network.safetensors" if damage == "network" else run / damage
        path.write_bytes(path.read_bytes()[:-9])
    capsys.readouterr()
    assert main(["show", str(run), "--evaluate"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert ("format 0" in error) if damage == "version" else ("truncated or damaged" in error)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    words = ["compare", *SMALL, *TWO_SEEDS, "--json", str(folder / "all.json"), "--out", str(folder / "run")]
    assert main(words) == 0
    return folder


def test_compare_has_every_row_and_names_its_errors(comparison):
    content = json.loads((comparison / "all.json").read_text())
    expected = [
        ("identity", "constant"), ("identity", "minimax"), ("gaussian", "analytic"), ("gaussian", "least_squares"),
        ("gaussian", "balanced"), ("gaussian", "trained"), ("gaussian", "minimax"), ("trained", "trained"),
        ("trained", "minimax"),
    ]  # fmt: skip
    for task, floor in (("and", 0.25), ("xor", 0.5)):
        by_seed = [
            {(r["first_layer"], r["readoff"]): r for r in content["rows"] if (r["task"], r["seed"]) == (task, seed)}
            for seed in (0, 1)
        ]
        for rows in by_seed:
            assert list(rows) == expected
            for row in rows.values():
                assert {"worst_error", "rms_ones", "rms_zeros", "within_quarter", "n_pairs", "seconds"} <= row.keys()
                assert row["covered"] == "all 56"
            # Computed by the linear program, not printed: it agrees with |δ|/4 to rounding, and is not that very number.
            assert rows["identity", "minimax"]["worst_error"] == pytest.approx(floor, abs=1e-7)
            assert rows["identity", "constant"]["worst_error"] == 0.5
            for layer in ("gaussian", "trained"):
                assert rows[layer, "minimax"]["proved"]
                assert rows[layer, "minimax"]["worst_error"] <= rows[layer, "trained"]["worst_error"] + 1e-6
        answer = content["genericity"][task]
        ratios = [
            rows["gaussian", "minimax"]["worst_error"] / rows["trained", "minimax"]["worst_error"] for rows in by_seed
        ]
        assert answer["ratio_by_seed"] == pytest.approx(ratios)
        assert answer["pair_ratio_min"] <= answer["pair_ratio_mean"] <= answer["pair_ratio_max"]
        assert (comparison / "run" / f"histogram-{task}.png").stat().st_size > 10_000
        assert (comparison / "run" / f"histogram-{task}.pdf").exists()


def test_every_epsilon_is_proved_by_three_lines_of_numpy(comparison):
    """From the stored files alone: weights, multipliers, and the inputs with at most 2 of 10 active."""
    from itertools import combinations

    inputs = [(), *combinations(range(10), 1), *combinations(range(10), 2)]
    x = np.array([[float(i in active) for i in range(10)] for active in inputs])
    for path in sorted((comparison / "run").rglob("*-minimax.safetensors")):
        file = load_file(path)
        row = read_json(path.with_suffix(".json"))
        a = (
            x
            if row["first_layer"] == "identity"
            else np.maximum(x @ file["layer.weight"].T.astype(float) + file["layer.bias"], 0)
        )
        offsets = file["extra.certificate_offsets"]
        for i, (k, l) in enumerate(file["task.pairs"]):
            mine = slice(offsets[i], offsets[i + 1])
            rows, mu = file["extra.certificate_rows"][mine], file["extra.certificate_multipliers"][mine]
            f = x[:, k] * x[:, l] if row["task"] == "and" else (x[:, k] != x[:, l]).astype(float)
            assert abs(np.abs(mu).sum() - 1) < 1e-9
            assert max(np.abs(mu @ a[rows]).max(), abs(mu.sum())) < 1e-9
            assert abs(mu @ f[rows] - row["evaluation"]["output_worst"][i]) < 1e-6


def test_show_repeats_the_evaluation_from_the_record_alone(comparison, capsys):
    assert main(["show", str(comparison / "run"), "--evaluate"]) == 0
    text = capsys.readouterr().out
    assert "Genericity of U-AND" in text
    assert "Genericity of U-XOR" in text
    assert text.count("identical") == 2 * 2 * 9
    assert "differs" not in text


def test_a_finished_comparison_is_not_repeated(comparison, capsys):
    before = (comparison / "run" / "and-seed-0" / "trained-minimax.json").stat().st_mtime_ns
    assert (
        main(["compare", *SMALL, *TWO_SEEDS, "--threads", "1", "--no-figures", "--out", str(comparison / "run")]) == 0
    )
    assert (comparison / "run" / "and-seed-0" / "trained-minimax.json").stat().st_mtime_ns == before
    assert "Genericity" in capsys.readouterr().out


STOPPED = """
import sys, time
from pathlib import Path
from toymodels.cli import main
from toymodels.core.training import Trainer

advance = Trainer.advance_by

def slow(trainer, most):
    if list(Path(sys.argv[-1]).rglob("checkpoint.pt")):  # time enough to be stopped
        time.sleep(0.2)
    return advance(trainer, 1)

Trainer.advance_by = slow
if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
"""
"""The command line, which slows down once there is a checkpoint."""


def training(optimiser, folder):
    return [
        "train", "--m", "10", "--d", "12", "--optimiser", optimiser, "--steps", "200", "--threads", "1",
        "--checkpoint-seconds", "0.01", "--out", str(folder),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("optimiser", "how"),
    [
        ("kfac", signal.SIGKILL),
        ("adam", signal.SIGINT),
        pytest.param("kfac", signal.SIGINT, marks=pytest.mark.long),
        pytest.param("adam", signal.SIGKILL, marks=pytest.mark.long),
    ],
)
def test_a_run_stopped_or_killed_goes_on_to_the_same_weights(optimiser, how, tmp_path, capsys):
    command = [sys.executable, "-c", STOPPED, *training(optimiser, tmp_path / "stopped")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "stopped" / "seed-0" / "checkpoint.pt"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(how)
    _, error = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130), error
    if how == signal.SIGINT:
        assert re.search(r"toymodels: stopped after step \d+ of 200; the same command goes on from there\n$", error)
    assert checkpoint.exists()
    assert main(["show", str(tmp_path / "stopped")]) == 0
    assert "not finished" in capsys.readouterr().out
    for folder in ("stopped", "whole"):
        assert main(training(optimiser, tmp_path / folder)) == 0
    stopped, whole = (
        load_file(tmp_path / folder / "seed-0" / "network.safetensors") for folder in ("stopped", "whole")
    )
    for name in whole:
        if name != "extra.seconds":
            assert np.array_equal(stopped[name], whole[name]), name
    steps_seen = [
        [json.loads(line)["step"] for line in (tmp_path / f / "seed-0" / "metrics.jsonl").read_text().splitlines()]
        for f in ("stopped", "whole")
    ]
    assert steps_seen[0] == steps_seen[1]


IMPORTS = """
import sys

def absent(*names):
    loaded = set(names) & set(sys.modules)
    assert not loaded, f"{loaded} imported"

import toymodels
absent("torch", "numpy", "wandb", "matplotlib")
from toymodels.cli import main
assert main(["--help"]) == 0
absent("torch", "numpy", "scipy", "wandb", "matplotlib")
toymodels.Network
assert "torch" in sys.modules
assert main(sys.argv[1:]) == 0
absent("wandb", "matplotlib", "optuna", "distributed", "submitit", "pandas")
"""


def test_nothing_heavy_is_imported_before_it_is_wanted(tmp_path):
    """The package alone, its help, and a training without a mirror or a figure."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    command = [sys.executable, "-c", IMPORTS, "train", *SMALL, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.long  # tests/sweeps/test_wandb.py sends such a run to a server
def test_an_offline_mirror_holds_configuration_and_history(tmp_path):
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    command = [sys.executable, "-m", "toymodels", "train", *SMALL, "--out", str(tmp_path / "run")]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    files = list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 1
    content = files[0].read_bytes()
    for word in (b"worst_error", b"loss", b"activation"):
        assert word in content


def test_the_switch(monkeypatch):
    from toymodels.runs.tracking import wandb_mode

    for name in ("WANDB_MODE", "WANDB_SWEEP_ID"):
        monkeypatch.delenv(name, raising=False)
    assert wandb_mode(None) == "disabled"
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert wandb_mode(None) == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_mode(None) == "offline"
    assert wandb_mode("disabled") == "disabled"


def test_help_says_units_and_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in ("--m", "--seeds", "--json", "default: 50", "probability", "neurons"):
        assert word in text
