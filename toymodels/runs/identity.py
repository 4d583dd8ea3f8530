"""Turn configurations into plain data and back, and tell which settings make two runs the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from toymodels.errors import InputError, NoEffectError, nearest
from toymodels.given import converted, refuse_all
from toymodels.registry import plugin_digest

C = TypeVar("C")

NOT_IN_IDENTITY = frozenset({"out", "wandb", "threads", "json", "figures", "checkpoint_seconds", "plugin"})
"""Settings that do not change what a run computes (threads change only the last digits); a plugin counts by its code."""

KNOB = "layer_"
"""Prefix of the names of first layers' knobs in records, sweeps and tables."""


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as a dictionary that JSON can hold."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    knobs = values.pop("knobs", {})
    return {**values, **{KNOB + name: value for name, value in knobs.items()}}


def identity(config: Any) -> dict[str, Any]:
    """Return the data that identify a run: the settings that are set, and the digests of its plugins' code."""
    kept = {key: value for key, value in to_dict(config).items() if key not in NOT_IN_IDENTITY and value is not None}
    code = plugin_code(config)
    return {**kept, "plugin_code": sorted(set(code))} if code else kept


def network_identity(config: Any, seed: int) -> dict[str, Any]:
    """Return the data that identify the run of a network: the settings, and its own seed in place of all seeds."""
    return {**{key: value for key, value in identity(config).items() if key != "seeds"}, "seed": seed}


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Describe in words the first thing in which two runs differ; "" if nothing does."""
    names = [name for name in {**new, **old} if new.get(name) != old.get(name)]
    return f"{names[0]} is {old.get(names[0])} there and {new.get(names[0])} here" if names else ""


def changed(config: Any) -> set[str]:
    """Return the names of the settings that are not at their defaults."""
    names = set()
    for field in dataclasses.fields(config):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if getattr(config, field.name) != default:
            names.add(field.name)
    return names


def plugin_code(config: Any) -> list[str]:
    """Return the SHA-256 digests of the code of a configuration's plugins."""
    return [plugin_digest(path) for path in getattr(config, "plugin", ())]


def short_hash(config: Any) -> str:
    """Return eight hexadecimal digits of the identity."""
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:8]


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in which settings of earlier versions have their present names."""
    values = dict(values)
    average = values.pop("average", "together")
    if average == "apart":
        values["loss"] = "lp_apart"
    elif average != "together":
        raise InputError(f"unknown average {average!r}: it is the setting loss now, lp or lp_apart")
    return values


def from_dict(cls: type[C], values: Mapping[str, Any]) -> C:
    """Make a configuration from a dictionary (a record, a sweep, JSON). A mapping under another name sets several settings.

    Raises InputError for unknown keys and wrong values, with a line for each.
    """
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]  # every configuration is a dataclass
    values, problems = spread(upgraded(values), names)
    if "knobs" in names:
        knobs = {key: values.pop(key) for key in list(values) if key.startswith(KNOB) and key not in names}
        set_knobs = {key.removeprefix(KNOB): value for key, value in knobs.items() if value is not None}
        given = values.get("knobs") or {}
        values["knobs"] = {**set_knobs, **given} if isinstance(given, Mapping) else given
    for key in [key for key in values if key not in names]:
        del values[key]
        problems.append(
            f"unknown key {key!r} in the configuration: {nearest(key, names)}the keys are {', '.join(names)}"
        )
    try:
        values = converted(cls, values)
    except InputError as error:
        problems += str(error).split("\n")
    refuse_all(problems)
    try:
        return cls(**values)
    except InputError as first:
        raise InputError("\n".join([str(first), *_further(cls, values, first)])) from None


def spread(values: Mapping[str, Any], names: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the settings, those in a mapping under another name beside the others, and sentences about any set twice."""
    settings: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in values.items():
        inner = {key: value}
        if isinstance(value, Mapping) and value and key not in names:
            inner, wrong = spread(value, names)
            problems += wrong
        problems += [f"{name} is set twice, alone or in mappings: set it once" for name in inner if name in settings]
        settings |= inner
    return settings, problems


def _further(cls: type[Any], values: Mapping[str, Any], first: InputError) -> list[str]:
    """Return what else is wrong: settings that cannot be even alone, all others at their defaults."""
    sentences: list[str] = []
    plugin = {"plugin": values["plugin"]} if "plugin" in values else {}
    for key, value in values.items():
        try:
            cls(**{**plugin, key: value})
        except NoEffectError:
            continue
        except InputError as error:
            # A sentence that is about other settings, too, may be about their defaults.
            if str(error) not in (str(first), *sentences) and _also_with_others(cls, values, key, error):
                sentences.append(str(error))
        except TypeError:  # a setting without default
            return []
    return sentences


def _also_with_others(cls: type[Any], values: Mapping[str, Any], key: str, error: InputError) -> bool:
    """Whether a setting is wrong for the same reason beside the problem's own sizes."""
    sizes = {name: values[name] for name in ("m", "d", "s", "inputs") if name in values and name != key}
    try:
        cls(**{**sizes, key: values[key]})
    except InputError as other:
        return str(other) == str(error)
    return False
