"""Backbones by name."""

from __future__ import annotations

from typing import Any

import torch

from graphsparse.nn.gnn import GAT, GCN, GIN, Backbone, GraphSAGE, GraphTransformer

BACKBONES: dict[str, type[Backbone]] = {
    "gcn": GCN,
    "gin": GIN,
    "gat": GAT,
    "sage": GraphSAGE,
    "transformer": GraphTransformer,
}


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
        name: one of `BACKBONES`; upper or lower case.
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
    backbone = BACKBONES.get(name.lower())
    if backbone is None:
        raise ValueError(f"there is no backbone named {name!r}; there are {', '.join(BACKBONES)}")
    options: dict[str, Any] = {} if dropout is None else {"dropout": dropout}
    if seed is None:
        return backbone(in_channels, hidden_channels, out_channels, num_layers=num_layers, **options)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return backbone(in_channels, hidden_channels, out_channels, num_layers=num_layers, **options)
