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

from graphsparse.atomic_write import atomic_write
from graphsparse.edges.page import sparsify_shown
from graphsparse.edges.transform import edge_mask
from graphsparse.errors import DataError
from graphsparse.graphs.formats import GraphFile, format_of, open_file
from graphsparse.graphs.picture import picture
from graphsparse.report import plain, provenance
from graphsparse.report.html import write_page

Path_ = str | os.PathLike[str]


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
) -> str:
    """Keep the best edges of the graph in ``source`` and write it, all else unchanged, to ``target``.

    Kinds, by suffix (the text kinds also gzipped, ``.csv.gz``): ``.csv`` and ``.tsv`` tables of edges with columns
    ``src`` and ``dst``, or ``source`` and ``target``, whose labels compare as written; the same as ``.parquet``, whose
    ids compare exactly; ``.graphml``; ``.mtx`` (Matrix Market); and ``.npz``: a matrix of ``scipy.sparse.save_npz``, or
    arrays with ``edge_index`` ``[2, E]`` or ``edges`` ``[E, 2]`` (arrays of one entry an edge are cut as in a
    ``Data``). What stays of a text file is written byte for byte; Parquet keeps its schema, metadata and row groups.
    Users' own kinds: `graphsparse.graphs.formats.FORMATS`.

    Args:
        source: the file to read; it is not changed.
        target: the file to write, atomically; it must be of the source's kind, and another file.
        method: an edge score.
        undirected: as in :func:`graphsparse.sparsify`; None looks at the edges, GraphML says itself.
        seed: of ties and of random scores.
        weight: name of the column, attribute or array that holds the weights; by default ``weight`` or
            ``edge_weight``. Of a matrix they are its values.
        file_format: a name in ``FORMATS`` or ``"module:class"`` instead of the suffix.
        rules: ``keep``, ``per_node``, ``guard`` and ``forest``, as in :func:`graphsparse.sparsify`.
        report: an HTML file for a page that shows the graph before and after; None writes none.

    Returns:
        A sentence: how the edges were read, where their weights come from, how many were kept, and where they are.

    Raises:
        DataError: if ``source`` is missing, damaged, or holds no graph, or weights that the method needs are none; with
            the file's name and, where there is one, the line.
        ValueError: if the kinds are unknown or differ, or an option is out of range; nothing is written.
        OSError: if ``target`` cannot be written; it names it, and what was there stays.
    """
    source, target = Path(source), Path(target)
    _check_target(source, target, file_format)
    if report is not None:
        _check_report(Path(report))
    file = open_file(source, undirected, weight=weight, file_format=file_format)
    mask = _mask(file, source, method, seed, rules)
    _write(file, mask, target)
    edges = file.edges
    kind = "undirected edges" if edges.undirected else "directed edges"
    kept = (int(mask.sum()) - edges.survey.loops) // (2 if edges.mirrored else 1)
    total = edges.num_countable
    share = f" ({100 * kept / total:.2f} %)" if total else ""
    loops = f", and all {edges.survey.loops:,} self-loops" if edges.survey.loops else ""
    read_as = "given" if undirected is not None else "found"
    weights = f"weights are {file.weights}" if file.weights else "there are no weights"
    remarks = f"; {weights}{'; ' if file.note else ''}{file.note}"
    said = f"kept {kept:,} of {total:,} {kind} ({read_as} so){share}{loops}: {target}{remarks}"
    if report is None:
        return said
    asked = {"method": method, **rules, "undirected": undirected, "seed": seed, "weight": weight}
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
    return f"{said}; page: {page}"


def _check_report(report: Path) -> None:
    """Tell before any work why a page could not be written there."""
    if report.suffix.lower() != ".html":
        raise ValueError(f"the page of a report is HTML: its name must end in .html, got {report}")
    if not report.parent.is_dir():
        raise ValueError(f"the folder of {report} does not exist")
    if not os.access(report.parent, os.W_OK):
        raise PermissionError(13, "the folder cannot be written to", str(report))


def _check_target(source: Path, target: Path, file_format: str | None) -> None:
    """Tell before any work what would fail after it."""
    kind = format_of(source, file_format)
    if file_format is None:
        suffix = f".{kind}"
        try:
            same = format_of(target) == kind
        except ValueError:
            same = False
        if not same:
            raise ValueError(f"{target} must end in {suffix}, as {source} does: the same kind of file comes out")
    if target.exists() and not target.is_file():
        raise ValueError(f"{target} is a folder or a device, and no file to write")
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f"{target} is the file that is read; give another name")
    if not target.parent.is_dir():
        raise ValueError(f"the folder of {target} does not exist")
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(13, "the folder cannot be written to", str(target))


def _mask(file: GraphFile, source: Path, method: str, seed: int, rules: dict[str, Any]) -> npt.NDArray[np.bool_]:
    try:
        return edge_mask(file.edges, method, seed, rules, {}).numpy()
    except (ValueError, TypeError) as error:
        if "weight" not in str(error):
            raise
        edge = re.match(r"the weight of edge (\d+)", str(error))  # an edge is found in a file by its line
        place = f", {file.place(int(edge[1]))}" if edge else ""
        raise DataError(f"{source}{place}: {error} (weights are {file.weights})") from error


def _write(file: GraphFile, mask: npt.NDArray[np.bool_], target: Path) -> None:
    try:
        with atomic_write(target) as partial:  # it has the target's suffix: writers go by it
            file.write(mask, partial)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot write: {reason}; what was there stays", str(target)) from error
