"""The folders of the library build on one another in one direction."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import toymodels

ROOT = Path(toymodels.__file__).parent


def imported(source: str) -> Iterator[str]:
    """Yield the modules of the library that a file imports when it is imported itself."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("toymodels"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("toymodels."):
            yield str(node.module)


def folder_of(module: str) -> str:
    """Return the folder, or the module beside the folders, that a module belongs to."""
    return module.split(".")[1] if "." in module else "toymodels"


def needs() -> dict[str, set[str]]:
    """Return the folders that each folder imports."""
    graph: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        folder = folder_of(".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
        graph.setdefault(folder, set()).update(map(folder_of, imported(path.read_text("utf-8"))))
    return {folder: others - {folder} for folder, others in graph.items()}


def test_no_two_folders_need_each_other():
    graph = needs()
    order = list(TopologicalSorter(graph).static_order())
    for below, above in (
        ("theory", "core"),
        ("core", "fast"),
        ("core", "runs"),
        ("runs", "experiments"),
        ("runs", "figures"),
    ):
        assert order.index(below) < order.index(above), (below, above)
    assert "fast" not in graph["core"]
    graph["theory"].add("core")
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()
