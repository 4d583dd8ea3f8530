"""Uniform numbers drawn without torch: the same numbers, and the same generator afterwards."""

import numpy as np
import pytest
import torch

from toymodels.fast import uniform


@pytest.fixture(autouse=True)
def asked_again():
    uniform._is_known.cache_clear()
    yield
    uniform._is_known.cache_clear()


def drawn(count: int, generator: torch.Generator) -> np.ndarray:
    numbers = np.full(count, np.nan, np.float32)
    uniform.fill_uniform(numbers, generator)
    return numbers


@pytest.mark.parametrize("seed", [0, 7, 2**63 + 5])
def test_the_numbers_are_torchs_and_so_is_the_generator_afterwards(seed):
    one, other = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    assert uniform._is_known()
    for count in (1, 5, 617, 1, 624, 623, 625, 0, 4000, 7):  # whole blocks, and parts of them
        assert np.array_equal(drawn(count, one), torch.rand(count, generator=other).numpy())
        assert torch.equal(one.get_state(), other.get_state())
    # Between them, torch draws other numbers from the same generator.
    for generator in (one, other):
        torch.randn(3, generator=generator)
        torch.randperm(10, generator=generator)
    assert np.array_equal(drawn(1000, one), torch.rand(1000, generator=other).numpy())
    assert torch.equal(torch.randn(5, generator=one), torch.randn(5, generator=other))


@pytest.mark.parametrize("change", ["numbers", "state", "size"])
def test_where_torch_draws_in_another_way_it_draws_itself(change, monkeypatch):
    fill, words = uniform._fill, uniform._WORDS
    if change == "size":
        monkeypatch.setattr(uniform, "_WORDS", words + 1)

    def other(state, out):
        fill(state, out)
        if change == "numbers":
            out[-1] = 0.5
        if change == "state":
            state[10] += 1

    if change != "size":
        monkeypatch.setattr(uniform, "_fill", other)
    assert not uniform._is_known()
    one, two = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    assert np.array_equal(drawn(100, one), torch.rand(100, generator=two).numpy())
    assert torch.equal(one.get_state(), two.get_state())
