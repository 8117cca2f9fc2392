"""Backbones: both paths agree, a dropped edge is absent, and no graph meets another graph's matrix."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv, TransformerConv
from torch_geometric.utils import remove_self_loops, to_undirected

from graphsparse.nn import BACKBONES, GAT, GCN, GIN, Backbone, GraphSAGE, make
from graphsparse.nn.layers import MatrixGCNConv, MatrixSAGEConv

NAMES = sorted(BACKBONES)
BY_MATRIX = ["gcn", "gin", "sage"]


def small(name: str, seed: int = 0, **options: int | float) -> Backbone:
    return make(name, 6, 3, 16, seed=seed, **options).eval()


def features(nodes: int, seed: int = 0) -> Tensor:
    return torch.randn(nodes, 6, generator=torch.Generator().manual_seed(seed))


def outputs_and_gradients(model: Backbone, x: Tensor, edge_index: Tensor) -> list[Tensor]:
    outputs = model(x, edge_index)
    gradients = torch.autograd.grad(outputs.square().sum(), list(model.parameters()))
    return [outputs.detach(), *gradients]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, Tensor]:
    """Any multigraph: directed, with self-loops, copies and isolated nodes, also without edges."""
    nodes = draw(st.integers(1, 12))
    ids = st.integers(0, nodes - 1)
    arcs = draw(st.lists(st.tuples(ids, ids), max_size=40))
    return nodes, torch.tensor(arcs, dtype=torch.int64).reshape(-1, 2).t().contiguous()


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=40)
@given(graph=graphs())
def test_fast_and_plain_path_agree(name: str, graph: tuple[int, Tensor]) -> None:
    nodes, edge_index = graph
    model, x = small(name).double(), features(nodes).double()
    fast = outputs_and_gradients(model, x, edge_index)
    model.fast = False
    for one, other in zip(fast, outputs_and_gradients(model, x, edge_index), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=20)
@given(graph=graphs())
def test_sparse_features_give_the_same(name: str, graph: tuple[int, Tensor]) -> None:
    nodes, edge_index = graph
    model = small(name).double()
    x = features(nodes).double().relu()
    for one, other in zip(
        outputs_and_gradients(model, x, edge_index),
        outputs_and_gradients(model, x.to_sparse_csr(), edge_index),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def by_hand(name: str, model: Backbone, x: Tensor, edge_index: Tensor) -> Tensor:
    """The same two layers with PyG's classes as they come."""
    makers: dict[str, Callable[[int, int, bool], nn.Module]] = {
        "gcn": lambda i, o, last: GCNConv(i, o),
        "gin": lambda i, o, last: GINConv(nn.Linear(i, o)),
        "sage": lambda i, o, last: SAGEConv(i, o),
        "gat": lambda i, o, last: GATConv(i, o) if last else GATConv(i, o // 8, heads=8),
        "transformer": lambda i, o, last: TransformerConv(i, o) if last else TransformerConv(i, o // 8, heads=8),
    }
    first, second = makers[name](6, 16, False), makers[name](16, 3, True)
    first.load_state_dict(model.convs[0].state_dict())
    second.load_state_dict(model.convs[1].state_dict())
    activation = nn.ELU() if name == "gat" else nn.ReLU()
    return second(activation(first(x, edge_index)), edge_index)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_pygs(name: str) -> None:
    edge_index = torch.tensor([[0, 1, 1, 2, 3, 3, 3], [1, 0, 2, 1, 3, 4, 4]])
    model, x = small(name), features(6)
    torch.testing.assert_close(model(x, edge_index), by_hand(name, model, x, edge_index))


@pytest.mark.parametrize("name", NAMES)
def test_a_dropped_edge_sends_nothing(name: str) -> None:
    """Trap 5: changing a node must not move a node that it has no path to, in training or evaluation."""
    edge_index = to_undirected(torch.tensor([[0, 1, 2], [1, 2, 3]]))
    model = small(name, dropout=0.0)
    model(features(4), edge_index)  # the dense graph has been seen before
    kept = edge_index[:, ~((edge_index == 1).any(0) & (edge_index == 2).any(0))]
    x = features(4)
    moved = x.clone()
    moved[3] += 1
    for training in (True, False):
        model.train(training)
        before, after = model(x, kept), model(moved, kept)
        assert torch.equal(before[:2], after[:2])
        assert not torch.equal(before[2:], after[2:])


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_graph_never_meets_the_old_matrix(name: str) -> None:
    model, x = small(name), features(5)
    edge_index = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    model(x, edge_index)
    edge_index[1, 0] = 4  # in place, with a new version
    assert torch.equal(model(x, edge_index), small(name)(x, edge_index))
    edge_index.data[1, 0] = 3  # in place, without one
    assert torch.equal(model(x, edge_index), small(name)(x, edge_index))
    edge_index.numpy()[1, 0] = 2  # in place, unseen by torch
    assert torch.equal(model(x, edge_index), small(name)(x, edge_index))


@pytest.mark.parametrize("name", BY_MATRIX)
def test_a_new_tensor_at_an_old_address(name: str) -> None:
    model, x = small(name), features(5)
    memory = np.empty((2, 6), dtype=np.int64)  # every edge index below is a new tensor over the same bytes
    addresses = set()
    for seed in range(20):
        memory[:] = np.random.default_rng(seed).integers(0, 5, memory.shape)
        edge_index = torch.from_numpy(memory)
        addresses.add(edge_index.data_ptr())
        assert torch.equal(model(x, edge_index), small(name)(x, edge_index.clone()))
        del edge_index
    assert len(addresses) == 1


@pytest.mark.parametrize("name", BY_MATRIX)
def test_matrix_follows_nodes_and_type(name: str) -> None:
    model, edge_index = small(name), torch.tensor([[0, 1], [1, 2]])
    assert model(features(3), edge_index).shape == (3, 3)
    assert model(features(7), edge_index).shape == (7, 3)
    assert model.double()(features(7).double(), edge_index).dtype == torch.float64
    assert torch.equal(model.float()(features(3), edge_index.int()), model(features(3), edge_index))


@pytest.mark.parametrize("name", BY_MATRIX)
def test_matrix_is_built_once_for_alternating_graphs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    build = BACKBONES[name].matrix
    assert build is not None
    monkeypatch.setattr(BACKBONES[name], "matrix", lambda *args: built.append(1) or build(*args))
    model = small(name)
    one, other = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0], [1]])
    for _ in range(4):
        model(features(3), one)
        model(features(3), other)
    assert len(built) == 2


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_graph_is_stored_or_copied(name: str) -> None:
    model = small(name)
    before = set(model.state_dict())
    plain = len(pickle.dumps(model))
    nodes = 300
    edge_index = torch.randint(0, nodes, (2, 5000), generator=torch.Generator().manual_seed(0))
    expected = model(features(nodes), edge_index)
    assert set(model.state_dict()) == before
    assert len(pickle.dumps(model)) < plain + 2000
    clone = copy.deepcopy(model)
    assert torch.equal(clone(features(nodes), edge_index), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(features(nodes), edge_index), expected)


