"""Whether a cut network computes what the masked one does, with what averages over channels left out of account."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from graphsparse.fit.measure import evaluating

_SCALE = 1 / 64  # any number: sums stay of the size of means
_LIBRARY = re.compile(r"[/\\](torch|graphsparse)[/\\]|<.*>")  # whose lines say nothing of the network
aten = torch.ops.aten


class CutRunError(Exception):
    """The cut network does not run; ``path`` is the module in which it stops."""

    def __init__(self, path: str, cause: Exception) -> None:
        said = str(cause).strip().split("\n", maxsplit=1)[0] or type(cause).__name__
        line = _line_of(cause)
        super().__init__(f"{line}: {said}" if line else said)
        self.path = path


def _line_of(cause: Exception) -> str:
    """The last line of the caller's own code on the way to an error."""
    own = [frame for frame in traceback.extract_tb(cause.__traceback__) if not _LIBRARY.search(frame.filename)]
    return f"{own[-1].filename.rsplit('/', 1)[-1]}:{own[-1].lineno} `{own[-1].line or '':.80}`" if own else ""


class ZerosDoNotCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Functions over an axis that give the same whether channels are zero or gone, in the place of averages.

    A layer norm or a mean over channels rightly gives something else after a cut. With these in their place the cut
    and the masked network agree exactly if they read and write the same channels.

    Args:
        level: 1 replaces norms; 2 means, variances, maxima and softmax, too; 3 takes means over axis 1 or the last,
            which may be of channels, for nothing.
    """

    def __init__(self, level: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.level = level

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "overloadpacket", func)
        if packet is aten.native_layer_norm:
            return _layer_norm(*args[:4])
        if packet is aten.native_group_norm:
            return _group_norm(args[0], args[1], args[2], args[6])
        if packet in _BATCH_NORMS and func(*args, **kwargs)[1].numel():  # by the statistics of a weight itself
            return _batch_norm(args[0], args[1], args[2])
        replace = _OTHERS.get(packet) if self.level > 1 else None
        if replace is None or not args[0].is_floating_point():
            return func(*args, **kwargs)
        found = replace(func, args, kwargs)
        if self.level > 2 and packet is aten.mean and _over_channels(args[0], args[1] if len(args) > 1 else None):
            found = found * 0
        return found


def _over_channels(x: Tensor, dim: Any) -> bool:
    axes = [dim] if isinstance(dim, int) else list(dim or [])
    return any(axis % x.dim() in (1, x.dim() - 1) for axis in axes)


def _unit(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x / (x.abs().amax(axes, keepdim=True) + 1e-6)


def _layer_norm(x: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    y = _unit(x, tuple(range(x.dim() - len(shape), x.dim())))
    y = y if weight is None else y * weight
    y = y if bias is None else y + bias
    return y, y.new_zeros(1), y.new_zeros(1)


def _batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    y = _unit(x, (0, *range(2, x.dim())))
    view = [1, -1] + [1] * (x.dim() - 2)
    y = y if weight is None else y * weight.view(view)
    y = y if bias is None else y + bias.view(view)
    return y, y.new_zeros(1), y.new_zeros(1)


def _group_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    y = _unit(x.reshape(x.shape[0], groups, -1), (2,)).view(x.shape)
    view = [1, -1] + [1] * (x.dim() - 2)
    y = y if weight is None else y * weight.view(view)
    y = y if bias is None else y + bias.view(view)
    return y, y.new_zeros(1), y.new_zeros(1)


def _sum(x: Tensor, func: Any, args: Any, kwargs: Any) -> Tensor:
    """A sum along the axes that an average names."""
    named = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
    dim = named.get("dim")
    axes = [dim] if isinstance(dim, int) else list(dim) if dim else list(range(x.dim()))
    return x.sum(axes, keepdim=bool(named.get("keepdim", False))) * _SCALE


def _mean(func: Any, args: Any, kwargs: Any) -> Tensor:
    return _sum(args[0], func, args, kwargs)


def _var(func: Any, args: Any, kwargs: Any) -> Tensor:
    return _sum(args[0].square(), func, args, kwargs)


def _std(func: Any, args: Any, kwargs: Any) -> Tensor:
    return _var(func, args, kwargs).sqrt()


def _var_mean(func: Any, args: Any, kwargs: Any) -> tuple[Tensor, Tensor]:
    return _var(func, args, kwargs), _mean(func, args, kwargs)


def _greatest(func: Any, args: Any, kwargs: Any) -> Any:
    if len(args) > 1 and isinstance(args[1], Tensor):  # of two tensors
        return func(*args, **kwargs)
    return func(args[0].abs(), *args[1:], **kwargs)


def _softmax(func: Any, args: Any, kwargs: Any) -> Tensor:
    return _unit(args[0], (args[1],))


_BATCH_NORMS = (aten.native_batch_norm, aten._native_batch_norm_legit)
_OTHERS: dict[Any, Callable[..., Any]] = {
    aten.mean: _mean,
    aten.var: _var,
    aten.std: _std,
    aten.var_mean: _var_mean,
    aten.max: _greatest,
    aten.amax: _greatest,
    aten._softmax: _softmax,
}


def agree(wide: nn.Module, small: nn.Module, inputs: tuple[Any, ...]) -> int | None:
    """The lowest level of `ZerosDoNotCount` (0: none) at which both give the same outputs; None if they never do.

    Raises:
        CutRunError: the small one does not run.
    """
    with torch.no_grad(), evaluating(wide), evaluating(small), _slow_attention():
        inputs = pytree.tree_map(_probe, inputs)
        found = _run(small, inputs)
        for level in range(4):
            with ZerosDoNotCount(level) if level else nullcontext():
                outputs = found if level == 0 else _run(small, inputs)
                if _same(pytree.tree_leaves(wide(*inputs)), outputs):
                    return level
    return None


class _slow_attention:  # noqa: N801
    """Without the fused encoder, whose norms nobody sees."""

    def __enter__(self) -> None:
        self.before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)

    def __exit__(self, *_: object) -> None:
        torch.backends.mha.set_fastpath_enabled(self.before)


def _run(small: nn.Module, inputs: tuple[Any, ...]) -> list[Any]:
    stack: list[str] = []
    hooks = []

    def leave(*_: Any) -> None:
        stack.pop()

    for name, part in small.named_modules():
        hooks.append(part.register_forward_pre_hook(lambda *_, name=name: stack.append(name)))
        hooks.append(part.register_forward_hook(leave))
    try:
        return pytree.tree_leaves(small(*inputs))
    except Exception as error:
        raise CutRunError(stack[-1] if stack else "", error) from error
    finally:
        for hook in hooks:
            hook.remove()


def _same(expected: list[Any], found: list[Any]) -> bool:
    for wide, small in zip(expected, found, strict=True):
        if not isinstance(wide, Tensor) or not wide.is_floating_point() or not bool(torch.isfinite(wide).all()):
            continue
        if wide.shape != small.shape:
            return False
        if wide.numel() and not float((wide - small).abs().max()) <= 1e-3 * float(wide.abs().max() + 1e-3):
            return False
    return True


def _probe(value: Any) -> Any:
    """An input that tells channels apart: random numbers in the place of a constant such as zeros."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or bool((value != value.flatten()[:1]).any()):
        return value
    generator = torch.Generator().manual_seed(0)
    return torch.randn(value.shape, generator=generator, dtype=torch.float32).to(value)
