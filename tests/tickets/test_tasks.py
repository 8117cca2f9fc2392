"""Tickets of links and of many graphs: the traps again, what a ticket stores and checks, resuming, real data."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

import graphsparse as gs
from graphsparse.data import join_graphs
from graphsparse.errors import TicketError
from graphsparse.fit import GraphTask, LinkTask, Metric, NodeTask
from graphsparse.tickets import Problem, Training, best_on_validation, make_ticket, sparsest_within, train_dense
from graphsparse.tickets.canonical import graph_hash

FAST = {"epochs": 4, "edge_keep": 0.6, "weight_keep": 0.3}


@pytest.fixture
def links() -> Data:
    generator = torch.Generator().manual_seed(0)
    pairs = torch.combinations(torch.arange(50)).t()
    same = pairs[0] % 2 == pairs[1] % 2
    within, between = (
        part[:, torch.randperm(part.size(1), generator=generator)] for part in (pairs[:, same], pairs[:, ~same])
    )
    return Data(
        edge_index=to_undirected(within[:, :200]),
        num_nodes=50,
        train_pos_edge_index=within[:, :200],
        val_pos_edge_index=within[:, 200:260],
        val_neg_edge_index=between[:, :60],
        test_pos_edge_index=within[:, 260:320],
        test_neg_edge_index=between[:, 60:120],
        metric="hits@20",
        task="link",
    )


@pytest.fixture
def molecules():
    """40 rings and chains in OGB's features; molecule 7 is a single atom; the target is whether it is a ring."""
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for number in range(40):
        atoms = 1 if number == 7 else 4 + number % 5
        path = torch.arange(atoms)
        pairs = torch.stack([path[:-1], path[1:]])
        if number % 2 and atoms > 1:
            pairs = torch.cat([pairs, torch.tensor([[atoms - 1], [0]])], dim=1)
        bonds = torch.randint(0, 2, (pairs.size(1), 3), generator=generator)
        graphs.append(
            Data(
                x=torch.randint(0, 2, (atoms, 9), generator=generator),
                edge_index=torch.cat([pairs, pairs.flip(0)], dim=1),
                edge_attr=torch.cat([bonds, bonds]),
                y=torch.tensor([[float(number % 2)]]),
            )
        )
    data = join_graphs(graphs, {"train": range(20), "val": range(20, 30), "test": range(30, 40)})
    data.metric, data.task = "rocauc", "graph"
    return data


@pytest.fixture(params=["link", "graph"])
def case(request, links, molecules):
    """A model and its data."""
    if request.param == "link":
        return gs.nn.make_link_net("sage", 50, 0, 8, seed=0), links
    return gs.nn.make_molecule_net("gin", 1, 8, seed=0), molecules


def pairs(edge_index) -> int:
    return int((edge_index[0] < edge_index[1]).sum())


def test_a_ticket_is_found_saved_loaded_and_verified(case, tmp_path):
    model, data = case
    ticket = gs.find_ticket(model, data, **FAST)
    ticket.save(tmp_path)
    again = gs.Ticket.load(tmp_path)
    assert again.hash == ticket.hash
    report = again.verify(data, model=copy.deepcopy(model), expected_hash=ticket.hash)
    assert report["max_output_error"] < 1e-4
    assert ticket.metrics["metric"] == data.metric
    assert 0 < ticket.metrics["macs"] < ticket.metrics["dense_macs"]
    weights = sum(p.numel() for p in model.parameters())
    assert ticket.metrics["num_weights_kept"] == math.ceil(weights * 3 / 10)


@pytest.mark.parametrize("weights", ["gmp", "random-erk"])
def test_weights_by_any_method(case, weights):
    model, data = case
    ticket = gs.find_ticket(model, data, **{**FAST, "epochs": 4}, weights=weights)
    assert ticket.metrics["num_weights_kept"] == math.ceil(sum(p.numel() for p in model.parameters()) * 3 / 10)
    assert ticket.verify(data, model=copy.deepcopy(model))["max_output_error"] < 1e-4


