"""find_ticket on a small graph and on real ones: exact counts, the traps, bad input, resuming."""

import copy
import dataclasses
import math
import types

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.utils import to_edge_index

import graphsparse as gs
from graphsparse.errors import TicketError
from graphsparse.fit import DivergedError
from graphsparse.tickets.finders.table import FINDERS

FAST = {"epochs": 8}


def pairs(data) -> int:
    return int((data.edge_index[0] < data.edge_index[1]).sum())


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("method", ["teddy", "random", "dspar"])
def test_counts_are_exact_and_loops_are_never_counted(blocks, make_plain, method):
    model = make_plain(blocks)
    ticket = gs.find_ticket(model, blocks, method=method, edge_keep=0.6, weight_keep=0.1, **FAST)
    m, weights = pairs(blocks), sum(p.numel() for p in model.parameters())
    sparse = ticket.sparse_graph(blocks)
    assert pairs(sparse) == math.ceil(m * 6 / 10)
    assert ticket.metrics["edges_kept"] == pairs(sparse) / m
    assert [1, 1] in sparse.edge_index.t().tolist()  # the self-loop stays and does not count
    assert sparse.is_undirected()
    kept = sum(int(mask.sum()) for mask in ticket.weight_masks.values())
    assert kept == math.ceil(weights / 10) == ticket.metrics["num_weights_kept"]
    matrices = [mask for mask in ticket.weight_masks.values() if mask.dim() == 2]
    assert ticket.metrics["weights_kept_matrices"] == pytest.approx(
        sum(int(mask.sum()) for mask in matrices) / sum(mask.numel() for mask in matrices)
    )


def test_which_matrices_keeps_every_bias(blocks, make_plain):
    ticket = gs.find_ticket(make_plain(blocks), blocks, edge_keep=1, weight_keep=0.25, which="matrices", **FAST)
    assert all(bool(mask.all()) for name, mask in ticket.weight_masks.items() if name.endswith("bias"))
    assert ticket.metrics["weights_kept_matrices"] == 0.25


def test_model_data_and_global_random_state_are_not_changed(blocks, make_plain):
    model = make_plain(blocks)
    before, data, random_state = state_of(model), copy.deepcopy(blocks), torch.get_rng_state()
    gs.find_ticket(model, blocks, edge_keep=0.5, weight_keep=0.5, **FAST)
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(data[key], blocks[key]) for key in ("x", "edge_index", "y", "train_mask"))


def test_equal_runs_give_equal_tickets_and_seeds_differ(blocks, make_plain):
    def find(seed):
        return gs.find_ticket(make_plain(blocks), blocks, edge_keep=0.5, weight_keep=0.2, seed=seed, **FAST)

    first, again, other = find(0), find(0), find(1)
    assert first.hash == again.hash != other.hash


def test_theta0_is_the_callers_and_not_the_trained_one(blocks, make_plain):
    model = make_plain(blocks)
    ticket = gs.find_ticket(model, blocks, edge_keep=0.5, weight_keep=0.2, **FAST)
    rewound = ticket.apply_to(make_plain(blocks, seed=9), rewind=True)
    for name, value in model.named_parameters():
        mask = ticket.weight_masks[name]
        assert torch.equal(rewound.get_parameter(name)[mask], value[mask])
        assert not rewound.get_parameter(name)[~mask].any()


@pytest.mark.parametrize("method", sorted(FINDERS))
def test_layers_that_cache_their_graph_give_the_same_ticket(blocks, make_plain, method):
    def find(cached):
        model = make_plain(blocks, cached=cached)
        with torch.no_grad():
            model.eval()(blocks.x, blocks.edge_index)  # fills the cache with the dense graph
        return gs.find_ticket(model, blocks, method=method, edge_keep=0.9, weight_keep=0.8, **FAST), model

    (plain, _), (cached, model) = find(False), find(True)
    assert torch.allclose(plain.logits, cached.logits, atol=1e-5)
    assert model.first._cached_edge_index is not None  # the caller's own cache is the caller's
    cached.verify(blocks, model=model)


