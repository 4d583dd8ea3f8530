"""Layers and readoffs look and are called the same in every figure."""

import pytest

from tests.figures import standin
from toymodels.core.layers import LAYERS
from toymodels.core.readoffs import READOFFS
from toymodels.figures.series import Method, gate_of, look, looks, seeds_in_words, series_of, series_styles, task_title
from toymodels.registry import Member, Registry

OKABE_ITO = {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}


@pytest.mark.parametrize("family", ["layer", "readoff"])
def test_no_two_look_alike(family):
    """The palette is not to be changed by accident: Okabe and Ito's, and greys."""
    members = {"layer": LAYERS, "readoff": READOFFS}[family].values()
    colours = [member.colour for member in members if member.colour]
    assert len(set(colours)) == len(colours)
    assert {colour for colour in colours if colour.startswith("#")} <= OKABE_ITO
    assert len(colours) > 5
    several = looks(family, ["trained", "zeta", "alpha", "beta", "minimax", "gaussian"])
    assert len({(entry.colour, entry.marker) for entry in several.values()}) == len(several)


def test_unknown_names_are_shown_too():
    assert look("layer", "my_layer").label == "frozen my layer"
    assert look("readoff", "ridge_fit").label == "ridge fit"
    rows = [{"first_layer": layer, "readoff": "ridge"} for layer in ("trained", "my_layer", "identity")]
    assert series_of(rows) == [("identity", "ridge"), ("my_layer", "ridge"), ("trained", "ridge")]
    assert len(series_styles(series_of(rows))) == 3


def test_a_member_brings_its_own(monkeypatch):
    registry = Registry("readoff", Member)
    registry("ridge", label="ridge regression", colour="#123456", marker="8", order=-1)(lambda: None)
    registry("plain")(lambda: None)
    registry("minimax", colour="#654321")(lambda: None)
    monkeypatch.setattr("toymodels.core.readoffs.READOFFS", registry, raising=False)
    found = looks("readoff", ["minimax", "plain", "ridge", "constant"])
    assert next(iter(found)) == "ridge"
    assert set(found) == {"ridge", "constant", "minimax", "plain"}
    assert (found["ridge"].label, found["ridge"].colour, found["ridge"].marker) == ("ridge regression", "#123456", "8")
    assert (found["minimax"].label, found["minimax"].colour) == ("minimax", "#654321")
    assert found["plain"].label == "plain"


def test_readoffs_have_colours_and_several_frozen_layers_too():
    one = series_styles(standin.LINES)
    assert (
        one["gaussian", "minimax"]["color"] == one["trained", "minimax"]["color"] == look("readoff", "minimax").colour
    )
    assert one["gaussian", "minimax"]["markerfacecolor"] == "white"
    two = series_styles([*standin.LINES, ("bernoulli", "minimax")])
    assert two["gaussian", "minimax"]["color"] == look("layer", "gaussian").colour
    assert two["bernoulli", "minimax"]["color"] == look("layer", "bernoulli").colour


def test_names():
    assert Method("bernoulli", "minimax", (("p", 0.5),)).name == "frozen bernoulli (p = 0.5), minimax"
    assert (
        Method("gaussian", "minimax", (("p", None),), "optimised").name == "frozen gaussian, minimax, optimised frame"
    )
    assert Method("identity", "minimax", (("p", 0.5),)).name == "no layer, minimax"
    assert (task_title("and"), task_title("relu")) == ("U-AND", "relu")
    assert gate_of("relu") is None
    assert [seeds_in_words(seeds) for seeds in ([3], [0, 1], [0, 1, 2], [0, 2, 5])] == [
        "seed\u00a03", "seeds\u00a00, 1", "seeds\u00a00–2", "seeds\u00a00, 2, 5"]  # fmt: skip
