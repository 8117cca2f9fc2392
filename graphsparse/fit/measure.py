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


def find_device(name: str | torch.device) -> torch.device:
    """The device of that name; ``"auto"`` is the GPU if there is one (CUDA's, else Apple's), else the CPU.

    Raises:
        ValueError: torch does not know it, or this machine does not have it; the sentence names those that it has.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    here = _devices()
    if str(name).lower() == "auto":
        return torch.device(here[-1] if here[-1] == "mps" else here[min(1, len(here) - 1)])
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        said = str(error).splitlines()[0].split(".")[0]
        raise ValueError(
            f"the device {str(name)!r} cannot be used: there is no device {str(name)!r} here ({said}); "
            f"here {'is' if len(here) == 1 else 'are'} {', '.join(here)}, and 'auto' takes the best"
        ) from error


def _devices() -> list[str]:
    """Names of what this machine can compute on."""
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


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


def inference_ms(
    runs: Sequence[Callable[[], object]], repeats: int = 9, patience: float = 0.1, warm: int = 2
) -> list[float]:
    """Median wall time of each run in milliseconds; the runs take turns, so that a drifting clock hits all alike.

    Args:
        runs: what is timed.
        repeats: rounds at least, after the warm ones.
        patience: seconds at most for rounds beyond, which are made while the times of a run still vary by a tenth.
        warm: rounds before, which fill caches.
    """
    times: list[list[float]] = [[] for _ in runs]
    begun, repeat = time.perf_counter(), 0
    while repeat < repeats + warm or not (all(map(_stable, times)) or time.perf_counter() - begun > patience):
        for slot, run in zip(times, runs, strict=True):
            spent = _ms_of(run, time.perf_counter)
            if repeat >= warm:
                slot.append(spent)
        repeat += 1
    return [statistics.median(slot) for slot in times]


def least_ms(
    runs: Sequence[Callable[[], object]], repeats: int = 5, seconds: float = 0.0, warm: int = 1
) -> list[float]:
    """The least time of each run in milliseconds, what it takes undisturbed; the runs take turns.

    Where torch computes on the CPU with one thread, its processor time counts, so that other programs do not disturb.

    Args:
        runs: what is timed.
        repeats: rounds at least, after the warm ones.
        seconds: rounds go on for so long.
        warm: rounds before, which fill caches.

    Example:
        >>> short, long = least_ms([lambda: sum(range(100)), lambda: sum(range(100_000))])
        >>> short < long
        True
    """
    clock = time.thread_time if torch.get_num_threads() == 1 and not _on_gpu() else time.perf_counter
    found, begun, repeat = [float("inf")] * len(runs), time.perf_counter(), 0
    while repeat < repeats + warm or time.perf_counter() - begun < seconds:
        for place, run in enumerate(runs):
            spent = _ms_of(run, clock)
            if repeat >= warm:
                found[place] = min(found[place], spent)
        repeat += 1
    return found


def _ms_of(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    if _on_gpu():
        torch.cuda.synchronize()  # it computes on after the call has come back
    return 1e3 * (clock() - start)


def _on_gpu() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _stable(times: Sequence[float]) -> bool:
    """Whether the middle half of the times lies within a tenth of their median."""
    if len(times) < 2:
        return False
    low, middle, high = statistics.quantiles(times, n=4)
    return high - low <= 0.1 * middle
