"""Verdicts on networks of known nature; measures against their definitions; wrong networks are refused."""

import html
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from toymodels.cli import main
from toymodels.compressed.stack import network
from toymodels.core.features import SparseFeatures
from toymodels.core.layers import FirstLayer
from toymodels.core.minimax import minimax
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff, fit_readoff
from toymodels.core.tasks import make_task
from toymodels.diagnosis import known_gates
from toymodels.diagnosis.known import KNOWN, naive_weights
from toymodels.diagnosis.measures.decoding import kappa_of, leverages
from toymodels.diagnosis.measures.gates import dedicated_gates
from toymodels.diagnosis.measures.weights import dedicated_features
from toymodels.diagnosis.page import page, sorted_features
from toymodels.diagnosis.registry import MEASURES, measure_all
from toymodels.diagnosis.verdict import VERDICTS, check_order, diagnose, judge, subject_of
from toymodels.errors import InputError
from toymodels.ground_truth.folder import save_pretrained

PUBLISHED = Path(__file__).parents[3] / "shared" / "published"
BUILT = [name for name, member in KNOWN.items() if member.nature and "steps" not in member.parameters]


@pytest.mark.parametrize("name", BUILT)
def test_built_networks_get_their_own_verdict(name):
    n, d = KNOWN[name].gates or (60, 30)
    ((made, task),) = KNOWN[name].call({"n": n, "d": d, "seeds": [3]})
    assert judge(subject_of(made, task, inputs=20_000))[0] == KNOWN[name].nature


@pytest.mark.parametrize("gates", [False, True])
def test_every_verdict_is_that_of_a_known_network(gates):
    assert {KNOWN[name].nature for name in BUILT if (KNOWN[name].gates is not None) == gates} == set(VERDICTS)


@pytest.mark.long
def test_at_most_a_twentieth_of_twenty_seeds_each_is_wrong():
    wrong = []
    for name in BUILT:
        n, d = KNOWN[name].gates or (100, 50)
        for seed, (made, task) in enumerate(KNOWN[name].call({"n": n, "d": d, "seeds": list(range(20))})):
            verdict = judge(subject_of(made, task, inputs=30_000, seed=seed))[0]
            if verdict != KNOWN[name].nature:
                wrong.append((name, seed, verdict))
    assert len(wrong) <= len(BUILT), wrong


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published weights are not here")
@pytest.mark.parametrize(("file", "verdict"), [("l4", "sparse code"), ("l2", "naive")])
def test_published_networks(file, verdict):
    weights = load_file(PUBLISHED / f"{file}.safetensors")
    subject = subject_of(network(weights["W_in"], weights["W_out"]), make_task("relu", 100), inputs=100_000)
    assert judge(subject)[0] == verdict
    values = {
        name: MEASURES[name].function(subject) for name in ("coherence", "pinv_cosine", "rank_saturation", "swap")
    }
    expected = {"l4": (0.236, 0.996, 50.4 / 50, 1.0), "l2": (0.967, 1.0, 1.0, None)}[file]
    for value, known in zip(values.values(), expected, strict=True):
        assert known is None or value == pytest.approx(known, abs=0.004)
    known_loss, known_largest = {"l4": (2.39e-3, 0.66), "l2": (1.65e-3, 0.99)}[file]
    # Squared errors of 200,000 active features, whose relative spread is 1 or so; the largest one depends on the sample.
    assert subject.errors.loss == pytest.approx(known_loss, rel=0.02)
    assert subject.errors.largest == pytest.approx(known_largest, rel=0.1)


def small(seed=0, d=6, n=10):
    generator = torch.Generator().manual_seed(seed)
    return subject_of(
        network(torch.randn(d, n, generator=generator).double(), torch.randn(n, d, generator=generator).double()),
        make_task("relu(mixing=asymmetric, sigma=0.1)", n, seed=1), inputs=2000,
    )  # fmt: skip


def of_kind(kind):
    return [name for name, member in MEASURES.items() if member.of in ("both", kind)]


