"""Wrong files: weights for `evaluate`, lists of inputs, plugins, records of runs, and tables.

Each case is (name, words that the answer must hold, a function that makes or changes files, words of the command line).
"""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 15))


def state() -> dict[str, Any]:
    return net().state_dict()


def written(name: str, content: str | bytes) -> Callable[[], object]:
    return lambda: Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


def saved(content: Callable[[], Any]) -> Callable[[], object]:
    return lambda: torch.save(content(), "n.pt")


def each(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], object]:
    """Save the weights, each changed."""
    return saved(lambda: {name: change(value) for name, value in state().items()})


def only(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], object]:
    """Save the weights, the first one changed."""
    return saved(lambda: {**state(), "0.weight": change(state()["0.weight"])})


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


EVALUATE = ["evaluate", "n.pt", "--task", "and"]
NAN = float("nan")
NETWORKS: list[tuple[str, str, Callable[[], object], list[str]]] = [
    ("whole numbers", "floating-point numbers", each(lambda v: (9 * v).to(torch.int8)), EVALUATE),
    ("complex numbers", "floating-point numbers", each(lambda v: v.to(torch.complex64)), EVALUATE),
    ("truth values", "floating-point numbers", each(lambda v: v > 0), EVALUATE),
    ("NaN", "not a finite number", each(lambda v: v * NAN), EVALUATE),
    ("infinite", "not a finite number", each(lambda v: v * float("inf")), EVALUATE),
    ("too large", "not a finite number", each(lambda v: v.double() * 1e300), EVALUATE),
    ("on the device meta", "no values (device meta)", each(lambda v: v.to("meta")), EVALUATE),
    ("sparse", "dense tensors", only(lambda v: v.to_sparse()), EVALUATE),
    ("sparse by rows", "dense tensors", only(lambda v: v.to_sparse_csr()), EVALUATE),
    ("no neuron", "at least one number", saved(lambda: {"a": torch.zeros(0, 6), "b": torch.zeros(15, 0)}), EVALUATE),
    ("one by one", "at least 2", saved(lambda: {"a": torch.zeros(1, 1)}), EVALUATE),
    ("three axes", "no matrix by name", saved(lambda: {"a": torch.zeros(2, 2, 2)}), EVALUATE),
    ("an empty state", "no matrix by name", saved(dict), EVALUATE),
    ("an empty list", "no matrix by name", saved(list), EVALUATE),
    ("a number", "no matrix by name", saved(lambda: {"a": 1}), EVALUATE),
    ("two networks", "2 sets of weights", saved(lambda: [state(), state()]), EVALUATE),
    ("a bias with two axes", "make no chain", saved(lambda: {**state(), "0.bias": torch.zeros(4, 1)}), EVALUATE),
    ("one matrix more", "make no chain", saved(lambda: {**state(), "x": torch.zeros(3, 3)}), EVALUATE),
    ("six matrices", "6 matrices", saved(lambda: {str(i): torch.ones(6, 6) for i in range(6)}), EVALUATE),
    ("names that steer a terminal", "\\x1b[31m0.weight", saved(lambda: {f"\x1b[31m{k}": v for k, v in state().items()}),
     [*EVALUATE, "--weights", "x"]),
    ("a whole module", "whole modules", saved(net), EVALUATE),
    ("code", "they can run code", lambda: Path("n.pt").write_bytes(pickle.dumps(_Code())), EVALUATE),
    ("an empty file", "the file is empty", written("n.pt", b""), EVALUATE),
    ("text", "it is something else", written("n.pt", "hello"), EVALUATE),
    ("a broken archive", "no weights that can be read", written("n.pt", b"PK\x03\x04" + b"\0" * 40), EVALUATE),
    ("an array of NumPy", "no weights that can be read", written("n.pt", b"\x93NUMPY"), EVALUATE),
    ("safetensors, text", "no weights that can be read", written("n.safetensors", "hi"),
     ["evaluate", "n.safetensors", "--task", "and"]),
    ("safetensors, a huge header", "no weights that can be read",
     written("n.safetensors", (10**15).to_bytes(8, "little") + b"{}"), ["evaluate", "n.safetensors", "--task", "and"]),
    ("safetensors, empty", "no matrix by name", lambda: save_file({}, "n.safetensors"),
     ["evaluate", "n.safetensors", "--task", "and"]),
    ("a link in a circle", "a link to nothing", lambda: os.symlink("n.pt", "n.pt"), EVALUATE),
    ("a pipe", "a pipe or a device", lambda: os.mkfifo("n.pt"), EVALUATE),
]  # fmt: skip
for _words, _expected in (
    (["--m", "7"], "no chain from m = 7"),
    (["--m", "0"], "at least 2"),
    (["--m", "six"], "six"),
    (["--s", "0"], "from 1 to m = 6"),
    (["--s", "7"], "from 1 to m = 6"),
    (["--s", "nan"], "finite number"),
    (["--inputs", "listed"], "listed needs a file"),
    (["--inputs", "independent", "--s", "6"], "strictly between"),
    (["--values", "unifrom"], "did you mean 'uniform'"),
    (["--pairs", "0", "1"], "1 outputs of the task"),
    (["--pairs", "0", "6"], "out of range"),
    (["--activation", "rleu"], "did you mean 'relu'"),
    (["--weights", "x", "y"], "there is no tensor 'x'"),
    (["--weights", "0.weight", "0.weight"], "make no chain"),
    (["--weights", "0.bias", "2.weight"], "must be matrices"),
    (["--biases", "0.bias"], "1 biases for 2 weights"),
    (["--biases", "2.bias", "0.bias"], "4 outputs"),
    (["--biases", "0.weight", "2.bias"], "have no place"),
    (["--readoffs"], "readoffs is empty"),
    (["--readoffs", "minmax"], "did you mean 'minimax'"),
    (["--readoffs", "trained", "trained"], "twice"),
    (["--readoffs", "analytic"], "frozen Gaussian"),
    (["--readoffs", "own"], "of a construction of ours"),
    (["--minimax-pairs", "0"], "at least 1"),
    (["--eval-inputs", "1e3"], "1e3"),
    (["--seed", "-1"], "at least 0"),
    (["--device", "gpu"], "is not there"),
    (["--json", "."], "cannot be written"),
    (["--json", "n.pt"], "is the file of the network"),
    (["--task", "nad"], "did you mean 'nand'"),
    (["--task", "and_of(k=9)"], "at most 6"),
):
    NETWORKS.append((" ".join(_words), _expected, saved(state), [*EVALUATE, *_words]))
