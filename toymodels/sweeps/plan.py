"""Plan a sweep file's runs, and refuse a file that asks for an impossible run before the first one starts."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toymodels.core.layers import LAYERS
from toymodels.errors import InputError, check_device, nearest
from toymodels.experiments.registry import EXPERIMENTS, Experiment, summary_of, without_effect
from toymodels.given import converted, refuse_all
from toymodels.registry import load_plugins, plugin_digest
from toymodels.runs.identity import KNOB, from_dict, identity, spread
from toymodels.runs.record import run_name
from toymodels.runs.table import read_result
from toymodels.runs.tracking import wandb_mode
from toymodels.sweeps.definition import IGNORED, Sweep, SweepFile
from toymodels.sweeps.search import random_configuration, search
from toymodels.sweeps.yaml_file import read_settings

CHECKED = 1000
"""The most configurations that are checked before the first run."""
EARLY_METRIC = "worst_error"
"""The one metric that is logged during a training and reported at its end."""
MOST_RUNS = 1_000_000
"""The most runs of a grid, unless their number is limited."""
ENDLESS = sys.maxsize
_SHOWN = 10
"""The most sentences about impossible runs."""
_NOT_SWEPT = ("out", "json", "threads")  # the runner sets them itself
_COMMAND = 'command: ["${env}", "toymodels", "run", "train", "${args_json_file}"]'
_LAUNCHERS = (
    "env", "uv", "uvx", "poetry", "pipenv", "pdm", "hatch", "rye", "pixi", "conda", "mamba", "micromamba", "srun", "nice",
    "ionice", "nohup", "time", "timeout", "taskset", "numactl", "singularity", "apptainer",
)  # fmt: skip
"""Programs that may stand before our command, with options of their own."""
_PYTHON = re.compile(r"python[\d.]*\Z|\$\{interpreter\}\Z")


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
    base: Mapping[str, Any] = field(default_factory=dict)
    """Settings of every run, from the base files that the command names; parameters go before them."""
    skip: bool = False
    """Whether impossible runs are left out."""
    survey: Survey | None = None
    """What the first configurations are like."""

    @property
    def kind(self) -> Experiment:
        """The kind of every run."""
        return EXPERIMENTS[self.kind_name]

    def values(self, suggested: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of a run as a dictionary, without its folder."""
        known = self.kind.config.__dataclass_fields__
        settings, problems = spread(suggested, known)
        refuse_all(problems)
        own = {key: value for key, value in (("wandb", self.wandb), ("figures", False)) if key in known}
        values = {**own, **self.base, **settings, "threads": 1}
        if isinstance(values.get("inputs"), str):
            values["inputs"] = _inputs_beside(values["inputs"], self.sweep.path)
        listed = values.get("plugin", ())
        named = [plugin_path(name, self.sweep.path) for name in ([listed] if isinstance(listed, str) else listed)]
        plugins = dict.fromkeys([*(path.resolve() for path in self.plugin), *named])
        # Absolute paths, because workers on other machines have another current folder.
        return {**values, "plugin": [str(path) for path in plugins]} if plugins else values

    @property
    def environment(self) -> dict[str, str]:
        """The project and entity of the file, as W&B reads them from the environment of a run."""
        named = {"WANDB_PROJECT": self.sweep.project, "WANDB_ENTITY": self.sweep.entity}
        return {key: text for key, text in named.items() if text is not None}

    @property
    def plugin_code(self) -> list[str]:
        """The digests of the code of all plugins."""
        named = [path for names in _plugin_lists(self.sweep, self.base) for path in names]
        paths = [*self.plugin, *(plugin_path(name, self.sweep.path) for name in named)]
        return sorted({plugin_digest(path) for path in paths})

    def make(self, suggested: Mapping[str, Any]) -> Any:
        """Make a configuration. Raises InputError for values that it cannot have, or that would change nothing."""
        config = from_dict(self.kind.config, self.values(suggested))
        self.kind.check(config)
        without_effect(config)
        return config

    def name(self, suggested: Mapping[str, Any]) -> str:
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


@dataclass
class Survey:
    """What the first CHECKED configurations of a plan are like."""

    names: dict[str, float] = field(default_factory=dict)
    """The names of the different runs, and the estimated seconds of each."""
    impossible: dict[str, list[tuple[int, dict[str, Any]]]] = field(default_factory=dict)
    """Why runs of a grid or random search cannot be made, and their numbers and configurations."""
    equal: list[str] = field(default_factory=list)
    """Sentences about runs that compute the same as an earlier one."""
    checked: int = 0
    metrics: dict[str, None] = field(default_factory=dict)
    """The names of the metrics that some of the runs have."""
    notes: list[str] = field(default_factory=list)
    """What the file says that has no effect."""


