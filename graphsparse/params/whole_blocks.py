"""Modules that can become the identity: found by one forward pass, gated by hooks, replaced."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.params.counting import is_matrix

Shapes = dict[str, list[tuple[Any, Any]]]


class Bypassed(nn.Module):
    """What stands where a block was: the identity of its first argument, whatever the others are.

    What others read of the block (``layer.self_attn.batch_first``) they read still; its weights are gone.

    Args:
        block: the module that it replaces.

    Example:
        >>> Bypassed(nn.Linear(2, 2))(torch.ones(1, 2), "edges"), Bypassed(nn.Linear(2, 3)).out_features
        (tensor([[1., 1.]]), 3)
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "_was", copy.deepcopy(block).to("meta"))  # no submodule: without state or memory

    def forward(self, x: Any, *others: Any, **named: Any) -> Any:
        """The first argument."""
        return x

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_was" not in self.__dict__:
                raise
            return getattr(self.__dict__["_was"], name)


def bypass_(model: nn.Module, names: list[str]) -> None:
    """Replace modules by the identity, in place, wherever they stand.

    A network that was saved without its blocks is loaded so: made anew, bypassed, ``load_state_dict``.

    Args:
        model: the network.
        names: of modules in it.

    Raises:
        ValueError: for a name that it has not; nothing is replaced then.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> bypass_(net, ["0"])
        >>> list(net.state_dict()), net(torch.tensor([[-1.0, 2.0]]))
        ([], tensor([[0., 2.]]))
    """
    modules = dict(model.named_modules())
    for name in names:
        if not name or name not in modules:
            raise ValueError(f"{name!r} is no module inside this network; there are {[n for n in modules if n][:12]}")
    for name in names:
        block = modules[name]
        stand_in = block if isinstance(block, Bypassed) else Bypassed(block)
        for parent in modules.values():
            for own, child in parent._modules.items():
                if child is block:
                    parent._modules[own] = stand_in


def find_blocks(model: nn.Module, *inputs: Any, **named: Any) -> list[str]:
    """Modules whose input and output have one shape in a forward pass, so that they can become the identity.

    Only modules with a matrix of weights are looked at, no norms. Of those inside one another the outermost are taken;
    but a chain of modules of one kind, each of which takes what the one before it gives (a stage of residual blocks, an
    encoder of layers), is taken apart, and what lies inside a block of that kind that changes the shape is none.

    Args:
        model: the network; its weights, buffers and random numbers stay as they are.
        inputs, named: its arguments.

    Returns:
        names, in the order of ``named_modules()``; for :class:`Modules`.

    Raises:
        ValueError: if there is none, with the shapes of those that come close.

    Example:
        >>> class Block(nn.Module):
        ...     def __init__(self, width):
        ...         super().__init__()
        ...         self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        ...     def forward(self, x):
        ...         return x + self.second(self.first(x).relu())
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.Sequential(Block(8), Block(8)), nn.Linear(8, 2))
        >>> find_blocks(net, torch.zeros(1, 3))
        ['1.0', '1.1']
    """

    def run() -> None:
        state = torch.get_rng_state()
        try:
            model(*inputs, **named)
        finally:
            torch.set_rng_state(state)

    return find_blocks_in(model, run)


def find_blocks_in(model: nn.Module, run: Callable[[], object]) -> list[str]:
    """As :func:`find_blocks`, for a function that calls the model, in evaluation mode and without gradients."""
    calls: dict[str, list[tuple[Tensor | None, Tensor | None]]] = {}
    handles = []
    for name, module in model.named_modules():
        if name and any(p.requires_grad and is_matrix(p) for p in module.parameters()):
            handles.append(module.register_forward_hook(_noting(calls.setdefault(name, [])), with_kwargs=True))
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            run()
    finally:
        for module, mode in modes:
            module.training = mode
        for handle in handles:
            handle.remove()
    same = {name: ends for name, ends in calls.items() if ends and all(map(_alike, ends))}
    kinds = {name: type(module) for name, module in model.named_modules()}
    found = [name for name in same if not _is_chain(name, same, kinds)]
    found = [name for name in found if not any(name.startswith(f"{other}.") for other in found)]
    blocks = [name for name in kinds if kinds[name] in {kinds[other] for other in found}]
    found = [name for name in found if not any(name.startswith(f"{other}.") for other in blocks)]
    if not found:
        shapes = [f"{name!r} {_shape(ends[0][0])} -> {_shape(ends[0][1])}" for name, ends in calls.items() if ends]
        raise ValueError(f"no module has an output of its input's shape: {'; '.join(shapes[:6])}")
    return found


def _noting(ends: list[tuple[Tensor | None, Tensor | None]]) -> Callable[..., None]:
    def note(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        ends.append((first_of(inputs, named), output if isinstance(output, Tensor) else None))

    return note


def first_of(inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The first argument of a call, if it is a tensor."""
    first = inputs[0] if inputs else next(iter(named.values()), None)
    return first if isinstance(first, Tensor) else None


def _alike(ends: tuple[Tensor | None, Tensor | None]) -> bool:
    before, after = ends
    return before is not None and after is not None and before.shape == after.shape and before.dtype == after.dtype


def _is_chain(name: str, same: dict[str, list[tuple[Any, Any]]], kinds: dict[str, type]) -> bool:
    """Whether two modules of one kind inside this one follow each other directly."""
    inside = [other for other in same if other.startswith(f"{name}.")]
    return any(
        kinds[one] is kinds[two] and after is before
        for one in inside
        for two in inside
        if one != two
        for _, after in same[one]
        for before, _ in same[two]
    )


def _shape(value: Any) -> str:
    return str([*value.shape]) if isinstance(value, Tensor) else type(value).__name__
