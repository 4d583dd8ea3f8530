"""Every baseline, floor and bound is what networks have, and a wrong number is noticed."""

import dataclasses

import numpy as np
import pytest
import torch

from toymodels.compressed.baselines.semi_nmf import factor_network, published_network, semi_nmf
from toymodels.compressed.registry import BASELINES, Compressed, compare_all, strain
from toymodels.compressed.stack import network
from toymodels.core.layers import FirstLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.errors import InputError
from toymodels.tasks.pointwise import mixing_matrix

LIMIT = 6
"""Standard errors of eight samples or more, at fixed seeds; a tenth of a number is at least twice as far."""


def mixed(n, sigma, seed=0, kind="asymmetric"):
    return mixing_matrix(kind, n, sigma, seed).double().numpy()


PROBLEMS = {
    "independent": Compressed(20, 10, 0.2),
    "mixed": Compressed(20, 8, 0.1, mixed(20, 0.2)),
    "single": Compressed(20, 10, single=True),
    "single, mixed": Compressed(20, 10, mixing=mixed(20, 0.1), single=True),
    "many neurons": Compressed(20, 20, 0.1, mixed(20, 0.1, 1, "symmetric")),
}
CASES = [(name, key) for key, problem in PROBLEMS.items() for name in BASELINES if BASELINES[name].applies(problem)]


def test_every_member_is_measured():
    assert {name for name, _ in CASES} == set(BASELINES)


@pytest.mark.parametrize(("name", "key"), CASES)
def test_the_number_is_measured_and_a_fault_is_noticed(name, key):
    member, problem = BASELINES[name], PROBLEMS[key]
    samples, predicted = member.measured(problem, 3, 80_000), member.predict(problem)
    assert strain(samples, predicted, member.reach) < LIMIT
    # A floor that is too high, an α that is too low and a loss that is wrong either way.
    faults = {"floor": (1.1,), "best α": (0.85,)}.get(member.kind, (0.9, 1.1))
    for fault in faults if predicted else ():
        assert strain(samples, predicted * fault, member.reach) > LIMIT


def test_a_table_has_a_row_for_each_that_applies():
    rows = compare_all(PROBLEMS["mixed"], inputs=8_000)
    assert [row["name"] for row in rows] == [name for name, key in CASES if key == "mixed"]
    assert all(row["source"] and row["domain"] for row in rows)


def test_the_published_factoring_copies_the_transpose():
    """With M = Mᵀ both are the same network; else the published one answers by Mᵀ, and loses what the copy gains."""
    same = Compressed(20, 10, mixing=mixed(20, 0.1, kind="symmetric"), single=True)
    assert same.one_active(factor_network(same, 0)) == pytest.approx(same.one_active(published_network(same, 0)))
    problem = PROBLEMS["single, mixed"]
    turned = dataclasses.replace(problem, mixing=problem.mixing.T.copy())
    published = published_network(problem, 0)
    assert turned.one_active(published) < 1.03 * BASELINES["non_negative"].predict(turned)
    assert problem.one_active(published) > 1.1 * BASELINES["semi_nmf"].predict(problem)


def test_one_active_feature_is_measured_without_sampling():
    """Beside a sample: random weights of both signs, with a mixing matrix."""
    problem = PROBLEMS["single, mixed"]
    generator = torch.Generator().manual_seed(0)
    made = network(
        torch.randn(10, 20, generator=generator).double(), torch.randn(20, 10, generator=generator).double() / 5
    )
    assert strain(problem.loss_per_p(made, 0, 80_000), problem.one_active(made)) < 4
    biased = Network(FirstLayer(torch.ones(10, 20), torch.ones(10)), LinearReadoff(torch.ones(20, 10), torch.zeros(20)))
    with pytest.raises(InputError, match="biases"):
        problem.one_active(biased)


def test_the_factors_are_what_they_say():
    matrix = np.eye(12) + mixed(12, 0.1)
    U, V = semi_nmf(matrix, 6, 0, rounds=100, multiplicative=100)
    assert U.min() >= 1e-8
    # V is the best for U: the remainder is orthogonal to U.
    assert np.abs(U.T @ (U @ V - matrix)).max() < 1e-9
    floor = (np.linalg.svd(matrix, compute_uv=False)[6:] ** 2).sum()
    assert floor < ((U @ V - matrix) ** 2).sum() < 1.1 * floor
    again = semi_nmf(matrix, 6, 0, rounds=100, multiplicative=100)
    assert np.array_equal(U, again[0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Compressed(10, 11), "d = 11: it must be at most 10"),
        (lambda: Compressed(10, 5, 0.0), "above 0"),
        (lambda: Compressed(10, 5, 1.0), "below 1"),
        (lambda: Compressed(10, 5, mixing=np.zeros((5, 5))), "must be 10 × 10 and finite"),
        (lambda: Compressed(2, 2, mixing=np.full((2, 2), np.nan)), "finite"),
        (lambda: BASELINES["non_negative"].predict(Compressed(10, 5)), "exactly one feature active"),
        (lambda: BASELINES["naive_offset"].predict(PROBLEMS["mixed"]), "M = 0"),
        (lambda: semi_nmf(np.eye(4), 2, 0, rounds=0), "rounds = 0"),
        (lambda: semi_nmf(np.eye(4), 5, 0), "d = 5"),
        (lambda: semi_nmf(np.zeros((4, 4)), 2, 0), "nothing to factor"),
    ],
)
def test_wrong_problems_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_strain_counts_standard_errors_outside():
    assert strain([1.0, 3.0], 2.0) == 0
    assert strain([1.0, 3.0], 3.0) == pytest.approx(1.0)  # the mean is 2, its standard error 1
    assert strain([1.0, 3.0], 1.5, reach=2) == 0
    assert strain([2.0], 2.1) > 1e6
    assert torch.tensor(strain([2.0], 2.0)) == 0
