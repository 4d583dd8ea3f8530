"""The one place where plain and faster forms are chosen."""

import importlib
import os
import pkgutil
import subprocess
import sys

import pytest

import toymodels
from toymodels import fast
from toymodels.core import dispatch
from toymodels.core.dispatch import SWITCH, dispatched, fast_form, plain

pytestmark = pytest.mark.usefixtures("wing")  # these tests are about the faster forms


@pytest.fixture
def double(monkeypatch):
    """A dispatched function with a fast form for even numbers, which says so."""
    dispatch._forms_of("")  # the wing registers its forms before they are copied
    monkeypatch.setattr(dispatch, "_forms", dict(dispatch._forms))

    @dispatched
    def double(number, times=2):
        return number * times, "plain"

    @fast_form(double, lambda number, times=2: number % 2 == 0)
    def shifted(number, times=2):
        return number * times, "fast"

    return double


def test_a_fast_form_is_taken_where_it_applies(double):
    assert [double(number) for number in (3, 4)] == [(6, "plain"), (8, "fast")]
    assert double(number=4, times=3) == (12, "fast")
    assert double.plain(4) == (8, "plain")
    assert double.__name__ == "double"


def test_the_switch_turns_all_of_them_off_and_is_put_back(double, monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    with plain():
        assert double(4) == (8, "plain")
        with plain():
            assert double(4) == (8, "plain")
        assert double(4) == (8, "plain")
    assert SWITCH not in os.environ
    with pytest.raises(RuntimeError), plain():
        raise RuntimeError
    assert double(4) == (8, "fast")
    for value, form in (("0", "fast"), ("", "fast"), ("1", "plain"), ("yes", "plain")):
        monkeypatch.setenv(SWITCH, value)
        assert double(4) == (8, form)


def test_a_form_that_is_registered_again_replaces_itself(double):
    for words in ("second", "third"):

        @fast_form(double, lambda number, times=2: True)
        def again(number, times=2, words=words):
            return number * times, words

    assert double(3) == (6, "third")
    assert double(4) == (8, "fast")  # the first that applies


def test_functions_of_one_name_in_two_modules_are_two(double):
    def other(number, times=2):
        return number * times, "plain"

    other.__qualname__, other.__module__ = double.__qualname__, "elsewhere"
    assert dispatched(other)(4) == (8, "plain")


def test_the_wing_is_looked_into_without_being_imported_first():
    """A fresh process that names nothing of the wing still has its forms."""
    code = (
        "from toymodels.core import dispatch; from toymodels.core.losses import loss_and_gradients as l; "
        "print([form.function.__name__ for form in dispatch._forms_of(dispatch._name(l))])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "['pair_gradients', 'small_gradients']"


def test_every_fast_form_stands_for_a_dispatched_function_of_the_core():
    for module in pkgutil.iter_modules(fast.__path__, "toymodels.fast."):
        importlib.import_module(module.name)
    known = {}
    for module in pkgutil.iter_modules(toymodels.core.__path__, "toymodels.core."):
        for value in vars(importlib.import_module(module.name)).values():
            if hasattr(value, "plain"):
                known[dispatch._name(value)] = value
    forms = {name for name in dispatch._forms if name.startswith("toymodels.")}
    assert forms == set(known)
    assert {name.rpartition(".")[2] for name in forms} == {
        "adam_steps", "certified", "error_sums", "loss_and_gradients", "solve_all", "solve_weighted", "optimiser_context",
            "optimiser_step", "step_threads",
    }  # fmt: skip
