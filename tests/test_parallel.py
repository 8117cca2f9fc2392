"""Kernels over slices of an array, on threads."""

import multiprocessing
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsparse.parallel import over_slices, slices


@given(n=st.integers(0, 50), parts=st.integers(1, 9))
def test_slices_cover_the_range_once_and_results_are_in_their_order(n, parts):
    found = over_slices(lambda start, stop: list(range(start, stop)), n, parts)
    assert [number for one in found for number in one] == list(range(n))
    assert len(found) == parts
    assert [stop - start for start, stop in slices(n, parts)] == [len(one) for one in found]


def test_the_caller_does_not_wait_for_threads_that_others_keep_busy():
    """As on a machine whose cores have other work, where a thread may not begin for a long time."""
    begun, go_on = threading.Semaphore(0), threading.Event()

    def blocks(start, stop):
        begun.release()
        go_on.wait(60)

    holders = [threading.Thread(target=over_slices, args=(blocks, 64, 64)) for _ in range(2)]
    for holder in holders:
        holder.start()
    for _ in holders:
        begun.acquire(timeout=60)
    assert over_slices(lambda start, stop: stop - start, 12, parts=3) == [4, 4, 4]
    go_on.set()
    for holder in holders:
        holder.join()


@pytest.mark.parametrize("broken", range(4))
def test_an_error_of_a_slice_is_raised(broken):
    def kernel(start, stop):
        if start == broken:
            raise ValueError(f"slice {start}")
        return start

    with pytest.raises(ValueError, match=f"slice {broken}"):
        over_slices(kernel, 4, parts=4)
    assert over_slices(lambda start, stop: start, 4, parts=4) == [0, 1, 2, 3]


def test_slices_within_slices():
    assert over_slices(lambda a, b: over_slices(lambda c, d: a + c, 3, 3), 3, 3) == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]


def _in_child(queue):
    queue.put(over_slices(lambda start, stop: stop - start, 10, parts=5))


def test_a_forked_process_has_threads_of_its_own():
    assert over_slices(lambda start, stop: stop - start, 10, parts=5) == [2] * 5  # the parent has its threads now
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system does not fork")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == [2] * 5
    child.join(60)
    assert child.exitcode == 0
