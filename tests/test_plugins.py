"""One addition is one file: each file of tests/plugins, named as a plugin, goes through everything that a member of ours does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from toymodels.cli import main
from toymodels.runs.table import read_table

PLUGINS = Path(__file__).parent / "plugins"
SMALL = {"m": 6, "d": 9, "steps": 3, "figures": False, "eval_inputs": 50, "seeds": [0]}
COMPARE = {
    "layer": {"layers": ["sparse_gaussian", "sparse_gaussian(density=0.8)"], "task": ["and"], "readoffs": ["minimax"]},
    "readoff": {"task": ["and"], "readoffs": ["minimax", "shrunk", "shrunk(share=0.9)"]},
    "gate": {"task": ["exactly_one_of_three"], "s": 3},
    "target": {"task": ["cube"], "values": "symmetric", "readoffs": ["zero", "least_squares", "trained", "minimax"]},
    "values": {"task": ["product"], "values": "triangular", "readoffs": ["balanced", "trained"]},
    "loss": {"task": ["and"], "loss": "huber(delta=0.1)", "readoffs": ["trained"]},
}  # fmt: skip
SWEEP = """method: grid
command: ["${{env}}", "toymodels", "run", "{kind}", "${{args_json_file}}"]
parameters:
  plugin: {{value: ["{plugin}"]}}
  d: {{values: [9, 16]}}
{settings}
"""


def run(arguments, capsys):
    status = main(list(map(str, arguments)))
    shown = capsys.readouterr()
    assert status == 0, shown.err
    return shown.out


def through_everything(kind, plugin, settings, tmp_path, capsys):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**settings, "plugin": [str(plugin)]}))
    printed = run(["run", kind, config, "--out", tmp_path / "run"], capsys)
    assert "record:" in printed
    rows = read_table(tmp_path / "run")
    assert {row["seed"] for row in rows} == {0}
    again = run(["show", tmp_path / "run", "--evaluate"], capsys)
    assert "differs" not in again
    assert "missing" not in again
    lines = [
        f"  {key}: {{value: {json.dumps(value)}}}" for key, value in settings.items() if key not in ("d", "figures")
    ]
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(SWEEP.format(kind=kind, plugin=plugin, settings="\n".join(lines)))
    run(["sweep", sweep, "--out", tmp_path / "sweep", "--workers", 1], capsys)
    swept = read_table(tmp_path / "sweep")
    assert {row["d"] for row in swept} == {9, 16}
    assert len(swept) == 2 * len(rows)
    run(["results", tmp_path, "--out", tmp_path / "table.csv"], capsys)
    # The run alone is the sweep's run at d = 9, so it counts once.
    assert len(read_table(tmp_path / "table.csv")) == len(swept)
    return rows, again


@pytest.mark.parametrize("name", COMPARE)
def test_a_member_of_ones_own_goes_through_everything(name, tmp_path, capsys):
    settings = {**SMALL, **COMPARE[name]}
    rows, again = through_everything("compare", PLUGINS / f"{name}.py", settings, tmp_path, capsys)
    layers, readoffs, tasks = ({row[key] for row in rows} for key in ("first_layer", "readoff", "task"))
    assert layers == set(settings.get("layers", ["identity", "gaussian", "trained"])) or name in ("values", "loss")
    assert readoffs <= set(settings.get("readoffs", readoffs))
    assert tasks == set(settings["task"])
    assert "identical" in again
    if name == "readoff":
        assert any(row["readoff"] == "shrunk(share=0.9)" and row["proved"] is False for row in rows)
        assert all(row["worst_error"] >= row["lower_bound"] - 1e-9 for row in rows if row["lower_bound"] is not None)


def test_an_experiment_of_ones_own_goes_through_everything(tmp_path, capsys):
    settings = {"m": 6, "d": 9, "dead": 0.3, "seeds": [0]}
    rows, _ = through_everything("dead_neurons", PLUGINS / "experiment.py", settings, tmp_path, capsys)
    assert {row["first_layer"] for row in rows} == {"dead"}
    command = [sys.executable, "-m", "toymodels", "--plugin", PLUGINS / "experiment.py"]
    text = subprocess.run([*command, "--help"], check=True, capture_output=True, text=True).stdout
    assert "Measure a layer with dead neurons." in text


@pytest.mark.parametrize("name", ["layer", "readoff", "gate", "target", "values", "loss"])
def test_the_common_checks_pass_for_members_of_ones_own(name, capsys):
    assert "passes every check" in run(["check", PLUGINS / f"{name}.py"], capsys)


def test_the_common_checks_find_what_is_wrong(tmp_path, capsys):
    plugin = tmp_path / "wrong.py"
    plugin.write_text(
        "import torch\n"
        "from toymodels import LAYERS, LOSSES, FirstLayer\n"
        "@LAYERS('unseeded', source='this test')\n"
        "def unseeded(m, d, seed):\n"
        '    """Draw weights from no seed."""\n'
        "    return FirstLayer(torch.randn(d, m), torch.zeros(d))\n"
        "@LOSSES('rough', source='this test')\n"
        "def rough(errors):\n"
        '    """Take the square root of errors, whose slope at 0 is infinite."""\n'
        "    return errors.abs().sqrt()\n"
    )
    assert main(["check", str(plugin)]) == 1
    printed = capsys.readouterr().out
    assert "unseeded is another layer when it is made again from the same seed" in printed
    assert "rough has a gradient other than 0" in printed
