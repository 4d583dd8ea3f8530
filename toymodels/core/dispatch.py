"""Choose between the plain form of a function and a faster one.

The plain form is in the core and holds for all arguments. A faster form is in the fast wing, has the same signature, and comes
with a function that says for which arguments it holds and is faster. Only this module chooses between them, and

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
    """Whether it holds and is faster for these arguments; called with the function's arguments."""


_forms: dict[str, list[FastForm]] = {}
_loaded = False


def dispatched(plain: F) -> F:
    """Let a decorated function call a faster form instead, if the fast wing has one for the arguments."""

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
    """Register the decorated function as a faster form of `plain`; `applies` is called with the same arguments."""

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
    """Use plain forms only inside the context, also in worker processes that are started in it."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before
