"""Read what users write: text files, JSON, and values of settings. What is wrong is said in a sentence each, all at once."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import numbers
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn, Union

from toymodels.errors import InputError

SCIENTIFIC = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+\Z")
"""A number such as 5e-4, which YAML 1.1 reads as text; W&B's agents hand it over as text, too."""


def refuse_all(problems: Iterable[str]) -> None:
    """Raise an InputError with every problem on a line of its own, if there are some."""
    if lines := list(dict.fromkeys(problems)):
        raise InputError("\n".join(lines))


# Files


def read_text(path: Path, what: str, most: int = 2**26) -> str:
    """Read a file of UTF-8 text. Raises InputError for one that is missing, is none, or has more bytes than `most`."""
    wanted = f"give the path of {what}"
    try:
        if path.exists() and not path.is_file():
            reason = "it is a folder" if path.is_dir() else "it is a pipe or a device"
            raise InputError(f"{path}: {reason}: {wanted}")
        size = path.stat().st_size
        if size > most:
            raise InputError(f"{path}: it has {size:,} bytes, more than {most:,}: {wanted}")
        raw = path.read_bytes()
    except InputError:
        raise
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise InputError(f"{path}: {'there is no such file' if missing else error.strerror}: {wanted}") from None
    except ValueError:  # a zero byte in the name
        raise InputError(f"{str(path)!r}: no file has such a name: {wanted}") from None
    wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff") or 4 * raw[:400].count(0) > len(raw[:400])
    if wide and raw.strip(b"\0"):
        reason = "the text is in UTF-16, as PowerShell writes it: save the file in UTF-8 (Out-File -Encoding utf8)"
        raise InputError(f"{path}:1: {reason}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: a byte that is not UTF-8: save the file in UTF-8") from None


def read_json_settings(path: Path) -> dict[str, Any]:
    """Read settings from a JSON file. Raises InputError for what JSON would silently drop or misread, too."""
    problems: list[str] = []

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = dict.fromkeys(name for name in names if names.count(name) > 1)
        problems.extend(f"{path}: the key {name!r} is there twice, and the first would be dropped" for name in twice)
        return dict(pairs)

    def real(text: str) -> float:
        if not math.isfinite(float(text)):
            problems.append(f"{path}: {text} is not a finite number")
        return float(text)

    text = read_text(path, "a JSON file of settings")
    if not text.strip():
        raise InputError(f"{path}: the file is empty: it must be a JSON object of settings")
    try:
        values = json.loads(text, object_pairs_hook=mapping, parse_float=real, parse_constant=real)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, or thousands of brackets
        raise InputError(f"{path}: a number or a nesting is too long to be settings") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no configuration: it must be a JSON object of its fields")
    refuse_all(problems)
    return values


# Values


class _MisfitError(Exception):
    """A value that does not fit; the message says what would."""


def conform(config: Any) -> None:
    """Convert the fields of a new configuration to what they hold. Raises InputError with every one that cannot be.

    A single value is a list of one; a text is a path; a whole float is an int; arrays are lists.
    """
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for name, value in converted(type(config), values).items():
        if value is not values[name]:
            object.__setattr__(config, name, value)


def converted(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of fields of a configuration, converted as `conform` does."""
    hints, problems = _hints(cls), list[str]()  # type: ignore[arg-type]  # a class can be hashed
    result: dict[str, Any] = {}
    for name, value in values.items():
        try:
            result[name] = _convert(hints[name], value)
        except _MisfitError:
            problems.append(f"{name} = {_shown(value)}: it must be {_wanted(hints[name])}")
    refuse_all(problems)
    return result


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _convert(hint: Any, value: Any) -> Any:
    if not isinstance(value, str) and callable(getattr(value, "tolist", None)):  # of NumPy or torch
        value = value.tolist()
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(inner, value)
    if origin is Literal:
        return value if isinstance(value, str) and value in inner else _no()
    if origin is tuple:
        return _convert_tuple(inner, value)
    if origin is dict:
        plain = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
        return {key: _convert(inner[1], item) for key, item in value.items()} if plain else _no()
    return _KINDS[hint][0](value) if hint in _KINDS else value


def _convert_union(inner: tuple[Any, ...], value: Any) -> Any:
    if value is None:
        return None if type(None) in inner else _no()
    if int in inner and float in inner and (_is_number(value) or _scientific(value)):
        return _number(value)
    if isinstance(value, str) and str in inner:  # a text that is meant is not a list of one
        return value
    for kind in inner:
        if kind is not type(None):
            try:
                return _convert(kind, value)
            except _MisfitError:
                continue
    return _no()


def _convert_tuple(inner: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    listed = isinstance(value, list | tuple | range)
    if inner[-1] is not Ellipsis:
        fits = listed and len(value) == len(inner)
        return tuple(_convert(kind, item) for kind, item in zip(inner, value, strict=True)) if fits else _no()
    if value is None or isinstance(value, Mapping):
        _no()
    nested = typing.get_origin(inner[0]) is tuple
    # A single value is a list of one; so is a single pair.
    single = not listed or (nested and len(value) > 0 and not any(isinstance(item, list | tuple) for item in value))
    return tuple(_convert(inner[0], item) for item in ([value] if single else value))


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _scientific(value: Any) -> bool:
    return isinstance(value, str) and SCIENTIFIC.match(value) is not None


def _number(value: Any) -> int | float:
    if not (_is_number(value) or _scientific(value)):
        _no()
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _whole(value: Any) -> int:
    number = _number(value)
    return int(number) if isinstance(number, int) or number.is_integer() else _no()


def _path(value: Any) -> Path:
    plain = isinstance(value, str | Path) and str(value) and "\0" not in str(value)
    return Path(value) if plain else _no()


def _no() -> NoReturn:
    raise _MisfitError


_KINDS: dict[Any, tuple[Callable[[Any], Any], str, str]] = {
    int: (_whole, "a whole number", "a list of whole numbers, such as [0, 1]"),
    float: (lambda value: float(_number(value)), "a number", "a list of numbers, such as [2, 4.5]"),
    bool: (lambda value: value if isinstance(value, bool) else _no(), "true or false", "a list of true or false"),
    str: (
        lambda value: value if isinstance(value, str) else _no(),
        "text (in quotes, if it looks like a number)",
        "a list of names, such as [and, xor]",
    ),
    Path: (_path, "a path, as text", "a list of paths, such as [mylab.py]"),
}
"""How a value of each kind is converted, and how it, and a list of it, is described."""


def _wanted(hint: Any) -> str:
    """Describe what a field holds, and how to write a list of it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        kinds = [kind for kind in inner if kind is not type(None) and not (kind is int and float in inner)]
        return " or ".join(_wanted(kind) for kind in kinds)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple and inner[-1] is Ellipsis:
        item = float if inner[0] == int | float else inner[0]
        return _KINDS[item][2] if item in _KINDS else f"a list of {_wanted(item)}"
    if origin is tuple:
        return "pairs of whole numbers, such as [[0, 1], [0, 2]]"
    if origin is dict:
        return "a mapping from names to values"
    return _KINDS[hint][1] if hint in _KINDS else f"a {getattr(hint, '__name__', hint)}"


def _shown(value: Any) -> str:
    try:
        text = " ".join(repr(str(value) if isinstance(value, Path) else value).split())
    except ValueError:  # a number of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "…"
