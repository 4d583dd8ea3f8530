"""Ours against W&B's own package: tests/sweeps/fixtures/make_wandb_reference.py says how the reference is made."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from tests.sweeps.toy import configurations, read_sweep
from toymodels.errors import InputError
from toymodels.sweeps.definition import DISTRIBUTIONS, Parameter, Sweep
from toymodels.sweeps.distributions import quantile, rank
from toymodels.sweeps.early_stopping import bands, should_stop

REFERENCE = json.loads((Path(__file__).parent / "fixtures" / "wandb_reference.json").read_text())
ENTRIES = REFERENCE["distributions"]
FALSE_ALARM = 1e-3 / len(ENTRIES)
"""Of one comparison of draws: over all of them, 1 seed in 1,000 would fail a right program (Bonferroni)."""


def sweep_of(folder: Path, text: str) -> Sweep:
    (folder / "sweep.yaml").write_text(text)
    return read_sweep(folder / "sweep.yaml")


def parameter_of(folder: Path, parameter: dict) -> Parameter:
    return sweep_of(folder, yaml.safe_dump({"method": "random", "parameters": {"p": parameter}})).parameters[0]


def label(entry: dict) -> str:
    return entry["distribution"]


def test_reference_covers_every_distribution_and_names_its_package():
    assert REFERENCE["package"] == "sweeps 0.3.0"
    assert {entry["distribution"] for entry in ENTRIES} == set(DISTRIBUTIONS)


@pytest.mark.parametrize("entry", REFERENCE["grids"])
def test_grid_is_in_the_order_of_wandb(entry, tmp_path):
    ours = list(configurations(sweep_of(tmp_path, entry["sweep"])))
    assert json.dumps(ours, sort_keys=True) == json.dumps(entry["configurations"], sort_keys=True)  # 1 is not 1.0


@pytest.mark.parametrize("entry", ENTRIES, ids=label)
def test_quantiles_are_those_of_wandb(entry, tmp_path):
    parameter = parameter_of(tmp_path, entry["parameter"])
    for u, theirs in zip(REFERENCE["points"], entry["quantiles"], strict=True):
        ours = quantile(parameter, u)
        assert type(ours) is type(theirs)
        # SciPy's quantile functions come from another version: a few units of the last of 16 digits.
        assert ours == pytest.approx(theirs, rel=1e-13, abs=1e-15) if isinstance(ours, float) else ours == theirs


@pytest.mark.parametrize("entry", ENTRIES, ids=label)
def test_draws_are_distributed_as_those_of_wandb(entry, tmp_path):
    sweep = Sweep(Path("sweep.yaml"), "random", (parameter_of(tmp_path, entry["parameter"]),))
    theirs = entry["draws"]
    ours = [config["p"] for config in itertools.islice(configurations(sweep, 7), 4000)]
    if entry["distribution"] == "constant":
        assert set(ours) == set(theirs)
        return
    if isinstance(ours[0], float) and "q" not in sweep.parameters[0].numbers:
        assert stats.ks_2samp(ours, theirs).pvalue > FALSE_ALARM
        return
    # W&B rounds what is a little below 0 to −0.0; + 0.0 makes it 0.0.
    rounded = [[f"{v + 0.0:.6g}" if isinstance(v, float) else repr(v) for v in draws] for draws in (ours, theirs)]
    counts = np.array([[draws.count(cell) for cell in sorted({*rounded[0], *rounded[1]})] for draws in rounded])
    # Chi-square wants about 5 expected in every cell: the rare ones are one cell together.
    rare = counts.sum(0) * len(theirs) / counts.sum() < 5
    pooled = np.column_stack([counts[:, ~rare], counts[:, rare].sum(1)])
    assert stats.chi2_contingency(pooled[:, pooled.sum(0) > 0]).pvalue > FALSE_ALARM


@pytest.mark.parametrize("entry", ENTRIES, ids=label)
def test_rank_inverts_the_quantile(entry, tmp_path):
    parameter = parameter_of(tmp_path, entry["parameter"])
    if parameter.distribution in ("constant", "categorical", "int_uniform"):
        return
    for u in REFERENCE["points"]:
        value = quantile(parameter, u)
        back = quantile(parameter, rank(parameter, value))
        if "q" in parameter.numbers and not 0 < rank(parameter, value) < 1:
            continue  # rounded out of the range: its rank is the end of the range
        # Near 1 the spacing of doubles, 1.1e-16, is 1e-10 of what the rank 1 − 1e-6 leaves.
        assert back == pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else back == value


@pytest.mark.parametrize("entry", REFERENCE["inferences"], ids=lambda entry: entry["parameter"])
def test_distribution_and_defaults_are_those_of_wandb(entry, tmp_path):
    text = f"method: random\nparameters:\n  p: {entry['parameter']}\n"
    if entry["filled"] is None:
        with pytest.raises(InputError, match=r"sweep.yaml:3: "):
            sweep_of(tmp_path, text)
        return
    parameter, theirs = sweep_of(tmp_path, text).parameters[0], dict(entry["filled"])
    assert parameter.distribution == theirs.pop("distribution")
    assert list(parameter.probabilities) == theirs.pop("probabilities", [])
    assert list(parameter.values) == (
        theirs.pop("values", None) or [theirs.pop("value", None)][: len(parameter.values)]
    )
    assert dict(parameter.numbers) == theirs
    assert type(parameter.numbers.get("q")) is type(theirs.get("q"))  # a whole q makes whole numbers


@pytest.mark.parametrize("entry", REFERENCE["refused"], ids=lambda entry: entry["sweep"].replace("\n", " "))
def test_what_wandb_refuses_is_refused(entry, tmp_path):
    with pytest.raises(InputError, match=r"sweep.yaml:\d+: "):
        sweep_of(tmp_path, entry["sweep"])


@pytest.mark.parametrize("entry", REFERENCE["hyperband"])
def test_hyperband_stops_the_runs_that_wandb_stops(entry, tmp_path):
    keys = {"method": "random", "metric": {"name": "l", "goal": entry["goal"]}, "parameters": {"a": {"value": 1}}}
    text = yaml.safe_dump({**keys, "early_terminate": entry["early_terminate"]})
    if {"min_iter", "max_iter"} <= entry["early_terminate"].keys():  # W&B goes by one of them without a word
        with pytest.raises(InputError, match="keep min_iter alone"):
            sweep_of(tmp_path, text)
        return
    sweep = sweep_of(tmp_path, text)
    assert sweep.metric is not None
    early = sweep.early_terminate
    assert early is not None
    assert list(bands(early))[: len(entry["bands"])] == entry["bands"][: len(bands(early))]
    assert len(bands(early)) >= min(len(entry["bands"]), 8)
    histories = [[math.nan if i % 2 and v is None else v for i, v in enumerate(r["history"])] for r in entry["runs"]]
    stopped = [
        i
        for i, run in enumerate(entry["runs"])
        if run["running"]
        and should_stop(
            bands(early), histories[i], histories[:i] + histories[i + 1 :], sweep.metric.goal, early.eta, early.strict
        )
    ]
    assert stopped == entry["stopped"]


@pytest.mark.parametrize(
    "kind",
    [lambda e: e["goal"], lambda e: e["early_terminate"].get("strict", True), lambda e: "s" in e["early_terminate"]],
)
def test_hyperband_reference_decides_both_ways(kind):
    for _, group in itertools.groupby(sorted(REFERENCE["hyperband"], key=kind), kind):
        entries = list(group)
        running = sum(run["running"] for entry in entries for run in entry["runs"])
        assert 0 < sum(len(entry["stopped"]) for entry in entries) < running
