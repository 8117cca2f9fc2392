"""A guard against a slip from linear to quadratic: it counts executed lines and bytes, and no seconds.

The compiled loops run as the Python that they are written in, line by line under a trace, on graphs of one kind and two
sizes. Work on four times the edges that grows as m log m takes at most five times the lines, and as m^2 sixteen times.
What is written without loops shows in the peak of memory.
"""

import gc
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

import graphsparse as gs
from graphsparse import float_bits, keep_rule, sorting, sorting_loops
from graphsparse.edges import approximate_cholesky, keep, pair_kernels, resistance_kernels
from graphsparse.edges.scores import local_degree, resistance
from graphsparse.graphs import arcs, loops

PACKAGE = str(Path(gs.__file__).parent)
SMALL, TIMES = 160, 4
MOST = 6.5  # times: between m log m, with room for noise of small graphs, and m^1.5
RULES = {
    "cover": {"guard": "cover", "keep": 0.3},
    "isolated": {"guard": "isolated", "keep": 0.9},
    "forest": {"forest": True, "keep": 0.9},
    "cover and forest": {"forest": True, "guard": "cover", "keep": 0.9},
    "per_node": {"per_node": 2},
}
OPTIONS = {"effective_resistance": {"exact_up_to": 10, "num_projections": 2}}


@pytest.fixture(autouse=True)
def in_python(monkeypatch):
    """All sizes take the paths of large graphs, and every compiled loop is the Python that it is written in."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for module in (loops, pair_kernels, approximate_cholesky, resistance_kernels, sorting_loops, float_bits):
        for name, found in vars(module).copy().items():
            if hasattr(found, "py_func"):
                monkeypatch.setattr(module, name, found.py_func)
    for module, name in ((arcs, "COMPILE_FROM"), (sorting, "RADIX_FROM"), (keep_rule, "RADIX_FROM")):
        monkeypatch.setattr(module, name, 2)
    monkeypatch.setattr(keep, "_loop", lambda name, count: getattr(loops, name))
    monkeypatch.setattr(local_degree, "COMPILE_FROM", 0)
    monkeypatch.setattr(resistance, "BAND", 0)
    monkeypatch.setattr(float_bits, "SIGN_AND_DIGIT", 5)  # or its tables would be most of the memory
    with np.errstate(over="ignore"):
        yield
    torch.set_num_threads(before)


def drawn(pairs, seed=0):
    """A graph of exactly so many pairs with a heavy tail, and features."""
    generator = np.random.default_rng(seed)
    nodes = pairs // 3
    ends = (nodes * generator.random((2, 4 * pairs)) ** 1.5).astype(np.int64)
    found = np.unique(ends[:, ends[0] < ends[1]], axis=1)
    found = found[:, generator.permutation(found.shape[1])[:pairs]]
    assert found.shape[1] == pairs
    edge_index = torch.from_numpy(np.concatenate([found, found[::-1]], axis=1))
    x = torch.from_numpy(generator.random((nodes, 4)))
    return Data(edge_index=edge_index, num_nodes=nodes, x=x)


def lines(call):
    """Lines of the package that a call executes."""
    count = 0

    def local(frame, event, arg):
        nonlocal count
        count += event == "line"
        return local

    def start(frame, event, arg):
        return local if frame.f_code.co_filename.startswith(PACKAGE) else None

    before = sys.gettrace()
    sys.settrace(start)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def peak(call):
    """The most memory that a call holds at a time, in bytes, numpy's arrays and Python's objects."""
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def growth(call):
    """How many times the lines and the memory that ``call(graph)`` takes for so many times the edges."""
    graphs = [drawn(SMALL), drawn(SMALL * TIMES)]
    call(graphs[0])  # imports, and tables that are read once
    work = [lines(lambda graph=graph: call(graph)) for graph in graphs]
    room = [peak(lambda graph=graph: call(graph)) for graph in graphs]
    return work[1] / work[0], room[1] / room[0]


@pytest.mark.parametrize("method", sorted(gs.edges.SCORES))
def test_scores_grow_with_the_edges(method):
    options = OPTIONS.get(method, {})
    work, room = growth(lambda graph: gs.sparsify(graph, method, keep=0.5, **options))
    assert work < MOST
    assert room < MOST


@pytest.mark.parametrize("rule", sorted(RULES))
def test_rules_grow_with_the_edges(rule):
    work, room = growth(lambda graph: gs.sparsify(graph, "dspar", **RULES[rule]))
    assert work < MOST
    assert room < MOST


def test_uneven_scores_and_samples_grow_with_the_edges():
    uneven = torch.rand(2 * SMALL * TIMES, generator=torch.Generator().manual_seed(0))
    for call in (
        lambda graph: gs.sparsify(graph, uneven[: graph.num_edges], keep=0.5),
        lambda graph: gs.edges.sample(graph, "dspar", keep=0.5),
    ):
        work, room = growth(call)
        assert work < MOST
        assert room < MOST


def test_the_guard_sees_what_is_quadratic(monkeypatch):
    def slow(low, high, seen, most, taken):
        for i in range(len(low)):
            for j in range(i):
                taken[i] |= low[j] == low[i]

    slow.__code__ = slow.__code__.replace(co_filename=loops.__file__)
    monkeypatch.setattr(loops, "best_of_nodes", slow)
    assert growth(lambda graph: gs.sparsify(graph, "dspar", per_node=2))[0] > MOST

    def wide(edges):
        tails = edges.edge_index[0].numpy()
        return torch.from_numpy((tails[:, None] == tails[None]).sum(1).astype(np.float64))

    assert growth(lambda graph: gs.sparsify(graph, wide, keep=0.5))[1] > MOST
