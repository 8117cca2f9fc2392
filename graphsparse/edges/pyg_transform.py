"""Sparsify as a PyG transform."""

from __future__ import annotations

from typing import Any

from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from graphsparse.edges.score_table import SCORES, Method, check_words
from graphsparse.edges.transform import sparsify
from graphsparse.keep_rule import Keep, check_seed, keep_fraction


@functional_transform("sparsify_edges")
class SparsifyEdges(BaseTransform):  # type: ignore[misc]
    """Sparsify each graph that passes through, a ``Data``, ``HeteroData`` or any other: `sparsify` as a PyG transform.

    Args:
        method: as in `sparsify`.
        keep: as in `sparsify`.
        **rules: any other argument of `sparsify`, and options of the score.

    Raises:
        ValueError: for an unknown method or ``keep`` outside (0, 1], before the first graph.

    Example:
        >>> SparsifyEdges("teddy", keep=0.7)
        SparsifyEdges(teddy, keep=0.7)
    """

    def __init__(self, method: Method = "teddy", *, keep: Keep | None = None, **rules: Any) -> None:
        check_words(rules)
        if isinstance(method, str):
            SCORES.find(method)
        if keep is not None:
            keep_fraction(keep)
        check_seed(rules.get("seed", 0))
        self.method, self.keep, self.rules = method, keep, rules

    def forward(self, data: Any) -> Any:
        """Return ``data`` with fewer edges."""
        return sparsify(data, self.method, keep=self.keep, **self.rules)

    def __repr__(self) -> str:
        """The call that makes it."""
        name = self.method if isinstance(self.method, str) else getattr(self.method, "__name__", "scores")
        rules = {"keep": self.keep} | self.rules
        given = [f"{key}={value!r}" for key, value in rules.items() if value is not None]
        return f"{type(self).__name__}({', '.join([name, *given])})"
