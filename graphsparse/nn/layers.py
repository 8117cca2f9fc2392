"""PyG's layers, whose fused product takes a prepared `matrix` and never transposes it twice.

The backward pass of ``torch.sparse.mm`` sorts the matrix into its transpose at every call, which takes
longer than the product itself. Only ``message_and_aggregate`` is overridden, PyG's own place for fused
products; along an edge list, or with a sparse tensor of the caller's, the layers are PyG's unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch_geometric.nn import GCNConv, GINConv, MessagePassing, SAGEConv


def remember_transpose(matrix: Tensor) -> Tensor:
    """The CSR matrix itself, now carrying its transpose (itself, where it is symmetric)."""
    transposed = matrix.t().to_sparse_csr()
    pairs = (
        (matrix.crow_indices(), transposed.crow_indices()),
        (matrix.col_indices(), transposed.col_indices()),
        (matrix.values(), transposed.values()),
    )
    symmetric = all(torch.equal(one, other) for one, other in pairs)
    matrix.transposed = matrix if symmetric else transposed  # type: ignore[attr-defined]
    return matrix


class _Product(torch.autograd.Function):
    """matrix @ x, differentiable in x."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, x: Tensor) -> Tensor:
        ctx.transposed = matrix.transposed  # type: ignore[attr-defined]
        return _multiply(matrix, x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return None, _multiply(ctx.transposed, grads[0])


def _multiply(matrix: Tensor, x: Tensor) -> Tensor:
    if x.layout == torch.sparse_csr and x.device.type == "cpu":
        return _multiply_sparse(matrix, x)
    product: Tensor = torch.sparse.mm(matrix, x)
    return product


def _multiply_sparse(matrix: Tensor, x: Tensor) -> Tensor:
    """A sparse product by scipy: torch's own leaks its result on the CPU (a megabyte a call on Cora)."""
    one, other = (
        csr_array((m.values().numpy(), m.col_indices().numpy(), m.crow_indices().numpy()), shape=(m.size(0), m.size(1)))
        for m in (matrix, x)
    )
    product = one @ other
    rows, columns, values = map(torch.from_numpy, (product.indptr, product.indices, product.data))
    return torch.sparse_csr_tensor(rows, columns, values, product.shape, check_invariants=False)


class _ByMatrix:
    def _set_jittable_templates(self, raise_on_error: bool = False) -> None:
        super()._set_jittable_templates(raise_on_error)  # type: ignore[misc]
        # PyG takes for a subclass's plain `propagate` whatever its parent has, and that is the parent's compiled
        # one, deaf to `set_masks`, as soon as the parent was used somewhere.
        type(self)._orig_propagate = MessagePassing.propagate  # type: ignore[attr-defined]

    def message_and_aggregate(self, adj_t: Any, x: Any) -> Tensor:
        if not hasattr(adj_t, "transposed"):
            out: Tensor = super().message_and_aggregate(adj_t, x)  # type: ignore[misc]
            return out
        sources = x[0] if isinstance(x, tuple) else x
        if not sources.requires_grad:
            return _multiply(adj_t, sources)
        product: Tensor = _Product.apply(adj_t, sources)  # type: ignore[no-untyped-call]
        return product


class MatrixGCNConv(_ByMatrix, GCNConv):  # type: ignore[misc]
    """``GCNConv`` that also takes a matrix of `remember_transpose`."""


class MatrixGINConv(_ByMatrix, GINConv):  # type: ignore[misc]
    """``GINConv`` that also takes a matrix of `remember_transpose`."""


class MatrixSAGEConv(_ByMatrix, SAGEConv):  # type: ignore[misc]
    """``SAGEConv`` that also takes a matrix of `remember_transpose`, whose rows already average."""
