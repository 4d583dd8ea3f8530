"""Read YAML files with their line numbers, and refuse what YAML 1.1 would silently misread."""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from toymodels.errors import InputError, nearest
from toymodels.given import SCIENTIFIC, read_json_settings, read_text, refuse_all

T = TypeVar("T")
Keys = dict[str, tuple[yaml.Node, yaml.Node]]
"""A mapping as name → (node of the key, node of the value)."""

_TAG = "tag:yaml.org,2002:"
_JSON: dict[type[yaml.Node], tuple[str, ...]] = {
    yaml.ScalarNode: ("str", "int", "float", "bool", "null"),
    yaml.SequenceNode: ("seq",),
    yaml.MappingNode: ("map",),
}
_MISREAD_INT = re.compile(r"[-+]?(0\d+|\d+(:\d+)+(\.\d*)?)\Z")  # octal, and base 60


_MOST_BYTES = 2**20
_MOST_NODES = 200_000
"""Values of a file in which aliases are written out; a file of 251 bytes can stand for 10^10."""


def read_settings(path: Path) -> dict[str, Any]:
    """Read settings by name from a JSON file, or a YAML file (.yaml, .yml)."""
    if path.suffix not in (".yaml", ".yml"):
        return read_json_settings(path)
    file = YamlFile(path)
    keys = file.mapping(file.root(), "the file")
    return {name: file.value(node) for name, (_, node) in keys.items()}


def _with_point(value: float) -> str:
    """Write a number so that YAML 1.1 reads it as one."""
    return repr(value) if "e" not in repr(value) else f"{value:.6e}"


class ProblemError(InputError):
    """One problem of a file, at a line."""

    def __init__(self, path: Path, line: int, sentence: str) -> None:
        super().__init__(f"{path}:{line}: {sentence}")
        self.line = line


