"""Read a sweep file of Weights & Biases as W&B reads it, and refuse one that W&B could not run.

The keys, distributions, defaults and inferred distributions are those of the schema of W&B's own package `sweeps`
(github.com/wandb/sweeps, config/schema.json); tests/sweeps/ compares the two. In addition, this module refuses what W&B
accepts and then cannot draw (sigma = 0, an infinite bound), what YAML silently misreads (yaml_file.py), and keys that only a
server can act on. A parameter whose values are mappings sets several settings together: size: {values: [{m: 6, d: 9}, …]}.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from toymodels.errors import nearest
from toymodels.sweeps.yaml_file import Keys, YamlFile

METHODS = ("grid", "random", "bayes")
_Defaults = Mapping[str, int | float | None]
_BOUNDS: _Defaults = {"min": None, "max": None}
_NORMAL: _Defaults = {"mu": 0.0, "sigma": 1.0}
_BETA: _Defaults = {"a": 1, "b": 1}
_Q: _Defaults = {"q": 1.0}
NUMBERS: Mapping[str, _Defaults] = {
    "int_uniform": _BOUNDS,
    "uniform": _BOUNDS,
    "q_uniform": {**_BOUNDS, **_Q},
    "log_uniform": _BOUNDS,
    "log_uniform_values": _BOUNDS,
    "q_log_uniform": {**_BOUNDS, **_Q},
    "q_log_uniform_values": {**_BOUNDS, **_Q},
    "inv_log_uniform": _BOUNDS,
    "inv_log_uniform_values": _BOUNDS,
    "normal": _NORMAL,
    "q_normal": {**_NORMAL, **_Q},
    "log_normal": _NORMAL,
    "q_log_normal": {**_NORMAL, **_Q},
    "beta": _BETA,
    "q_beta": {**_BETA, **_Q},
}
"""The numbers that each distribution takes, with W&B's defaults; None for a number that the file must give."""
LISTS = {
    "constant": {"value"},
    "categorical": {"values"},
    "categorical_w_probabilities": {"values", "probabilities"},
}
DISTRIBUTIONS = (*LISTS, *NUMBERS)
_PARAMETER_KEYS = ("value", "values", "probabilities", "distribution", "min", "max", "q", "mu", "sigma", "a", "b")
_TEXTS = ("name", "description", "program", "project", "entity")
_KEYS = ("method", "metric", "parameters", "early_terminate", "run_cap", "command", *_TEXTS)
IGNORED = ("apiVersion", "kind", "controller")  # valid, but without effect on the search
_SERVER = ("scheduler", "metrics", "job", "image_uri")  # W&B Launch and its custom schedulers
_GRID = ("constant", "categorical", "int_uniform", "q_uniform")
_GRID_LIMIT = 1_000_000  # values of one parameter
_EXPONENT_LIMIT = 700  # e^709.8 is the largest double
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a sweep."""

    path: tuple[str, ...]
    """The names of the nested parameters that hold it, from the outside in, and its own."""
    distribution: str
    """One of DISTRIBUTIONS."""
    values: tuple[Any, ...] = ()
    """The values of a constant (one), categorical or categorical_w_probabilities parameter."""
    probabilities: tuple[int | float, ...] = ()
    """The probability of each value, of sum 1; for categorical_w_probabilities alone."""
    numbers: Mapping[str, int | float] = field(default_factory=dict)
    """min, max, q, mu, sigma, a, b: those that NUMBERS names for the distribution, defaults filled in."""
    line: int = 0
    """Line of the file, counted from 1."""

    @property
    def name(self) -> str:
        """The path, joined by dots."""
        return ".".join(self.path)


@dataclass(frozen=True)
class Metric:
    """The number that a sweep optimises."""

    name: str
    goal: str
    """minimize or maximize."""
    target: int | float | None
    """No new run is started once a run has reached this value."""
    line: int


@dataclass(frozen=True)
class Hyperband:
    """Early termination; bands from min_iter up or, if max_iter and s are given, from max_iter down."""

    min_iter: int | None
    max_iter: int | None
    s: int | None
    eta: int | float
    strict: bool


@dataclass(frozen=True)
class Sweep:
    """A sweep file."""

    path: Path
    method: str
    parameters: tuple[Parameter, ...]
    """In W&B's order: sorted by name at each level of nesting."""
    metric: Metric | None = None
    early_terminate: Hyperband | None = None
    run_cap: int | None = None
    command: tuple[str, ...] | None = None
    name: str | None = None
    description: str | None = None
    program: str | None = None
    project: str | None = None
    entity: str | None = None