def test_every_measure_is_a_number_or_says_why_not():
    subject = small()
    rows = measure_all(subject)
    assert [row["name"] for row in rows] == of_kind("features")
    # Nothing is served by random weights, so nothing of it has a neuron of its own.
    assert [row["name"] for row in rows if row["value"] is None] == ["dedicated"]
    assert all(row["tells"].endswith(".") and row["cannot"].endswith(".") for row in rows)
    assert [row["value"] for row in measure_all(small())] == [row["value"] for row in rows]
    plain = {row["name"]: row["value"] for row in measure_all(subject_of(subject.network, make_task("relu", 10)))}
    assert plain["transplant"] is None


def test_measures_by_their_definitions():
    subject = small()
    w, v = subject.layers.w_in, subject.layers.w_out
    size = np.abs(w)
    loads = [sum(size[k, i] > 0.3 * max(size[k]) for i in range(10)) for k in range(6)]
    assert MEASURES["load"].function(subject) == pytest.approx(np.mean(loads))
    assert MEASURES["on_share"].function(subject) == pytest.approx(np.mean(loads) / 10)
    cosines = [
        abs(w[:, i] @ w[:, j]) / np.sqrt((w[:, i] @ w[:, i]) * (w[:, j] @ w[:, j])) for i in range(10) for j in range(i)
    ]
    assert MEASURES["coherence"].function(subject) == pytest.approx(max(cosines))
    pinv = np.linalg.pinv(w)
    expected = (pinv * v).sum() / np.sqrt((pinv**2).sum() * (v**2).sum())
    assert MEASURES["pinv_cosine"].function(subject) == pytest.approx(expected)
    R = v @ np.maximum(w, 0)
    scales = np.linspace(-1, 1, 200_001)
    best = min(((s * R - np.eye(10)) ** 2).sum() for s in scales[::1000])
    assert MEASURES["rank_saturation"].function(subject) == pytest.approx(best / 4, rel=1e-3)
    assert leverages(subject).sum() == pytest.approx(6)
    assert np.allclose(leverages(subject), np.diag(w.T @ np.linalg.inv(w @ w.T) @ w))
    negative = v @ np.maximum(-w, 0)
    assert MEASURES["at_minus_one"].function(subject) == pytest.approx(np.trace(negative) / np.trace(R))
    x = subject.x
    active = x[(x != 0).any(1)]
    assert MEASURES["clipped"].function(subject) == pytest.approx((active @ w.T < 0).mean())
    plain = np.maximum(x[:, 6:], 0)
    mixed = x @ subject.task.mixing.numpy().T
    mixed[:, 6:] += plain
    assert subject.naive_loss() == pytest.approx((mixed**2).mean())
    assert subject.naive_loss(mixed=False) == pytest.approx((plain**2).sum() / x.size)
    assert MEASURES["against_naive"].function(subject) == pytest.approx(subject.errors.loss / (mixed**2).mean())


def test_the_naive_network_has_the_measures_that_it_must_have():
    w_in, w_out = naive_weights(40, 20, 0, noise=0.0)
    subject = subject_of(network(w_in, w_out), make_task("relu", 40), inputs=20_000)
    values = {row["name"]: row["value"] for row in measure_all(subject)}
    assert values["against_naive"] == pytest.approx(1, rel=0.1)  # other features are left out than the first 20
    for name, value in {
        "served": 0.5,
        "computed": 0.5,
        "load": 1,
        "dedicated": 1,
        "swap": 1,
        "error_share": 0.5,
    }.items():
        assert values[name] == pytest.approx(value)
    assert values["rank_saturation"] == pytest.approx(1)
    assert values["leverage_spread"] == pytest.approx(0.5)
    assert values["worst_one"] == pytest.approx(1)
    assert values["at_minus_one"] == 0
    linear = subject_of(
        network(torch.cat([torch.eye(4), -torch.eye(4)]), torch.cat([torch.eye(4), -torch.eye(4)], 1)),
        make_task("relu", 4),
    )
    assert MEASURES["linear_share"].function(linear) == pytest.approx(1)


def test_a_trace_of_a_feature_that_is_left_out_is_not_shared_use():
    w_in, w_out = naive_weights(40, 20, 0, noise=0.0)
    used = (w_in > 0).any(0)
    used[w_in[0].argmax()] = False
    left = torch.arange(40)[(w_in == 0).all(0)]
    for others, own in ((left[:1], 20), (left[:2], 19), (torch.arange(40)[used][:1], 19)):
        traced = w_in.clone()
        traced[0, others] = 0.35 * w_in[0].max()
        subject = subject_of(network(traced, w_out), make_task("relu", 40), inputs=20_000)
        assert dedicated_features(subject).sum() == own
        assert subject.value("dedicated") == own / 20


