"""How a page shows a graph before and after: figures, degrees on log axes, and a neighbourhood to look into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphsparse.report.charts import points
from graphsparse.report.parts import Block, Cell, Chart, Neighbourhoods, Prose, Section, Sheet, figure

FIGURES: dict[str, tuple[str, str, float, int]] = {  # key -> words, words of a column, factor, decimals
    "edges": ("edges", "edges", 1, 0),
    "mean_degree": ("mean degree", "mean degree", 1, 2),
    "largest_degree": ("largest degree", "largest degree", 1, 0),
    "isolated_nodes": ("nodes without a neighbour", "isolated nodes", 1, 0),
    "components": ("connected components", "components", 1, 0),
    "largest_component": ("nodes in the largest component, %", "largest component, %", 100, 2),
    "clustering": ("mean local clustering", "clustering", 1, 4),
    "homophily": ("homophily: edges within a class, %", "homophily, %", 100, 2),
}


def short(key: str) -> str:
    """What the column of a figure of a graph is called."""
    return FIGURES[key][1]


def graph_section(graph: Mapping[str, Any], title: str = "The graph before and after") -> Section:
    """The section of a graph.

    Args:
        graph: as `graphsparse.graphs.picture.picture` gives it.
        title: its heading.
    """
    before, after = graph["before"], graph["after"]
    kind = "undirected" if graph["undirected"] else "directed"
    rows: list[list[Cell | str]] = []
    for key, (words, _, scale, digits) in FIGURES.items():
        one, other = before.get(key), after.get(key)
        if one is None and other is None:
            continue
        change = None if one is None or other is None else other - one
        style: dict[str, Any] = {"scale": scale, "digits": digits}
        rows.append([words, figure(one, **style), figure(other, **style), figure(change, sign=True, **style)])
    sample = graph.get("clustering_sample")
    read = "Components and clustering read the edges as undirected, and copies as one." + (
        "" if sample is None else f" The graph is large: clustering is the mean over {sample:,} nodes, drawn at random."
    )
    blocks: list[Block] = [
        Prose(f"{graph['nodes']:,} nodes; the edges are {kind}. {read}"),
        Sheet("The graph in figures", ["figure", "before", "after", "change"], rows),
        degree_chart({"before": before["degrees"], "after": after["degrees"]}),
        Neighbourhoods("A neighbourhood: kept and dropped edges", graph["drawing"], not graph["undirected"]),
    ]
    return Section(title, blocks)


def degree_chart(degrees: Mapping[str, list[list[float]]], note: str = "") -> Chart:
    """How many nodes have which degree, on log axes.

    Args:
        degrees: group -> pairs of a degree and how many nodes have it.
        note: a sentence to begin the note below the chart with.
    """
    groups = []
    for name, pairs in degrees.items():
        shown = [(degree, count) for degree, count in pairs if degree > 0 and count > 0]
        words = [f"{count:,.4g} nodes have degree {degree:,.4g}" for degree, count in shown]
        groups.append((name, [d for d, _ in shown], [c for _, c in shown], words))
    alone = [f"{name} {sum(int(count) for degree, count in pairs if degree == 0):,}" for name, pairs in degrees.items()]
    return points(
        "Degree distribution (log axes)",
        groups,
        "degree",
        "nodes",
        x_axis={"type": "log", "dtick": 1},
        y_axis={"type": "log", "dtick": 1},
        mode="lines+markers",
        note=f"{note}Log axes have no place for nodes of degree 0: {', '.join(alone)}.",
    )
