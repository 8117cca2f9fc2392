"""Effective resistance: the graph as a network of resistors, exact where it is small, estimated where it is large."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse as sp
import torch
from scipy.sparse import csgraph
from scipy.sparse import linalg as spla
from torch import Tensor

from graphsparse.edges.pairs import Floats, Ints, SimpleGraph
from graphsparse.edges.score_table import register
from graphsparse.errors import GraphsparseError
from graphsparse.graphs.inner_form import EdgeList
from graphsparse.keep_rule import mix64
from graphsparse.parallel import over_slices

BLOCK = 256  # small components are solved together, up to about this many nodes at a time
BAND = 5 * 10**7  # a matrix whose band has at most this many entries is factorised, else solved by iteration
BATCH = 1 << 24  # numbers of a vector of all columns that are solved together on a thread
WORD = 64  # signs in one hash
FOSTER = 1e-6  # allowed relative error of the sum of c R, which by Foster's theorem is nodes - components
ILL_CONDITIONED = "the edge weights differ by too many orders of magnitude for resistances to be solved in float64"
LEVEL = 1e-9  # scores nearer to each other than this are equal; the noise of an exact solution is about 1e-15
FEW = 40  # iterations that a factor hardly undercuts: it needs ten or more, of which each costs three or four
VECTORS = 5  # of length n that an iteration of conjugate gradients reads or writes beside the matrix
ITERATIONS = 10  # conjugate gradients give up after this many times the number of unknowns


@register("effective_resistance")
def effective_resistance(
    graph: EdgeList,
    *,
    exact_up_to: int = 2500,
    epsilon: float = 0.5,
    num_projections: int | None = None,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> Tensor:
    r"""Score an edge by the resistance between its ends when edge weights are conductances: bridges score highest.

    .. math:: R(u, v) = (e_u - e_v)^T L^+ (e_u - e_v), \quad L = \mathrm{diag}(W 1) - W

    Parallel copies add up; an undirected graph without weights has conductances 1. A directed graph is read as the
    symmetric part :math:`(W + W^T) / 2`, so a symmetric digraph scores as the undirected graph. Connected components
    are solved one by one: exactly by Cholesky up to ``exact_up_to`` nodes, and beyond by the estimate of Spielman and
    Srivastava, :math:`R \approx \| Z (e_u - e_v) \|^2`, :math:`Z = Q W^{1/2} B L^+`, with k rows of random signs in Q
    and one linear system a row: by sparse LU where the matrix has a narrow band, else by conjugate gradients, with
    an approximate Cholesky factor (`graphsparse.edges.approximate_cholesky`) where that is cheaper than the diagonal.
    All values are clipped to their bounds, the resistances with the rest of the graph cut off and shorted, which are
    equal for the edge of a leaf.

    The score of both arcs of a pair is the same. Linear algebra rounds otherwise when nodes or edges come in another
    order, so values that are equal up to 1e-9 are made equal, and ties between them break by the edges' names as
    everywhere; the last digits of a score, and by conjugate gradients those beyond ``tolerance``, are the exception.

    Args:
        graph: the graph; ``weight`` ``[E]`` are conductances.
        exact_up_to: the largest component that is solved exactly; memory 16 n^2 bytes, time O(n^3).
        epsilon: largest relative error of the estimate, in (0, 1); with high probability it holds for all pairs, when
            :math:`k = \lceil 4 \ln n / (\epsilon^2/2 - \epsilon^3/3) \rceil` (Dasgupta & Gupta 2003). The relative
            standard deviation of one value is :math:`\sqrt{2/k}`: about 6 % at 20,000 nodes and the default.
        num_projections: k itself, instead of ``epsilon``.
        tolerance: relative residual at which conjugate gradients stop.
        seed: of the signs.

    Returns:
        float64 ``[E]``, in units of 1 / weight; self-loops +inf.

    Raises:
        ValueError: for a weight that is not positive and finite (with its position), or an option out of its range.
        GraphsparseError: if weights differ by so many orders of magnitude (beyond about 10) that an exact solution is
            off by more than 1e-6 (Foster's theorem tells), or if conjugate gradients do not converge.

    Source: Spielman & Srivastava, "Graph sparsification by effective resistances", SIAM J. Comput. 40 (2011),
    theorem 2 and section 4.

    Example:
        >>> import torch
        >>> edges = torch.tensor([[0, 1, 0, 2], [1, 2, 2, 3]])  # a triangle with a tail
        >>> effective_resistance(EdgeList(edges, 4, undirected=True, mirrored=False))
        tensor([0.6667, 0.6667, 0.6667, 1.0000], dtype=torch.float64)
    """
    _check_options(epsilon, num_projections, tolerance)
    simple = SimpleGraph.of(graph)
    conductance = _conductances(graph, simple)
    names = graph.names if graph.names is not None else np.arange(graph.num_nodes)
    resistance = np.empty(len(conductance))
    for block in _blocks(simple, conductance, exact_up_to):
        if block.largest <= exact_up_to:
            resistance[block.pairs] = _exact(block)
            continue
        k = num_projections or _projections(block.num_nodes, epsilon)
        signs = _Signs(names, simple, block.pairs, seed)
        resistance[block.pairs] = _estimate(block, signs, k, tolerance)
    resistance = _levelled(_within_bounds(resistance, simple, conductance))
    return simple.spread(resistance, graph.edge_index.device)


@dataclass(frozen=True)
class _Block:
    """One large connected component, or some small ones, with nodes of its own numbering."""

    pairs: Ints  # positions in the simple graph
    low: Ints
    high: Ints
    conductance: Floats
    num_nodes: int
    grounds: Ints  # one node of each component, its hub
    largest: int  # nodes of the largest component


class _Signs:
    """Random signs of pairs, hashed from the names of their ends: the same however nodes and edges are numbered."""

    def __init__(self, names: npt.NDArray[Any], simple: SimpleGraph, pairs: Ints, seed: int) -> None:
        a, b = names[simple.low[pairs]], names[simple.high[pairs]]
        self.first, self.second, self.seed = np.minimum(a, b), np.maximum(a, b), seed
        self.turn = np.where(a <= b, 1.0, -1.0)  # an orientation by name, too

    def words(self, number: int) -> npt.NDArray[np.uint64]:
        """The signs ``[pairs]`` of the projections ``64 number`` to ``64 number + 63``, a bit each."""
        return mix64(self.seed, self.first, self.second, np.full(1, number))


def _check_options(epsilon: float, num_projections: int | None, tolerance: float) -> None:
    for name, value in (("epsilon", epsilon), ("tolerance", tolerance)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie in (0, 1), got {value}")
    if num_projections is not None and num_projections < 1:
        raise ValueError(f"num_projections must be at least 1, got {num_projections}")


def _projections(num_nodes: int, epsilon: float) -> int:
    """Rows that keep all distances between ``num_nodes`` points within 1 +- epsilon (Johnson-Lindenstrauss)."""
    return math.ceil(4 * math.log(num_nodes) / (epsilon**2 / 2 - epsilon**3 / 3))


def _conductances(graph: EdgeList, simple: SimpleGraph) -> Floats:
    """Conductance of each pair ``[P]``: copies add up, the two directions are averaged."""
    real = simple.pair >= 0
    weight = graph.checked_weight().detach().cpu().numpy()
    bad = real & (weight <= 0)
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(f"the weight of edge {at} is {weight[at]}; effective resistance needs positive conductances")
    total: Floats = np.bincount(simple.pair[real], weight[real], minlength=len(simple.low)).astype(np.float64)
    return total if graph.undirected and not graph.mirrored else total / 2


def _blocks(simple: SimpleGraph, conductance: Floats, exact_up_to: int) -> Iterator[_Block]:
    """Cut the graph into its connected components, small ones that are solved exactly put together."""
    n = simple.num_nodes
    if not len(simple.low):
        return
    _, label = csgraph.connected_components(sp.coo_array((conductance, (simple.low, simple.high)), shape=(n, n)), False)
    size = np.bincount(label)
    by_size = np.argsort(size, kind="stable")
    start = np.empty(len(size), np.int64)  # of a component, when nodes are put in order by component
    start[by_size] = np.cumsum(size[by_size]) - size[by_size]
    opens = (size[by_size] >= min(BLOCK, exact_up_to + 1)) | (np.diff(start[by_size] // BLOCK, prepend=-1) > 0)
    block = np.empty(len(size), np.int64)
    block[by_size] = np.cumsum(opens) - 1
    place = np.empty(n, np.int64)
    place[np.lexsort((-simple.degrees(), start[label]))] = np.arange(n)
    of_pair = block[label[simple.low]]
    pairs = np.argsort(of_pair, kind="stable")
    for group in np.split(pairs, np.flatnonzero(np.diff(of_pair[pairs])) + 1):
        members = by_size[block[by_size] == of_pair[group[0]]]
        first, nodes = int(start[members[0]]), int(size[members].sum())
        low, high = place[simple.low[group]] - first, place[simple.high[group]] - first
        yield _Block(group, low, high, conductance[group], nodes, start[members] - first, int(size[members].max()))


def _exact(block: _Block) -> Floats:
    """Resistances ``[P]`` from the inverse of the Laplacian without the rows of the grounded nodes."""
    n, low, high = block.num_nodes, block.low, block.high
    laplacian = np.zeros((n, n))
    laplacian[low, high] = laplacian[high, low] = -block.conductance
    np.fill_diagonal(laplacian, -laplacian.sum(axis=1))
    free = np.delete(np.arange(n), block.grounds)
    potential = np.zeros((n, n))
    try:
        factor = scipy.linalg.cho_factor(laplacian[np.ix_(free, free)], lower=True, overwrite_a=True)
    except scipy.linalg.LinAlgError:
        raise GraphsparseError(ILL_CONDITIONED) from None
    potential[np.ix_(free, free)] = scipy.linalg.cho_solve(factor, np.eye(len(free)), overwrite_b=True)
    own = potential.diagonal()
    resistance = np.asarray(own[low] + own[high] - 2 * potential[low, high])
    rank = len(free)
    if not abs(float(block.conductance @ resistance) - rank) <= FOSTER * rank:
        raise GraphsparseError(ILL_CONDITIONED)
    return resistance


def _estimate(block: _Block, signs: _Signs, k: int, tolerance: float) -> Floats:
    """Resistances ``[P]`` from ``k`` random projections, some at a time on each thread."""
    from graphsparse.edges.resistance_kernels import add_squares, signed_flows

    root, solve = np.sqrt(block.conductance), _solver(block, tolerance)
    step = min(WORD, max(1, BATCH // block.num_nodes))
    jobs = [(a, min(k, a + step, (a // WORD + 1) * WORD)) for word in range(0, k, WORD)
            for a in range(word, min(k, word + WORD), step)]  # fmt: skip

    def one(some: list[tuple[int, int]], at: int, _: int) -> Floats:
        start, stop = some[at]
        columns, squares = np.zeros((block.num_nodes, stop - start)), np.zeros(len(root))
        signed_flows(block.low, block.high, root, signs.turn, signs.words(start // WORD), start % WORD, columns)
        add_squares(block.low, block.high, solve(columns), squares)
        return squares

    threads = max(1, torch.get_num_threads())
    total = np.zeros(len(root))
    for first in range(0, len(jobs), threads):
        some = jobs[first : first + threads]
        for squares in over_slices(partial(one, some), len(some), len(some)):
            total += squares  # in one order, whatever the number of threads
    return total / k


def _solver(block: _Block, tolerance: float) -> Callable[[Floats], Floats]:
    """A function that solves ``L z = y`` for the columns of y ``[n, b]``, which sum to 0 and are used up."""
    n, ends = block.num_nodes, (block.low, block.high)
    weights = sp.coo_array((block.conductance, ends), shape=(n, n)).tocsr()
    weights = (weights + weights.T).tocsr()
    diagonal: Floats = np.asarray(weights.sum(axis=1)).ravel()
    order = csgraph.reverse_cuthill_mckee(weights, symmetric_mode=True)
    place = np.argsort(order)
    band = int(np.abs(place[block.low] - place[block.high]).max())
    if n * (2 * band + 1) > BAND:
        return _iteration(block, (weights.indptr, weights.indices, weights.data, diagonal), tolerance)
    laplacian = (sp.diags_array(diagonal) - weights).tocsr()
    free = order[order != block.grounds[0]]
    factor = spla.splu(
        laplacian[free][:, free].tocsc(), permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )

    def solve(columns: Floats) -> Floats:
        potential = np.zeros_like(columns)
        potential[free] = factor.solve(columns[free])
        return potential

    return solve


def _iteration(block: _Block, matrix: tuple[Any, ...], tolerance: float) -> Callable[[Floats], Floats]:
    """The same by conjugate gradients, with the cheaper of two preconditioners.

    On graphs with short paths the diagonal needs few iterations; on grids and roads it needs as many as the graph is
    wide, and an approximate Cholesky factor some thirty. Where the diagonal needs more than a few, both solve one
    system, and their operations are counted.
    """
    from graphsparse.edges.approximate_cholesky import factorise
    from graphsparse.edges.resistance_kernels import NO_FACTOR, conjugate_gradients

    n, most = block.num_nodes, ITERATIONS * block.num_nodes
    trial = np.zeros((n, 1))
    trial[0], trial[-1] = 1.0, -1.0

    def iterations(factor: tuple[Any, ...], columns: Floats, most: int, potential: Floats) -> int:
        return int(conjugate_gradients(*matrix, factor, columns, tolerance, most, potential))

    def tried(factor: tuple[Any, ...], most: int) -> int:
        return iterations(factor, trial.copy(), most, np.empty_like(trial))

    chosen = NO_FACTOR
    if tried(NO_FACTOR, min(FEW, most)) < 0:
        factor = factorise(n, block.low, block.high, block.conductance, 0)
        plain = len(matrix[2]) + VECTORS * n  # operations of an iteration on a column
        with_factor = tried(factor, most) * (1 + (2 * len(factor[2]) + n) / plain)
        if tried(NO_FACTOR, most if with_factor < 0 else math.ceil(with_factor)) < 0:
            chosen = factor

    def iterate(columns: Floats) -> Floats:
        potential = np.empty_like(columns)
        if iterations(chosen, columns, most, potential) < 0:
            raise GraphsparseError(
                f"conjugate gradients did not reach the tolerance {tolerance}; raise it, or exact_up_to"
            )
        return potential

    return iterate


def _levelled(values: Floats) -> Floats:
    """Give values one level that differ by less than :data:`LEVEL`, relatively: what rounding noise tells apart.

    Values are cut where the gap to the next is wider, not rounded to a grid, whose lines would part equal values, too.
    """
    order = np.argsort(values)
    ascending = values[order]
    opens = np.diff(ascending, prepend=-np.inf) > LEVEL * np.abs(ascending)
    levelled = np.empty_like(values)
    levelled[order] = ascending[opens][np.cumsum(opens) - 1]
    return levelled


def _within_bounds(resistance: Floats, simple: SimpleGraph, conductance: Floats) -> Floats:
    """Clip to what Rayleigh's principle allows: the rest of the graph shorted (below) or cut off (above)."""
    n = simple.num_nodes
    total = np.bincount(simple.low, conductance, n) + np.bincount(simple.high, conductance, n)
    with np.errstate(divide="ignore", over="ignore"):
        beside_low = 1.0 / np.maximum(total[simple.low] - conductance, 0.0)
        beside_high = 1.0 / np.maximum(total[simple.high] - conductance, 0.0)
        shorted = 1.0 / (conductance + 1.0 / (beside_low + beside_high))
        return np.asarray(np.minimum(np.maximum(resistance, shorted), 1.0 / conductance))
