"""Plan a sweep file's runs, and refuse a file that asks for an impossible run before the first one starts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toymodels.errors import InputError, nearest
from toymodels.experiments.registry import EXPERIMENTS, Experiment, summary_of
from toymodels.registry import load_plugins, plugin_digest
from toymodels.runs.identity import KNOB, from_dict
from toymodels.runs.record import run_name
from toymodels.runs.table import read_result
from toymodels.sweeps.definition import Parameter, Sweep, read_sweep
from toymodels.sweeps.search import random_configuration, search

CHECKED = 1000
"""The most configurations that are checked before the first run."""
EARLY_METRIC = "worst_error"
"""The one metric that is logged during a training and reported at its end."""
_NOT_SWEPT = ("out", "json", "threads")  # the runner sets them itself


@dataclass(frozen=True)
class Plan:
    """A sweep of runs of one kind."""

    sweep: Sweep
    kind_name: str
    """A name in EXPERIMENTS."""
    wandb: str | None = None
    """The setting `wandb` of every run whose configuration does not set it."""
    plugin: tuple[Path, ...] = ()
    """Plugins of every run, in addition to those that the file names."""

    @property
    def kind(self) -> Experiment:
        """The kind of every run."""
        return EXPERIMENTS[self.kind_name]

    def values(self, suggested: dict[str, Any]) -> dict[str, Any]:
        """Return the configuration of a run as a dictionary, without its folder."""
        own = {"wandb": self.wandb, "figures": False}
        known = self.kind.config.__dataclass_fields__
        values = {**{key: value for key, value in own.items() if key in known}, **suggested, "threads": 1}
        named = [plugin_path(name, self.sweep.path) for name in values.get("plugin", ())]
        plugins = dict.fromkeys([*(path.resolve() for path in self.plugin), *named])
        # Absolute paths, because workers on other machines have another current folder.
        return {**values, "plugin": [str(path) for path in plugins]} if plugins else values

    @property
    def plugin_code(self) -> list[str]:
        """The digests of the code of all plugins."""
        named = [name for p in self.sweep.parameters if p.name == "plugin" for names in p.values for name in names]
        paths = [*self.plugin, *(plugin_path(name, self.sweep.path) for name in named)]
        return sorted({plugin_digest(path) for path in paths})

    def make(self, suggested: dict[str, Any]) -> Any:
        """Make a configuration. Raises InputError for values that it cannot have."""
        return from_dict(self.kind.config, self.values(suggested))

    def name(self, suggested: dict[str, Any]) -> str:
        """Return the run's name, which depends on its configuration alone. Raises InputError as `make` does."""
        return run_name(self.kind_name, self.make(suggested))

    def result(self, folder: Path) -> dict[str, Any] | None:
        """Read the result of a run, None if it is not finished. Raises InputError for one that cannot be read."""
        return read_result(folder) if (folder / "results.json").exists() else None

    def metric(self, result: dict[str, Any]) -> float | None:
        """Return the sweep's metric in the result of a run; None where it has no value, such as a ratio to 0."""
        assert self.sweep.metric is not None
        value: Any = summary_of(self.kind, result)
        for part in self.sweep.metric.name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return float(value) if isinstance(value, (int, float)) else None


def plugin_path(name: str, sweep_file: Path) -> Path:
    """Return the path of a plugin that a sweep file names: beside the file, or else in the current folder."""
    beside = sweep_file.parent / name
    return (beside if beside.is_file() else Path(name)).resolve()


