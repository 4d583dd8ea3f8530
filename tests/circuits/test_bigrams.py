"""Scores of skip-bigram heads have the mean and the noise that theory says, and a wrong law or construction is seen."""

import numpy as np
import pytest
import torch

from toymodels import InputError
from toymodels.circuits.bigrams import (
    constructed_head,
    head_errors,
    noise_law,
    random_bigrams,
    sampled,
    score_variance,
    trained_head,
    true_scores,
)

M, D, H = 12, 16, 6
BIGRAMS = random_bigrams(M, 30, 0)
HEADS = 4000


def set_of(*active):
    x = torch.zeros(M)
    x[list(active)] = 1
    return x


@pytest.fixture(scope="module")
def heads():
    return [constructed_head(BIGRAMS, D, H, seed) for seed in range(HEADS)]


@pytest.mark.parametrize(
    ("query", "key"), [((0, 1, 2), (3, 4, 5)), ((6,), (7,)), ((0, 3, 5, 8, 9, 10), (1, 2, 4, 8, 9, 11))]
)
def test_mean_and_variance_of_a_score_are_exact(heads, query, key):
    x, y = set_of(*query), set_of(*key)
    truth = sum(float(BIGRAMS[i, j]) for i in query for j in key)
    scores = np.array([float(head.scores(x[None], y[None])) for head in heads])
    error = scores.std(ddof=1) / HEADS**0.5
    assert abs(scores.mean() - truth) < 5 * error
    squares = (scores - truth) ** 2
    predicted = score_variance(BIGRAMS, x, y, D, H)
    error = squares.std(ddof=1) / HEADS**0.5
    assert abs(squares.mean() - predicted) < 5 * error
    # A planted fault that this measurement must see: a standard deviation that is 1.25 times too large.
    assert abs(squares.mean() - 1.25**2 * predicted) > 5 * error


def test_the_law_is_the_exact_noise_where_no_active_feature_is_in_a_bigram():
    bigrams = torch.zeros(M, M)
    bigrams[2:6, 2:6] = 1
    exact = score_variance(bigrams, set_of(0, 1), set_of(8, 9), D, H)
    assert noise_law(2, 16, D, H) == pytest.approx(exact**0.5, rel=1e-6)


def test_samples_hold_a_bigram_in_every_second_row():
    query, key = sampled(BIGRAMS, 400, 3, 0)
    assert bool((query.sum(1) == 3).all() and (key.sum(1) == 3).all())
    truth = true_scores(BIGRAMS, query, key)
    loops = [
        sum(float(BIGRAMS[i, j]) for i in q.nonzero() for j in k.nonzero()) for q, k in zip(query, key, strict=True)
    ]
    assert truth.tolist() == loops
    assert bool((truth[1::2] > 0).all())
    assert not bool((truth[::2] > 0).all())
    assert not torch.equal(query, sampled(BIGRAMS, 400, 3, 1)[0])


def test_errors_are_counted_for_zeros_and_ones():
    bigrams = torch.eye(2)
    head = constructed_head(bigrams, 2, 2, 0)
    query, key = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]]), torch.tensor([[1.0, 0], [0, 1.0], [1.0, 0]])
    scores = head.scores(query, key).tolist()
    got = head_errors(head, bigrams, query, key)
    assert got["rms_ones"] == pytest.approx(abs(scores[0] - 1))
    assert got["rms_zeros"] == pytest.approx(((scores[1] ** 2 + scores[2] ** 2) / 2) ** 0.5, rel=1e-6)
    assert got["wrong"] == pytest.approx(((scores[0] <= 0.5) + ((scores[1] > 0.5) + (scores[2] > 0.5)) / 2) / 2)


def test_training_finds_a_head_of_the_rank_that_beats_the_construction():
    query, key = sampled(BIGRAMS, 2000, 2, 9)
    trained, built = trained_head(BIGRAMS, D, H, 2, 0, steps=150), constructed_head(BIGRAMS, D, H, 0)
    assert int(torch.linalg.matrix_rank(trained.matrix)) == H
    assert torch.equal(trained.keys, built.keys)
    errors = [head_errors(head, BIGRAMS, query, key) for head in (trained, built)]
    assert errors[0]["wrong"] < errors[1]["wrong"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: random_bigrams(3, 10, 0), "count = 10"),
        (lambda: constructed_head(BIGRAMS, 4, 5, 0), "d_head = 5"),
        (lambda: sampled(BIGRAMS, 5, 13, 0), "active = 13"),
        (lambda: noise_law(0, 1, 1, 1), "active = 0"),
        (lambda: trained_head(BIGRAMS, 4, 2, 2, 0, steps=0), "steps = 0"),
        (lambda: trained_head(torch.ones(3, 3), 4, 2, 2, 0, steps=2), "take fewer bigrams"),
    ],
)
def test_wrong_numbers_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
