"""Sparsify: any graph in, a score, an exact mask, and the same kind of graph out."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor

from graphsparse.edges.each import mask_each
from graphsparse.edges.factored import mask_products
from graphsparse.edges.keep import Guard, check_rules, mask_edges
from graphsparse.edges.score_table import Method, check_words, find_factors, parted, score_edges
from graphsparse.graphs.interop import EdgeList, OpenGraph, open_graph
from graphsparse.keep_rule import Keep, check_seed, keep_fraction


def sparsify(
    graph: Any,
    method: Method = "teddy",
    *,
    keep: Keep | None = None,
    seed: int = 0,
    undirected: bool | None = None,
    per_node: int | None = None,
    guard: Guard | None = None,
    forest: bool = False,
    kind: str | None = None,
    weight: str | None = None,
    src: str | None = None,
    dst: str | None = None,
    **options: Any,
) -> Any:
    """Remove the edges with the lowest scores from a graph of any kind.

    Args:
        graph: of any kind in docs/graphs-and-files.md: PyG (``Data``, ``HeteroData``, ``Batch``, ``edge_index``),
            networkx, igraph, networkit, graph-tool, DGL, sparse and dense matrices (scipy, torch, numpy), lists and
            arrays of edges, tables (pandas, polars, pyarrow), or the path of a file. It is not changed. The graphs of a
            batch or list, and the relations of a ``HeteroData``, keep a count of their own each.
        method: the name of a score (`graphsparse.edges.SCORES`), scores ``[E]`` in the order of the edges (networkx:
            ``graph.edges``; scipy: ``tocoo()``), in the form that `score` returns, or a function that is called as
            ``method(edge_list, **options)`` and returns them.
        keep: fraction of the countable edges to keep, in (0, 1]; see `keep_mask` for this and the rules below.
        seed: of the ties, and of scores that draw random numbers.
        undirected: whether pairs are counted; None: as the graph says.
        per_node: instead of ``keep``: the number of edges that each node selects.
        guard: ``"cover"`` or ``"isolated"``.
        forest: keep a maximum spanning forest.
        kind: how to read an array that could be read in two ways, such as ``"adjacency"`` (`graphsparse.graphs.KINDS`).
        weight: the name of the attribute or column that holds the weights; by default ``edge_weight`` in PyG and
            ``weight`` elsewhere.
        src: the name of the column of a table that holds the tails; by default ``src`` or ``source``.
        dst: that of the heads; by default ``dst`` or ``target``.
        **options: options of the score.

    Returns:
        a graph of the same kind, edges in the same order.

    Raises:
        TypeError: for a kind of graph, an option or scores of a wrong type.
        ValueError: for an unknown method, ``keep`` outside (0, 1], bad ids or scores, or guards that do not fit.

    Source: TEDDY: Seo, Yun, Yang, ICLR 2024; for other methods see the score.

    Example:
        >>> import networkx
        >>> graph = networkx.karate_club_graph()
        >>> small = sparsify(graph, "teddy", keep=0.5)
        >>> graph.number_of_edges(), small.number_of_edges(), small.number_of_nodes()
        (78, 39, 34)
    """
    check_words(options)  # first: who says sparsity gives no keep
    rules: dict[str, Any] = {"keep": keep, "per_node": per_node, "guard": guard, "forest": forest}
    check_rules(**rules)
    if keep is not None:
        keep_fraction(keep)
    check_seed(seed)
    opened = open_graph(graph, undirected, kind=kind, weight=weight, src=src, dst=dst)
    return opened.cut_parts(masks_of(opened, method, seed, rules, options))


def masks_of(
    opened: OpenGraph, method: Method, seed: int, rules: dict[str, Any], options: dict[str, Any]
) -> dict[Hashable, Tensor]:
    """The mask of each part of an open graph, by its name."""
    scores = parted(opened, method)
    return opened.each(lambda edges, name: edge_mask(edges, scores(name), seed, rules, options))


def edge_mask(
    edges: EdgeList,
    method: Method,
    seed: int,
    rules: dict[str, Any],
    options: dict[str, Any],
    batch: Tensor | None = None,
) -> Tensor:
    """Score the edges of an open graph and keep the best: bool ``[E]``; rules are those of `keep_mask`.

    With ``batch``, the graph of each node ``[N]``, the edges are those of many graphs, and each keeps its own count.
    """
    if batch is None and (factors := find_factors(edges, method, seed, options)) is not None:
        return mask_products(edges, *factors, seed=seed, **rules)
    scores, symmetric = score_edges(edges, method, seed, options)
    if batch is not None:
        return mask_each(edges, scores, batch, seed=seed, symmetric=symmetric, **rules)
    return mask_edges(edges, scores, seed=seed, symmetric=symmetric, **rules)
