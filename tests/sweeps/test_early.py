import math

import pytest

from toymodels.sweeps.definition import Hyperband
from toymodels.sweeps.early_stopping import bands, should_stop


def test_bands_from_the_least_iteration():
    assert bands(Hyperband(3, None, None, 3, True))[:4] == (3, 9, 27, 81)
    assert bands(Hyperband(2, None, None, 1.5, True))[:5] == (2, 3, 4, 6, 10)  # 2, 3, 4.5, 6.75, 10.125
    assert len(bands(Hyperband(1, None, None, 1.001, True))) == 100
    assert bands(Hyperband(1, None, None, 1e300, True)) == (1,)  # the next would not fit any history, or a double


def test_bands_from_the_greatest_iteration():
    assert bands(Hyperband(None, 27, 2, 3, True)) == (3, 9)  # W&B's documentation: s = 2, eta = 3, max_iter = 27
    assert bands(Hyperband(None, 9, 9, 2, True)) == (1, 2, 4)
    assert bands(Hyperband(2, 27, 2, 3, True)) == (3, 9)  # min_iter gives way, as in W&B
    with pytest.raises(ValueError, match="without bands"):
        bands(Hyperband(None, 27, None, 3, True))


OTHERS = [[5.0, 4.0], [4.0, 3.0], [3.0, 2.0], [2.0, 1.0], [1.0, 0.0]]


def decide(history, others=OTHERS, at=(1, 2), goal="minimize", eta: int | float = 3, strict=True) -> bool:
    return should_stop(at, history, others, goal, eta, strict)


def test_the_best_third_goes_on():
    # Six runs: value number ⌊6/3⌋ = 2, counted from 0, is the threshold.
    assert not decide([2.5])  # 1, 2, 2.5: its own value is the threshold
    assert decide([3.5])  # 1, 2, 3
    assert not decide([3.0])  # a tie with the threshold
    mirrored = [[-v for v in run] for run in OTHERS]
    assert not decide([-2.5], mirrored, goal="maximize")
    assert decide([-3.5], mirrored, goal="maximize")


def test_only_the_last_band_counts_and_between_bands_nothing_changes():
    assert not decide([9.0, 0.5])
    assert decide([0.0, 9.0])
    assert decide([0.0, 9.0, 0.0])  # the third value is no band's
    assert not decide([])
    assert not decide([9.0], at=(2, 4))


def test_what_is_not_strict_looks_at_the_best_value():
    assert decide([0.0, 9.0], strict=True)
    assert not decide([0.0, 9.0], strict=False)
    assert decide([9.0, 9.0], strict=False)


def test_a_run_alone_goes_on():
    assert not decide([7.0, 8.0], others=[])


def test_values_that_are_missing_or_not_finite_are_left_out():
    assert not decide([None, math.nan, 9.0, math.inf, 0.5])
    assert decide([None, 0.5, math.nan, 9.0])
    assert not decide([None, math.nan])


def test_one_over_49_times_49_is_below_1():
    """In floating point; W&B's threshold is then the best value, and the second best run stops."""
    others = [[float(i)] for i in range(48)]
    assert decide([0.5], others, eta=49)
    assert not decide([0.5], others, eta=24.5)
