"""``graphsparse data list``, ``info`` and ``fetch``."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from graphsparse.cli.command import Output, command
from graphsparse.cli.completion import completion
from graphsparse.cli.groups import data

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A data set, such as cora: graphsparse data list.",
        autocompletion=completion("datasets", "images"),
    ),
]


@command(data, "list", examples=("graphsparse data list", "graphsparse data list --json"))
def list_data(output: Output) -> None:
    """List the data sets that have a name, what each is, and which are here."""
    from graphsparse.data.whereabouts import all_data

    found = all_data()
    drawn = Table.grid(padding=(0, 2))
    for each in found:
        drawn.add_row(each.name, "here" if each.here else "to fetch" if each.urls else "missing", each.about)
    output.console.print(drawn, highlight=False, markup=False)
    missing = sum(not each.here for each in found)
    if missing:
        output.console.print(
            f"\n{missing} of {len(found)} are not here: graphsparse data fetch NAME downloads one, graphsparse "
            "data info NAME says where to put its files.",
            highlight=False,
        )
    output.give({each.name: {"about": each.about, "kind": each.kind, "here": each.here} for each in found})


@command(data, "info", examples=("graphsparse data info cora", "graphsparse data info ogbn-arxiv --json"))
def info(output: Output, name: Name) -> None:
    """Say what a data set is, where its files are, whether they are as published, and its figures if it is here."""
    from graphsparse.data import DATASETS, load
    from graphsparse.data.whereabouts import find_data

    found = find_data(name)
    told: dict[str, Any] = {"name": found.name, "kind": found.kind, "about": found.about, "here": found.here}
    told |= {"folder": None if found.folder is None else str(found.folder), "files": found.checks() or found.files}
    told |= {"addresses": found.urls, "advice": found.advice or None}
    if found.here and found.kind == "graph":
        graph = load(found.name)
        arcs, both = int(graph.num_edges), bool(graph.is_undirected())
        told |= {"nodes": int(graph.num_nodes or 0), "edges": arcs // 2 if both else arcs, "undirected": both}
        told |= {"features": int(graph.num_features), "task": graph.task, "split": graph.split}
        told |= {"metric": getattr(graph, "metric", None) or DATASETS.find(found.name).metric}
    drawn = Table.grid(padding=(0, 2))
    for key, value in told.items():
        if value not in (None, [], {}):
            drawn.add_row(key, Text(_text(value), overflow="fold"))
    output.console.print(drawn, highlight=False, markup=False)
    output.give(told)


@command(data, "fetch", examples=("graphsparse data fetch cora", "graphsparse data fetch fashion-mnist"))
def fetch(output: Output, name: Name) -> None:
    """Download a data set into the cache, check it and read it once; nothing is done where it is here already."""
    from graphsparse.data import load, load_images
    from graphsparse.data.whereabouts import find_data
    from graphsparse.errors import DataError

    before = find_data(name)
    if not before.here and not before.urls:
        raise DataError(f"{before.name} is not here and has no public download: {before.advice}.")
    if before.kind == "graph":
        load(before.name)
    else:
        load_images(before.name)
    found = find_data(name)
    how = "is here already" if before.here else "has come"
    where = f" in {found.folder}" if found.folder is not None else ""
    checks = found.checks()
    wrong = [file for file, said in checks.items() if said.startswith("another")]
    output.console.print(f"{found.name} {how}{where} and can be read.", highlight=False, soft_wrap=True, markup=False)
    if wrong:
        output.console.print(
            f"{', '.join(wrong)}: another file than the published one.", highlight=False, soft_wrap=True, markup=False
        )
    output.give({"name": found.name, "fetched": not before.here, "folder": str(found.folder), "files": checks})


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {item}" for key, item in value.items())
    if isinstance(value, list):
        return "\n".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
