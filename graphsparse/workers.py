"""Processes that work through a list, start nothing new once they are told to end, and do not outlive their parent."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NoReturn, TypeVar, cast

from graphsparse.errors import GraphsparseError

Item = TypeVar("Item")
Result = TypeVar("Result")

GRACE = 2.0  # seconds that a process has to tidy up before it is killed


class WorkerError(GraphsparseError):
    """A process ended in the middle of its work."""


@dataclass(frozen=True)
class End(Generic[Item, Result]):
    """How the work on an item ended.

    Attributes:
        item: which.
        value: what the call returned.
        error: what it raised instead, or a `WorkerError`.
    """

    item: Item
    value: Result | None = None
    error: Exception | None = None

    def result(self) -> Result:
        """The value; raises the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


def in_processes(
    call: Callable[[Item], Result], items: Sequence[Item], jobs: int, *, beat: Callable[[], object] = lambda: None
) -> Generator[End[Item, Result], None, None]:
    """Call a function on items, in processes of one thread each, and yield how each one ended, the earliest first.

    An item is handed out when a process is free, never before. Use it under ``contextlib.closing``: closing it ends the
    processes within seconds, wherever they are. They also end when this process is killed.

    Args:
        call: a function that can be pickled by its name.
        items: what it is called on; picklable.
        jobs: how many processes at most.
        beat: called about once a second.

    Example:
        >>> with contextlib.closing(in_processes(abs, [-1], 1)) as ends:
        ...     [end.result() for end in ends]
        [1]
    """
    todo, busy = list(reversed(items)), dict[Connection, tuple[Any, Item]]()
    try:
        for _ in range(min(jobs, len(items))):
            _hand_out(_start(call), todo, busy)
        while busy:
            for ready in cast("list[Connection]", wait(list(busy), timeout=1)):
                process, item = busy.pop(ready)
                end = _received(ready, process, item)
                if isinstance(end.error, WorkerError):
                    if todo:
                        _hand_out(_start(call), todo, busy)
                else:
                    _hand_out((process, ready), todo, busy)
                yield end
            beat()
    finally:
        _end([process for process, _ in busy.values()])


def _start(call: Callable[[Any], Any]) -> tuple[Any, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(call, theirs))
    with _environment(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1"), _deaf_to_the_keyboard():
        process.start()  # of one thread: two processes beat two threads of one
    theirs.close()  # so that its end is seen here as the end of what it sends
    return process, ours


def _hand_out(free: tuple[Any, Connection], todo: list[Item], busy: dict[Connection, tuple[Any, Item]]) -> None:
    process, connection = free
    if not todo:
        connection.close()  # at which the process ends
        process.join()
        return
    item = todo.pop()
    busy[connection] = process, item
    with contextlib.suppress(OSError):  # it is dead, which is seen when its answer is awaited
        connection.send(item)


def _received(connection: Connection, process: Any, item: Item) -> End[Item, Any]:
    try:
        value, error, trace = connection.recv()
    except (EOFError, OSError):
        process.join()
        connection.close()
        code = process.exitcode
        told = "a process was killed, most likely for want of memory: ask for fewer jobs"
        return End(item, error=WorkerError(told if code == -9 else f"a process ended with exit code {code}"))
    if error is not None:
        error.__cause__ = RuntimeError(f"in a process of its own:\n{trace}")
    return End(item, value, error)


def _end(processes: Sequence[Any]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(GRACE)
        if process.is_alive():
            process.kill()
            process.join()


@contextlib.contextmanager
def _deaf_to_the_keyboard() -> Iterator[None]:
    """Processes that are started inside never hear Ctrl-C, which reaches the whole group: the parent decides."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(**names: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(call: Callable[[Any], Any], connection: Connection) -> None:
    """What a process does: items in, results out, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    _die_with_parent()
    try:
        while True:
            item = connection.recv()
            answer: tuple[Any, Exception | None, str]
            try:
                answer = (call(item), None, "")
            except Exception as error:
                answer = (None, error, traceback.format_exc())
            connection.send_bytes(_packed(answer))
    except (EOFError, BrokenPipeError):
        return
    except SystemExit as told:
        os._exit(told.code if isinstance(told.code, int) else 1)  # what libraries do at an exit takes seconds


def _packed(answer: tuple[Any, Exception | None, str]) -> bytes:
    """As bytes that can be read again; errors of many classes cannot, and are sent in words."""
    try:
        packed = pickle.dumps(answer)
        pickle.loads(packed)
    except Exception as error:
        _, raised, trace = answer
        words = GraphsparseError(f"{type(raised).__name__}: {raised}") if raised else error
        packed = pickle.dumps((None, GraphsparseError(str(words)), trace))
    return packed


def _leave(*_: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signal.SIGTERM)  # what is half written is removed on the way


def _die_with_parent() -> None:
    """End when the parent does, however it ended: by the kernel's word on Linux, elsewhere by a thread that waits."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()  # also sees a parent that died before the line above
