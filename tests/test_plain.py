"""The core alone: it imports nothing of the fast wing, and the default experiment comes out the same on it."""

import subprocess
import sys

import pytest

from toymodels.core import dispatch
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.parallel import processes
from toymodels.runs.table import read_table

CORE = ("evaluation", "features", "frames", "layers", "least_squares", "losses", "minimax", "network", "readoffs", "tasks",
        "training")  # fmt: skip


def test_the_core_imports_nothing_of_the_fast_wing():
    names = ", ".join(f"toymodels.core.{name}" for name in CORE)
    code = f"import sys, {names}; print([m for m in sys.modules if m.startswith('toymodels.fast')])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_the_default_experiment_is_the_same_on_the_core_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_alone", True)
    tables = {}
    for name in ("fast", "plain"):
        config = CompareConfig(m=12, d=24, steps=30, out=tmp_path / name, figures=False)
        if name == "fast":
            run_compare(config)
        else:
            with dispatch.plain():
                monkeypatch.setattr(dispatch, "_forms_of", lambda name: pytest.fail("a fast form was looked for"))
                run_compare(config)
        tables[name] = read_table(tmp_path / name)
    assert len(tables["fast"]) == len(tables["plain"]) == 18
    for fast, plain in zip(tables["fast"], tables["plain"], strict=True):
        for column in ("task", "first_layer", "readoff", "covered", "n_pairs", "proved"):
            assert plain[column] == fast[column]
        for column in ("worst_error", "mean_worst_error", "rms_ones", "rms_zeros", "within_quarter"):
            # Optima over (r, c) need not be unique: what is optimal must agree, and every readoff's errors where it is.
            optimal = column in ("worst_error", "mean_worst_error") or plain["readoff"] != "minimax"
            # A training is a path along which roundings grow, as in tests/reference; a single step is compared in tests/fast.
            close = 0.02 if "trained" in (plain["first_layer"], plain["readoff"]) else 1e-6
            assert plain[column] == pytest.approx(fast[column], abs=close if optimal else 0.05)
