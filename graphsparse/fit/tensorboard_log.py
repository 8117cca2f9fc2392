"""Figures of a training run for TensorBoard, which is an optional part."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from graphsparse.errors import GraphsparseError
from graphsparse.progress import Report


def summary_writer() -> Any:
    """TensorBoard's class of writers.

    Raises:
        GraphsparseError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise GraphsparseError('tensorboard= needs TensorBoard: pip install "graphsparse[tensorboard]"') from error
    return SummaryWriter


@contextmanager
def logged(folder: str | os.PathLike[str] | None, report: Report) -> Iterator[Report]:
    """A report that also writes each epoch's figures (``loss``, ``val``) into a folder of TensorBoard's.

    Args:
        folder: where to; None writes nothing.
        report: what is told besides.

    Raises:
        GraphsparseError: TensorBoard is not installed.
        OSError: the folder cannot be made.
    """
    if folder is None:
        yield report
        return
    make, writer = summary_writer(), None
    os.makedirs(folder, exist_ok=True)  # what cannot be written is told before anything is trained

    def both(done: int, total: int, figures: Mapping[str, float]) -> None:
        nonlocal writer
        if writer is None:  # a run that goes on takes back what was written after its checkpoint
            writer = make(os.fspath(folder), **({} if done == 1 else {"purge_step": done}))
        for name, value in figures.items():
            writer.add_scalar(name, value, done)
        report(done, total, figures)

    try:
        yield both
    finally:
        if writer is not None:
            writer.close()
