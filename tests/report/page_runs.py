"""Runs to make pages of, without training: every kind of block, and names that try to break out of the page."""

from __future__ import annotations

import networkx as nx
import numpy as np
import torch

from graphsparse.graphs.interop import open_graph
from graphsparse.graphs.picture import picture
from graphsparse.report.charts import bars, lines
from graphsparse.report.graph_parts import graph_section
from graphsparse.report.parts import Command, Facts, Prose, Run, Section, Sheet, Trend, figure

EVIL = '</script><img src=x onerror="window.hacked=1">\'&<b>{{7*7}}'
FORMULA = '=HYPERLINK("http://example.org","x")'
METHODS = ("teddy", "random", EVIL)


def karate(keep: float = 0.5) -> dict[str, object]:
    """The picture of the karate club with every other edge, labels and classes."""
    graph = nx.karate_club_graph()
    opened = open_graph(graph).edges
    mask = torch.from_numpy(np.random.default_rng(0).random(opened.num_edges) < keep)
    classes = torch.tensor([int(graph.nodes[node]["club"] == "Officer") for node in graph])
    return picture(opened, mask, y=classes, labels=[EVIL, *(f"node {i}" for i in range(1, 34))])


def run(name: str = f"digits {EVIL}") -> Run:
    """A run with all kinds of blocks."""
    trends = [
        Trend(
            method,
            "weights removed, %",
            "test accuracy, %",
            [10.0, 50.0, 90.0],
            [81.0 + i, 80.0, 70.0 + i],
            [1, None, 3],
        )
        for i, method in enumerate(METHODS)
    ]
    sheet = Sheet(
        "Methods beside each other",
        ["method", "test accuracy, %", "note", "missing"],
        [
            ["teddy", figure(0.705, 0.012, scale=100), "b", figure(None)],
            ["random", figure(0.0951, 0.03, scale=100), FORMULA, figure(3.0)],
            [EVIL, figure(0.812, scale=100), 'a "quoted", one', figure(None)],
        ],
        METHODS,
    )
    accuracy = Section(
        "Accuracy against sparsity",
        [Prose("Prose."), lines("Accuracy", trends, level=("dense", 81.5, 0.4)), sheet],
        ["dense", *METHODS],
    )
    layers = ["conv1.weight", "encoder.layers.0.self_attention.out_proj.weight", EVIL]
    weights = Section(
        "Weights kept per layer",
        [bars("Kept", layers, {"kept": [10.0, 0.0, 99.0]}, x_label="kept, %")],
        folded=True,
    )
    made = Section("How it was made", [Command("graphsparse ticket --dataset 'x y'"), Facts([("machine", EVIL)])])
    parts = [accuracy, graph_section(karate()), weights, made]
    return Run(name, "ticket", f"It kept half. {EVIL}", parts, {"test accuracy, %": figure(0.7, scale=100)}, trends)
