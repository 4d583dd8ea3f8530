"""A laboratory for computation in superposition.

    features → first layer → activations → readoff → errors

Any two of these combine, and `evaluate` measures all networks in the same way. Names are imported at their first use, so that
importing the package takes no time.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

IDLE_THREADS_SPIN = "torch" in sys.modules and "OMP_WAIT_POLICY" not in os.environ
"""Whether idle threads of OpenMP keep their cores busy, which slows this process and others down, on a machine that others use
up to 40 times. Torch reads the policy when it is loaded: afterwards it is too late to set it."""
if not IDLE_THREADS_SPIN:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "core.dispatch": ("plain",),
    "core.evaluation": ("Evaluation", "evaluate"),
    "core.features": ("INPUTS", "VALUES", "Features", "Inputs", "SparseFeatures"),
    "core.layers": ("ACTIVATIONS", "LAYERS", "FirstLayer", "IdentityLayer", "make_layer"),
    "core.least_squares": ("balanced", "least_squares"),
    "core.losses": ("LOSSES", "LpLoss", "case_weights"),
    "core.minimax": ("Minimax", "minimax"),
    "core.network": ("Network", "as_network"),
    "core.readoffs": ("READOFFS", "Fitted", "LinearReadoff", "fit_readoff"),
    "core.settings": ("TrainingSettings",),
    "core.tasks": ("TASKS", "PairTask", "Task", "make_task"),
    "core.training": ("Trainer",),
    "core.worst_case": ("descend", "layer_gradient"),
    "errors": ("InputError",),
    "experiments.registry": ("EXPERIMENTS",),
    "figures.registry": ("FIGURES",),
    "ground_truth.dictionaries": ("DICTIONARIES", "fit_dictionary"),
    "ground_truth.folder": ("Pretrained", "from_pretrained", "save_pretrained"),
    "ground_truth.hooked": ("as_hooked",),
    "ground_truth.module": ("MLP", "as_mlp"),
    "ground_truth.perturbations": ("exponent", "outputs_behind", "sensitivities"),
    "ground_truth.read": ("read_network",),
    "ground_truth.saelens": ("for_saelens",),
    "ground_truth.samples": ("FeatureVectors", "feature_vectors", "samples"),
    "ground_truth.scores": ("score",),
    "laws.registry": ("LAWS",),
    "layers.random": ("gaussian", "kaiming", "kaiming_normal"),
    "readoffs.analytic": ("analytic",),
    "runs.loop": ("train",),
    "theory.gates": ("Gate",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_MODULE_OF)

if TYPE_CHECKING:
    from toymodels.core.dispatch import plain as plain
    from toymodels.core.evaluation import Evaluation as Evaluation
    from toymodels.core.evaluation import evaluate as evaluate
    from toymodels.errors import InputError as InputError


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'toymodels' has no attribute {name!r}")
    return getattr(importlib.import_module(f"toymodels.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
