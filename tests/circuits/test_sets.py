"""Random sets and the contrast readoff."""

import pytest
import torch

from toymodels import InputError
from toymodels.circuits.sets import contrast, default_size, random_sets


def test_sets_have_exactly_their_size_and_units_the_same_chance():
    sets = random_sets(4000, 3, 12, torch.Generator().manual_seed(0))
    assert (sets.sum(1) == 3).all()
    counts = sets.sum(0).double()
    # Each unit is in Bin(4000, 1/4) sets: twelve of them within 4 standard deviations.
    assert (counts - 1000).abs().max() < 4 * (4000 * 0.25 * 0.75) ** 0.5


def test_contrast_is_the_mean_inside_minus_the_mean_outside():
    sets = random_sets(5, 3, 8, torch.Generator().manual_seed(1))
    a = torch.randn(8, generator=torch.Generator().manual_seed(2))
    for row, members in zip(contrast(sets), sets, strict=True):
        torch.testing.assert_close(row @ a, a[members].mean() - a[~members].mean())


def test_default_size_is_three_quarters_of_the_root():
    assert default_size(1200, 3) == 15
    assert default_size(2, 1) == 1
    assert default_size(100, 10_000) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: default_size(100, 0), "at least 1"),
        (lambda: default_size(1, 1), "at least 2"),
        (lambda: random_sets(3, 0, 5, torch.Generator()), "from 1 to 4"),
        (lambda: random_sets(3, 5, 5, torch.Generator()), "from 1 to 4"),
    ],
)
def test_wrong_sizes_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
