"""Keep: scores of edges become an exact mask, both arcs of an undirected pair as one, self-loops always kept."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.edges.units import Units, find_units
from graphsparse.graphs.arcs import symmetric_scores
from graphsparse.graphs.inner_form import EdgeList, edge_list
from graphsparse.huge_pages import empty
from graphsparse.keep_rule import Keep, check_no_nan, check_seed, kept_count, threshold
from graphsparse.parallel import SERIAL_BELOW, over_slices
from graphsparse.registry import one_of
from graphsparse.sorting import smallest

Guard = Literal["cover", "isolated"]
Mask = npt.NDArray[np.bool_]

COMPILE_FROM = 1 << 16  # units


def keep_mask(
    scores: Tensor | npt.NDArray[Any],
    edge_index: Tensor,
    *,
    keep: Keep | None = None,
    per_node: int | None = None,
    undirected: bool | None = None,
    num_nodes: int | None = None,
    guard: Guard | None = None,
    forest: bool = False,
    seed: int = 0,
    names: npt.NDArray[np.uint64] | None = None,
) -> Tensor:
    r"""Turn scores into the mask of the edges that stay: exactly :math:`\max(1, \lceil keep \cdot m \rceil)` of m.

    Countable are the pairs {u, v} of an undirected graph (both arcs stay or go together; where their scores differ the
    larger one counts) and the arcs of a directed one, parallel copies one by one. Self-loops are kept, never counted.
    The mask does not depend on the order of the edges: ties break by a seeded hash of the names of an edge's ends.

    Args:
        scores: real numbers ``[E]``, higher = keep. Not changed.
        edge_index: int32 or int64 ``[2, E]``.
        keep: fraction to keep, in (0, 1], read as the decimal that was written.
        per_node: instead of ``keep``: every node selects its best ``per_node`` incident edges, and an edge stays if
            either end selects it.
        undirected: whether pairs are counted; None: if every arc has as many mirrors as copies.
        num_nodes: number of nodes; by default one more than the largest id.
        guard: ``"cover"`` spends the count first on edges whose two ends have no kept edge yet, then on edges with one
            such end, then on the rest, each by falling score; ``"isolated"`` keeps the best edge of every node, so that
            no node loses its last neighbour.
        forest: keep a maximum spanning forest, so that no component falls apart.
        seed: of the ties.
        names: 64-bit names of the nodes ``[N]`` instead of their ids (`graphsparse.graphs.labels.label_names`).

    Returns:
        bool ``[E]`` on the device of ``edge_index``.

    Raises:
        TypeError: for scores or ids of a wrong type, or neither or both of ``keep`` and ``per_node``.
        ValueError: for a NaN score, a wrong length, ``keep`` outside (0, 1], ids out of range, or a strict guard or
            forest that needs more edges than ``keep`` leaves; it names the smallest feasible ``keep``.

    Example:
        >>> triangle = torch.tensor([[0, 1, 1, 2, 2, 0, 0], [1, 0, 2, 1, 0, 2, 0]])
        >>> keep_mask(torch.tensor([3.0, 3.0, 2.0, 2.0, 1.0, 1.0, 0.0]), triangle, keep=0.5)
        tensor([ True,  True,  True,  True, False, False,  True])
    """
    check_seed(seed)
    graph = edge_list(edge_index, num_nodes, undirected, names=names)
    return mask_edges(graph, scores, keep=keep, per_node=per_node, guard=guard, forest=forest, seed=seed)


def mask_edges(
    graph: EdgeList,
    scores: Tensor | npt.NDArray[Any],
    *,
    keep: Keep | None = None,
    per_node: int | None = None,
    guard: Guard | None = None,
    forest: bool = False,
    seed: int = 0,
    symmetric: bool = False,
) -> Tensor:
    """Do what `keep_mask` does on the inner form.

    Args:
        graph: the edge list.
        scores: ``[E]``.
        keep: as in `keep_mask`, like the arguments that follow.
        per_node: see there.
        guard: see there.
        forest: see there.
        seed: see there.
        symmetric: that the scores are known to be equal on both arcs of a pair and +inf on loops.
    """
    guard = check_rules(keep, per_node, guard, forest)
    values = check_scores(graph, scores, symmetric)
    total = graph.num_countable
    count = total if keep is None else kept_count(keep, total)
    if keep is not None and count == total:
        check_no_nan(values)
        return torch.ones(graph.num_edges, dtype=torch.bool, device=graph.edge_index.device)
    plain = per_node is None and guard is None and not forest
    if plain and (symmetric or not graph.mirrored or symmetric_scores(graph, values)):
        return _mask_by_threshold(graph, values, count, seed)
    check_no_nan(values)
    units = find_units(graph, values, seed)
    if per_node is not None:
        chosen = _best_of_each_node(units, graph.num_nodes, per_node)
    else:
        chosen = choose_units(units, graph.num_nodes, count, guard, forest)
    mask = np.ones(graph.num_edges, bool)
    units.spread(chosen, mask)
    return torch.from_numpy(mask).to(graph.edge_index.device)


def smallest_keep(count: int, total: int) -> str:
    """The shortest decimal ``keep`` that leaves exactly ``count`` of ``total`` elements.

    Example:
        >>> smallest_keep(1, 3), smallest_keep(2, 3), smallest_keep(3, 3)
        ('0.3', '0.6', '1.0')
    """
    digits, found = 1, Fraction(0)
    while found * total <= count - 1:
        found = Fraction(math.floor(Fraction(count, total) * 10**digits), 10**digits)
        digits += 1
    return f"{float(found)}" if digits < 16 else f"{count}/{total}"


def check_rules(keep: Keep | None, per_node: int | None, guard: str | None, forest: bool) -> Guard | None:
    """Raise a TypeError or ValueError for rules that are unknown or contradict each other; the guard by its name."""
    if (keep is None) == (per_node is None):
        raise TypeError("give either keep (a fraction) or per_node (edges that each node selects)")
    guard = one_of(guard, "guard", get_args(Guard), none=True)
    if not isinstance(forest, (bool, np.bool_)):
        raise TypeError(f"forest must be True or False, got {forest!r:.50}")
    if per_node is None:
        return cast("Guard | None", guard)
    if isinstance(per_node, bool) or not isinstance(per_node, (int, np.integer)):
        raise TypeError(f"per_node must be an integer, got {per_node!r}")
    if per_node < 1:
        raise ValueError(f"per_node must be at least 1, got {per_node}")
    if guard is not None or forest:
        raise ValueError("guard and forest spend the count of keep; per_node has none, and isolates no node anyway")
    return None


def _as_tensor(scores: Any) -> Tensor:
    """Scores of any kind as a tensor: torch takes no other byte order, no negative strides and no long doubles."""
    if isinstance(scores, Tensor):
        if scores.layout != torch.strided:
            raise TypeError(f"scores must be a dense tensor, got the layout {scores.layout}")
        return scores.detach()
    array = np.asarray(scores)
    if array.dtype.kind not in "iufb":
        raise TypeError(f"scores must be real numbers, got {array.dtype}")
    native = np.dtype(np.float64) if array.dtype.kind == "f" and array.itemsize > 8 else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, native, order="C"))


def check_scores(graph: EdgeList, scores: Any, symmetric: bool) -> Tensor:
    """Scores as float32 or float64 ``[E]`` on the graph's device, +inf on loops."""
    values = _as_tensor(scores)
    if values.is_complex() or values.dtype == torch.bool:
        raise TypeError(f"scores must be real numbers, got {values.dtype}")
    num_edges = graph.edge_index.size(1)
    if values.shape != (num_edges,):
        raise ValueError(f"scores must have one number for each of {num_edges} edges, got {list(values.shape)}")
    values = values.to(graph.edge_index.device)
    if values.dtype not in (torch.float32, torch.float64):
        values = values.to(torch.float64)
    if symmetric or not graph.survey.loops:
        return values
    check_no_nan(values)
    return values.masked_fill(graph.edge_index[0] == graph.edge_index[1], torch.inf)


