"""The report: one file that needs nothing else, whole, escaped, with every run accounted for."""

import base64
import dataclasses
import hashlib
import itertools
import json
import re
import shlex
import shutil
import subprocess
import urllib.parse
import xml.etree.ElementTree
from html.parser import HTMLParser

import pytest

from toymodels.arguments import parse
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.experiments.train import TrainConfig, run_train
from toymodels.figures.readable import values_drawn
from toymodels.figures.report import write_report
from toymodels.figures.style import new_figure
from toymodels.runs.identity import from_dict, to_dict
from toymodels.runs.table import read_table
from toymodels.runs.text import command

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
def page(sweep, tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "new" / "report.html"
    assert write_report(sweep, path) == path
    return path


@pytest.fixture(scope="module")
def text(page):
    return page.read_text(encoding="utf-8")


def test_it_needs_nothing_else(sweep, text):
    page = Page(text)
    assert page.tags.count("script") == page.tags.count("style") == 1
    assert not {"link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    addresses = [value for _, name, value in page.attributes if name in ("src", "srcset", "action", "data")]
    assert addresses
    for address in addresses:
        head, _, body = address.partition(",")
        assert head == "data:image/svg+xml;base64"
        xml.etree.ElementTree.fromstring(base64.b64decode(body))  # whole
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert "url(" not in text.split("<style>")[1].split("</style>")[0]


def test_a_browser_accepts_our_own_script_and_style_alone(text):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag in ("script", "style"):
        (own,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert rules[f"{tag}-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()}'"


def test_rows_lead_to_their_runs_record_and_command(sweep, page, text):
    targets = dict(re.findall(r'<tr id="(run-\d+)">.*?<a href="([^"]*)"', text))
    links = [value for _, name, value in Page(text).attributes if name == "href"]
    leading = [link[1:] for link in links if link[0] == "#"]
    assert len(leading) == len(read_table(sweep))
    assert set(leading) <= set(targets)
    for address in targets.values():
        assert address.startswith("./")  # never a scheme, whatever a folder is called
        assert (page.parent / urllib.parse.unquote(address) / "config.json").exists()
    assert text.count(">toymodels</span>") == len(targets) == 5


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (
            "train",
            TrainConfig(m=6, d=5, seeds=(0, 3), train_first=False, p=(2.0, 8.0), pairs=((0, 1), (2, 3)), lr=0.01),
        ),
        ("train", TrainConfig(m=6, d0=4, frame="random", layer="bernoulli", knobs={"p": 0.3}, weight=2.5, steps=7)),
        (
            "compare",
            CompareConfig(m=6, d=5, task=("and", "and_of(k=3)"), layers=("gaussian(scale=0.5)",), device="cpu"),
        ),
    ],
)
def test_the_command_repeats_the_run(kind, config):
    words = shlex.split(command(kind, json.loads(json.dumps(to_dict(config)))))
    assert words[:2] == ["toymodels", kind]
    again = parse(type(config), words[2:], "toymodels")
    assert again == from_dict(type(config), {**to_dict(config), "threads": None})


def test_values_of_a_figure_are_listed():
    figure = new_figure(2)
    left, right = figure.subplots(1, 2)
    left.set_title("left")
    left.plot([1, 2], [3.5, float("nan")], label="one")
    left.errorbar([4], [5], yerr=[1], label="two")
    left.axhline(0.25, label="level")
    left.plot([7, 8], [9, 10])  # a mark without a name
    right.pcolormesh([0, 2, 4], [0, 1], [[6, 7]])
    header, rows = values_drawn(figure)
    assert header == ["panel", "series", "x", "y", "value"]
    assert rows == [
        ["left", "one", "1", "3.5", ""], ["left", "two", "4", "5", ""],
        ["", "", "1", "0.5", "6"], ["", "", "3", "0.5", "7"],
    ]  # fmt: skip


@pytest.mark.long  # it starts a browser twice
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_runs_it_without_an_error(text, tmp_path):
    def loaded(content):
        page = tmp_path / "page.html"
        page.write_text(content, encoding="utf-8")
        words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
        done = subprocess.run([*words, page.as_uri()], capture_output=True, text=True, timeout=300)
        assert "CONSOLE" not in done.stderr
        return done.stdout

    shown = loaded(text)
    assert shown.count('<button type="button"') > 10
    assert 'placeholder="filter: ' in shown
    act = """<script>
    const section = [...document.querySelectorAll("section")].find((part) => part.textContent.trim().startsWith("Results"));
    const [table, input] = [section.querySelector("table"), section.querySelector("input")];
    const head = [...table.tHead.rows[0].cells].find((cell) => cell.textContent === "worst error").firstChild;
    head.click(); head.click();
    input.value = "d=8 minimax"; input.dispatchEvent(new Event("input"));
    </script></body>"""
    unguarded = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", act)
    results = loaded(unguarded).split("<h2>Results</h2>")[1].split("</table>")[0]
    lines = re.findall(r"<tr([^>]*)>(.*?)</tr>", results.split("<tbody>")[1], re.DOTALL)
    cells = [(hidden, re.findall(r"<td[^>]*>(.*?)</td>", line, re.DOTALL)) for hidden, line in lines]
    errors = [float(line[3].split()[0]) for _, line in cells]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) > 3
    for hidden, line in cells:
        assert ("hidden" in hidden) == (line[2] != "8" or "minimax" not in line[1])


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
    again = write_report(sweep, tmp_path / "again.html").read_text(encoding="utf-8")
    # The addresses of the records start at the page's place.
    assert re.sub(r'href="\./[^"]*"', "", again) == re.sub(r'href="\./[^"]*"', "", text)


def test_a_train_run_alone(tmp_path):
    run_train(TrainConfig(m=6, d=5, steps=3, threads=1, out=tmp_path / "run"))
    page = Page(write_report(tmp_path / "run", tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert "1 finished, 0 failed" in page.text
    assert "Weights trained for U-AND" in page.text
    assert page.words.count("first layer, readoff") == 1  # the same table does not stand there twice


def test_a_report_without_a_figure_says_so(tmp_path, capsys):
    config = CompareConfig(m=5, d=4, layers=("identity",), task=("and",), readoffs=("constant",), figures=False)
    run_compare(dataclasses.replace(config, out=tmp_path / "run"))
    page = Page(write_report(tmp_path, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "No figure fits these runs" in page.text
    assert "no figure fits these runs" in capsys.readouterr().err


def test_a_sweep_of_failures_alone(tmp_path):
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "number-0.json").write_text(json.dumps({"reason": "no memory", "config": {}}))
    page = Page(write_report(tmp_path, tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "0 finished, 1 failed" in page.text
    assert "No figure" not in page.text
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
