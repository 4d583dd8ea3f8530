"""The notebooks run, at toy size, and the .ipynb that Colab opens has the cells of the .py beside it."""

import json
import re
import warnings
from pathlib import Path

import pytest

from toymodels.core.layers import LAYERS
from toymodels.parallel import processes
from toymodels.sweeps import executors

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))
TOY = {
    "genericity": {"m": 5, "d": 6, "steps": 5},
    "new_layer": {"m": 5, "widths": (4, 6), "seeds": (0,), "methods": ("levels(bias=-1)",)},
    "reading_a_sweep": {"m": 5, "widths": [4, 6], "seeds": [0], "steps": 2},
}


def cells(path):
    """The cells of a notebook in the percent format: (head, source), with magics as the .ipynb has them."""
    found = re.findall(r"^# %%([^\n]*)\n(.*?)(?=^# %%|\Z)", path.read_text(), re.MULTILINE | re.DOTALL)
    for head, body in found:
        text = (
            re.sub(r"^# ?", "", body, flags=re.MULTILINE) if "[markdown]" in head else re.sub("^# %pip", "%pip", body)
        )
        yield head.strip(), text.strip("\n")


def test_each_notebook_has_a_toy_size():
    assert {path.stem for path in NOTEBOOKS} == set(TOY)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_at_toy_size(path, tmp_path, monkeypatch, capsys):
    import matplotlib

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "cores", lambda: 1)
    monkeypatch.setattr(executors, "cores", lambda: 1)
    monkeypatch.setattr(LAYERS, "_members", {name: LAYERS[name] for name in LAYERS})
    matplotlib.use("agg")
    names, sized = {"__name__": path.stem}, False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
        for head, source in cells(path):
            if "[markdown]" not in head and not source.startswith("%pip"):
                exec(compile(source, path.name, "exec"), names)
            if "parameters" in head:
                assert set(TOY[path.stem]) <= set(names)
                names |= TOY[path.stem]
                sized = True
    assert sized
    assert names["plt"].get_fignums() or names["figure"]
    names["plt"].close("all")
    assert re.search(r"\d\.\d", capsys.readouterr().out) or path.stem == "new_layer"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_ipynb_has_the_same_cells_and_no_output(path):
    notebook = json.loads(path.with_suffix(".ipynb").read_text())
    kept = [("".join(cell["source"]), cell["cell_type"] == "markdown") for cell in notebook["cells"]]
    assert kept == [(source, "[markdown]" in head) for head, source in cells(path)], "make notebooks writes it anew"
    assert not any(cell.get("outputs") for cell in notebook["cells"])
