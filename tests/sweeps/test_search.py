import builtins
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.sweeps.toy import configurations, read_sweep
from toymodels.errors import InputError
from toymodels.sweeps.definition import DISTRIBUTIONS, NUMBERS, Metric, Parameter, Sweep
from toymodels.sweeps.distributions import quantile, rank
from toymodels.sweeps.search import Finished, random_configuration, search


def sweep_of(
    *parameters: Parameter, method="random", metric: Metric | None = None, run_cap: int | None = None
) -> Sweep:
    return Sweep(Path("sweep.yaml"), method, parameters, metric, run_cap=run_cap)


def numeric(distribution: str, name: str = "x", **numbers) -> Parameter:
    return Parameter((name,), distribution, numbers=numbers)


A = Parameter(("a",), "categorical", (1, 2, 3))
B = Parameter(("b", "c"), "categorical", ("u", {"deep": [1]}))
LR = numeric("log_uniform_values", "lr", min=1e-4, max=1.0)


def test_a_grid_is_the_product_with_the_last_parameter_fastest():
    sweep = sweep_of(A, B, method="grid")
    expected = [{"a": a, "b": {"c": c}} for a, c in itertools.product(A.values, B.values)]
    assert list(configurations(sweep)) == expected
    found = search(sweep)
    assert [found.suggest(number) for number in (5, 0, 6, 60)] == [expected[5], expected[0], None, None]


def test_a_grid_of_constants_is_one_run():
    assert list(configurations(sweep_of(Parameter(("a",), "constant", (4,)), method="grid"))) == [{"a": 4}]


def test_a_configuration_is_the_callers_own():
    sweep = sweep_of(B, method="grid")
    config = list(configurations(sweep))[1]
    config["b"]["c"]["deep"].append(2)
    assert list(configurations(sweep))[1] == {"b": {"c": {"deep": [1]}}}


def test_run_cap_ends_every_method():
    metric = Metric("l", "minimize", None, 1)
    assert len(list(configurations(sweep_of(A, B, method="grid", run_cap=4)))) == 4
    assert len(list(configurations(sweep_of(LR, run_cap=3)))) == 3
    capped = search(sweep_of(LR, method="bayes", metric=metric, run_cap=2))
    assert capped.suggest(1) is not None
    assert capped.suggest(2) is None


@pytest.mark.parametrize(("goal", "short", "reached"), [("minimize", 0.3, 0.25), ("maximize", 0.2, 0.25)])
def test_a_reached_target_ends_the_sweep(goal, short, reached):
    found = search(sweep_of(LR, metric=Metric("l", goal, 0.25, 1)))
    others = [Finished(0, {"lr": 0.1}, None), Finished(1, {"lr": 0.1}, math.nan), Finished(2, {"lr": 0.1}, short)]
    assert found.suggest(3, others) is not None
    assert found.suggest(4, [*others, Finished(3, {"lr": 0.1}, reached)]) is None


def test_a_random_run_depends_on_its_number_and_seed_alone():
    sweep = sweep_of(A, B, LR)
    runs = list(itertools.islice(configurations(sweep, 3), 20))
    found = search(sweep, 3)
    assert [found.suggest(i, [Finished(0, {}, 1.0)]) for i in reversed(range(20))] == runs[::-1]
    assert random_configuration(sweep, 3, 19) == runs[19]
    assert len({run["lr"] for run in runs}) == 20
    assert not {run["lr"] for run in runs} & {run["lr"] for run in itertools.islice(configurations(sweep, 4), 20)}


def test_runs_and_parameters_are_independent():
    """Rank correlation of two parameters, and of a run with the next, over 2,000 runs; false alarm 1 in 1,000 each."""
    draws = np.array([[c["x"], c["y"]] for c in itertools.islice(configurations(sweep_of(*UNIFORM), 0), 2000)])
    for pair in (draws.T, (draws[:-1, 0], draws[1:, 0])):
        assert stats.spearmanr(*pair).pvalue > 1e-3