def plugin_path(name: str | Path, sweep_file: Path) -> Path:
    """Return the path of a plugin or base file that a sweep file names: beside the file, or else in the current folder."""
    beside = sweep_file.parent / name
    return (beside if beside.is_file() else Path(name)).resolve()


def _inputs_beside(inputs: str, sweep_file: Path) -> str:
    """Return the name of a source of inputs with the path of the file that it names, if that lies beside the sweep file."""
    for name in re.findall(r"[^(,=\s]+\.(?:csv|json)(?=\s*[,)])", inputs):
        path = str(plugin_path(name, sweep_file))
        if not Path(name).is_file() and Path(path).is_file() and not set(path) & set("(),="):
            return inputs.replace(name, path)
    return inputs


def most_runs(sweep: Sweep, count: int | None) -> int:
    """Return the least of `count`, run_cap and the size of a grid; ENDLESS if there is none of them."""
    grid = math.prod(map(len, search(sweep).axes)) if sweep.method == "grid" else None
    return min((limit for limit in (count, sweep.run_cap, grid) if limit is not None), default=ENDLESS)


def read_plan(
    path: Path,
    count: int | None,
    seed: int,
    wandb: str | None = None,
    plugin: tuple[Path, ...] = (),
    skip: bool = False,
    here: bool = True,
) -> Plan:
    """Read the plan of a file. Raises InputError, with a line for each problem, for one that cannot be run.

    The first CHECKED configurations of a grid or random search must all be valid, unless impossible ones are to be skipped;
    bayes may suggest invalid ones, and learns that they fail. `here`: whether runs are done on this machine.
    """
    file = SweepFile(path)
    sweep = file.sweep()
    kind = ""
    bases: list[str] = []
    more: list[str] = []
    load_plugins(plugin)
    with file.collected():
        kind, bases, more = _command(sweep, file)
    plugin = (*plugin, *(plugin_path(name, path) for name in more))
    load_plugins(plugin)
    base: dict[str, Any] = {}
    for name in bases:
        base |= read_settings(plugin_path(name, path))
    _load_plugins(sweep, base, file)
    with file.collected():
        if kind and kind not in EXPERIMENTS:
            hint = f"{nearest(kind, EXPERIMENTS)}choose one of {', '.join(EXPERIMENTS)}"
            file.refuse(file.lines["command"], f"unknown kind of run {kind!r}: {hint}")
    if kind not in EXPERIMENTS:
        file.check_names(sweep, None)
        file.refuse_collected()
    config = EXPERIMENTS[kind].config
    _check_parameters(sweep, config, file)
    if EXPERIMENTS[kind].one_history is False and sweep.early_terminate is not None:
        with file.collected():
            reason = f"early_terminate is for runs that train one network (train), which a {kind} does not"
            file.refuse(file.lines["early_terminate"], f"{reason}: leave it out")
    if sweep.method in ("random", "bayes") and most_runs(sweep, count) == ENDLESS:
        with file.collected():
            reason = f"a {sweep.method} search has no end of its own"
            file.refuse(file.lines["method"], f"{reason}: give --count, or run_cap here")
    file.refuse_collected()
    base, problems = spread(base, config.__dataclass_fields__)
    for name in _NOT_SWEPT:
        problems += [f"{name} is set by the sweep itself: leave it out of the base file"] if name in base else []
    refuse_all(problems)
    plan = Plan(sweep, kind, wandb, plugin, base, skip)
    if count is None and sweep.run_cap is None and (size := most_runs(sweep, None)) > MOST_RUNS:
        reason = f"the grid has {size:,} runs, more than {MOST_RUNS:,}: give fewer values, or --count"
        file.refuse(file.lines["parameters"], reason)
    survey = _survey(plan, min(most_runs(sweep, count), CHECKED), seed, file, here)
    metric = sweep.metric
    with file.collected():
        if metric is not None and sweep.early_terminate is not None and metric.name != EARLY_METRIC:
            reason = f"early_terminate goes by {EARLY_METRIC}, which runs log while they train: name that"
            file.refuse(metric.line, reason)
        if metric is not None and survey.metrics and metric.name not in survey.metrics:
            hint = f"{nearest(metric.name, survey.metrics)}there are {', '.join(survey.metrics)}"
            file.refuse(metric.line, f"no run has a metric {metric.name!r}: {hint}")
    file.refuse_collected()
    survey.notes += _notes(plan, file)
    return dataclasses.replace(plan, survey=survey)


