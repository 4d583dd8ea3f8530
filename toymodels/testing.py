"""Check the members of a registry, ours and yours: shapes, types, determinism, storage, gradients, plain = fast.

    toymodels check mylab.py            # all members of a plugin
    check_member(LAYERS, "gaussian")    # one member, in a test of your own

Each check raises AssertionError with what is wrong with the member.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from toymodels.compressed.registry import BASELINES, Compressed, strain
from toymodels.core.dispatch import plain
from toymodels.core.evaluation import evaluate
from toymodels.core.features import INPUTS, VALUES, Features, Inputs, SparseFeatures, make_features
from toymodels.core.layers import LAYERS, LayerMember, layer_width
from toymodels.core.losses import LOSSES, make_loss
from toymodels.core.network import Network
from toymodels.core.readoffs import READOFFS, Combination, Fitted, LinearReadoff, as_fitted
from toymodels.core.tasks import TASKS, Task, make_task
from toymodels.diagnosis.registry import MEASURES
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig
from toymodels.experiments.rows import RowMaker
from toymodels.ground_truth.dictionaries import DICTIONARIES, fit_dictionary
from toymodels.laws.checks import check_law
from toymodels.laws.registry import LAWS
from toymodels.registry import Registry, load_plugins
from toymodels.reproductions.registry import REPRODUCTIONS
from toymodels.runs.record import load_network, save_network

M, D, S = 6, 9, 2
"""Sizes of the checks; 9 is a square, for layers that need one."""


def check_member(registry: Registry[Any], name: str) -> None:
    """Check one member of a registry. Raises AssertionError if it fails."""
    member = registry[name]
    assert member.purpose.endswith((".", "…")), f"{name} has no docstring whose first line is a sentence"
    assert member.source or member.plugin or registry in (VALUES, INPUTS, TASKS), f"{name} does not say its source"
    for knob in member.knobs:
        taken = registry.named(f"{name}({knob}=1)")[1]
        assert taken in ({knob: 1}, {knob: "1"}), f"{name} does not take its knob {knob} by name"
    with suppress(InputError):
        registry.named(f"{name}(no_such_knob=1)")
        raise AssertionError(f"{name} takes a knob that it does not have")
    for known, check in _checks():
        if known is registry and check is not None:
            check(name)


def _checks() -> list[tuple[Registry[Any], Callable[[str], None] | None]]:
    """Return each registry whose members are checked, with the check of its own if it has one."""
    return [
        (LAYERS, check_layer), (READOFFS, check_readoff), (TASKS, check_task), (LOSSES, check_loss),
        (VALUES, check_values), (INPUTS, check_inputs), (LAWS, check_law), (BASELINES, check_baseline),
        (MEASURES, None), (REPRODUCTIONS, None), (DICTIONARIES, check_dictionary),
    ]  # fmt: skip


def checkable() -> list[Registry[Any]]:
    """Return the registries whose members have checks."""
    return [registry for registry, _ in _checks()]


def check_plugin(file: Path) -> Iterator[tuple[str, str, str]]:
    """Check every member that a plugin registers; yield (noun, name, what is wrong or "").

    Raises InputError for a file that cannot be loaded, or that registers no member that can be checked.
    """
    load_plugins([file])
    members = [(r, name) for r in checkable() for name, member in r.items() if member.plugin == Path(file).resolve()]
    if not members:
        nouns = ", ".join(r.nouns for r in checkable())
        raise InputError(f"{file} registers no member that can be checked ({nouns})")
    for registry, name in members:
        try:
            check_member(registry, name)
        except Exception as error:
            kind = "" if isinstance(error, AssertionError | InputError) else f"{type(error).__name__}: "
            yield registry.noun, name, kind + " ".join(str(error).split())
        else:
            yield registry.noun, name, ""


@dataclass(frozen=True)
class _Problem:
    """A small comparison in which a first layer, a readoff and a task meet."""

    layer: str
    task: str
    readoff: str = "minimax"

    def maker(self, folder: Path, seed: int = 0) -> RowMaker:
        config = CompareConfig(
            m=M, d=D, s=S, task=(self.task,), steps=2, seeds=(seed,), eval_inputs=40,
            layers=tuple(dict.fromkeys(["trained", self.layer])), readoffs=(self.readoff,), figures=False,
        )  # fmt: skip
        task = config.make_task(self.task, seed)
        return RowMaker(config, task, task, seed, folder, 0)


def _task_for(member: LayerMember) -> str:
    """Return a task that the layer can be made for: the AND of pairs, or else the first one."""
    names = ["and", *(name for name in TASKS if name != "and")]
    return next(name for name in names if member.fits(make_task(name, M)))


def check_layer(name: str) -> None:
    """Check a first layer: width, data types, determinism from its seed, storage, gradients, plain = fast."""
    member = LAYERS[name]
    task_name = _task_for(member)

    def make(seed: int, folder: str) -> nn.Module:
        return _Problem(name, task_name).maker(Path(folder), seed).layer(name)

    with TemporaryDirectory() as first, TemporaryDirectory() as second, TemporaryDirectory() as third:
        layer, same_seed, new_seed = make(0, first), make(0, second), make(1, third)
    inputs = SparseFeatures.at_most(M, M).enumerate()  # all inputs: neurons of some layers need several active features
    x, task = inputs.dense(), make_task(task_name, M)
    with torch.no_grad():
        a = layer(x)
        assert a.shape == (len(x), layer_width(layer, M)), f"{name} returns shape {tuple(a.shape)} for {len(x)} inputs"
        assert a.dtype == torch.float32, f"{name} returns {a.dtype} for inputs of float32"
        assert bool(a.isfinite().all()), f"{name} returns activations that are not finite"
        assert torch.equal(a, same_seed(x)), f"{name} is another layer when it is made again from the same seed"
        drawn = "seed" in member.parameters or member.after_training
        assert not drawn or not torch.equal(a, new_seed(x)), f"{name} is the same layer for two seeds"
        wide = copy.deepcopy(layer).double()(x.double())
        assert wide.dtype == torch.float64, f"{name} in float64 returns {wide.dtype}"
        assert torch.allclose(wide.float(), a, rtol=1e-4, atol=1e-4), f"{name} differs between float32 and float64"
    assert not any(p.requires_grad for p in layer.parameters()) or member.role == "trained", f"{name} is not frozen"
    readoff = LinearReadoff.constant(task.n_outputs, a.shape[1], 0.5)
    _check_storage(name, Network(layer, readoff), task, x)
    fast = evaluate(Network(layer, readoff), task, inputs)
    with plain():
        slow = evaluate(Network(layer, readoff), task, inputs)
    same = math.isclose(fast.worst_error, slow.worst_error, rel_tol=1e-9)
    assert same, f"{name} is measured differently by fast forms"
    smooth = copy.deepcopy(layer).double().requires_grad_(True)
    parameters = [p for p in smooth.parameters() if p.numel()]
    if parameters:
        # Points between the inputs, at which a ReLU may not be differentiable.
        point = x[1:4].double() + torch.rand(3, M, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 3
        names = [key for key, p in smooth.named_parameters() if p.numel()]
        with torch.no_grad():  # a neuron whose weights are all 0 is at the kink of its ReLU for every input
            for p in parameters:
                p.add_(torch.rand(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(1)), alpha=0.01)

        def activations(*values: Tensor) -> Tensor:
            return torch.func.functional_call(smooth, dict(zip(names, values, strict=True)), (point,))

        right = torch.autograd.gradcheck(activations, tuple(parameters), raise_exception=False)
        assert right, f"{name} has gradients other than those of finite differences"


def _check_storage(name: str, network: Network, task: Task, x: Tensor) -> None:
    """Check that a network and a task can be read back from a record."""
    with TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "network.safetensors"
        save_network(path, network, task)
        loaded, same_task, _ = load_network(path)
        assert torch.equal(loaded(x), network(x)), f"{name} has other outputs when it is read back from its record"
        assert same_task.name == task.name, f"the task {task.name} comes back from its record as {same_task.name}"
        assert torch.equal(same_task.targets(x), task.targets(x)), f"{name} has other targets when it is read back"


def check_readoff(name: str) -> None:
    """Check a readoff: it applies to a layer and task; shape, slices, determinism, storage, JSON facts, plain = fast."""
    problem = _where_it_applies(name)
    with TemporaryDirectory() as folder:
        maker = problem.maker(Path(folder))
        layer, task = maker.layer(problem.layer), maker.task
        offered = maker._offered(problem.layer, layer, task, name)
        fitted: list[Fitted] = [as_fitted(READOFFS[name].call(offered)) for _ in range(2)]
        with plain():
            slow = as_fitted(READOFFS[name].call(offered))
    a = layer(SparseFeatures.at_most(M, S).enumerate().dense()).detach()
    with torch.no_grad():
        outputs, again, slowly = (f.readoff(a, slice(None)) for f in (*fitted, slow))
        assert outputs.shape == (len(a), task.n_outputs), f"{name} returns shape {tuple(outputs.shape)}"
        assert bool(outputs.isfinite().all()), f"{name} returns outputs that are not finite"
        assert torch.equal(outputs, again), f"{name} is another readoff when it is fitted again"
        part = fitted[0].readoff(a, slice(1, 3))
        assert torch.allclose(part, outputs[:, 1:3]), f"{name} does not return the outputs of a slice"
    json.dumps(dict(fitted[0].facts), allow_nan=False)
    if READOFFS[name].kept:
        _check_storage(name, Network(layer, fitted[0].readoff), task, SparseFeatures.at_most(M, S).enumerate().dense())
    # Optima need not be unique, but the error that is minimised must agree.
    errors = [f.output_worst for f in (fitted[0], slow)]
    if errors[0] is not None and errors[1] is not None:
        assert torch.allclose(errors[0], errors[1], atol=1e-6), f"{name} has other errors with fast forms"
    else:
        assert torch.allclose(outputs, slowly.to(outputs), atol=1e-6), f"{name} differs between plain and fast forms"


def _where_it_applies(name: str) -> _Problem:
    """Return a first layer and a task that the readoff applies to."""
    tasks = ["and", *(task for task in TASKS if task != "and")]
    for task_name, layer in itertools.product(tasks, LAYERS):
        member, task = LAYERS[layer], make_task(task_name, M)
        if not member.fits(task):
            continue
        config = CompareConfig(m=M, d=D, s=S, task=(task_name,), figures=False)
        forms = member.aside(member.closed_forms, config.offered(member, task, 0), {}) or frozenset()
        if READOFFS[name].applies(Combination(member, task, forms, embedded=False)):
            return _Problem(layer, task_name, name)
    raise AssertionError(f"{name} applies to no first layer and task")


def check_task(name: str) -> None:
    """Check a task: shapes, slices, cases, groups, probabilities, subsets, data types, determinism, storage."""
    task, again = make_task(name, M), make_task(name, M)
    boolean = SparseFeatures.at_most(M, S).enumerate()
    real = SparseFeatures.at_most(M, S, "symmetric").sampled(200, 0)
    for inputs in (boolean, real):
        x = inputs.dense(dtype=torch.float64)
        targets, cases = task.targets(x), task.cases(x)
        shape = (len(x), task.n_outputs)
        assert targets.shape == cases.shape == shape, f"{name} has targets of shape {tuple(targets.shape)}"
        assert targets.dtype == torch.float64, f"{name} has targets of {targets.dtype} for inputs of float64"
        assert bool(targets.isfinite().all()), f"{name} has targets that are not finite"
        assert torch.allclose(targets, again.targets(x)), f"{name} is another task when it is made again from its seed"
        assert torch.allclose(task.targets(x, slice(1, 3)), targets[:, 1:3]), f"{name} has other targets in a slice"
        assert torch.equal(task.cases(x, slice(1, 3)), cases[:, 1:3]), f"{name} has other cases in a slice"
        assert 0 <= int(cases.min()) <= int(cases.max()) < len(task.case_labels), f"{name} has a case without a name"
        if task.truth is not None:
            truth = torch.tensor(task.truth, dtype=torch.float64)
            assert torch.equal(targets, truth[cases]), f"{name} has targets that are not its truth"
        chosen = torch.tensor([task.n_outputs - 1, 0])
        subset = task.subset(chosen)
        assert torch.allclose(subset.targets(x), targets[:, chosen]), f"{name} has other targets in a subset"
    for group, members in task.groups.items():
        assert set(members) <= set(range(len(task.case_labels))), f"{name}'s group {group} has cases that do not exist"
    shares = task.case_probabilities(SparseFeatures.at_most(M, S))
    counted = torch.zeros(len(task.case_labels), dtype=torch.float64)
    cases = task.cases(boolean.dense())
    share = (boolean.probabilities[:, None] / task.n_outputs).expand(cases.shape)
    counted.index_add_(0, cases.reshape(-1), share.reshape(-1))
    assert torch.allclose(torch.tensor(shares).double(), counted, atol=1e-9), f"{name} has wrong probabilities of cases"
    for stored in (task, task.subset(torch.arange(2))):
        gaussian = LAYERS["gaussian"].call({"m": M, "d": D, "seed": 0})
        network = Network(gaussian, LinearReadoff.constant(stored.n_outputs, D))
        _check_storage(name, network, stored, boolean.dense())


def check_loss(name: str) -> None:
    """Check a loss: 0 and flat at errors of 0, gradients, data types, sums over blocks, use under vmap."""
    generator = torch.Generator().manual_seed(0)
    errors = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    targets = (torch.rand(5, 4, generator=generator) < 0.4).double()
    weights = torch.rand(5, 4, generator=generator, dtype=torch.float64) / 5
    for p in (2.0, 3.0) if LOSSES[name].follows_p else (2.0,):
        loss = make_loss(name, p, root=True)
        value = loss(errors[0], targets, weights)
        assert value.shape == (), f"{name} has shape {tuple(value.shape)}: it must be one number"
        assert math.isfinite(float(value)), f"{name} is not a finite number"
        single = loss(errors[0].float(), targets.float(), weights.float())
        assert single.dtype == torch.float32, f"{name} changes the data type"
        variable = errors[0].clone().requires_grad_()
        right = torch.autograd.gradcheck(lambda e, loss=loss: loss(e, targets, weights), (variable,))
        assert right, f"{name} has a wrong gradient"
        zero = torch.zeros(5, 4, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(zero, targets, weights), zero)
        assert bool((slope == 0).all()), f"{name} has a gradient other than 0 where all errors are 0"
        units = loss.units(errors[0], targets)
        sums = [loss.sums(errors[0][rows], targets[rows], weights[rows], units) for rows in (slice(0, 2), slice(2, 5))]
        joined = loss.value(torch.stack(sums).sum(0), units, 4)
        assert torch.allclose(joined, value), f"{name} over two blocks of inputs is not the loss over both"
        stacked = torch.func.vmap(lambda e, loss=loss: loss(e, targets, weights))(errors)
        alone = torch.stack([loss(e, targets, weights) for e in errors])
        assert torch.allclose(stacked, alone), f"{name} differs under torch.func.vmap"


def check_values(name: str) -> None:
    """Check a distribution of values: shape, finite numbers, the same ones from the same seed."""
    features = SparseFeatures.exactly(M, S, name)
    first, second = (features.sample(50, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first.dense(), second.dense()), f"{name} draws other values from the same seed"
    assert bool(first.dense().isfinite().all()), f"{name} draws values that are not finite"
    if VALUES[name].constant:
        drawn = features.enumerate().dense()
        assert len(torch.unique(drawn[drawn != 0])) == 1, f"{name} says that it is constant and is not"


def check_inputs(name: str) -> None:
    """Check a source of inputs: samples of the right shape from a seed, probabilities, agreement with its enumeration."""
    with TemporaryDirectory() as folder:
        example = INPUTS[name].example
        features = make_features(example(M, Path(folder)) if example else name, M, S)
    first, second = (features.sample(400, torch.Generator().manual_seed(0)) for _ in range(2))
    x = first.dense()
    assert (first.m, *x.shape) == (M, 400, M), f"{name} draws inputs of shape {tuple(x.shape)}"
    assert torch.equal(x, second.dense()), f"{name} draws other inputs from the same seed"
    total = float(first.probabilities.sum())
    assert math.isclose(total, 1, rel_tol=1e-9), f"{name} has probabilities that do not sum to 1"
    indices = first.indices
    assert 0 <= int(indices.min()) <= int(indices.max()) <= M, f"{name} has active features that do not exist"
    if features.n_inputs < math.inf:
        every = features.enumerate()
        assert len(every) == features.n_inputs, f"{name} lists {len(every)} inputs and says {features.n_inputs}"
        assert math.isclose(float(every.probabilities.sum()), 1, rel_tol=1e-9), f"{name}'s list does not sum to 1"
        listed = {tuple(row) for row in every.dense().tolist()}
        assert {tuple(row) for row in x.tolist()} <= listed, f"{name} draws an input that its list does not have"
        assert len(listed) == len(every), f"{name} lists an input twice"
        on = (every.dense() != 0).double()
        both = on.T @ (on * every.probabilities[:, None])
        known = features.both_active()
        assert known is None or torch.allclose(known, both, atol=1e-9), f"{name} has another both_active than its list"
        single, same = both.diagonal(), features.case_probabilities()
        if same is not None:
            k, l = torch.triu_indices(M, M, 1)
            cases = [1 - single[k] - single[l] + both[k, l], single[l] - both[k, l], single[k] - both[k, l], both[k, l]]
            equal = all(torch.allclose(c, c.new_tensor(p), atol=1e-9) for c, p in zip(cases, same, strict=True))
            assert equal, f"{name} has other case_probabilities than its list"
        _check_frequencies(name, features, every)


def _check_frequencies(name: str, features: Features, every: Inputs) -> None:
    """Check that samples have the probabilities of the list: no frequency of a feature or pair is six standard errors away."""
    n = 20_000
    drawn, on = (x.dense().ne(0).double() for x in (features.sampled(n, 1), every))
    counted, expected = drawn.T @ drawn / n, on.T @ (on * every.probabilities[:, None])
    error = (expected * (1 - expected) / n).clamp(min=1 / n**2).sqrt()
    assert bool(((counted - expected).abs() <= 6 * error).all()), (
        f"{name} draws with other probabilities than its list has"
    )


def check_baseline(name: str) -> None:
    """Check a baseline, floor or best α: on a small problem of its domain it is what is measured, and a fault is noticed."""
    member = BASELINES[name]
    mixing = 0.1 * torch.randn(20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).numpy()
    problem = Compressed(20, 10, 0.2, mixing if member.mixed else None, single=member.single)
    predicted, samples = member.predict(problem), member.measured(problem, 3, 80_000)
    assert math.isfinite(predicted), f"{name} is {predicted}: it must be a finite number"
    # An equal number, or a floor or best α that is not beyond what is reached: six standard errors of its samples at most.
    assert strain(samples, predicted, member.reach) < 6, f"{name} predicts {predicted:.4g}, and {samples} are measured"
    faults = {"floor": (1.1,), "best α": (0.85,)}.get(member.kind, (0.9, 1.1))
    for fault in faults if predicted else ():
        noticed = strain(samples, predicted * fault, member.reach) > 6
        assert noticed, (
            f"{name} times {fault} is not told from what is measured: its measurement, or its reach, is too wide"
        )


def check_dictionary(name: str) -> None:
    """Check a method of dictionary learning: shapes, finite latents, decode after encode, determinism from its seed."""
    knobs = DICTIONARIES[name].knobs
    quick = f"{name}({','.join(f'{knob}={value}' for knob, value in {'steps': 3, 'k': 2}.items() if knob in knobs)})"
    x = torch.randn(40, M, generator=torch.Generator().manual_seed(0))
    a = (x @ torch.randn(M, D, generator=torch.Generator().manual_seed(1))).relu()
    fitted = fit_dictionary(quick, a, 8, 0, x)
    read = x if getattr(fitted, "reads", "") == "inputs" else a
    with torch.no_grad():
        z: Tensor = fitted.encode(read)  # type: ignore[operator]
        back: Tensor = fitted(read)
        assert z.ndim == 2, f"{name} encodes to shape {tuple(z.shape)}: it must be a row for each input"
        assert len(z) == len(a), f"{name} encodes {len(a)} inputs to {len(z)} rows"
        assert back.shape == a.shape, f"{name} reconstructs shape {tuple(back.shape)} from {tuple(a.shape)}"
        assert bool(z.isfinite().all() and back.isfinite().all()), f"{name} returns numbers that are not finite"
        assert torch.equal(back, fitted.decode(z)), f"{name} is not decode after encode"  # type: ignore[operator]
        again = fit_dictionary(quick, a, 8, 0, x)
        assert torch.equal(back, again(read)), (
            f"{name} is another dictionary when it is fitted again from the same seed"
        )
