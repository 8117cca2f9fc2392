"""What training alone reads is cut along with what evaluation reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.metanet.graph.stays import staying
from graphsparse.metanet.graph.structure import COUPLING, Structure, build, components
from graphsparse.metanet.graph.trace import trace


def cut_along(
    module: nn.Module, inputs: tuple[Any, ...], known: Set[str], axes: Mapping[str, Sequence[Tensor]]
) -> dict[str, Tensor]:
    """Which elements stay of the tensors that only a pass in training mode reads.

    A channel of that pass is gone if every kernel that makes it is.

    Args:
        module: with its full widths.
        inputs: on which it trains.
        known: the tensors that evaluation reads.
        axes: what stays of those of them that lose something, see `axes_of`.

    Raises:
        TraceError: training cannot be followed.
    """
    structure = build(trace(module, inputs, training=True))
    shapes = {name: tensor.shape for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    found = staying(structure, shapes, _kept(structure, shapes, known, axes))
    return {name: stays for name, stays in found.items() if name not in known}


def _kept(
    structure: Structure, shapes: Mapping[str, torch.Size], known: Set[str], axes: Mapping[str, Sequence[Tensor]]
) -> Tensor:
    made, left = (torch.zeros(structure.num_nodes, dtype=torch.bool) for _ in range(2))
    for kernel, edges in structure.edges.items():
        width = torch.Size(kernel).numel()
        for name in set(edges.names) & known:
            box = torch.ones(shapes[name], dtype=torch.bool)
            for axis, kept in enumerate(axes.get(name, ())):
                box &= kept.view([-1 if axis == other else 1 for other in range(len(shapes[name]))])
            for piece in structure.pieces[name]:
                if piece.group == kernel:
                    whole = torch.arange(box.numel())
                    row = (piece.start + whole if piece.position is None else piece.position) // width
                    alive = box.flatten()[whole if piece.element is None else piece.element]
                    made[edges.dst[row]] = True
                    left[edges.dst[row[alive]]] = True
    pairs = [found for kind, found in structure.relations.items() if kind in COUPLING]
    set_of = components(torch.cat([*pairs, structure.ties], dim=1), structure.num_nodes)
    gone = torch.zeros(int(set_of.max()) + 1, dtype=torch.bool)
    gone[set_of[made & ~left]] = True
    gone[set_of[torch.cat([*structure.inputs, *structure.outputs])]] = False
    return ~gone[set_of]
