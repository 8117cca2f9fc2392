"""Progress bars: on a terminal, silent elsewhere, one display for any number of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SILENT: ContextVar[bool] = ContextVar("silent", default=False)

Report = Callable[[int, int, Mapping[str, float]], None]
"""Called after each epoch with the epochs done, the epochs in all, and the figures of the last one."""


class Bars:
    """A display that several runs share, one bar each.

    Args:
        enabled: None shows bars on a terminal only; True always, False never.
        console: where to; standard error by default, so that results on standard output stay clean.

    Example:
        >>> with Bars(enabled=False) as bars:
        ...     report = bars.add("dense, seed 0")
        ...     report(1, 200, {"loss": 1.9, "val": 0.4})
    """

    def __init__(self, enabled: bool | None = None, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        shown = (console.is_terminal and not _SILENT.get()) if enabled is None else enabled
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not shown,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._progress.disable:  # rich before 14.3 ends a display that was never shown with an empty line
            self._progress.stop()

    def add(self, description: str, *, keep: bool = True) -> Report:
        """A new bar; pass the result as ``fit(..., progress=...)``.

        Args:
            description: the text before the bar.
            keep: False removes the bar when its run is done.
        """
        bar = self._progress.add_task(description, total=None, figures="")

        def report(done: int, total: int, figures: Mapping[str, float]) -> None:
            text = " ".join(f"{name} {value:.4f}" for name, value in figures.items())
            finished = done >= total and not keep
            self._progress.update(bar, completed=done, total=total, figures=text, visible=not finished)

        return report


@contextmanager
def silent() -> Iterator[None]:
    """Show no bars inside, on a terminal neither; those that are enabled by hand stay."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


@contextmanager
def reporting(progress: bool | Report | None) -> Iterator[Report]:
    """What `fit` calls: the given function, a bar of its own (True), or nothing (None, False)."""
    if callable(progress):
        yield progress
    elif progress:
        with Bars() as bars:
            yield bars.add("training")
    else:
        yield lambda done, total, figures: None