def test_kappa_is_the_best_of_many_readouts_and_obeys_its_bound():
    """Borobia et al.: κ_i ≤ 1 + √((F−1)h_i/(1−h_i)) for h_i ≤ 1/2."""
    rng = np.random.default_rng(0)
    a = np.abs(rng.standard_normal((12, 5)))
    for i in range(4):
        kappa = kappa_of(a, i)
        tried = rng.standard_normal((20_000, 5))
        tried /= (tried @ a[i])[:, None]
        assert kappa <= np.abs(tried @ np.delete(a, i, 0).T).max(1).min() + 1e-9
        h = float((np.linalg.pinv(a.T)[i] * a[i]).sum())
        assert h > 0.5 or kappa <= 1 + np.sqrt(11 * h / (1 - h))
    assert kappa_of(np.eye(3), 0) == pytest.approx(0, abs=1e-9)
    assert kappa_of(np.zeros((3, 2)), 0) == np.inf


def test_noise_that_is_suppressed_has_an_exponent_above_that_of_a_linear_map():
    eye, zeros = torch.eye(8).double(), torch.zeros(8).double()

    def found(layer, w_out):
        return subject_of(Network(layer, LinearReadoff(w_out, zeros)), make_task("relu", 8)).value("noise_exponent")

    assert found(
        FirstLayer(torch.cat([eye, -eye]), torch.zeros(16).double()), torch.cat([eye, -eye], 1)
    ) == pytest.approx(2, abs=1e-3)
    # ReLU(x − 1/2): single moves reach the output 1/2 at 1, equal ones at 0.854 each, whose p is 4.4; others are active as well.
    assert found(FirstLayer(eye, zeros - 0.5), eye) > 2.5


def test_modules_of_others_and_features_of_ones_own():
    w_in, w_out = naive_weights(60, 30, 1)
    plain = nn.Sequential(nn.Linear(60, 30, bias=False), nn.ReLU(), nn.Linear(30, 60, bias=False))
    with torch.no_grad():
        plain[0].weight.copy_(w_in)
        plain[2].weight.copy_(w_out)
    features = SparseFeatures.exactly(60, 2, "symmetric")
    found = diagnose(plain, make_task("relu", 60), features, inputs=10_000)
    assert found.verdict == "naive"
    assert found.reasons
    json.dumps(found.to_dict(), allow_nan=False)


def test_features_are_sorted_by_their_neurons():
    w_in = torch.tensor([[0.0, 0.2, 1.0, 0.1], [0.5, 0.1, 0.3, 2.0]])
    subject = subject_of(network(w_in, torch.ones(4, 2)), make_task("relu", 4), inputs=1000)
    assert sorted_features(subject).tolist() == [2, 1, 3, 0]


def test_the_command_reads_a_file_and_writes_a_page(tmp_path, capsys):
    w_in, w_out = naive_weights(20, 10, 1)
    save_file({"enc": w_in.contiguous(), "dec": w_out.contiguous()}, tmp_path / "net.safetensors")
    save_file({"M": torch.zeros(20, 20)}, tmp_path / "m.safetensors")
    words = ["diagnose", str(tmp_path / "net.safetensors"), "--task", "relu", "--m", "20", "--eval-inputs", "4000"]
    assert main([*words, "--matrix", str(tmp_path / "m.safetensors"), "--out", str(tmp_path / "page")]) == 0
    assert capsys.readouterr().out.startswith("naive\n")
    content = json.loads((tmp_path / "page" / "diagnosis.json").read_text())
    assert content["verdict"] == "naive"
    assert [row["name"] for row in content["measures"]] == of_kind("features")
    text = (tmp_path / "page" / "diagnosis.html").read_text()
    assert "data:image/svg+xml" in text
    assert all(html.escape(row["tells"]) in text and html.escape(row["cannot"]) in text for row in content["measures"])


