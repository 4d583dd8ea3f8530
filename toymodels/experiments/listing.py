"""List the runs and sweeps below a folder, and compare two runs, from their records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from toymodels.errors import InputError, NoEffectError
from toymodels.runs.identity import NOT_IN_IDENTITY
from toymodels.runs.metrics import ABOUT, all_metrics, check_metric, error_label
from toymodels.runs.record import load_config, read_sessions
from toymodels.runs.storage import read_json
from toymodels.runs.table import Row, hashable, levels, parse_value, read_result
from toymodels.runs.text import listed, number, render
from toymodels.theory.statistics import mean_interval

MAIN = ("m", "d", "s", "task", "seeds")
"""Settings that every listing shows."""
MOST = 6
"""Further settings that a listing shows, if runs differ in them."""
STATES = ("finished", "stopped early", "unfinished", "failed", "unreadable")
_NETWORK = ("task", "first_layer", "readoff")


@dataclass(frozen=True)
class RunsConfig:
    """List the runs and sweeps below a folder with their state and least error, or compare two runs."""

    folder: tyro.conf.Positional[Path]
    """Folder of runs or sweeps."""
    where: tuple[str, ...] = ()
    """Only runs with SETTING=VALUE, as in --where m=50 kind=compare state=finished; of a list, one value is enough."""
    sort: tuple[str, ...] = ()
    """Sort by these: settings, name, kind, state or worst_error; default: by name."""
    descending: bool = False
    """Sort from the largest to the smallest."""
    compare: tuple[str, ...] = ()
    """Names of two runs: print in which settings, versions and errors they differ."""
    metric: str = "worst_error"
    """The error that --compare compares."""

    def __post_init__(self) -> None:
        check_metric(self.metric)
        if not self.compare and self.metric != RunsConfig.metric:
            raise NoEffectError(
                f"metric {self.metric} is what --compare compares: name two runs in it, or leave metric out"
            )
        if self.compare and (self.where or self.sort or self.descending):
            raise NoEffectError("where, sort and descending are of the list, and --compare prints none: leave them out")
        if self.compare and len(self.compare) != 2:
            raise InputError(f"--compare {' '.join(self.compare)}: name two runs, as the list of the folder names them")


@dataclass(frozen=True)
class Run:
    """A run, as far as its record can be read."""

    name: str
    """Its folder, from the folder that is listed."""
    path: Path
    kind: str | None
    state: str
    """One of STATES."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    """Its results, if it is finished."""
    reason: str = ""
    """Why it failed or cannot be read."""

    @property
    def best(self) -> tuple[float | None, str]:
        """The least worst error, a mean over seeds, and its network in words."""
        errors = _by_network(self.rows, "worst_error", _about(self.rows))
        if not errors:
            return None, ""
        means = {network: sum(by_seed.values()) / len(by_seed) for network, by_seed in errors.items()}
        task, *parts = least = min(means, key=means.__getitem__)
        several = f" ({task})" if len({network[0] for network in errors}) > 1 else ""
        return means[least], "/".join(parts) + several

    @property
    def values(self) -> dict[str, Any]:
        """What runs can be chosen and sorted by."""
        about = {"name": self.name, "kind": self.kind, "state": self.state}
        return {**self.settings, **about, "worst_error": self.best[0]}


def list_runs(folder: Path) -> list[Run]:
    """Return all runs below a folder, which may be one itself, by name. Raises InputError for a folder without any."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name one with runs or sweeps")
    failures = {(path.parent.parent, path.stem): path for path in folder.rglob("failed/*.json")}
    runs = []
    for config in folder.rglob("config.json"):
        failure = failures.pop((config.parent.parent.parent, config.parent.name), None)
        runs.append(_read(folder, config.parent, failure))
    runs += [_failed(folder, path) for path in failures.values()]
    if not runs:
        raise InputError(f"{folder} holds no run: name a folder with runs or sweeps")
    return sorted(runs, key=lambda run: run.name)


def _name(folder: Path, run: Path) -> str:
    return run.relative_to(folder).as_posix() if run != folder else folder.resolve().name


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: hashable(value) for name, value in config.items() if name not in NOT_IN_IDENTITY}


def _read(folder: Path, path: Path, failure: Path | None) -> Run:
    name = _name(folder, path)
    try:
        saved = load_config(path)
        about = (name, path, saved.kind)
        settings = _settings(saved.config)
        if (path / "results.json").exists():
            rows = read_result(path)["rows"]
            early = any(row.get("stopped_at") is not None for row in rows)
            return Run(*about, "stopped early" if early else "finished", settings, rows)
    except InputError as error:
        return Run(name, path, None, "unreadable", reason=str(error))
    if failure is None:
        return Run(*about, "unfinished", settings)
    return Run(*about, "failed", settings, reason=_failed(folder, failure).reason)


