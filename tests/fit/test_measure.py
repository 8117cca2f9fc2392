"""How long something takes."""

import threading
import time

import pytest
import torch

from graphsparse.fit.measure import least_ms


def waiting():
    time.sleep(0.01)


def test_the_least_of_all_rounds_counts():
    spent = iter([0.05, 0.0, 0.02, 0.0, 0.0, 0.0])
    (found,) = least_ms([lambda: time.sleep(next(spent))], repeats=5, warm=1)
    assert found < 10


def test_with_one_thread_waiting_for_others_does_not_count():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert least_ms([waiting])[0] < 5
        torch.set_num_threads(2)
        assert least_ms([waiting])[0] >= 10
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_rounds_go_on_for_so_long(seconds):
    rounds, begun = [], time.perf_counter()
    least_ms([lambda: rounds.append(threading.get_ident())], repeats=2, seconds=seconds, warm=0)
    assert len(rounds) >= 2
    assert time.perf_counter() - begun >= seconds
