"""Which elements of a module's tensors stay when nodes of its graph go."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphsparse.metanet.graph.structure import Structure


def staying(structure: Structure, shapes: Mapping[str, torch.Size], keep: Tensor) -> dict[str, Tensor]:
    """For each parameter and buffer that the graph knows, which of its elements stay, bool of its shape.

    A kernel goes with either of its ends. Any other element goes when all nodes that it lies on in one place go: a
    scalar that channels share stays. What lies on no node (the gain of a normed weight, the vectors of a spectral norm)
    goes with what it is computed with.

    Args:
        structure: of the module's graph.
        shapes: of parameters and buffers, by their first names.
        keep: bool ``[num_nodes]``.
    """
    found: dict[str, Tensor] = {}
    for name in {**structure.pieces, **structure.standing}:
        size = shapes[name].numel()
        stays = torch.ones(size, dtype=torch.bool)
        for piece in structure.pieces.get(name, ()):
            if isinstance(piece.group, str):
                stays &= _on_nodes(structure, piece.group, piece.start, piece.position, piece.element, size, keep)
            else:
                edges, width = structure.edges[piece.group], torch.Size(piece.group).numel()
                if piece.position is None:
                    rows = slice(piece.start // width, (piece.start + size) // width)
                    kept = keep[edges.src[rows]] & keep[edges.dst[rows]]
                    stays &= kept.unsqueeze(1).expand(-1, width).reshape(-1)
                else:
                    row = piece.position // width
                    stays[piece.element] &= keep[edges.src[row]] & keep[edges.dst[row]]
        for element, nodes in structure.standing.get(name, ()):
            stays &= _any(element, keep[nodes], size)
        found[name] = stays
    for _ in range(2):  # a vector may go with a vector that goes with a weight
        _follow(structure, shapes, found)
    return {name: stays.view(shapes[name]) for name, stays in found.items()}


def _on_nodes(
    structure: Structure,
    bank: str,
    start: int,
    position: Tensor | None,
    element: Tensor | None,
    size: int,
    keep: Tensor,
) -> Tensor:
    whole = torch.arange(size)
    place = start + whole if position is None else position
    nodes = structure.banks[bank].nodes[place // structure.banks[bank].width]
    return _any(whole if element is None else element, keep[nodes], size)


def _any(element: Tensor, kept: Tensor, size: int) -> Tensor:
    """Whether any of an element's places is kept; true where it has none."""
    seen = torch.ones(size, dtype=torch.int8)
    return seen.scatter_reduce(0, element, kept.to(torch.int8), "amax", include_self=False).bool()


def _follow(structure: Structure, shapes: Mapping[str, torch.Size], found: dict[str, Tensor]) -> None:
    fresh: dict[str, Tensor] = {}
    for first, mine, second, theirs in structure.meets:
        if first == second and first in found:  # both parts of a complex number
            found[first][mine] &= found[first][theirs]
            found[first][theirs] &= found[first][mine]
        for name, own, other, partner in ((first, mine, second, theirs), (second, theirs, first, mine)):
            if name not in found and other in found and shapes[name].numel() > 1:
                kept = _any(own, found[other][partner], shapes[name].numel())
                fresh[name] = fresh.get(name, kept) & kept
    found.update(fresh)


def axes_of(stays: Tensor) -> list[Tensor] | None:
    """For each axis which places stay, if what stays is a box of whole rows along each; else None."""
    axes = [stays.movedim(axis, 0).flatten(1).any(1) if stays.dim() > 1 else stays for axis in range(stays.dim())]
    if stays.dim() > 1:
        box = torch.ones((), dtype=torch.bool)
        for axis, kept in enumerate(axes):
            view = [1] * stays.dim()
            view[axis] = -1
            box = box & kept.view(view)
        if not torch.equal(box.expand_as(stays), stays):
            return None
    return axes


def query_factors(structure: Structure, shapes: Mapping[str, torch.Size], keep: Tensor) -> dict[str, Tensor]:
    """Factors for the elements that make queries of attention, so that narrower heads give the same scores.

    Attention divides scores by the root of the width of a head: what makes the queries (the norm on them where there is
    one, else their layer) is multiplied by the root of the fraction of the width that stays.
    """
    factor = torch.ones(structure.num_nodes)
    for query in structure.queries:
        if bool((query >= 0).all()):
            factor[query] = keep[query].float().mean(1).sqrt().unsqueeze(1).clamp(min=1e-3).expand(query.shape)
    normed = torch.zeros(structure.num_nodes, dtype=torch.bool)
    for name, bank in structure.banks.items():
        if name.startswith("gamma"):
            normed[bank.nodes] = True
    by_norm, by_layer = torch.where(normed, factor, 1.0), torch.where(normed, 1.0, factor)
    found: dict[str, Tensor] = {}
    if not bool((factor != 1).any()):
        return found
    for name, pieces in structure.pieces.items():
        own = torch.ones(shapes[name].numel())
        for piece in pieces:
            whole = torch.arange(len(own))
            element = whole if piece.element is None else piece.element
            place = piece.start + whole if piece.position is None else piece.position
            if not isinstance(piece.group, str):
                width = torch.Size(piece.group).numel()
                own[element] = by_layer[structure.edges[piece.group].dst[place // width]]
            elif piece.group.startswith(("gamma", "beta", "bias")):
                bank = structure.banks[piece.group]
                of_node = by_layer if piece.group.startswith("bias") else by_norm
                own[element] = of_node[bank.nodes[place // bank.width]]
        if bool((own != 1).any()):
            found[name] = own.view(shapes[name])
    return found
