from functools import partial

import pytest

from toymodels.errors import InputError
from toymodels.theory.widths import smallest_width


def enough(answer, looked, d):
    looked.append(d)
    return d >= answer


def test_the_smallest_width_is_found_with_few_looks():
    for answer in (1, 2, 7, 64, 65, 1000):
        looked: list[int] = []
        assert smallest_width(partial(enough, answer, looked)) == answer
        assert len(looked) <= 21
    assert smallest_width(lambda d: True, least=10) == 10
    assert smallest_width(lambda d: d >= 11, least=10) == 11
    assert smallest_width(lambda d: True, least=0) == 0
    assert smallest_width(lambda d: d >= 1000, widest=1000) == 1000


def test_a_width_beyond_the_widest_is_refused():
    with pytest.raises(InputError, match="more than 1,000 neurons"):
        smallest_width(lambda d: d > 1000, widest=1000)