@pytest.mark.parametrize("name", NAMES)
def test_soft_masks_reach_every_message(name: str) -> None:
    edge_index, _ = remove_self_loops(torch.randint(0, 6, (2, 20), generator=torch.Generator().manual_seed(1)))
    model, x = small(name), features(6)
    dense = model(x, edge_index)
    ones = torch.ones(edge_index.size(1))
    set_masks(model, ones, edge_index, apply_sigmoid=False)
    torch.testing.assert_close(model(x, edge_index), dense)
    half = (0.5 * ones).requires_grad_()
    set_masks(model, half, edge_index, apply_sigmoid=False)
    masked = model(x, edge_index)
    assert not torch.allclose(masked, dense)
    (gradient,) = torch.autograd.grad(masked.square().sum(), half)
    assert bool((gradient != 0).any())
    clear_masks(model)
    assert torch.equal(model(x, edge_index), dense)


@pytest.mark.parametrize("parent", [MatrixGCNConv, MatrixSAGEConv])
def test_layers_hear_masks_after_their_parents_were_used(parent: type[nn.Module]) -> None:
    """PyG compiles a class at its first instance; a class that comes after its parent must not inherit that."""
    parent(6, 3)
    conv = type(f"Late{parent.__name__}", (parent,), {})(6, 3)
    edge_index = torch.tensor([[0, 1], [1, 2]])
    set_masks(conv, torch.zeros(2), edge_index, apply_sigmoid=False)
    no_edges = conv.__class__(6, 3)
    no_edges.load_state_dict(conv.state_dict())
    weight = {"edge_weight": torch.ones(2)} if parent is MatrixGCNConv else {}
    masked = conv(features(3), edge_index, **weight)
    assert not torch.allclose(masked, no_edges(features(3), edge_index, **weight))


@pytest.mark.parametrize("name", NAMES)
def test_message_hooks_are_called(name: str) -> None:
    model, x, edge_index = small(name), features(3), torch.tensor([[0, 1], [1, 2]])
    expected = model(x, edge_index)
    calls: list[int] = []
    handles = [conv.register_message_forward_hook(lambda conv, inputs, out: calls.append(1)) for conv in model.convs]
    torch.testing.assert_close(model(x, edge_index), expected)
    assert len(calls) == 2
    for handle in handles:
        handle.remove()
    model(x, edge_index)
    assert len(calls) == 2


@pytest.mark.parametrize("name", BY_MATRIX)
def test_a_sparse_tensor_of_the_callers(name: str) -> None:
    """PyG's layers take the transposed adjacency too; the matrix path must not read it as its own."""
    edge_index = to_undirected(torch.tensor([[0, 0, 1], [1, 2, 3]]))
    adjacency = (
        torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(6), (4, 4), check_invariants=True)
        .coalesce()
        .to_sparse_csr()
    )
    model, x = small(name), features(4)
    torch.testing.assert_close(model(x, adjacency), model(x, edge_index))