def _mask_by_threshold(graph: EdgeList, scores: Tensor, count: int, seed: int) -> Tensor:
    """Keep ``count`` units whose arcs all have the unit's score: one threshold over the raw scores, then the ties.

    Loops are at +inf, so they only shift the rank.
    """
    arcs = 2 if graph.mirrored else 1
    rank = arcs * count + graph.survey.loops
    cut = threshold(scores, rank)
    if cut.equal == rank - cut.above:
        return _at_least(scores, cut.value)
    mask = scores > cut.value
    keep_tied(graph, mask, (scores == cut.value).nonzero().view(-1), rank - cut.above, seed)
    return mask


def keep_tied(graph: EdgeList, mask: Tensor, tied: Tensor, wanted: int, seed: int) -> None:
    """Mark so many of the ``tied`` positions, arcs of equal score, in ``mask``: loops first, then by the tie keys."""
    loops = graph.edge_index[0][tied] == graph.edge_index[1][tied]
    mask[tied[loops]] = True
    among = tied[~loops]
    units = find_units(graph, torch.zeros(len(among), device=among.device), seed, among)
    chosen = smallest(units.keys, (wanted - int(loops.sum())) // len(units.arcs))
    for positions in units.arcs:
        mask[torch.from_numpy(positions[chosen]).to(mask.device)] = True


def _at_least(scores: Tensor, value: float) -> Tensor:
    if scores.device.type != "cpu" or len(scores) < SERIAL_BELOW:
        return scores >= value
    mask = empty(len(scores), torch.bool)
    values, out = scores.numpy(), mask.numpy()
    over_slices(lambda a, b: np.greater_equal(values[a:b], value, out=out[a:b]), len(values))
    return mask


def choose_units(units: Units, num_nodes: int, count: int, guard: Guard | None, forest: bool) -> Mask:
    """Mark ``count`` units ``[m]``: mandatory ones first, then by the guard's rule or by score.

    Raises:
        ValueError: the mandatory ones are more; it names the smallest feasible ``keep``.
    """
    taken = np.zeros(len(units.keys), bool)
    if forest:
        taken |= _spanning_forest(units, num_nodes)
    if guard == "isolated":
        taken |= _best_of_each_end(units, num_nodes)
    mandatory = int(taken.sum())
    if mandatory > count:
        what = " and ".join(name for name, on in (("forest=True", forest), ("guard='isolated'", guard)) if on)
        raise ValueError(
            f"{what} must keep {mandatory} of {len(taken)} edges, but keep leaves {count}; "
            f"the smallest feasible keep is {smallest_keep(mandatory, len(taken))}"
        )
    if guard == "cover":
        return _covered(units, num_nodes, taken, count - mandatory)
    return taken | units.top(count - mandatory, np.flatnonzero(~taken) if mandatory else None)


def _covered(units: Units, num_nodes: int, taken: Mask, budget: int) -> Mask:
    """Mark ``budget`` more units, those that cover nodes first."""
    order = units.best_first
    low, high, best = units.low[order], units.high[order], taken[order]
    covered = np.zeros(num_nodes, bool)
    covered[low[best]] = covered[high[best]] = True
    _loop("cover", len(order))(low, high, covered, best, budget)
    chosen = np.empty(len(order), bool)
    chosen[order] = best
    return chosen


def _best_of_each_end(units: Units, num_nodes: int) -> Mask:
    """Mark the best unit of each node: no sort."""
    taken = np.zeros(len(units.keys), bool)
    _loop("best_of_ends", len(taken))(units.low, units.high, units.scores, units.keys, np.full(num_nodes, -1), taken)
    return taken


def _spanning_forest(units: Units, num_nodes: int) -> Mask:
    """Mark a maximum spanning forest (Kruskal)."""
    order = units.best_first
    marked, taken = np.zeros(len(order), bool), np.empty(len(order), bool)
    _loop("spanning_forest", len(order))(units.low[order], units.high[order], np.arange(num_nodes), marked)
    taken[order] = marked
    return taken


def _best_of_each_node(units: Units, num_nodes: int, per_node: int) -> Mask:
    """Mark the units that are among the best ``per_node`` of one of their ends."""
    order = units.best_first
    marked, taken = np.zeros(len(order), bool), np.empty(len(order), bool)
    seen = np.zeros(num_nodes, np.int64)
    _loop("best_of_nodes", len(order))(units.low[order], units.high[order], seen, per_node, marked)
    taken[order] = marked
    return taken


def _loop(name: str, count: int) -> Any:
    """A loop over so many units: compiled, or the same in Python without waiting for the compiler."""
    from graphsparse.graphs import loops

    loop = getattr(loops, name)
    return loop if count >= COMPILE_FROM else loop.py_func