def _command(sweep: Sweep, file: SweepFile) -> tuple[str, list[str], list[str]]:
    """Return (kind of run, base files, plugins) of the command. Launchers may stand before it."""
    line = file.lines.get("command", 1)
    if sweep.command is None:
        if "command" in file.lines:  # it is no list of words, and this has been said
            return "", [], []
        file.refuse(line, f"the file does not say what to run: give {_COMMAND}, or compare in place of train")
    words = [(sweep.program or word) if word == "${program}" else word for word in sweep.command if word != "${env}"]
    ours = [i for i, word in enumerate(words) if Path(word).name == "toymodels"]
    after = words[ours[-1] + 1 :] if ours else []
    if len(after) < 3 or after[0] != "run" or after[2] != "${args_json_file}":
        wanted = f"give {_COMMAND}, or compare in place of train; --base FILE after it adds settings"
        file.refuse(line, f"the file has another command than `toymodels run`: {wanted}")
    before = words[: ours[-1]]
    first = next((word for word in before if not re.match(r"[A-Za-z_]\w*=", word)), None)
    if first is not None and Path(first).name not in _LAUNCHERS and not _PYTHON.match(Path(first).name):
        known = f"use {', '.join(_LAUNCHERS)} or python -m"
        file.refuse(line, f"{first} before toymodels is no launcher known here: {known}")
    if any(_PYTHON.match(Path(word).name) for word in before) and before[-1] != "-m":
        file.refuse(line, "python does not find toymodels without -m: write python -m toymodels")
    files: dict[str, list[str]] = {"--base": [], "--plugin": []}
    for option, name in itertools.zip_longest(after[3::2], after[4::2]):
        if option not in files or name is None:
            file.refuse(line, f"{option} after the file: only --base FILE and --plugin FILE may stand there")
        files[option].append(name)
    return after[1], files["--base"], files["--plugin"]


def _check_parameters(sweep: Sweep, config: type[Any], file: SweepFile) -> None:
    """Keep as problems names that the configuration does not have, and values that its settings cannot hold."""
    known = set(config.__dataclass_fields__) - set(_NOT_SWEPT)
    if "knobs" in known:
        known |= {KNOB + knob for member in LAYERS.values() for knob in member.knobs}
    file.check_names(sweep, known)
    for parameter in sweep.parameters:
        for value in parameter.values:
            settings, problems = spread({parameter.path[-1]: value}, known)
            fields = known & config.__dataclass_fields__.keys() - {"plugin"}  # of plugins it has been said
            held = {name: item for name, item in settings.items() if name in fields}
            try:
                refuse_all(problems)
                converted(config, held)
            except InputError as error:
                for sentence in str(error).split("\n"):
                    with file.collected():
                        file.refuse(parameter.line, sentence)