def test_the_command_reads_a_run(tmp_path, capsys):
    run = [
        "train",
        "--task",
        "relu",
        "--m",
        "8",
        "--d",
        "4",
        "--s",
        "1",
        "--inputs",
        "independent",
        "--values",
        "symmetric",
    ]
    options = ["--optimiser", "adam", "--p", "2", "--weight", "1", "--steps", "5", "--out", str(tmp_path / "run")]
    assert main([*run, *options]) == 0
    capsys.readouterr()
    assert main(["diagnose", str(tmp_path / "run"), "--eval-inputs", "1000"]) == 0
    assert capsys.readouterr().out.split("\n")[0] in VERDICTS
    assert main(["diagnose", str(tmp_path / "run"), "--m", "8"]) == 2
    assert "knows its own m" in capsys.readouterr().err
    for option in (["--s", "3"], ["--inputs", "exactly"], ["--values", "uniform"]):
        assert main(["diagnose", str(tmp_path / "run"), *option]) == 2
        assert f"knows its own {option[0][2:]}" in capsys.readouterr().err


def test_the_command_reads_a_folder_of_save_pretrained(tmp_path, capsys):
    task, features = make_task("relu", 20), SparseFeatures.exactly(20, 1, "symmetric")
    save_pretrained(network(*naive_weights(20, 10, 1)), tmp_path / "net", task, features)
    words = ["diagnose", str(tmp_path / "net"), "--eval-inputs", "4000"]
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("naive\nnet: 20 features, 10 neurons, relu, exactly 1 of 20")
    assert main([*words, "--s", "2", "--values", "uniform"]) == 2
    assert "net knows its own inputs: leave --s out" in capsys.readouterr().err
    assert main([*words, "--s", "2", "--inputs", "at_most", "--values", "uniform"]) == 0
    assert "at most 2 of 20" in capsys.readouterr().out
    assert main([*words, "--weights", "a", "b"]) == 2
    assert "describes itself" in capsys.readouterr().err


def test_a_name_with_signs_of_html_is_escaped():
    found = diagnose(network(*naive_weights(6, 3, 0)), make_task("relu", 6), inputs=500)
    assert "<b>x</b>" not in page(found, "<b>x</b>")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nothing.pt", "--task", "relu"], "is not there"),
        (["net.safetensors"], "name the task"),
        (["net.safetensors", "--task", "and", "--m", "5"], "no chain"),
        (["net.safetensors", "--task", "relu", "--m", "20", "--matrix", "net.safetensors"], "must hold M alone"),
        (["net.safetensors", "--task", "relu", "--m", "20", "--matrix", "small.safetensors"], "must be 20 × 20"),
        (
            ["net.safetensors", "--task", "relu(mixing=symmetric)", "--m", "20", "--matrix", "m.safetensors"],
            "of its own",
        ),
        (["net.safetensors", "--task", "relu", "--m", "20", "--eval-inputs", "9"], "at least 100"),
        (["bad.safetensors", "--task", "relu", "--m", "20"], "not finite"),
        ([".", "--task", "relu"], "config.json"),
    ],
)
def test_wrong_commands_are_one_sentence(words, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    w_in, w_out = naive_weights(20, 10, 1)
    save_file({"enc": w_in.contiguous(), "dec": w_out.contiguous()}, "net.safetensors")
    save_file({"enc": w_in * float("nan"), "dec": w_out.contiguous()}, "bad.safetensors")
    save_file({"M": torch.zeros(20, 20)}, "m.safetensors")
    save_file({"M": torch.zeros(3, 3)}, "small.safetensors")
    before = set(tmp_path.iterdir())
    assert main(["diagnose", *words]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: diagnose(nn.Linear(4, 4), make_task("relu", 4)), "1 nn.Linear"),
        (lambda: diagnose(network(torch.eye(1), torch.eye(1)), make_task("relu", 1)), "the task has 1 feature"),
        (lambda: diagnose(network(torch.eye(4), torch.eye(4)), make_task("product", 4)), "cannot be diagnosed"),
        (
            lambda: diagnose(network(torch.eye(4), torch.eye(4)), make_task("relu", 4), SparseFeatures.exactly(5, 1)),
            "must be the same",
        ),
        (lambda: diagnose(network(torch.eye(4), torch.eye(4)), make_task("relu", 4), inputs=5), "at least 100"),
        (lambda: diagnose(network(torch.eye(4), torch.eye(4)), make_task("relu", 4), seed=-1), "at least 0"),
    ],
)
def test_wrong_calls_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize("name", ["naive", "designed_code", "linear_copy", "and_naive", "and_gaussian"])
def test_outputs_in_another_order_are_named(name):
    n, d = KNOWN[name].gates or (60, 30)
    ((made, task),) = KNOWN[name].call({"n": n, "d": d, "seeds": [3]})
    subject = subject_of(made, task, inputs=2000)
    check_order(subject)
    readoff = subject.network.readoff
    order = torch.arange(task.n_outputs).roll(-1)  # output 0 is what output 1 was
    turned = Network(subject.network.layer, LinearReadoff(readoff.weight[order], readoff.bias[order]))
    with pytest.raises(InputError, match=r"output \d+ computes what output 0 should"):
        check_order(subject_of(turned, task, inputs=2000))


