"""PyG's layers, whose fused product takes a prepared `matrix` and never transposes it twice.

The backward pass of ``torch.sparse.mm`` sorts the matrix into its transpose at every call, which takes
longer than the product itself. Only ``message_and_aggregate`` is overridden, PyG's own place for fused
products; along an edge list, or with a sparse tensor of the caller's, the layers are PyG's unchanged.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch_geometric.nn import GCNConv, GINConv, MessagePassing, SAGEConv

from graphsparse.products import multiply


class _ByMatrix:
    def _set_jittable_templates(self, raise_on_error: bool = False) -> None:
        super()._set_jittable_templates(raise_on_error)  # type: ignore[misc]
        # PyG takes for a subclass's plain `propagate` whatever its parent has, and that is the parent's compiled
        # one, deaf to `set_masks`, as soon as the parent was used somewhere.
        type(self)._orig_propagate = MessagePassing.propagate  # type: ignore[attr-defined]

    def message_and_aggregate(self, adj_t: Any, x: Any) -> Tensor:
        if not (hasattr(adj_t, "transposed") or hasattr(adj_t, "times")):
            out: Tensor = super().message_and_aggregate(adj_t, x)  # type: ignore[misc]
            return out
        return multiply(adj_t, x[0] if isinstance(x, tuple) else x)


class MatrixGCNConv(_ByMatrix, GCNConv):  # type: ignore[misc]
    """``GCNConv`` that also takes a matrix of `remember_transpose`."""


class MatrixGINConv(_ByMatrix, GINConv):  # type: ignore[misc]
    """``GINConv`` that also takes a matrix of `remember_transpose`."""


class MatrixSAGEConv(_ByMatrix, SAGEConv):  # type: ignore[misc]
    """``SAGEConv`` that also takes a matrix of `remember_transpose`, whose rows already average."""
