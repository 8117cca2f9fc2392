"""Looking at a model as it is: its place, its modes kept, its time taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are; the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into eval mode, and afterwards each back into the mode that it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def inference_ms(runs: Sequence[Callable[[], object]], repeats: int = 9) -> list[float]:
    """Median wall time of each run in milliseconds; the runs take turns, so that a drifting clock hits all alike."""
    times: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats + 2):
        for slot, run in zip(times, runs, strict=True):
            start = time.perf_counter()
            run()
            if repeat >= 2:  # the first rounds fill caches
                slot.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(slot) for slot in times]
