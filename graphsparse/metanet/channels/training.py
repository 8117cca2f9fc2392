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
    """Which elements stay of tensors that only training reads; none where it calls no layers of its own.

    Args:
        module: with its full widths.
        inputs: on which it runs.
        axes: what stays of what evaluation reads.
        known: whether evaluation reads a tensor.
    """
    more = _in_training(inputs)
    trained, learned = _pass_of(module, more, training=True)
    if learned is None or trained <= _pass_of(module, inputs, training=False)[0]:
        return {}
    read = {name for name, _ in (*module.named_parameters(), *module.named_buffers()) if known(name)}
    try:
        return cut_along(module, more, read, axes)
    except TraceError:  # what cannot be followed keeps its channels: see `trains_alike`
        return {}


def trains_alike(wide: nn.Module, small: nn.Module, inputs: tuple[Any, ...]) -> bool:
    """Whether the cut module runs in training mode as the whole one does, where that runs."""
    inputs = _in_training(inputs)
    expected = _pass_of(wide, inputs, training=True)[1]
    if expected is None:
        return True
    found = _pass_of(small, inputs, training=True)[1]
    return found is not None and [part.shape for part in found] == [part.shape for part in expected]


def _pass_of(
    module: nn.Module, inputs: tuple[Any, ...], *, training: bool
) -> tuple[set[nn.Module], list[Tensor] | None]:
    """Which layers one pass calls, and its outputs, None if it fails; the module's state and mode stay as they are."""
    called: set[nn.Module] = set()
    layers = [part for part in module.modules() if next(part.parameters(recurse=False), None) is not None]
    hooks = [part.register_forward_hook(lambda part, *_: called.add(part)) for part in layers]
    try:
        with torch.no_grad(), _undisturbed(module):
            module.train(training)
            return called, [part for part in pytree.tree_leaves(module(*inputs)) if isinstance(part, Tensor)]
    except Exception:
        return called, None
    finally:
        for hook in hooks:
            hook.remove()


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


