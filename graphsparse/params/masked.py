"""Weights that are masked in the forward pass only: a parametrization that the model carries while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from graphsparse.params.tensors import fast, flat


class Masked(nn.Module):
    r"""The weight that the layer sees, :math:`w \odot (m + \beta (1 - m))`; its gradient goes to w as it is.

    It knows nothing but its two buffers, which travel with the model's state, so that a copy of the model works.

    Args:
        mask: bool.
        fade: :math:`\beta`, what is left of a weight outside the mask, in [0, 1]; one that begins with 0 stays 0.

    Source: Bengio et al., "Estimating or propagating gradients through stochastic neurons", 2013; Zhou et al., ICLR
    2021, for N:M.

    Example:
        >>> masked = Masked(torch.tensor([True, False]), fade=0.0)
        >>> weight = torch.tensor([2.0, 3.0], requires_grad=True)
        >>> masked(weight).sum().backward()
        >>> masked(weight).tolist(), weight.grad.tolist()
        ([2.0, 0.0], [1.0, 1.0])
    """

    mask: Tensor
    fade: Tensor
    remedy: ClassVar[str] = "finish() of the sparsifier that masks it"

    def __init__(self, mask: Tensor, fade: float) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.register_buffer("fade", torch.tensor(fade, device=mask.device))
        self.fades = fade > 0

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight."""
        if not self.fades:
            only: Tensor = _Only.apply(weight, self.mask)  # type: ignore[no-untyped-call]
            return only
        seen = torch.where(self.mask, weight, weight * self.fade.to(weight.dtype))
        return weight + (seen - weight).detach()

    def kept(self, weight: Tensor) -> Tensor:
        """Which weights are kept, bool."""
        return self.mask


class Scaled(nn.Module):
    r"""The weight that the layer sees, :math:`z_u w` for each unit u; the gradient of what is seen goes to w as it is.

    Args:
        spread: gives the value of its unit to each element.
        values: z of each unit, with noise, for training.
        means: z of each unit without, for evaluation.
    """

    values: Tensor
    means: Tensor
    remedy: ClassVar[str] = "finish() of the sparsifier that gates it"

    def __init__(self, spread: Callable[[Tensor], Tensor], values: Tensor, means: Tensor) -> None:
        super().__init__()
        self.spread = spread
        self.register_buffer("values", values)
        self.register_buffer("means", means)

    def forward(self, weight: Tensor) -> Tensor:
        """The scaled weight."""
        factors = self.factors(self.values if self.training else self.means, weight)
        seen: Tensor = _Through.apply(weight, factors)  # type: ignore[no-untyped-call]
        return seen

    def factors(self, values: Tensor, weight: Tensor) -> Tensor:
        """Values of units at each element of a weight."""
        return self.spread(values.to(weight.dtype))

    def kept(self, weight: Tensor) -> Tensor:
        """Which weights the layer sees, bool."""
        return (weight.detach() * self.factors(self.means, weight)) != 0


class _Only(torch.autograd.Function):
    """The weights of a mask, with a gradient for all."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, mask: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or not fast(weight, mask):
            return torch.where(mask, weight, 0.0)
        from graphsparse.params import kernels

        only = torch.empty_like(weight)
        kernels.masked_copy(flat(weight).view(np.int32), flat(mask).view(np.uint8), flat(only).view(np.int32))
        return only

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Nothing is remembered."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Through(torch.autograd.Function):
    """A product whose gradient goes to the first factor as if the second were 1."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, factors: Tensor) -> Tensor:
        return weight * factors

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Nothing is remembered."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def homes(model: nn.Module, parameter: nn.Parameter) -> list[tuple[nn.Module, str]]:
    """The modules that hold a parameter, and under which name; several if it is tied."""
    return [
        (module, name)
        for module in model.modules()
        for name, own in module.named_parameters(recurse=False, remove_duplicate=False)
        if own is parameter
    ]


Orders = list[tuple[nn.Module, list[str]]]
Link = Masked | Scaled


def install(model: nn.Module, parameters: Mapping[str, nn.Parameter], links: Mapping[str, Link]) -> Orders:
    """Let every module that holds a parameter see it masked; returns what :func:`remove` needs.

    Raises:
        ValueError: for a parameter of a Sequential itself; nothing is changed then.
    """
    orders: Orders = []
    places = [(parameters[key], link, home) for key, link in links.items() for home in homes(model, parameters[key])]
    for parameter, _, (module, name) in places:
        if isinstance(module, nn.Sequential):  # which would call the parametrization as a layer
            known = next(key for key, own in parameters.items() if own is parameter)
            raise ValueError(
                f"{known!r} is a parameter of a Sequential itself, where torch cannot mask it in the forward pass; "
                f"move {name!r} into a module of its own, or leave it out by which="
            )
        if not any(module is known for known, _ in orders):
            before = getattr(getattr(module, "parametrizations", None), "order", None)  # of another one's, around ours
            orders.append((module, before or list(module._parameters)))
    for parameter, link, (module, name) in places:
        # torch sets the parameter anew, by which others (DDP) lose sight of its gradient; so it gets another one first.
        module._parameters[name] = nn.Parameter(parameter.detach(), parameter.requires_grad)
        parametrize.register_parametrization(module, name, link)
        chains: Any = module.parametrizations
        chains[name]._parameters["original"] = parameter
    for module, order in orders:
        module.parametrizations.order = order  # type: ignore[union-attr]
        module._register_state_dict_hook(_drop_computed)  # type: ignore[no-untyped-call]
        if isinstance(module, nn.RNNBase):
            module.register_forward_hook(_let_go)
    return orders


def remove(links: Collection[Link], orders: Orders) -> None:
    """Undo :func:`install`: the modules hold the plain parameters again, under their own names and in their order."""
    for module, order in orders:
        chains: Any = module.parametrizations
        ours = [name for name, chain in chains.items() if any(link in links for link in chain)]
        if len(ours) == len(chains):
            plain: Any = {name: chains[name].original for name in ours}
            del module.parametrizations
            # Not by torch's own function, which takes the weight from the class: copies of the module share that.
            module.__class__ = type(module).__bases__[0]
            for name, parameter in plain.items():
                module.register_parameter(name, parameter)
        else:
            for name in ours:
                parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        for name in order:
            if name in module._parameters:  # another one may mask it still
                module._parameters[name] = module._parameters.pop(name)
        for hooks, own in ((module._state_dict_hooks, _drop_computed), (module._forward_hooks, _let_go)):
            for key in [key for key, hook in hooks.items() if hook is own][:1]:
                del hooks[key]


def _let_go(module: Any, inputs: object, output: object) -> None:
    """Recurrent layers hold the weights of their last call, which, computed as they are, nobody can copy."""
    module._flat_weights = [None if weight is None else weight.detach() for weight in module._flat_weights]


def _drop_computed(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Layers that write their weight to the state by hand (PyG's) write the masked one, too; it cannot be loaded."""
    if parametrize.is_parametrized(module):
        chains: Any = module.parametrizations
        for name in chains:
            state.pop(prefix + name, None)
