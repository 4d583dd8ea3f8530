"""The bench of dictionaries: its rows, its record, its table, and what it refuses."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from toymodels import InputError
from toymodels.cli import main
from toymodels.core.seeds import derive_seed
from toymodels.experiments import dictionary as module
from toymodels.experiments.dictionary import DictionaryConfig, dictionary_seed
from toymodels.experiments.registry import without_effect
from toymodels.figures.registry import FIGURES
from toymodels.figures.table import load_table, settings_of, varied
from toymodels.ground_truth.dictionaries import fit_dictionary
from toymodels.runs.record import load_network
from toymodels.runs.table import read_table

SMALL = ["--m", "5", "--d", "8", "--s", "2", "--methods", "neurons", "topk(k=2,steps=4)", "--steps", "2", "--samples", "60",
         "--layers", "gaussian", "trained", "--threads", "1"]  # fmt: skip


def test_features_that_are_always_active_leave_nothing_to_fit(tmp_path, capsys):
    same = [
        "--inputs",
        "exactly",
        "--s",
        "5",
        "--threads",
        "1",
        "--layers",
        "gaussian",
        "--seeds",
        "0",
        "--samples",
        "60",
    ]
    command = ["dictionary", "--m", "5", "--d", "8", *same, "--methods"]
    assert main([*command, "topk(k=2,steps=4)", "--out", str(tmp_path / "fitted")]) == 2
    assert "all activations are the same: there is nothing that a dictionary could find" in capsys.readouterr().err
    assert main([*command, "neurons", "--out", str(tmp_path / "neurons")]) == 0  # which are not fitted


def test_a_bench_makes_a_row_for_each_layer_and_dictionary(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("toymodels.parallel.processes.cores", lambda: 1)
    command = ["dictionary", *SMALL, "--seeds", "0", "1", "--latents", "4", "9", "--out", str(tmp_path / "run")]
    assert main(command) == 0
    shown = capsys.readouterr().out
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    said = [(row["seed"], row["first_layer"], row["dictionary"], row["latents"]) for row in rows]
    one = [("neurons", 8), ("topk(k=2,steps=4)", 4), ("topk(k=2,steps=4)", 9)]
    assert said == [(seed, layer, *about) for seed in (0, 1) for layer in ("gaussian", "trained") for about in one]
    assert all(row["worst_error"] == row["clean_worst_error"] for row in rows if row["dictionary"] == "neurons")
    assert all(row["worst_error"] > row["clean_worst_error"] for row in rows if row["dictionary"] != "neurons")
    mean = sum(row["l0"] for row in rows if row["latents"] == 8 and row["first_layer"] == "gaussian") / 2
    line = next(line for line in shown.splitlines() if line.startswith("gaussian  neurons"))
    assert f"{mean:.3f} ±" in line
    before = (tmp_path / "run" / "results.json").read_text()
    (tmp_path / "run" / "results.json").unlink()
    assert main(command) == 0  # from the rows in the record
    assert (tmp_path / "run" / "results.json").read_text() == before
    assert main(["show", str(tmp_path / "run"), "--evaluate"]) == 0
    assert "all with the recorded errors" in capsys.readouterr().out
    assert main(["results", str(tmp_path / "run")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    line = next(words for words in lines if words[:3] == ["8", "gaussian", "neurons"])
    assert line[3] == "2"  # seeds
    assert f"{mean:.4f}" in line
    assert main(["results", str(tmp_path / "run"), "--out", str(tmp_path / "table.csv")]) == 0
    for rows in (load_table(tmp_path / "run"), load_table(tmp_path / "table.csv")):
        assert set(settings_of(rows)) <= {field.name for field in dataclasses.fields(DictionaryConfig)} | {"dictionary"}
        assert varied(rows) == ["latents", "dictionary"]
    assert main(["draw", "parameters", str(tmp_path / "run"), "--metric", "l0", "--out", str(tmp_path)]) == 0
    assert "l0 ± 95 %" in capsys.readouterr().out
    assert (tmp_path / "parameters-l0.png").exists()
    drawn = FIGURES["parameters"].draw(rows, metric="explained")[0].figure.axes[0]
    assert drawn.get_yscale() == "linear"
    assert sorted({y for part in drawn.lines for y in part.get_ydata()}) == sorted({row["explained"] for row in rows})
    with pytest.raises(InputError, match="unknown metric 'latents'"):
        FIGURES["parameters"].draw(rows, metric="latents")
    text = FIGURES["parameters"].draw(rows)[0].text
    assert [line.split()[-1] for line in text.splitlines()[2:]] == [
        "2"
    ] * 6  # seeds of each layer, dictionary and number


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"methods": ("nope",)}, "unknown sparse dictionary"),
        ({"methods": ("topk(k=9)",), "latents": (4,)}, "k = 9: it must be at most 4"),
        ({"methods": ()}, "methods is empty"),
        ({"methods": ("l1", "l1(l1=0.03)")}, "twice"),
        ({"layers": ("gaussian", "gaussian")}, "twice"),
        ({"layers": ("nope",)}, "unknown first layer"),
        ({"readoff": "nope"}, "unknown readoff"),
        ({"readoff": "own"}, "is not for the first layer gaussian"),
        ({"readoff": "random_labels"}, "is not for the first layer gaussian"),
        ({"latents": (0,)}, "it must be at least 1"),
        ({"latents": (3, 3)}, "twice"),
        ({"samples": 0}, "samples = 0"),
        ({"threshold": 1.5}, "threshold = 1.5"),
        ({"device": "cuda"}, "leave device at cpu"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        DictionaryConfig(**settings)


def test_a_row_of_another_run_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("toymodels.parallel.processes.cores", lambda: 1)
    command = ["dictionary", *SMALL, "--seeds", "0", "--latents", "4", "--out", str(tmp_path / "run")]
    assert main(command) == 0
    (tmp_path / "run" / "results.json").unlink()
    path = tmp_path / "run" / "and-seed-0" / "gaussian-neurons-4.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "of": {**content["of"], "samples": 7}}))
    capsys.readouterr()
    assert main(command) == 2
    assert "samples is 7 there and 60 here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row.pop("l0"), "it lacks"),
        (lambda row: row.update(explained="much"), "explained is 'much'"),
        (lambda row: row.update(l0=-1.0), "l0 is -1"),
        (lambda row: row.update(dictionary="l1"), "dictionary is l1 there and neurons here"),
        (lambda row: row.update(of=3), "it names no run"),
    ],
)
def test_a_row_with_wrong_content_is_refused(change, words, tmp_path):
    config = DictionaryConfig(
        m=5, d=8, s=2, layers=("gaussian",), methods=("neurons",), latents=(4,), samples=60, seeds=(0,)
    )
    first = dictionary_seed(config, 0, tmp_path)
    assert dictionary_seed(config, 0, tmp_path) == first
    path = tmp_path / "and-seed-0" / "gaussian-neurons-4.json"
    row = json.loads(path.read_text())
    change(row)
    path.write_text(json.dumps(row))
    with pytest.raises(InputError, match=words) as caught:
        dictionary_seed(config, 0, tmp_path)
    assert path.name in str(caught.value)


def test_every_score_of_a_row_is_recomputed_from_the_record(tmp_path):
    """By NumPy, from the stored weights and the autoencoder that the row's seed fits."""
    config = DictionaryConfig(
        m=5, d=8, s=2, layers=("gaussian",), methods=("topk(k=2,steps=60)",), latents=(7,), samples=300, seeds=(3,),
        threshold=0.6,
    )  # fmt: skip
    (row,) = dictionary_seed(config, 3, tmp_path)
    network, _, _ = load_network(tmp_path / "and-seed-3" / "gaussian-minimax.safetensors")
    (w, b), (r, c) = ([part.detach().double().numpy() for part in (one.weight, one.bias)]
                      for one in (network.layer, network.readoff))  # fmt: skip
    sampled = config.features().sampled(300, derive_seed(3, "fit")).dense()
    sae = fit_dictionary("topk(k=2,steps=60)", network.layer(sampled), 7, derive_seed(3, "dictionary"))
    encoder, decoder, b_enc, b_dec = (
        getattr(sae, name).double().numpy() for name in ("encoder", "decoder", "encoder_bias", "decoder_bias")
    )
    x = np.array([row for row in itertools.product((0.0, 1.0), repeat=5) if sum(row) <= 2])
    p = np.full(len(x), 1 / len(x))
    truth = np.array([[one[k] * one[l] for k, l in itertools.combinations(range(5), 2)] for one in x])
    a = np.maximum(x @ w.T + b, 0)
    z = np.maximum((a / float(sae.scale) - b_dec) @ encoder.T + b_enc, 0)
    z = np.where(z >= np.sort(z, axis=1)[:, [-2]], z, 0)
    back = float(sae.scale) * (z @ decoder + b_dec)
    with np.errstate(invalid="ignore"):
        table = np.nan_to_num(np.abs(np.corrcoef(z.T, np.hstack([x, truth]).T)[:7, 7:]))

    live = (z > 0).any(0)
    orders = (table[list(order), range(5)] for order in itertools.permutations(range(7), 5))
    features = max(orders, key=np.sum)
    functions, both = (part[linear_sum_assignment(-part)] for part in (table[:, 5:], table))
    errors, clean = (np.abs(values @ r.T + c - truth) for values in (back, a))
    often = (z > 0).T @ p
    expected = {
        "features_correlation": features.sum() / 5, "features_recall": (features >= 0.6).mean(),
        "functions_correlation": functions.sum() / 10, "functions_recall": (functions >= 0.6).sum() / 10,
        "precision": (both >= 0.6).sum() / live.sum(), "l0": (z > 0).sum(1).mean(), "dead": 1 - live.mean(),
        "explained": 1 - ((a - back) ** 2).sum() / ((a - a.mean(0)) ** 2).sum(), "latents": 7,
        "ultra_rare": ((often > 0) & (often < 0.1 * truth.mean(0).min())).mean(), "worst_error": errors.max(),
        "rms": (errors**2).mean() ** 0.5, "clean_worst_error": clean.max(), "clean_rms": (clean**2).mean() ** 0.5,
        "sensitivity_sae_error": (((back - a) @ r.T) ** 2).mean() ** 0.5 / (((back - a) ** 2).sum(1).mean()) ** 0.5,
    }  # fmt: skip
    # Activations, latents and reconstructions are float32 there.
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert 0 < expected["features_recall"] < 1  # so that the threshold is seen


