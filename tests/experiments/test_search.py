import pytest

from toymodels.core.features import SparseFeatures
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.experiments import compare
from toymodels.experiments.search import Search, SearchConfig, bracket, measure, run_search
from toymodels.runs.record import load_network
from toymodels.runs.table import read_table


def search(method="gaussian/minimax", size=8, s=2, seed=0, **settings):
    return Search(SearchConfig(methods=(method,), **settings), method, size, s, seed)


@pytest.mark.parametrize("start", [8, 40, 1000, 5000])
@pytest.mark.parametrize("constant", [0.1, 1.0, 2.0, 100.0])
def test_a_search_measures_from_the_last_width_above_to_the_first_below(start, constant):
    grid = search().grid()
    seen = {}

    def error(d):
        return seen.setdefault(d, constant / d**0.5)

    bracket(error, grid, (0.25, 0.1), start)
    measured = set(seen)
    above = [d for d in grid if error(d) > 0.25]
    reached = [d for d in grid if error(d) <= 0.1]
    # Every width between the two ends, so that both crossings can be read off.
    low, high = (above or grid[:1])[-1], (reached or grid[-1:])[0]
    assert measured >= {d for d in grid if low <= d <= high}


def test_widths_are_squares_where_the_layer_needs_them():
    assert search(largest=64).grid() == [8, 12, 16, 22, 32, 46, 64]
    rising = [8, 12, 16, 22, 32, 46, 64, 90, 128, 182]
    squares = list(dict.fromkeys(round(d**0.5) ** 2 for d in rising))
    assert search("quadratic/own", largest=200).grid() == squares


def test_a_search_is_ordinary_runs_that_are_not_repeated(tmp_path, monkeypatch):
    chain = search(out=tmp_path, reach=(0.3,), pairs=5, steps=20)
    run_search(chain)
    rows = read_table(tmp_path)
    assert {(row["first_layer"], row["readoff"], row["n_pairs"], row["covered"]) for row in rows} == {
        ("gaussian", "minimax", 5, "all 37")
    }
    errors = {row["d"]: row["worst_error"] for row in rows}
    assert min(errors.values()) <= 0.3 < max(errors.values())
    monkeypatch.setattr(compare, "run_compare", lambda config: pytest.fail("a finished run was done again"))
    run_search(chain)


def test_every_method_reads_the_same_pairs(tmp_path):
    for method in ("gaussian/minimax", "trained/minimax"):
        run_search(search(method, seed=3, out=tmp_path / method.replace("/", "-"), reach=(0.5,), pairs=5, steps=5))
    pairs = [load_network(path)[1].pairs.tolist() for path in sorted(tmp_path.rglob("*-minimax.safetensors"))]
    assert len(pairs) >= 2
    assert all(these == pairs[0] for these in pairs)
    assert len(pairs[0]) == 5 < PairTask(8, "and").n_outputs


def test_features_are_searched_until_the_error_is_too_large(tmp_path):
    run_search(search(over="m", size=16, out=tmp_path, reach=(0.25,), pairs=6, embedded=True))
    rows = sorted(read_table(tmp_path), key=lambda row: row["m"])
    assert rows[0]["worst_error"] <= 0.25 < rows[-1]["worst_error"]
    assert [row["d0"] for row in rows] == [16 if row["m"] > 16 else None for row in rows]


def test_without_an_error_to_pass_the_whole_grid_is_measured(tmp_path):
    chain = search(
        "bernoulli(p=0.25)/own", 16, over="m", out=tmp_path, reach=(), pairs=6, inputs="exactly", embedded=True,
        smallest=16, largest=64, eval_inputs=50,
    )  # fmt: skip
    run_search(chain)
    rows = read_table(tmp_path)
    assert sorted(row["m"] for row in rows) == [16, 22, 32, 46, 64] == chain.grid()
    assert {(row["layer_p"], row["first_layer"]) for row in rows} == {(0.25, "bernoulli")}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ("gaussian/psychic",)}, "unknown readoff"),
        ({"methods": ("gaussian",)}, "LAYER/READOFF"),
        ({"methods": ("psychic/minimax",)}, "unknown first layer"),
        ({"methods": ()}, "nothing to measure"),
        ({"reach": (0.0,)}, "positive"),
        ({"pairs": 0}, "at least 1"),
        ({"over": "s"}, "choose one of d, m"),
        ({"metric": "seconds"}, "name an error"),
        ({"m": (256,), "s": (3,), "most_inputs": 1000}, "nothing to measure"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_measured(change, words, tmp_path):
    with pytest.raises(InputError, match=words):
        measure(SearchConfig(out=tmp_path / "runs", **change))
    assert not (tmp_path / "runs").exists()


def test_sizes_with_too_many_inputs_are_left_out():
    config = SearchConfig(methods=("gaussian/minimax",), m=(64, 256), seeds=(0,), most_inputs=10_000)
    assert [chain.size for chain in config.searches()] == [64]
    assert SparseFeatures.at_most(256, 2).n_inputs > 10_000


def test_a_trained_layer_has_the_same_optimiser_at_every_size():
    config = SearchConfig(methods=("trained/minimax",), m=(16, 128), seeds=(0,))
    runs = [chain.configuration(64) for chain in config.searches()]
    assert {(run.m, run.resolve(run.features(), run.make_task("and"))) for run in runs} == {
        (16, "kfac"),
        (128, "kfac"),
    }
