import threading

import pytest
import torch

import toymodels
from toymodels.core.losses import LpLoss
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask
from toymodels.core.training import step_threads
from toymodels.layers.random import gaussian
from toymodels.parallel.threads import n_threads, parallel_for, tiny_is_zero, torch_single_threaded


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_parts_run_side_by_side_in_order_with_one_thread_of_torch_each():
    barrier = threading.Barrier(3)

    def work(part):
        barrier.wait(10)  # passes only if all three are at work
        return part, torch.get_num_threads(), torch.is_grad_enabled()

    with torch.no_grad():
        assert parallel_for(work, 3) == [(0, 1, False), (1, 1, False), (2, 1, False)]
    assert torch.get_num_threads() == 3


def test_by_hand_gives_the_threads_back():
    with torch_single_threaded():
        assert (torch.get_num_threads(), n_threads()) == (1, 3)
        assert parallel_for(lambda part: part, 2) == [0, 1]
        assert (torch.get_num_threads(), n_threads()) == (1, 3)
    assert (torch.get_num_threads(), n_threads()) == (3, 3)


def test_an_error_waits_for_the_other_parts():
    done = []

    def work(part):
        if part == 0:
            raise ValueError("first")
        done.append(part)

    with pytest.raises(ValueError, match="first"):
        parallel_for(work, 3)
    assert sorted(done) == [1, 2]
    assert torch.get_num_threads() == 3


def test_tiny_numbers_are_zero_inside_the_context_alone_and_in_its_threads():
    tiny = torch.full((64,), 1e-39)

    def product(part):
        return float((tiny * 1).sum())

    assert product(0) > 0
    with tiny_is_zero():
        assert product(0) == 0
        with tiny_is_zero():
            pass
        assert product(0) == 0
    assert product(0) > 0
    with tiny_is_zero():
        assert parallel_for(product, 3) == [0, 0, 0]
    assert min(parallel_for(product, 3)) > 0  # the threads that were used before forget


def test_a_fast_step_takes_tiny_numbers_as_zero(wing):
    network, task = Network(gaussian(6, 5, 0), LinearReadoff.constant(15, 5)), PairTask(6, "and")
    with step_threads(network, task, 16, LpLoss(32.0), True):
        assert float(torch.full((1,), 1e-39) * 1) == 0
    with toymodels.plain(), step_threads(network, task, 16, LpLoss(32.0), True):
        assert float(torch.full((1,), 1e-39) * 1) > 0
