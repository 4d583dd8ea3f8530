"""W&B proper, against a server of our own: its sweep, its agent, offline runs and their upload."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeps.toy import COMMAND, PARAMETERS, ROOT, write
from tests.sweeps.wandb_stub import ENTITY, PROJECT, SWEEP, wandb_server
from toymodels.cli import main
from toymodels.runs.storage import read_json
from toymodels.sweeps.plan import read_plan

METRIC = "metric: {name: worst_error, goal: minimize}\n"
RUN = {"m": 5, "steps": 8, "seeds": [0], "d": 4}
SECONDS = 180
"""After which a command hangs."""


@pytest.fixture
def wandb(tmp_path):
    """(server that hands out RUN, function that runs a command in tmp_path as a person with a key would)."""
    mine = {key: text for key, text in os.environ.items() if "WANDB" not in key and "proxy" not in key.lower()}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with wandb_server([RUN]) as server:
        account = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "k" * 40, "HOME": str(tmp_path)}

        def run(*words, **more):
            own = {"PATH": programs, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            environment = {**mine, **account, **more, **own}
            done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS)
            assert done.returncode == 0, done.stderr
            return done.stderr

        yield server, run


def test_a_sweep_and_its_agent(wandb, tmp_path):
    """The file goes to the server as it is, the agent does the run that it is told, and curve and figures arrive."""
    server, run = wandb
    path = write(tmp_path, f"method: grid\n{COMMAND}{METRIC}{PARAMETERS}  d: {{values: [4]}}\n")
    assert "sweep with ID" in run("wandb", "sweep", "--entity", ENTITY, "--project", PROJECT, str(path))
    assert server.sweep["command"] == list(read_plan(path, None, 0).sweep.command)
    said = run("wandb", "agent", f"{ENTITY}/{PROJECT}/{SWEEP}")
    assert "Traceback" not in said
    assert "Ignoring project" not in said
    (sent,) = server.runs.values()
    check(sent, next((tmp_path / "runs").iterdir()))


def test_an_offline_run_keeps_its_sweep_until_it_is_sent(wandb, tmp_path):
    server, run = wandb
    write(tmp_path, json.dumps(RUN), "args.json")
    mode = {"WANDB_MODE": "offline", "WANDB_SWEEP_ID": SWEEP, "WANDB_RUN_ID": "later"}
    run("toymodels", "run", "train", "args.json", "--out", "run", **mode)
    assert server.runs == {}
    (stored,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    run("wandb", "sync", str(stored))
    assert list(server.runs) == ["later"]
    check(server.runs["later"], tmp_path / "run")


KILLED = """
import os, signal
from toymodels.__main__ import main
from toymodels.core.training import Trainer

advance = Trainer.advance_by

def deadly(trainer, most):
    if trainer.step == 4 and "KILL_ME" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return advance(trainer, 1)

Trainer.advance_by = deadly
raise SystemExit(main())
"""
"""The command line, which loses its process at step 4 if a variable says so."""


@pytest.mark.long
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_run_that_is_killed_and_continued_is_one_run(mode, wandb, tmp_path):
    """One id, and every step once; the same command once more sends nothing."""
    server, run = wandb
    script = write(tmp_path, KILLED, "killed.py")
    words = ["train", "--m", "5", "--d", "4", "--steps", "8", "--optimiser", "adam", "--checkpoint-seconds", "0"]
    command = [sys.executable, str(script), *words, "--out", "run", "--wandb", mode]
    with pytest.raises(AssertionError):
        run(*command, KILL_ME="1")
    assert (tmp_path / "run" / "seed-0" / "checkpoint.pt").exists()
    run(*command)
    run(*command)
    for stored in (tmp_path / "run" / "wandb").glob("offline-run-*"):
        run("wandb", "sync", str(stored))
    (sent,) = server.runs.values()
    steps = [line["_step"] for line in sent["history"] if "worst_error" in line]
    assert steps == list(range(1, 9))
    assert sum("results" in line for line in sent["history"]) == 1
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*"))) == (mode == "offline")


def check(sent, folder):
    """What the server was told against the record."""
    record = read_json(folder / "seed-0" / "result.json")
    metrics = [json.loads(text) for text in (folder / "seed-0" / "metrics.jsonl").read_text().splitlines()]
    assert sent["sweep"] == SWEEP
    assert {key: sent["config"][key] for key in RUN} == RUN
    lines = [line for line in sent["history"] if "worst_error" in line]
    assert [(line["_step"], line["worst_error"]) for line in lines] == [(m["step"], m["worst_error"]) for m in metrics]
    assert sent["summary"]["worst_error"] == record["evaluation"]["worst_error"]


def test_our_own_sweep_offline(tmp_path, monkeypatch, capfd):
    """Each run is mirrored into its own folder and names its sweep, and nothing of W&B's stands between the bar's lines.

    Of comparisons, whose rows do not all have the same columns.
    """
    for name in [name for name in os.environ if "WANDB" in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    command = COMMAND.replace("train", "compare")
    path = write(tmp_path, f"method: grid\n{command}{PARAMETERS}  d: {{values: [4]}}\n  task: {{value: [and]}}\n")
    assert main(["sweep", str(path), "--wandb", "offline", "--workers", "1"]) == 0
    said = capfd.readouterr().err
    assert "1/1" in said
    assert "wandb" not in said
    assert "step/s" not in said
    (stored,) = tmp_path.glob("runs/toy/runs/*/wandb/offline-run-*/run-*.wandb")
    content = stored.read_bytes()
    assert b"toy" in content
    assert b"and/trained/minimax" in content
    (table,) = tmp_path.glob("runs/toy/runs/*/wandb/offline-run-*/files/media/table/results_*.json")
    rows = read_json(table, ("columns", "data"))
    assert {"first_layer", "worst_error", "proved"} <= set(rows["columns"])
    assert len(rows["data"]) == 9
    assert all(len(row) == len(rows["columns"]) for row in rows["data"])
