"""The command atlas: the shipped entries, and layers that are offered to it: records, worse ones, forged ones."""

import dataclasses
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from toymodels.atlas.cells import Cell
from toymodels.atlas.entries import HERE, entry_bytes, files_in, prove, read_entry, read_tensors
from toymodels.atlas.known import best_layer, errors_serving, least_known
from toymodels.atlas.search import solve, solved
from toymodels.cli import main
from toymodels.core.layers import FirstLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.experiments.atlas import AtlasConfig, check, run_atlas, search, show, submit
from toymodels.runs.record import save_network

CELL = Cell("and", 2, 4, 5)


def random_layer(cell, seed=0):
    return np.random.default_rng(seed).standard_normal((cell.d, cell.m + 1))


@pytest.fixture
def atlas(tmp_path):
    """A folder with a few of the shipped entries."""
    folder = tmp_path / "atlas"
    folder.mkdir()
    for path in HERE.glob("and-at_most_2-m04-*.safetensors"):
        shutil.copy(path, folder)
    return folder


def test_there_are_200_shipped_entries_and_each_is_proved():
    text, status = check(AtlasConfig("check"))
    assert status == 0, text
    assert len(files_in(HERE)) >= 200
    assert text.startswith(f"entries proved: {len(files_in(HERE))}, in ")  # and there is no note
    # A few MiB in the repository; readoffs of all 2,016 pairs of 64 features take two of them.
    assert sum(path.stat().st_size for path in files_in(HERE)) < 6 * 2**20


def test_a_check_needs_no_torch(atlas):
    code = "import sys; from toymodels.cli import main; status = main(sys.argv[1:]); sys.exit(status or ('torch' in sys.modules))"
    words = ["atlas", "check", "--folder", str(atlas)]
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)


def spoil(path, **changes):
    tensors, _ = read_tensors(path)
    entry = read_entry(path)
    path.write_bytes(
        entry_bytes(dataclasses.replace(entry, **{key: change(tensors[key]) for key, change in changes.items()}))
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"offset": lambda value: value + 0.01}, "the file states a worst error of"),
        ({"weight": lambda value: value * 1.01}, "the certificate proves nothing"),
        ({"multipliers": lambda value: value * 0}, "the certificate proves nothing"),
        ({"readoff": lambda value: value * np.float32(np.nan)}, "readoff must be finite"),
    ],
)
def test_a_check_finds_a_planted_fault(atlas, changes, match):
    spoil(atlas / f"{CELL.name}.safetensors", **changes)
    text, status = check(AtlasConfig("check", folder=atlas))
    assert status == 1
    assert match in text
    assert CELL.name in text


def test_a_check_notes_entries_that_others_make_worthless_and_does_not_fail(atlas):
    """A random layer at d = 5 is worse than the entry at d = 4; alone it is worse than the features themselves."""
    entry = solved(CELL, random_layer(CELL), {})
    (atlas / f"{CELL.name}.safetensors").write_bytes(entry_bytes(entry))
    text, status = check(AtlasConfig("check", folder=atlas))
    assert status == 0
    assert re.search(
        rf"^note: {CELL.name}: .* is more than .* of and-at_most_2-m04-d004, whose layer would do$", text, re.MULTILINE
    )
    for path in atlas.glob("*-d00[1-4]*"):
        path.unlink()
    assert "is more than 0.250000 of identity, whose layer would do" in check(AtlasConfig("check", folder=atlas))[0]
    (atlas / "notes.safetensors").write_bytes(b"")
    assert "is no name of a cell" in check(AtlasConfig("check", folder=atlas))[0]


def offer(folder, file, **settings):
    return submit(AtlasConfig("submit", file, folder=folder, **settings))


def save_layer(path, layer, **more):
    save_file({"weight": np.ascontiguousarray(layer[:, :-1]), "bias": np.ascontiguousarray(layer[:, -1]), **more}, path)
    return path


