"""Soft edge masks inside the sparse product of our own backbones: the same numbers, without a message for each edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from graphsparse.nn.gnn import Backbone
from graphsparse.products import product, quietly


@dataclass(frozen=True)
class Pattern:
    """Where the entries of a backbone's matrix lie, in both directions, and which arcs each of them stands for.

    Attributes:
        matrix: the CSR matrix, a row for each target.
        rows: start of each row of the transpose.
        columns: column of each entry of the transpose.
        order: position in the matrix of each entry of the transpose.
        arcs: positions of the arcs that have an entry (no self-loops).
        entry: the entry of each of them.
        share: one divided by the number of arcs of that entry, for parallel copies.
        fixed: one at the entries without such an arc (self-loops), zero elsewhere.
    """

    matrix: Tensor
    rows: Tensor
    columns: Tensor
    order: Tensor
    arcs: Tensor
    entry: Tensor
    share: Tensor
    fixed: Tensor

    @staticmethod
    def of(matrix: Tensor, edge_index: Tensor) -> Pattern:
        """The pattern of a backbone's matrix ``[N, N]`` for the arcs ``[2, E]`` that it was built from."""
        num_nodes = matrix.size(0)
        crow, columns = matrix.crow_indices(), matrix.col_indices()
        targets = torch.repeat_interleave(torch.arange(num_nodes, device=crow.device), crow.diff())
        order = columns.argsort(stable=True)
        counts = torch.bincount(columns, minlength=num_nodes)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        tails, heads = edge_index.long()
        arcs = (tails != heads).nonzero().view(-1)
        entry = torch.searchsorted(targets * num_nodes + columns, heads[arcs] * num_nodes + tails[arcs])
        copies = torch.bincount(entry, minlength=len(columns))
        dtype = matrix.dtype
        share = 1 / copies[entry].to(dtype)
        return Pattern(matrix, starts, targets[order], order, arcs, entry, share, (copies == 0).to(dtype))

    def values(self, mask: Tensor) -> Tensor:
        """The matrix's values under a mask of the arcs ``[E]``, differentiable in it."""
        scale = self.fixed.index_add(0, self.entry, mask[self.arcs] * self.share)
        return self.matrix.values() * scale

    def with_values(self, values: Tensor) -> Tensor:
        """The matrix with other values."""
        return _csr(self.matrix.crow_indices(), self.matrix.col_indices(), values, self.matrix.shape)

    def transposed(self, values: Tensor) -> Tensor:
        """Its transpose with other values, given in the order of the matrix."""
        return _csr(self.rows, self.columns, values[self.order], self.matrix.shape)


class _Product(torch.autograd.Function):
    """matrix(values) @ x, differentiable in both; the gradient of the values is computed at the entries alone."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, x: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(values, x)
        ctx.pattern = pattern
        return product(pattern.with_values(values), x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (values, x), pattern, (grad,) = ctx.saved_tensors, ctx.pattern, grads
        grad = grad.contiguous()
        of_values = of_x = None
        if ctx.needs_input_grad[0]:
            zeros = pattern.with_values(torch.zeros_like(values))
            of_values = torch.sparse.sampled_addmm(zeros, grad, x.t()).values()
        if ctx.needs_input_grad[1]:
            of_x = product(pattern.transposed(values), grad)
        return of_values, of_x, None


@dataclass(frozen=True)
class _Masked:
    """A matrix whose values carry a gradient, as `graphsparse.products.multiply` takes it."""

    pattern: Pattern
    values: Tensor

    def times(self, x: Tensor) -> Tensor:
        """Its product with x."""
        if x.layout != torch.strided:
            raise TypeError("a masked product takes dense features")
        out: Tensor = _Product.apply(self.values, x, self.pattern)  # type: ignore[no-untyped-call]
        return out


class MaskedProducts:
    """Puts the current edge mask into every sparse product of a backbone, by PyG's own hook.

    Args:
        model: a backbone with a matrix; it is changed: each of its layers gets a hook.
    """

    def __init__(self, model: Backbone) -> None:
        self.calls = 0
        self._masked: _Masked | None = None
        self._patterns: dict[int, Pattern] = {}
        self._now: tuple[int, Tensor, Tensor] | None = None
        layers = [module for module in model.modules() if isinstance(module, MessagePassing)]
        self._handles = [layer.register_message_and_aggregate_forward_pre_hook(self._mask) for layer in layers]

    @staticmethod
    def serve(model: nn.Module) -> bool:
        """Whether a model aggregates by a matrix: the backbones do, others follow their edge list."""
        return isinstance(model, Backbone) and type(model).matrix is not None and model.fast

    def use(self, number: int, edge_index: Tensor, mask: Tensor) -> None:
        """The graph of the coming forward pass, by its number, and the mask of its arcs ``[E]``."""
        self._now, self._masked, self.calls = (number, edge_index, mask), None, 0

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    def _mask(self, layer: nn.Module, inputs: tuple[Any, dict[str, Any]]) -> tuple[_Masked, dict[str, Any]]:
        matrix, named = inputs
        if self._now is None:
            raise RuntimeError("a masked product needs a graph: call use() first")
        self.calls += 1
        if self._masked is None:  # every layer multiplies the same matrix
            number, edge_index, mask = self._now
            if number not in self._patterns:
                self._patterns[number] = Pattern.of(matrix, edge_index)
            self._masked = _Masked(self._patterns[number], self._patterns[number].values(mask))
        return self._masked, named


def _csr(rows: Tensor, columns: Tensor, values: Tensor, shape: Any) -> Tensor:
    with quietly():
        return torch.sparse_csr_tensor(rows, columns, values, shape, check_invariants=False)