def test_dropped_edges_send_nothing_even_through_attention(blocks):
    net = gs.nn.make("gat", 4, 4, 16, seed=0)
    ticket = gs.find_ticket(net, blocks, edge_keep=0.1, weight_keep=1, **FAST)
    sparse = ticket.sparse_graph(blocks)
    model = ticket.apply_to(net).eval()
    alone = next(v for v in range(160) if v not in sparse.edge_index[:, sparse.edge_index[0] != sparse.edge_index[1]])
    changed = blocks.x.clone()
    neighbours = blocks.edge_index[0][blocks.edge_index[1] == alone]
    changed[neighbours[neighbours != alone]] += 100.0
    with torch.no_grad():
        same = model(blocks.x, sparse.edge_index)[alone], model(changed, sparse.edge_index)[alone]
    assert torch.equal(*same)


def test_guard_and_isolated_nodes_are_reported(blocks, make_plain):
    plain = gs.find_ticket(make_plain(blocks), blocks, edge_keep=0.4, weight_keep=1, **FAST)
    covered = gs.find_ticket(make_plain(blocks), blocks, edge_keep=0.4, weight_keep=1, guard="cover", **FAST)
    assert plain.metrics["dense_isolated_nodes"] == 1
    assert 1 <= covered.metrics["isolated_nodes"] <= plain.metrics["isolated_nodes"]
    sparse = plain.sparse_graph(blocks)
    touched = sparse.edge_index[:, sparse.edge_index[0] != sparse.edge_index[1]].unique().numel()
    assert plain.metrics["isolated_nodes"] == 160 - touched


@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
@pytest.mark.parametrize("method", sorted(FINDERS))
def test_selection_never_looks_at_test_labels(blocks, make_plain, method, protocol):
    options = {"method": method, "edge_keep": 0.9, "weight_keep": 0.8, "protocol": protocol, **FAST}
    ticket = gs.find_ticket(make_plain(blocks), blocks, **options)
    scrambled = copy.copy(blocks)
    scrambled.y = blocks.y.clone()
    scrambled.y[blocks.test_mask] = (blocks.y[blocks.test_mask] + 1) % 4
    other = gs.find_ticket(make_plain(blocks), scrambled, **options)
    assert torch.equal(ticket.logits, other.logits)
    assert ticket.metrics["val"] == other.metrics["val"]
    assert ticket.metrics["test"] != other.metrics["test"]


@pytest.mark.parametrize("method", sorted(FINDERS))
def test_inductive_training_never_sees_test_nodes(blocks, make_plain, method):
    options = {"method": method, "edge_keep": 0.9, "weight_keep": 0.8, "protocol": "inductive", **FAST}
    ticket = gs.find_ticket(make_plain(blocks), blocks, **options)
    moved = copy.copy(blocks)
    moved.x = blocks.x.clone()
    moved.x[blocks.test_mask] += 50.0
    other = gs.find_ticket(make_plain(blocks), moved, **options)
    assert all(torch.equal(ticket.weights[name], other.weights[name]) for name in ticket.weights)
    assert ticket.metrics["val"] == other.metrics["val"]
    assert ticket.verify(blocks, model=make_plain(blocks, seed=4))["max_output_error"] < 1e-4


def test_tolerance_returns_the_sparsest_level_that_is_close_enough(blocks, make_plain):
    generous = gs.find_ticket(make_plain(blocks), blocks, tolerance=1.0, **FAST)
    assert generous.metrics["edges_kept"] == math.ceil(pairs(blocks) * 0.95**20) / pairs(blocks)
    picky = gs.find_ticket(make_plain(blocks), blocks, tolerance=0.05, distill=0.5, **FAST)
    assert picky.metrics["val"] >= picky.metrics["dense_val"] - 0.05


