"""Who works: dask's threads in this process, processes on this machine, or the workers of a cluster."""

from __future__ import annotations

import importlib.util
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from graphsparse.cores import usable_cores
from graphsparse.errors import GraphsparseError
from graphsparse.keep_rule import whole_number

Task = Callable[..., Any]
Tell = Callable[[int], None]
"""Called by a task with the number of edges that it has just worked through."""
Done = Callable[[int, Any], None]
"""Called with the number of a task and its result, by one thread at a time."""


class Engine(ABC):
    """Runs the tasks of a pass, each as ``task(tell, *arguments)``. A task may run twice and must not mind.

    Attributes:
        workers: how many tasks run at once.
        processes: how many processes they share; each holds Python and its libraries.
    """

    workers: int
    processes: int

    @abstractmethod
    def each(self, task: Task, arguments: Sequence[tuple[Any, ...]], done: Done, tell: Tell) -> None:
        """Run a task for each tuple of arguments."""

    @abstractmethod
    def shared(self, value: Any) -> Any:
        """What to pass as an argument instead of ``value``, so that it travels once for all tasks."""

    def total(
        self, task: Task, arguments: Sequence[tuple[Any, ...]], add: Callable[[Any, Any], Any], tell: Tell
    ) -> Any:
        """Add up the results of a task. ``add`` may change its first argument; no order is sure."""
        sums: list[Any] = []

        def done(_: int, result: Any) -> None:
            sums.append(add(sums.pop(), result) if sums else result)

        self.each(task, arguments, done, tell)
        return sums[0]


class Threads(Engine):
    """Dask's threads in this process."""

    def __init__(self, workers: int) -> None:
        self.workers, self.processes = workers, 1

    def shared(self, value: Any) -> Any:
        return value

    def each(self, task: Task, arguments: Sequence[tuple[Any, ...]], done: Done, tell: Tell) -> None:
        import dask

        stop, lock = threading.Event(), threading.Lock()

        def heard(rows: int) -> None:
            if stop.is_set():
                raise StoppedError
            with lock:
                tell(rows)

        def run(number: int) -> None:
            heard(0)
            result = task(heard, *arguments[number])
            with lock:
                done(number, result)

        call = dask.delayed(run, pure=False, traverse=False)
        pool = ThreadPoolExecutor(self.workers)
        try:
            dask.compute(*map(call, range(len(arguments))), scheduler="threads", pool=pool)
        finally:
            stop.set()  # after an error, or when the caller is interrupted, tasks end at their next batch
            pool.shutdown(cancel_futures=True)


class Cluster(Engine):
    """The workers of a dask cluster, which see the same folders as this process."""

    def __init__(self, client: Any) -> None:
        self.client = client
        cores = client.ncores()
        if not cores:
            client.wait_for_workers(1, timeout=60)
            cores = client.ncores()
        self.workers, self.processes = sum(cores.values()), len(cores)

    def shared(self, value: Any) -> Any:
        return self.client.submit(_same, value, pure=False)  # a task, and no data: it is computed anew if it is lost

    def each(self, task: Task, arguments: Sequence[tuple[Any, ...]], done: Done, tell: Tell) -> None:
        from distributed import KilledWorker, as_completed

        topic = f"graphsparse-{uuid.uuid4().hex}"
        self.client.subscribe_topic(topic, lambda event: tell(int(event[1])))
        futures = [self.client.submit(_remote, task, topic, *words, pure=False) for words in arguments]
        numbers = {future.key: number for number, future in enumerate(futures)}
        try:
            for future in as_completed(futures):
                done(numbers[future.key], future.result())
                future.release()
        except KilledWorker as error:
            raise GraphsparseError(
                "workers of the cluster died again and again at one task, most likely for want of memory: give them "
                "more, or say less as memory="
            ) from error
        finally:
            with suppress(Exception):
                self.client.cancel(futures)
                self.client.unsubscribe_topic(topic)


class StoppedError(Exception):
    """Another task has failed, or the caller has gone."""


@contextmanager
def open_engine(workers: int | None, client: Any) -> Iterator[Engine]:
    """The engine that was asked for.

    Args:
        workers: processes on this machine; None: threads of this process, one a core.
        client: a ``distributed.Client``, or the address of a scheduler (``"tcp://..."``).

    Raises:
        ModuleNotFoundError: dask is missing; it names the extra.
        ValueError: both are given, or the scheduler does not answer.
    """
    check_extra()
    if workers is not None:
        whole_number(workers, "workers", 1)
    if client is None and workers is None:
        yield Threads(usable_cores())
        return
    if client is not None and workers is not None:
        raise ValueError("give either workers (processes on this machine) or client (a cluster), not both")
    from distributed import Client, LocalCluster

    if workers is not None:
        # Memory is kept to by what is asked of a worker; dask's own limit would kill it for pages of files.
        options: dict[str, Any] = {"memory_limit": 0, "dashboard_address": None, "silence_logs": 50}
        with LocalCluster(workers, threads_per_worker=1, **options) as cluster, Client(cluster) as own:
            yield Cluster(own)
    elif isinstance(client, str):
        try:
            own = Client(client, timeout=15)
        except (OSError, ValueError) as error:
            raise ValueError(f"no dask scheduler answers at {client} ({error})") from error
        with own:
            yield Cluster(own)
    elif hasattr(client, "submit") and hasattr(client, "ncores"):
        yield Cluster(client)
    else:
        raise TypeError(f"client must be a distributed.Client or an address 'tcp://...', got {type(client).__name__}")


def check_extra() -> None:
    """Raise a ModuleNotFoundError that names the extra unless all that works out of core is there."""
    missing = [needed for needed in ("pyarrow", "dask", "distributed") if not _is_there(needed)]
    if missing:
        words = " and ".join(missing)
        raise ModuleNotFoundError(f'files that do not fit in memory need {words}: pip install "graphsparse[scale]"')


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # it was kept out on purpose
        return False


def _same(value: Any) -> Any:
    return value


def _remote(task: Task, topic: str, *arguments: Any) -> Any:
    """Run a task on a worker, which reports by the scheduler's events."""
    from distributed import get_worker

    worker = get_worker()
    return task(lambda rows: worker.log_event(topic, rows), *arguments)
