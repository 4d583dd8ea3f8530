"""Register the members of each family (first layers, readoffs, tasks, losses, figures, …) by name.

A member is one function or class in one file, registered by a decorator that also takes its properties: source, label, colour,
when it applies. No other file names it. Its keyword-only parameters are its knobs; the names of its other parameters say which
values the caller must hand over:

    @LAYERS("sparse_gaussian", source="this example")
    def sparse_gaussian(m: int, d: int, seed: int, *, density: float = 0.1) -> FirstLayer: ...

In settings, `sparse_gaussian(density=0.3)` is that member with that knob. The same decorators work in a file of your own:
name it as a plugin (`--plugin mylab.py`, or `plugin` in a sweep file), and its members can be named like ours.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, Generic, TypeVar

from toymodels.errors import InputError, check_kind, nearest

Knob = int | float | str
F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M", bound="Member")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member of a family: a function and its properties."""

    name: str
    """Its name in settings, records and tables."""
    function: Callable[..., Any]
    """The function itself; `call` hands over what its parameters name."""
    source: str = ""
    """Paper, theorem or post that it comes from, or "derived here"."""
    label: str = ""
    """Its name in legends; default: `name`."""
    colour: str | None = None
    """Its colour in figures, as matplotlib takes it; default: the next free one."""
    marker: str | None = None
    """Its marker in figures; default: the next free one."""
    order: int = 50
    """Its position in tables and figures: small numbers first, equal ones in the order of registration."""

    @property
    def plugin(self) -> Path | None:
        """The plugin file that registered it, if one did."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        path = Path(code.co_filename).resolve() if code is not None else None
        return path if path in _plugins else None

    @property
    def purpose(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @functools.cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The function's parameters by name."""
        try:
            return inspect.signature(self.function).parameters
        except ValueError:  # a built-in function, such as torch.abs, has no signature
            return {}

    @property
    def knobs(self) -> dict[str, Any]:
        """Names and default values of the knobs: the keyword-only parameters."""
        return {
            name: parameter.default
            for name, parameter in self.parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }

    def call(self, offered: Mapping[str, Any], knobs: Mapping[str, Any] | None = None) -> Any:
        """Call the function with those of the `offered` values that its parameters name; make a `Lazy` value only then.

        A whole number for a knob whose default is a float is handed over as a float.
        Raises InputError if a parameter names something that is not offered, or if the function is a plugin's and fails.
        """
        arguments: dict[str, Any] = {
            name: float(value) if type(value) is int and isinstance(self.knobs.get(name), float) else value
            for name, value in (knobs or {}).items()
        }
        for name, parameter in self.parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
                continue
            if name in offered:
                value = offered[name]
                arguments[name] = value.make() if isinstance(value, Lazy) else value
            elif parameter.default is parameter.empty:
                allowed = f"its parameters can be named {', '.join(offered)} (knobs stand behind a *)"
                raise InputError(f"{self.name} asks for {name!r}, which is not offered here: {allowed}")
        with plugin_failures(f"{self.name} of "):
            return self.function(**arguments)


class Lazy:
    """A value that is made when it is first used."""

    def __init__(self, make: Callable[[], Any]):
        self.make = functools.cache(make)