def _plugin_lists(sweep: Sweep, base: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the lists of plugins that the file and its base name."""
    values = [(p.name, value) for p in sweep.parameters for value in p.values]
    given = [value for name, value in values if name == "plugin"]
    holders = [*(value for _, value in values if isinstance(value, dict)), base]
    for value in [*given, *(holder["plugin"] for holder in holders if "plugin" in holder)]:
        yield [value] if isinstance(value, str) else value


def _load_plugins(sweep: Sweep, base: Mapping[str, Any], file: SweepFile) -> None:
    """Load the plugins that the file names for all of its runs, so that it can name what they register."""
    line = next((parameter.line for parameter in sweep.parameters if parameter.name == "plugin"), 1)
    for names in _plugin_lists(sweep, base):
        with file.collected():
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                file.refuse(line, f"plugin is {names!r}: it must be a list of files, such as [mylab.py]")
            try:
                load_plugins([plugin_path(name, sweep.path) for name in names])
            except InputError as error:
                file.refuse(line, str(error))


def _survey(plan: Plan, most: int, seed: int, file: SweepFile, here: bool) -> Survey:
    """Look at the first `most` configurations. Raises InputError, once for each reason, for impossible ones."""
    sweep, survey = plan.sweep, Survey()
    grid = search(sweep) if sweep.method == "grid" else None
    seen: dict[str, int] = {}
    reasons: dict[str, str] = {}
    values = [{p.path[-1]: value} for p in sweep.parameters for value in p.values or (None,)]
    swept = {name for value in values for name in spread(value, plan.kind.config.__dataclass_fields__)[0]}
    idle: dict[str, set[str]] = {}
    for number in range(most):
        suggested = grid.suggest(number) if grid else random_configuration(sweep, seed, number)
        if suggested is None:
            break
        survey.checked += 1
        try:
            config = plan.make(suggested)
            if here:
                check_device(config.device)
        except InputError as error:
            if sweep.method != "bayes":
                reason = str(error)
                kind = re.sub(r"[-+.\d]+", "#", reason)  # the same with another number is the same reason
                reasons.setdefault(kind, reason)
                survey.impossible.setdefault(reasons[kind], []).append((number, suggested))
            continue
        if sweep.early_terminate is not None and len(config.seeds) != 1:
            line = next((p.line for p in sweep.parameters if p.name == "seeds"), 1)
            reason = "early_terminate needs one seed a run: list seeds as values, such as values: [0, 1]"
            file.refuse(line, reason)
        if plan.kind.summary_names is not None:
            survey.metrics |= dict.fromkeys(plan.kind.summary_names(config))
        name = run_name(plan.kind_name, config)
        survey.names.setdefault(name, plan.kind.seconds(config) if plan.kind.seconds else math.nan)
        without = config.idle() if hasattr(config, "idle") else {}
        for setting in swept & without.keys():
            idle.setdefault(setting, set()).add(without[setting])
        key = str(sorted((k, v) for k, v in identity(config).items() if k not in without))
        if key in seen and not plan.skip and sweep.method == "grid":
            survey.equal.append(f"runs {seen[key]} and {number}")
        seen.setdefault(key, number)
    wrong = sum(map(len, survey.impossible.values()))
    are, them = ("is", "it") if wrong == 1 else ("are", "them")
    advice = f"; {wrong:,} of {survey.checked:,} runs {are} impossible: --skip-impossible leaves {them} out"
    if not plan.skip or not survey.names:
        for reason, runs in [*survey.impossible.items()][:_SHOWN]:
            number, suggested = runs[0]
            for sentence in reason.split("\n"):
                with file.collected():
                    said = f"run {number} cannot be made: {sentence}{advice if survey.names else ''}"
                    file.refuse(_blamed(plan, suggested, sentence), said)
        file.refuse_collected()
    survey.notes += [f"{name} has no effect on some or all runs: {' or '.join(idle[name])}" for name in sorted(idle)]
    return survey


def _notes(plan: Plan, file: SweepFile) -> list[str]:
    """Say which keys of the file have no effect here, and which limits are not what they seem."""
    sweep, notes = plan.sweep, []
    ignored: list[str] = [name for name in IGNORED if name in file.lines]
    if sweep.program is not None and "${program}" not in (sweep.command or ()):
        ignored.append("program")
    if ignored:
        notes.append(f"{' and '.join(ignored)} in the file {'has' if len(ignored) == 1 else 'have'} no effect here")
    mirrored = wandb_mode(plan.wandb) != "disabled" or "wandb" in {p.name for p in sweep.parameters} | set(plan.base)
    if plan.environment and not mirrored:
        named = " and ".join(name for name in ("project", "entity") if name in file.lines)
        notes.append(f"{named} in the file: W&B gets no runs unless --wandb offline or --wandb online is given")
    idle = sweep.metric is not None and sweep.metric.target is None and sweep.early_terminate is None
    if idle and sweep.method != "bayes":
        notes.append(f"metric has no effect on a {sweep.method} search without a target: all runs are done")
    for p in sweep.parameters:
        if p.distribution in ("log_uniform", "q_log_uniform", "inv_log_uniform") and p.numbers["min"] >= 0:
            sign = -1 if p.distribution == "inv_log_uniform" else 1
            low, high = sorted(math.exp(sign * p.numbers[end]) for end in ("min", "max"))
            hint = f"so {p.name} lies between {low:.6g} and {high:.6g}: did you mean {p.distribution}_values?"
            notes.append(f"{p.name}: {p.distribution} takes exponents of e, {hint}")
    return notes


def _blamed(plan: Plan, suggested: Mapping[str, Any], sentence: str) -> int:
    """Return the line of the parameter that is invalid even alone, or else of the one that the sentence names."""

    def alone(path: tuple[str, ...]) -> str:
        value: Any = suggested
        for part in path:
            value = value[part]
        try:
            from_dict(plan.kind.config, {path[-1]: value})
        except InputError as error:
            return str(error)
        return ""

    parameters = plan.sweep.parameters
    guilty = [p for p in parameters if sentence in alone(p.path).split("\n")]
    named = {m.start(): p for p in parameters if (m := re.search(rf"\b{re.escape(p.path[-1])}\b", sentence))}
    return (guilty or [named[at] for at in sorted(named)] or list(parameters))[0].line
