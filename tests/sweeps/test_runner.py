"""Sweeps as they meet the world: killed, shared, failing, out of space, and stopped early."""

import errno
import json
import os
import re
import signal
import time

import pytest

from tests.members import own
from tests.sweeps.toy import (
    COMMAND,
    FOLLOW,
    GRID,
    PARAMETERS,
    Here,
    finish,
    follow_environment,
    processes,
    start,
    table,
    trainings,
    write,
)
from toymodels import registry
from toymodels.cli import main
from toymodels.core.layers import LAYERS
from toymodels.errors import InputError
from toymodels.experiments import build
from toymodels.experiments.train import TrainConfig
from toymodels.parallel import processes as jobs
from toymodels.runs import storage
from toymodels.runs.identity import from_dict
from toymodels.runs.storage import read_json
from toymodels.runs.table import read_table
from toymodels.sweeps import runner
from toymodels.sweeps import suggestions as suggestions_module
from toymodels.sweeps.plan import Plan, read_plan
from toymodels.sweeps.runner import SweepConfig, run_sweep
from toymodels.sweeps.suggestions import Suggestions

LONG = GRID.replace("steps: {value: 8}", "steps: {value: 100}\n  checkpoint_seconds: {value: 0.02}").replace(
    "[3, 4, 5, 6]", "[3, 4, 5, 6, 7, 8, 9, 10]"
)
"""Eight runs of a fraction of a second, which write checkpoints all the time."""
SECONDS = 180
"""After which a command hangs."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The table of LONG, done in one go and without checkpoints."""
    folder = tmp_path_factory.mktemp("whole")
    text = LONG.replace("  checkpoint_seconds: {value: 0.02}\n", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "_alone", False)
        patch.setattr(runner, "open_backend", lambda *_: Here())
        run_sweep(SweepConfig(write(folder, text), folder / "sweep"))
    return table(folder / "sweep")


def finished(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("sweep/runs/*/results.json")}


