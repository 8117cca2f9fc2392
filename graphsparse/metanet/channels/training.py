"""What a module does in training mode only: it is cut along, and must run as before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graphsparse.errors import TraceError
from graphsparse.fit import rng
from graphsparse.fit.measure import device_of, evaluating
from graphsparse.metanet.graph import cut_along


def training_cuts(
    module: nn.Module,
    inputs: tuple[Any, ...],
    axes: Mapping[str, Sequence[Tensor]],
    known: Callable[[str], bool],
) -> dict[str, Tensor]:
    """Which elements stay of tensors that only training reads; none where evaluation reads all.

    Args:
        module: with its full widths.
        inputs: on which it runs.
        axes: what stays of what evaluation reads.
        known: whether evaluation reads a tensor.
    """
    if all(known(name) for name, _ in module.named_parameters()):
        return {}
    read = {name for name, _ in (*module.named_parameters(), *module.named_buffers()) if known(name)}
    try:
        return cut_along(module, _in_training(inputs), read, axes)
    except TraceError:  # what cannot be followed keeps its channels: see `trains_alike`
        return {}


def trains_alike(wide: nn.Module, small: nn.Module, inputs: tuple[Any, ...]) -> bool:
    """Whether the cut module runs in training mode as the whole one does, where that runs."""
    inputs = _in_training(inputs)
    expected = _outputs(wide, inputs)
    if expected is None:
        return True
    found = _outputs(small, inputs)
    return found is not None and [part.shape for part in found] == [part.shape for part in expected]


def _outputs(module: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor] | None:
    """What a pass in training mode gives, None if it fails; the module's state and mode stay as they are."""
    try:
        with torch.no_grad(), _undisturbed(module):
            return [part for part in pytree.tree_leaves(module.train()(*inputs)) if isinstance(part, Tensor)]
    except Exception:
        return None


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Afterwards the module's buffers and modes, and torch's random numbers, are what they were."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    with rng.preserved(device_of(module)), evaluating(module):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


def _in_training(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Two examples where there is one: batch norms do not train on less."""
    return pytree.tree_map(  # type: ignore[no-any-return]
        lambda part: part.repeat(2, *[1] * (part.dim() - 1)) if _is_one(part) else part, inputs
    )


def _is_one(part: Any) -> bool:
    return isinstance(part, Tensor) and part.dim() > 0 and len(part) == 1
