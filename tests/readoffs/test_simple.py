import pytest
import torch

from toymodels.core.features import SparseFeatures
from toymodels.core.layers import LAYERS
from toymodels.core.readoffs import READOFFS, Combination, Fitted, LinearReadoff, as_fitted, fit_readoff
from toymodels.core.tasks import PairTask, Task
from toymodels.errors import InputError
from toymodels.layers.random import gaussian
from toymodels.registry import Member


class Sine(Task):
    """A task with real targets."""

    name = "sine"

    def __init__(self, m):
        self.m, self.n_outputs = m, m

    def cases(self, x, outputs=slice(None)):
        return (x != 0).long()[:, outputs]

    def targets(self, x, outputs=slice(None)):
        return x.sin()[:, outputs]


AND = PairTask(6, "and")
INPUTS = SparseFeatures.at_most(6, 2).enumerate()
LAYER = gaussian(6, 9, 0)


def test_baselines_ignore_the_layer():
    for name, value in (("constant", 0.5), ("zero", 0.0)):
        read = fit_readoff(name, LAYER, AND, INPUTS, width=9).readoff
        assert torch.equal(read(LAYER(INPUTS.dense())), torch.full((len(INPUTS), 15), value))


def applicable(layer, task, closed_forms=frozenset(), embedded=False):
    combination = Combination(LAYERS[layer], task, closed_forms, embedded)
    return {name for name, member in READOFFS.items() if member.applies(combination)}


def test_each_readoff_says_itself_where_it_applies():
    fits = {"least_squares", "balanced", "minimax", "trained", "random_labels"}
    assert applicable("identity", AND) == {"constant", "minimax", "random_labels"}
    assert applicable("identity", Sine(6)) == {"zero", "minimax"}
    assert applicable("trained", AND) == {"trained", "minimax", "random_labels", "by_class"}
    assert applicable("gaussian", AND, frozenset({"quadrants"})) == fits | {"analytic", "by_class"}
    assert applicable("gaussian", AND) == fits | {"by_class"}
    assert applicable("gaussian", AND, frozenset({"quadrants"}), embedded=True) == fits
    assert applicable("gaussian", Sine(6)) == fits - {"random_labels"}
    assert applicable("bernoulli", AND) == fits | {"own", "by_class"}
    assert applicable("bernoulli", PairTask(6, "xor")) == fits | {"by_class"}


def test_what_a_comparison_has_by_default_samples_and_stores():
    members = dict(READOFFS.items())
    assert {name for name, member in members.items() if not member.default} == {"by_class", "random_labels"}
    assert {name for name, member in members.items() if member.sampled} == {"minimax", "random_labels"}
    assert {name for name, member in members.items() if member.needs == "every input"} == {"minimax", "random_labels"}
    assert {name for name, member in members.items() if not member.kept} == {"random_labels"}
    assert not LinearReadoff.constant(3, 4).bias.any()


def note(name, **given):
    return Member(name=name, function=READOFFS[name].note).call(
        {"s": 3, "inputs": "at most", "embedded": False, **given}
    )


def test_notes_say_what_a_readoff_is_made_for():
    gaussian_and, bernoulli_and, bernoulli_xor = (
        Combination(LAYERS[layer], task, frozenset(forms), False)
        for layer, task, forms in (
            ("gaussian", AND, {"quadrants"}), ("bernoulli", AND, ()), ("bernoulli", PairTask(6, "xor"), ())
        )
    )  # fmt: skip
    left_out = "The analytic readoff is left out"
    assert note("analytic", combinations=[bernoulli_and]).startswith(left_out)
    assert "for exactly 3 active features" in note("analytic", combinations=[bernoulli_and, gaussian_and])
    assert note("analytic", combinations=[bernoulli_and, gaussian_and], inputs="exactly") == ""
    assert note("own", combinations=[gaussian_and]) == ""
    both = note("own", combinations=[gaussian_and, bernoulli_and, bernoulli_xor])
    assert "made for exactly 3 active features; on inputs with another number it is biased" in both
    assert "bernoulli: mean over common neurons" in both
    assert both.endswith("Without a readoff of their own for xor: bernoulli.")
    assert "an axis each" not in both
    only = note("own", combinations=[bernoulli_and], inputs="exactly", embedded=True)
    assert only.startswith(
        "own: the construction's readoff, made for exactly 3 active features, and for features with an axis"
    )
    assert "Without" not in only
    assert note("by_class") == ""
    assert note("by_class", embedded=True).startswith("by_class is left out: with an embedding")
    warned = "a random label of an AND is the AND of another pair"
    for tasks, s, inputs, warns in (
        ([PairTask(6, "xor"), AND], 2, "at_most", True),
        ([PairTask(6, "xor")], 2, "at_most", False),
        ([AND], 3, "at_most", False),
        ([AND], 2, "independent", False),
    ):
        said = note("random_labels", tasks=tasks, s=s, inputs=inputs)
        assert (warned in said) is warns
        assert said.startswith(
            "random_labels: minimax readoffs of labels as sparse as the targets, in random order over "
        )
        assert "inputs of equal size; errors are against these labels." in said


