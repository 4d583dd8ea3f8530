"""Choose between the plain form of a function and a faster one.

The plain form of a noun stands in the core and is right everywhere. A faster form stands in the fast wing, has the same
signature, and says itself where it applies and is faster. This is the one place where one of them is chosen, and

    with toymodels.plain(): …        or the environment variable TOYMODELS_PLAIN=1

turns all fast forms off.
"""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

SWITCH = "TOYMODELS_PLAIN"
"""Environment variable that turns the fast wing off, also in worker processes."""

WING = "toymodels.fast"


@dataclass(frozen=True)
class FastForm:
    """A faster form of a function."""

    function: Callable[..., Any]
    applies: Callable[..., bool]
    """Whether it is right and faster for these arguments; called with all of them, as the function is."""


_forms: dict[str, list[FastForm]] = {}
_loaded = False


def dispatched(plain: F) -> F:
    """Decorator: let the fast wing take over calls of this function where it has a faster form."""

    @functools.wraps(plain)
    def call(*arguments: Any, **named: Any) -> Any:
        if os.environ.get(SWITCH, "0") in ("", "0"):
            for form in _forms_of(_name(plain)):
                if form.applies(*arguments, **named):
                    return form.function(*arguments, **named)
        return plain(*arguments, **named)

    call.plain = plain  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def fast_form(plain: Callable[..., Any], applies: Callable[..., bool]) -> Callable[[F], F]:
    """Decorator: register a faster form of a dispatched function; `applies` is called with the same arguments."""

    def register(function: F) -> F:
        forms = _forms.setdefault(_name(plain), [])
        forms[:] = [form for form in forms if _name(form.function) != _name(function)]
        forms.append(FastForm(function, applies))
        return function

    return register


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _forms_of(name: str) -> list[FastForm]:
    global _loaded
    if not _loaded:
        _loaded = True
        wing = importlib.import_module(WING)
        for module in pkgutil.iter_modules(wing.__path__, f"{WING}."):
            importlib.import_module(module.name)
    return _forms.get(name, [])


@contextmanager
def plain() -> Iterator[None]:
    """Use plain forms only, here and in worker processes that are started meanwhile."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before