def test_a_ticket_that_is_just_within_the_tolerance_counts(blocks, make_plain, monkeypatch):
    from graphsparse.fit import NodeTask
    from graphsparse.tickets import Problem, Training, sparsest_within, train_dense
    from graphsparse.tickets.compare import search

    problem = Problem(make_plain(blocks), blocks, NodeTask(blocks), Training(epochs=1))
    dense = train_dense(problem)
    for right in range(5, 500):
        ticket = types.SimpleNamespace(metrics={"val": (right - 5) / 500})
        monkeypatch.setattr(search, "make_ticket", lambda *_, ticket=ticket: ticket)
        assert sparsest_within(problem, dataclasses.replace(dense, val=right / 500), "teddy", 0.01) is ticket


def test_a_summary_says_what_a_control_ignores(blocks, make_plain):
    for method, ignored in (("no-edges", "edge_keep"), ("dense-student", "edge_keep, weight_keep"), ("teddy", None)):
        ticket = gs.find_ticket(make_plain(blocks), blocks, method=method, edge_keep=0.5, weight_keep=0.5, epochs=1)
        assert gs.tickets.summarise({0: ticket}).get("ignores") == ignored


def test_tolerance_that_no_level_reaches_names_the_closest(blocks, make_plain):
    from graphsparse.fit import NodeTask
    from graphsparse.tickets import Problem, Training, sparsest_within, train_dense

    problem = Problem(make_plain(blocks), blocks, NodeTask(blocks), Training(epochs=2))
    with pytest.raises(TicketError, match=r"the closest is level \d+"):
        sparsest_within(problem, train_dense(problem), "teddy", tolerance=-1.0)


