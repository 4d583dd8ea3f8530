"""README and docs/: code runs, commands are understood and run at toy size, links and figures exist, numbers are the tables'.

A block of Python runs as it stands. `<!-- plugin: NAME.py -->` in front of it: it is a file of that name, put through the
common checks, and named by commands. `<!-- after: COMMAND -->`: the command runs first. `<!-- with: OLD → NEW -->`: so changed.
`<!-- needs: PACKAGE -->`: not without this package.
"""

import ast
import dataclasses
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import toymodels.core.layers
from toymodels import registry as registries
from toymodels.arguments import parse, plugins_in
from toymodels.atlas import known
from toymodels.cli import commands, main
from toymodels.experiments.registry import EXPERIMENTS
from toymodels.figures.registry import FIGURES
from toymodels.laws.registry import LAWS
from toymodels.parallel import processes
from toymodels.registry import load_plugins
from toymodels.testing import checkable
from toymodels.theory.gates import Gate
from toymodels.theory.quadrants import error_std
from toymodels.theory.rank import worst_error_floor
from toymodels.theory.statistics import mean_interval

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
BLOCK = re.compile(r"((?:<!-- [^\n]* -->\n)*)```(\w*)\n(.*?)```", re.DOTALL)
CODE = [
    (page, marks, code) for page, text in TEXT.items() for marks, kind, code in BLOCK.findall(text) if kind == "python"
]
SHELL = [
    (page, code)
    for page, text in TEXT.items()
    for marks, kind, code in BLOCK.findall(text)
    if not kind and "house" not in marks
]
NAMED = re.compile(r"<!-- plugin: (\S+) -->")
PLUGINS = {NAMED.search(marks)[1]: code for _, marks, code in CODE if NAMED.search(marks)}
ALONE = [(page, marks, code) for page, marks, code in CODE if not NAMED.search(marks)]
NOT_OURS = ("pip", "wandb", "make")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Work in a folder of one's own that holds the plugins of all pages, with our own members only, in one process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "cores", lambda: 1)
    monkeypatch.setattr(registries, "_plugins", dict(registries._plugins))
    activations = toymodels.core.layers.ACTIVATIONS
    before = dict(activations)  # a plugin adds to the table itself
    for registry in (*checkable(), EXPERIMENTS, LAWS, FIGURES):
        ours = {name: member for name, member in registry.items() if member.plugin is None}
        monkeypatch.setattr(registry, "_members", ours)
    monkeypatch.setattr(registries, "_plugins", {})
    for name, code in PLUGINS.items():
        Path(name).write_text(code)
    for folder in ("sweeps", "analysis", "docs"):
        Path(folder).symlink_to(ROOT / folder)
    yield tmp_path
    activations.clear()
    activations.update(before)


def lines_of(code):
    """The commands of a block: one a line, without comments."""
    return [words for line in code.replace("\\\n", "").splitlines() if (words := shlex.split(line, comments=True))]


def understood(words):
    """The configuration that a toymodels command asks for, as the command line reads it."""
    early, words = plugins_in(words)
    load_plugins(early)
    known = commands()
    assert words[0] in known, f"there is no command {words[0]}"
    command = known[words[0]]
    return words[0], parse(command.config(), command.prepare()(words[1:]), f"toymodels {words[0]}", early)


def toy(config):
    """The same configuration at toy size."""
    small = {
        "m": lambda m: min(m, 8),
        "d": lambda d: min(d, 28),
        "d0": lambda d0: d0 and min(d0, 8),
        "task": lambda task: task if isinstance(task, str) else task[:2],
        "steps": lambda steps: 3,
        "seeds": lambda seeds: seeds[:1],
        "eval_inputs": lambda number: 50,
        "minimax_pairs": lambda number: 4,
        "figures": lambda draw: False,
    }
    names = {field.name for field in dataclasses.fields(config)} & set(small)
    return dataclasses.replace(config, **{name: small[name](getattr(config, name)) for name in names})


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_passes_the_common_checks(name, fresh, capsys):
    load_plugins([Path(name)])
    if any(member.plugin for registry in checkable() for member in registry.values()):
        status, shown = main(["check", name]), capsys.readouterr().out
        assert status == 0, shown
        assert "passes every check" in shown