UNIFORM = (numeric("uniform", "x", min=0, max=1), numeric("uniform", "y", min=0, max=1))


def test_every_value_of_int_uniform_is_drawn_and_none_beside():
    draws = {c["x"] for c in itertools.islice(configurations(sweep_of(numeric("int_uniform", min=-2, max=3)), 1), 300)}
    assert draws == {-2, -1, 0, 1, 2, 3}  # one of six is missing with probability below 6·(5/6)^300 < 1e-22


@pytest.mark.parametrize("distribution", [d for d in DISTRIBUTIONS if d in NUMBERS])
def test_the_ends_are_finite_and_in_order(distribution):
    """Optuna, unlike a generator of random numbers, may suggest the ranks 0 and 1 themselves."""
    numbers = {k: {"min": 1, "max": 7, "q": 2}.get(k, v) for k, v in NUMBERS[distribution].items()}
    parameter = numeric(distribution, **numbers)
    ends = [quantile(parameter, u) for u in (0.0, 0.5, 1.0)]
    assert all(map(math.isfinite, ends))
    assert ends == sorted(ends)
    if distribution == "int_uniform":
        assert ends == [1, 4, 7]


def test_closed_forms():
    assert quantile(numeric("log_uniform_values", min=1e-4, max=1.0), 0.5) == pytest.approx(1e-2, rel=1e-14)
    assert quantile(numeric("log_uniform", min=-2, max=4), 0.5) == pytest.approx(math.e, rel=1e-14)
    assert quantile(numeric("inv_log_uniform", min=-2, max=4), 0.5) == pytest.approx(1 / math.e, rel=1e-14)
    assert quantile(numeric("normal", mu=3.0, sigma=2.0), 0.5) == 3
    assert quantile(numeric("log_normal", mu=3.0, sigma=2.0), 0.5) == pytest.approx(math.exp(3), rel=1e-14)
    assert quantile(numeric("q_uniform", min=0, max=10, q=4), 0.25) == 4  # 2.5 steps of … 0.625 → 1
    assert quantile(numeric("q_uniform", min=0, max=20, q=4), 0.5) == 8  # 2.5 steps: ties go to even
    assert quantile(numeric("q_uniform", min=1, max=10, q=8), 1e-9) == 0  # below min, as in W&B


# Bayes


BAYES = sweep_of(
    A,
    Parameter(("b", "c"), "categorical_w_probabilities", ("u", "v"), (0.2, 0.8)),
    Parameter(("fixed",), "constant", (9,)),
    numeric("int_uniform", "n", min=1, max=4),
    numeric("normal", "g", mu=0.0, sigma=1.0),
    LR,
    numeric("q_log_uniform_values", "w", min=8, max=64, q=8),
    method="bayes",
    metric=Metric("l", "minimize", None, 1),
)


def run_bayes(
    runs: int, seed: int, objective, sweep: Sweep = BAYES, start: tuple[Finished, ...] = ()
) -> list[Finished]:
    found, finished = search(sweep, seed), list(start)
    for number in range(len(start), runs):
        config = found.suggest(number, finished)
        assert config is not None
        finished.append(Finished(number, config, objective(config)))
    return finished


def loss(config) -> float:
    return (math.log10(config["lr"]) + 2) ** 2 + abs(config["n"] - 2) + (config["b"]["c"] == "u") + abs(config["g"] - 1)


def test_bayes_resumes_to_the_same_runs():
    whole = run_bayes(16, 5, loss)
    assert run_bayes(16, 5, loss, start=tuple(whole[:12])) == whole
    assert search(BAYES, 5).suggest(15, whole[14::-1]) == whole[15].config  # in whatever order they are listed
    assert run_bayes(16, 6, loss) != whole
    assert all(
        run.config["fixed"] == 9 and set(run.config) == {"a", "b", "fixed", "n", "g", "lr", "w"} for run in whole
    )
    assert all(run.config["w"] % 8 == 0 and isinstance(run.config["w"], int) for run in whole)