def test_an_interrupted_search_resumes_to_the_same_ticket(blocks, make_plain, tmp_path, monkeypatch):
    options = {"edge_keep": 0.5, "weight_keep": 0.5, "epochs": 12}
    whole = gs.find_ticket(make_plain(blocks), blocks, **options)
    calls = {"count": 0}
    model = make_plain(blocks)
    forward = type(model).forward

    def failing(self, x, edge_index):
        calls["count"] += 1
        if calls["count"] > 40:
            raise KeyboardInterrupt
        return forward(self, x, edge_index)

    monkeypatch.setattr(type(model), "forward", failing)
    with pytest.raises(KeyboardInterrupt):
        gs.find_ticket(model, blocks, checkpoint=tmp_path, **options)
    monkeypatch.setattr(type(model), "forward", forward)
    assert gs.find_ticket(model, blocks, checkpoint=tmp_path, **options).hash == whole.hash


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "say what to keep"),
        ({"edge_keep": 0.0}, ValueError, r"\(0, 1\]"),
        ({"edge_keep": 1.2}, ValueError, r"\(0, 1\]"),
        ({"weight_keep": float("nan")}, ValueError, "finite"),
        ({"weight_keep": "much"}, ValueError, "finite"),
        ({"edge_keep": 0.5, "tolerance": 0.1}, ValueError, "not both"),
        ({"tolerance": -0.1}, ValueError, "negative"),
        ({"edge_keep": 0.5, "method": "tedy"}, ValueError, "unknown finder"),
        ({"edge_keep": 0.5, "task": "edge"}, ValueError, "task"),
        ({"edge_keep": 0.5, "protocol": "both"}, ValueError, "protocol"),
        ({"edge_keep": 0.5, "guard": "all"}, ValueError, "guard"),
        ({"edge_keep": 0.5, "method": 5}, TypeError, "a finder is named by a string, got int"),
        ({"edge_keep": 0.5, "score_options": {"speed": 1}}, TypeError, "teddy does not take speed"),
        ({"edge_keep": 0.5, "method": "imp", "score_options": {"speed": 1}}, TypeError, "imp does not take speed"),
        ({"edge_keep": 0.5, "which": ("nowhere",)}, ValueError, "nowhere"),
        ({"edge_keep": 0.5, "distill": -1.0}, ValueError, "distill is the weight of a loss"),
        ({"edge_keep": 0.5, "distill": float("nan")}, ValueError, "distill is the weight of a loss"),
        ({"edge_keep": 0.5, "seed": 1.5}, ValueError, "seed must be a whole number"),
        ({"edge_keep": 0.5, "seed": 2**70}, ValueError, "seed must be a whole number"),
        ({"edge_keep": 0.5, "seed": True}, ValueError, "seed must be a whole number"),
        ({"edge_keep": 0.5, "epochs": 1.5}, ValueError, "epochs must be a whole number"),
        ({"edge_keep": 0.5, "epochs": "5"}, ValueError, "epochs must be a whole number"),
        ({"edge_keep": 0.5, "epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"edge_keep": 0.5, "epochs": 2**40}, ValueError, "epochs must be at least 1 and below"),
        ({"edge_keep": 0.5, "lr": 0.0}, ValueError, "lr is a learning rate, above 0 and finite, got 0"),
        ({"edge_keep": 0.5, "lr": math.nan}, ValueError, "lr is a learning rate, above 0 and finite, got nan"),
        ({"edge_keep": 0.5, "lr": "0.1"}, TypeError, "lr is a learning rate, a number, got str"),
        ({"edge_keep": 0.5, "weight_decay": -1}, ValueError, "weight_decay is the weight of a penalty, at least 0"),
        ({"edge_keep": 0.5, "weight_decay": math.inf}, ValueError, "weight_decay is the weight of a penalty"),
        ({"edge_keep": 0.5, "distill": True}, TypeError, "distill is the weight of a loss, a number, got bool"),
        ({"edge_keep": 0.5, "device": "gpu"}, ValueError, "there is no device 'gpu' here"),
        ({"edge_keep": 0.5, "device": "cuda:99"}, ValueError, "there is no device 'cuda:99' here"),
        ({"edge_keep": 0.5, "split": 0.5}, ValueError, "split must be a whole number"),
        ({"edge_keep": 0.5, "forest": "yes"}, TypeError, "forest must be True or False, got 'yes'"),
        ({"edge_keep": 0.5, "guard": ["cover"]}, ValueError, "guard must be None, 'cover' or 'isolated'"),
        ({"edge_keep": 0.5, "score_options": {"guard": "cover"}}, ValueError, "guard is no option of a score"),
        ({"edge_keep": 0.5, "score_options": {"seed": 1}}, ValueError, "seed is no option of a score"),
        ({"edge_keep": 0.5, "score_options": ["power"]}, TypeError, "score_options must be a dict"),
        ({"edge_keep": 0.5, "score_options": {1: 2}}, TypeError, "score_options must be named by strings"),
        ({"edge_keep": 0.5, "method": "ugs", "score_options": {"bogus": 1}}, TypeError, "ugs does not take bogus"),
    ],
)
def test_bad_arguments_get_one_clear_sentence_before_anything_is_trained(
    blocks, make_plain, options, error, message, monkeypatch
):
    monkeypatch.setattr("graphsparse.tickets.find.train_dense", lambda problem: pytest.fail("it was trained"))
    with pytest.raises(error, match=message):
        gs.find_ticket(make_plain(blocks), blocks, **{**FAST, **options})


def test_a_seed_may_be_any_whole_number(blocks, make_plain):
    one, other = (
        gs.find_ticket(make_plain(blocks), blocks, edge_keep=0.5, weight_keep=0.5, epochs=2, seed=seed)
        for seed in (3, np.int64(3))
    )
    assert one.hash == other.hash
    assert type(other.config["seed"]) is int


def test_other_kinds_of_graphs_are_told_what_makes_a_data_of_them(blocks, make_plain):
    held = Data(x=blocks.x, y=blocks.y, num_nodes=blocks.num_nodes)
    held.adj_t = torch.sparse_coo_tensor(blocks.edge_index.flip(0), torch.ones(blocks.num_edges)).to_sparse_csr()
    others = (
        (nx.karate_club_graph(), r"got Graph: torch_geometric.utils.from_networkx\(graph\)"),
        (Batch.from_data_list([blocks]), r"GraphSet \(graphsparse.data.join_graphs\)"),
        ([blocks], "got list: give many graphs"),
        (HeteroData(), r"to_homogeneous\(\)"),
        ("cora", r"graphsparse.data.load\(name\)"),
        (blocks.edge_index, "is made of its arrays"),
        (held, r"the edges of the data are in adj_t: data.edge_index = .*\.flip\(0\)"),
    )
    for graph, said in others:
        with pytest.raises(TypeError, match=said):
            gs.find_ticket(make_plain(blocks), graph, edge_keep=0.5, epochs=1)
    found = to_edge_index(held.adj_t)[0].flip(0)  # what the sentence says
    assert sorted(found.t().tolist()) == sorted(blocks.edge_index.t().tolist())


