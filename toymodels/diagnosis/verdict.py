"""Say how a network computes its features or gates, with reasons: naive, linear copy, dense or sparse code, mixed, undecided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from toymodels.compressed.weights import two_layer
from toymodels.core.features import Features, SparseFeatures, as_features
from toymodels.core.seeds import derive_seed
from toymodels.core.tasks import PairTask, Task
from toymodels.diagnosis.registry import Subject, measure_all, usual_probability
from toymodels.errors import InputError, check_kind, check_whole
from toymodels.tasks.pointwise import PointwiseTask

VERDICTS = ("naive", "linear copy", "sparse code", "dense code", "mixed", "undecided")
"""naive: features (or gates) have neurons of their own; linear copy: what is gained is a linear map of the inputs; sparse code:
every feature is read by few shared neurons; dense code: by many; mixed: some have neurons of their own and others share."""
EVEN, SPARSE, COHERENT, SWAPS, LINEAR = 0.5, 0.25, 0.6, 0.9, 0.9
REORDERED, MOST_ORDERED = 0.8, 500
"""Largest mean squared error in another order of the outputs, over that of the output 0 and that in their order; most outputs."""


@dataclass(frozen=True)
class Diagnosis:
    """A verdict with its reasons, and every measure."""

    verdict: str
    reasons: tuple[str, ...]
    measures: tuple[dict[str, Any], ...]
    subject: Subject

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        subject = self.subject
        about = {"task": subject.task.name, "n": subject.n, "d": subject.d, "inputs": len(subject.inputs)}
        return {"verdict": self.verdict, "reasons": list(self.reasons), **about, "measures": list(self.measures)}


def subject_of(
    network: nn.Module, task: Task, features: Features | None = None, inputs: int = 50_000, seed: int = 0
) -> Subject:
    """Read a network's weights and draw the sample it is judged by. Raises InputError as `diagnose` does."""
    if not isinstance(task, PointwiseTask | PairTask):
        name = getattr(task, "name", type(task).__name__)
        raise InputError(
            f"the task {name} cannot be diagnosed: name relu, abs, square or copy, with or without mixing, or a gate of pairs"
        )
    if task.m < 2:
        raise InputError("the task has 1 feature: a diagnosis compares features, of which it needs at least 2")
    check_whole(100, inputs=inputs)
    check_whole(0, seed=seed)
    if features is None and isinstance(task, PairTask):
        features = SparseFeatures.at_most(task.m, 2)
    elif features is None:
        features = SparseFeatures.independent(task.m, usual_probability(task.m), "symmetric")
    check_kind(Features, "features, such as SparseFeatures.independent(m, 0.02, 'symmetric')", features=features)
    source = as_features(features)
    if source.m != task.m:
        raise InputError(f"the features are {source.m} and the task has {task.m}: they must be the same")
    layers = two_layer(network, task.m, task.n_outputs)
    few = isinstance(task, PairTask) and source.n_inputs <= inputs
    sample = source.enumerate() if few else source.sampled(inputs, derive_seed(seed, "evaluation"))
    return Subject(layers, task, sample, seed)


def diagnose(
    network: nn.Module, task: Task, features: Features | None = None, inputs: int = 50_000, seed: int = 0
) -> Diagnosis:
    """Measure a network with one hidden ReLU layer on a pointwise task or a gate of pairs, and say how it computes it.

    `features` are those it is judged on; default: each active with probability 0.02 (1/m below 50 features), values on [−1, 1];
    for gates at most 2 active. For gates all inputs are taken where there are no more than `inputs`.
    Raises InputError for a network of another form or size, outputs in another order, another task, or fewer than 100 inputs.
    """
    subject = subject_of(network, task, features, inputs, seed)
    check_order(subject)
    verdict, reasons = judge(subject)
    return Diagnosis(verdict, tuple(reasons), tuple(measure_all(subject)), subject)


def check_order(subject: Subject) -> None:
    """Raise InputError for a network that computes the task much better in another order of its outputs.

    In the best order, found by an assignment, most outputs must have another place, and the mean squared error must be below
    REORDERED of that of the output 0 and of that in their own order. For gates, which are rarely 1, inputs at which they are 0
    and at which they are 1 count alike, and more than two fifths of the gates must be right: an output of many that happens to
    be near 1 at the right input is not enough.
    """
    targets, outputs = subject.task.targets(torch.from_numpy(subject.x)).double().numpy(), subject.layers(subject.x)
    if targets.shape[1] > MOST_ORDERED:
        return
    weight = np.broadcast_to(subject.inputs.probabilities.double().numpy()[:, None], targets.shape)
    if subject.kind == "gates":
        ones = (weight * targets).sum(0)
        weight = weight * np.where(targets > 0, 1 / ones.clip(1e-12), 1 / (1 - ones).clip(1e-12))
    power = (weight * targets**2).sum(0)
    if not (power > 0).all():
        return
    # Of output j (line) as an answer to target i (column).
    share = 1 + ((outputs**2).T @ weight - 2 * outputs.T @ (weight * targets)) / power
    rows, columns = linear_sum_assignment(share)
    if (rows != columns).mean() < 0.5 or share[rows, columns].mean() > REORDERED * min(1.0, share.diagonal().mean()):
        return
    right = (np.abs(outputs[:, rows] - targets[:, columns]).max(0) < 0.5).mean() if subject.kind == "gates" else 1.0
    if right > 0.4:
        order = np.argsort(columns)
        i = int(np.flatnonzero(order != np.arange(len(order)))[0])
        raise InputError(
            f"the outputs are in another order than those of the task {subject.task.name}: output {order[i]} computes what "
            f"output {i} should; put the rows of the last weight and its bias in the task's order"
        )