def test_a_graph_with_reordered_edges_still_verifies(case):
    model, data = case
    ticket = gs.find_ticket(model, data, **FAST)
    order = torch.randperm(data.num_edges, generator=torch.Generator().manual_seed(1))
    shuffled = copy.copy(data)
    shuffled.edge_index = data.edge_index[:, order]
    if data.edge_attr is not None:
        shuffled.edge_attr = data.edge_attr[order]
    assert ticket.verify(shuffled, model=model)["max_output_error"] < 1e-4


def test_equal_runs_give_equal_tickets_and_nothing_is_changed(case):
    model, data = case
    before, state = copy.deepcopy(data), {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    first, again, other = (gs.find_ticket(model, data, seed=seed, **FAST) for seed in (0, 0, 1))
    assert first.hash == again.hash != other.hash
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert all(torch.equal(before[key], data[key]) for key in before.keys() if isinstance(before[key], torch.Tensor))  # noqa: SIM118


def test_each_molecule_keeps_its_own_count_with_its_bonds_features(molecules):
    ticket = gs.find_ticket(gs.nn.make_molecule_net("gcn", 1, 8, seed=0), molecules, **FAST)
    sparse = ticket.sparse_graph(molecules)
    for number in range(40):
        before, after = (
            pairs(graph.edge_index[:, molecules.batch[graph.edge_index[0]] == number]) for graph in (molecules, sparse)
        )
        assert after == math.ceil(before * 6 / 10)
    assert sparse.is_undirected()
    known = {
        (*arc, *bond) for arc, bond in zip(molecules.edge_index.t().tolist(), molecules.edge_attr.tolist(), strict=True)
    }
    assert {(*a, *b) for a, b in zip(sparse.edge_index.t().tolist(), sparse.edge_attr.tolist(), strict=True)} <= known
    assert ticket.metrics["edges_kept"] == pairs(sparse.edge_index) / pairs(molecules.edge_index)
    for name in ("y", "batch", "train_mask", "x"):
        assert torch.equal(sparse[name], molecules[name])


def test_targets_of_graphs_are_never_cut_along_as_if_they_were_edges():
    """As many graphs as arcs: y and the masks have a row for each graph all the same."""
    chain = Data(
        x=torch.zeros(3, 9, dtype=torch.long), edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), y=torch.ones(1, 1)
    )
    atom = Data(
        x=torch.zeros(1, 9, dtype=torch.long), edge_index=torch.empty(2, 0, dtype=torch.long), y=torch.zeros(1, 1)
    )
    for graph in (chain, atom):
        graph.edge_attr = torch.zeros(graph.num_edges, 3, dtype=torch.long)
    data = join_graphs(
        [chain, atom, chain, atom, atom, atom, atom, atom], {"train": [0, 1], "val": [2, 3], "test": [4, 5]}
    )
    data.metric, data.task = "rmse", "graph"
    assert data.num_edges == data.num_graphs
    ticket = gs.find_ticket(gs.nn.make_molecule_net("gin", 1, 4, seed=0), data, epochs=1, edge_keep=0.5)
    sparse = ticket.sparse_graph(data)
    assert (sparse.num_edges, sparse.y.shape, sparse.train_mask.shape) == (4, (8, 1), (8,))


def test_predicted_links_are_never_sparsified_away(links):
    net = gs.nn.make_link_net("gcn", 50, 0, 8, seed=0)
    ticket = gs.find_ticket(net, links, epochs=2, edge_keep=0.1, weight_keep=1)
    sparse = ticket.sparse_graph(links)
    assert pairs(sparse.edge_index) == 20
    for name in ("train_pos", "val_pos", "val_neg", "test_pos", "test_neg"):
        assert torch.equal(sparse[f"{name}_edge_index"], links[f"{name}_edge_index"])
    assert ticket.logits.numel() == 4 * 60
    task = LinkTask(links)
    assert ticket.metrics["test"] == task.score(ticket.logits, "test")


