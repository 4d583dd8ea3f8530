"""Sums over blocks of one case against the plain form, number by number."""

import numpy as np
import pytest
import torch

from toymodels.core.evaluation import HUNDREDTHS, SLACK, TOLERANCES, ErrorSums
from toymodels.fast.error_sums import BlockSums, Scratch

OWN = (0.3, 0.03)
SUMS = ("mass", "first", "second", "worst", "within", "bins")


def errors(dtype, scale):
    """Three blocks of different shapes; the last two share a case. Some errors lie a little above a tolerance."""
    drawn = torch.Generator().manual_seed(3)
    blocks = [scale * torch.randn(shape, generator=drawn, dtype=torch.float64) for shape in ((3, 5), (4, 6), (6, 4))]
    for block in blocks:
        block[0, :4] = torch.tensor([0.25 * (1 + SLACK / 2), -OWN[0] * (1 + SLACK / 2), 0.45, 0.0])
    return [block.to(dtype) for block in blocks]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scale", [0.3, 1e7])
def test_blocks_of_one_case_add_up_to_the_plain_sums(dtype, weighted, scale):
    fast, plain, scratch = BlockSums(2, 6, OWN), ErrorSums(2, 6, OWN), Scratch()
    for case, block in zip((0, 1, 1), errors(dtype, scale), strict=True):
        # Of a block in case 0 some entries are set to 0 and excluded; the plain form has them in the other case.
        masked = torch.zeros(block.shape, dtype=torch.bool)
        masked[1:, 1:3] = case == 0
        shares = torch.arange(1, block.numel() + 1, dtype=torch.float64).view_as(block) / 100
        weight = torch.where(masked, 0.0, shares) if weighted else 0.25
        rows = fast.add_case(case, torch.where(masked, 0, block), weight, int(masked.sum()), scratch)
        assert torch.equal(rows, torch.where(masked, 0, block).abs().amax(-1))
        each = weight if weighted else torch.full(block.shape, weight)
        for error, share, left_out in zip(block.reshape(-1), each.reshape(-1), masked.reshape(-1), strict=True):
            if not left_out:
                plain.add(error.reshape(1, 1), torch.tensor([[case]]), share.reshape(1).double())
    exact = 1e-12 if dtype == torch.float64 else 1e-6
    for name in SUMS:
        found, wanted = getattr(fast, name), getattr(plain, name)
        np.testing.assert_allclose(found, wanted, rtol=exact, atol=exact * np.abs(wanted).max(), err_msg=name)


def test_tolerances_begin_their_bins():
    """Of the wing's own: an error at a tolerance lies below the bin's edge, one above it in the bin."""
    for tolerance in (*TOLERANCES, *OWN):
        for share, met in ((0.5, 1.0), (2.0, 0.0)):
            sums = BlockSums(1, 1, OWN)
            sums.add_case(
                0, torch.full((1, 2), tolerance * (1 + share * SLACK), dtype=torch.float64), 0.5, 0, Scratch()
            )
            assert sums.within[0, sums.tolerances.index(tolerance)] == pytest.approx(met, abs=1e-12)


@pytest.mark.parametrize("value", [HUNDREDTHS[-3] / 100 * 1.001, HUNDREDTHS[-2] / 100 * 1.001, 1e200, -1e200])
def test_the_largest_errors_lie_in_their_bins(value):
    fast, plain = BlockSums(1, 1), ErrorSums(1, 1)
    error = torch.tensor([[value]], dtype=torch.float64)
    fast.add_case(0, error, 1.0, 0, Scratch())
    plain.add(error, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1))
    assert np.array_equal(fast.bins, plain.bins)


def test_a_buffer_of_one_shape_is_kept_and_a_larger_one_replaces_all_its_views():
    scratch = Scratch()
    first = scratch.take("a", (2, 3), torch.float64, torch.device("cpu"))
    assert scratch.take("a", (2, 3), torch.float64, torch.device("cpu")) is first
    other = scratch.take("b", (2, 3), torch.float64, torch.device("cpu"))
    assert other.data_ptr() != first.data_ptr()
    large = scratch.take("a", (4, 5), torch.float64, torch.device("cpu"))
    again = scratch.take("a", (2, 3), torch.float64, torch.device("cpu"))
    assert again.data_ptr() == large.data_ptr() != first.data_ptr()
    assert scratch.take("b", (2, 3), torch.float64, torch.device("cpu")) is other