class SweepFile(YamlFile):
    """A sweep file. Its problems are kept until `refuse_collected` raises them all at once."""

    def sweep(self) -> Sweep:
        """Read what can be read. Raises InputError for a file that is no mapping."""
        root = self.root()
        keys = self.mapping(root, "the file")
        self.lines = {name: key.start_mark.line + 1 for name, (key, _) in keys.items()}
        unknown = False
        for name, item in keys.items():
            if name in _SERVER:
                self.refuse(item[0], f"{name} is for W&B Launch or schedulers: only a W&B server acts on it")
            with self.collected():
                unknown |= name not in (*_KEYS, *IGNORED)
                self.check_keys({name: item}, "the sweep", (*_KEYS, *IGNORED))
        for name in ("method", "parameters"):
            with self.collected():
                if name not in keys and not unknown:
                    self.refuse(root, f"{name} is missing: a sweep has at least method and parameters")
        method = self.attempt(self.choice, keys, "method", METHODS)
        metric = self.attempt(self.metric, keys["metric"][1]) if "metric" in keys else None
        early = self.attempt(self.hyperband, keys["early_terminate"][1]) if "early_terminate" in keys else None
        for name, wants in (("method", method == "bayes"), ("early_terminate", early is not None)):
            with self.collected():
                if wants and "metric" not in keys:
                    reason = f"{name} needs a metric to go by: add metric: {{name: …, goal: minimize}}"
                    self.refuse(keys[name][0], reason)
        run_cap, command = self.attempt(self.count, keys, "run_cap"), None
        with self.collected():
            command = self.typed(keys, "command", list, "a list of words")
            if command is not None and not all(isinstance(word, str | int | float) for word in command):
                self.refuse(keys["command"][1], f"command is {command!r}: it must be a list of words")
        wanted = "text (in quotes, if YAML reads it as a number)"
        texts = {name: self.attempt(self.typed, keys, name, str, wanted) for name in _TEXTS}
        parameters: list[Parameter] = []
        with self.collected():
            parameters += self.parameters(*keys["parameters"], ()) if "parameters" in keys else ()
            if method == "bayes" and parameters and all(p.distribution == "constant" for p in parameters):
                self.refuse(keys["parameters"][0], "every parameter is constant: bayes needs at least one to search")
        words = tuple(map(str, command)) if command else None
        return Sweep(self.path, method or "", tuple(parameters), metric, early, run_cap, words, **texts)

    def check_names(self, sweep: Sweep, known: Collection[str] | None) -> None:
        """Keep as problems parameters that the method cannot search, and names that the configuration does not have.

        `known` are the names that it has, nested ones with dots (optimizer.lr); None allows any name.
        """
        names: set[str] = set()
        for parameter in sweep.parameters:
            with self.collected():
                if parameter.name in names:
                    self.refuse(parameter.line, f"{parameter.name} is given twice, nested and with a dot: keep one")
                names.add(parameter.name)
                self.searchable(parameter, sweep.method, known)

    def metric(self, node: yaml.Node) -> Metric:
        keys = self.mapping(node, "metric")
        self.check_keys(keys, "metric", ("name", "goal", "target", "impute", "impute_while_running"))
        goal = self.choice(keys, "goal", ("minimize", "maximize")) or "minimize"
        if not (name := self.typed(keys, "name", str, "the name of a metric")):
            self.refuse(node, "metric has no name: say which metric to optimise")
        for key, only in (("impute", ("worst",)), ("impute_while_running", ("false", False))):
            if key in keys and self.value(keys[key][1]) not in only:
                self.refuse(keys[key][1], f"{key} must be {only[0]}: failed runs count as the worst, running ones not")
        target = self.typed(keys, "target", (int, float), "a number")
        return Metric(name, goal, target, node.start_mark.line + 1)

    def hyperband(self, node: yaml.Node) -> Hyperband:
        keys = self.mapping(node, "early_terminate")
        self.check_keys(keys, "early_terminate", ("type", "min_iter", "max_iter", "s", "eta", "strict"))
        if self.choice(keys, "type", ("hyperband",)) is None:
            self.refuse(node, "early_terminate has no type: write type: hyperband")
        min_iter, max_iter, s = (self.count(keys, name) for name in ("min_iter", "max_iter", "s"))
        if min_iter is not None and (max_iter is not None or s is not None):
            both = "min_iter (bands from there up) beside max_iter and s (bands from max_iter down)"
            self.refuse(
                node, f"early_terminate has {both}, and W&B goes by one of them: keep min_iter alone, or the others"
            )
        if (min_iter if max_iter is None else s) is None:
            self.refuse(node, "early_terminate has no bands: give min_iter, or both max_iter and s")
        eta = self.typed(keys, "eta", (int, float), "a number above 1") if "eta" in keys else 3
        if eta <= 1:
            self.refuse(keys["eta"][1], f"eta is {eta}: it must be a number above 1")
        if max_iter is not None and max_iter < eta:
            self.refuse(keys["max_iter"][1], f"max_iter / eta = {max_iter / eta:g} is below the first iteration, 1")
        strict = self.typed(keys, "strict", bool, "true or false")
        return Hyperband(min_iter, max_iter, s, eta, strict is not False)

    def parameters(self, key: yaml.Node, node: yaml.Node, above: tuple[str, ...]) -> Iterable[Parameter]:
        inner = self.mapping(node, f"parameters of {'.'.join(above)}" if above else "parameters")
        if not inner:
            self.refuse(key, "parameters is empty: name at least one")
        for name, (at, item) in sorted(inner.items()):
            path = (*above, name)
            with self.collected():
                yield from self.named(at, name, item, path)

    def named(self, at: yaml.Node, name: str, item: yaml.Node, path: tuple[str, ...]) -> Iterable[Parameter]:
        if not _NAME.match(name):
            self.refuse(at, f"the parameter name {name!r} is not one: letters, digits, _, . and -, no digit first")
        if not isinstance(item, yaml.MappingNode):
            self.refuse(at, f"{'.'.join(path)} is not a mapping: write value: …, values: […], or min: … and max: …")
        keys = self.mapping(item, name)
        if "parameters" in keys:
            self.check_keys(keys, f"{'.'.join(path)}, which holds nested parameters,", ("parameters",))
            yield from self.parameters(*keys["parameters"], path)
        else:
            yield self.parameter(at, keys, path)

    def parameter(self, at: yaml.Node, keys: Keys, path: tuple[str, ...]) -> Parameter:
        name = ".".join(path)
        self.check_keys(keys, name, (*_PARAMETER_KEYS, "parameters"))
        distribution = self.distribution(at, keys, name)
        takes: Collection[str] = LISTS.get(distribution) or NUMBERS[distribution]
        for key, (where, _) in keys.items():
            if key not in takes and key != "distribution":
                self.refuse(where, f"{name}: {distribution} takes no {key}: it takes {', '.join(sorted(takes))}")
        required = LISTS.get(distribution) or [k for k, default in NUMBERS[distribution].items() if default is None]
        for key in sorted(required):
            if key not in keys:
                self.refuse(at, f"{name}: {distribution} needs {key}")
        if distribution in LISTS:
            values = [self.value(keys["value"][1])] if "value" in keys else self.typed(keys, "values", list, "a list")
            if not values:
                self.refuse(keys["values"][0], f"{name}: values is empty: give at least one")
            probabilities = self.probabilities(keys, name, len(values))
            return Parameter(path, distribution, tuple(values), probabilities, line=at.start_mark.line + 1)
        kinds, wanted = ((int,), "a whole number") if distribution == "int_uniform" else ((int, float), "a number")
        numbers = {k: default for k, default in NUMBERS[distribution].items() if default is not None}
        numbers |= {key: self.typed(keys, key, kinds, wanted) for key in keys if key != "distribution"}
        self.ranges(keys, name, distribution, numbers)
        return Parameter(path, distribution, numbers=numbers, line=at.start_mark.line + 1)

    def distribution(self, at: yaml.Node, keys: Keys, name: str) -> str:
        """Return the distribution that the file names, or else the one that W&B infers from the keys."""
        stated = self.choice(keys, "distribution", DISTRIBUTIONS)
        if stated is not None:
            return stated
        if "value" in keys:
            return "constant"
        if "values" in keys:
            return "categorical_w_probabilities" if "probabilities" in keys else "categorical"
        if "min" not in keys or "max" not in keys:
            self.refuse(at, f"{name} does not say what to try: give value, values, min and max, or a distribution")
        if set(keys) > {"min", "max"}:
            more = ", ".join(sorted(set(keys) - {"min", "max"}))
            self.refuse(at, f"{name}: with {more} and min and max, distribution must be given")
        bounds = [self.typed(keys, key, (int, float), "a number") for key in ("min", "max")]
        return "int_uniform" if all(isinstance(bound, int) for bound in bounds) else "uniform"

    def probabilities(self, keys: Keys, name: str, length: int) -> tuple[int | float, ...]:
        given = self.typed(keys, "probabilities", list, "a list of numbers") or []
        if "probabilities" in keys:
            at = keys["probabilities"][0]
            if any(isinstance(p, bool) or not isinstance(p, int | float) or p < 0 for p in given):
                self.refuse(at, f"{name}: the probabilities {given} must be numbers from 0 to 1")
            if len(given) != length:
                self.refuse(at, f"{name}: {len(given)} probabilities for {length} values: give one for each value")
            if not math.isclose(sum(given), 1, rel_tol=0, abs_tol=1.001e-5):  # as numpy.isclose in W&B
                self.refuse(at, f"{name}: the probabilities add up to {sum(given):g}: they must add up to 1")
        return tuple(given)

    def ranges(self, keys: Keys, name: str, distribution: str, numbers: Mapping[str, int | float]) -> None:
        for key in ("q", "sigma", "a", "b"):
            if numbers.get(key, 1) <= 0:
                self.refuse(keys[key][0], f"{name}: {key} is {numbers[key]}: it must be above 0")
        low, high = numbers.get("min", 0), numbers.get("max", 1)
        if low >= high:
            self.refuse(keys["min"][0], f"{name}: min {low} is not less than max {high}")
        if distribution.endswith("log_uniform_values") and low <= 0:
            self.refuse(keys["min"][0], f"{name}: min {low} has no logarithm: {distribution} needs a min above 0")
        if distribution.endswith(("log_uniform", "log_normal")):
            spread = abs(numbers.get("mu", 0)) + 9 * numbers.get("sigma", 0)  # no draw in double precision lies farther
            if max(-low, high, spread) > _EXPONENT_LIMIT:
                hint = (
                    f"{distribution} takes exponents of e, within ±{_EXPONENT_LIMIT}; log_uniform_values takes limits"
                )
                self.refuse(next(iter(keys.values()))[0], f"{name}: {hint} of the value itself")

    def searchable(self, parameter: Parameter, method: str, known: Collection[str] | None) -> None:
        """Refuse a parameter that the method cannot search, or a name that the configuration does not have."""
        if known is not None and parameter.name not in known and parameter.path[-1] not in known:
            group = parameter.values and all(isinstance(value, dict) and value for value in parameter.values)
            for name in dict.fromkeys(name for value in parameter.values for name in value) if group else ():
                if name not in known:
                    self.refuse(parameter.line, f"unknown setting {name!r} in {parameter.name}: {_hint(name, known)}")
            if not group:
                self.refuse(parameter.line, f"unknown parameter {parameter.name!r}: {_hint(parameter.name, known)}")
        if method == "grid" and parameter.distribution not in _GRID:
            hint = "give values, whole-number min and max, or q_uniform with min, max and q; or use method random"
            self.refuse(parameter.line, f"{parameter.name}: a grid cannot go through {parameter.distribution}: {hint}")
        if method == "grid" and "min" in parameter.numbers:
            low, high, q = parameter.numbers["min"], parameter.numbers["max"], parameter.numbers.get("q", 1)
            if (high - low) / q > _GRID_LIMIT:
                self.refuse(parameter.line, f"{parameter.name}: over {_GRID_LIMIT:,} values are too many for a grid")


def _hint(name: str, known: Collection[str]) -> str:
    return nearest(name, known) + f"the configuration has {', '.join(sorted(known))}"
