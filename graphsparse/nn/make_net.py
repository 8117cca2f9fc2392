"""Networks by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from graphsparse.nn.gnn import GAT, GCN, GIN, Backbone, GraphSAGE, GraphTransformer
from graphsparse.nn.graphs import MoleculeNet
from graphsparse.nn.links import LinkNet, NodeEmbedding
from graphsparse.registry import Registry


def _callable(name: str, entry: Any) -> Any:
    if not callable(entry):
        raise TypeError(f"{name!r} is no backbone: a {type(entry).__name__} cannot be called with sizes")
    return entry


# Open to users: a class or function that is called as a backbone is, with its three widths and num_layers.
BACKBONES: Registry[Any] = Registry("backbone", check=_callable)
BACKBONES.register("gcn", GCN)
BACKBONES.register("gin", GIN)
BACKBONES.register("gat", GAT)
BACKBONES.register("sage", GraphSAGE)
BACKBONES.register("transformer", GraphTransformer)


def make(
    name: str,
    in_channels: int,
    out_channels: int,
    hidden_channels: int = 512,
    *,
    num_layers: int = 2,
    dropout: float | None = None,
    seed: int | None = None,
) -> Backbone:
    """A backbone by its name, with the shapes of the TEDDY paper (hidden 512, 2 layers).

    Args:
        name: one of `BACKBONES`, upper or lower case; or ``"module:attribute"``, called in the same way:
            ``net(in_channels, hidden_channels, out_channels, num_layers=...)``.
        in_channels: features per node.
        out_channels: outputs per node.
        hidden_channels: width of the hidden layers.
        num_layers: number of convolutions.
        dropout: None takes the backbone's own (0.5; GAT 0.6).
        seed: of the initial weights; the global generator is left as it was. None draws from the latter.

    Raises:
        ValueError: if no backbone has that name, or a size is out of range.

    Example:
        >>> a, b = make("gcn", 3, 2, 8, seed=1), make("gcn", 3, 2, 8, seed=1)
        >>> all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
        True
    """
    backbone = BACKBONES.find(name)
    options: dict[str, Any] = {} if dropout is None else {"dropout": dropout}
    with seeded(seed):
        net: Backbone = backbone(in_channels, hidden_channels, out_channels, num_layers=num_layers, **options)
        return net


def make_link_net(
    name: str, num_nodes: int, in_channels: int, hidden_channels: int = 256, *, seed: int | None = None
) -> LinkNet:
    """A network for link prediction as in OGB's examples: learned rows for nodes without features, two layers, an MLP.

    Args:
        name: one of `BACKBONES`.
        num_nodes: number of nodes.
        in_channels: features per node; 0 where there are none.
        hidden_channels: width of the embeddings and of the decoder.
        seed: as in `make`.

    Example:
        >>> make_link_net("sage", num_nodes=5, in_channels=0, hidden_channels=8, seed=0)(
        ...     None, torch.tensor([[0], [1]])).shape
        torch.Size([5, 8])
    """
    with seeded(seed):
        encoder: torch.nn.Module = make(name, in_channels or hidden_channels, hidden_channels, hidden_channels)
        if not in_channels:
            encoder = NodeEmbedding(encoder, num_nodes, hidden_channels)
        return LinkNet(encoder, hidden_channels)


def make_molecule_net(
    name: str, out_channels: int, hidden_channels: int = 64, *, num_layers: int = 3, seed: int | None = None
) -> MoleculeNet:
    """A network for molecules; its initial weights are seeded as in `make`.

    Example:
        >>> a, b = make_molecule_net("gin", 1, 8, seed=1), make_molecule_net("gin", 1, 8, seed=1)
        >>> all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
        True
    """
    with seeded(seed):
        return MoleculeNet(hidden_channels, out_channels, conv=name.lower(), num_layers=num_layers)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from torch's global generator, seeded for the length of the block; None leaves it to go on."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
