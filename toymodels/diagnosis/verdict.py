"""Say how a network computes its features, with reasons: naive, linear copy, dense code, sparse code, mixed, or undecided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from toymodels.compressed.measures import check_pointwise
from toymodels.compressed.weights import two_layer
from toymodels.core.features import Features, SparseFeatures, as_features
from toymodels.core.seeds import derive_seed
from toymodels.core.tasks import Task
from toymodels.diagnosis.measures import controls, errors, weights
from toymodels.diagnosis.registry import Subject, measure_all
from toymodels.errors import InputError, check_kind, check_whole

VERDICTS = ("naive", "linear copy", "sparse code", "dense code", "mixed", "undecided")
"""naive: features have neurons of their own; linear copy: what is gained is a linear map of the inputs; sparse code: every
feature is read by few shared neurons; dense code: by many; mixed: some have neurons of their own and others share."""
EVEN, SPARSE, COHERENT, SWAPS, LINEAR = 0.5, 0.25, 0.6, 0.9, 0.9


@dataclass(frozen=True)
class Diagnosis:
    """A verdict with its reasons, and every measure."""

    verdict: str
    reasons: tuple[str, ...]
    measures: tuple[dict[str, Any], ...]
    subject: Subject

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        about = {
            "task": self.subject.task.name,
            "n": self.subject.n,
            "d": self.subject.d,
            "inputs": len(self.subject.inputs),
        }
        return {"verdict": self.verdict, "reasons": list(self.reasons), **about, "measures": list(self.measures)}


def subject_of(
    network: nn.Module, task: Task, features: Features | None = None, inputs: int = 50_000, seed: int = 0
) -> Subject:
    """Read a network's weights and draw the sample it is judged by. Raises InputError as `diagnose` does."""
    pointwise = check_pointwise(task)
    check_whole(100, inputs=inputs)
    check_whole(0, seed=seed)
    if features is None:
        features = SparseFeatures.independent(max(task.m, 2), 0.02 if task.m >= 50 else 1 / task.m, "symmetric")
    check_kind(Features, "features, such as SparseFeatures.independent(m, 0.02, 'symmetric')", features=features)
    source = as_features(features)
    if source.m != task.m:
        raise InputError(f"the features are {source.m} and the task has {task.m}: they must be the same")
    layers = two_layer(network, task.m, task.n_outputs)
    return Subject(layers, pointwise, source.sampled(inputs, derive_seed(seed, "evaluation")), seed)


def diagnose(
    network: nn.Module, task: Task, features: Features | None = None, inputs: int = 50_000, seed: int = 0
) -> Diagnosis:
    """Measure a network with one hidden ReLU layer on a pointwise task, and say how it computes its features.

    `features` are those it is judged on; default: each active with probability 0.02 (1/m below 50 features), values on [−1, 1].
    Raises InputError for a network of another form or size, a task that is not pointwise, or fewer than 100 inputs.
    """
    subject = subject_of(network, task, features, inputs, seed)
    verdict, reasons = judge(subject)
    return Diagnosis(verdict, tuple(reasons), tuple(measure_all(subject)), subject)


def judge(subject: Subject) -> tuple[str, Sequence[str]]:
    """Return the verdict and its reasons, one sentence each."""
    share = errors.error_share(subject)
    if subject.n <= subject.d:
        return "undecided", [f"There are {subject.d} neurons for {subject.n} features: nothing needs to be shared."]
    linear = controls.linear_share(subject)
    if linear > LINEAR:
        return "linear copy", [
            f"A linear map of the inputs explains {linear:.0%} of the outputs; ReLU itself has 50 %."
        ]
    if subject.task.mixing is not None:
        gain, clean = errors.against_naive(subject), controls.clean_against_naive(subject)
        if gain < 0.98 and clean > 0.98 and errors.computed(subject) < 0.9:
            return "linear copy", [
                f"With M its loss is {gain:.2f} times the naive network's, for M = 0 it is {clean:.2f} times: the gain is gone.",
                f"Only {errors.computed(subject):.0%} of the features are computed (error below a tenth of the output 0's).",
            ]
    served, own = errors.served(subject), weights.dedicated(subject)
    if served == 0 or share > 0.9:
        return "undecided", [
            f"Nothing is computed: {served:.0%} of the features are served, the mean error is {share:.2f} of the output 0's."
        ]
    if own > 0.9:
        return "naive", [
            f"{own:.0%} of the features that are served have a neuron of their own.",
            f"{served:.0%} of all features are served; d/n is {subject.d / subject.n:.0%}.",
        ]
    even = errors.cv(subject)
    if own >= 0.1:
        return "mixed", [
            f"{own:.0%} of the features that are served have a neuron of their own, the others share.",
            f"{served:.0%} of the features are served; CV of their errors {even:.2f}.",
        ]
    if served < 0.9 or even > EVEN:
        return "undecided", [
            f"Features share neurons, but only {served:.0%} are served, with a CV of {even:.2f} (a code: all, below {EVEN:g})."
        ]
    on, swap, coherent = weights.on_share(subject), weights.swap(subject), weights.coherence(subject)
    reasons = [
        f"All features are served alike: {served:.0%} of them, CV of their errors {even:.2f}; none has a neuron of its own.",
        f"{on:.0%} of the weights of W_in are on; largest cosine between two features {coherent:.2f}.",
        f"Swapped columns are recognised in {swap:.0%} of the tries.",
    ]
    if errors.computed(subject) < 0.5:
        reasons.append(
            f"It is weak: {errors.computed(subject):.0%} of features have an error below a tenth of the output 0's."
        )
    sparse = on <= SPARSE and swap >= SWAPS and coherent <= COHERENT
    return ("sparse code" if sparse else "dense code"), reasons
