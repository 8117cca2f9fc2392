"""Sparsify a graph that lies in a file: the same kind of file comes out, with fewer edges and all else as it was."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from graphsparse.edges.keep import check_rules
from graphsparse.edges.page import sparsify_shown
from graphsparse.edges.score_table import SCORES
from graphsparse.edges.transform import edge_mask
from graphsparse.errors import DataError
from graphsparse.graphs.formats import GraphFile, check_target, format_of, open_file, write_kept
from graphsparse.graphs.interop import EdgeList
from graphsparse.graphs.picture import picture
from graphsparse.keep_rule import keep_fraction
from graphsparse.report import plain, provenance
from graphsparse.report.html import write_page

Path_ = str | os.PathLike[str]

LOOKED_UP = 1_000_000  # arcs whose mirrors are looked up before a list is said to have none


class Report(str):
    """What was done to a file, in a sentence.

    Attributes:
        figures: the same by name: ``kept`` and ``total`` edges, ``undirected``, ``read_as``, ``out`` and others.
    """

    figures: dict[str, Any]

    def __new__(cls, sentence: str, figures: dict[str, Any]) -> Report:
        report = super().__new__(cls, sentence)
        report.figures = figures
        return report


def sparsify_file(
    source: Path_,
    target: Path_,
    method: str = "teddy",
    *,
    undirected: bool | None = None,
    seed: int = 0,
    weight: str | None = None,
    file_format: str | None = None,
    rules: dict[str, Any],
    report: Path_ | None = None,
    **options: Any,
) -> Report:
    """Keep the best edges of the graph in ``source`` and write it, all else unchanged, to ``target``.

    Kinds, by suffix: tables of edges (``.csv``, ``.tsv``, ``.parquet``, ``.feather``), plain edge lists (``.txt``,
    ``.edgelist``), ``.npz``, ``.mtx`` (Matrix Market), ``.graphml``, ``.gexf`` and METIS (``.graph``, ``.metis``), the
    text kinds also as ``.gz`` and ``.zst``; docs/graphs-and-files.md describes each. What stays of a text file is
    written byte for byte; Parquet and Feather keep their schema, metadata and groups of rows. Another suffix than that
    of ``source`` converts. Users' own kinds: `graphsparse.graphs.FORMATS`.

    Args:
        source: the file to read; it is not changed.
        target: the file to write, atomically; another file.
        method: an edge score.
        undirected: as in :func:`graphsparse.sparsify`; None looks at the edges, GraphML, GEXF and METIS say themselves.
        seed: of ties and of random scores.
        weight: name of the column, attribute or array that holds the weights; by default ``weight`` or
            ``edge_weight``. Of a matrix they are its values.
        file_format: a name in ``FORMATS`` or ``"module:class"`` instead of the suffixes of both files.
        rules: ``keep``, ``per_node``, ``guard`` and ``forest``, as in :func:`graphsparse.sparsify`.
        report: an HTML file for a page that shows the graph before and after; None writes none.
        **options: of tables: ``src`` and ``dst``, the columns of the ends; ``header``, whether a first line names the
            columns (None: it is looked at); ``one_based``, whether ids count from 1.

    Returns:
        A sentence: how the edges were read, where their weights come from, how many were kept, where they are, and what
        another kind of file does not hold; its attribute ``figures`` has the same by name.

    Raises:
        DataError: if ``source`` is missing, damaged, or holds no graph, or weights that the method needs are none; with
            the file's name and, where there is one, the line.
        ValueError: if a kind is unknown or cannot hold the graph, or an option is out of range; nothing is written.
        OSError: if ``target`` cannot be written; it names it, and what was there stays.
    """
    source, target = Path(source), Path(target)
    SCORES.find(method)  # what the caller can mend at once is told before a large file is read
    check_rules(rules.get("keep"), rules.get("per_node"), rules.get("guard"), rules.get("forest", False))
    if rules.get("keep") is not None:
        keep_fraction(rules["keep"])
    if not source.suffix and not source.exists():
        raise DataError(f"{source} does not exist")
    format_of(source, file_format)
    kind = check_target(source, target, file_format)
    if report is not None:
        _check_report(Path(report))
    file = open_file(source, undirected, weight=weight, file_format=file_format, **options)
    mask = _mask(file, source, method, seed, rules)
    lost = write_kept(file, mask, target, kind)
    edges = file.edges
    counted = "undirected edges" if edges.undirected else "directed edges"
    kept = (int(mask.sum()) - edges.survey.loops) // (2 if edges.mirrored else 1)
    total = edges.num_countable
    share = f" ({100 * kept / total:.2f} %)" if total else ""
    loops = f", and all {edges.survey.loops:,} self-loops" if edges.survey.loops else ""
    read_as = "given" if undirected is not None else "found"
    weights = f"weights are {file.weights}" if file.weights else "there are no weights"
    asks = undirected is None and not edges.undirected and not file.says_direction
    hint = mirror_hint(edges) if asks else ""
    remarks = "".join(f"; {remark}" for remark in (weights, file.note, lost, hint) if remark)
    figures: dict[str, Any] = {
        "kept": kept,
        "total": total,
        "undirected": edges.undirected,
        "read_as": read_as,
        "self_loops": edges.survey.loops,
        "nodes": edges.num_nodes,
        "weights": file.weights or None,
        "method": SCORES.key(method),
        "out": str(target),
        "hint": hint or None,
    }
    said = f"kept {kept:,} of {total:,} {counted} ({read_as} so){share}{loops}: {target}{remarks}"
    if report is None:
        return Report(said, figures)
    asked = {"method": method, **rules, "undirected": undirected, "seed": seed, "weight": weight, **options}
    record = {
        "kind": "sparsify",
        **provenance("sparsify", SimpleNamespace(source=source, target=target, **asked, file_format=file_format)),
        "source": str(source),
        "target": str(target),
        "method": method,
        "kept": kept,
        "total": total,
        "remarks": f"{said}.",
        "graph": picture(edges, torch.from_numpy(mask), labels=file.labels),
    }
    page = write_page(report, [sparsify_shown(plain(record), Path(report).name)])
    return Report(f"{said}; page: {page}", {**figures, "page": str(page)})


def mirror_hint(edges: EdgeList) -> str:
    """What to say of arcs of which none has its mirror: so most lists of undirected edges look; else nothing.

    Of very many arcs some are looked up, spread over the list.
    """
    source, target = edges.edge_index.numpy().astype(np.int64)
    keys = source * np.int64(edges.num_nodes) + target
    looked_up = np.flatnonzero(source != target)
    step = max(1, len(looked_up) // LOOKED_UP)
    looked_up = looked_up[::step]
    mirrors = np.unique(target[looked_up] * np.int64(edges.num_nodes) + source[looked_up])
    if not len(mirrors) or np.isin(keys, mirrors, kind="sort").any():
        return ""
    which = "no arc has its mirror" if step == 1 else f"none of {len(looked_up):,} arcs looked up has its mirror"
    return f"{which}: add --undirected (undirected=True) if each line is an edge"


def _check_report(report: Path) -> None:
    """Tell before any work why a page could not be written there."""
    if report.suffix.lower() != ".html":
        raise ValueError(f"the page of a report is HTML: its name must end in .html, got {report}")
    if not report.parent.is_dir():
        raise ValueError(f"the folder of {report} does not exist")
    if not os.access(report.parent, os.W_OK):
        raise PermissionError(13, "the folder cannot be written to", str(report))


def _mask(file: GraphFile, source: Path, method: str, seed: int, rules: dict[str, Any]) -> npt.NDArray[np.bool_]:
    try:
        return edge_mask(file.edges, method, seed, rules, {}).numpy()
    except (ValueError, TypeError) as error:
        if "weight" not in str(error):
            raise
        edge = re.match(r"the weight of edge (\d+)", str(error))  # an edge is found in a file by its line
        place = f", {file.place(int(edge[1]))}" if edge else ""
        raise DataError(f"{source}{place}: {error} (weights are {file.weights})") from error