def read_plan(
    path: Path, count: int | None, seed: int, wandb: str | None = None, plugin: tuple[Path, ...] = ()
) -> Plan:
    """Read the plan of a file. Raises InputError, with the line, for one that cannot be run.

    The first CHECKED configurations of a grid or random search must all be valid; bayes may suggest invalid ones, and learns
    that they fail.
    """
    sweep = read_sweep(path)
    words = [word for word in sweep.command or () if word not in ("${env}", "${interpreter}", "-m")]
    if len(words) != 4 or words[1] != "run" or words[3] != "${args_json_file}":
        reason = "does not say what to run" if sweep.command is None else "has another command than `toymodels run`"
        command = 'command: ["${env}", "toymodels", "run", "train", "${args_json_file}"]'
        sweep.refuse(_line(path, "command"), f"the file {reason}: give {command}, or compare in place of train")
    load_plugins(plugin)
    _load_plugins(sweep, path)
    if words[2] not in EXPERIMENTS:
        names = ", ".join(EXPERIMENTS)
        sweep.refuse(_line(path, "command"), f"unknown kind of run {words[2]!r}: choose one of {names}")
    known = set(EXPERIMENTS[words[2]].config.__dataclass_fields__) - set(_NOT_SWEPT)
    if "knobs" in known:
        from toymodels.core.layers import LAYERS

        known |= {KNOB + knob for member in LAYERS.values() for knob in member.knobs}
    plan = Plan(read_sweep(path, known), words[2], wandb, plugin)
    if sweep.early_terminate is not None and not plan.kind.one_history:
        reason = f"early_terminate is for runs that train one network (train), which a {plan.kind_name} does not"
        sweep.refuse(_line(path, "early_terminate"), f"{reason}: leave it out")
    if sweep.method != "grid" and count is None and sweep.run_cap is None:
        reason = f"a {sweep.method} search has no end of its own"
        sweep.refuse(_line(path, "method"), f"{reason}: give --count, or run_cap here")
    most = min(limit for limit in (count, sweep.run_cap, CHECKED) if limit is not None)
    summary = _check_configurations(plan, most, seed)
    metric = sweep.metric
    if metric is not None and sweep.early_terminate is not None and metric.name != EARLY_METRIC:
        sweep.refuse(metric.line, f"early_terminate goes by {EARLY_METRIC}, which runs log while they train: name that")
    if metric is not None and summary and metric.name not in summary:
        hint = nearest(metric.name, summary)
        sweep.refuse(metric.line, f"no run has a metric {metric.name!r}: {hint}there are {', '.join(summary)}")
    return plan


def _load_plugins(sweep: Sweep, path: Path) -> None:
    """Load the plugins that the file names for all of its runs, so that it can name what they register."""
    for parameter in sweep.parameters:
        if parameter.name == "plugin":
            for names in parameter.values:
                if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                    sweep.refuse(parameter.line, f"plugin is {names!r}: it must be a list of files, such as [mylab.py]")
                try:
                    load_plugins([plugin_path(name, path) for name in names])
                except InputError as error:
                    sweep.refuse(parameter.line, str(error))


def _check_configurations(plan: Plan, most: int, seed: int) -> tuple[str, ...]:
    """Check the first `most` configurations, and return the names of the metrics that some of the runs have."""
    sweep, summary = plan.sweep, dict[str, None]()
    grid = search(sweep) if sweep.method == "grid" else None
    for number in range(most):
        suggested = grid.suggest(number) if grid else random_configuration(sweep, seed, number)
        if suggested is None:
            break
        try:
            config = plan.make(suggested)
        except InputError as error:
            if sweep.method == "bayes":
                continue
            sweep.refuse(_blamed(plan, suggested, str(error)), f"run {number} cannot be made: {error}")
        if sweep.early_terminate is not None and len(config.seeds) != 1:
            line = next(p.line for p in sweep.parameters if p.name == "seeds")
            sweep.refuse(line, "early_terminate needs one seed a run: list seeds as values, such as values: [[0], [1]]")
        if plan.kind.summary_names is not None:
            summary |= dict.fromkeys(plan.kind.summary_names(config))
    return tuple(summary)


def _blamed(plan: Plan, suggested: dict[str, Any], sentence: str) -> int:
    """Return the line of the parameter that is invalid even alone, or else of the one that the sentence names."""

    def alone(parameter: Parameter) -> str:
        try:
            from_dict(plan.kind.config, {parameter.name: suggested[parameter.name]})
        except InputError as error:
            return str(error)
        return ""

    parameters = plan.sweep.parameters
    guilty = [p for p in parameters if alone(p) == sentence]
    named = {m.start(): p for p in parameters if (m := re.search(rf"\b{re.escape(p.name)}\b", sentence))}
    return (guilty or [named[at] for at in sorted(named)] or list(parameters))[0].line


def _line(path: Path, key: str) -> int:
    """Return the line of a key at the top level of the file, 1 if it is missing."""
    lines = path.read_text("utf-8-sig").splitlines()
    return next((i for i, text in enumerate(lines, 1) if re.match(rf"['\"]?{key}['\"]?\s*:", text)), 1)