def test_a_better_layer_is_a_record_and_is_stored_with_its_proof(atlas, tmp_path):
    known = atlas / f"{CELL.name}.safetensors"
    best = read_entry(known)
    layer = np.column_stack([best.weight, best.bias])
    error = prove(best).worst_error
    for path in atlas.glob("*.safetensors"):  # leave only one that is worse
        path.unlink()
    (atlas / known.name).write_bytes(entry_bytes(solved(CELL, random_layer(CELL), {})))
    text = offer(atlas, save_layer(tmp_path / "mine.safetensors", layer), task=("and",))
    assert text.startswith("a record for and of 4 features, at most 2 active, 5 neurons")
    assert prove(read_entry(known)).worst_error == pytest.approx(error, abs=1e-7)
    assert check(AtlasConfig("check", folder=atlas))[1] == 0
    with pytest.raises(InputError, match="is no record: its worst error is"):
        offer(atlas, tmp_path / "mine.safetensors", task=("and",))
    torch.save(
        {"weight": torch.from_numpy(layer[:, :-1].copy()), "bias": torch.from_numpy(layer[:, -1].copy())},
        tmp_path / "mine.pt",
    )
    with pytest.raises(InputError, match="is no record"):
        offer(atlas, tmp_path / "mine.pt", task=("and",))


def test_worse_and_forged_layers_are_refused_in_one_sentence_and_nothing_is_written(atlas, tmp_path):
    name = f"{CELL.name}.safetensors"
    good = read_entry(atlas / name)
    mine = tmp_path / name
    before = {path.name: path.read_bytes() for path in atlas.iterdir()}

    def forged(**changes):
        mine.write_bytes(entry_bytes(dataclasses.replace(good, **changes)))
        return mine

    nan = good.weight.copy()
    nan[0, 0] = np.nan
    cases = [
        (lambda: save_layer(mine, random_layer(CELL)), "is no record: its worst error is"),
        (lambda: forged(facts={"worst_error": 0.01}), "states a worst error of 0.01"),
        (lambda: forged(multipliers=np.roll(good.multipliers, 1)), "the certificate proves nothing"),
        (
            lambda: forged(rows=good.rows[:0], multipliers=good.multipliers[:0]),
            "the certificate proves no more than 0.0",
        ),
        (lambda: forged(rows=good.rows + 100), "rows must be numbers of inputs"),
        (lambda: forged(weight=nan), "weight must be finite"),
        (lambda: forged(readoff=np.zeros_like(good.readoff)), "states a worst error"),
        (lambda: save_layer(mine, random_layer(CELL)[:, 1:]), "weight has the shape"),
        (lambda: save_file({"weight": good.weight}, mine) or mine, "it must have weight"),
        (lambda: tmp_path / "nowhere.safetensors", "there is no file"),
    ]
    for make, match in cases:
        with pytest.raises(InputError, match=match) as refusal:
            offer(atlas, make())
        assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match="does not say what its layer is for"):
        offer(atlas, save_layer(tmp_path / "mine.safetensors", random_layer(CELL)))
    assert {path.name: path.read_bytes() for path in atlas.iterdir()} == before


def test_what_is_known_includes_narrower_layers_and_the_features_alone(atlas):
    for path in atlas.glob("*-d006*"):
        path.unlink()
    narrower = prove(read_entry(atlas / f"{CELL.name}.safetensors")).worst_error
    cell = Cell("and", 2, 4, 6)
    errors = errors_serving(Cell("and", 1, 4, 5), atlas)
    assert least_known(Cell("and", 2, 4, 5), errors) == (narrower, CELL.name)
    assert least_known(cell, errors) == (0, "a neuron for each output")
    assert least_known(Cell("and", 2, 9, 9), errors)[0] == 0.25
    assert least_known(Cell("and", 2, 9, 8), errors) == (0.25, "m − 1 neurons on a plane")
    assert least_known(Cell("and", 2, 9, 3), errors)[1] == "nothing"
    assert best_layer(Cell("and", 2, 9, 3), atlas) is None
    for features, d, known in ((4, 5, narrower), (3, 5, 0), (9, 8, 0.25)):
        layer, _ = best_layer(Cell("and", 2, features, d), atlas)
        assert solve(Cell("and", 2, features, d), layer).worst_error <= known + 1e-6


