"""What is asked of training in batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graphsparse import ranks
from graphsparse.keep_rule import whole_number


@dataclass(frozen=True)
class Batches:
    """How a task is trained in mini-batches.

    Args:
        size: nodes (links, graphs) of a step, at least 1; of the nodes that are learned from, labelled ones and others
            have their shares in every step.
        neighbors: in-neighbours that are drawn at each hop, one number for each layer of the model, the seed nodes' own
            first; -1 takes all. Graphs are taken whole.
        replace: draw neighbours with replacement.
        workers: processes that draw; the result is the same for any number.
        steps: steps of an epoch at most; None: an epoch takes every node (link, graph) once.

    Raises:
        ValueError: a number is none, or out of range.
        TypeError: `neighbors` is no list, or `replace` neither True nor False.

    Example:
        >>> Batches(1024, (15, 10)).neighbors
        (15, 10)
    """

    size: int
    neighbors: tuple[int, ...] | None = None
    replace: bool = False
    workers: int = 0
    steps: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", whole_number(self.size, "batch_size", least=1))
        object.__setattr__(self, "neighbors", _neighbors(self.neighbors))
        object.__setattr__(self, "workers", whole_number(self.workers, "workers", least=0))
        if self.steps is not None:
            object.__setattr__(self, "steps", whole_number(self.steps, "steps", least=1))
        if not isinstance(self.replace, bool):
            raise TypeError(f"replace must be True or False, got {self.replace!r:.50}")

    @property
    def hops(self) -> tuple[int, ...]:
        """The neighbours of each hop.

        Raises:
            ValueError: if nothing was said of them.
        """
        if self.neighbors is None:
            raise ValueError("say how many neighbours a batch draws at each layer: neighbors=(15, 10)")
        return self.neighbors

    def are_all(self, number: int) -> bool:
        """Whether a step takes so many nodes (links), all there are, with all neighbours: then it is the whole graph.

        Several processes share a step out, so that none of them takes all.
        """
        takes_all = self.neighbors is not None and max(self.neighbors) < 0
        return takes_all and self.size >= number and ranks.count() == 1

    def fingerprint(self) -> str:
        """What the result depends on."""
        return f"{self.size} {self.neighbors} replace={self.replace} steps={self.steps}"

    def config(self) -> dict[str, Any]:
        """The same as plain values, from which `of_config` makes it again."""
        neighbors = None if self.neighbors is None else list(self.neighbors)
        return {"batch_size": self.size, "neighbors": neighbors, "replace": self.replace, "steps": self.steps}

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Batches | None:
        """What a config says; None if it names no batch size.

        Example:
            >>> Batches.of_config(Batches(8, (5,)).config())
            Batches(size=8, neighbors=(5,), replace=False, workers=0, steps=None)
        """
        if config.get("batch_size") is None:
            return None
        rest = {name: config[name] for name in ("replace", "steps") if name in config}
        return cls(config["batch_size"], config.get("neighbors"), **rest)


def _neighbors(given: Any) -> tuple[int, ...] | None:
    if given is None:
        return None
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(
            f"neighbors must list a number for each layer of the model, such as (15, 10), got {given!r:.50}"
        )
    found = tuple(whole_number(each, "each of neighbors") for each in given)
    if not found:
        raise ValueError("neighbors must name at least one hop, such as (15, 10)")
    for number in found:
        if number < 1 and number != -1:
            raise ValueError(f"each of neighbors must be at least 1, or -1 for all neighbours, got {number}")
    return found