def judge(subject: Subject) -> tuple[str, Sequence[str]]:
    """Return the verdict and its reasons, one sentence each."""
    return judge_gates(subject) if subject.kind == "gates" else judge_features(subject)


def judge_features(subject: Subject) -> tuple[str, Sequence[str]]:
    """Judge a network whose outputs are functions of single features."""
    value = subject.value
    if subject.n <= subject.d:
        return "undecided", [f"There are {subject.d} neurons for {subject.n} features: nothing needs to be shared."]
    linear = value("linear_share")
    if linear > LINEAR:
        return "linear copy", [
            f"A linear map of the inputs explains {linear:.0%} of the outputs; ReLU itself has 50 %."
        ]
    if subject.pointwise.mixing is not None:
        gain, clean = value("against_naive"), value("transplant")
        if gain < 0.98 and clean > 0.98 and value("computed") < 0.9:
            return "linear copy", [
                f"With M its loss is {gain:.2f} times the naive network's, for M = 0 it is {clean:.2f} times: the gain is gone.",
                f"Only {value('computed'):.0%} of the features are computed (error below a tenth of the output 0's).",
            ]
    share, served, own = value("error_share"), value("served"), value("dedicated")
    if served == 0 or share > 0.9:
        return "undecided", [
            f"Nothing is computed: {served:.0%} of the features are served, the mean error is {share:.2f} of the output 0's."
        ]
    if own > 0.9:
        return "naive", [
            f"{own:.0%} of the features that are served have a neuron of their own.",
            f"{served:.0%} of all features are served; d/n is {subject.d / subject.n:.0%}.",
        ]
    even = value("cv")
    if own >= 0.1:
        return "mixed", [
            f"{own:.0%} of the features that are served have a neuron of their own, the others share.",
            f"{served:.0%} of the features are served; CV of their errors {even:.2f}.",
        ]
    if served < 0.9 or even > EVEN:
        return "undecided", [
            f"Features share neurons, but only {served:.0%} are served, with a CV of {even:.2f} (a code: all, below {EVEN:g})."
        ]
    on, swap, coherent = value("on_share"), value("swap"), value("coherence")
    reasons = [
        f"All features are served alike: {served:.0%} of them, CV of their errors {even:.2f}; none has a neuron of its own.",
        f"{on:.0%} of the weights of W_in are on; largest cosine between two features {coherent:.2f}.",
        f"Swapped columns are recognised in {swap:.0%} of the tries.",
    ]
    if value("computed") < 0.5:
        reasons.append(
            f"It is weak: {value('computed'):.0%} of features have an error below a tenth of the output 0's."
        )
    sparse = on <= SPARSE and swap >= SWAPS and coherent <= COHERENT
    return ("sparse code" if sparse else "dense code"), reasons


def judge_gates(subject: Subject) -> tuple[str, Sequence[str]]:
    """Judge a network whose outputs are gates of pairs of features, by its worst errors over the inputs."""
    value, gate, gates = subject.value, subject.gate_task.gate, subject.task.n_outputs
    floor = gate.affine_floor
    if floor == 0:
        return "undecided", [f"The gate {gate.name} is an affine map of its features: nothing needs to be computed."]
    if gates <= subject.d:
        return "undecided", [f"There are {subject.d} neurons for {gates} gates: nothing needs to be shared."]
    linear, right = value("linear_share"), value("gates_right")
    if linear > LINEAR and right > 0.5:
        return "linear copy", [
            f"An affine map of the inputs explains {linear:.0%} of the outputs; {right:.0%} of the gates are right when rounded."
        ]
    computed, own = value("gates_computed"), value("dedicated_gates")
    some = f"{computed:.0%} of {gates:,} gates have a worst error below {floor:g}, the least that affine maps of the inputs have"
    if computed == 0:
        return "undecided", [f"{some}; {right:.0%} are right when rounded."]
    if own > 0.9:
        return "naive", [f"{some}.", f"{own:.0%} of them have a neuron of their own; there are {subject.d} neurons."]
    if own >= 0.1:
        return "mixed", [f"{some}.", f"{own:.0%} of them have a neuron of their own, the others share."]
    if computed < 0.9:
        return "undecided", [f"Gates share neurons, but {some} (a code: 90 % or more)."]
    on = value("on_share")
    return ("sparse code" if on <= SPARSE else "dense code"), [
        f"{some}; the largest error is {value('gate_worst'):.3f}.",
        f"{own:.0%} of them have a neuron of their own.",
        f"{on:.0%} of the weights of W_in are on: a neuron reads {value('load'):.1f} features.",
    ]
