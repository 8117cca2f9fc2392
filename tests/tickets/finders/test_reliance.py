"""Reliance: edges for nodes that lean on them; no label is read; links and molecules as well as nodes."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing, global_mean_pool

import graphsparse as gs
from graphsparse.edges import keep_mask
from graphsparse.fit import GraphTask, LinkTask, NodeTask
from graphsparse.tickets import Problem, Reliance, RelianceBlind, Training, level_keeps, train_dense


def problem_of(data, model, task=None, **options):
    return Problem(model, data, task or NodeTask(data), Training(epochs=options.pop("epochs", 5)), **options)


def test_the_count_is_exact_and_pairs_stay_together(blocks, make_plain):
    ticket = gs.find_ticket(make_plain(blocks), blocks, method="reliance", edge_keep=0.37, weight_keep=0.2, epochs=5)
    arcs = ticket.sparse_graph(blocks).edge_index
    pairs, loops = arcs[:, arcs[0] < arcs[1]], arcs[:, arcs[0] == arcs[1]]
    assert pairs.size(1) == math.ceil(0.37 * int((blocks.edge_index[0] < blocks.edge_index[1]).sum()))
    assert set(map(tuple, arcs[:, arcs[0] > arcs[1]].flip(0).t().tolist())) == set(map(tuple, pairs.t().tolist()))
    assert loops.tolist() == [[1], [1]]
    assert ticket.method == "reliance"
    assert ticket.verify(blocks, model=make_plain(blocks))


class Table(nn.Module):
    """Outputs that are given: those of a node whose edges are all gone, and those of a node with some."""

    def __init__(self, alone: torch.Tensor, together: torch.Tensor) -> None:
        super().__init__()
        self.alone, self.together = nn.Parameter(alone), nn.Parameter(together)

    def forward(self, x, edge_index):
        with_edges = torch.zeros(len(x), 1).index_fill(0, edge_index[1], 1.0)
        return with_edges * self.together + (1 - with_edges) * self.alone


def test_edges_go_where_they_are_needed_and_agreement_decides_between_neighbours():
    # 0 leans on its edges and agrees with 2, not with 1; 3 and 4 say the same with edges and without
    together = torch.tensor([[4.0, -4], [-4, 4], [4, -4], [4, -4], [4, -4]])
    alone = torch.tensor([[-4.0, 4], [-4, 4], [4, -4], [4, -4], [4, -4]])
    pairs = torch.tensor([[0, 0, 3], [1, 2, 4]])
    part = torch.arange(5)
    data = Data(
        x=torch.ones(5, 1),
        edge_index=torch.cat([pairs, pairs.flip(0)], dim=1),
        y=torch.tensor([0, 1, 0, 0, 0]),
        train_mask=part < 3,
        val_mask=part == 3,
        test_mask=part == 4,
    )
    problem = problem_of(data, Table(alone, together))
    problem = dataclasses.replace(problem, training=Training(epochs=1, lr=1e-9, weight_decay=0.0))
    dense = train_dense(problem)

    def kept(count, **options):
        return Reliance(**options)(problem, dense, Fraction(count, 3), Fraction(1, 2)).edge_mask[:3].tolist()

    assert kept(1) == [False, True, False], "the neighbour that agrees with the node that needs one"
    assert kept(2, floor=0.0) == [True, True, False], "without a floor nothing goes to those that need nothing"
    assert kept(2, floor=1.0) == [False, True, True], "with a high one agreement counts for more than need"


def test_no_label_of_a_test_node_is_read(blocks, make_plain):
    problem = problem_of(blocks, make_plain(blocks))
    dense = train_dense(problem)
    other = blocks.clone()
    other.y[other.test_mask] = (other.y[other.test_mask] + 1) % 4
    changed = problem_of(other, make_plain(other))
    masks = [Reliance()(p, dense, *level_keeps(20)).edge_mask for p in (problem, changed)]
    assert torch.equal(*masks)


def test_the_mask_does_not_depend_on_the_order_of_the_edges(blocks, make_plain):
    order = torch.randperm(blocks.num_edges, generator=torch.Generator().manual_seed(0))
    shuffled = blocks.clone()
    shuffled.edge_index = blocks.edge_index[:, order]
    problem = problem_of(blocks, make_plain(blocks))
    dense = train_dense(problem)
    again = problem_of(shuffled, make_plain(shuffled))
    mask, other = (Reliance()(p, dense, *level_keeps(15)).edge_mask for p in (problem, again))
    assert float((mask[order] == other).double().mean()) > 0.99  # sums in another order may turn a near-tie


class Columns(nn.Module):
    """A network of one logit, or the same with its two classes written out."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.columns = gs.nn.GCN(4, 8, 1), columns

    def forward(self, x, edge_index):
        logit = self.net(x, edge_index)
        return logit if self.columns == 1 else torch.cat([-logit / 2, logit / 2], dim=1)


