"""Threads: kernels that release the interpreter lock over slices of an array, and work too small for more than one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import TypeVar

import torch

from graphsparse.cores import usable_cores

T = TypeVar("T")

SERIAL_BELOW = 1 << 18  # below this many elements starting threads costs more than it saves


def slices(n: int, parts: int | None = None) -> list[tuple[int, int]]:
    """Cut ``range(n)`` into consecutive, nearly equal ``(start, stop)`` slices.

    Args:
        n: number of elements.
        parts: number of slices; by default torch's number of threads, or 1 for a short array.

    Example:
        >>> slices(10, parts=3)
        [(0, 3), (3, 6), (6, 10)]
    """
    if parts is None:
        parts = 1 if n < SERIAL_BELOW else max(1, torch.get_num_threads())
    return [(n * i // parts, n * (i + 1) // parts) for i in range(parts)]


def over_slices(kernel: Callable[[int, int], T], n: int, parts: int | None = None) -> list[T]:
    """Return ``[kernel(start, stop) for each slice of range(n)]``; threads that are free take slices from the caller.

    The caller takes the next slice whenever it has ended one, so it never waits for a thread that other work keeps from
    starting. Threads and not numba's parallel loops: its fallback threading layer aborts the process when two threads
    of the caller enter it at once, and parallel loops compile several times more slowly.

    Example:
        >>> over_slices(lambda start, stop: stop - start, 10, parts=2)
        [5, 5]
    """
    cuts = slices(n, parts)
    if len(cuts) == 1:
        return [kernel(*cuts[0])]
    found: dict[int, T] = {}
    numbers = count()

    def work() -> None:
        while (number := next(numbers)) < len(cuts):
            found[number] = kernel(*cuts[number])

    helpers = [_pool().submit(work) for _ in cuts[1:]]
    try:
        work()
    finally:
        started = [helper for helper in helpers if not helper.cancel()]
        wait(started)
    for helper in started:
        helper.result()  # raises what the kernel has raised
    return [found[number] for number in range(len(cuts))]


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that wait for slices, of this process: starting one for each call takes longer than a short slice."""
    return ThreadPoolExecutor(max(1, usable_cores() - 1), thread_name_prefix="graphsparse")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of its parent's threads


@contextmanager
def one_thread(only: bool = True) -> Iterator[None]:
    """Torch computes on one thread inside, and afterwards on as many as before.

    Args:
        only: False changes nothing.

    Example:
        >>> before = torch.get_num_threads()
        >>> with one_thread():
        ...     print(torch.get_num_threads())
        1
        >>> torch.get_num_threads() == before
        True
    """
    before = torch.get_num_threads()
    if only:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