def test_links_of_a_directed_graph_are_not_cut_along_with_its_arcs():
    """As many training links as arcs."""
    arcs = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
    other = torch.tensor([[0, 1], [2, 4]])
    judged = {f"{part}_{kind}_edge_index": other for part in ("val", "test") for kind in ("pos", "neg")}
    data = Data(edge_index=arcs, num_nodes=6, train_pos_edge_index=arcs, metric="hits@1", task="link", **judged)
    ticket = gs.find_ticket(gs.nn.make_link_net("gcn", 6, 0, 4, seed=0), data, epochs=1, edge_keep=0.5)
    sparse = ticket.sparse_graph(data)
    assert (sparse.num_edges, sparse.train_pos_edge_index.size(1)) == (3, 6)
    ticket.verify(data)


@pytest.mark.parametrize("name", ["test_pos_edge_index", "train_pos_edge_index", "num_nodes", "edge_index"])
def test_other_links_are_refused(links, name):
    ticket = gs.find_ticket(gs.nn.make_link_net("gcn", 50, 0, 8, seed=0), links, **FAST)
    other = copy.copy(links)
    other[name] = 51 if name == "num_nodes" else links[name][:, 1:]
    with pytest.raises(TicketError, match="not the ticket's graph"):
        ticket.verify(other)


@pytest.mark.parametrize("name", ["x", "y", "edge_attr", "batch", "test_mask", "edge_index"])
def test_other_molecules_are_refused(molecules, name):
    ticket = gs.find_ticket(gs.nn.make_molecule_net("gin", 1, 8, seed=0), molecules, **FAST)
    other, changed = copy.copy(molecules), molecules[name].clone()
    if name == "edge_index":
        changed = changed[:, 2:]
        other.edge_attr = molecules.edge_attr[2:]
    elif name == "test_mask":
        changed[0] = ~changed[0]
    else:
        changed.view(-1)[-1] = 1 - changed.view(-1)[-1] if name != "batch" else 38
    other[name] = changed
    with pytest.raises(TicketError, match="not the ticket's graph"):
        ticket.verify(other)


def test_what_edges_carry_belongs_to_the_graph_of_every_task():
    """It reaches the model. Data without it hashes as ever: old tickets stay valid."""
    part = torch.arange(6)
    masks = {"train_mask": part < 3, "val_mask": part == 3, "test_mask": part > 3}
    arcs = torch.tensor([[1, 0, 2, 1, 0], [2, 1, 3, 0, 1]])
    plain = Data(x=torch.eye(6), edge_index=arcs, y=part % 2, **masks)
    assert graph_hash(plain)[:16] == "539710449bf2df65"
    for name, values in (("edge_attr", torch.ones(5, 2)), ("edge_weight", torch.ones(5)), ("edge_type", part[:5])):
        carrying = copy.copy(plain)
        carrying[name] = values
        for kind in (NodeTask, LinkTask, GraphTask):
            assert graph_hash(carrying, 0, kind.hashed) != graph_hash(plain, 0, kind.hashed)


def test_minimised_metrics_choose_the_smallest(molecules):
    molecules.y = torch.randn(40, 1, generator=torch.Generator().manual_seed(0))
    molecules.metric = "rmse"
    model = gs.nn.make_molecule_net("gin", 1, 8, seed=0)
    problem = Problem(model, molecules, GraphTask(molecules), Training(epochs=2), about={"task": "graph"})
    dense = train_dense(problem)
    generous = sparsest_within(problem, dense, "teddy", 100.0)
    assert generous.config["edge_keep"] == str(gs.tickets.level_keeps(20)[0])
    with pytest.raises(TicketError, match=r"the closest is level \d+"):
        sparsest_within(problem, dense, "teddy", -100.0)
    tickets = {
        seed: make_ticket(problem, dense, "teddy", *gs.tickets.level_keeps(level)) for seed, level in enumerate((1, 20))
    }
    best = best_on_validation(tickets)
    assert best.metrics["val"] == min(ticket.metrics["val"] for ticket in tickets.values())


