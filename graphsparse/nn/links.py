"""What link prediction adds to a backbone: embeddings of nodes that have no features, and a decoder of pairs."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from graphsparse.nn.dropout import dropout as drop


class NodeEmbedding(nn.Module):
    """A backbone on features that are learned, one row for each node; called as ``model(x, edge_index)``.

    With ``x=None`` the backbone gets the learned rows alone; with features it gets both side by side, [x | learned].
    The rows are weights like others: they are counted, and pruned, with them.

    Args:
        encoder: called as ``encoder(x, edge_index)``, for `channels` inputs, or F + `channels`.
        num_nodes: rows N.
        channels: learned numbers per node.

    Raises:
        ValueError: if a size is below 1; in the forward pass, if `x` has another number of rows.

    Example:
        >>> from graphsparse.nn import GraphSAGE
        >>> net = NodeEmbedding(GraphSAGE(8, 16, 16), num_nodes=4, channels=8)
        >>> net(None, torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([4, 16])
    """

    def __init__(self, encoder: nn.Module, num_nodes: int, channels: int) -> None:
        super().__init__()
        if num_nodes < 1 or channels < 1:
            raise ValueError(f"num_nodes and channels must be at least 1, got {num_nodes} and {channels}")
        self.encoder = encoder
        self.weight = nn.Parameter(torch.empty(num_nodes, channels))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor | None, edge_index: Tensor, **edge_data: Tensor) -> Tensor:
        """Outputs of the encoder, [N, ...], which gets what edges carry by the names of its own forward."""
        features: Tensor = self.weight
        if x is not None:
            if x.size(0) != len(self.weight):
                raise ValueError(f"there are {len(self.weight)} learned rows, but x has {x.size(0)}")
            features = torch.cat([x, features], dim=1)
        out: Tensor = self.encoder(features, edge_index, **edge_data)
        return out


class LinkNet(nn.Module):
    """An encoder of nodes and a decoder of pairs: logit(u, v) = MLP(z_u * z_v), as in OGB's examples.

    Args:
        encoder: called as ``encoder(x, edge_index)``, returns embeddings [N, channels].
        channels: width of the embeddings and of the hidden layers.
        num_layers: linear layers of the decoder, at least 1.
        dropout: between them.

    Raises:
        ValueError: if a size is below 1, or `dropout` is outside [0, 1].

    Source: Hu et al., "Open Graph Benchmark", NeurIPS 2020, appendix on link prediction.

    Example:
        >>> from graphsparse.nn import GCN
        >>> net = LinkNet(GCN(3, 8, 8), channels=8)
        >>> z = net(torch.ones(4, 3), torch.tensor([[0, 1], [1, 0]]))
        >>> net.decode(z, torch.tensor([[0, 1, 2], [3, 2, 0]])).shape
        torch.Size([3])
    """

    def __init__(self, encoder: nn.Module, channels: int, *, num_layers: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        if channels < 1 or num_layers < 1:
            raise ValueError(f"channels and num_layers must be at least 1, got {channels} and {num_layers}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must lie in [0, 1], got {dropout}")
        self.encoder, self.dropout = encoder, dropout
        widths = pairwise([channels] * num_layers + [1])
        self.layers = nn.ModuleList(nn.Linear(source, target) for source, target in widths)

    def forward(self, x: Tensor | None, edge_index: Tensor, **edge_data: Tensor) -> Tensor:
        """Embeddings of all nodes [N, channels]; the encoder gets what edges carry by the names of its own forward."""
        z: Tensor = self.encoder(x, edge_index, **edge_data)
        return z

    def decode(self, z: Tensor, pairs: Tensor) -> Tensor:
        """Logits [M] of pairs [2, M] from embeddings [N, channels]."""
        h = z.index_select(0, pairs[0]) * z.index_select(0, pairs[1])
        for layer in self.layers[:-1]:
            h = drop(torch.relu(layer(h)), self.dropout, self.training)
        logits: Tensor = self.layers[-1](h)
        return logits.view(-1)