NETWORKS.append(("no task", "name the task", saved(state), ["evaluate", "n.pt"]))

# lists of inputs, and plugins

_LISTED = ["train", "--m", "3", "--d", "4", "--inputs"]
SOURCES: list[tuple[str, str, Callable[[], object], list[str]]] = [
    (f"inputs.{ending}: {content[:40]!r}", expected, written(f"inputs.{ending}", content),
     [*_LISTED, f"listed(file=inputs.{ending})"])
    for ending, content, expected in (
        ("csv", "", "must be at least one input"),
        ("csv", "a,b,c\n", "must be at least one input"),
        ("csv", "1,0,0\n0,1,0\n", "its first line holds numbers"),
        ("csv", "a,b,c\n1,0\n", "line 2 is not 3 numbers"),
        ("csv", "a,b,c\n1,0,x\n", "line 2 is not 3 numbers"),
        ("csv", "a,b,c\n1,0,nan\n", "line 2 is not 3 numbers"),
        ("csv", "a;b;c\n1;0;0\n", "line 2"),
        ("csv", "a,b\n1,0\n", "they must be the same"),
        ("csv", "a,b,c,probability\n1,0,0,0.5\n0,1,0,0.4\n", "add up to 1"),
        ("csv", "a,b,c,probability\n1,0,0,-1\n0,1,0,2\n", "none below 0"),
        ("csv", b"a,b,c\n1,0,\xff\n", "UTF-8"),
        ("json", "", "inputs.json"),
        ("json", "{}", "a list of inputs"),
        ("json", "[1]", "input 0 is not an object"),
        ("json", '[{"active": [0, 0]}]', "different features"),
        ("json", '[{"active": [-1]}]', "counted from 0"),
        ("json", '[{"active": [true]}]', "counted from 0"),
        ("json", '[{"active": [0], "values": [0]}]', "other than 0"),
        ("json", '[{"active": [0], "values": [1, 2]}]', "one for each active feature"),
        ("json", '[{"active": [0], "probability": "1"}]', "must be a number"),
        ("json", '[{"active": [0], "probability": 1}, {"active": [1]}]', "give one to each"),
        ("json", '{"m": 1000000000, "inputs": [{"active": [0]}]}', "list fewer"),
        ("json", '{"m": 2, "inputs": [{"active": [2]}]}', "from 3 up"),
    )
]  # fmt: skip
SOURCES += [
    (f"plugin: {code[-45:]!r}", expected, written("mine.py", code), ["--plugin", "mine.py", "train", "--m", "6", "--d", "8"])
    for code, expected in (
        ("def f(:\n", "mine.py"),
        ("import a_module_that_is_not_there\n", "a_module_that_is_not_there"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("raise SystemExit(3)\n", "mine.py"),
        ("from toymodels import LAYERS\n\n\n@LAYERS('gaussian')\ndef f(m, d, seed): ...\n", "gaussian"),
        ("from toymodels import LAYERS\n\n\n@LAYERS('a b(')\ndef f(m, d, seed): ...\n", "a b("),
        (b"x = '\xff'\n", "mine.py"),
        (b"x = 1\0\n", "mine.py"),
    )
]  # fmt: skip

# records


def changed(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[], object]:
    """Change a JSON file of the record."""

    def go() -> None:
        path = Path("t") / name
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return go


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[], object]:
    """Put something else in the place of a file of the record."""

    def go() -> None:
        path = Path("t") / name
        path.unlink()
        make(path)

    return go


