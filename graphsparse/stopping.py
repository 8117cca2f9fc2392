"""Ctrl-C and its like: a command stops where it is, and within seconds whatever it computes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

GRACE = 4.0  # seconds that a command has to end in its own way: to remove what is half written, to stop its processes


class Stopped(KeyboardInterrupt):
    """The process was told to end; `status` is what it exits with, 128 and the number of the signal.

    Example:
        >>> Stopped(signal.SIGTERM).status
        143
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


@contextmanager
def stoppable(last_words: Callable[[], Any]) -> Iterator[list[int]]:
    """Raise `Stopped` inside when the process is interrupted, terminated, or loses its terminal.

    Yields the list of the signals that came: an exception that follows one may be what a library made of it.

    Where no exception gets through in time, because a library computes or swallows it, ``last_words`` is called and the
    process ends at once: what is written, is written whole. A second signal ends it at once, too. Signals that the
    process was started to ignore (``nohup``) stay ignored, and outside the main thread nothing changes.
    """
    asked = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    heeded = {number: signal.getsignal(number) for number in asked if signal.getsignal(number) != signal.SIG_IGN}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    told: list[int] = []
    ended = threading.Event()

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        if told:
            os._exit(128 + number)
        told.append(number)
        raise Stopped(number)

    def watch() -> None:
        """Python handles signals between two of its own steps, which may be far apart; this thread hears of them."""
        while word := os.read(reading, 1):
            if word[0] in heeded:
                if ended.wait(GRACE):
                    break
                last_words()
                with suppress(OSError, ValueError):
                    sys.stderr.flush()
                os._exit(128 + word[0])
        os.close(reading)

    for number in heeded:
        signal.signal(number, stop)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield told
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        for number, handler in heeded.items():
            signal.signal(number, handler)
        os.close(writing)  # at which the thread ends
