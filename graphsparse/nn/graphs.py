"""Networks for many small graphs: molecules in, one row of outputs for each out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GINEConv, MessagePassing, global_mean_pool
from torch_geometric.utils import degree

from graphsparse.nn.dropout import dropout as drop
from graphsparse.ogb_import import import_ogb
from graphsparse.registry import one_of


class BondGCNConv(MessagePassing):  # type: ignore[misc]
    r"""Graph convolution whose messages see the bond.

    .. math:: h = W x, \quad x_v' = h_v / d_v + \sum_{u \to v} relu(h_u + e_{uv}) / \sqrt{d_u d_v}

    :math:`d_v` is one more than the arcs that arrive at v.

    Args:
        channels: of nodes and of encoded bonds.

    Source: the normalization is Kipf & Welling, ICLR 2017, eq. 2; bonds are added as in OGB's examples.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(aggr="add")
        self.lin = nn.Linear(channels, channels)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """New node features [N, channels] of node features and encoded bonds [E, channels]."""
        h: Tensor = self.lin(x)
        d: Tensor = degree(edge_index[1], x.size(0), x.dtype) + 1
        norm = (d[edge_index[0]] * d[edge_index[1]]).rsqrt()
        arrived: Tensor = self.propagate(edge_index, x=h, edge_attr=edge_attr, norm=norm)
        return arrived + h / d[:, None]

    def message(self, x_j: Tensor, edge_attr: Tensor, norm: Tensor) -> Tensor:
        """One message per arc."""
        sent: Tensor = norm[:, None] * torch.relu(x_j + edge_attr)
        return sent


def _gin(channels: int) -> Any:
    inner = (
        nn.Linear(channels, 2 * channels),
        nn.BatchNorm1d(2 * channels),
        nn.ReLU(),
        nn.Linear(2 * channels, channels),
    )
    return GINEConv(nn.Sequential(*inner))


MOLECULE_CONVS = {"gin": _gin, "gcn": BondGCNConv}


class MoleculeNet(nn.Module):
    """GIN or GCN for molecules in OGB's features: encoders, layers with batch norm, mean pooling, one linear map.

    A dropped bond is absent: it sends no message and its features are not read.

    Args:
        hidden_channels: width of every layer.
        out_channels: outputs per molecule, the number of targets.
        conv: ``"gin"`` (GINE: Hu et al., ICLR 2020, over Xu et al., ICLR 2019) or ``"gcn"`` (`BondGCNConv`).
        num_layers: number of convolutions, at least 1.
        dropout: after every layer.

    Raises:
        ValueError: for an unknown `conv`, a size below 1 or `dropout` outside [0, 1].
        IndexError: in the forward pass, for an atom or bond feature that OGB's tables do not have.

    Example:
        >>> net = MoleculeNet(8, 1)
        >>> atoms, bonds = torch.zeros(3, 9, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long)
        >>> net(atoms, torch.tensor([[0, 1], [1, 0]]), bonds, torch.tensor([0, 0, 1])).shape
        torch.Size([2, 1])
    """

    def __init__(
        self, hidden_channels: int, out_channels: int, *, conv: str = "gin", num_layers: int = 3, dropout: float = 0.5
    ) -> None:
        super().__init__()
        conv = one_of(conv, "the layer of a net for molecules", list(MOLECULE_CONVS))
        sizes = {"hidden_channels": hidden_channels, "out_channels": out_channels, "num_layers": num_layers}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must lie in [0, 1], got {dropout}")
        encoders = import_ogb("graphproppred.mol_encoder")
        self.dropout = dropout
        self.atoms: nn.Module = encoders.AtomEncoder(hidden_channels)
        self.bonds = nn.ModuleList(encoders.BondEncoder(hidden_channels) for _ in range(num_layers))
        self.convs = nn.ModuleList(MOLECULE_CONVS[conv](hidden_channels) for _ in range(num_layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden_channels) for _ in range(num_layers))
        self.out = nn.Linear(hidden_channels, out_channels)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        """Outputs [G, out_channels] of atoms int64 [N, 9], arcs [2, E], bonds int64 [E, 3] and molecules [N]."""
        h = _encoded(self.atoms, x, "an atom")
        for layer, (bond, conv, norm) in enumerate(zip(self.bonds, self.convs, self.norms, strict=True)):
            h = norm(conv(h, edge_index, _encoded(bond, edge_attr, "a bond")))
            if layer < len(self.convs) - 1:
                h = torch.relu(h)
            h = drop(h, self.dropout, self.training)
        out: Tensor = self.out(global_mean_pool(h, batch))
        return out


def _encoded(encoder: nn.Module, features: Tensor, what: str) -> Tensor:
    try:
        out: Tensor = encoder(features)
    except IndexError as error:
        raise IndexError(f"{what} has a feature that is not in OGB's tables ({error})") from error
    return out
