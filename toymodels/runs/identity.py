"""Turn configurations into plain data and back, and tell which settings make two runs the same."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from toymodels.errors import InputError
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
    """Make a configuration from a dictionary (a record, a sweep). Raises InputError for an unknown key or a wrong value."""
    values = upgraded(values)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]  # every configuration is a dataclass
    if "knobs" in names:
        knobs = {key: values.pop(key) for key in list(values) if key.startswith(KNOB) and key not in names}
        set_knobs = {key.removeprefix(KNOB): value for key, value in knobs.items() if value is not None}
        values["knobs"] = {**set_knobs, **(values.get("knobs") or {})}
    try:
        config: C = _reader(cls).validate_python(values)  # type: ignore[arg-type]  # a class can be hashed
        return config
    except _validation_error() as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InputError):
            raise cause from None
        key = str(first["loc"][0]) if first["loc"] else "configuration"
        if first["type"] == "unexpected_keyword_argument":
            raise InputError(f"unknown key {key!r} in the configuration: the keys are {', '.join(names)}") from None
        raise InputError(f"the value {first['input']!r} of {key!r} is not valid: {first['msg']}") from None


def _validation_error() -> Any:
    from pydantic import ValidationError

    return ValidationError


@functools.cache
def _reader(cls: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)