def test_a_single_logit_is_two_classes(blocks):
    data = blocks.clone()
    data.y = (data.y > 1).long()
    masks = []
    for columns in (1, 2):
        problem = problem_of(data, Columns(columns), epochs=1)
        dense = dataclasses.replace(train_dense(problem), state=Columns(columns).state_dict())
        masks.append(Reliance()(problem, dense, *level_keeps(20)).edge_mask)
    assert torch.equal(*masks)


class Mean(nn.Module):
    """Divides by the number of neighbours, as a careless layer does."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)

    def forward(self, x, edge_index):
        degree = torch.zeros(len(x)).index_add(0, edge_index[1], torch.ones(edge_index.size(1)))
        return torch.zeros(len(x), 4).index_add(0, edge_index[1], self.lin(x)[edge_index[0]]) / degree[:, None]


def test_a_model_that_breaks_without_edges_is_named():
    pairs = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    part = torch.arange(4)
    masks = {"train_mask": part < 2, "val_mask": part == 2, "test_mask": part == 3}
    data = Data(x=torch.rand(4, 4), edge_index=pairs, y=part, **masks)
    problem = problem_of(data, Mean(), epochs=1)
    with pytest.raises(ValueError, match="Mean gives node 0 no finite output without edges"):
        Reliance()(problem, train_dense(problem), *level_keeps(20))


def test_node_outputs_are_those_on_the_whole_graph_and_leave_the_mode_alone(blocks, make_plain):
    task = NodeTask(blocks, protocol="inductive")
    model = make_plain(blocks)
    with torch.no_grad():
        expected = model.eval()(blocks.x, blocks.edge_index)
    torch.testing.assert_close(task.node_outputs(model.train()), expected)
    assert model.training


@pytest.mark.parametrize("level", [5, 20])
def test_an_inductive_task_trains_on_what_its_training_graph_alone_would_choose(blocks, make_plain, level):
    keep = level_keeps(level)
    problem = problem_of(blocks, make_plain(blocks), NodeTask(blocks, protocol="inductive"))
    dense = train_dense(problem)
    mask = Reliance()(problem, dense, *keep).edge_mask
    tails, heads = blocks.edge_index
    assert int((mask & (tails < heads)).sum()) == math.ceil(keep[0] * int((tails < heads).sum()))
    part = blocks.subgraph(~blocks.test_mask)
    part.update(_thirds(part.num_nodes))  # how it is judged does not matter
    alone = problem_of(part, make_plain(part))
    expected = Reliance()(alone, dataclasses.replace(dense, logits=dense.logits[~blocks.test_mask]), *keep).edge_mask
    assert torch.equal(mask[~blocks.test_mask[tails] & ~blocks.test_mask[heads]], expected)


def _thirds(count):
    part = torch.arange(count) % 3
    return {"train_mask": part == 0, "val_mask": part == 1, "test_mask": part == 2}


def test_links_and_molecules(blocks):
    arcs = blocks.edge_index[:, blocks.edge_index[0] != blocks.edge_index[1]]
    pairs = arcs[:, :20]
    links = Data(
        x=blocks.x,
        edge_index=arcs,
        train_pos_edge_index=arcs,
        **{f"{name}_edge_index": pairs for name in ("val_pos", "val_neg", "test_pos", "test_neg")},
    )
    net = gs.nn.GCN(4, 8, 8)
    problem = problem_of(links, net, LinkTask(links, metric="rocauc"), epochs=2)
    dense = train_dense(problem)
    model = problem.trained_model(dense)
    torch.testing.assert_close(problem.task.node_outputs(model), model(links.x, links.edge_index).detach())
    assert int(Reliance()(problem, dense, *level_keeps(20)).edge_mask.sum()) == 2 * math.ceil(
        level_keeps(20)[0] * (arcs.size(1) // 2)
    )
    graphs = triangles()
    problem = problem_of(graphs, Pooled(), GraphTask(graphs, metric="rmse"), epochs=2)
    dense = train_dense(problem)
    model = problem.trained_model(dense)
    expected = model.last(model.early(graphs.x, graphs.edge_index), graphs.edge_index)
    torch.testing.assert_close(problem.task.node_outputs(model), expected.detach())
    mask = Reliance()(problem, dense, *level_keeps(20)).edge_mask
    assert mask.view(12, 6).sum(dim=1).tolist() == [4] * 12, "each triangle keeps two of its three edges"


def triangles():
    """Twelve graphs of three nodes, a third of them for each part."""
    triangle = torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]])
    part = torch.arange(12) % 3
    return Data(
        x=torch.rand(36, 4, generator=torch.Generator().manual_seed(0)),
        edge_index=torch.cat([triangle + 3 * number for number in range(12)], dim=1),
        batch=torch.arange(12).repeat_interleave(3),
        y=torch.rand(12, 1),
        train_mask=part == 0,
        val_mask=part == 1,
        test_mask=part == 2,
    )


class Sum(MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr="add")
        self.lin = nn.Linear(4, 4)

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.lin(x))


class Pooled(nn.Module):
    """Two layers that pass messages, the last one registered first."""

    def __init__(self, layer=Sum) -> None:
        super().__init__()
        self.last, self.early, self.out = layer(), layer(), nn.Linear(4, 1)

    def forward(self, x, edge_index, edge_attr, batch):
        if not isinstance(self.last, Sum):
            return self.out(global_mean_pool(self.last(x), batch))
        return self.out(global_mean_pool(self.last(self.early(x, edge_index), edge_index), batch))


def test_states_of_graphs_need_a_layer_that_passes_messages(monkeypatch):
    data = Data(
        x=torch.rand(3, 4),
        edge_index=torch.zeros(2, 0, dtype=torch.long),
        batch=torch.arange(3),
        y=torch.rand(3, 1),
        train_mask=torch.arange(3) == 0,
        val_mask=torch.arange(3) == 1,
        test_mask=torch.arange(3) == 2,
    )
    task = GraphTask(data, metric="rmse")
    with pytest.raises(ValueError, match="Pooled calls no MessagePassing layer"):
        task.node_outputs(Pooled(lambda: nn.Linear(4, 4)))
    monkeypatch.setattr("graphsparse.tickets.find.train_dense", lambda problem: pytest.fail("it was trained"))
    for method, layer, said in (
        ("reliance", lambda: nn.Linear(4, 4), "Pooled calls no MessagePassing layer"),
        (
            "reliance-blind",
            Sum,
            "reliance-blind knows unseen nodes by the classes that their features say; an inductive",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            gs.find_ticket(Pooled(layer), data, task=task, method=method, edge_keep=0.5)


def test_on_cora_the_dense_model_recognises_the_graph_better_than_by_teddy(need):
    need("Planetoid/Cora")
    data = gs.data.load("cora")
    net = gs.nn.make("gcn", data.num_features, data.num_classes, 64, seed=0)
    problem = problem_of(data, net, NodeTask(data, protocol="inductive"), epochs=60)
    dense = train_dense(problem)
    keeps = level_keeps(20)
    own = Reliance()(dataclasses.replace(problem, training=Training(epochs=1)), dense, *keeps).edge_mask
    teddy = keep_mask(gs.edges.score(data, "teddy"), data.edge_index, keep=keeps[0])
    assert int(own.sum()) == int(teddy.sum())
    test = data.test_mask
    right = []
    for mask in (own, teddy):
        outputs = problem.task.with_mask(mask).predict(problem.trained_model(dense))
        right.append(float((outputs.argmax(dim=1) == data.y)[test].double().mean()))
    assert right[0] > right[1] + 0.03, right


def test_the_blind_variant_runs_the_trained_model_along_no_edge_of_a_test_node(blocks, make_plain, monkeypatch):
    problem = problem_of(blocks, make_plain(blocks), NodeTask(blocks, protocol="inductive"))
    dense, keep = train_dense(problem), level_keeps(10)[0]
    seen = []
    model = make_plain(blocks)
    forward = type(model).forward

    def spying(self, x, edge_index):
        seen.append((len(x), edge_index.clone()))
        return forward(self, x, edge_index)

    monkeypatch.setattr(type(model), "forward", spying)
    mask = RelianceBlind().edge_mask(problem, dense, keep)
    whole = [arcs for count, arcs in seen if count == blocks.num_nodes]
    assert whole, "test nodes are looked at, without edges"
    assert all(bool((arcs[0] == arcs[1]).all()) for arcs in whole), "the whole graph's only arcs are self-loops"
    assert max(count for count, arcs in seen if bool((arcs[0] != arcs[1]).any())) == int((~blocks.test_mask).sum())
    tails, heads = blocks.edge_index
    assert int((mask & (tails < heads)).sum()) == math.ceil(keep * int((tails < heads).sum()))
    seen.clear()
    Reliance().edge_mask(problem, dense, keep)
    assert any(bool((arcs[0] != arcs[1]).any()) for count, arcs in seen if count == blocks.num_nodes)


class Signs(nn.Module):
    """A network whose outputs at the nodes of `turned` change as soon as they have a neighbour."""

    def __init__(self, net: nn.Module, turned: torch.Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("turned", turned, persistent=False)

    def forward(self, x, edge_index):
        outputs = self.net(x, edge_index)
        if len(x) != len(self.turned):
            return outputs
        near = edge_index[1][edge_index[0] != edge_index[1]]
        helped = torch.zeros(len(x), dtype=torch.bool).index_fill(0, near, True) & self.turned
        return torch.where(helped[:, None], outputs.flip(1) * 5, outputs)


def test_what_the_dense_model_says_of_test_nodes_with_their_edges_moves_reliance_and_not_the_blind_variant(
    blocks, make_plain
):
    masks = {}
    for turned in (torch.zeros(160, dtype=torch.bool), blocks.test_mask):
        model = Signs(make_plain(blocks), turned)
        problem = problem_of(blocks, model, NodeTask(blocks, protocol="inductive"))
        dense = train_dense(problem)
        for finder in (Reliance(), RelianceBlind()):
            masks.setdefault(type(finder), []).append(finder.edge_mask(problem, dense, level_keeps(20)[0]))
    assert not torch.equal(*masks[Reliance])
    assert torch.equal(*masks[RelianceBlind])


@pytest.mark.parametrize("level", [5, 20])
def test_both_variants_choose_the_same_training_edges(blocks, make_plain, level):
    problem = problem_of(blocks, make_plain(blocks), NodeTask(blocks, protocol="inductive"))
    dense, keep = train_dense(problem), level_keeps(level)[0]
    seeing, blind = (finder.edge_mask(problem, dense, keep) for finder in (Reliance(), RelianceBlind()))
    tails, heads = blocks.edge_index
    unseen = blocks.test_mask[tails] | blocks.test_mask[heads]
    assert torch.equal(seeing[~unseen], blind[~unseen])
    assert not torch.equal(seeing[unseen], blind[unseen])


def test_the_blind_variant_refuses_test_graphs_that_it_would_have_to_look_at():
    """A graph task's training graph is all graphs, test graphs among them."""
    problem = problem_of(triangles(), Pooled(), GraphTask(triangles(), metric="rmse"), epochs=1)
    dense = train_dense(problem)
    with pytest.raises(ValueError, match="an inductive graph task has none, so take reliance"):
        RelianceBlind().edge_mask(problem, dense, level_keeps(20)[0])


def test_transductively_the_blind_variant_is_reliance(blocks, make_plain):
    problem = problem_of(blocks, make_plain(blocks))
    dense, keep = train_dense(problem), level_keeps(20)[0]
    assert torch.equal(*(finder.edge_mask(problem, dense, keep) for finder in (Reliance(), RelianceBlind())))
