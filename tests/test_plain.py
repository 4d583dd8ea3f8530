"""The core alone: it imports nothing of the fast wing, and the default experiment comes out the same on it."""

import subprocess
import sys

import pytest

from toymodels.core import dispatch, losses
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
    """With the same training, everything agrees to 1e-6; with the fast wing's training, what no training has a part in.

    A training is a path along which roundings grow: errors at its end agree as in tests/reference on another processor. Single
    steps are compared to rounding in tests/fast.
    """
    monkeypatch.setattr(processes, "_alone", True)
    loss = dispatch._name(losses.loss_and_gradients)
    tables = {}
    for name in ("fast", "fast but for training", "plain"):
        config = CompareConfig(m=12, d=24, steps=30, out=tmp_path / name, figures=False)
        with monkeypatch.context() as patch:
            if name == "plain":
                patch.setenv("TOYMODELS_PLAIN", "1")
                patch.setattr(dispatch, "_forms_of", lambda name: pytest.fail("a fast form was looked for"))
            else:
                patch.setenv("TOYMODELS_PLAIN", "0")
                if name != "fast":
                    dispatch._forms_of(loss)
                    patch.setitem(dispatch._forms, loss, [])
            run_compare(config)
        tables[name] = read_table(tmp_path / name)
    for name, trained in (("fast but for training", 1e-6), ("fast", 0.02)):
        assert len(tables[name]) == len(tables["plain"]) == 18
        for fast, plain in zip(tables[name], tables["plain"], strict=True):
            for column in ("task", "first_layer", "readoff", "covered", "n_pairs", "proved"):
                assert plain[column] == fast[column]
            for column in ("worst_error", "mean_worst_error", "rms_ones", "rms_zeros", "within_quarter"):
                close = trained if "trained" in (plain["first_layer"], plain["readoff"]) else 1e-6
                # Optima over (r, c) need not be unique: what is optimal must agree, and every readoff's errors where it is.
                optimal = column in ("worst_error", "mean_worst_error") or plain["readoff"] != "minimax"
                assert plain[column] == pytest.approx(fast[column], abs=close if optimal else 0.05)
