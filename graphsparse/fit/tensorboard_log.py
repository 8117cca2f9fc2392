"""Figures of a training run for TensorBoard, which is an optional part."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from graphsparse.errors import GraphsparseError
from graphsparse.fit.progress import Report


@contextmanager
def logged(folder: str | os.PathLike[str] | None, report: Report) -> Iterator[Report]:
    """A report that also writes each epoch's figures (``loss``, ``val``) into a folder of TensorBoard's.

    Args:
        folder: where to; None writes nothing.
        report: what is told besides.

    Raises:
        GraphsparseError: TensorBoard is not installed.
    """
    if folder is None:
        yield report
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise GraphsparseError('tensorboard= needs TensorBoard: pip install "graphsparse[tensorboard]"') from error
    writer = SummaryWriter(os.fspath(folder))

    def both(done: int, total: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, done)
        report(done, total, figures)

    try:
        yield both
    finally:
        writer.close()