def test_a_search_stores_what_it_finds_and_goes_on_from_there(tmp_path):
    config = AtlasConfig("search", task=("and",), m=(3,), d=(1, 2, 3), seconds=0.1, folder=tmp_path)
    assert "0.500000" in search(config)
    assert len(files_in(tmp_path)) == 3
    assert check(AtlasConfig("check", folder=tmp_path))[1] == 0
    before = {path: prove(read_entry(path)).worst_error for path in files_in(tmp_path)}
    assert before[files_in(tmp_path)[-1]] < 1e-9
    search(config)
    assert all(prove(read_entry(path)).worst_error <= error for path, error in before.items())


def test_the_map_is_printed_written_and_drawn(atlas, tmp_path):
    text = show(AtlasConfig(folder=atlas, out=tmp_path / "map"))
    assert "and, at most 2 active" in text
    assert re.search(r"^6 +0\.0000 =$", text, re.MULTILINE)
    table = (tmp_path / "map" / "atlas.csv").read_text().splitlines()
    assert len(table) == 1 + len(files_in(atlas))
    assert (tmp_path / "map" / "atlas.png").read_bytes().startswith(b"\x89PNG")
    widths = show(AtlasConfig(folder=atlas, epsilon=(0.5, 0.25, 1e-9)))
    assert re.search(r"^4 +1 = +4 ≥ 3 +6 =$", widths, re.MULTILINE)
    with pytest.raises(InputError, match="no entry of"):
        show(AtlasConfig(folder=atlas, m=(99,)))
    with pytest.raises(InputError, match="no entry of"):
        run_atlas(AtlasConfig("check", folder=atlas, m=(99,)))


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["atlas", "submit"], "submit takes the file of one layer"),
        (["atlas", "check", "x.safetensors"], "submit takes the file of one layer"),
        (["atlas", "search"], "a search needs at least one task, m and d"),
        (["atlas", "--seed", "3"], "seconds and seed are of a search"),
        (["atlas", "check", "--out", "x"], "out is for the printed table"),
        (["atlas", "check", "--epsilon", "0.25"], "epsilon is for the printed table"),
        (["atlas", "--epsilon", "-1"], "must be a positive number"),
        (["atlas", "--task", "relu"], "task = 'relu'"),
        (["atlas", "--m", "0"], "m = 0"),
        (["atlas", "check", "--folder", "nowhere"], "there is no folder nowhere"),
        (["atlas", "search", "--task", "and", "--m", "4", "--d", "3", "--s", "9", "--folder", "f"], "s = 9"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(words, match, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert match in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_network_of_a_run_is_taken_with_its_task(activation, atlas, tmp_path):
    entry = read_tensors(HERE / "and-at_most_2-m06-d008.safetensors")[0]
    weight, bias = (torch.tensor(entry[name]) for name in ("weight", "bias"))
    network, task = Network(FirstLayer(weight, bias, activation), LinearReadoff.constant(15, 8)), PairTask(6, "and")
    save_network(tmp_path / "network.safetensors", network.double(), task, {}, {})
    config = AtlasConfig("submit", tmp_path / "network.safetensors", folder=atlas)
    if activation == "gelu":
        with pytest.raises(InputError, match="are gelu: layers of the atlas are of ReLU"):
            submit(config)
        return
    assert submit(config).startswith("a record for and of 6 features, at most 2 active, 8 neurons: 0.20908")
    assert read_tensors(atlas / "and-at_most_2-m06-d008.safetensors")[1]["how"] == "trained"
