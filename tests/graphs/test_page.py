"""The examples in the tables of docs/graphs-and-files.md run, and name every kind and every format."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.io
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData
from typer.testing import CliRunner

import graphsparse as gs
from graphsparse.cli.entry import app

PAGE = (Path(__file__).parents[2] / "docs/graphs-and-files.md").read_text()
EXAMPLES = re.findall(r"^\|.*\| `(gs\.sparsify\(.*?\))` \|$", PAGE, re.MULTILINE)
COMMANDS = re.findall(r"^\|.*\| `graphsparse (sparsify .*?)` \|$", PAGE, re.MULTILINE)
ABSENT = ("sparse_tensor", "graph_tool_graph", "dgl_graph")  # libraries that are not installed here
EDGES = list(nx.karate_club_graph().edges())


def objects(folder):
    edge_index = torch.tensor(EDGES).t().contiguous()
    data = Data(edge_index=edge_index, num_nodes=34)
    hetero = HeteroData()
    hetero["v"].num_nodes = 34
    hetero["v", "to", "v"].edge_index = edge_index
    pd.DataFrame(EDGES, columns=["src", "dst"]).to_csv(folder / "edges.csv", index=False)
    return {
        "gs": gs,
        "data": data,
        "hetero": hetero,
        "batch": Batch.from_data_list([data, data]),
        "edge_index": edge_index,
        "edge_weight": torch.ones(78),
        "wrapped": EdgeIndex(edge_index, sparse_size=(34, 34)),
        "edge_matrix": torch.sparse_coo_tensor(edge_index, torch.ones(78), (34, 34)).to_sparse_csr(),
        "adjacency": nx.to_numpy_array(nx.karate_club_graph()),
        "sources": edge_index[0],
        "targets": edge_index[1],
        "graph": nx.karate_club_graph(),
        "matrix": nx.to_scipy_sparse_array(nx.karate_club_graph()),
        "table": pd.DataFrame(EDGES, columns=["from", "to"]),
    }


@pytest.mark.parametrize("line", EXAMPLES)
def test_the_examples_of_kinds_run(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if any(name in line for name in ABSENT):
        pytest.skip("the library is not installed")
    known = objects(tmp_path)
    if "igraph" in line:
        known["igraph_graph"] = pytest.importorskip("igraph").Graph(edges=EDGES)
    if "networkit" in line:
        known["networkit_graph"] = pytest.importorskip("networkit").nxadapter.nx2nk(nx.karate_club_graph())
    assert eval(line, known) is not None


@pytest.mark.parametrize("line", COMMANDS)
def test_the_examples_of_files_run(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)
    kind = Path(words[1]).suffix[1:]
    if kind in ("parquet", "feather", ""):
        pytest.importorskip("pyarrow")
    frame = pd.DataFrame(EDGES, columns=["from", "to"] if "--src" in words else ["src", "dst"])
    graph = nx.karate_club_graph()
    if kind == "csv":
        frame.to_csv(words[1], index=False)
    elif kind == "parquet":
        frame.to_parquet(words[1])
    elif not kind:  # a folder of parts
        pytest.importorskip("distributed")
        Path(words[1]).mkdir()
        frame[:40].to_parquet(f"{words[1]}/a.parquet")
        frame[40:].to_parquet(f"{words[1]}/b.parquet")
    elif kind == "feather":
        frame.to_feather(words[1])
    elif kind == "txt":
        nx.write_edgelist(graph, words[1], data=False)
    elif kind == "npz":
        np.savez(words[1], edge_index=np.array(EDGES).T)
    elif kind == "graphml":
        nx.write_graphml(graph, words[1])
    elif kind == "gexf":
        nx.write_gexf(graph, words[1])
    else:
        scipy.io.mmwrite("in.mtx", nx.to_scipy_sparse_array(graph))
        if kind == "graph":
            gs.edges.sparsify_file("in.mtx", words[1], rules={"keep": 1.0})
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "kept 55 of 78" in done.output
    assert Path(words[2]).exists()


def test_every_kind_and_format_is_on_the_page():
    assert len(EXAMPLES) == 21
    assert len(COMMANDS) == 11
    for name in gs.graphs.FORMATS:
        assert f"`.{name}`" in PAGE, name
