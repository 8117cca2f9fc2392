"""How a ticket's weights are made sparse in training: by TEDDY's projection, or by any method of sparse training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphsparse.params import METHODS, Recipe
from graphsparse.registry import Registry

Weights = str | Recipe | Mapping[str, Any]

L0 = "l0"  # TEDDY's way: projected onto the l0 ball after every step


def read_weights(weights: Any) -> Weights:
    """A method's name as it is registered, ``"l0"`` among them; ``"module:attribute"`` and recipes as they are.

    Raises:
        ValueError: there is no such method; the closest is named.
        TypeError: neither a name nor a recipe.

    Example:
        >>> read_weights("RigL"), read_weights("L0")
        ('rigl', 'l0')
    """
    if isinstance(weights, (Recipe, Mapping)):
        return weights
    if not isinstance(weights, str):
        raise TypeError(f"weights must be the name of a method or a recipe, got {type(weights).__name__}")
    known: Registry[str] = Registry("method for the weights")
    for each in (L0, *METHODS):
        known.register(each, each)
    return known.key(weights)


def plain_weights(weights: Weights) -> str | dict[str, str]:
    """What a ticket records of them, as plain values: a name, or the choices of a recipe of one's own.

    Example:
        >>> from graphsparse.params import Hold
        >>> plain_weights({"score": "random", "rule": Hold()})
        {'score': "'random'", 'rule': 'Hold()'}
    """
    if isinstance(weights, Recipe):
        return {"about": weights.about}
    return weights if isinstance(weights, str) else {axis: repr(value) for axis, value in weights.items()}


def axes_of(weights: Weights, steps: int) -> dict[str, Any]:
    """What a method chooses on the axes of sparse training.

    Raises:
        ValueError: for a method that keeps N of every M weights, or chooses what is no axis.
    """
    if isinstance(weights, Mapping):
        own = dict(weights)
        return Recipe("", lambda *_: own).axes("weights", steps, None)
    recipe = METHODS.find(weights) if isinstance(weights, str) else weights
    check_share(weights)
    return recipe.axes(said(weights), steps, None)


def check_share(weights: Weights) -> None:
    """Raise a ValueError for a method that keeps N of every M weights, or whole blocks."""
    recipe = METHODS.find(weights) if isinstance(weights, str) and weights != L0 else weights
    if isinstance(recipe, Recipe) and (recipe.n_of_m or recipe.modules):
        does = "takes whole blocks out" if recipe.modules else "keeps N of every M weights"
        raise ValueError(
            f"weights={said(weights)} {does}, and a ticket keeps the share weight_keep of single weights: take a "
            "method of gs.params.methods() that does"
        )


def said(weights: Weights) -> str:
    """What an error calls them."""
    return repr(weights) if isinstance(weights, str) else "the recipe"