class Registry(Generic[M]):
    """The members of one family. This library's own members are imported at the first look at the registry."""

    def __init__(self, noun: str, kind: type[M], *homes: str):
        """Name the modules, or folders of modules, whose import registers this library's own members."""
        self.noun, self.kind, self._homes = noun, kind, homes
        self._members: dict[str, M] = {}
        self._loaded = False

    def __call__(self, name: str, **about: Any) -> Callable[[F], F]:
        """Register the decorated function under a name. Raises InputError for a name that is taken by another function."""

        def register(function: F) -> F:
            self.add(self.kind(name=name, function=function, **about))
            return function

        return register

    def add(self, member: M) -> None:
        """Register a member. Raises InputError for a name that is taken, or that settings cannot hold."""
        if not name_is_plain(member.name):
            raise InputError(
                f"{self.noun} {member.name!r}: a name is made of letters, digits, _ and -, and begins with a letter"
            )
        known = self._members.get(member.name)
        if known is not None and _code_name(known.function) != _code_name(member.function):
            raise InputError(f"there are two members {member.name!r} of the {self.nouns}: give yours another name")
        self._members[member.name] = member

    @property
    def nouns(self) -> str:
        """The noun's plural: first layers, losses, kinds of inputs."""
        first, *rest = self.noun.split(" of ")
        return " of ".join([first + ("es" if first.endswith("s") else "s"), *rest])

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True  # before the imports, because these look at registries, too
        for home in self._homes:
            module = importlib.import_module(home)
            for inner in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{home}."):
                importlib.import_module(inner.name)

    def __getitem__(self, name: str) -> M:
        """Return the member of a name without knobs. Raises InputError, which lists the names, for an unknown one."""
        self._load()
        if name not in self._members:
            raise InputError(f"unknown {self.noun} {name!r}: {nearest(name, self)}choose one of {', '.join(self)}")
        return self._members[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        """Yield the names in the order of tables."""
        self._load()
        return iter(sorted(self._members, key=lambda name: self._members[name].order))

    def __len__(self) -> int:
        self._load()
        return len(self._members)

    def values(self) -> list[M]:
        """Return the members in the order of tables."""
        return [self[name] for name in self]

    def items(self) -> list[tuple[str, M]]:
        """Return each (name, member) in the order of tables."""
        return [(name, self[name]) for name in self]

    def named(self, call: str, defaults: Mapping[str, Any] | None = None) -> tuple[M, dict[str, Any]]:
        """Return (member, knobs) of a name with or without knobs: "bernoulli", "bernoulli(p=0.3)", "bernoulli(0.3)".

        `defaults` are values for knobs of this member that the call does not set.
        Raises InputError for an unknown member or knob, and for a word if a knob takes numbers.
        """
        name, given = parse_call(call)
        member = self[name]
        known = member.knobs
        knobs: dict[str, Any] = {}
        for key, value in given.items():
            if key.isdigit() and int(key) < len(known):
                key = list(known)[int(key)]
            if key not in known:
                has = (
                    f"its knobs are {', '.join(known)}"
                    if known
                    else "it has none (knobs are the parameters behind a *)"
                )
                raise InputError(f"{self.noun} {call!r}: {name} has no knob {key!r}, {has}")
            if key in knobs:
                raise InputError(f"{call!r} sets {key} twice: set it once")
            kind = str(member.parameters[key].annotation)
            if isinstance(known[key], int | float) and "str" not in kind and isinstance(value, str):
                raise InputError(f"{self.noun} {call!r}: {key} = {value!r}, but it must be a finite number")
            knobs[key] = str(value) if kind in ("str", str(str)) else value
        return member, {**{key: value for key, value in (defaults or {}).items() if key in known}, **knobs}

    def canonical(self, call: str) -> str:
        """Return the standard form of a call: knobs by name and in the member's order, without those at their defaults."""
        member, knobs = self.named(call)
        set_ = [f"{key}={knobs[key]}" for key, default in member.knobs.items() if knobs.get(key, default) != default]
        return f"{member.name}({','.join(set_)})" if set_ else member.name


def name_is_plain(name: str) -> bool:
    """Whether a name can stand in settings, file names and calls."""
    return name[:1].isalpha() and name.replace("_", "").replace("-", "").isalnum()


def parse_call(text: str) -> tuple[str, dict[str, Knob]]:
    """Split "bernoulli(p=0.3)" into ("bernoulli", {"p": 0.3}); the keys of knobs without a name are "0", "1", ….

    Values are numbers, or else words. Raises InputError for a text that is not such a call.
    """
    check_kind(str, "text, such as 'gaussian' or 'bernoulli(p=0.3)'", name=text)
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return name, {}
    if not rest.endswith(")") or not name_is_plain(name):
        raise InputError(f"{text!r} is no name with knobs: write it as name(knob=value, …), such as bernoulli(p=0.3)")
    knobs: dict[str, Knob] = {}
    for position, part in enumerate(filter(None, (part.strip() for part in rest[:-1].split(",")))):
        key, equals, value = part.rpartition("=")
        key = key.strip() if equals else str(position)
        if key in knobs:
            raise InputError(f"{text!r} sets {key} twice: set it once")
        knobs[key] = _value(value.strip())
    return name, knobs


def _value(text: str) -> Knob:
    if text.isdecimal() and text != str(int(text)):  # 0001 is a word: as a number it would lose its zeros
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else text


def _code_name(function: Callable[..., Any]) -> tuple[str, str]:
    """Return what is the same if a function is registered again (a notebook cell, a plugin loaded twice)."""
    function = inspect.unwrap(function)
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", "")


def deferred(module: str, name: str) -> Callable[..., Any]:
    """Return a function that imports a function of this package when it is called, and calls it."""
    return lambda *arguments: getattr(importlib.import_module(f"toymodels.{module}"), name)(*arguments)


_plugins: dict[Path, str] = {}
"""Plugins loaded in this process: file → SHA-256 of its code. Data files that members read stand here, too."""

DATA = (".csv", ".json")
"""Endings of data files that a setting may name; they are kept in a record, and sent to workers, as plugins are."""


class _FromSource(importlib.machinery.SourceFileLoader):
    """Compile a plugin's code as it stands, and leave no __pycache__ beside the user's file.

    Python's own cache takes a file of the same size that was changed within a second for the file as it was.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def load_plugins(files: Sequence[Path | str]) -> None:
    """Run each file once in this process, so that its members are registered; worker processes run them again.

    A file whose code has changed is run again. Raises InputError for a file that is missing or fails.
    """
    for file in files:
        path = Path(file).resolve()
        digest = plugin_digest(path)
        if any(known == digest and other.suffix == path.suffix for other, known in _plugins.items()):
            # this file, or a copy of it in a record
            continue
        if path.suffix in DATA:
            _plugins[path] = digest
            continue
        name = f"toymodels_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        loader = _FromSource(name, str(path))
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # classes of a plugin are pickled by the name of its module
        try:
            loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            if isinstance(error, InputError):
                raise InputError(f"the plugin {path.name}: {error}") from None
            raise InputError(f"the plugin {what_failed(error, path)}") from error
        _plugins[path] = digest


@contextmanager
def plugin_failures(what: str = "") -> Iterator[None]:
    """Turn an exception that comes through a plugin's code into an InputError that names file and line.

    A full disk and a loss that is not finite are not the plugin's fault: these stay as they are.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError | OSError) or type(error) is ArithmeticError:
            raise
        files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
        path = next((file for file in reversed(files) if file in _plugins), None)
        if path is None:
            raise
        raise InputError(f"{what}the plugin {what_failed(error, path)}") from error


def what_failed(error: BaseException, path: Path) -> str:
    """Say where a plugin's code failed and why: "mylab.py, line 6: KeyError: 'inside'"."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    line, reason = (lines[-1] if lines else None), " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        line, reason = error.lineno, error.msg
    at = f"{path}, line {line}" if line else str(path)
    return f"{at}: {type(error).__name__}: {reason}"


def plugin_digest(path: Path | str) -> str:
    """Return the SHA-256 of a plugin's code. Raises InputError for a file that is missing or is not a Python file."""
    path = Path(path)
    data = path.suffix in DATA
    if path.suffix != ".py" and not data:
        raise InputError(f"the plugin {path} is no Python file: name one that ends in .py")
    if not path.is_file():
        what = f"which settings name: put it back, or name a {path.suffix} file that is there"
        if not data:
            what = "which is named as a plugin: name a Python file, or put it back"
        raise InputError(f"there is no file {path}, {what}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def version_of(path: Path | str) -> str:
    """Return the start of a data file's SHA-256, as settings name it."""
    return f"v{plugin_digest(path)[:8]}"


def data_file(file: str, version: str = "") -> Path:
    """Return the path of a data file that a setting names: of the loaded file with this version, if it names one.

    Raises InputError if that version is not loaded or was changed.
    """
    if not version:
        return Path(file)
    for path, digest in _plugins.items():
        same_kind = path.suffix == Path(file).suffix  # the same bytes are read in another way as .csv than as .json
        if same_kind and version == f"v{digest[:8]}" and path.is_file() and version_of(path) == version:
            return path
    raise InputError(f"{file} is not there as it was ({version}), or was changed since: name the file without version")


def loaded_plugins() -> list[Path]:
    """Return the plugins of this process whose files still exist, for its workers."""
    return [path for path in _plugins if path.is_file()]
