"""What people who do this job wrote down in public, each as a small input in tests/cases/, with what is right."""

import json
from pathlib import Path

import pytest
import torch

from tests.sweeps.toy import Here
from toymodels import PairTask, SparseFeatures, evaluate, gaussian
from toymodels.cli import main
from toymodels.core.dispatch import plain
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.layers.random import kaiming_normal
from toymodels.parallel import processes
from toymodels.runs.table import read_table
from toymodels.sweeps import runner

CASES = Path(__file__).parent / "cases"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Runs are done in this process, in a folder of their own, by the backend that this returns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "cores", lambda: 1)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    backend = Here()
    monkeypatch.setattr(runner, "open_backend", lambda *_: backend)
    return backend


def test_01_the_public_trainers_experiment(capsys):
    words = "train --m 8 --d 12 --s 2.5 --inputs independent --task xor --optimiser adam --batch 10 --steps 5 --p 2 --weight 1"
    own = "--layer kaiming_normal --no-train-first --tolerances 0.0504 0.252 --out r"
    assert main([*words.split(), *own.split()]) == 0
    said = capsys.readouterr().out
    assert "within 0.0504  within 0.252" in said
    assert "in expectation active" not in said
    (row,) = read_table(Path("r"))
    assert row["within_0.0504"] <= row["within_quarter"] <= row["within_0.252"] <= 1
    kept = json.loads(Path("r/seed-0/result.json").read_text())["evaluation"]["within"]
    assert (kept["0.0504"], kept["0.252"]) == (row["within_0.0504"], row["within_0.252"])


def test_01_tolerances_are_counted_alike_by_every_form():
    task, layer = PairTask(7, "and"), gaussian(7, 9, 0)
    network = Network(layer, LinearReadoff(0.1 * torch.randn(21, 9), torch.zeros(21)))
    for inputs in (SparseFeatures.at_most(7, 3).enumerate(), SparseFeatures.independent(7, 0.3).enumerate()):
        fast = evaluate(network, task, inputs, tolerances=(0.0504, 0.7))
        with plain():
            slow = evaluate(network, task, inputs, tolerances=(0.0504, 0.7))
        x = inputs.dense(dtype=torch.float64)
        errors = (network.double()(x) - task.targets(x)).abs()
        for tolerance in (0.0504, 0.7):
            share = float(inputs.probabilities @ (errors <= tolerance).double().mean(1))
            assert fast.within[f"{tolerance:g}"] == pytest.approx(share, abs=1e-12)
            assert slow.within[f"{tolerance:g}"] == pytest.approx(share, abs=1e-12)


def test_01_kaiming_normal_is_that_of_torch():
    layer = kaiming_normal(400, 500, 0)
    assert float(layer.weight.detach().std()) == pytest.approx((2 / 400) ** 0.5, rel=0.01)
    assert 0.045 < float(layer.bias.detach().abs().max()) <= 1 / 400**0.5
    assert float(layer.bias.detach().std()) == pytest.approx(1 / (3 * 400) ** 0.5, rel=0.1)


SETTINGS = [
    ("02b_scientific", "lr", [0.0005, 0.001, 0.005, 0.01]),
    ("03_module", "s", [2, 3]),
    ("03b_uv", "s", [2, 3]),
    ("04b_seeds_values", "seed", [0, 1, 2]),
    ("04c_exponents", "p", [[2.0], [4.0], [8.0]]),
    ("04d_task", "task", ["and", "xor"]),
    ("05_coupled", "d", [6, 12]),
    ("13_project", "d", [4, 6]),
]


@pytest.mark.parametrize(("name", "column", "values"), SETTINGS)
def test_files_that_people_write_run(name, column, values, capsys):
    assert main(["sweep", str(CASES / f"{name}.yaml"), "--out", "o"]) == 0
    assert sorted({json.dumps(row[column]) for row in read_table(Path("o"))}) == sorted(map(json.dumps, values))
    assert f"{len(values)} runs of " in capsys.readouterr().err


WRONG = "[5e-4, fast]\n  stesp:\n    values: [1e-3"


