"""Sample: exactly as many edges as asked for, drawn by size without replacement, with weights that stay unbiased."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.edges.keep import check_scores
from graphsparse.edges.score_table import SCORES, Method, parted, score_edges
from graphsparse.edges.units import Units, find_units
from graphsparse.graphs.interop import EdgeList, open_graph
from graphsparse.keep_rule import Keep, check_no_nan, check_seed, keep_fraction, kept_count, threshold, top_mask

Floats = npt.NDArray[np.float64]

STREAM = 0x5EED  # the draw must not follow the tie keys of the same seed


def sample(
    graph: Any,
    method: Method = "dspar",
    *,
    keep: Keep,
    seed: int = 0,
    undirected: bool | None = None,
    kind: str | None = None,
    weight: str | None = None,
    src: str | None = None,
    dst: str | None = None,
    **options: Any,
) -> Any:
    r"""Draw exactly :math:`k = \max(1, \lceil keep \cdot m \rceil)` of m edges by size, and reweight them.

    Priority sampling without replacement: an edge e of size :math:`p_e` has the priority :math:`p_e / u_e`, with
    :math:`u_e \in (0, 1]` a seeded hash of its name; the k highest priorities stay. With :math:`\tau` the (k+1)-th
    priority,

    .. math:: w'_e = w_e \max(1, \tau / p_e),

    whose expectation over seeds is :math:`w_e` for every edge of positive size, a removed one counting 0; so the
    expected Laplacian is that of the graph. Edges of size 0 are drawn only when there are no others.

    Args:
        graph: as in `sparsify`, like ``kind``, ``weight``, ``src`` and ``dst``; weights are
            ``edge_weight``, ``weight``, or the stored values, and 1 without.
        method: a score to take as the size, such as ``"dspar"`` or ``"effective_resistance"`` (there the size is
            weight times resistance, the leverage of the edge).
        keep: fraction of the countable edges to draw, in (0, 1].
        seed: of the draw, and of scores that draw random numbers.
        undirected: whether pairs are drawn; None: as the graph says.
        kind: see `sparsify`.
        weight: see there.
        src: see there.
        dst: see there.
        **options: options of the score.

    Returns:
        the same kind of graph with the new weights (networkx: attribute ``weight``); for a bare ``edge_index`` the pair
        ``(edge_index, weight)``. Self-loops stay as they are.

    Raises:
        ValueError: for sizes or weights that are negative, NaN or infinite, and as `sparsify`.

    Source: Duffield, Lund, Thorup, "Priority sampling for estimation of arbitrary subset sums", JACM 54(6), 2007.
    The sizes: Spielman, Srivastava, SICOMP 2011 (resistance); Liu et al., TMLR 2023 (DSpar).

    Example:
        >>> square = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 0], [1, 0, 2, 1, 3, 2, 0, 3]])
        >>> edge_index, weight = sample(square, "dspar", keep=0.5)
        >>> edge_index.shape, bool((weight >= 1).all())
        (torch.Size([2, 4]), True)
    """
    keep_fraction(keep)
    check_seed(seed)
    opened = open_graph(graph, undirected, kind=kind, weight=weight, src=src, dst=dst)
    sizes = parted(opened, method)
    drawn = opened.each(lambda edges, name: _sampled(edges, sizes(name), keep, seed, options))
    masks = {name: mask for name, (mask, _) in drawn.items()}
    return opened.cut_parts(masks, {name: weights for name, (_, weights) in drawn.items()})


def _sampled(edges: EdgeList, method: Method, keep: Keep, seed: int, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The mask ``[E]`` of the drawn arcs of one graph, and their new weights ``[E]``."""
    weight = edges.checked_weight()
    sizes = check_scores(edges, *score_edges(edges, method, seed, options)).to(torch.float64)
    check_no_nan(sizes)
    if isinstance(method, str) and SCORES.key(method) == "effective_resistance":
        sizes = sizes * weight.abs()
    units = find_units(edges, sizes, seed ^ STREAM)
    _check_sizes(units)
    mask, factors = _draw(edges, units, kept_count(keep, edges.num_countable))
    return mask, weight * factors


def _check_sizes(units: Units) -> None:
    bad = ~np.isfinite(units.scores) | (units.scores < 0)
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(
            f"the size of edge ({units.low[at]}, {units.high[at]}) is {units.scores[at]}; sizes that edges are sampled "
            "by must be finite and not negative"
        )


def _draw(edges: EdgeList, units: Units, count: int) -> tuple[Tensor, Tensor]:
    """The mask ``[E]`` of the drawn arcs, and the factor of each arc's weight ``[E]``."""
    uniform = ((units.keys >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53
    priorities = units.scores / uniform
    ranked = torch.from_numpy(priorities)
    tau = threshold(ranked, count + 1).value if count < len(priorities) else 0.0
    factors = np.ones(len(priorities))
    positive = units.scores > 0
    factors[positive] = np.maximum(1.0, tau / units.scores[positive])
    drawn = top_mask(ranked, count, lambda tied: units.keys[tied.numpy()]).numpy()
    mask, of_arcs = np.ones(edges.num_edges, bool), np.ones(edges.num_edges)
    for positions in units.arcs:
        mask[positions] = drawn
        of_arcs[positions] = factors
    device = edges.edge_index.device
    return torch.from_numpy(mask).to(device), torch.from_numpy(of_arcs).to(device)