def stop_after(folder, runs, how, whom):
    """Start the sweep and end it when so many runs are finished and one is at work; returns (process, what it said)."""
    process = start(folder, "sweep", folder / "toy.yaml", "--out", folder / "sweep", "--workers", 1)
    deadline = time.monotonic() + SECONDS
    while len(finished(folder)) < runs or not list(folder.glob("sweep/runs/*/seed-0/checkpoint.pt")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    {"group": os.killpg, "parent": os.kill}[whom](process.pid, how)
    said = finish(process)
    while processes(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes(folder) == []
    return process, said


@pytest.mark.parametrize(
    "ends",
    [
        [("group", signal.SIGKILL), ("parent", signal.SIGINT)],
        pytest.param([("parent", signal.SIGKILL), ("group", signal.SIGINT)], marks=pytest.mark.long),
    ],
)
def test_a_sweep_that_is_killed_and_stopped_again_ends_as_one_that_is_not(ends, tmp_path, whole, here, capsys):
    """Nothing is done twice: files of finished runs keep their times, and the table is that of one go."""
    path = write(tmp_path, LONG)
    before = {}
    for number, (whom, how) in enumerate(ends, 1):
        process, said = stop_after(tmp_path, len(before) + 1, how, whom)
        if how == signal.SIGINT:
            assert process.returncode == 130
            sentence = said.splitlines()[-1]
            assert re.fullmatch(
                r"toymodels: stopped with \d+ runs finished; the same command goes on from there", sentence
            )
            assert "Traceback" not in said
        else:
            assert process.returncode == -signal.SIGKILL
        now = finished(tmp_path)
        assert len(before) < len(now) < 8, number
        assert now.items() >= before.items()
        before = now
    assert main(["sweep", str(path), "--out", str(tmp_path / "sweep")]) == 0
    assert "8/8" in capsys.readouterr().err
    assert len(here.handed_over) == 8 - len(before)
    assert finished(tmp_path).items() >= before.items()
    assert table(tmp_path / "sweep") == whole


def test_two_runners_share_a_sweep(tmp_path, whole, here, capsys, monkeypatch):
    """A command with a worker of its own, and this process."""
    monkeypatch.setattr(build, "train_network", build.train_network)
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    follow_environment()
    here._slots = 1
    arguments = ("sweep", str(write(tmp_path, LONG)), "--out", str(tmp_path / "sweep"))
    other = start(tmp_path, *arguments, "--workers", 1)
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert main(arguments) == 0
    said = [finish(other), capsys.readouterr().err]
    assert other.returncode == 0, said
    assert all("8/8" in text for text in said)
    assert list(trainings(tmp_path).values()) == [1] * 8
    workers = {line.split()[1] for line in (tmp_path / "log").read_text().splitlines()}
    assert len(workers) == 2  # both did some
    assert table(tmp_path / "sweep") == whole


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """Make a sweep's workers, and this process, do what variables say; returns the words of its command."""
    monkeypatch.setattr(build, "train_network", build.train_network)  # set by the plugin, and set back after the test
    for module in (build, runner):
        monkeypatch.setattr(module, "_LOOK_SECONDS", module._LOOK_SECONDS)
    monkeypatch.setattr(registry, "_plugins", {})
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))

    def command(text, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        plugin = write(tmp_path, FOLLOW, "follow.py")
        path = write(tmp_path, text)
        return ["sweep", str(path), "--out", str(tmp_path / "sweep"), "--workers", "2", "--plugin", str(plugin)]

    return command


def test_a_worker_that_is_killed_costs_its_own_run_alone(tmp_path, follow, monkeypatch, capfd):
    """d = 4 loses its process once and is done again; d = 5 loses it every time and fails; d = 3 loses nothing."""
    monkeypatch.setattr(runner, "_LOST", 2)
    assert main(follow(GRID.replace("[3, 4, 5, 6]", "[3, 4, 5]"), TOY_KILL_4=1, TOY_KILL_5=99)) == 1
    said = capfd.readouterr().err
    assert {name.split("-")[2]: times for name, times in trainings(tmp_path).items()} == {
        "d3": 1,
        "d4": 2,
        "d5": 2,
    }
    assert "run 1: its process was killed (out of memory?); it is done again" in said
    assert "its process was killed 2 times" in said
    assert [row["d"] for row in read_table(tmp_path / "sweep")] == [3, 4]
    assert "Traceback" not in said


# Failures

DIVERGES = f"""method: grid
{COMMAND}{PARAMETERS}  d: {{value: 4}}
  optimiser: {{value: adam}}
  root: {{value: false}}
  p: {{value: [32]}}
  lr: {{values: [0.001, 1000, 0.01]}}
"""


def test_a_failing_run_is_recorded_and_tried_again(tmp_path, here, capsys, monkeypatch):
    command = ["sweep", str(write(tmp_path, DIVERGES)), "--out", str(tmp_path / "s")]
    assert main(command) == 1
    said = capsys.readouterr()
    assert "run 1 failed: the loss is no longer finite" in said.err
    assert "failed=1" in said.err
    assert "3/3" in said.err
    assert "failed runs: 1" in said.out
    (record,) = (tmp_path / "s" / "failed").iterdir()
    assert "no longer finite" in read_json(record, ("reason", "config"))["reason"]
    assert read_json(record)["config"]["lr"] == 1000
    assert sorted(row["lr"] for row in read_table(tmp_path / "s")) == [0.001, 0.01]
    assert main(["results", str(tmp_path / "s")]) == 0
    assert "failed runs, not in the table: 1 " in capsys.readouterr().out
    here.handed_over.clear()
    assert main(command) == 1
    assert here.handed_over == [record.stem]

    from toymodels.core.training import Trainer

    monkeypatch.setattr(Trainer, "check_finite", lambda *_: None)  # as if a new version could do it
    monkeypatch.setattr("toymodels.core.evaluation.evaluate", lambda *_, **__: _Evaluation())
    assert main(command) == 0
    assert not record.exists()
    assert len(read_table(tmp_path / "s")) == 3


class _Evaluation:
    def to_dict(self):
        groups = {name: {"rms": 0.5, "share": 0.5} for name in ("ones", "zeros")}
        errors = {"worst_error": 0.5, "output_worst": [0.5], "rms": 0.5, "within": {"0.25": 0.0}}
        return {**errors, "groups": groups, "inputs": "all 16", "n_outputs": 10}


def test_what_only_the_run_can_know_does_not_stop_the_others(tmp_path, here):
    """A folder that holds something else, and an error of ours that nobody expected."""
    plan = read_plan(write(tmp_path, GRID), None, 0)
    name = plan.name({"m": 5, "steps": 8, "seeds": [0], "d": 4})
    (tmp_path / "s" / "runs" / name).mkdir(parents=True)
    (tmp_path / "s" / "runs" / name / "mine.txt").write_text("do not touch")

    def before(values):
        if values["d"] == 5:
            values["m"] = "five"

    here.before = before
    config = SweepConfig(tmp_path / "toy.yaml", tmp_path / "s")
    assert run_sweep(config)[1] == 2
    one, other = sorted(read_json(path)["reason"] for path in (tmp_path / "s" / "failed").iterdir())
    assert "m = 'five': it must be a whole number" in one
    assert "is not empty and holds no run" in other
    assert [row["d"] for row in read_table(tmp_path / "s")] == [3, 6]


@pytest.mark.parametrize("full", ["replace", "torch", "parent"])
def test_a_full_disk_is_one_sentence(full, tmp_path, here, capsys, monkeypatch):
    """As the system says it, as torch says it, and as the runner itself meets it; afterwards the sweep goes on."""
    command = ["sweep", str(write(tmp_path, GRID)), "--out", str(tmp_path / "s")]
    no_space = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fails(*_, error=no_space):
        raise error

    with monkeypatch.context() as patch:
        if full == "replace":

            def after_two(values):
                if values["d"] == 5:
                    patch.setattr(storage.os, "replace", fails)

            here.before = after_two
        elif full == "torch":
            patch.setattr(
                "toymodels.experiments.build.save_network", lambda *_: fails(error=RuntimeError("write failed"))
            )
            patch.setattr("toymodels.sweeps.work._free", lambda _: 0)
        else:
            patch.setattr(suggestions_module.os, "fsync", fails)
        assert main(command) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("toymodels: ")
    assert "the disk is full" in said or "No space left" in said
    assert here.interrupted
    assert here.closed
    assert not (tmp_path / "s" / "failed").exists()
    here.before = lambda values: None
    assert main(command) == 0
    assert len(read_table(tmp_path / "s")) == 4


DAMAGES = [
    ("results.json", '{"rows": [', "is truncated or damaged"),
    ("results.json", "{}", "is damaged"),
    ("suggestions.jsonl", '{"number": 0}\n', "is damaged"),
    ("suggestions.jsonl", "\x00\x00\n", "is damaged"),
    ("suggestions.jsonl", '{"number": 1, "config": {}}\n', "is damaged (runs are missing)"),
    ("suggestions.jsonl", '{"number": 0, "config": {"m": 5}}\n', "is of another sweep"),
    ("sweep.json", '{"format": 1', "is truncated or damaged"),
    ("sweep.json", "[]", "is truncated or damaged"),
]


@pytest.mark.parametrize(("name", "content", "words"), DAMAGES)
def test_a_damaged_record_is_one_sentence_and_what_it_says_helps(name, content, words, tmp_path, here, capsys):
    command = ["sweep", str(write(tmp_path, GRID)), "--out", str(tmp_path / "s")]
    assert main(command) == 0
    path = next((tmp_path / "s").rglob(name))
    path.write_text(content)
    here.handed_over.clear()
    capsys.readouterr()
    assert main(command) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("toymodels: ")
    assert words in said
    assert "delete" in said
    path.unlink()
    assert main(command) == 0
    assert len(here.handed_over) == (name == "results.json")
    assert len(read_table(tmp_path / "s")) == 4


def test_a_line_of_suggestions_that_a_kill_cut_off_is_written_anew(tmp_path, here):
    config = SweepConfig(write(tmp_path, GRID), tmp_path / "s")
    run_sweep(config)
    path = tmp_path / "s" / "suggestions.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    run_sweep(config)
    assert path.read_bytes() == content


def test_a_folder_of_something_else_is_left_alone(tmp_path, here, capsys):
    path = write(tmp_path, GRID)
    other = write(tmp_path, GRID.replace("[3, 4, 5, 6]", "[3, 4]"), "other.yaml")
    assert main(["sweep", str(path), "--out", str(tmp_path / "s")]) == 0
    before = sorted(tmp_path.rglob("*"))
    for file, out, words in (
        (other, "s", "holds another sweep"),
        (path, "s/runs", "is not empty and holds no sweep"),
        (path, "toy.yaml", "holds no sweep"),
    ):
        capsys.readouterr()
        assert main(["sweep", str(file), "--out", str(tmp_path / out)]) == 2
        assert words in capsys.readouterr().err
    assert main(["sweep", str(path), "--out", str(tmp_path / "s"), "--seed", "1"]) == 2
    assert sorted(tmp_path.rglob("*")) == before


# Files that are refused

RANDOM = GRID.replace("method: grid", "method: random\nrun_cap: 3")
BAYES = RANDOM.replace("random", "bayes").replace("parameters:", "metric: {name: worst_error}\nparameters:")
EARLY = RANDOM.replace(
    "parameters:", "metric: {name: worst_error}\nearly_terminate: {type: hyperband, min_iter: 1}\nparameters:"
)
COMPARE = GRID.replace('"train"', '"compare"')
BAD = [
    (GRID + "extra: 1\n", 8, "unknown key 'extra'"),
    (GRID.replace("[3, 4, 5, 6]", "[]"), 7, "values is empty"),
    (GRID.replace("{values: [3, 4, 5, 6]}", "{min: 0.5, max: 2.5}"), 7, "a grid cannot go through uniform"),
    (GRID.replace("  d:", "  activatoin:"), 7, "did you mean 'activation'?"),
    (GRID.replace("  d:", "  out:"), 7, "unknown parameter 'out'"),
    (GRID.replace("  d: {", "  d: {{"), 8, "not valid YAML"),
    (GRID.replace("m: {value: 5}", "m: {value: -3}"), 4, "run 0 cannot be made: m = -3"),
    (GRID + "  activation: {values: [relu, rellu]}\n", 8, "run 4 cannot be made: unknown activation 'rellu'"),
    (GRID + "  s: {values: [2, 6]}\n", 8, "from 1 to m = 5"),
    (GRID + "  lr: {value: fast}\n", 8, "lr = 'fast': it must be a number"),
    (RANDOM.replace("m: {value: 5}", "m: {min: -9, max: -3}"), 5, "run 0 cannot be made"),
    (GRID.replace(COMMAND, ""), 1, "does not say what to run: give command:"),
    (GRID.replace('"toymodels", "run"', '"python", "mine.py"'), 2, "has another command than `toymodels run`"),
    (GRID.replace('"train"', '"trian"'), 2, "unknown kind of run 'trian'"),
    (EARLY.replace('"train"', '"compare"'), 5, "early_terminate is for runs that train one network (train)"),
    (EARLY.replace("seeds: {value: [0]}", "seeds: {value: [0, 1]}"), 9, "early_terminate needs one seed a run"),
    (EARLY.replace("seeds: {value: [0]}", "seeds: {value: []}"), 9, "seeds is empty"),
    (EARLY.replace("worst_error", "rms_ones"), 4, "early_terminate goes by worst_error"),
    (RANDOM.replace("run_cap: 3\n", ""), 1, "random search has no end of its own: give --count"),
    (BAYES.replace("run_cap: 3\n", ""), 1, "bayes search has no end of its own: give --count"),
    (BAYES.replace("worst_error", "wurst_error"), 4, "no run has a metric 'wurst_error': did you mean 'worst_error'?"),
    (BAYES.replace('"train"', '"compare"'), 4, "no run has a metric 'worst_error'"),
    (COMPARE.replace("  d:", "  train_first:"), 7, "unknown parameter 'train_first'"),
    (COMPARE + "metric: {name: and/trained/least_squares.worst_error}\n", 8, "no run has a metric"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_a_file_that_cannot_be_run_is_refused_before_anything_is_written(
    text, line, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, text)
    assert main(["sweep", str(path)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"toymodels: {path}:{line}: ")
    assert words in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workers", "0"], "workers = 0: it must be at least 1"),
        (["--count", "0"], "count = 0"),
        (["--seed", "-1"], "seed = -1"),
        (["--scheduler", "local:1"], "unknown scheduler 'local:1'"),
        (["--wandb", "on"], "unknown wandb 'on'"),
        (["--wrokers", "2"], "wrokers"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_anything_is_written(
    arguments, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, GRID)
    assert main(["sweep", str(path), *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "metric", ["and/trained/minimax.worst_error", "genericity.xor", "xor/identity/constant.rms_ones"]
)
def test_every_figure_of_a_comparison_can_be_the_metric(metric, tmp_path, here):
    short = COMPARE.replace("[3, 4, 5, 6]", "[3]") + "  task: {value: [and, xor]}\n"
    path = write(tmp_path, short + f"metric: {{name: {metric}, target: 100}}\n")
    folder, failed = run_sweep(SweepConfig(path, tmp_path / "s"))
    assert failed == 0
    plan = read_plan(path, None, 0)
    (run,) = (folder / "runs").iterdir()
    result = plan.result(run)
    assert result is not None
    value = plan.metric(result)
    assert value is not None
    assert 0 < value < 100


# Searches


def configurations(folder):
    return [json.loads(text)["config"] for text in (folder / "suggestions.jsonl").read_text().splitlines()]


def test_a_random_search_is_the_same_wherever_it_was_stopped(tmp_path, here):
    text = RANDOM.replace("run_cap: 3\n", "") + "  lr: {distribution: log_uniform_values, min: 0.001, max: 0.1}\n"
    text += "  optimiser: {value: adam}\n"
    path = write(tmp_path, text)
    run_sweep(SweepConfig(path, tmp_path / "one", count=5, seed=3))
    for count in (2, 5):
        run_sweep(SweepConfig(path, tmp_path / "two", count=count, seed=3))
    assert len(configurations(tmp_path / "one")) == 5
    assert configurations(tmp_path / "one") == configurations(tmp_path / "two")
    assert table(tmp_path / "one") == table(tmp_path / "two")
    done = {(row["d"], row["lr"]) for row in read_table(tmp_path / "one")}
    assert done == {(c["d"], c["lr"]) for c in configurations(tmp_path / "one")}


SEARCH = BAYES.replace("run_cap: 3", "run_cap: 12").replace(
    "{values: [3, 4, 5, 6]}", "{value: 4}\n  layer_scale: {distribution: log_uniform_values, min: 0.01, max: 10}"
)


def test_a_bayes_search_is_the_same_wherever_it_was_stopped_and_learns(tmp_path, here):
    """12 runs: Optuna draws the first 10 at random, so that the last 2 depend on results."""
    here._slots = 1
    path = write(tmp_path, SEARCH)
    run_sweep(SweepConfig(path, tmp_path / "one"))
    for count in (11, 12):
        run_sweep(SweepConfig(path, tmp_path / "two", count=count))
    assert len(configurations(tmp_path / "one")) == 12
    assert configurations(tmp_path / "one") == configurations(tmp_path / "two")
    # With the goal turned round, the same first 10 lead elsewhere.
    other = write(tmp_path, SEARCH.replace("{name: worst_error}", "{name: worst_error, goal: maximize}"), "other.yaml")
    run_sweep(SweepConfig(other, tmp_path / "three"))
    assert configurations(tmp_path / "three")[:10] == configurations(tmp_path / "one")[:10]
    assert configurations(tmp_path / "three")[10:] != configurations(tmp_path / "one")[10:]


def test_a_bayes_search_learns_that_a_configuration_cannot_be(tmp_path, here):
    path = write(tmp_path, SEARCH.replace("run_cap: 12", "run_cap: 6") + "  s: {values: [2, 6]}\n")
    folder, failed = run_sweep(SweepConfig(path, tmp_path / "s"))
    impossible = [config["s"] for config in configurations(folder)].count(6)
    assert failed == impossible > 0
    assert len(read_table(folder)) == 6 - impossible
    assert all("m = 5" in read_json(path)["reason"] for path in (folder / "failed").iterdir())


def test_the_longest_runs_of_a_grid_come_first(tmp_path, here):
    path = write(tmp_path, GRID.replace("{value: 8}", "{values: [1, 4000]}"))
    plan = read_plan(path, None, 0)
    here._slots = 1
    suggestions = Suggestions(plan, tmp_path / "s", None, 0)
    ordered = runner._Runner(plan, suggestions, here, lambda: False)
    order = [run.config for run in ordered._in_order()]
    assert [config["steps"] for config in order] == 4 * [4000] + 4 * [1]
    assert [config["d"] for config in order] == [6, 5, 4, 3, 6, 5, 4, 3]
    assert [json.loads(line)["number"] for line in (tmp_path / "s" / "suggestions.jsonl").read_text().splitlines()] == [
        *range(8)
    ]


def test_a_target_ends_the_search(tmp_path, here, capsys):
    text = GRID.replace("{value: 8}", "{values: [1, 40]}") + "metric: {name: worst_error, target: 0.509}\n"
    path = write(tmp_path, text)
    here._slots = 1
    run_sweep(SweepConfig(path, tmp_path / "s"))
    reached = [row["worst_error"] <= 0.509 for row in read_table(tmp_path / "s")]
    assert reached.count(True) == 1
    assert len(reached) < 8
    assert f"{len(reached)}/{len(reached)}" in capsys.readouterr().err.split("\r")[-1]
    here.handed_over.clear()
    run_sweep(SweepConfig(path, tmp_path / "s"))
    assert here.handed_over == []


def test_the_same_configuration_twice_is_one_run(tmp_path, here, capsys):
    here._slots = 12
    path = write(tmp_path, RANDOM.replace("run_cap: 3", "run_cap: 12"))
    run_sweep(SweepConfig(path, tmp_path / "s"))
    assert sorted(row["d"] for row in read_table(tmp_path / "s")) == [3, 4, 5, 6]
    assert len(here.handed_over) == 4
    assert "12/12" in capsys.readouterr().err


def test_hyperband_stops_bad_runs_which_are_finished_runs(tmp_path, follow, capsys):
    """Two at a time: by step 60 a learning rate of 0.01 has halved the error, and one of 1e-6 has done nothing."""
    text = EARLY.replace("method: random\nrun_cap: 3", "method: grid").replace("min_iter: 1", "min_iter: 60")
    text = text.replace("{value: 8}", "{value: 20000}").replace("{values: [3, 4, 5, 6]}", "{value: 6}")
    text += "  optimiser: {value: adam}\n  batch: {value: all}\n  p: {value: [8]}\n  lr: {values: [0.01, 0.000001]}\n"
    assert main(follow(text, TOY_LOOK=0.02, TOY_MEET=2)) == 0
    assert "2/2" in capsys.readouterr().err
    good, bad = sorted(read_table(tmp_path / "sweep"), key=lambda row: -row["lr"])
    assert good["stopped_at"] is None
    assert 60 <= bad["stopped_at"] < 20000
    assert good["worst_error"] < bad["worst_error"]
    assert main(["results", str(tmp_path / "sweep")]) == 0
    assert "runs stopped early: 1" in capsys.readouterr().out


def test_runners_agree_on_suggestions_that_are_made_between_them(tmp_path):
    plan = read_plan(write(tmp_path, SEARCH), None, 0)
    one, two = (Suggestions(plan, tmp_path / "s", None, 0) for _ in range(2))
    mine = [one.run(0), two.run(1), one.run(2)]
    assert [two.run(0), one.run(1), two.run(2)] == mine
    assert one.run(12) is None


# What is seen


def test_the_bar_counts_found_runs_as_done_but_not_as_time(tmp_path, here, capsys, monkeypatch):
    path = write(tmp_path, GRID)
    run_sweep(SweepConfig(path, tmp_path / "s", count=3))
    assert "3/3" in capsys.readouterr().err
    monkeypatch.setattr(jobs, "_alone", False)  # runs in this process have made it one of many, which shows nothing
    run_sweep(SweepConfig(path, tmp_path / "s"))
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("toy: 4/4 runs, done in ")
    assert "failed=0, running=0" in last


def test_a_run_from_a_file(tmp_path, capsys):
    path = write(tmp_path, json.dumps({"m": 5, "d": 4, "steps": 8, "_wandb": {"x": 1}}), "args.json")
    assert main(["run", "train", str(path), "--out", str(tmp_path / "run")]) == 0
    assert read_json(tmp_path / "run" / "config.json")["config"]["d"] == 4
    for content, words in (
        ("[]", "holds no configuration"),
        ('{"mm": 5}', "unknown key 'mm'"),
        ("{", "args.json:1: not valid JSON"),
    ):
        path.write_text(content)
        assert main(["run", "train", str(path)]) == 2
        assert words in capsys.readouterr().err
    path.write_text("{}")
    assert main(["run", "trian", str(path)]) == 2
    assert "unknown kind of run 'trian'" in capsys.readouterr().err


def test_python_callers_get_the_same_refusals(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        run_sweep(SweepConfig(tmp_path / "absent.yaml"))


# Members of one's own

LAB = """
import torch
from toymodels.core.layers import LAYERS, FirstLayer

@LAYERS("odd", source="this test")
def odd(m: int, d: int, seed: int, *, shift: float = 1.0) -> FirstLayer:
    return FirstLayer(torch.randn(d, m, generator=torch.Generator().manual_seed(seed)), torch.full((d,), shift), "relu", "odd")
"""
PLUGIN = GRID.replace("[3, 4, 5, 6]", "[3, 4]").replace(
    "seeds: {value: [0]}", "seeds: {value: [0]}\n  layer: {value: odd}"
)


@pytest.fixture
def forgotten(monkeypatch):
    """No plugin is known, as in a new process: now, after the test, and each time it is called."""
    own(monkeypatch, LAYERS)
    before = dict(LAYERS._members)

    def forget():
        monkeypatch.setattr(registry, "_plugins", {})
        monkeypatch.setattr(LAYERS, "_members", dict(before))

    forget()
    return forget


@pytest.mark.parametrize("where", ["in the file", "on the command line"])
def test_a_sweep_over_a_layer_of_ones_own(where, tmp_path, here, forgotten, capsys):
    lab = write(tmp_path, LAB, "lab.py")
    text = PLUGIN + "  layer_shift: {values: [0.5, -1]}\n"
    command = ["sweep", str(write(tmp_path, text)), "--out", str(tmp_path / "s")]
    if where == "in the file":
        write(tmp_path, text + "  plugin: {value: [lab.py]}\n")
    else:
        command += ["--plugin", str(lab)]
    here.before = lambda values: forgotten()  # a worker knows only what its run names
    assert main(command) == 0
    assert sorted((row["d"], row["layer"], row["layer_shift"]) for row in read_table(tmp_path / "s")) == [
        (3, "odd", -1), (3, "odd", 0.5), (4, "odd", -1), (4, "odd", 0.5)
    ]  # fmt: skip
    for run in (tmp_path / "s" / "runs").iterdir():
        assert [path.read_text() for path in (run / "plugins").iterdir()] == [LAB]
    here.handed_over.clear()
    assert main(command) == 0
    assert here.handed_over == []
    lab.write_text(LAB + "# a comment\n")
    assert main(command) == 2
    assert "other code in its plugins" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "unknown first layer 'odd'"),
        ("  plugin: {value: {lab.py: 1}}\n", "plugin is {'lab.py': 1}: it must be a list of files, such as [mylab.py]"),
        ("  plugin: {value: [nowhere.py]}\n", "there is no file"),
        ("  plugin: {value: [toy.yaml]}\n", "is no Python file"),
        ("  plugin: {value: [broken.py]}\n", "ZeroDivisionError"),
        ("  plugin: {values: [[lab.py], [1]]}\n", "plugin is [1]"),
        ("  plugin: {value: [lab.py]}\n  layer_shif: {value: 1}\n", "did you mean 'layer_shift'?"),
    ],
)
def test_plugins_of_a_sweep_that_will_not_do_are_refused(line, words, tmp_path, forgotten, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, LAB, "lab.py")
    write(tmp_path, "1 / 0", "broken.py")
    path = write(tmp_path, PLUGIN + line)
    before = sorted(tmp_path.iterdir())
    assert main(["sweep", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"toymodels: {path}:")
    assert words in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_knobs_in_a_sweep(tmp_path, here):
    """One by its prefix, one in the layer's name; at its default it is no run of its own."""
    text = GRID.replace("[3, 4, 5, 6]", "[8]") + "  layer: {values: [bernoulli, bernoulli(p=0.25)]}\n"
    path = write(tmp_path, text + "  layer_p: {values: [0.5, best]}\n")
    folder, failed = run_sweep(SweepConfig(path, tmp_path / "s"))
    assert failed == 0
    rows = sorted((row["layer"], str(row["layer_p"])) for row in read_table(folder))
    assert rows == [
        ("bernoulli", "0.5"), ("bernoulli", "best"), ("bernoulli(p=0.25)", "0.25"), ("bernoulli(p=0.25)", "0.5")
    ]  # fmt: skip


def test_no_more_configurations_are_tried_out_than_there_will_be(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(Plan, "make", lambda plan, suggested: made.append(suggested) or from_dict(TrainConfig, {}))
    for text, count, number in ((RANDOM, None, 3), (BAYES, None, 3), (RANDOM, 2, 2), (GRID, None, 4)):
        made.clear()
        read_plan(write(tmp_path, text), count, 0)
        assert len(made) == number