def _config(**values: Any) -> Callable[[], object]:
    return changed("config.json", lambda content: content.update(values))


def _setting(**values: Any) -> Callable[[], object]:
    return changed("config.json", lambda content: content["config"].update(values))


def _plugins(plugin: Any, code: Any) -> Callable[[], object]:
    def change(content: dict[str, Any]) -> None:
        content["config"]["plugin"], content["plugin_code"] = plugin, code

    return changed("config.json", change)


SHOW, RESULTS, AGAIN = ["show", "t"], ["results", "t"], ["show", "t", "--evaluate"]
RECORDS: list[tuple[str, str, Callable[[], object], list[str]]] = [
    (f"{what}: {words[0]}", expected, make, words)
    for what, expected, make in (
        ("format '1'", "was written in format '1'", _config(format="1")),
        ("format '2'", "was written in format '2'", _config(format="2")),
        ("format 2.0", "was written in format 2.0", _config(format=2.0)),
        ("format 3", "was written in format 3", _config(format=3)),
        ("format true", "was written in format True", _config(format=True)),
        ("format null", "was written in format None", _config(format=None)),
        ("kind 3", "kind is 3", _config(kind=3)),
        ("kind list", "kind is ['train']", _config(kind=["train"])),
        ("kind empty", "kind is ''", _config(kind="")),
        ("kind null", "kind is None", _config(kind=None)),
        ("config list", "config or plugin_code is wrong", _config(config=[])),
        ("config empty", "m is None", _config(config={})),
        ("config null", "config or plugin_code is wrong", _config(config=None)),
        ("m text", "m is '6'", _setting(m="6")),
        ("d null", "d is None", _setting(d=None)),
        ("plugin text", "config or plugin_code is wrong", _plugins("x.py", ["ab"])),
        ("plugin null", "config or plugin_code is wrong", _plugins(None, [])),
        ("plugin number", "config or plugin_code is wrong", _plugins(3, [])),
        ("plugin of numbers", "config or plugin_code is wrong", _plugins([3], ["ab"])),
        ("plugin_code null", "config or plugin_code is wrong", _plugins([], None)),
        ("plugin_code of numbers", "config or plugin_code is wrong", _plugins(["x.py"], [3])),
        ("plugin_code too short", "config or plugin_code is wrong", _plugins(["x.py"], [])),
        ("config.json a pipe", "a pipe or a device", replaced("config.json", os.mkfifo)),
        ("results.json a pipe", "a pipe or a device", replaced("results.json", os.mkfifo)),
    )
    for words in (SHOW, RESULTS)
] + [
    (f"{name}: {what}", expected, replaced(name, make), SHOW)
    for name in ("config.json", "results.json")
    for what, expected, make in (
        ("empty", "truncated or damaged", lambda path: path.write_bytes(b"")),
        ("null", "it lacks format" if name == "config.json" else "not those of a run", lambda path: path.write_text("null")),
        ("[]", "it lacks format" if name == "config.json" else "not those of a run", lambda path: path.write_text("[]")),
        ("{}", "it lacks format" if name == "config.json" else "not those of a run", lambda path: path.write_text("{}")),
        ("UTF-16", "truncated or damaged", lambda path: path.write_bytes('{"a": 1}'.encode("utf-16"))),
        ("zeros", "truncated or damaged", lambda path: path.write_bytes(b"\0" * 100)),
        ("nested", "truncated or damaged", lambda path: path.write_text("[" * 10**5)),
        ("a page", "truncated or damaged", lambda path: path.write_text("<html>")),
        ("a folder", "cannot be read", Path.mkdir),
    )
]  # fmt: skip
RECORDS += [
    ("environment.json a pipe", "a pipe or a device", replaced("environment.json", os.mkfifo), ["cite", "t"]),
    ("environment.json empty", "truncated or damaged", replaced("environment.json", Path.touch), ["cite", "t"]),
    ("environment.json []", "no list of environments",
     replaced("environment.json", lambda path: path.write_text("[]")), ["cite", "t"]),
    ("result.json a pipe", "a pipe or a device", replaced("seed-0/result.json", os.mkfifo), AGAIN),
    ("network a pipe", "a pipe or a device", replaced("seed-0/network.safetensors", os.mkfifo), AGAIN),
    ("network empty", "no network of a record", replaced("seed-0/network.safetensors", Path.touch), AGAIN),
    ("network a folder", "cannot be read", replaced("seed-0/network.safetensors", Path.mkdir), AGAIN),
    ("network of another program", "no network of a record",
     replaced("seed-0/network.safetensors", lambda path: save_file(state(), path)), AGAIN),
    ("unknown kind", "holds a run of the kind 'foo'", _config(kind="foo"), AGAIN),
    ("unknown setting", "unknown key 'colour'", _setting(colour="red"), AGAIN),
    ("seeds text", "a list of whole numbers", _setting(seeds="x"), AGAIN),
    ("the table of another kind", "does not make the table of a compare", _config(kind="compare"), SHOW),
    ("config.json a link in a circle", "links", replaced("config.json", lambda path: path.symlink_to(path.name)), SHOW),
    ("no finished run", "no finished run", lambda: shutil.rmtree("t/seed-0") or os.remove("t/results.json"), RESULTS),
]  # fmt: skip
RECORDS += [
    (f"results.json, {column} = {value!r}", f"{column} is", changed("results.json", functools.partial(
        lambda content, column, value: content["rows"][0].update({column: value}), column=column, value=value)), RESULTS)
    for column, value in (("worst_error", -1), ("worst_error", "x"), ("m", "6"), ("seed", -1), ("seed", None), ("task", 3),
                          ("s", {}), ("proved", 3))
    if value is not None
]  # fmt: skip