def test_a_transcoder_has_a_row_from_what_its_layer_reads(tmp_path):
    config = DictionaryConfig(
        m=5,
        d=8,
        s=2,
        d0=4,
        layers=("gaussian",),
        methods=("transcoder(steps=9)",),
        latents=(7,),
        samples=50,
        seeds=(3,),
    )
    (row,) = dictionary_seed(config, 3, tmp_path)
    network, _, _ = load_network(tmp_path / "and-seed-3" / "gaussian-minimax.safetensors")
    x, inputs = config.features().sampled(50, derive_seed(3, "fit")).dense(), config.features().enumerate().dense()
    read, of_all = x @ network.layer.frame.T, inputs @ network.layer.frame.T
    fitted = fit_dictionary("transcoder(steps=9)", network.layer(x), 7, derive_seed(3, "dictionary"), read)
    assert row["l0"] == pytest.approx(float((fitted.encode(of_all) > 0).sum(1).double().mean()))
    errors = network.readoff(fitted(of_all).double()) - config.tasks()[0].targets(inputs)
    assert row["worst_error"] == pytest.approx(float(errors.detach().abs().max()), rel=1e-3)  # float32 there


def test_work_of_a_layer_is_done_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        module, "_measured", lambda *arguments, make=module._measured: calls.append(1) or make(*arguments)
    )
    config = DictionaryConfig(
        m=5, d=8, s=2, layers=("gaussian",), methods=("neurons", "l1(steps=2)"), latents=(4, 6), samples=60, seeds=(0,)
    )
    assert len(dictionary_seed(config, 0, tmp_path)) == 3
    assert calls == [1]


