import pytest

from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.experiments import needed
from toymodels.experiments.needed import METHODS, Method, NeededConfig, Search, measure, run_search, through, widths
from toymodels.runs.table import read_table


@pytest.mark.parametrize("start", [8, 40, 1000, 5000])
@pytest.mark.parametrize("constant", [0.1, 1.0, 2.0, 100.0])
def test_a_search_measures_from_the_last_width_above_to_the_first_below(start, constant):
    grid = widths(Method("gaussian", "minimax"))
    seen = {}

    def worst(d):
        return seen.setdefault(d, constant / d**0.5)

    through(worst, grid, (0.25, 0.1), start)
    above = [d for d in grid if worst(d) > 0.25]
    reached = [d for d in grid if worst(d) <= 0.1]
    measured = {d for d in grid if d in seen}
    # Every width between the two ends, so that both crossings can be read off.
    low, high = (above or grid[:1])[-1], (reached or grid[-1:])[0]
    assert measured >= {d for d in grid if low <= d <= high}


def test_widths_are_squares_where_the_layer_needs_them():
    assert widths(Method("gaussian", "minimax", widest=64)) == [8, 12, 16, 22, 32, 46, 64]
    assert all(round(d**0.5) ** 2 == d for d in widths(Method("quadratic", "own", widest=1024)))


def test_a_search_is_ordinary_runs_that_are_not_repeated(tmp_path, monkeypatch):
    search = Search(METHODS["gaussian/minimax"], 8, 2, 0, (0.3,), 5, 20)
    run_search(search, tmp_path)
    rows = read_table(tmp_path)
    assert {(row["first_layer"], row["readoff"], row["n_pairs"], row["covered"]) for row in rows} == {
        ("gaussian", "minimax", 5, "all 37")
    }
    errors = {row["d"]: row["worst_error"] for row in rows}
    assert min(errors.values()) <= 0.3 < max(errors.values())
    monkeypatch.setattr(needed, "run_compare", lambda config: pytest.fail("a finished run was done again"))
    run_search(search, tmp_path)


def test_every_method_reads_the_same_pairs(tmp_path):
    for name in ("gaussian/minimax", "trained/minimax"):
        run_search(Search(METHODS[name], 8, 2, 3, (0.5,), 5, 5), tmp_path / name)
    from toymodels.runs.record import load_network

    found = [load_network(path)[1].pairs.tolist() for path in sorted(tmp_path.rglob("*-minimax.safetensors"))]
    assert len(found) >= 2
    assert all(pairs == found[0] for pairs in found)
    assert len(found[0]) == 5 < PairTask(8, "and").n_outputs


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ("gaussian/psychic",)}, "unknown method"),
        ({"epsilon": (0.0,)}, "between 0 and 1"),
        ({"pairs": 0}, "from 1 up"),
        ({"pairs": 200, "m": (256,), "s": (3,)}, "take fewer pairs"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_measured(change, words, tmp_path):
    with pytest.raises(InputError, match=words):
        measure(NeededConfig(out=tmp_path / "runs", **change))
    assert not (tmp_path / "runs").exists()


def test_sizes_beyond_a_method_are_not_looked_at():
    config = NeededConfig(methods=("trained/minimax", "gaussian/minimax"), m=(64, 256), s=(2,), seeds=(0,))
    assert [(search.method.name, search.m) for search in config.searches()] == [
        ("trained/minimax", 64), ("gaussian/minimax", 64), ("gaussian/minimax", 256)
    ]  # fmt: skip


def test_a_trained_layer_has_the_same_optimiser_at_every_size():
    config = NeededConfig(methods=("trained/minimax",), m=(16, 128), s=(2,), seeds=(0,))
    made = [needed.configuration(search, 64) for search in config.searches()]
    assert {(run.m, run.resolve(run.features(), run.make_task("and"))) for run in made} == {
        (16, "lbfgs"),
        (128, "lbfgs"),
    }