@pytest.mark.parametrize("scale", [0.1, 0.4, 1.5])
@pytest.mark.parametrize(("task", "m"), [("and", 16), ("relu", 60)])
def test_random_networks_are_in_no_order(task, m, scale):
    """Among so many outputs some are near the target of another one by chance."""
    problem, generator = make_task(task, m), torch.Generator().manual_seed(0)
    w_in, w_out = torch.randn(30, m, generator=generator), torch.randn(problem.n_outputs, 30, generator=generator)
    check_order(subject_of(network(w_in, scale / 30**0.5 * w_out), problem, inputs=2000))


def gate_subject(gate="and", bias=-1.0, m=5, d=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    w_in, w_out = torch.rand(d, m, generator=generator).double(), torch.randn(m * (m - 1) // 2, d, generator=generator)
    layer = FirstLayer(w_in, torch.full((d,), bias).double())
    return subject_of(Network(layer, LinearReadoff(w_out.double(), w_out.double()[:, 0])), make_task(gate, m))


def test_measures_of_gates_by_their_definitions():
    subject = gate_subject()
    assert len(subject.inputs) == 1 + 5 + 10  # all with at most two ones
    worst = {}
    for x in subject.x:
        hidden = [
            max(0.0, float(row @ x) + bias) for row, bias in zip(subject.layers.w_in, subject.layers.b_in, strict=True)
        ]
        for g, (k, l) in enumerate(subject.task.pairs.tolist()):
            output = sum(subject.layers.w_out[g, i] * h for i, h in enumerate(hidden)) + subject.layers.b_out[g]
            worst[g] = max(worst.get(g, 0.0), abs(output - x[k] * x[l]))
    assert list(subject.worst) == pytest.approx([worst[g] for g in range(10)])
    assert subject.value("gate_worst") == pytest.approx(max(worst.values()))
    assert subject.value("gates_right") == pytest.approx(np.mean([e < 0.5 for e in worst.values()]))
    assert subject.value("gates_computed") == pytest.approx(np.mean([e < 0.25 for e in worst.values()]))
    limits = minimax(subject.network.layer, subject.task, subject.inputs).certificates
    assert subject.value("limit") == pytest.approx(np.mean([c.worst_error for c in limits]))  # 10 gates: all are taken
    assert subject.value("own_readoff") == pytest.approx(subject.worst.mean() / subject.value("limit"))
    assert subject.value("limit") <= 0.5
    rows = measure_all(subject)
    assert [row["name"] for row in rows] == of_kind("gates")
    assert [row["name"] for row in rows if row["value"] is None] in ([], ["dedicated_gates"])
    assert rows == measure_all(gate_subject())


def test_null_models_tell_what_was_found():
    """A layer with a neuron for each gate is better than Gaussian ones, and than its weights in random places."""
    task = make_task("and", 5)
    weight = torch.zeros(10, 5, dtype=torch.float64)
    weight[torch.arange(10)[:, None], task.pairs] = 1
    weight[9] = torch.tensor([1.0, 1, 1, 0, 1])
    layer = FirstLayer(weight, -torch.ones(10).double())
    made = Network(layer, fit_readoff("minimax", layer, task, SparseFeatures.at_most(5, 2).enumerate()).readoff)
    subject = subject_of(made, task)
    assert subject.value("limit") == pytest.approx(0.05, abs=1e-6)  # nine of ten gates have none, the last 1/2
    assert subject.value("own_readoff") == pytest.approx(1, abs=1e-4)
    assert subject.value("shuffled_ratio") > 1
    assert subject.value("gaussian_ratio") > 1


def test_blocks_read_every_pair_three_times():
    ((made, _),) = KNOWN["and_blocks"].call({"n": 16, "d": 60, "seeds": [0]})  # three planes; five in the table
    weight = made.layer.weight.numpy()
    assert weight.shape == (60, 16)
    assert np.array_equal(weight.T @ weight, 3 * np.ones((16, 16)) + 12 * np.eye(16))


def test_a_gate_has_a_neuron_of_its_own_only_if_the_neuron_makes_its_step():
    ((made, task),) = KNOWN["and_naive"].call({"n": 6, "d": 8, "seeds": [0]})
    subject = subject_of(made, task)
    own = dedicated_gates(subject)
    assert own.sum() == 8
    assert own.tolist() == (subject.worst < 0.25).tolist()
    layers = subject.layers
    turned = LinearReadoff(torch.from_numpy(-layers.w_out), torch.from_numpy(layers.b_out))  # still their only neuron
    assert dedicated_gates(subject_of(Network(made.layer, turned), task)).tolist() == own.tolist()
    w_in, b_in = (torch.from_numpy(np.concatenate([a, a])) for a in (layers.w_in, layers.b_in))
    halves = LinearReadoff(torch.from_numpy(np.concatenate([layers.w_out] * 2, 1) / 2), torch.from_numpy(layers.b_out))
    assert not dedicated_gates(subject_of(Network(FirstLayer(w_in, b_in), halves), task)).any()  # two neurons each


@pytest.mark.parametrize(
    ("gate", "d", "words"),
    [("first", 4, "an affine map"), ("and", 10, "nothing needs to be shared"), ("xor", 4, "0% of 10 gates")],
)
def test_gates_that_are_no_question(gate, d, words):
    verdict, reasons = judge(gate_subject(gate, d=d))
    assert verdict == "undecided"
    assert words in reasons[0]


def test_the_command_diagnoses_gates_and_state_dicts(tmp_path, capsys):
    """A module that was trained elsewhere: its state_dict is all there is."""
    ((made, task),) = KNOWN["and_naive"].call({"n": 8, "d": 14, "seeds": [0]})
    plain = nn.Sequential(nn.Linear(8, 14), nn.ReLU(), nn.Linear(14, 28)).double()
    with torch.no_grad():
        for part, mine in ((plain[0], made.layer), (plain[2], made.readoff)):
            part.weight.copy_(mine.weight)
            part.bias.copy_(mine.bias)
    torch.save(plain.state_dict(), tmp_path / "net.pt")
    assert main(["diagnose", str(tmp_path / "net.pt"), "--task", "and", "--out", str(tmp_path / "page")]) == 0
    assert capsys.readouterr().out.startswith("naive\n")
    content = json.loads((tmp_path / "page" / "diagnosis.json").read_text())
    assert content["verdict"] == "naive"
    assert content["inputs"] == 1 + 8 + 28
    assert [row["name"] for row in content["measures"]] == of_kind("gates")
    assert "data:image/svg+xml" in (tmp_path / "page" / "diagnosis.html").read_text()
    assert diagnose(plain, task).verdict == "naive"


@pytest.mark.parametrize("name", ["and_plain", "relu_plain"])
def test_plain_modules_are_trained_by_their_seed_alone(name, monkeypatch):
    monkeypatch.setattr(known_gates, "STEPS", 2)
    n, d = KNOWN[name].gates or (10, 5)
    state = torch.random.get_rng_state()
    (first, _), (second, _) = KNOWN[name].call({"n": n, "d": d, "seeds": [1, 2]})
    assert torch.equal(state, torch.random.get_rng_state())
    ((again, _),) = KNOWN[name].call({"n": n, "d": d, "seeds": [1]})
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, second[0].weight)


def test_as_many_neurons_as_features_is_no_question():
    assert judge(subject_of(network(torch.eye(4), torch.eye(4)), make_task("relu", 4)))[0] == "undecided"