def test_what_the_page_answers_stands_in_its_table():
    root = Path(__file__).parents[2]
    page = " ".join((root / "docs/results/dictionaries.md").read_text().partition("<!-- table")[0].split())
    rows = read_table(root / "analysis/results/dictionaries.csv")
    assert {row["seed"] for row in rows} == {0, 1, 2}

    def mean(layer, dictionary, latents, column):
        values = [
            row[column]
            for row in rows
            if (row["first_layer"], row["dictionary"], row["latents"]) == (layer, dictionary, latents)
        ]
        assert len(values) == 3
        return float(np.mean(values))

    fitted = {
        (row["first_layer"], row["dictionary"], row["latents"])
        for row in rows
        if row["dictionary"] not in ("neurons", "l1(steps=1)")
    }
    small, large = ({about for about in fitted if about[2] == latents} for latents in (12, 78))
    assert min(mean(*about, "features_recall") for about in small) > 0.3
    small_rows = [row for row in rows if row["latents"] == 12 and row["dictionary"] != "neurons"]
    ands_of_small = [round(66 * row["functions_recall"]) for row in small_rows]
    assert sorted(ands_of_small)[-2:] == [0, 1]  # "no AND, but for one in one of them"
    assert max(mean(*about, "features_recall") for about in large) < 0.3
    assert min(mean("trained", f"l1(l1={l1})", 78, "functions_recall") for l1 in (0.1, 0.3)) > 0.95
    assert mean("trained", "l1", 78, "functions_recall") == pytest.approx(1 / 6, abs=0.05)
    assert all(0.6 < mean("trained", name, 78, "functions_recall") < 0.8 for name in ("topk", "batch_topk"))
    both = {about: min(mean(*about, f"{name}_recall") for name in ("features", "functions")) for about in fitted}
    nearest = max(both, key=both.get)
    assert nearest == ("gaussian", "batch_topk", 78)
    inputs, ands = (100 * mean(*nearest, f"{name}_recall") for name in ("features", "functions"))
    assert f"{inputs:.0f} % of the inputs and {ands:.0f} % of the ANDs" in page
    worst = {about: mean(*about, "worst_error") for about in fitted}
    best = min(worst, key=worst.get)
    assert best == ("trained", "batch_topk", 78)
    assert f"{worst[best]:.2f} instead of {mean(*best, 'clean_worst_error'):.2f}" in page
    untrained = [row for row in rows if row["dictionary"] == "l1(steps=1)"]
    assert max(row["features_recall"] + row["functions_recall"] for row in untrained) == 0
    ratios = [
        row["sensitivity_sae_error"] / row["sensitivity_random"] for row in rows if row["dictionary"] != "neurons"
    ]
    assert max(ratios) < 1.05