def _failed(folder: Path, path: Path) -> Run:
    """Return a run of which only the reason of its failure is there."""
    name = _name(folder, path.with_suffix(""))
    try:
        content = read_json(path, ("reason", "config"))
        settings = _settings(content["config"]) if isinstance(content["config"], dict) else {}
    except InputError as error:
        return Run(name, path, None, "unreadable", reason=str(error))
    kind = None
    with suppress(InputError):
        kind = str(read_json(path.parent.parent / "sweep.json", ("kind",))["kind"])
    return Run(name, path, kind, "failed", settings, reason=str(content["reason"]))


def choose(runs: Sequence[Run], conditions: Sequence[str]) -> list[Run]:
    """Keep the runs that meet every condition SETTING=VALUE; a list meets it also with one of its values.

    Raises InputError for a condition that is malformed or that no run meets.
    """
    for condition in conditions:
        name, equals, written = condition.partition("=")
        _check_known(runs, name if equals else "", f"--where {condition}")
        value = parse_value(written)
        kept = [run for run in runs if _meets(run.values.get(name), value) or _meets(run.values.get(name), written)]
        if not kept:
            known = ", ".join(map(_shown, levels([run.values for run in runs], name)))
            raise InputError(f"no run has {condition}: {name} is {known or 'set in none'}")
        runs = kept
    return list(runs)


def _meets(value: Any, wanted: Any) -> bool:
    return bool(value == wanted) or (isinstance(value, tuple) and wanted in value)


def _check_known(runs: Sequence[Run], name: str, option: str) -> None:
    known = sorted({column for run in runs for column in run.values})
    if name not in known:
        raise InputError(f"{option} names nothing that runs have: choose from {', '.join(known)}")


def arrange(runs: Sequence[Run], columns: Sequence[str], descending: bool = False) -> list[Run]:
    """Sort runs by columns; those without a value come last."""
    runs = list(runs)
    for column in reversed(columns):
        _check_known(runs, column, f"--sort {column}")
        known = levels([run.values for run in runs], column)
        order = {value: place for place, value in enumerate(known[::-1] if descending else known)}
        places = {run.name: order.get(run.values.get(column), len(order)) for run in runs}
        runs.sort(key=lambda run: places[run.name])
    return runs if columns or not descending else runs[::-1]


def run_listing(config: RunsConfig) -> str:
    """List the runs that a configuration asks for, or compare its two."""
    runs = list_runs(config.folder)
    if config.compare:
        a, b = (_find(runs, name) for name in config.compare)
        return compare(a, b, config.metric)
    shown = arrange(choose(runs, config.where), config.sort, config.descending)
    return "\n\n".join(filter(None, [_sweeps(config.folder, runs), describe(shown)]))


def describe(runs: Sequence[Run]) -> str:
    """Write runs as a table: state, main settings, settings in which they differ, the least worst error and its network."""
    varying = [name for name in _varying(runs) if name not in MAIN]
    names = [*(name for name in MAIN if any(name in run.settings for run in runs)), *varying[:MOST]]
    lines = []
    for run in runs:
        error, network = run.best
        settings = [_shown(run.settings.get(name)) for name in names]
        lines.append([run.name, run.kind or "-", run.state, *settings, number(error), network])
    header = ["run", "kind", "state", *names, "least worst error", "of"]
    states = Counter(run.state for run in runs)
    counts = ", ".join(f"{states[state]:,} {state}" for state in STATES if states[state])
    notes = [f"{len(runs):,} run{'s' if len(runs) > 1 else ''}: {counts}"]
    if len(varying) > MOST:
        notes.append(f"further settings in which they differ: {', '.join(varying[MOST:])}")
    notes += [f"{run.name}: {run.reason.strip().partition(chr(10))[0]}" for run in runs if run.reason]
    numbers = [i for i, name in enumerate(header) if name in ("m", "d", "s", "least worst error")]
    return f"{render(header, lines, right=numbers)}\n\n" + "\n".join(notes)


def _varying(runs: Sequence[Run]) -> list[str]:
    """Return the settings in which runs of one kind differ; one that a record does not name counts for nothing."""
    found: dict[str, dict[str | None, set[Any]]] = {}
    for run in runs:
        for name, value in run.settings.items():
            found.setdefault(name, {}).setdefault(run.kind, set()).add(value)
    return [name for name, by_kind in found.items() if any(len(values) > 1 for values in by_kind.values())]


def _sweeps(folder: Path, runs: Sequence[Run]) -> str:
    """Write a line for each sweep; "" if there is none."""
    lines = []
    for path in sorted(folder.rglob("sweep.json")):
        with suppress(InputError):
            content = read_json(path, ("kind", "sweep"))
            states = Counter(run.state for run in runs if path.parent in run.path.parents)
            counts = [f"{states[state]:,}" for state in STATES]
            lines.append([_name(folder, path.parent), str(content["kind"]), _method(content["sweep"]), *counts])
    return render(["sweep", "kind", "method", *STATES], lines, right=range(3, 8)) if lines else ""


def _method(sweep: Any) -> str:
    return str(sweep.get("method", "-")) if isinstance(sweep, dict) else "-"


