"""The report: one file that needs nothing else, whole, escaped, with every run accounted for."""

import base64
import itertools
import json
import xml.etree.ElementTree
from html.parser import HTMLParser

import pytest

from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.experiments.train import TrainConfig, run_train
from toymodels.figures.report import write_report
from toymodels.runs.table import read_table

EVIL = "</pre><script>alert('x')</script> & \"quotes\""
VOID = {"meta", "img"}


class Page(HTMLParser):
    """The page's elements, which must be nested properly, and its text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Four finished compare runs, a failed one with an evil reason, and one that is under way."""
    folder = tmp_path_factory.mktemp("sweeps") / "widths & more"
    for d, seed in itertools.product((5, 8), (0, 1)):  # a seed a run and one thread: no processes, which take seconds
        out = folder / "runs" / f"run-{d}-{seed}"
        run_compare(CompareConfig(m=6, d=d, steps=3, task=("and",), seeds=(seed,), threads=1, figures=False, out=out))
    content = f"# How wide, {EVIL}?\n#\n# Varies d.\nmethod: grid\n"
    (folder / "sweep.json").write_text(json.dumps({"format": 1, "kind": "compare", "file": content}))
    (folder / "failed").mkdir()
    failure = {"reason": f"not this: {EVIL}", "config": {"d": -1, "task": [EVIL]}, "traceback": f"Traceback {EVIL}"}
    (folder / "failed" / "number-7.json").write_text(json.dumps(failure))
    running = folder / "runs" / "under-way"
    running.mkdir()
    (running / "config.json").write_text((folder / "runs" / "run-5-0" / "config.json").read_text())
    return folder


@pytest.fixture(scope="module")
def text(sweep, tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "new" / "report.html"
    assert write_report(sweep, path) == path
    return path.read_text(encoding="utf-8")


def test_it_needs_nothing_else(text):
    page = Page(text)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "iframe" not in page.tags
    addresses = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert addresses
    for address in addresses:
        head, _, body = address.partition(",")
        assert head == "data:image/svg+xml;base64"
        xml.etree.ElementTree.fromstring(base64.b64decode(body))  # whole
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "http-equiv" in [name for _, name, _ in page.attributes]
    assert "url(" not in text.split("<style>")[1].split("</style>")[0]


def test_every_text_is_escaped(text):
    page = Page(text)
    assert page.text.count("<script>alert('x')</script>") == 5  # question, file, reason, configuration, traceback
    assert "widths & more" in page.text


def test_every_run_is_accounted_for(sweep, text):
    page = Page(text)
    assert "4 finished, 1 failed, 1 not finished" in page.text
    assert "number-7" in page.text
    assert "not this: " in page.text
    assert "How wide," in page.text
    assert "Varies d." in page.text
    # Every row and figure of the table stands in it.
    rows = read_table(sweep)
    full = text.split("Every row")[1].split("</details>")[0]
    assert full.count("<tr>") == len(rows) + 1
    for row in rows:
        assert f"{row['worst_error']:.6g}" in full
    assert "torch" in page.text.split("Environment")[-1]


def test_means_and_intervals(sweep, text):
    rows = [r for r in read_table(sweep) if (r["d"], r["first_layer"], r["readoff"]) == (8, "trained", "minimax")]
    errors = [row["worst_error"] for row in rows]
    assert len(errors) == 2
    mean = sum(errors) / 2
    half = 12.706204736 * abs(errors[0] - errors[1]) / 2  # t of one degree of freedom; s/√2 is half the difference
    results = text.split("<h2>Results</h2>")[1]
    assert f"{mean:.4f} ±{half:.4f}" in results
    # The best settings are those of the least mean.
    best = text.split("Least worst error")[1].split("</section>")[0]
    line = next(line for line in best.splitlines() if "trained layer, minimax" in line)
    others = [
        r["worst_error"]
        for r in read_table(sweep)
        if (r["d"], r["first_layer"], r["readoff"]) == (5, "trained", "minimax")
    ]
    assert f"{min(mean, sum(others) / 2):.4f}" in line


def test_figures_are_those_of_the_table(text):
    page = Page(text)
    titles = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert "Worst error over d" in titles
    assert any(title.startswith("Outputs of U-AND") for title in titles)
    assert "Weights trained for U-AND" in titles
    assert not any("over the loss" in title for title in titles)
    assert "exponent of d" in page.text


def test_the_same_runs_make_the_same_page(sweep, text, tmp_path):
    assert write_report(sweep, tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_a_train_run_alone(tmp_path):
    run_train(TrainConfig(m=6, d=5, steps=3, threads=1, out=tmp_path / "run"))
    page = Page(write_report(tmp_path / "run", tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert "1 finished, 0 failed" in page.text
    assert "Weights trained for U-AND" in page.text


def test_a_sweep_of_failures_alone(tmp_path):
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "number-0.json").write_text(json.dumps({"reason": "no memory", "config": {}}))
    page = Page(write_report(tmp_path, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "0 finished, 1 failed" in page.text
    assert "no memory" in page.text


def test_wrong_inputs(tmp_path, sweep):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for folder, path, words in (
        (tmp_path / "empty", tmp_path / "a.html", "no finished run"),
        (tmp_path / "nowhere", tmp_path / "a.html", "not a folder"),
        (tmp_path / "file", tmp_path / "a.html", "not a folder"),
        (sweep, tmp_path / "file" / "a.html", "cannot be written"),
        (sweep, tmp_path / "empty", "cannot be written"),
    ):
        with pytest.raises(InputError, match=words):
            write_report(folder, path)
    assert not (tmp_path / "a.html").exists()
