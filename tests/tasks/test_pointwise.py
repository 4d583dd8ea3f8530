import math

import pytest
import torch

from toymodels.core.features import SparseFeatures
from toymodels.core.tasks import make_task
from toymodels.errors import InputError
from toymodels.tasks.pointwise import PointwiseTask, mixing_matrix

FUNCTIONS = {"relu": lambda v: max(v, 0.0), "abs": abs, "square": lambda v: v * v, "copy": lambda v: v}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("mixing", ["none", "asymmetric", "symmetric", "embedding", "low_rank"])
def test_targets_are_the_function_of_each_feature_and_the_mixture_of_all(name, mixing):
    task = make_task(name if mixing == "none" else f"{name}(mixing={mixing}, sigma=0.5)", 6, seed=3)
    x = SparseFeatures.independent(6, 0.4, "symmetric").sampled(40, 0).dense(dtype=torch.float64)
    matrix = mixing_matrix(mixing, 6, 0.5, 3)
    targets = task.targets(x)
    for row, target in zip(x, targets, strict=True):
        for i in range(6):
            mixed = 0.0 if matrix is None else sum(float(matrix[i, j]) * float(row[j]) for j in range(6))
            assert float(target[i]) == pytest.approx(FUNCTIONS[name](float(row[i])) + mixed, abs=1e-12)
    assert torch.allclose(task.targets(x, slice(2, 5)), targets[:, 2:5])
    assert torch.equal(task.cases(x), (x != 0).long())
    assert task.groups == {"inactive": (0,), "active": (1,)}


def test_mixing_matrices_are_what_they_say():
    """Standard deviations of some 40,000 independent entries, to 4 standard errors."""
    m, sigma = 200, 0.1
    drawn, mirrored, embedded = (mixing_matrix(kind, m, sigma, 0) for kind in ("asymmetric", "symmetric", "embedding"))
    off = ~torch.eye(m, dtype=torch.bool)
    for matrix in (drawn, mirrored, embedded):
        assert float(matrix[off].std()) == pytest.approx(sigma, rel=4 / math.sqrt(m * (m - 1)))
        assert abs(float(matrix[off].mean())) < 4 * sigma / math.sqrt(m * (m - 1) / 2)
    assert not torch.equal(drawn, drawn.T)
    assert torch.equal(mirrored, mirrored.T)
    assert float(mirrored.diagonal().std()) == pytest.approx(sigma, rel=4 / math.sqrt(2 * m))
    assert torch.allclose(embedded, embedded.T)
    assert not embedded.diagonal().any()
    assert torch.linalg.eigvalsh(embedded.double() + torch.eye(m)).min() > -1e-5  # a Gram matrix, less 1
    assert torch.equal(drawn, mixing_matrix("asymmetric", m, sigma, 0))
    assert not torch.equal(drawn, mixing_matrix("asymmetric", m, sigma, 1))


@pytest.mark.parametrize("rank", [3, 10, 40])
def test_a_matrix_of_low_rank_has_a_flat_spectrum_and_the_norm_of_an_asymmetric_one(rank):
    m, sigma = 40, 0.1
    values = torch.linalg.svdvals(mixing_matrix("low_rank", m, sigma, 0, rank).double())
    assert values[:rank].tolist() == pytest.approx([sigma * m / rank**0.5] * rank, rel=1e-5)
    assert float((values**2).sum()) == pytest.approx(sigma**2 * m**2, rel=1e-5)
    assert values[rank:].abs().sum() < 1e-4
    task = make_task(f"relu(mixing=low_rank, rank={rank}, sigma=0.1)", m, seed=0)
    assert torch.equal(task.mixing, mixing_matrix("low_rank", m, sigma, 0, rank))


def test_the_matrix_of_a_record_comes_back_whatever_the_seed():
    task = make_task("relu(mixing=symmetric)", 6, seed=3)
    again = make_task(task.name, 6, seed=8, stored=task.stored())
    x = torch.rand(5, 6)
    assert torch.equal(task.targets(x), again.targets(x))
    assert not torch.equal(task.targets(x), make_task(task.name, 6, seed=8).targets(x))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: make_task("relu(mixing=some)", 6), "unknown mixing"),
        (lambda: make_task("relu(mixing=symmetric, sigma=0)", 6), "must be a positive number"),
        (lambda: make_task("relu(mixing=embedding, sigma=2)", 6), "1 at most"),
        (lambda: make_task("relu(mixing=low_rank, rank=7)", 6), "rank = 7: it must be at most 6"),
        (lambda: make_task("relu(mixing=symmetric, rank=3)", 6), "only mixing = low_rank"),
        (lambda: PointwiseTask(6, torch.abs, "abs", torch.full((6, 6), math.nan)), "and finite"),
        (lambda: make_task("relu", 6, [(0, 1)]), "leave pairs out"),
    ],
)
def test_wrong_mixtures_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