def test_runs_side_by_side_differ():
    found = search(BAYES, 5)
    for finished in ([], run_bayes(12, 5, loss)):
        configs = [found.suggest(number, finished) for number in range(12, 18)]
        assert len({config["lr"] for config in configs if config is not None}) == 6


def test_bayes_goes_by_the_results():
    whole = run_bayes(14, 5, loss)
    other = [Finished(run.number, run.config, -float(run.metric or 0)) for run in whole]
    assert search(BAYES, 5).suggest(14, other) != search(BAYES, 5).suggest(14, whole)


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_bayes_comes_nearer_than_random_draws(goal):
    """Mean of the last 14 of 28 runs against 14 random ones: a search that learns nothing wins all 8 seeds once in 256."""
    metric = Metric("l", goal, None, 1)
    sweep = Sweep(BAYES.path, "bayes", BAYES.parameters, metric)
    sign = -1 if goal == "maximize" else 1
    for seed in range(8):
        found = run_bayes(28, seed, lambda config: sign * loss(config), sweep)
        chance = [loss(config) for config in itertools.islice(configurations(sweep, seed), 14)]
        assert np.mean([loss(run.config) for run in found[14:]]) < np.mean(chance)


def test_bayes_counts_a_failed_run_as_the_worst():
    whole = run_bayes(14, 5, loss)
    worst = max(float(run.metric or 0) for run in whole)
    for failed in (None, math.nan, math.inf):
        runs = [Finished(r.number, r.config, failed if r.number in (3, 11) else r.metric) for r in whole]
        same = [Finished(r.number, r.config, worst if r.number in (3, 11) else r.metric) for r in whole]
        assert search(BAYES, 5).suggest(14, runs) == search(BAYES, 5).suggest(14, same)
    nothing = [Finished(r.number, r.config, None) for r in whole]
    assert search(BAYES, 5).suggest(14, nothing) == search(BAYES, 5).suggest(14)


@pytest.mark.parametrize("config", [{}, {"lr": 5.0}, {"lr": "high"}])
def test_bayes_refuses_results_of_another_sweep(config):
    found = search(sweep_of(LR, method="bayes", metric=BAYES.metric))
    with pytest.raises(InputError, match=r"run 0 has a configuration that sweep.yaml does not allow"):
        found.suggest(1, [Finished(0, config, 1.0)])


def test_bayes_refuses_a_value_that_is_not_among_the_sweeps():
    found = search(sweep_of(A, method="bayes", metric=BAYES.metric))
    with pytest.raises(InputError, match=r"run 0 has a configuration"):
        found.suggest(1, [Finished(0, {"a": True}, 1.0)])


def test_bayes_says_what_is_missing(monkeypatch):
    load = builtins.__import__
    monkeypatch.setattr(
        builtins,
        "__import__",
        lambda name, *rest: (_ for _ in ()).throw(ImportError(name)) if name == "optuna" else load(name, *rest),
    )
    with pytest.raises(InputError, match=r"method bayes needs the package optuna.*toymodels\[bayes\]"):
        search(BAYES)


def test_ranks_of_rounded_values_stay_within_their_range():
    assert rank(numeric("q_log_uniform_values", min=0.1, max=8, q=1), 0) == 0
    assert rank(numeric("q_uniform", min=1, max=10, q=4), 12) == 1
    assert rank(numeric("q_beta", a=2, b=2, q=0.75), 1.5) == 1


def test_a_file_from_end_to_end(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("method: grid\nparameters:\n  d: {values: [50, 100]}\n  task: {values: [and, xor]}\n")
    assert list(configurations(read_sweep(path, {"d", "task"}))) == [
        {"d": 50, "task": "and"},
        {"d": 50, "task": "xor"},
        {"d": 100, "task": "and"},
        {"d": 100, "task": "xor"},
    ]
