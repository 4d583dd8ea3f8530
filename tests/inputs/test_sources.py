"""Features that fire together, have unequal probabilities, or are a list: against sums over all 2^m vectors, written out here."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

from toymodels import (
    Features,
    InputError,
    Inputs,
    LinearReadoff,
    LpLoss,
    Network,
    PairTask,
    Trainer,
    TrainingSettings,
    balanced,
    case_weights,
    evaluate,
    gaussian,
    least_squares,
    make_task,
    minimax,
)
from toymodels.core.features import make_features
from toymodels.core.losses import ApartLoss, loss_and_gradients
from toymodels.core.tasks import Task
from toymodels.fast import gradients
from toymodels.inputs.listed import Listed
from toymodels.readoffs.by_class import fitted_class_readoff

M = 8


def of_groups(x, size, on, together):
    """Probability of x if each group is on with probability `on` and each of its features then with `together`."""
    p = 1.0
    for start in range(0, M, size):
        k = sum(x[start : start + size])
        p *= on * together**k * (1 - together) ** (size - k) + (1 - on) * (k == 0)
    return p


def of_at_most(x):
    """Probability of x if at most 2 of the 4 couples are on, every set of them equally often (1 + 4 + 6 sets)."""
    couples = [x[2 * i : 2 * i + 2] for i in range(4)]
    whole = all(sum(couple) in (0, 2) for couple in couples)
    return whole * (sum(x) <= 4) / 11


def of_independent(x, p):
    return math.prod(q if on else 1 - q for on, q in zip(x, p, strict=True))


ZIPF = [2 / sum(1 / k for k in range(1, M + 1)) / k for k in range(1, M + 1)]
SOURCES = {
    ("couples", 2): lambda x: of_groups(x, 2, 0.25, 1),
    ("couples(together=0.6)", 1.2): lambda x: of_groups(x, 2, 0.25, 0.6),
    ("couples(size=4,together=0.5)", 2): lambda x: of_groups(x, 4, 0.5, 0.5),
    ("couples(groups=at_most)", 4): of_at_most,
    ("unequal", 2): lambda x: of_independent(x, ZIPF),
    ("a list, its ends alike", 0): lambda x: (1 + sum(on * 2**k for k, on in enumerate(x)) % 5) / 766,
    ("unequal(weights=8 1 1 2 1 1 4 2)", 1): lambda x: of_independent(x, [w / 20 for w in (8, 1, 1, 2, 1, 1, 4, 2)]),
}


@pytest.fixture(params=SOURCES, ids=lambda source: source[0])
def source(request):
    """(features, all vectors x of positive probability, their probabilities)."""
    every = [x for x in itertools.product((0, 1), repeat=M) if SOURCES[request.param](x) > 0]
    shares = np.array([SOURCES[request.param](x) for x in every])
    assert shares.sum() == pytest.approx(1)
    x = torch.tensor(every).double()
    if not request.param[1]:
        return Listed(x.float(), torch.from_numpy(shares)), x, shares
    return make_features(request.param[0], M, request.param[1]), x, shares


def test_the_list_has_every_input_with_its_probability(source):
    features, every, shares = source
    inputs = features.enumerate()
    assert len(inputs) == features.n_inputs == len(every)
    found = dict(zip(map(tuple, inputs.dense().int().tolist()), inputs.probabilities.tolist(), strict=True))
    wanted = dict(zip(map(tuple, every.int().tolist()), shares.tolist(), strict=True))
    assert found == pytest.approx(wanted, rel=1e-9)


def test_samples_have_these_probabilities(source):
    features, every, shares = source
    n = 40_000
    code = (every.long() * 2 ** torch.arange(M)).sum(1)
    expected = np.zeros(2**M)
    expected[code.numpy()] = shares * n
    drawn = (features.sampled(n, 3).dense().long() * 2 ** torch.arange(M)).sum(1)
    counts = torch.bincount(drawn, minlength=2**M).numpy()
    assert counts[expected == 0].sum() == 0
    assert np.all(np.abs(counts - expected) <= 5.5 * np.sqrt(expected) + 5)


@pytest.mark.parametrize("pairs", [None, [(0, 1), (6, 7), (7, 0)]])
def test_probabilities_of_cases_are_exact_means_over_pairs(source, pairs, monkeypatch):
    features, every, shares = source
    task = PairTask(M, "and", pairs)
    case = (2 * every[:, task.pairs[:, 0]] + every[:, task.pairs[:, 1]]).long().numpy()
    wanted = [float((shares[:, None] * (case == c)).sum() / task.n_outputs) for c in range(4)]
    for name in ("enumerate", "sample"):  # so also if the inputs are too many to list
        monkeypatch.setattr(type(features), name, lambda *_, **__: pytest.fail("the probabilities are known"))
    assert task.case_probabilities(features) == pytest.approx(wanted, rel=1e-9, abs=1e-15)
    assert [p == 0 for p in task.case_probabilities(features)] == [p == 0 for p in wanted]


def test_rounding_makes_no_case_of_one_that_cannot_occur():
    class Couple(Features):
        m = 2

        def sample(self, n, generator):
            return Inputs.of((torch.rand(n, 1, generator=generator) < 0.3).float().expand(n, 2))

        def both_active(self):
            return torch.tensor([[0.1 + 0.2, 0.3], [0.3, 0.1 + 0.2]], dtype=torch.float64)  # 0.30000000000000004, 0.3

    assert PairTask(2, "and").case_probabilities(Couple()) == pytest.approx((0.7, 0, 0, 0.3), rel=1e-12)
    assert PairTask(2, "and").case_probabilities(Couple())[1] == 0


def test_a_rare_pair_keeps_its_case():
    """Among 20,000 sampled inputs it never has both features on, and the loss would give that case no weight."""
    features = make_features("unequal(exponent=3)", 30, 1)
    p = features.probabilities[28] * features.probabilities[29]
    assert PairTask(30, "and", [(28, 29)]).case_probabilities(features)[3] == pytest.approx(float(p), rel=1e-9)
    assert 0 < p < 1e-8


def problem(features, gate="xor"):
    task = PairTask(M, gate)
    rng = torch.Generator().manual_seed(1)
    layer = gaussian(M, 5, 0, bias=-0.3).double()
    readoff = LinearReadoff(torch.randn(task.n_outputs, 5, generator=rng), torch.randn(task.n_outputs, generator=rng))
    return task, features.enumerate(), Network(layer, readoff.double())


def test_evaluation_weighs_inputs_by_their_probabilities(source, form):
    features, every, shares = source
    task, inputs, network = problem(features)
    error = (network(every) - task.targets(every)).detach().numpy()
    weight = np.repeat(shares[:, None] / task.n_outputs, task.n_outputs, 1)
    cases, result = task.cases(every).numpy(), evaluate(network, task, inputs)
    assert result.rms == pytest.approx(math.sqrt((weight * error**2).sum()), rel=1e-9)
    assert result.worst_error == pytest.approx(np.abs(error).max(), rel=1e-9)
    for number, name in enumerate(task.case_labels):
        on, group = cases == number, result.cases[name]
        assert group.share == pytest.approx(weight[on].sum(), rel=1e-9, abs=1e-15)
        if on.any():
            assert group.rms == pytest.approx(math.sqrt((weight * error**2)[on].sum() / weight[on].sum()), rel=1e-9)
            assert group.mean == pytest.approx((weight * error)[on].sum() / weight[on].sum(), rel=1e-9)


def brute_weights(task, every, shares, truth=None):
    """Loss weights by which each case weighs the same, from the list."""
    cases = task.cases(every).numpy()
    mass = [(shares[:, None] * (cases == c)).sum() / task.n_outputs for c in range(4)]
    raw = np.array([1 / p if p > 0 else 0.0 for p in mass])
    return (raw / sum(p * w for p, w in zip(mass, raw, strict=True)))[cases]


@pytest.mark.parametrize("fit", ["least_squares", "balanced", "by_class"])
def test_fitted_readoffs_minimise_the_weighted_squares(source, form, fit):
    features, every, shares = source
    task, inputs, network = problem(features, "and")
    a = torch.cat([network.layer(every).detach(), torch.ones(len(every), 1)], 1).numpy()
    targets = task.targets(every).numpy()
    weight = np.repeat(shares[:, None], task.n_outputs, 1)
    if fit == "least_squares":
        readoff = least_squares(network.layer, task, inputs)
    elif fit == "balanced":
        readoff = balanced(network.layer, task, features, inputs)
    else:
        readoff = fitted_class_readoff(network.layer, task, features, inputs)
    if fit != "least_squares":
        weight = weight * brute_weights(task, every, shares)
    found = readoff(torch.from_numpy(a[:, :-1])).detach().numpy()
    if fit == "by_class":  # five numbers for all pairs
        sign = np.where(network.layer.weight.detach().numpy() > 0, 1.0, -1.0)
        k, l = task.pairs.T.numpy()
        parts = [np.ones_like(sign)[:, k], sign[:, k], sign[:, l], sign[:, k] * sign[:, l]]
        terms = np.stack([*(a[:, :-1] @ part for part in parts), np.ones_like(targets)], -1).reshape(-1, 5)
        root = np.sqrt(weight).reshape(-1)
        best = np.linalg.lstsq(terms * root[:, None], targets.reshape(-1) * root, rcond=None)[0]
        wanted = (terms @ best).reshape(targets.shape)
    else:
        root = np.sqrt(weight)
        columns = range(task.n_outputs)
        best = [np.linalg.lstsq(a * root[:, [i]], targets[:, i] * root[:, i], rcond=None)[0] for i in columns]
        wanted = a @ np.array(best).T
    seen = weight > 0
    assert np.allclose(found[seen], wanted[seen], atol=1e-6)


@pytest.mark.parametrize("loss", [LpLoss(2.0), LpLoss(5.0), ApartLoss(3.0)], ids=str)
def test_losses_and_gradients_weigh_inputs_by_their_probabilities(source, form, loss, monkeypatch):
    monkeypatch.setattr(gradients, "SMALL", 0)
    monkeypatch.setattr(gradients, "ALONE", 0)
    features, every, shares = source
    task, inputs, network = problem(features, "and")
    weights = case_weights("case", task.truth, task.case_probabilities(features))
    reached = loss_and_gradients(network, task, inputs, loss, weights)
    found = [parameter.grad for parameter in network.parameters()]
    error, targets = network(every) - task.targets(every), task.targets(every)
    weight = torch.from_numpy(shares)[:, None] * torch.from_numpy(brute_weights(task, every, shares))
    power = weight * error.abs() ** loss.p
    if isinstance(loss, LpLoss):
        wanted = (power.sum() / task.n_outputs) ** (1 / loss.p)
    else:
        wanted = sum((power[on].sum() / weight[on].sum()) ** (1 / loss.p) for on in (targets == 0, targets == 1))
    assert float(reached.value) == pytest.approx(float(wanted.detach()), rel=1e-7)
    for got, slope in zip(found, torch.autograd.grad(wanted, list(network.parameters())), strict=True):
        assert torch.allclose(got, slope, rtol=1e-6, atol=1e-8 * float(slope.abs().max()))


def test_minimax_is_over_the_inputs_that_occur(form):
    """Couples that always fire together make x_0 itself the AND of their two features; across couples 1/4 remains."""
    task = PairTask(M, "and", [(0, 1), (1, 2)])
    identity = torch.nn.Identity()
    fitted = minimax(identity, task, make_features("couples", M, 2).enumerate())
    assert [c.worst_error for c in fitted.certificates] == pytest.approx([0, 0.25], abs=1e-9)
    apart = minimax(identity, task, make_features("couples(together=0.9)", M, 2).enumerate())
    assert [c.worst_error for c in apart.certificates] == pytest.approx([0.25, 0.25], abs=1e-9)


def test_values_of_couples_are_drawn_for_each_feature():
    features = make_features("couples", M, 2, "uniform")
    assert features.n_inputs == math.inf
    x = features.sampled(500, 0).dense()
    assert torch.equal(x[:, ::2] > 0, x[:, 1::2] > 0)
    assert float((x[:, ::2] - x[:, 1::2]).abs().max()) > 0.5
    constant = make_features("unequal", M, 2, "constant(value=-2)").enumerate()
    assert sorted(constant.dense().unique().tolist()) == [-2.0, 0.0]


# ---- lists from files

ROWS = [([0, 3], 0.5), ([1], 0.25), ([], 0.125), ([0, 3], 0.125)]


def write_list(folder, kind):
    path = folder / f"inputs.{kind}"
    if kind == "csv":
        lines = ["a,b,probability,c,d"]
        for active, p in ROWS:
            x = [int(k in active) for k in range(4)]
            lines.append(f"{x[0]},{x[1]},{p},{x[2]},{x[3]}")
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text(json.dumps([{"active": active, "probability": p} for active, p in ROWS]))
    return path


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_list_is_read_and_equal_rows_are_one(kind, tmp_path):
    features = make_features(f"listed(file={write_list(tmp_path, kind)})", 4, 2)
    inputs = features.enumerate()
    found = dict(zip(map(tuple, inputs.dense().int().tolist()), inputs.probabilities.tolist(), strict=True))
    assert found == {(1, 0, 0, 1): 0.625, (0, 1, 0, 0): 0.25, (0, 0, 0, 0): 0.125}
    assert features.n_inputs == 3
    both = features.both_active()
    assert both[0].tolist() == [0.625, 0, 0, 0.625]
    share = features.sampled(8000, 0).dense()[:, 1].mean()
    assert float(share) == pytest.approx(0.25, abs=0.02)


def test_a_list_may_have_values_and_features_that_are_never_active(tmp_path):
    path = tmp_path / "inputs.json"
    path.write_text('{"m": 5, "inputs": [{"active": [2], "values": [-0.5]}, {"active": []}]}')
    inputs = make_features(f"listed(file={path})", 5, 2).enumerate()
    assert inputs.dense().tolist() == [[0, 0, -0.5, 0, 0], [0] * 5]
    assert inputs.probabilities.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "0,1\n1,0\n", "must name the columns"),
        ("a.csv", "x,y\n1,two\n", "line 2 is not 2 numbers"),
        ("a.csv", "x,y\n1,0,1\n", "line 2 is not 2 numbers"),
        ("a.csv", "", "at least one input"),
        ("a.csv", "x,y\n", "at least one input"),
        ("a.csv", "x,y,probability\n1,0,0.4\n0,1,0.4\n", "add up to 1"),
        ("a.csv", "x,y,probability\n1,0,1.5\n0,1,-0.5\n", "none below 0"),
        ("a.csv", "x,y,z\n1,0,1\n", "has 3 features"),
        ("a.csv", b"\xff\xfex", "no text in UTF-8"),
        ("a.json", "[", "the list of inputs"),
        ("a.json", "{}", "must hold a list"),
        ("a.json", '[{"on": [1]}]', "input 0 is not an object"),
        ("a.json", '[{"active": [0, 0]}]', "different features"),
        ("a.json", '[{"active": [1.5]}]', "different features"),
        ("a.json", '[{"active": [1], "values": [0]}]', "other than 0"),
        ("a.json", '[{"active": [1], "values": [1e999]}]', "other than 0"),
        ("a.json", '[{"active": [1], "probability": "1"}]', "must be a number"),
        ("a.json", '[{"active": [1], "probability": 1}, {"active": [0]}]', "1 of 2 inputs"),
        ("a.json", '[{"active": [1000000000]}]', "list fewer"),
        ("a.json", '{"m": 1, "inputs": [{"active": [1]}]}', "from 2 up"),
        ("a.json", "[" * 100_000, "the list of inputs"),
        ("a.npy", "x", "neither .csv nor .json"),
    ],
)
def test_a_list_that_is_none_is_refused_in_a_sentence(name, content, words, tmp_path):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words):
        make_features(f"listed(file={path})", 2, 1)


@pytest.mark.parametrize(
    ("call", "m", "s", "words"),
    [
        ("couples", 7, 2, "multiple of 2"),
        ("couples(size=4)", 4, 2, "from 8 up"),
        ("couples(size=1)", 8, 2, "at least 2"),
        ("couples(together=0)", 8, 2, "together = 0"),
        ("couples(together=0.2)", 8, 2, "strictly between 0 and m·together = 1.6"),
        ("couples(groups=some)", 8, 2, "independent, at_most, exactly"),
        ("couples(groups=at_most)", 8, 3, "multiple of 2"),
        ("unequal", 8, 6, "feature 0 would be active with probability"),
        ("unequal(exponent=-1)", 8, 1, "0 or a positive number"),
        ("unequal(weights=1 2)", 8, 1, "2 numbers"),
        ("unequal(weights=a b)", 8, 1, "with spaces between them"),
        ("unequal(weights=1 2 3,exponent=2)", 3, 1, "no effect"),
        ("unequal", 8, math.nan, "finite"),
        ("listed", 8, 1, "needs a file"),
        ("listed(file=nowhere.csv)", 8, 1, "there is no file .*nowhere"),
        ("listed(file=a.csv,version=v12345678)", 8, 1, "is not there as it was"),
    ],
)
def test_settings_that_do_not_fit_are_refused(call, m, s, words):
    with pytest.raises(InputError, match=words):
        make_features(call, m, s)


# ---- sources of one's own


class Own:
    """The least that a source may be: it is no Features."""

    m = 4

    def sample(self, n, generator):
        return Inputs.of((torch.rand(n, 2, generator=generator) < 0.3).float().repeat_interleave(2, 1))


def trained(source, **settings):
    task = PairTask(4, "and")
    network = Network(gaussian(4, 6, 0), LinearReadoff.constant(task.n_outputs, 6))
    trainer = Trainer(network, task, source, TrainingSettings(p=(2.0,), steps=3, **settings), 0)
    while not trainer.finished:
        trainer.advance()
    return trainer


def test_a_source_needs_a_sampler_alone():
    shares = PairTask(4, "and", [(0, 1)]).case_probabilities(Own())
    assert shares == pytest.approx((0.7, 0, 0, 0.3), abs=0.02)
    assert trained(Own(), optimiser="adam").step == 3


def test_a_source_that_lists_its_inputs_is_trained_on_all():
    class Listing(Own):
        n_inputs = 2

        def enumerate(self, limit=10, device="cpu"):
            return Inputs.of(torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]]), torch.tensor([0.9, 0.1]).double(), True)

    assert trained(Listing(), optimiser="lbfgs").step == 3
    assert PairTask(4, "and", [(0, 1)]).case_probabilities(Listing()) == pytest.approx((0.1, 0, 0, 0.9))


def test_a_sampler_that_returns_something_else_is_told_what_is_wanted():
    class Dense(Features):
        m = 4

        def sample(self, n, generator):
            return torch.zeros(n, 4)

    with pytest.raises(InputError, match=r"draw a Tensor: `sample` must return 20,000 Inputs of m = 4 features"):
        trained(Dense(), optimiser="adam")
    with pytest.raises(InputError, match=r"Inputs\.of"):
        Dense().sampled(3, 0)


def test_inputs_from_vectors():
    x = torch.tensor([[0, 2.0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
    inputs = Inputs.of(x, torch.tensor([0.5, 0.25, 0.25]).double(), True)
    assert torch.equal(inputs.dense(), x)
    assert (inputs.enumerated, inputs.description, len(inputs)) == (True, "all 3", 3)
    assert Inputs.of((x > 0).float()).values is None
    assert Inputs.of(x).probabilities.tolist() == [1 / 3] * 3
    for wrong in ([0.5, 0.6, -0.1], [0.5, 0.5, 0.5], [math.nan, 0.5, 0.5]):
        with pytest.raises(InputError, match="that add up to 1"):
            Inputs.of(x, torch.tensor(wrong).double())
    with pytest.raises(InputError, match="finite"):
        Inputs.of(x / 0)


def test_the_list_of_inputs_in_python():
    features = Listed(torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([0.3, 0.7]).double())
    task = make_task("relu", 2)
    assert isinstance(task, Task)
    zero = Network(torch.nn.Identity(), LinearReadoff.constant(2, 2))
    result = evaluate(zero, task, features.enumerate())
    assert result.groups["active"].share == pytest.approx(0.5)
    assert result.rms == pytest.approx(math.sqrt(0.5))
