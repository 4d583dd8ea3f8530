"""All wrong inputs as cases, from the tables beside this file."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from tests.bad_inputs import newer
from tests.bad_inputs.calls import CALLS
from tests.bad_inputs.cases import Case
from tests.bad_inputs.families import SETTINGS
from tests.bad_inputs.files import NETWORKS, RECORDS, SOURCES, TABLES
from tests.bad_inputs.more import MORE_COMMANDS, MORE_JSON, MORE_PYTHON, MORE_SWEEPS, WITH_A_RUN
from tests.bad_inputs.table import COMMANDS, JSON, PYTHON, SWEEPS
from toymodels.experiments.train import TrainConfig


def _shown(value: object) -> str:
    return (" ".join(value) if isinstance(value, list) else repr(value))[:60]


def _write(name: str, text: str | bytes) -> None:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())


def _all() -> Iterator[Case]:
    for words, expected in [*COMMANDS, *MORE_COMMANDS]:
        yield Case("command line", _shown(words), expected, words)
    for words, expected in WITH_A_RUN:
        yield Case("command line", _shown(words), expected, words, needs_run=True)
    for number, (text, expected) in enumerate([*SWEEPS, *MORE_SWEEPS]):
        prepare = functools.partial(_write, "s.yaml", text)
        name = f"{number} {_shown(text)[-50:]}"
        yield Case("sweep file", name, expected, ["sweep", "s.yaml", "--out", "o"], prepare=prepare)
    for text, expected in [*JSON, *MORE_JSON]:
        prepare = functools.partial(_write, "c.json", text)
        yield Case("JSON file", _shown(text), expected, ["run", "train", "c.json"], prepare=prepare)
    for text, expected in SETTINGS:
        prepare = functools.partial(_write, "c.json", text)
        yield Case("JSON file: settings × kinds of values", text, expected, ["run", "train", "c.json"], prepare=prepare)
    for settings, expected in [*PYTHON, *MORE_PYTHON]:
        yield Case("settings in Python", _shown(settings), expected, call=functools.partial(TrainConfig, **settings))
    for name, expected, call in CALLS:
        yield Case("call in Python", name, expected, call=call)
    for entry, cases in (("file of weights", NETWORKS), ("list of inputs or plugin", SOURCES)):
        for name, expected, prepare, words in cases:
            yield Case(entry, name, expected, words, prepare=prepare)
    for words, expected in newer.FILES:
        yield Case("command line, with files", _shown(words), expected, words, prepare=newer.prepare)
    for words, expected in newer.RUNS:
        yield Case("command line, with files", _shown(words), expected, words, prepare=newer.prepare, needs_run=True)
    for entry, cases in (("record", RECORDS), ("table", TABLES)):
        for name, expected, prepare, words in cases:
            yield Case(entry, name, expected, words, prepare=prepare, needs_run=True)


CASES = list(_all())
