"""Which parameters of a model count as weights, and which share of them is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from graphsparse.params.memory import place
from graphsparse.params.reparametrized import TorchMasks

Which = str | Iterable[str]


def prunable(model: nn.Module, which: Which = "all") -> dict[str, nn.Parameter]:
    """Select the trainable parameters of a model, in the order of ``named_parameters()``, tied ones once.

    Args:
        model: any module.
        which: ``"all"``, as the TEDDY paper counts; ``"matrices"``, which leaves out every tensor with at most one
            dimension larger than 1 (biases, norms, single rows); or names of parameters, in which ``*`` and ``?``
            match as in file names. Of a tied parameter either name will do. Patterns pass over frozen parameters.

    Returns:
        the parameters by name.

    Raises:
        ValueError: for a name or pattern that selects nothing (close matches are named), a frozen parameter asked
            for by name, or a lazy parameter that has no shape yet.
        TypeError: if ``model`` is no module or a name is no string.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))
        >>> list(prunable(net))
        ['0.weight', '0.bias', '1.weight']
        >>> list(prunable(net, "matrices")), list(prunable(net, ["1.*"]))
        (['0.weight', '1.weight'], ['1.weight'])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    trainable = {name: p for name, p in _distinct(model).items() if p.requires_grad}
    if which not in ("all", "matrices"):
        chosen = _matching(model, [which] if isinstance(which, str) else list(which))
        trainable = {name: p for name, p in trainable.items() if name in chosen}
    for name, parameter in trainable.items():
        if isinstance(parameter, UninitializedParameter):
            raise ValueError(f"parameter {name!r} is lazy and has no shape yet; run one forward pass first")
    if which == "matrices":
        return {name: p for name, p in trainable.items() if is_matrix(p)}
    return trainable


def is_matrix(tensor: Tensor) -> bool:
    """Whether more than one dimension of a tensor is larger than 1.

    Example:
        >>> is_matrix(torch.zeros(3, 2)), is_matrix(torch.zeros(1, 8, 1)), is_matrix(torch.zeros(8))
        (True, False, False)
    """
    return sum(size > 1 for size in tensor.shape) > 1


def count(model: nn.Module, which: Which = "all") -> int:
    """Number of weights that :func:`prunable` selects.

    Example:
        >>> net = nn.Linear(3, 4)
        >>> count(net), count(net, "matrices")
        (16, 12)
    """
    return sum(parameter.numel() for parameter in prunable(model, which).values())


def weights_kept(
    source: nn.Module | Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    r"""Share of the weights that is kept, by both definitions in use: of all weights, and of the matrices only.

    .. math:: \text{weights\_kept} = \frac{\sum_t |\{i : m_{t,i} \neq 0\}|}{\sum_t |t|}

    Results state both, because methods in the literature use different denominators (see :func:`prunable`).

    Args:
        source: a model, or tensors by name (weights or masks).
        masks: bool masks by name, of the same shapes. A kept zero counts as kept, a tensor without a mask as wholly
            kept. Without masks the elements of ``source`` that are not zero count as kept. What
            ``torch.nn.utils.prune`` has masked in a model is not kept in either case.

    Returns:
        ``weights_kept`` and ``weights_kept_matrices``, fractions in [0, 1]; 1.0 where there is nothing to keep.

    Raises:
        ValueError: for a mask of an unknown name or another shape.
        TypeError: for a mask that is not bool, or a source without values that can be counted (on the meta device,
            sparse, quantized).

    Example:
        >>> net = nn.Linear(4, 1)
        >>> weights_kept(net, {"weight": torch.tensor([[True, False, False, False]])})
        {'weights_kept': 0.4, 'weights_kept_matrices': 1.0}
    """
    tensors = prunable(source) if isinstance(source, nn.Module) else dict(source)
    aliases = _aliases(source) if isinstance(source, nn.Module) else {name: name for name in tensors}
    pruned = TorchMasks(source) if isinstance(source, nn.Module) else {}
    if masks is None:
        kept = {name: _count(name, tensor, pruned.get(name)) for name, tensor in tensors.items()}
    else:
        found = {_check_mask(name, mask, tensors, aliases): mask for name, mask in masks.items()}
        whole = {name: found[name] if name in found else pruned.get(name) for name in tensors}
        kept = {
            name: tensor.numel() if (mask := whole[name]) is None else _count(name, mask, pruned.get(name))
            for name, tensor in tensors.items()
        }
    return {
        "weights_kept": _share(kept, tensors),
        "weights_kept_matrices": _share(kept, {name: t for name, t in tensors.items() if is_matrix(t)}),
    }


def _share(kept: Mapping[str, int], tensors: Mapping[str, Tensor]) -> float:
    total = sum(tensor.numel() for tensor in tensors.values())
    return sum(kept[name] for name in tensors) / total if total else 1.0


def _count(name: str, tensor: Tensor, within: Tensor | None) -> int:
    """Elements that are not zero, of those inside a mask."""
    if not isinstance(tensor, Tensor) or tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
        kind = "on the meta device" if getattr(tensor, "is_meta", False) else getattr(tensor, "dtype", type(tensor))
        raise TypeError(f"{name} must be a dense tensor to be counted, got one {kind}")
    values = tensor.detach()
    return int(torch.count_nonzero(values if within is None else values.masked_fill(~within.to(values.device), 0)))


def _check_mask(name: str, mask: Tensor, tensors: Mapping[str, Tensor], aliases: Mapping[str, str]) -> str:
    """The first name of the tensor that a mask belongs to."""
    first = aliases.get(name, name)
    if first not in tensors:
        raise ValueError(f"there is a mask for {name!r}, which is no trainable parameter{_hint(name, tensors)}")
    if mask.dtype != torch.bool:
        raise TypeError(f"the mask of {name!r} must be bool, got {mask.dtype}")
    if mask.shape != tensors[first].shape:
        raise ValueError(f"the mask of {name!r} has shape {[*mask.shape]}, its tensor {[*tensors[first].shape]}")
    return first


def _matching(model: nn.Module, patterns: list[str]) -> set[str]:
    """First names of the trainable parameters that names and patterns select."""
    if not patterns:
        raise ValueError('no parameter was asked for; which="all" selects every trainable one')
    aliases, parameters = _aliases(model), _distinct(model)
    chosen: set[str] = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"which must be 'all', 'matrices' or names of parameters, got {pattern!r} among them")
        if pattern in aliases:
            if not parameters[aliases[pattern]].requires_grad:
                raise ValueError(f"parameter {pattern!r} is frozen (requires_grad=False); it cannot be pruned")
            found = {aliases[pattern]}
        else:
            found = {first for name, first in aliases.items() if fnmatchcase(name, pattern)}
            found = {first for first in found if parameters[first].requires_grad}
        if not found:
            known = ["all", "matrices", *aliases]
            raise ValueError(f"{pattern!r} matches no trainable parameter of the model{_hint(pattern, known)}")
        chosen |= found
    return chosen


def _distinct(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter under its first name."""
    parameters = dict(model.named_parameters())
    return {name: parameters[name] for name in dict.fromkeys(_aliases(model).values())}


def _aliases(model: nn.Module) -> dict[str, str]:
    """Every name of every parameter -> the name under which it comes first."""
    first: dict[object, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    return {name: first.setdefault(place(parameter), name) for name, parameter in named}


def _hint(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else f"; there are {known[:8]}"
