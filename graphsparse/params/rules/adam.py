"""Adam on a few numbers of a rule's own, which no optimizer of the user's knows."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Moments:
    """The state of Adam for one tensor, as entries of a dict that is saved elsewhere.

    Source: Kingma & Ba, "Adam", ICLR 2015, algorithm 1.

    Example:
        >>> state, value = {}, torch.zeros(2)
        >>> Moments.prepare(state, "x", value)
        >>> Moments.step(state, "x", value, torch.tensor([4.0, -0.5]), lr=0.1, step=1)
        >>> value
        tensor([-0.1000,  0.1000])
    """

    @staticmethod
    def prepare(state: dict[str, Tensor], name: str, value: Tensor) -> None:
        """Make the entries."""
        state[f"{name} first"], state[f"{name} second"] = torch.zeros_like(value), torch.zeros_like(value)

    @staticmethod
    def step(state: dict[str, Tensor], name: str, value: Tensor, gradient: Tensor, lr: float, step: int) -> None:
        """Change ``value`` in place; steps are counted from 1."""
        first, second = state[f"{name} first"], state[f"{name} second"]
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient.square(), 0.001)
        size = (second / (1 - 0.999**step)).sqrt().add_(1e-8)
        value.sub_(lr / (1 - math.pow(0.9, step)) * first / size)
