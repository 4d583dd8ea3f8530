"""The list of runs below a folder: each with its state, chosen, sorted, and compared two by two."""

import json
import shutil

import pytest

from toymodels.cli import main
from toymodels.experiments.listing import Run, arrange, choose, compare, list_runs
from toymodels.experiments.train import TrainConfig, run_train
from toymodels.parallel import processes
from toymodels.runs.storage import read_json

SMALL = {"m": 5, "steps": 3, "threads": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep of two finished runs, one of which was stopped early, one unfinished and one failed; a damaged run beside it."""
    folder = tmp_path_factory.mktemp("all")
    runs = folder / "sweep" / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "cores", lambda: 1)  # others take longer to start than these runs do
        for name, d, seeds in (("narrow", 4, (0, 1)), ("wide", 20, (0, 1, 2))):
            run_train(TrainConfig(**SMALL, d=d, seeds=seeds, out=runs / name))
    shutil.copytree(runs / "narrow", runs / "early")
    content = read_json(runs / "early" / "results.json")
    content["rows"][0]["stopped_at"] = 2
    (runs / "early" / "results.json").write_text(json.dumps(content))
    for name, kept in (("open", runs), ("gone", runs), ("damaged", folder)):
        (kept / name).mkdir()
        shutil.copy(runs / "wide" / "config.json", kept / name)
    (folder / "damaged" / "results.json").write_text("{")
    (folder / "sweep" / "failed").mkdir()
    for name in ("gone", "number-7"):
        failure = {"reason": f"no memory for {name}\nsecond line", "config": {"m": 5, "d": 900}}
        (folder / "sweep" / "failed" / f"{name}.json").write_text(json.dumps(failure))
    (folder / "sweep" / "sweep.json").write_text(json.dumps({"kind": "train", "sweep": {"method": "random"}}))
    return folder


STATES = {
    "damaged": "unreadable",
    "sweep/failed/number-7": "failed",
    "sweep/runs/early": "stopped early",
    "sweep/runs/gone": "failed",
    "sweep/runs/narrow": "finished",
    "sweep/runs/open": "unfinished",
    "sweep/runs/wide": "finished",
}


def test_every_run_has_its_state(folder):
    assert {run.name: run.state for run in list_runs(folder)} == STATES
    (alone,) = list_runs(folder / "sweep" / "runs" / "wide")
    assert (alone.name, alone.settings["d"], alone.kind) == ("wide", 20, "train")


def test_the_list_in_words(folder, capsys):
    assert main(["runs", str(folder)]) == 0
    sweeps, table, notes = capsys.readouterr().out.split("\n\n")
    assert sweeps.splitlines()[2].split() == ["sweep", "train", "random", "2", "1", "1", "2", "0"]
    header = table.splitlines()[0].split()
    assert header[:8] == ["run", "kind", "state", "m", "d", "s", "task", "seeds"]
    assert "loss" not in header  # the same in all
    rows = read_json(folder / "sweep" / "runs" / "wide" / "results.json")["rows"]
    mean = sum(row["worst_error"] for row in rows) / 3
    line = next(line for line in table.splitlines() if "/wide" in line)
    assert line.split() == [
        "sweep/runs/wide", "train", "finished", "5", "20", "2", "and", "0,1,2", f"{mean:.4f}", "trained/trained",
    ]  # fmt: skip
    assert notes.splitlines()[0] == "7 runs: 2 finished, 1 stopped early, 1 unfinished, 2 failed, 1 unreadable"
    assert "sweep/runs/gone: no memory for gone\n" in notes
    assert "second line" not in notes
    assert "damaged: " in notes


def names(runs):
    return [run.name.rpartition("/")[2] for run in runs]


def test_runs_are_chosen_and_sorted(folder):
    runs = list_runs(folder)
    assert names(choose(runs, ["d=4"])) == ["early", "narrow"]
    assert names(choose(runs, ["d=4", "state=finished"])) == ["narrow"]
    assert names(choose(runs, ["seeds=2", "kind=train"])) == ["gone", "open", "wide"]
    assert names(choose(runs, ["seeds=[0, 1]", "task=and"])) == ["early", "narrow"]
    # Those without a value come last, whatever the direction; ties keep their order.
    assert names(arrange(runs, ["d"]))[:2] == ["early", "narrow"]
    assert names(arrange(runs, ["d"]))[-2:] == ["number-7", "damaged"]
    assert names(arrange(runs, ["d"], descending=True))[0] == "number-7"
    assert names(arrange(runs, ["d"], descending=True))[-1] == "damaged"
    errors = [run.best[0] for run in arrange(runs, ["worst_error"], descending=True)][:3]
    assert errors == sorted(errors, reverse=True)
    assert names(arrange(runs, ["state", "d"]))[:4] == ["gone", "number-7", "narrow", "wide"]


def test_two_runs_are_compared(folder, capsys):
    assert main(["runs", str(folder), "--compare", "narrow", "sweep/runs/wide"]) == 0
    said = capsys.readouterr().out
    settings = said.split("\n\n")[1].splitlines()[2:]
    assert [line.split() for line in settings] == [["d", "4", "20"], ["seeds", "0,1", "0,1,2"]]
    assert "The same code and versions." in said
    a, b = (
        {row["seed"]: row["worst_error"] for row in read_json(folder / "sweep/runs" / name / "results.json")["rows"]}
        for name in ("narrow", "wide")
    )
    first, second = (b[seed] - a[seed] for seed in (0, 1))
    half = 12.706204736 * abs(first - second) / 2  # t of one degree of freedom
    line = next(line for line in said.splitlines() if line.startswith("and"))
    numbers = [f"{(a[0] + a[1]) / 2:.4f}", f"{(b[0] + b[1]) / 2:.4f}", f"{(first + second) / 2:+.4f}", f"±{half:.4f}"]
    assert line.split() == ["and", "trained", "trained", "2", *numbers]


def test_rows_that_differ_in_more_than_their_network_are_kept_apart(tmp_path):
    """Of several dictionaries on one network none stands for the others: neither the mean of all nor the last."""

    def run(name, offset):
        about = {"task": "and", "first_layer": "trained", "readoff": "minimax", "samples": 9, "measures": ["precision"]}
        errors = [("neurons", 0, 0.2), ("neurons", 1, 0.4), ("topk", 0, 0.5), ("topk", 1, 0.9)]
        rows = [
            {**about, "dictionary": method, "seed": seed, "worst_error": error + offset, "precision": error}
            for method, seed, error in errors
        ]
        return Run(name, tmp_path / name, "dictionary", "finished", {"m": 5}, rows)

    error, network = run("a", 0).best
    assert (error, network) == (pytest.approx(0.3, rel=1e-12), "trained/minimax/neurons")
    lines = [line.split() for line in compare(run("a", 0), run("b", 0.125)).splitlines() if line.startswith("and")]
    assert [line[:7] for line in lines] == [
        ["and", "trained", "minimax", "neurons", "2", "0.3000", "0.4250"],
        ["and", "trained", "minimax", "topk", "2", "0.7000", "0.8250"],
    ]


def test_what_differs_besides_settings_is_said(folder, tmp_path, capsys):
    for name in ("one", "two"):
        shutil.copytree(folder / "sweep" / "runs" / "narrow", tmp_path / name)
    environment = read_json(tmp_path / "two" / "environment.json")
    last = environment[-1] if isinstance(environment, list) else environment
    last["commit"], last["packages"]["torch"] = "abc", "1.0"
    (tmp_path / "two" / "environment.json").write_text(json.dumps(environment))
    content = read_json(tmp_path / "two" / "results.json")
    content["rows"] = [{**row, "readoff": "other"} for row in content["rows"][:1]] + content["rows"][1:]
    (tmp_path / "two" / "results.json").write_text(json.dumps(content))
    assert main(["runs", str(tmp_path), "--compare", "one", "two", "--metric", "rms_ones"]) == 0
    said = capsys.readouterr().out
    assert "The same settings." in said
    assert [line.split()[-1] for line in said.splitlines() if line.startswith(("commit", "torch"))] == ["abc", "1.0"]
    assert "RMS error where the target is 1: the same to the last digit" in said
    assert "only in B: and/trained/other" in said
    assert main(["runs", str(folder), "--compare", "open", "wide"]) == 0
    assert "No errors to compare: A is unfinished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--where", "d=7"], "no run has d=7: d is 4, 20, 900"),
        (["--where", "colour=7"], "choose from"),
        (["--where", "d"], "choose from"),
        (["--sort", "colour"], "choose from"),
        (["--compare", "narrow"], "name two runs"),
        (["--compare", "narrow", "nothing"], "the name of no run"),
        (["--compare", "narrow", "damaged"], "cannot be compared"),
        (["--compare", "narrow", "wide", "--metric", "colour"], "unknown metric"),
    ],
)
def test_wrong_inputs_are_one_sentence(words, said, folder, capsys):
    assert main(["runs", str(folder), *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert (captured.err.count("\n"), captured.out) == (1, "")


def test_folders_without_runs(tmp_path, capsys):
    for path, words in ((tmp_path, "holds no run"), (tmp_path / "nowhere", "is not a folder")):
        assert main(["runs", str(path)]) == 2
        assert words in capsys.readouterr().err