def test_settings_without_effect_are_said_or_refused():
    frozen = {"m": 5, "d": 8, "s": 2, "layers": ("gaussian",), "methods": ("neurons",)}
    assert DictionaryConfig(**frozen).idle()["steps"].startswith("nothing is trained")
    assert "steps" not in DictionaryConfig(**frozen, readoff="trained").idle()
    said = without_effect(DictionaryConfig(**frozen, steps=7, tolerances=(0.1,)), ["steps"])
    assert {"steps", "tolerances"} <= {sentence.split()[0] for sentence in said}
    assert without_effect(DictionaryConfig(**{**frozen, "layers": ("gaussian", "trained")}, steps=7), ["steps"]) == []
    for made in ("gaussian_like", "descended"):
        with pytest.raises(InputError, match="add trained to layers"):
            DictionaryConfig(**{**frozen, "layers": (made,)})
    with pytest.raises(InputError, match="is where the trained layer starts"):
        DictionaryConfig(**frozen, layer="kaiming")
    DictionaryConfig(**{**frozen, "layers": ("gaussian_like", "trained")}, layer="kaiming")


def test_what_the_page_says_of_the_four_class_layer_stands_in_its_table():
    results = Path(__file__).parents[2] / "analysis/results"
    longer = [row for row in read_table(results / "dictionaries_long.csv") if row["first_layer"] == "four_class"]
    found = {"l1": 0, "other": 0}
    for row in longer:
        name = "l1" if row["dictionary"] == "l1(l1=0.3,steps=4500)" else "other"
        found[name] = max(found[name], round(66 * row["functions_recall"]))
    assert found == {"l1": 9, "other": 1}
    rows = read_table(results / "dictionaries_four_class.csv")
    assert {row["seed"] for row in rows} == {0, 1, 2}
    fitted = [row for row in rows if row["dictionary"] != "neurons"]
    assert max(round(66 * row["functions_recall"]) for row in rows) == 2
    assert max(round(12 * row["features_recall"]) for row in fitted) == 1
    for name in ("l1(l1=0.1)", "topk", "batch_topk", "saelens", "saelens(sparsity=0.3)"):
        assert np.mean([row["explained"] for row in fitted if row["dictionary"] == name]) > 0.95
    assert all(abs(row["clean_worst_error"] - 0.5) < 1e-6 for row in rows)