@pytest.mark.parametrize("method", ["random", "dspar", "no-edges", "all-edges", "magnitude"])
def test_other_finders(case, method):
    model, data = case
    ticket = gs.find_ticket(model, data, method=method, epochs=2, edge_keep=0.5, weight_keep=0.5)
    assert ticket.metrics["edges_kept"] == {"no-edges": 0.0, "all-edges": 1.0}.get(method, ticket.metrics["edges_kept"])
    ticket.verify(data, model=model)


def test_guards_hold_in_each_molecule(molecules):
    plain, covered = (
        gs.find_ticket(gs.nn.make_molecule_net("gin", 1, 8, seed=0), molecules, guard=guard, **FAST)
        for guard in (None, "cover")
    )
    assert plain.metrics["dense_isolated_nodes"] == 1
    assert covered.metrics["isolated_nodes"] < plain.metrics["isolated_nodes"]
    assert covered.metrics["edges_kept"] == plain.metrics["edges_kept"]


def test_an_interrupted_search_resumes_to_the_same_ticket(case, tmp_path, monkeypatch):
    model, data = case
    options = {"epochs": 6, "edge_keep": 0.5, "weight_keep": 0.5}
    whole = gs.find_ticket(model, data, **options)
    forward, calls = type(model).forward, {"count": 0}

    def failing(self, *inputs):
        calls["count"] += 1
        if calls["count"] > 20:
            raise KeyboardInterrupt
        return forward(self, *inputs)

    monkeypatch.setattr(type(model), "forward", failing)
    with pytest.raises(KeyboardInterrupt):
        gs.find_ticket(model, data, checkpoint=tmp_path, **options)
    monkeypatch.setattr(type(model), "forward", forward)
    assert gs.find_ticket(model, data, checkpoint=tmp_path, **options).hash == whole.hash


def test_a_task_of_the_callers_own_is_needed_again_to_verify(links):
    task = LinkTask(links, metric="rocauc", batch_size=None)
    net = gs.nn.make_link_net("gcn", 50, 0, 8, seed=0).encoder  # no decoder of its own: dot products
    ticket = gs.find_ticket(net, links, task=task, **FAST)
    assert ticket.metrics["metric"] == "rocauc"
    with pytest.raises(TicketError, match="pass it as task="):
        ticket.verify(links)
    ticket.verify(links, model=net, task=task)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "edge"}, "task must be 'node', 'link', 'graph'"),
        ({"protocol": "inductive"}, "transductive"),
        ({"split": 1}, "one split"),
    ],
)
def test_bad_arguments_get_one_clear_sentence(links, options, said):
    with pytest.raises(ValueError, match=said):
        gs.find_ticket(gs.nn.make_link_net("gcn", 50, 0, 8), links, **FAST, **options)


def test_the_inductive_test_runs_on_the_whole_graph_sparsified_at_the_same_keep(blocks, make_plain):
    ticket = gs.find_ticket(make_plain(blocks), blocks, protocol="inductive", **FAST)
    sparse = gs.sparsify(blocks, "teddy", keep=0.6)
    assert torch.equal(ticket.sparse_graph(blocks).edge_index, sparse.edge_index)
    model = ticket.apply_to(make_plain(blocks)).eval()
    with torch.no_grad():
        expected = model(sparse.x, sparse.edge_index)
    torch.testing.assert_close(ticket.logits[blocks.test_mask], expected[blocks.test_mask])
    seen = ~blocks.test_mask
    part = NodeTask(sparse, protocol="inductive")
    with torch.no_grad():
        inside = model(blocks.x[seen], part.training_edge_index)
    torch.testing.assert_close(ticket.logits[seen], inside)