def test_02_every_problem_of_a_file_is_named_at_once(tmp_path, capsys):
    text = (CASES / "02_scientific.yaml").read_text().replace("metric:", "runcap: 3\nmetric:")
    (tmp_path / "s.yaml").write_text(text.replace("[5e-4, 1e-3", WRONG))
    assert main(["sweep", "s.yaml"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("toymodels: ").partition(": ")[0] for line in lines] == ["s.yaml:3", "s.yaml:12"]
    assert "did you mean 'run_cap'" in lines[0]
    assert "--base FILE" in lines[1]
    fixed = text.replace("runcap: 3\n", "").replace("- experiments/and_config.yaml\n", "")
    fixed = fixed.replace(
        "- ${interpreter}\n- ${program}\n", "- toymodels\n- run\n- train\n- ${args_json_file}\n- --base\n- b.yaml\n"
    )
    (tmp_path / "s.yaml").write_text(fixed.replace("[5e-4, 1e-3", WRONG))
    (tmp_path / "b.yaml").write_text("m: 6\n")
    assert main(["sweep", "s.yaml"]) == 2
    said = capsys.readouterr().err
    assert "s.yaml:7: lr = 'fast': it must be a number" in said
    assert "s.yaml:9: unknown parameter 'stesp': did you mean 'steps'" in said


def test_02_a_base_file_is_shared_by_sweeps_and_by_run(tmp_path, capsys):
    (tmp_path / "base.yaml").write_text("m: 6\nsize: {d: 4}\nsteps: 1e1\n")
    text = (CASES / "13_project.yaml").read_text().replace('json_file}"', 'json_file}", "--base", "base.yaml"')
    (tmp_path / "s.yaml").write_text(text.replace("  m: {value: 6}\n", "").replace("  steps: {value: 15}\n", ""))
    assert main(["sweep", "s.yaml", "--out", "o"]) == 0
    assert {(row["m"], row["d"], row["steps"]) for row in read_table(Path("o"))} == {(6, 4, 10), (6, 6, 10)}
    (tmp_path / "c.json").write_text('{"d": 5}')
    assert main(["run", "train", "c.json", "--base", "base.yaml", "--out", "r"]) == 0
    assert {(row["m"], row["d"], row["steps"]) for row in read_table(Path("r"))} == {(6, 5, 10)}


def test_04_a_range_of_seeds_is_one_seed_a_run(capsys):
    assert main(["sweep", str(CASES / "04_seeds_range.yaml"), "--dry-run"]) == 0
    assert "04_seeds_range: 30 runs of train, about" in capsys.readouterr().out
    assert list(Path().iterdir()) == []


def test_05_impossible_combinations_are_refused_or_skipped_and_counted(capsys):
    command = ["sweep", str(CASES / "05b_partial.yaml"), "--out", "o"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "s = 4 active features: it must be a whole number from 1 to m = 2; 1 of 4 runs is impossible" in said
    assert "--skip-impossible" in said
    assert not Path("o").exists()
    assert main([*command, "--skip-impossible"]) == 0
    said = capsys.readouterr()
    assert "4 runs of train, 1 of them impossible and skipped" in said.err
    assert "failed" not in said.out
    assert {(row["m"], row["s"]) for row in read_table(Path("o"))} == {(2, 2), (6, 2), (6, 4)}


def test_13_project_and_entity_are_those_of_the_mirror(here, monkeypatch, capsys):
    given = []
    here.before = lambda values: given.append(dict(values["_environment"]))
    monkeypatch.setattr("os.environ", dict(**__import__("os").environ))
    assert main(["sweep", str(CASES / "13_project.yaml"), "--out", "o"]) == 0
    assert given == [{"WANDB_PROJECT": "width-study", "WANDB_ENTITY": "my-team"}] * 2
    assert "project and entity in the file: W&B gets no runs unless --wandb" in capsys.readouterr().err


def test_14_min_iter_beside_max_iter_is_refused_with_the_way_out(capsys):
    assert main(["sweep", str(CASES / "14_hyperband.yaml")]) == 2
    assert "14_hyperband.yaml:4: early_terminate has min_iter" in (said := capsys.readouterr().err)
    assert "keep min_iter alone, or the others" in said


def test_15_log_uniform_with_limits_of_the_value_itself_is_warned_of(capsys):
    assert main(["sweep", str(CASES / "15_log_uniform.yaml"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "so lr lies between 1 and 1.01005: did you mean log_uniform_values?" in said


def test_16_finished_runs_of_a_smaller_grid_count(here, tmp_path, capsys):
    text = (CASES / "13_project.yaml").read_text()
    (tmp_path / "e.yaml").write_text(text)
    command = ["sweep", "e.yaml", "--out", "o"]
    assert main(command) == 0
    (tmp_path / "e.yaml").write_text(text.replace("[4, 6]", "[8, 4, 6]"))
    here.handed_over.clear()
    assert main(command) == 0
    assert len(here.handed_over) == 1
    assert "3 runs of train, 2 finished already" in capsys.readouterr().err
    assert sorted(row["d"] for row in read_table(Path("o"))) == [4, 6, 8]
    for other in ("[4, 6]", "[4, 8, 16]"):  # a value of a finished run is missing: it is another sweep
        (tmp_path / "e.yaml").write_text(text.replace("[4, 6]", other))
        assert main(command) == 2
        assert "holds another sweep" in capsys.readouterr().err


def test_20_a_file_from_powershell(tmp_path, capsys):
    text = (CASES / "13_project.yaml").read_text()
    (tmp_path / "s.yaml").write_bytes(b"\xff\xfe" + text.encode("utf-16-le"))
    assert main(["sweep", "s.yaml"]) == 2
    assert "UTF-16, as PowerShell writes it: save the file in UTF-8" in capsys.readouterr().err


# Settings without effect


def test_runs_that_would_be_equal_are_said(tmp_path, capsys):
    head = (CASES / "04b_seeds_values.yaml").read_text().partition("  seeds")[0]
    (tmp_path / "s.yaml").write_text(head + "  eval_inputs: {values: [10, 20]}\n  weight: {values: [2, 2.0, 2e0]}\n")
    assert main(["sweep", "s.yaml", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "eval_inputs has no effect on some or all runs: all inputs are few enough to be used" in said
    assert "3 runs are equal to others, such as runs 0 and 1" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("train --lr 0.001", "lr has no effect here: it is a setting of adam and adamw"),
        ("train --eval-inputs 50", "eval_inputs has no effect here: all inputs are few enough"),
        ("train --p 1 --no-root", "root has no effect here"),
        ("train --optimiser adam --pairs-per-step 99", "pairs_per_step has no effect here: there are no more outputs"),
        (
            "compare --readoffs minimax --layers gaussian --task and --no-figures",
            "steps has no effect here: nothing is trained",
        ),
        (
            "compare --readoffs trained --layers gaussian --minimax-pairs 9 --task and --no-figures",
            "minimax_pairs has no effect",
        ),
        (
            "compare --readoffs minimax --layers identity --task and --no-figures",
            "d has no effect here: there is no layer",
        ),
    ],
)
def test_a_setting_without_effect_is_said(words, sentence, capsys):
    command, *rest = words.split()
    assert main([command, "--m", "5", "--d", "4", "--steps", "2", "--out", "r", *rest]) == 0
    assert sentence in capsys.readouterr().err