class YamlFile:
    """A YAML file whose nodes know their lines. Every error is an InputError that begins with FILE:LINE."""

    def __init__(self, path: Path, text: str | None = None) -> None:
        """Name the file; `text` is its content if it is known."""
        self.path, self._text = path, text
        self._problems: list[ProblemError] = []

    def refuse(self, at: yaml.Node | int, sentence: str) -> NoReturn:
        """Raise the InputError for a node, or for a line counted from 1."""
        raise ProblemError(self.path, at if isinstance(at, int) else at.start_mark.line + 1, sentence)

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Keep a problem found inside, and go on after it."""
        try:
            yield
        except ProblemError as problem:
            self._problems.append(problem)

    def attempt(self, read: Callable[..., T], *arguments: Any) -> T | None:
        """Return what a function reads; None, and its problem is kept, if it finds one."""
        with self.collected():
            return read(*arguments)
        return None

    def refuse_collected(self) -> None:
        """Raise one InputError with all problems that were kept, in the order of their lines, if there are some."""
        refuse_all(str(problem) for problem in sorted(self._problems, key=lambda problem: problem.line))

    def root(self) -> yaml.Node:
        """Read and check the whole document. Raises InputError unless it is a file of plain YAML in UTF-8."""
        text = read_text(self.path, "a sweep file (YAML)", _MOST_BYTES) if self._text is None else self._text
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            if root is None:
                self.refuse(1, "the file is empty: a sweep has at least method and parameters")
            if (size := self._size(root, {})) > _MOST_NODES:
                self.refuse(1, f"its aliases (*) repeat anchors (&) to {size:.0e} values: write out what is needed")
            self._check(root, set())
        except yaml.reader.ReaderError as error:
            line = text[: error.position].count("\n") + 1
            self.refuse(line, f"the character number {error.character} is not allowed in YAML: remove it")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            tab = ": indent with spaces, never with tabs" if "'\\t'" in (error.problem or "") else ""
            self.refuse(mark.line + 1 if mark else 1, f"not valid YAML, {error.problem}{tab}")
        except RecursionError:
            self.refuse(1, "nested too deeply: a sweep needs a few levels at most")
        self.refuse_collected()
        return root

    def _size(self, node: yaml.Node, sizes: dict[int, int]) -> int:
        """Return how many values a node holds when its aliases are written out."""
        if id(node) not in sizes:
            sizes[id(node)] = -1
            pairs = node.value if isinstance(node, yaml.MappingNode) else ()
            items = [*itertools.chain(*pairs)] if pairs else node.value if isinstance(node, yaml.SequenceNode) else ()
            sizes[id(node)] = 1 + sum(self._size(item, sizes) for item in items)
        if sizes[id(node)] < 0:
            self.refuse(node, "an anchor (&) with its own alias (*) inside has no end: write it out")
        return sizes[id(node)]

    def _check(self, node: yaml.Node, seen: set[int]) -> None:
        """Keep as problems, at any depth, what YAML would silently misread or JSON cannot hold."""
        if id(node) in seen:
            return
        seen.add(id(node))
        with self.collected():
            self._check_node(node)
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._check(item, seen)
        elif isinstance(node, yaml.MappingNode):
            for _, item in node.value:
                self._check(item, seen)

    def _check_node(self, node: yaml.Node) -> None:
        if node.tag.removeprefix(_TAG) not in _JSON[type(node)]:
            what = repr(node.value) if isinstance(node, yaml.ScalarNode) else "this"
            self.refuse(node, f"YAML reads {what} as a {node.tag.removeprefix(_TAG)}: put it in quotes if it is text")
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node)
        names: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag not in (_TAG + "str", _TAG + "merge"):
                what = key.value if isinstance(key, yaml.ScalarNode) else "of several parts"
                self.refuse(key, f"the key {what} is not text for YAML: put it in quotes")
            if key.value in names:
                self.refuse(key, f"there are two keys {key.value!r}, and YAML would drop the first: keep one")
            names.add(key.value)

    def _check_scalar(self, node: yaml.ScalarNode) -> None:
        value, text = self.value(node), node.value
        if not node.style and isinstance(value, int | float) and _MISREAD_INT.match(text):
            self.refuse(node, f"YAML 1.1 reads {text} as {value} (octal or base 60): write {value}, or quotes for text")
        if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
            self.refuse(
                node, f"{text} is not a finite double, and JSON, which agents get, holds no other: leave it out"
            )

    def value(self, node: yaml.Node) -> Any:
        """Return the Python value of a node."""
        try:
            return yaml.constructor.SafeConstructor().construct_object(node, deep=True)
        except (LookupError, ValueError):  # raised inside PyYAML for !!int x, !!bool x and 0x_
            tag = node.tag.removeprefix(_TAG)
            self.refuse(node, f"{node.value!r} is not a valid {tag}: put it in quotes if it is text")

    def mapping(self, node: yaml.Node, what: str) -> Keys:
        """Return the keys of a mapping, merged ones (<<) included."""
        if not isinstance(node, yaml.MappingNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else f"the single value {node.value!r}"
            self.refuse(node, f"{what} is {kind}: it must be a mapping of keys to values")
        yaml.constructor.SafeConstructor().flatten_mapping(node)
        return {key.value: (key, item) for key, item in node.value}

    def check_keys(self, keys: Keys, what: str, allowed: Iterable[str]) -> None:
        """Refuse a key that is not allowed."""
        for name, (key, _) in keys.items():
            if name not in allowed:
                hint = nearest(name, allowed)
                self.refuse(key, f"unknown key {name!r} in {what}: {hint}the keys are {', '.join(allowed)}")

    def typed(self, keys: Keys, name: str, kinds: type | tuple[type, ...], wanted: str) -> Any:
        """Return the value of a key, None if the key is absent. Refuses other types; True and False are not numbers."""
        if name not in keys:
            return None
        node = keys[name][1]
        value = self.value(node)
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            hint = ""
            if isinstance(value, str) and SCIENTIFIC.match(value) and kinds in (int, (int, float)):
                hint = f" (YAML 1.1, and W&B, read {value} as text: write {_with_point(float(value))})"
            self.refuse(node, f"{name} is {value!r}: it must be {wanted}{hint}")
        return value

    def choice(self, keys: Keys, name: str, allowed: Sequence[str]) -> str | None:
        """Return the value of a key, one of those allowed; None if the key is absent."""
        value: str | None = self.typed(keys, name, str, f"one of {', '.join(allowed)}")
        if value is not None and value not in allowed:
            hint = nearest(value, allowed)
            self.refuse(keys[name][1], f"unknown {name} {value!r}: {hint}choose one of {', '.join(allowed)}")
        return value

    def count(self, keys: Keys, name: str) -> int | None:
        """Return the value of a key, a whole number from 1 up; None if the key is absent."""
        wanted = "a whole number from 1 up"
        value: int | None = self.typed(keys, name, int, wanted)
        if value is not None and value < 1:
            self.refuse(keys[name][1], f"{name} is {value}: it must be {wanted}")
        return value
