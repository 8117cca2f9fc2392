"""Threads: kernels that release the interpreter lock over slices of an array, and work too small for more than one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

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
    """Return ``[kernel(start, stop) for each slice of range(n)]``, the slices on threads of their own.

    Threads and not numba's parallel loops: its fallback threading layer aborts the process when two
    threads of the caller enter it at once, and parallel loops compile several times more slowly.

    Example:
        >>> over_slices(lambda start, stop: stop - start, 10, parts=2)
        [5, 5]
    """
    cuts = slices(n, parts)
    if len(cuts) == 1:
        return [kernel(*cuts[0])]
    with ThreadPoolExecutor(len(cuts)) as pool:
        return list(pool.map(lambda cut: kernel(*cut), cuts))


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
