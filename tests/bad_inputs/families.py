"""Wrong values of every setting of `toymodels run train`, by the kind of what it holds, in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator

WHOLE = ("m", "d", "d0", "eval_inputs", "threads", "steps", "pairs_per_step")
NUMBERS = ("s", "lr", "weight_decay", "checkpoint_seconds")
TEXTS = (
    "task",
    "inputs",
    "values",
    "activation",
    "optimiser",
    "loss",
    "lr_schedule",
    "layer",
    "device",
    "wandb",
    "frame",
)
TRUTH = ("root", "train_first")
LISTS = {
    "seeds": "a list of whole numbers",
    "p": "a list of numbers",
    "tolerances": "a list of numbers",
    "plugin": "a list of paths",
}
OPTIONAL = ("d0", "threads", "steps", "pairs_per_step", "wandb", "frame", "tolerances")


def _values() -> Iterator[tuple[str, object, str]]:
    """Yield (setting, value, what it must be)."""
    for name in WHOLE:
        for value in (True, "six", "", [], {}, 6.5):
            yield name, value, "it must be a whole number"
        for value in (-1, 0):
            yield name, value, {"m": "it must be at least 2", "steps": "it must be at least 1"}.get(name, "at least 1")
    for name in NUMBERS:
        for value in (True, "fast", "", [], {}):
            yield name, value, "it must be a number"
        yield name, -1, "it must be" if name != "s" else "from 1 to m"
    for name in TEXTS:
        for value in (True, 3, [], {}):
            yield name, value, "it must be text"
        yield name, "", {"frame": "it needs d0", "device": "is not there"}.get(name, "unknown")
    for name in TRUTH:
        for value in (1, "true", [], {}):
            yield name, value, "it must be true or false"
    for name, wanted in LISTS.items():
        for value in (True, {}, [True], [[]], [{}]):
            yield name, value, wanted
        yield name, "x", "no Python file" if name == "plugin" else wanted
    for name in (*WHOLE, *NUMBERS, *TEXTS, *TRUTH, *LISTS):
        if name not in OPTIONAL:
            yield name, None, "= None"


SETTINGS = [(json.dumps({name: value}), expected) for name, value, expected in _values()]