@pytest.mark.parametrize(("page", "marks", "code"), ALONE, ids=[page for page, *_ in ALONE])
def test_a_block_of_python_runs(page, marks, code, fresh, capsys):
    for package in re.findall(r"<!-- needs: (.*) -->", marks):
        pytest.importorskip(package)
    for command in re.findall(r"<!-- after: toymodels (.*) -->", marks):
        assert main(shlex.split(command)) == 0
    for old, new in re.findall(r"<!-- with: (.*) → (.*) -->", marks):
        assert old in code
        code = code.replace(old, new)
    capsys.readouterr()
    script = fresh / "block.py"
    script.write_text(code)  # nnsight reads the source of what runs
    exec(compile(code, str(script), "exec"), {})
    shown = capsys.readouterr().out
    if page == "docs/certificates.md":
        mass, leak, bound, stored, worst = map(float, shown.split())
        assert (mass, leak) == (pytest.approx(1, abs=1e-9), pytest.approx(0, abs=1e-9))
        assert bound == pytest.approx(stored, abs=1e-9)
        assert bound == pytest.approx(worst, abs=1e-6)
        assert bound > 0.01
    if page == "docs/design.md":
        errors = dict(line.split() for line in shown.splitlines())
        assert float(errors.pop("minimax")) < min(map(float, errors.values()))


@pytest.mark.parametrize("page", dict.fromkeys(page for page, _ in SHELL))
def test_every_command_is_understood(page, fresh):
    for code in (code for where, code in SHELL if where == page):
        subprocess.run(["bash", "-n"], input=code, text=True, check=True)
        for words in lines_of(code):
            if words[0] == "toymodels":
                if words[1:] != ["--help"] and not lacks_package(words):
                    understood(words[1:])
            elif words[:2] == ["python", "-m"]:
                assert (ROOT / words[2] / "__main__.py").exists(), words
            elif words[0] == "python":
                script = (ROOT / words[1]).read_text()
                options = [word[2:].replace("-", "_") for word in words if word.startswith("--")]
                assert [option for option in options if f"    {option}: " not in script] == [], words
            else:
                assert words[0] in NOT_OURS, words
            if words[0] == "make":
                assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words


def lacks_package(words):
    """Whether a command asks for a method of SAELens, which is not installed here."""
    return any(word.startswith("saelens") for word in words) and importlib.util.find_spec("sae_lens") is None


RUN = [
    (page, shlex.join(words[1:]))
    for page, code in SHELL
    for words in lines_of(code)
    if words[0] == "toymodels" and (words[1] in ("compare", "train", "dead_neurons", "width") or "--plugin" in words)
]


@pytest.mark.parametrize(("page", "command"), RUN)
def test_a_command_runs_at_toy_size(page, command, fresh):
    if lacks_package(shlex.split(command)):
        pytest.skip("it needs SAELens: pip install 'toymodels[interp]'")
    name, config = understood(shlex.split(command))
    if name == "draw":
        commands()[name].function(config)
        assert list(fresh.glob(f"{config.name}*.png"))
    elif name in EXPERIMENTS:
        commands()[name].function(dataclasses.replace(toy(config), out=fresh / "run"))
        assert json.loads((fresh / "run" / "results.json").read_text())["rows"]
    else:
        assert "ε" in str(commands()[name].function(toy(config))) or name == "bounds"


@pytest.mark.parametrize("page", TEXT)
def test_links_and_figures_exist(page):
    folder = (ROOT / page).parent
    targets = re.findall(r"\]\(([^)\s]+)\)", TEXT[page])
    wanted = [target.partition("#")[0] for target in targets if not target.startswith("http")]
    assert [target for target in wanted if not (folder / target).exists()] == []


def test_every_figure_is_shown_and_every_page_is_listed():
    everything = "\n".join(TEXT.values())
    assert [path.name for path in (ROOT / "docs/figures").glob("*.png") if path.name not in everything] == []
    index = TEXT["docs/index.md"]
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in PAGES[1:]]
    assert [page for page in pages if f"({page})" not in index and page != "index.md"] == []


def test_readme_is_short_and_says_how_long_the_core_is():
    readme = TEXT["README.md"]
    assert len(readme.splitlines()) <= 130
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "toymodels/core").glob("*.py"))
    said = int(re.search(r"`toymodels/core` \(([\d,]+) lines\)", readme)[1].replace(",", ""))
    assert abs(said - lines) <= 100


def page_tables():
    """The script that writes the tables of pages."""
    sys.path.insert(0, str(ROOT / "analysis"))
    try:
        return importlib.import_module("page_tables")
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize("page", [page for page, text in TEXT.items() if "<!-- table: " in text])
def test_tables_of_pages_are_those_committed(page):
    made = page_tables()
    assert set(re.findall(r"<!-- table: (\w+)", TEXT[page])) <= set(made.TABLES)
    assert made.rendered(TEXT[page]) == TEXT[page], "python analysis/page_tables.py writes the tables anew"


def test_the_table_of_readme_has_rows_of_the_default_comparison():
    table = re.search(r"<!-- some rows of: compare task=and -->\n((?:\|.*\n)+)", TEXT["README.md"])[1]
    header, _, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    known_header, *known = page_tables().compare("and")
    assert header == known_header
    assert len(rows) == 5
    assert [row for row in rows if row not in known] == []


