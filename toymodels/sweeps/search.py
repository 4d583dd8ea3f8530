"""Choose the next configuration: grid, random and Bayesian search over a sweep.

Grid and random search are W&B's own (github.com/wandb/sweeps, grid_search.py and random_search.py); Bayesian search is
Optuna's, on the same distributions. All are functions of (sweep, seed, number of the run, finished runs), and grid and
random search do not use the last: so several runners agree, and a runner that is started again agrees with itself.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toymodels.errors import InputError
from toymodels.sweeps.definition import Parameter, Sweep
from toymodels.sweeps.distributions import position, quantile, rank, same


@dataclass(frozen=True)
class Finished:
    """A run that has ended."""

    number: int
    """The number given to `suggest`."""
    config: Mapping[str, Any]
    """The configuration that `suggest` returned."""
    metric: float | int | None
    """The best value of the sweep's metric during the run, as in W&B; None if the run failed."""


@dataclass(frozen=True)
class Search:
    """A search over a sweep; `search` makes it."""

    sweep: Sweep
    draw: Callable[[int, Sequence[Finished]], dict[str, Any] | None]
    """Suggest a configuration as `suggest` does, without regard to run_cap and target."""
    axes: Sequence[Sequence[Any]] = ()
    """The values of each parameter on a grid."""

    def suggest(self, number: int, finished: Sequence[Finished] = ()) -> dict[str, Any] | None:
        """Return the configuration of run `number`, counted from 0 and nested as in the sweep.

        None beyond run_cap, beyond the end of a grid, and once a finished run has reached the metric's target.
        """
        if self.sweep.run_cap is not None and number >= self.sweep.run_cap:
            return None
        metric = self.sweep.metric
        if metric is not None and metric.target is not None:
            sign = -1 if metric.goal == "maximize" else 1
            if any(run.metric is not None and sign * run.metric <= sign * metric.target for run in finished):
                return None
        return self.draw(number, finished)


def search(sweep: Sweep, seed: int = 0) -> Search:
    """Make the search that the sweep's method names. Raises InputError for bayes if Optuna is not installed."""
    if sweep.method == "grid":
        axes = [_axis(parameter) for parameter in sweep.parameters]
        return Search(sweep, _grid(sweep, axes), axes)
    if sweep.method == "random":
        return Search(sweep, lambda number, _: random_configuration(sweep, seed, number))
    return Search(sweep, _bayes(sweep, seed))


def random_configuration(sweep: Sweep, seed: int, number: int) -> dict[str, Any]:
    """Draw the configuration of run `number` ≥ 0, independent of all other runs; `seed` ≥ 0."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
    uniform = rng.random(len(sweep.parameters))
    return nest(sweep, [quantile(p, float(u)) for p, u in zip(sweep.parameters, uniform, strict=True)])


def nest(sweep: Sweep, values: Sequence[Any]) -> dict[str, Any]:
    """Make a configuration, nested as the sweep's parameters are, from one value of each parameter."""
    config: dict[str, Any] = {}
    for parameter, value in zip(sweep.parameters, values, strict=True):
        inner = config
        for part in parameter.path[:-1]:
            inner = inner.setdefault(part, {})
        inner[parameter.path[-1]] = copy.deepcopy(value)
    return config


def _grid(sweep: Sweep, axes: Sequence[Sequence[Any]]) -> Callable[[int, Sequence[Finished]], dict[str, Any] | None]:
    """Number the configurations in W&B's order: parameters sorted by name at each level, the last one varying fastest."""
    sizes = [len(axis) for axis in axes]

    def draw(number: int, _: Sequence[Finished]) -> dict[str, Any] | None:
        digits = []
        for size in reversed(sizes):
            number, digit = divmod(number, size)
            digits.append(digit)
        return None if number else nest(sweep, [a[i] for a, i in zip(axes, reversed(digits), strict=True)])

    return draw


def _axis(parameter: Parameter) -> Sequence[Any]:
    """List the values of one parameter on a grid, equal ones once; q_uniform goes from min in steps of q, below max."""
    numbers = parameter.numbers
    if parameter.distribution == "int_uniform":
        return range(int(numbers["min"]), int(numbers["max"]) + 1)
    if parameter.distribution == "q_uniform":
        return np.arange(numbers["min"], numbers["max"], numbers["q"]).tolist()
    # Of equal values W&B keeps the position of the first and the form (1 or 1.0) of the last.
    return list({same(value): value for value in parameter.values}.values())


def _bayes(sweep: Sweep, seed: int) -> Callable[[int, Sequence[Finished]], dict[str, Any]]:
    """Draw by a tree-structured Parzen estimator; a failed run counts as the worst one, as in W&B's `impute: worst`."""
    try:
        import optuna
    except ImportError:
        raise InputError(
            "method bayes needs the package optuna, which is not installed: pip install 'toymodels[bayes]', or use "
            "method random or grid"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    searched = [p for p in sweep.parameters if p.distribution != "constant"]
    space = {p.name: _space(p) for p in searched}
    maximize = sweep.metric is not None and sweep.metric.goal == "maximize"

    def told(run: Finished, metric: float | int) -> Any:
        try:
            params = {p.name: _to_optuna(p, run.config) for p in searched}
            return optuna.trial.create_trial(params=params, distributions=space, value=float(metric))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"run {run.number} has a configuration that {sweep.path} does not allow ({error}): start a new sweep "
                "when its parameters change"
            ) from None

    def draw(number: int, finished: Sequence[Finished]) -> dict[str, Any]:
        state = np.random.SeedSequence(seed, spawn_key=(number,)).generate_state(1)
        study = optuna.create_study(
            direction="maximize" if maximize else "minimize", sampler=optuna.samplers.TPESampler(seed=int(state[0]))
        )
        good = {r.number: r.metric for r in finished if r.metric is not None and math.isfinite(r.metric)}
        if good:
            worst = min(good.values()) if maximize else max(good.values())
            for run in sorted(finished, key=lambda run: run.number):
                study.add_trial(told(run, good.get(run.number, worst)))
        params = study.ask(space).params
        return nest(sweep, [_from_optuna(p, params.get(p.name)) for p in sweep.parameters])

    return draw


def _space(parameter: Parameter) -> Any:
    """Return Optuna's own distribution if it has this one, otherwise that of the rank, uniform from 0 to 1."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kind, numbers = parameter.distribution, parameter.numbers
    if kind == "categorical":
        return CategoricalDistribution(range(len(parameter.values)))
    if kind == "int_uniform":
        return IntDistribution(int(numbers["min"]), int(numbers["max"]))
    if kind == "uniform":
        return FloatDistribution(float(numbers["min"]), float(numbers["max"]))
    if kind == "log_uniform_values":
        return FloatDistribution(float(numbers["min"]), float(numbers["max"]), log=True)
    return FloatDistribution(0.0, 1.0)


_DIRECT = ("int_uniform", "uniform", "log_uniform_values")


def _from_optuna(parameter: Parameter, suggested: Any) -> Any:
    if parameter.distribution == "constant":
        return parameter.values[0]
    if parameter.distribution == "categorical":
        return parameter.values[suggested]
    return suggested if parameter.distribution in _DIRECT else quantile(parameter, suggested)


def _to_optuna(parameter: Parameter, config: Mapping[str, Any]) -> Any:
    value: Any = config
    for part in parameter.path:
        value = value[part]
    if parameter.distribution == "categorical":
        return position(parameter, value)
    return value if parameter.distribution in _DIRECT else rank(parameter, value)