def test_real_drug_interactions(need):
    """One epoch on a narrow net and the first 1000 drugs: the path from files to a verified ticket, and no figure."""
    need("ogb/ogbl_ddi")
    data = gs.data.load("ogbl-ddi")
    keys = {name: data[name][0] * 4267 + data[name][1] for name in data.keys() if name.endswith("pos_edge_index")}  # noqa: SIM118
    arcs = data.edge_index[0] * 4267 + data.edge_index[1]
    judged = torch.cat([keys["val_pos_edge_index"], keys["test_pos_edge_index"]])
    assert not torch.isin(judged, arcs).any()
    assert torch.isin(keys["train_pos_edge_index"], arcs).all()
    for name in [name for name in data.keys() if name.endswith("edge_index")]:  # noqa: SIM118
        data[name] = data[name][:, (data[name] < 1000).all(0)]
    data.num_nodes, pairs = 1000, data.train_pos_edge_index.size(1)
    net = gs.nn.make_link_net("sage", data.num_nodes, 0, 8, seed=0).encoder
    task = LinkTask(data, batch_size=1 << 19)
    ticket = gs.find_ticket(net, data, task=task, epochs=1, edge_keep=0.5, weight_keep=0.5)
    assert ticket.metrics["edges_kept"] == math.ceil(pairs / 2) / pairs
    assert ticket.verify(data, model=net, task=task)["max_output_error"] < 1e-2
    from graphsparse.data import load_ogb

    sizes = [data[f"{part}_{kind}_edge_index"].size(1) for part in ("val", "test") for kind in ("pos", "neg")]
    positive, negative = ticket.logits.split(sizes)[2:]
    official = load_ogb("ogbl-ddi").evaluator.eval({"y_pred_pos": positive, "y_pred_neg": negative})
    assert ticket.metrics["test"] == pytest.approx(official["hits@20"])


@pytest.mark.parametrize(("name", "graphs"), [("ogbg-molbace", 1513), ("ogbg-molfreesolv", 642)])
def test_real_molecules(need, name, graphs):
    """A classification and a regression: official figures from the ticket's outputs."""
    need(f"ogb/{name.replace('-', '_')}")
    data = gs.data.load(name)
    assert data.num_graphs == graphs
    net = gs.nn.make_molecule_net("gin", 1, 8, seed=0)
    ticket = gs.find_ticket(net, data, epochs=2, edge_keep=0.5, weight_keep=0.5, lr=1e-3)
    ticket.verify(data, model=net)
    from graphsparse.data import load_ogb

    task = load_ogb(name)
    test = task.splits["test"]
    truth = torch.stack([task.dataset[int(number)].y.view(-1) for number in test])
    official = task.evaluator.eval({"y_true": truth, "y_pred": ticket.logits[test]})
    assert ticket.metrics["test"] == pytest.approx(official[task.metric], rel=1e-5)


def test_a_metric_of_ones_own_that_is_an_error(molecules, tmp_path):
    """It is no share, so no per cent; and the data that brings it is enough to verify."""

    def distance(outputs, targets):
        return float((outputs - targets).abs().mean())

    molecules.y = molecules.y + 0.5
    molecules.metric = Metric("mae", distance, maximize=False)
    model = gs.nn.make_molecule_net("gin", 1, 8, seed=0)
    ticket = gs.find_ticket(model, molecules, **FAST)
    dense, sparse = ticket.metrics["dense_test"], ticket.metrics["test"]
    worse = "above" if sparse > dense else "below"
    assert ticket.standing.sentence.startswith(f"the ticket is {abs(sparse - dense):.3f} {worse} the dense model (one")
    shown = ticket._repr_html_()
    assert "test mae</th>" in shown
    assert f"{dense:.3f}</td>" in shown
    ticket.save(tmp_path)
    assert gs.Ticket.load(tmp_path).verify(molecules, model=model)["test"] == pytest.approx(sparse, abs=1e-6)
    molecules.metric = "rmse"
    with pytest.raises(TicketError, match="the metric of graphs must be"):
        ticket.verify(molecules)
    assert ticket.verify(molecules, task=GraphTask(molecules, metric=Metric("mae", distance, maximize=False)))
