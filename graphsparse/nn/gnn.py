"""The five backbones of the ticket literature, made of PyG's own layers.

All are called as ``model(x, edge_index)``; the GCN takes ``edge_weight``, those with attention ``edge_attr``, too. A
dropped edge is simply absent from ``edge_index``, so it sends no message in any of them. No layer caches its graph
(``cached=True`` would run a sparse model on the dense graph); the matrix that the fast path remembers is compared with
``edge_index`` at every call.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GATConv, MessagePassing, TransformerConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from graphsparse.nn.dropout import dropout as drop
from graphsparse.nn.layers import MatrixGCNConv, MatrixGINConv, MatrixSAGEConv
from graphsparse.nn.matrix import Build, MatrixCache, gcn_matrix, gin_matrix, mean_matrix

# Hooks that need the messages one by one, or the edge list itself, as PyG names them.
_EDGE_HOOKS = (
    "_message_forward_pre_hooks",
    "_message_forward_hooks",
    "_aggregate_forward_pre_hooks",
    "_aggregate_forward_hooks",
    "_propagate_forward_pre_hooks",
    "_propagate_forward_hooks",
)


class Backbone(nn.Module):
    """A stack of PyG convolutions with an activation and dropout between them, none on the input.

    Args:
        in_channels: features per node.
        hidden_channels: width of every layer but the last.
        out_channels: outputs per node, e.g. the number of classes.
        num_layers: number of convolutions, at least 1.
        dropout: probability of dropout between layers.
        fast: aggregate by a remembered CSR matrix where that is exact; otherwise (and whenever a layer
            holds an explanation mask or a message hook) along the edge list. Worth it when the same graph
            comes back; turn it off for mini-batches that are all different.

    Raises:
        ValueError: if a width or `num_layers` is below 1, or `dropout` is outside [0, 1].
        IndexError: in the forward pass, if `edge_index` names a node that `x` does not have.
    """

    matrix: ClassVar[Build | None] = None
    activation: ClassVar[Callable[[Tensor], Tensor]] = torch.relu

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        *,
        num_layers: int = 2,
        dropout: float = 0.5,
        fast: bool = True,
    ) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "hidden_channels": hidden_channels, "out_channels": out_channels}
        for name, size in (*sizes.items(), ("num_layers", num_layers)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must lie in [0, 1], got {dropout}")
        self.in_channels, self.hidden_channels, self.out_channels = in_channels, hidden_channels, out_channels
        self.num_layers, self.dropout, self.fast = num_layers, dropout, fast
        build = type(self).matrix
        self._matrices = None if build is None else MatrixCache(build)
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        self.convs = nn.ModuleList(
            self._conv(source, target, last=layer == num_layers - 1)
            for layer, (source, target) in enumerate(pairwise(widths))
        )

    def _conv(self, in_channels: int, out_channels: int, *, last: bool) -> nn.Module:
        raise NotImplementedError

    def _along_edges(self, x: Tensor, edge_index: Tensor, carried: Tensor | None) -> tuple[Tensor, ...]:
        """What each convolution gets besides its input when there is no matrix."""
        return (edge_index,)

    def _by_matrix(self, conv: nn.Module, x: Tensor, matrix: Tensor) -> Tensor:
        """One convolution with the remembered matrix."""
        out: Tensor = conv(x, matrix)
        return out

    def _may_use_matrix(self, edge_index: Tensor) -> bool:
        if not self.fast or type(edge_index) is not Tensor or edge_index.layout != torch.strided:
            return False
        if torch.compiler.is_compiling() or torch._C._get_tracing_state():
            return False
        if torch.is_autocast_enabled(edge_index.device.type):
            return False  # a layer's linear map would change the type between features and matrix
        return not any(
            conv.explain or any(getattr(conv, hooks, None) for hooks in _EDGE_HOOKS)
            for conv in self.convs
            if isinstance(conv, MessagePassing)
        )

    def reset_parameters(self) -> None:
        """Draw new initial weights from torch's global generator."""
        for conv in self.convs:
            conv.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Outputs [N, out_channels] of features [N, in_channels] and arcs [2, E] (source, target).

        `x` may be a torch sparse CSR tensor. `edge_index` may also be what else PyG's layers take.
        """
        return self._outputs(x, edge_index)

    def _outputs(self, x: Tensor, edge_index: Tensor, carried: Tensor | None = None) -> Tensor:
        """The same; `carried` is what the arcs carry, in a backbone that has a use for it."""
        matrix = None
        learned = carried is not None and carried.requires_grad  # its gradient goes along the edges
        if self._matrices is not None and not learned and self._may_use_matrix(edge_index):
            matrix = self._matrices(edge_index, x.size(0), x.dtype, carried)
        graph = self._along_edges(x, edge_index, carried) if matrix is None else ()
        for layer, conv in enumerate(self.convs):
            if layer > 0:
                x = drop(type(self).activation(x), self.dropout, self.training)
            x = conv(x, *graph) if matrix is None else self._by_matrix(conv, x, matrix)
        return x

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}, fast={self.fast}"


class GCN(Backbone):
    """Graph convolutional network: X' = D^-1/2 (A + I) D^-1/2 X W + b (Kipf & Welling, ICLR 2017, eq. 2).

    A holds the weights of the edges where there are, else ones; D is the degree of A + I.
    The graph is normalised here, once for all layers, by PyG's ``gcn_norm``; the layers are
    ``GCNConv(normalize=False)``. Arguments: see `Backbone`.

    Example:
        >>> GCN(3, 8, 2)(torch.ones(4, 3), torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([4, 2])
    """

    matrix = gcn_matrix
    normalize = add_self_loops = True  # as PyG's layers say it of themselves
    # As PyG's layers have it: arcs and weights that stand in for the normalisation of the arcs of a call. Whoever knows
    # the degrees of the whole graph sets it while the model runs on a part of it.
    _cached_edge_index: tuple[Tensor, Tensor] | None = None

    def _conv(self, in_channels: int, out_channels: int, *, last: bool) -> nn.Module:
        conv: nn.Module = MatrixGCNConv(in_channels, out_channels, normalize=False)
        return conv

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """As in `Backbone`, with the weights of the arcs [E] or ones."""
        return self._outputs(x, edge_index, None if edge_weight is None else edge_weight.to(x.dtype))

    def _may_use_matrix(self, edge_index: Tensor) -> bool:
        return self._cached_edge_index is None and super()._may_use_matrix(edge_index)

    def _along_edges(self, x: Tensor, edge_index: Tensor, carried: Tensor | None) -> tuple[Tensor, ...]:
        if self._cached_edge_index is not None:
            return self._cached_edge_index
        arcs, weight = gcn_norm(edge_index, carried, x.size(0), dtype=x.dtype)
        return (arcs,) if weight is None else (arcs, weight)


class GIN(Backbone):
    """Graph isomorphism network: x_v' = MLP((1 + eps) x_v + sum_u x_u) (Xu et al., ICLR 2019, eq. 4.1).

    The MLP of a layer is one linear map, with the ReLU and dropout between layers; eps is fixed at 0.
    Arguments: see `Backbone`.

    Example:
        >>> GIN(3, 8, 2)(torch.ones(4, 3), torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([4, 2])
    """

    matrix = gin_matrix

    def _conv(self, in_channels: int, out_channels: int, *, last: bool) -> nn.Module:
        conv: nn.Module = MatrixGINConv(nn.Linear(in_channels, out_channels))
        return conv

    def _may_use_matrix(self, edge_index: Tensor) -> bool:
        # The matrix holds the node's own term with eps = 0; a loaded state may have another eps.
        return super()._may_use_matrix(edge_index) and not any(bool(conv.eps) for conv in self.convs)

    def _by_matrix(self, conv: nn.Module, x: Tensor, matrix: Tensor) -> Tensor:
        out: Tensor = conv((x, None), matrix)
        return out


class GraphSAGE(Backbone):
    """GraphSAGE: x_v' = W_1 x_v + W_2 mean_u x_u (Hamilton et al., NeurIPS 2017, algorithm 1).

    Arguments: see `Backbone`.

    Example:
        >>> GraphSAGE(3, 8, 2)(torch.ones(4, 3), torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([4, 2])
    """

    matrix = mean_matrix

    def _conv(self, in_channels: int, out_channels: int, *, last: bool) -> nn.Module:
        conv: nn.Module = MatrixSAGEConv(in_channels, out_channels, aggr="mean")
        return conv


class _Attention(Backbone):
    """What the attention backbones share: `heads` side by side in hidden layers, one in the last; features of edges."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        *,
        num_layers: int = 2,
        dropout: float = 0.5,
        heads: int = 8,
        edge_dim: int | None = None,
    ) -> None:
        if edge_dim is not None and edge_dim < 1:
            raise ValueError(f"edge_dim must be at least 1, or None for edges without features, got {edge_dim}")
        if heads < 1 or hidden_channels % heads:
            raise ValueError(
                f"hidden_channels is shared out among the heads, so it must be a multiple of heads; "
                f"got hidden_channels={hidden_channels}, heads={heads}"
            )
        self.heads, self.edge_dim = heads, edge_dim
        super().__init__(in_channels, hidden_channels, out_channels, num_layers=num_layers, dropout=dropout, fast=False)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        """As in `Backbone`, with features of the arcs [E, edge_dim]; without `edge_dim` they have no part.

        Raises:
            ValueError: if there are none where `edge_dim` says that there are.
        """
        if self.edge_dim is not None and edge_attr is None:
            raise ValueError(f"the model was built for {self.edge_dim} features an edge (edge_dim): give edge_attr")
        return self._outputs(x, edge_index, None if self.edge_dim is None else edge_attr)

    def _along_edges(self, x: Tensor, edge_index: Tensor, carried: Tensor | None) -> tuple[Tensor, ...]:
        return (edge_index,) if carried is None else (edge_index, carried)


class GAT(_Attention):
    """Graph attention network (Velickovic et al., ICLR 2018): ELU, dropout also on the attention.

    Hidden layers have `heads` heads of hidden_channels / heads each, side by side; the last layer has one
    head. Other arguments: see `Backbone`.

    Args:
        heads: attention heads of the hidden layers; must divide `hidden_channels`.
        edge_dim: features of an edge that the attention sees; None for none.
        dropout: between layers and on the attention coefficients; 0.6 as in the paper.

    Example:
        >>> GAT(3, 16, 2)(torch.ones(4, 3), torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([4, 2])
    """

    activation = functional.elu

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        *,
        num_layers: int = 2,
        dropout: float = 0.6,
        heads: int = 8,
        edge_dim: int | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            hidden_channels,
            out_channels,
            num_layers=num_layers,
            dropout=dropout,
            heads=heads,
            edge_dim=edge_dim,
        )

    def _conv(self, in_channels: int, out_channels: int, *, last: bool) -> nn.Module:
        heads = 1 if last else self.heads
        conv: nn.Module = GATConv(
            in_channels, out_channels // heads, heads=heads, dropout=self.dropout, edge_dim=self.edge_dim
        )
        return conv


class GraphTransformer(_Attention):
    """Graph Transformer of ``TransformerConv`` layers (Shi et al., IJCAI 2021, eq. 3 and 4).

    Hidden layers have `heads` heads of hidden_channels / heads each, side by side; the last layer has one
    head. Other arguments: see `Backbone`.

    Args:
        heads: attention heads of the hidden layers; must divide `hidden_channels`.
        edge_dim: features of an edge that attention and messages see; None for none.

    Example:
        >>> GraphTransformer(3, 16, 2)(torch.ones(4, 3), torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([4, 2])
    """

    def _conv(self, in_channels: int, out_channels: int, *, last: bool) -> nn.Module:
        heads = 1 if last else self.heads
        conv: nn.Module = TransformerConv(in_channels, out_channels // heads, heads=heads, edge_dim=self.edge_dim)
        return conv
