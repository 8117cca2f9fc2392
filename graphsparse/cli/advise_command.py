"""``graphsparse advise``."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from graphsparse.cli.command import Output, command
from graphsparse.cli.completion import completion
from graphsparse.cli.groups import app
from graphsparse.cli.options import Device, Dst, Header, OneBased, Src, Tensorboard, Undirected, Weight, words

KEEPS = "0.8,0.5,0.3"


@command(
    app,
    "advise",
    examples=(
        "graphsparse advise cora --seconds 60",
        "graphsparse advise edges.csv --undirected --method teddy+cover --keep 50%",
    ),
    writes="out",
)
def advise(
    output: Output,
    graph: Annotated[
        str,
        typer.Argument(
            metavar="GRAPH",
            help="A file ({formats}), a data set (graphsparse list datasets), or module:function of your own.",
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            help="node: also train a small GCN on the kept edges; structure: never.",
            show_default="node if there are features, labels and masks",
            autocompletion=completion(("node", "structure")),
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Scores, the cheapest first: {scores}; with a guard: teddy+cover. May be repeated.",
            show_default="random, teddy, teddy+cover, local-degree, jaccard, effective-resistance",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Edges to keep, such as 0.5,30%; may be repeated.", show_default=KEEPS)
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Training runs of each sparsifier.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training run.")] = 100,
    hidden: Annotated[int, typer.Option(min=1, help="Hidden units.")] = 32,
    seconds: Annotated[float, typer.Option(help="What begins later than this is not measured.")] = 60.0,
    most_edges: Annotated[int, typer.Option(min=100, help="Of a larger graph a sample is measured.")] = 200_000,
    seed: Annotated[int, typer.Option(help="Seed of the sample, ties, random scores and networks.")] = 0,
    undirected: Undirected = None,
    weight: Weight = None,
    src: Src = None,
    dst: Dst = None,
    header: Header = None,
    one_based: OneBased = False,
    device: Device = "cpu",
    tensorboard: Tensorboard = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Classes of the nodes: a table with the columns node and label (CSV, TSV)."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for advice.json, its page report.html and the options that were used.")
    ] = None,
) -> None:
    """Try sparsifiers on your graph and recommend one: structure kept, time, and accuracy where there are labels.

    The labels of test nodes are not read.
    """
    from graphsparse.edges.advice import advise as ask

    reading: dict[str, Any] = {
        "weight": weight,
        "src": src,
        "dst": dst,
        "header": header,
        "one_based": one_based or None,
    }
    if out is not None and out.exists() and not out.is_dir():
        raise NotADirectoryError(f"cannot write into {out}: it is no folder; choose another place")
    found = ask(
        graph,
        task=task,  # type: ignore[arg-type]  # what it may be is told there
        methods=None if method is None else words(method, ""),
        keeps=words(keep, KEEPS),
        seeds=seeds,
        epochs=epochs,
        hidden=hidden,
        seconds=seconds,
        most_edges=most_edges,
        seed=seed,
        undirected=undirected,
        labels=labels,
        device=device,
        tensorboard=tensorboard,
        **reading,
    )
    output.console.print(str(found), highlight=False, markup=False, soft_wrap=True)
    if out is not None:
        from graphsparse.edges.advice_page import FILE, advice_run
        from graphsparse.report import provenance, write_json
        from graphsparse.report.runs import write_report

        out.mkdir(parents=True, exist_ok=True)
        asked = {"graph": graph, "task": task, "method": method, "keep": keep, "seeds": seeds, "labels": labels}
        write_json(out / FILE, {**provenance("advise", SimpleNamespace(**asked)), **found.figures()})
        page = write_report(out, advice_run)
        output.console.print(f"figures: {out / FILE}  page: {page}", highlight=False, markup=False, soft_wrap=True)
    output.give(found.figures())
