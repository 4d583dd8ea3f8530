"""A plugin that is wrong costs one sentence that names what, file and line; nothing is written."""

import pytest

from toymodels import registry
from toymodels.cli import main
from toymodels.testing import check_plugin

PLUGIN = """
import torch
from toymodels import LAYERS, LOSSES, FirstLayer

def check_knob(knob):
    raise ZeroDivisionError("in check")

@LAYERS("fails")
def fails(m, d):
    raise KeyError("inside")

@LAYERS("transposed")
def transposed(m, d):
    return FirstLayer(torch.randn(m, d), torch.zeros(m))

@LAYERS("no_module")
def no_module(m, d):
    return 3

@LAYERS("not_finite")
def not_finite(m, d):
    return FirstLayer(torch.full((d, m), torch.nan), torch.zeros(d))

@LAYERS("asks")
def asks(m, d, colour):
    return None

@LAYERS("checked", check=check_knob)
def checked(m, d, *, knob=1):
    return None

@LOSSES("scalar")
def scalar(errors):
    return errors.sum()

@LOSSES("broken")
def broken(errors):
    return errors.no_such_method()
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(PLUGIN)
    for name in ("LAYERS", "LOSSES"):
        module = __import__(f"toymodels.core.{name.lower()}", fromlist=[name])
        family = getattr(module, name)
        family["gaussian" if name == "LAYERS" else "lp"]  # its own members are loaded
        monkeypatch.setattr(family, "_members", dict(family._members))
    monkeypatch.setattr(registry, "_plugins", dict(registry._plugins))
    return tmp_path / "mine.py"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--layers", "fails"], "fails of the plugin {file}, line 10: KeyError: 'inside'"),
        (["--layers", "transposed"], "the first layer transposed does not take a batch of inputs with m = 6 features"),
        (["--layers", "no_module"], "the first layer no_module must be a torch module; it is int"),
        (["--layers", "not_finite"], "numbers that are not finite"),
        (["--layers", "asks"], "asks asks for 'colour', which is not offered here"),
        (["--layers", "checked"], "checked of the plugin {file}, line 6: ZeroDivisionError: in check"),
        (["--loss", "scalar"], "the loss scalar must map a tensor of errors to finite numbers of the same shape"),
        (["--loss", "broken"], "broken of the plugin {file}, line {method}: AttributeError: 'Tensor' object has no attribute"),
    ],
)  # fmt: skip
def test_a_member_that_fails_is_named_before_anything_is_written(words, sentence, plugin, tmp_path, capsys):
    common = [
        "compare",
        "--plugin",
        str(plugin),
        "--m",
        "6",
        "--d",
        "8",
        "--seeds",
        "0",
        "--task",
        "and",
        "--steps",
        "2",
    ]
    assert main([*common, *words, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    method = PLUGIN.splitlines().index("    return errors.no_such_method()") + 1
    assert sentence.format(file=plugin.resolve(), method=method) in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_files_that_are_no_plugins(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "syntax.py").write_text("x = 1\ny = (\n")
    (tmp_path / "fails.py").write_text("x = 1\nraise ValueError('boom')\n")
    for name, sentence in (
        ("notes.txt", "notes.txt, which is no Python file"),
        ("syntax.py", "syntax.py, line 2: SyntaxError: '(' was never closed"),
        ("fails.py", "fails.py, line 2: ValueError: boom"),
        ("absent.py", "there is no file"),
    ):
        assert main(["compare", "--plugin", str(tmp_path / name)]) == 2
        assert sentence in capsys.readouterr().err


def test_nouns_have_plurals():
    from toymodels.testing import checkable

    nouns = {family.nouns for family in checkable()}
    assert {"losses", "distributions of values", "kinds of inputs", "first layers"} <= nouns


def test_a_layer_with_neurons_that_see_nothing_passes_the_checks(tmp_path, plugin):
    """Such a neuron is at the kink of its ReLU for every input; finite differences of its bias must not be taken there."""
    (tmp_path / "sparse.py").write_text(
        "import torch\n"
        "from toymodels import LAYERS, FirstLayer\n"
        "@LAYERS('mostly_zero')\n"
        "def mostly_zero(m, d, seed, activation):\n"
        '    """Draw Gaussian weights of which one in ten is not 0."""\n'
        "    generator = torch.Generator().manual_seed(seed)\n"
        "    weight = torch.randn(d, m, generator=generator) * (torch.rand(d, m, generator=generator) < 0.1)\n"
        "    assert bool((weight == 0).all(1).any())\n"
        "    return FirstLayer(weight, torch.zeros(d), activation)\n"
    )
    assert [wrong for _, _, wrong in check_plugin(tmp_path / "sparse.py")] == [""]
