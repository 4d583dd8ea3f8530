"""Every sweep file that we ship is one, all its configurations can be made, and one of each runs."""

import dataclasses
import functools
import itertools
import re
from pathlib import Path

import pytest
import yaml

from toymodels.core.readoffs import READOFFS
from toymodels.experiments.registry import run
from toymodels.figures.registry import FIGURES
from toymodels.runs.identity import spread
from toymodels.runs.storage import read_json
from toymodels.runs.table import read_table
from toymodels.sweeps.plan import read_plan
from toymodels.sweeps.search import search

FOLDER = Path(__file__).parents[2] / "sweeps"
FILES = sorted(FOLDER.glob("*.yaml"))
RUNS = {
    "error_over_d": 18,
    "error_over_m": 12,
    "error_over_s": 8,
    "which_loss": 96,
    "genericity_map": 40,
    "training_length": 6,
    "activations": 12,
    "input_laws": 9,
    "random_search": 24,
    "bayes": 24,
    "early_stopping": 24,
    "constructions": 5,
    "controls": 2,
    "superposed": 10,
    "optimisers": 80,
    "optimisers_large": 12,
}


@functools.cache
def plan_of(path):
    return read_plan(path, None, 0)


def test_each_question_has_a_file():
    assert {path.stem for path in FILES} == set(RUNS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_can_be_run(path):
    opening = list(itertools.takewhile(lambda line: line.startswith("#"), path.read_text().splitlines()))
    assert "?" in " ".join(opening)  # the question it asks
    figures = re.findall(r"toymodels draw (\w+)", " ".join(line.lstrip("# ") for line in opening))
    assert figures
    assert set(figures) <= set(FIGURES)
    plan = plan_of(path)
    assert plan.sweep.name == path.stem
    finder, made = search(plan.sweep), set()
    # A Bayesian search asks for what has finished; its first draws need nothing.
    for number in range(3) if plan.sweep.method == "bayes" else itertools.count():
        values = finder.suggest(number)
        if values is None:
            break
        config = plan.make(values)
        for task in config.task if isinstance(config.task, tuple) else (config.task,):
            config.check_inputs(config.features(), config.make_task(task))
        made.add(plan.name(values))
    assert (plan.sweep.run_cap if plan.sweep.method == "bayes" else len(made)) == RUNS[path.stem]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_one_run_of_each_takes_a_step(path, tmp_path):
    plan = plan_of(path)
    small = {"m": 6, "d": 6, "steps": 1, "seeds": [0], "out": tmp_path / "run"}
    values = search(plan.sweep).suggest(0)
    if plan.kind_name == "compare":
        small["task"] = values["task"][:1]  # a lone job needs no processes
    if "d0" in values:
        small["d0"] = 5
    values, _ = spread(values, [field.name for field in dataclasses.fields(plan.kind.config)])
    config = plan.make({**values, **small})
    run(plan.kind_name, config)
    rows = read_table(tmp_path)
    compares = plan.kind_name == "compare"
    assert {row["task"] for row in rows} == (set(config.task) if compares else {config.task})
    assert {row["first_layer"] for row in rows} == (set(config.rows()) if compares else {"trained"})
    if compares:
        assert {row["readoff"] for row in rows} <= set(config.readoffs or READOFFS) | {"trained"}
    if plan.sweep.metric is not None:
        found = plan.metric(read_json(tmp_path / "run" / "results.json"))
        assert found == rows[0][plan.sweep.metric.name]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_plain_yaml_for_the_server_of_wandb(path):
    """An agent of W&B calls the command with the values alone: every one must pass through JSON as it is."""
    content = yaml.safe_load(path.read_text())
    assert content["command"] == ["${env}", "toymodels", "run", plan_of(path).kind_name, "${args_json_file}"]
    assert set(content) <= {
        "method",
        "name",
        "description",
        "command",
        "parameters",
        "metric",
        "run_cap",
        "early_terminate",
    }