def test_a_readoff_of_ones_own_is_fitted_by_name(monkeypatch):
    monkeypatch.setattr(READOFFS, "_members", dict(READOFFS._members))

    @READOFFS("ridge", source="this test")
    def ridge(layer, task, inputs, *, penalty=1.0):
        a = layer(inputs.dense()).detach()
        gram = a.T @ a + penalty * torch.eye(a.shape[1])
        return LinearReadoff(
            torch.linalg.solve(gram, a.T @ task.targets(inputs.dense())).T, torch.zeros(task.n_outputs)
        )

    assert not applicable("identity", AND) - {"constant", "minimax", "random_labels", "ridge"}
    small, large = (fit_readoff(f"ridge(penalty={p})", LAYER, AND, INPUTS).readoff.weight.norm() for p in (1e-3, 1e3))
    assert large < small / 10
    with pytest.raises(InputError, match="no knob 'nope'"):
        fit_readoff("ridge(nope=1)", LAYER, AND, INPUTS)
    with pytest.raises(InputError, match="not offered"):
        fit_readoff("trained", LAYER, AND, INPUTS)


def test_the_inputs_are_every_input_unless_others_are_offered():
    assert fit_readoff("minimax", LAYER, AND, INPUTS).output_worst.max() < 0.5


def test_a_bare_readoff_is_wrapped_and_a_fitted_one_is_not():
    readoff = LinearReadoff.constant(3, 4)
    fitted = Fitted(readoff, facts={"proved": True})
    assert as_fitted(readoff).readoff is readoff
    assert as_fitted(fitted) is fitted
    assert fit_readoff("trained", LAYER, AND, INPUTS, trained_readoff=fitted) is fitted


def test_a_slice_of_a_linear_readoff_is_that_of_all():
    rng = torch.Generator().manual_seed(0)
    readoff = LinearReadoff(torch.randn(5, 4, generator=rng), torch.randn(5, generator=rng))
    a = torch.randn(3, 4, generator=rng)
    assert readoff.n_outputs == 5
    assert torch.equal(readoff(a, slice(1, 3)), readoff(a)[:, 1:3])
    assert readoff.double()(a).dtype == torch.float64


@pytest.mark.parametrize(
    ("layer", "task", "wanted"),
    [
        ("identity", AND, {"constant"}),
        ("identity", Sine(6), {"zero"}),
        ("gaussian", AND, {"trained"}),
        ("gaussian", Sine(6), {"trained"}),
        ("rademacher", AND, {"trained", "own"}),
        ("rademacher", Sine(6), {"trained"}),
    ],
    ids=lambda part: getattr(part, "name", None),
)
def test_each_stands_where_it_says_something(layer, task, wanted):
    combination = Combination(LAYERS[layer], task, frozenset(), False)
    assert {name for name in ("constant", "zero", "own", "trained") if READOFFS[name].applies(combination)} == wanted


def test_the_note_of_own_readoffs_names_those_without_in_a_paragraph_of_their_own():
    made = [Combination(LAYERS[name], Sine(6), frozenset(), False) for name in ("rademacher", "four_class")]
    read = Combination(LAYERS["rademacher"], AND, frozenset(), False)
    note = READOFFS["own"].note(2, "exactly", [read, *made], False)
    assert note.split("\n\n")[1] == "Without a readoff of their own for sine: rademacher, four_class."