@pytest.mark.parametrize("name", NAMES)
def test_mixed_precision(name: str) -> None:
    model, x, edge_index = small(name), features(5), torch.tensor([[0, 1, 2], [1, 2, 3]])
    expected = model(x, edge_index)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model(x, edge_index).float(), expected, rtol=0.05, atol=0.05)


def test_gin_honours_a_loaded_eps() -> None:
    model, x, edge_index = small("gin"), features(3), torch.tensor([[0, 1], [1, 2]])
    with torch.no_grad():
        model.convs[0].eps.fill_(0.5)
    torch.testing.assert_close(model(x, edge_index), by_hand("gin", model, x, edge_index))


@pytest.mark.parametrize(("name", "shape"), [("gat", (1, 8, 64)), ("transformer", None)])
def test_heads_share_the_hidden_width(name: str, shape: tuple[int, ...] | None) -> None:
    model = make(name, 10, 7)
    assert (model.convs[0].heads, model.convs[0].out_channels, model.convs[1].heads) == (8, 64, 1)
    if shape is not None:
        assert model.convs[0].att_src.shape == shape
        assert model.dropout == model.convs[0].dropout == model.convs[1].dropout == 0.6


@pytest.mark.parametrize("name", NAMES)
def test_papers_shapes(name: str) -> None:
    model = make(name, 10, 7)
    assert (model.hidden_channels, model.num_layers) == (512, 2)
    assert model.dropout == (0.6 if name == "gat" else 0.5)
    assert not any(getattr(conv, "cached", False) for conv in model.convs)


@pytest.mark.parametrize("name", NAMES)
def test_input_is_not_dropped_out(name: str) -> None:
    model = make(name, 6, 3, 16, num_layers=1, dropout=0.9).train()
    model.convs[0].dropout = 0.0  # of the attention, where there is any
    x, edge_index = features(4), torch.tensor([[0, 1], [1, 2]])
    assert torch.equal(model(x, edge_index), model(x, edge_index))


@pytest.mark.parametrize("name", NAMES)
def test_depth_and_reset(name: str) -> None:
    model = make(name, 6, 3, 16, num_layers=3, seed=0)
    assert len(model.convs) == 3
    before = model.convs[1].state_dict()
    before = {key: value.clone() for key, value in before.items()}
    model.reset_parameters()
    changed = [key for key, value in model.convs[1].state_dict().items() if not torch.equal(value, before[key])]
    assert changed


def test_seed_makes_the_weights_and_spares_the_global_generator() -> None:
    state = torch.get_rng_state()
    one, same, other = make("gcn", 4, 2, 8, seed=1), make("GCN", 4, 2, 8, seed=1), make("gcn", 4, 2, 8, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.convs[0].lin.weight, other.convs[0].lin.weight)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown backbone 'gnc' \(did you mean '\w+'\?\); known are gat, gcn, gin"):
        make("gnc", 4, 2)
    with pytest.raises(ValueError, match="hidden_channels must be at least 1, got 0"):
        GCN(4, 0, 2)
    with pytest.raises(ValueError, match="num_layers must be at least 1"):
        GIN(4, 8, 2, num_layers=0)
    with pytest.raises(ValueError, match=r"dropout must lie in \[0, 1\], got 1.5"):
        GraphSAGE(4, 8, 2, dropout=1.5)
    with pytest.raises(ValueError, match="multiple of heads; got hidden_channels=12, heads=8"):
        GAT(4, 12, 2)
    for wrong in (4, -1):
        with pytest.raises(IndexError, match=f"edge_index names node {wrong}, but x has 4 rows"):
            small("gcn")(features(4), torch.tensor([[0], [wrong]]))


@pytest.mark.parametrize("name", ["gin", "sage"])
def test_sparse_features_do_not_leak_memory(name):
    """torch's product of two sparse matrices never frees its result on the CPU."""
    psutil = pytest.importorskip("psutil")
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(2000, 1000, generator=generator) < 0.02).float().to_sparse_csr()
    arcs = torch.randint(0, 2000, (2, 20000), generator=generator)
    model = make(name, 1000, 2, 4, seed=0).eval()
    with torch.no_grad():
        for _ in range(5):
            model(x, arcs)
        before = psutil.Process().memory_info().rss
        for _ in range(40):
            model(x, arcs)
    product_bytes = 20000 * 20 * 12  # what one call makes
    assert psutil.Process().memory_info().rss - before < 10 * product_bytes


def test_a_backbone_of_ones_own_is_registered_or_imported(tmp_path, monkeypatch):
    (tmp_path / "mine_net.py").write_text(
        "from torch_geometric.nn import GCN as PyG\n"
        "def net(i, hidden, o, *, num_layers=2, dropout=0.5):\n"
        "    return PyG(i, hidden, num_layers=num_layers, out_channels=o, dropout=dropout)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    imported = make("mine_net:net", 3, 2, 8, seed=0)
    assert sum(p.numel() for p in imported.parameters()) == 3 * 8 + 8 + 8 * 2 + 2
    BACKBONES.register("mine", imported.__class__)
    try:
        assert "mine" in BACKBONES.names()
    finally:
        del BACKBONES["mine"]
    with pytest.raises(TypeError, match="is no backbone"):
        BACKBONES.register("number", 3)