def test_numbers_of_the_first_comparison(tmp_path):
    """Those that no training changes; start.md has them from the command that it shows."""
    config = understood(shlex.split("compare --m 12 --d 24 --task and --readoffs least_squares minimax --no-figures"))[
        1
    ]
    commands()["compare"].function(dataclasses.replace(config, layers=("identity", "gaussian"), out=tmp_path / "run"))
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    measured = {(row["first_layer"], row["readoff"]): f"{row['worst_error']:.4f}" for row in rows}
    stated = re.findall(r"^\| (\w+) \| (\w+) \| (0\.\d{4}) \|", TEXT["docs/start.md"], re.MULTILINE)
    assert len(stated) == 4
    assert [
        (layer, readoff, error) for layer, readoff, error in stated if measured.get((layer, readoff), error) != error
    ] == []
    assert f"below {worst_error_floor(Gate.parse('and'), 12, 2, 24):.3f} here" in TEXT["docs/start.md"].replace(
        "\n", " "
    )


def test_findings_of_readme_are_those_of_the_tables():
    readme, made = TEXT["README.md"], page_tables()
    sigma = error_std(Gate.parse("and"), 2)[0]
    assert f"σ = {sigma:.3f}" in readme
    errors = {
        (row["task"], row["first_layer"], row["seed"]): row["worst_error"]
        for row in made.rows_of("five_seeds.csv")
        if row["readoff"] == "minimax"
    }
    for task in ("and", "xor"):
        mean, half = mean_interval(
            [errors[task, "gaussian", seed] / errors[task, "trained", seed] for seed in range(5)]
        )
        assert f"{mean:.2f} ± {half:.2f} times" in TEXT["docs/results/genericity.md"]
        assert task == "xor" or f"{mean:.2f} ± {half:.2f} times" in readme
    losses = [made.losses("and", steps) for steps in (100, 400)]
    squared = min(float(cell.split()[0]) for table in losses for row in table if row[0] == "2" for cell in row[1:])
    rising = [float(cell.split()[0]) for cell in losses[1][-1][1:]]
    assert f"worst error of {squared:.2f} or more where exponents rising from 2 to 32 reach {min(rising):.2f}" in readme
    widths = {(row[0], row[1]): row for row in made.atlas_narrower(2)[1:]}
    least, trained = widths["32", "at most 0.1"][4], widths["32", "at most 0.1"][3].rpartition(" ")[0]
    assert f"32 features {least} neurons\n  reach 1/10, where training takes {trained}" in readme
    cell = widths["16", "at most 1/4"]
    trained = cell[2].partition(" ")[0]
    assert (
        f"16 features {cell[4]} neurons reach 1/4, where training takes {trained}, and {int(cell[6]) - 1} cannot"
        in readme
    )
    share = {(row[0], row[1]): row[-1].rpartition(" ")[0] for row in made.saved(2)[1:]}
    for epsilon in ("0.25", "0.1"):
        assert f"{share[epsilon, '16']} %" in readme
        assert f"{share[epsilon, '32']} %" in readme


def narrower_when_trained(made):
    """The lines of the atlas whose whole number of neurons is above the mean width of layers trained on all pairs."""
    lines = [(s, *row) for s in (2, 3) for row in made.atlas_narrower(s)[1:] if row[3][0].isdigit()]
    assert len(lines) >= 10
    return [line[:3] for line in lines if int(line[5]) > float(line[4].split()[0])]


def test_the_atlas_is_never_worse_than_plain_training(monkeypatch):
    assert narrower_when_trained(page_tables()) == []
    trained = {cell: error for cell, error in known._shipped().items() if (cell.m, cell.d) != (32, 38)}
    monkeypatch.setattr(known, "_shipped", lambda: trained)
    assert narrower_when_trained(page_tables()) == [(2, "32", "below 1/4")]


def test_folders_import_only_what_stands_below_them():
    house = re.search(r"<!-- house -->\n```\n(.*?)```", TEXT["docs/design.md"], re.DOTALL)[1]
    level = {}
    for height, line in enumerate(house.splitlines()):
        for name in line[:18].split():
            level[name] = -height
    level |= {
        "testing": level["cli"] - 0.5,
        "arguments": level["cli"] - 0.5,
        "errors": level["registry"] - 1,
        "given": level["registry"] - 0.5,
    }
    folders = {path.name for path in (ROOT / "toymodels").iterdir() if (path / "__init__.py").exists()}
    assert folders - {"__pycache__"} <= set(level)
    upward = []
    for file in (ROOT / "toymodels").rglob("*.py"):
        home = file.relative_to(ROOT / "toymodels").parts[0].removesuffix(".py")
        if home not in level:  # __init__, __main__
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                target = module.split(".")[1] if module.startswith("toymodels.") else home
                if level.get(target, 0) > level[home] or (level.get(target) == level[home] and target != home):
                    upward.append(f"{file.relative_to(ROOT)}: {module}")
    assert upward == []