def _shown(value: Any) -> str:
    """Write a setting, long lists shortened."""
    if isinstance(value, tuple) and len(value) > 8:
        return f"{listed(value[:4])},… ({len(value)})"
    return listed(value)


def _find(runs: Sequence[Run], name: str) -> Run:
    """Return the run of this name: a path from the folder, or its last part."""
    wanted = name.rstrip("/")
    found = [run for run in runs if run.name == wanted] or [run for run in runs if run.path.name == wanted]
    if len(found) != 1:
        known = ", ".join(run.name for run in runs[:5]) + (", …" if len(runs) > 5 else "")
        what = "is the name of no run" if not found else f"is the name of {len(found)} runs"
        raise InputError(f"{name} {what}: name one as the list does, such as {known}")
    if not found[0].settings:
        raise InputError(f"{name} cannot be compared: {found[0].reason}")
    return found[0]


def compare(a: Run, b: Run, metric: str = "worst_error") -> str:
    """Write in what two runs differ: settings, code and versions, and an error of each network that both have."""
    parts = [f"A: {a.name} ({a.kind}, {a.state})\nB: {b.name} ({b.kind}, {b.state})"]
    for noun, of_a, of_b in (
        ("settings", {"kind": a.kind, **a.settings}, {"kind": b.kind, **b.settings}),
        ("code and versions", _versions(a.path), _versions(b.path)),
    ):
        both = {name: (listed(of_a.get(name)), listed(of_b.get(name))) for name in {**of_a, **of_b}}
        lines = [(name, *values) for name, values in both.items() if values[0] != values[1]]
        parts.append(render((f"{noun} that differ", "A", "B"), lines) if lines else f"The same {noun}.")
    if not (a.rows and b.rows):
        without = [f"{letter} is {run.state}" for letter, run in (("A", a), ("B", b)) if not run.rows]
        return "\n\n".join([*parts, f"No errors to compare: {' and '.join(without)}"])
    return "\n\n".join([*parts, *_errors(a, b, metric)])


def _versions(path: Path) -> dict[str, Any]:
    """Return the versions of a run's last session, its commit and the code of its plugins."""
    versions: dict[str, Any] = {}
    with suppress(InputError):
        versions["plugin code"] = tuple(digest[:8] for digest in load_config(path).plugin_code) or None
    with suppress(InputError):
        session = read_sessions(path / "environment.json")[-1]
        versions |= {"commit": session.get("commit"), "python": session.get("python"), **session["packages"]}
    return versions


def _errors(a: Run, b: Run, metric: str) -> Iterator[str]:
    """Write one error of the networks that both runs have, and name the networks that only one has."""
    columns = list(dict.fromkeys([*_about(a.rows), *_about(b.rows)]))
    of_a, of_b = (_by_network(run.rows, metric, columns) for run in (a, b))
    lines, same, most = [], True, 0
    for network in (network for network in of_a if network in of_b):
        seeds = [seed for seed in of_a[network] if seed in of_b[network]]
        if not seeds:
            continue
        most = max(most, len(seeds))
        pairs = [(of_a[network][seed], of_b[network][seed]) for seed in seeds]
        same &= all(first == second for first, second in pairs)
        mean, half = mean_interval([second - first for first, second in pairs])
        means = [number(sum(column) / len(column)) for column in zip(*pairs, strict=True)]
        difference = f"{mean:+.4f}" + (f" ±{half:.4f}" if half is not None else "")
        lines.append([*network, str(len(seeds)), *means, difference])
    label = error_label(metric)
    if lines:
        about = [name.replace("first_", "") for name in columns]
        header = [*about, "seeds", f"{label} in A", "in B", "B − A"]
        several = "means over the seeds that both have, ± 95 % t intervals"
        of_seeds = several if most > 1 else "of the one seed that both have"
        verdict = "the same to the last digit" if same else of_seeds
        yield f"{render(header, lines, right=range(len(about), len(header)))}\n\n{label}: {verdict}"
    else:
        yield f"No network is in both with the same seed and has a {label}."
    for letter, own, others in (("A", of_a, of_b), ("B", of_b, of_a)):
        alone = ["/".join(network) for network in own if network not in others]
        if alone:
            yield f"only in {letter}: {', '.join(alone)}"


def _about(rows: Sequence[Row]) -> list[str]:
    """Return the columns that say what each row of a run measures: its network, and what else differs (dictionaries, say)."""
    others = [name for name in (rows[0] if rows else ()) if name not in {*_NETWORK, *ABOUT, *all_metrics(rows)}]
    return [*_NETWORK, *(name for name in others if len({str(row.get(name)) for row in rows}) > 1)]


def _by_network(rows: Sequence[Row], metric: str, columns: Sequence[str]) -> dict[tuple[str, ...], dict[int, float]]:
    """Return the errors by the values of columns, and by seed."""
    errors: dict[tuple[str, ...], dict[int, float]] = {}
    for row in rows:
        if row.get(metric) is not None:
            errors.setdefault(tuple(str(row.get(name)) for name in columns), {})[row["seed"]] = row[metric]
    return errors