def test_an_edge_index_of_pygs_own_class_gives_the_same_ticket(blocks, make_plain):
    wrapped = blocks.clone()
    wrapped.edge_index = EdgeIndex(blocks.edge_index, sparse_size=(blocks.num_nodes, blocks.num_nodes))
    options = {"edge_keep": 0.5, "weight_keep": 0.5, "epochs": 2}
    first, second = (gs.find_ticket(make_plain(blocks), data, **options) for data in (blocks, wrapped))
    assert first.hash == second.hash


def test_bad_models_get_one_clear_sentence(blocks, make_plain):
    from torch_geometric.nn import GCNConv

    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        gs.find_ticket(lambda x, edge_index: x, blocks, edge_keep=0.5)
    with pytest.raises(ValueError, match="no values yet"):
        gs.find_ticket(GCNConv(-1, 4), blocks, edge_keep=0.5)
    model = make_plain(blocks)
    with torch.no_grad():
        model.first.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"first\.bias holds NaN"):
        gs.find_ticket(model, blocks, edge_keep=0.5)


def test_a_diverging_run_says_so_even_under_the_projection(blocks):
    class Blown(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = torch.nn.Linear(4, 4)

        def forward(self, x, edge_index):
            return self.lin(x) * (float("nan") if self.training else 1.0)

    with pytest.raises(DivergedError, match="loss of epoch 0 is nan"):
        gs.find_ticket(Blown(), blocks, edge_keep=0.5, weight_keep=0.5, **FAST)


def test_binary_tasks_use_their_own_metric(blocks, make_plain):
    data = copy.copy(blocks)
    data.y = (blocks.y > 1).long()
    data.metric = "rocauc"
    ticket = gs.find_ticket(gs.nn.make("sage", 4, 2, 8, seed=0), data, edge_keep=0.5, weight_keep=0.5, **FAST)
    assert ticket.metrics["metric"] == "rocauc"
    assert "test_accuracy" not in ticket.metrics
    ticket.verify(data)


@pytest.mark.parametrize("backbone", ["gcn", "gin", "gat", "sage", "transformer"])
def test_every_backbone_gives_a_ticket_that_verifies(blocks, backbone, tmp_path):
    net = gs.nn.make(backbone, 4, 4, 16, seed=0)
    ticket = gs.find_ticket(net, blocks, edge_keep=0.6, weight_keep=0.3, **FAST)
    ticket.save(tmp_path)
    report = gs.Ticket.load(tmp_path).verify(blocks, model=gs.nn.make(backbone, 4, 4, 16, seed=5))
    assert report["max_output_error"] < 1e-4
    assert 0 < ticket.metrics["macs"] < ticket.metrics["dense_macs"]


def test_cora_ticket_is_nearly_as_accurate_as_dense(need):
    need("Planetoid/Cora")
    data = gs.data.load("cora")
    net = gs.nn.make("gcn", data.num_features, data.num_classes, 64, seed=0)
    ticket = gs.find_ticket(net, data, edge_keep=0.6, weight_keep=0.2, epochs=100)
    assert ticket.metrics["dense_test_accuracy"] > 0.78
    assert ticket.metrics["test_accuracy"] > ticket.metrics["dense_test_accuracy"] - 0.05
    assert pairs(ticket.sparse_graph(data)) == math.ceil(5278 * 6 / 10)
    ticket.verify(data, model=net)
