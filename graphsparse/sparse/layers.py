"""The weights by which layers take what the ones before them give."""

from __future__ import annotations

from torch import nn

from graphsparse.params import prunable


def layer_weights(net: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable weights of layers, outputs first, by name and in order; those of one output or input among them.

    Vectors of attention and tables of embeddings are none.

    Example:
        >>> list(layer_weights(nn.Sequential(nn.Embedding(5, 1), nn.Linear(1, 3), nn.LayerNorm(3), nn.Linear(3, 1))))
        ['1.weight', '3.weight']
    """
    tables = {id(m.weight) for m in net.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))}
    return {
        name: parameter
        for name, parameter in prunable(net).items()
        if id(parameter) not in tables
        and parameter.dim() > 1
        and (parameter.dim() == 2 or len(parameter) > 1 or name.endswith("weight"))
    }