def test_what_the_page_says_of_the_code_stands_in_its_table():
    rows = read_table(Path(__file__).parents[2] / "analysis/results/dictionaries_code.csv")
    assert sorted({row["seed"] for row in rows}) == [0, 1, 2]
    assert max(row["features_recall"] for row in rows) == 0
    # x uniform on [−1, 1] with probability p: cov(x, ReLU x) = p/6, variances p/3 and p/6 − (p/4)².
    assert 0.05 / 6 / ((0.05 / 3) * (0.05 / 6 - (0.05 / 4) ** 2)) ** 0.5 < 0.715
    found = {}
    for row in rows:
        found.setdefault(row["dictionary"], []).append(row["functions_recall"])
    means = {name: float(np.mean(values)) for name, values in found.items()}
    assert {name for name, mean in means.items() if mean > 0.33} == {"topk", "saelens(sparsity=0.3)"}
    assert sorted(40 * mean for name, mean in means.items() if mean <= 0.33) == pytest.approx([0, 0, 0, 1])
    assert min(row["clean_worst_error"] for row in rows) > 0.5


def test_what_the_page_says_of_a_probe_stands_in_its_table():
    results = Path(__file__).parents[2] / "analysis/results"
    read = [json.loads(line) for line in (results / "dictionaries_probe.jsonl").read_text().splitlines()]
    lines = [tuple(row.values()) for row in read]
    layers = ("gaussian", "trained", "bernoulli")
    assert {float(inputs) for name, _, inputs, _ in lines if name in layers} == {1.0}
    assert max(round(66 * float(ands)) for name, _, _, ands in lines if name in layers) == 2
    assert all(float(inputs) == float(functions) == 0 for name, _, inputs, functions in lines if name == "code")
    by_method = _longer("functions_recall")
    shares = [100 * by_method[layer, name] for layer in layers for name in ("l1(l1=0.1)", "saelens")]
    page = " ".join((results.parents[1] / "docs/results/dictionaries.md").read_text().split())
    assert f"find {min(shares):.0f} % to {max(shares):.0f} % of the ANDs" in page
    inputs = _longer("features_recall")
    assert {inputs[layer, name] for layer in layers for name in ("l1(l1=0.1)", "saelens")} == {0.0}


def _longer(column):
    """Means over three seeds of the trainings of 4,500 steps, by first layer and method without its steps."""
    rows = read_table(Path(__file__).parents[2] / "analysis/results/dictionaries_long.csv")
    values: dict = {}
    for row in rows:
        name = row["dictionary"].replace(",steps=4500", "").replace("(steps=4500)", "")
        values.setdefault((row["first_layer"], name), []).append(row[column])
    assert {len(found) for found in values.values()} == {3}
    return {about: float(np.mean(found)) for about, found in values.items()}


def test_what_the_page_says_of_longer_trainings_stands_in_their_table():
    page = " ".join((Path(__file__).parents[2] / "docs/results/dictionaries.md").read_text().split())
    ands, inputs, explained, worst = (
        _longer(name) for name in ("functions_recall", "features_recall", "explained", "worst_error")
    )
    short: dict = {}
    for row in read_table(Path(__file__).parents[2] / "analysis/results/dictionaries.csv"):
        if row["latents"] == 78:
            short.setdefault((row["first_layer"], row["dictionary"]), []).append(row["functions_recall"])

    def percent(*about, of=ands):
        return f"{100 * float(np.mean(of[about])):.0f} %"

    pairs = [percent(layer, name) for layer in ("gaussian", "trained") for name in ("l1(l1=0.1)", "saelens")]
    assert "{} and {} against {} and {};".format(*pairs) in page
    before = [percent(layer, "l1(l1=0.1)", of=short) for layer in ("gaussian", "trained")]
    assert "l1 had found {} and {}.".format(*before) in page
    layers = ("gaussian", "trained", "bernoulli")
    for layer in layers:
        for name in ("topk", "batch_topk"):
            assert ands["trained", name] >= ands[layer, name] > np.mean(short[layer, name])
        assert ands[layer, "l1(l1=0.3)"] < np.mean(short[layer, "l1(l1=0.3)"])
        sae, transcoder = (layer, "l1(l1=0.1)"), (layer, "transcoder")
        assert ands[transcoder] < ands[sae]
        assert explained[transcoder] < explained[sae]
        assert worst[transcoder] > worst[sae]
    spans = [[ands[layer, name] for layer in layers] for name in ("transcoder", "l1(l1=0.1)")]
    said = [f"{100 * min(span):.0f} % to {100 * max(span):.0f} %" for span in spans]
    assert "({} against {})".format(*said) in page
    assert all(0.2 < ands[layer, "transcoder_topk"] < 0.25 for layer in layers)
    share = [inputs[layer, "transcoder_topk"] for layer in layers]
    assert f"{100 * min(share):.0f} % to {100 * max(share):.0f} % of the inputs" in page
