"""Which nodes train, validate and test: a published split, or a seeded one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from graphsparse.registry import spelling


@dataclass(frozen=True)
class PerClass:
    """So many training nodes per class, then so many validation and test nodes from all the others.

    Attributes:
        train: nodes per class.
        val: nodes in all.
        test: nodes in all; None takes every node that is left.
    """

    train: int
    val: int
    test: int | None

    def __str__(self) -> str:
        return f"random {self.train} per class/{self.val}/{'rest' if self.test is None else self.test}"

    def draw(self, y: torch.Tensor, seed: int) -> torch.Tensor:
        """Return bool ``[3, N]``."""
        order = _shuffled(len(y), seed)
        labels = _strata(y)[order]
        masks = torch.zeros(3, len(y), dtype=torch.bool)
        chosen = np.zeros(len(y), dtype=bool)
        for label in np.unique(labels):
            chosen[np.flatnonzero(labels == label)[: self.train]] = True
        rest = order[~chosen]
        stop = None if self.test is None else self.val + self.test
        for part, nodes in enumerate((order[chosen], rest[: self.val], rest[self.val : stop])):
            masks[part, torch.from_numpy(nodes)] = True
        return masks


@dataclass(frozen=True)
class Stratified:
    """The same share of every class for training and validation; the rest is the test part.

    Attributes:
        train: fraction of each class.
        val: fraction of each class.
    """

    train: float = 0.6
    val: float = 0.2

    def __str__(self) -> str:
        shares = (self.train, self.val, 1 - self.train - self.val)
        return "random " + "/".join(f"{share:.0%}".rstrip("%") for share in shares)

    def draw(self, y: torch.Tensor, seed: int) -> torch.Tensor:
        """Return bool ``[3, N]``."""
        order = _shuffled(len(y), seed)
        labels = _strata(y)[order]
        masks = torch.zeros(3, len(y), dtype=torch.bool)
        for label in np.unique(labels):
            nodes = torch.from_numpy(order[labels == label])
            cuts = [round(self.train * len(nodes)), round((self.train + self.val) * len(nodes))]
            for part, members in enumerate(torch.tensor_split(nodes, cuts)):
                masks[part, members] = True
        return masks


def choose(
    name: str,
    split: int | str | None,
    *,
    public: torch.Tensor | None,
    random: PerClass | Stratified,
    y: torch.Tensor,
    seed: int,
) -> tuple[torch.Tensor, str]:
    """Return the masks bool ``[3, N]`` of the split that was asked for, and its name in a few words.

    Args:
        name: the data set, for the error.
        split: None (the first published split, else a random one), the number of a published split, ``"public"``
            (the only published one) or ``"random"``.
        public: the published splits, bool ``[3, S, N]``, or None.
        random: how random splits of this data set are drawn.
        y: int64 ``[N]``.
        seed: of a random split.

    Raises:
        ValueError: there is no such split; the sentence says which there are.
    """
    count = 0 if public is None else public.shape[1]
    if isinstance(split, str) and split.isdecimal():
        split = int(split)
    elif isinstance(split, str):
        split = spelling(split, ("public", "random")) or split
    if split is None:
        split = "random" if count == 0 else "public" if count == 1 else 0
    if split == "random":
        return random.draw(y, seed), f"{random}, seed {seed}"
    if public is not None and count == 1 and split == "public":
        return public[:, 0], "public"
    if public is not None and count > 1 and type(split) is int and 0 <= split < count:
        return public[:, split], f"{split} of {count}"
    possible = (
        ["'random'"] if count == 0 else ["'public'", "'random'"] if count == 1 else [f"0-{count - 1}", "'random'"]
    )
    raise ValueError(f"{name} has no split {split!r}; possible: {', '.join(possible)}, or None for the default.")


def _strata(y: torch.Tensor) -> np.ndarray[Any, Any]:
    """The class of each node; all nodes are of one where each has several labels."""
    return y.numpy() if y.dim() == 1 else np.zeros(len(y), dtype=np.int64)


def _shuffled(count: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return a seeded order of ``0 ... count - 1``.

    It sorts the raw words of a bit generator: NumPy promises those for ever, and ``Generator.permutation`` not.
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}.")
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")