# tables


def table(change: Callable[[list[str], list[str]], object]) -> Callable[[], object]:
    """Change the header or the row of t.csv."""

    def go() -> None:
        header, row = csv.reader(io.StringIO(Path("t.csv").read_text()))
        change(header, row)
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([header, row])
        Path("t.csv").write_text(buffer.getvalue())

    return go


def cell(column: str, value: str) -> Callable[[], object]:
    return table(lambda header, row: row.__setitem__(header.index(column), value))


def text(change: Callable[[str], str | bytes], name: str = "t.csv") -> Callable[[], object]:
    """Change the text of a table."""

    def go() -> None:
        content = change(Path(name).read_text())
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return go


_CSV, _JSONL = ["results", "t.csv"], ["results", "t.jsonl"]
TABLES: list[tuple[str, str, Callable[[], object], list[str]]] = [
    ("a column twice", "two columns kind", table(lambda *lines: [line.append(line[0]) for line in lines]), _CSV),
    ("a cell less", "cells, and there are", table(lambda header, row: row.pop()), _CSV),
    ("a cell more", "cells, and there are", table(lambda header, row: row.append("1")), _CSV),
    ("UTF-16", "UTF-16", text(lambda t: t.encode("utf-16")), _CSV),
    ("Latin-1", "a byte that is not UTF-8", text(lambda t: t.encode() + b"\xe9"), _CSV),
    ("empty", "it lacks kind, run, seed", text(lambda t: ""), _CSV),
    ("a header alone", "it lacks kind, run, seed", text(lambda t: t.splitlines()[0]), _CSV),
    ("semicolons", "cells, and there are", text(lambda t: t.replace(",", ";") + "x,y\n"), _CSV),
    ("an open quote", "unexpected end", text(lambda t: t + '"'), _CSV),
    ("a zero byte", "cells, and there are", text(lambda t: t + "\0\n"), _CSV),
    ("lines: a key twice", "two columns seed", text(lambda t: t.replace("{", '{"seed": 1, ', 1), "t.jsonl"), _JSONL),
    ("lines: a list", "a line is not an object", text(lambda t: "[1]\n", "t.jsonl"), _JSONL),
    ("lines: pairs", "a line is not an object", text(lambda t: '[["kind", "a"]]\n', "t.jsonl"), _JSONL),
    ("lines: null", "a line is not an object", text(lambda t: "null\n", "t.jsonl"), _JSONL),
    ("lines: one array", "is not a table of results", text(lambda t: f"[{t}]", "t.jsonl"), _JSONL),
    ("lines: truncated", "is not a table of results", text(lambda t: t[:-30], "t.jsonl"), _JSONL),
    ("lines: nested", "is not a table of results", text(lambda t: "[" * 10**5, "t.jsonl"), _JSONL),
    ("lines: other columns", "different columns", text(lambda t: t + '{"kind": "a"}\n', "t.jsonl"), _JSONL),
    ("lines: empty", "it lacks kind, run, seed", text(lambda t: "", "t.jsonl"), _JSONL),
    ("lines: a byte", "a byte that is not UTF-8", text(lambda t: b"\xff", "t.jsonl"), _JSONL),
    ("another ending", "is no table", lambda: shutil.copy("t.csv", "t.txt"), ["draw", "error_over", "t.txt"]),
    ("a pipe", "a pipe or a device", lambda: os.remove("t.csv") or os.mkfifo("t.csv"), _CSV),
    ("no error to draw", "has no worst_error", cell("worst_error", "null"), ["draw", "error_over", "t.csv"]),
    ("no task to draw", "has no task", cell("task", "null"), ["draw", "error_over", "t.csv"]),
]  # fmt: skip
TABLES += [
    (f"{column} = {value[:12]!r}", f"row 1: {column} is", cell(column, value), _CSV)
    for column, value in (
        ("worst_error", "nan"), ("worst_error", "NaN"), ("worst_error", "inf"), ("worst_error", "-1"),
        ("worst_error", "0,5"), ("worst_error", ""), ("worst_error", "true"), ("worst_error", "1e999"),
        ("worst_error", "[1]"), ("m", "NaN"), ("m", "6.5"), ("m", "-6"), ("m", "six"), ("m", ""), ("d", "9" * 5000),
        ("seed", "x"), ("seed", "true"), ("seed", "1.0"), ("s", "NaN"), ("s", "Infinity"), ("s", "{}"), ("p", "[NaN]"),
        ("lr", "NaN"), ("task", "3"), ("readoff", "3"), ("kind", "3"), ("seconds", "-1"), ("stopped_at", "x"),
    )
]  # fmt: skip
