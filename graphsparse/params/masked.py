"""Weights that are masked in the forward pass only: a parametrization that the model carries while it is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Masked(nn.Module):
    r"""The weight that the layer sees, :math:`w \odot (m + \beta (1 - m))`; its gradient goes to w as it is.

    It knows nothing but its two buffers, which travel with the model's state, so that a copy of the model works.

    Args:
        mask: bool.
        fade: :math:`\beta`, what is left of a weight outside the mask, in [0, 1].

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

    def __init__(self, mask: Tensor, fade: float) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.register_buffer("fade", torch.tensor(fade, device=mask.device))

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight."""
        seen = torch.where(self.mask, weight, weight * self.fade.to(weight.dtype))
        return weight + (seen - weight).detach()


def homes(model: nn.Module, parameter: nn.Parameter) -> list[tuple[nn.Module, str]]:
    """The modules that hold a parameter, and under which name; several if it is tied."""
    return [
        (module, name)
        for module in model.modules()
        for name, own in module.named_parameters(recurse=False, remove_duplicate=False)
        if own is parameter
    ]


Orders = list[tuple[nn.Module, list[str]]]


def install(model: nn.Module, parameters: Mapping[str, nn.Parameter], links: Mapping[str, Masked]) -> Orders:
    """Let every module that holds a parameter see it masked; returns what :func:`remove` needs."""
    orders: Orders = []
    places = [(parameters[key], link, home) for key, link in links.items() for home in homes(model, parameters[key])]
    for _, _, (module, _) in places:
        if not any(module is known for known, _ in orders):
            orders.append((module, list(module._parameters)))
    for parameter, link, (module, name) in places:
        # torch sets the parameter anew, by which others (DDP) lose sight of its gradient; so it gets another one first.
        module._parameters[name] = nn.Parameter(parameter.detach(), parameter.requires_grad)
        parametrize.register_parametrization(module, name, link)
        chains: Any = module.parametrizations
        chains[name]._parameters["original"] = parameter
    for module, _ in orders:
        module._register_state_dict_hook(_drop_computed)  # type: ignore[no-untyped-call]
    return orders


def remove(links: Collection[Masked], orders: Orders) -> None:
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
            module._parameters[name] = module._parameters.pop(name)
        for key in [key for key, hook in module._state_dict_hooks.items() if hook is _drop_computed]:
            del module._state_dict_hooks[key]


def _drop_computed(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Layers that write their weight to the state by hand (PyG's) write the masked one, too; it cannot be loaded."""
    if parametrize.is_parametrized(module):
        chains: Any = module.parametrizations
        for name in chains:
            state.pop(prefix + name, None)
