"""The page of ``graphsparse sparsify --report``: what was kept of a graph, and what that did to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphsparse.report.graph_parts import graph_section
from graphsparse.report.html import record_in
from graphsparse.report.parts import Prose, Run, Section, Sheet, figure
from graphsparse.report.runs import RUNS, how_made, name_of

KIND = "sparsify"


@RUNS.register(KIND)
def sparsify_run(path: Path) -> Run | None:
    """The run that a page of ``graphsparse sparsify --report`` was written for; None where the file is no such page."""
    if path.suffix.lower() != ".html" or not path.is_file():
        return None
    record = record_in(path)
    return sparsify_shown(record, name_of(path)) if record.get("kind") == KIND else None


def sparsify_shown(record: Mapping[str, Any], name: str) -> Run:
    """The page's run.

    Args:
        record: ``kind``, ``source``, ``target``, ``method``, ``kept``, ``total``, ``remarks``, ``graph`` (of
            `graphsparse.graphs.picture.picture`) and what `graphsparse.report.provenance` gives.
        name: of the run.
    """
    graph, share = record["graph"], record["kept"] / record["total"] if record["total"] else None
    before, after = graph["before"], graph["after"]
    kind = "undirected" if graph["undirected"] else "directed"
    lead = (
        f"{record['method']} kept {record['kept']:,} of {record['total']:,} {kind} edges"
        f"{'' if share is None else f' ({100 * share:.2f} %)'} of {Path(record['source']).name}. "
        f"{after['isolated_nodes']:,} of {graph['nodes']:,} nodes have no neighbour now, "
        f"{before['isolated_nodes']:,} had none before; the graph has {after['components']:,} components, "
        f"before {before['components']:,}."
    )
    sheet = Sheet(
        "What was kept",
        ["count", "before", "after", "kept, %"],
        [
            [
                "edges",
                figure(record["total"], digits=0),
                figure(record["kept"], digits=0),
                figure(share, scale=100),
            ]
        ],
    )
    sections = [
        Section("What was kept", [sheet, Prose(record["remarks"])]),
        graph_section(graph),
        how_made(record, Path(record["target"]).parent, ()),
    ]
    figures = {
        "edges kept, %": figure(share, scale=100),
        "components": figure(after["components"], digits=0),
        "nodes without a neighbour": figure(after["isolated_nodes"], digits=0),
        "clustering": figure(after["clustering"], digits=4),
        "largest degree": figure(after["largest_degree"], digits=0),
    }
    return Run(name, KIND, lead, sections, figures, record=record)
