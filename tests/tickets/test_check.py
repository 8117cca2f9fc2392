"""What a finder hands over, to the last edge and weight; what a ticket costs; what a student learns from."""

import copy
import dataclasses
from fractions import Fraction

import pytest
import torch
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

import graphsparse as gs
from graphsparse.errors import TicketError
from graphsparse.fit import GraphTask, NodeTask
from graphsparse.graphs.interop import open_graph
from graphsparse.tickets import OneShot, Problem, Training, train_dense
from graphsparse.tickets.check import check_claims, check_edges, check_found, check_outputs, scores
from graphsparse.tickets.make import isolated_nodes, macs

EDGES, WEIGHTS = Fraction(1, 2), Fraction(1, 2)


@pytest.fixture
def solved(blocks, make_plain):
    problem = Problem(make_plain(blocks), blocks, NodeTask(blocks), Training(epochs=2))
    dense = train_dense(problem)
    return problem, OneShot("random")(problem, dense, EDGES, WEIGHTS)


def test_one_edge_or_weight_too_many_is_one_too_many(solved, blocks):
    problem, found = solved
    check_found(problem, found, EDGES, WEIGHTS)
    pairs = int((blocks.edge_index[0] < blocks.edge_index[1]).sum())
    kept = -(-pairs // 2)
    with pytest.raises(TicketError, match=f"kept {kept} edges, but {kept - 1} were asked for"):
        check_found(problem, found, Fraction(kept - 1, pairs), WEIGHTS)
    weights = sum(value.numel() for value in problem.model.parameters())
    most = -(-weights // 2)
    with pytest.raises(TicketError, match=f"kept {most} weights, but {most - 1} were asked for"):
        check_found(problem, found, EDGES, Fraction(most - 1, weights))
    fewer = found.edge_mask.clone()
    arcs = blocks.edge_index
    one = int((fewer & (arcs[0] != arcs[1])).nonzero()[0])
    u, v = arcs[:, one].tolist()
    fewer[((arcs[0] == u) & (arcs[1] == v)) | ((arcs[0] == v) & (arcs[1] == u))] = False
    check_edges(open_graph(blocks).edges, fewer, None, EDGES, "finder")  # fewer is fine


def test_a_weight_without_a_mask_counts_as_kept(solved):
    problem, found = solved
    name = next(iter(found.weight_masks))
    masks = {key: mask for key, mask in found.weight_masks.items() if key != name}
    with pytest.raises(TicketError, match=r"weights, but .* were asked for"):
        check_found(problem, dataclasses.replace(found, weight_masks=masks), EDGES, WEIGHTS)
    every = {key: torch.ones_like(mask) for key, mask in found.weight_masks.items()}
    check_found(problem, dataclasses.replace(found, weight_masks=every), EDGES, Fraction(1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_none(solved, value):
    problem, found = solved
    logits = found.result.logits.clone()
    logits[0, 0] = value
    with pytest.raises(TicketError, match="the stored outputs are not finite"):
        check_found(problem, dataclasses.replace(found, result=dataclasses.replace(found.result, logits=logits)), 1, 1)


def test_outputs_may_differ_by_rounding_and_no_more(solved):
    problem, found = solved
    task, model = problem.task.with_mask(found.edge_mask), problem.trained_model(found.result)
    stored, size = found.result.logits, float(found.result.logits.abs().max())
    assert check_outputs(task, model, stored) <= 1e-5
    off = stored.clone()
    off[3, 1] += 0.5e-3 * max(size, 1.0)
    assert check_outputs(task, model, off) == pytest.approx(0.5e-3 * max(size, 1.0), rel=0.05)
    off[3, 1] += 1e-3 * max(size, 1.0)
    with pytest.raises(TicketError, match=r"differ from the stored ones by up to 0\.00"):
        check_outputs(task, model, off)
    off = stored.clone()
    off[3, 1] -= 2e-3 * max(size, 1.0)
    with pytest.raises(TicketError, match="differ from the stored ones"):
        check_outputs(task, model, off)
    large = copy.deepcopy(model)
    with torch.no_grad():
        large.second.lin.weight.mul_(1000)
        large.second.bias.mul_(1000)
    outputs = task.predict(large)
    shifted = outputs + 0.5e-3 * float(outputs.abs().max())  # rounding is relative
    assert check_outputs(task, large, shifted) > 1e-3


def test_claims_are_held_to_a_millionth(solved):
    problem, found = solved
    figures = scores(problem.task, found.result.logits)
    assert figures == {"test": problem.task.score(found.result.logits, "test"), "val": found.result.val}
    check_claims({"test": 0.5}, {"test": 0.5 + 0.9e-6}, "outputs", "finder")
    for claim in (0.5 + 1.1e-6, 0.5 - 1.1e-6, float("nan"), float("inf"), "0.5", None, [0.5]):
        with pytest.raises(TicketError, match=r"the outputs give test 0\.500000, the finder claims"):
            check_claims({"test": 0.5}, {"test": claim}, "outputs", "finder")
    with pytest.raises(TicketError, match="claims None"):
        check_claims({"test": 0.5}, {}, "outputs", "finder")


def test_each_of_many_graphs_has_its_own_count():
    ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    ring = torch.cat([ring, ring.flip(0)], dim=1)
    data = Data(x=torch.eye(5).repeat(6, 1), edge_index=torch.cat([ring + 5 * i for i in range(6)], dim=1))
    data.batch, data.y = torch.arange(6).repeat_interleave(5), (torch.arange(6) % 2).float()[:, None]
    for start, part in enumerate(("train_mask", "val_mask", "test_mask")):
        data[part] = torch.arange(6) // 2 == start
    task, graph = GraphTask(data, metric="rocauc"), open_graph(data).edges
    half = (ring[0] + ring[1] < 4).repeat(6)  # two pairs of four
    check_edges(graph, half, task.graph_of, Fraction(1, 2), "finder")
    moved = half.clone()
    moved[8 * 4 : 8 * 5], moved[8 * 3 : 8 * 4] = True, False  # as many in all
    with pytest.raises(TicketError, match="kept 4 edges of graph 4, but 2 were asked for"):
        check_edges(graph, moved, task.graph_of, Fraction(1, 2), "finder")


def test_a_directed_graph_is_counted_by_arcs():
    arcs = torch.tensor([[0, 1, 2, 3, 1], [1, 2, 0, 3, 3]])  # a loop at 3
    graph = open_graph(Data(edge_index=arcs, num_nodes=4)).edges
    mask = torch.tensor([True, True, False, True, False])
    check_edges(graph, mask, None, Fraction(1, 2), "finder")
    with pytest.raises(TicketError, match="kept 3 edges, but 2 were asked for"):
        check_edges(graph, torch.tensor([True, True, True, True, False]), None, Fraction(1, 2), "finder")
    with pytest.raises(TicketError, match="dropped self-loops"):
        check_edges(graph, torch.tensor([True, True, False, False, False]), None, Fraction(1, 2), "finder")
    check_edges(graph, torch.ones(5, dtype=torch.bool), None, None, "finder")


def test_multiply_accumulates_by_hand(blocks, make_plain):
    """Rows times weights that are not zero, and one sum for each message and column; PyG adds a loop at each node."""
    model = make_plain(blocks)
    arcs = blocks.num_edges - 1 + 160  # one loop is there already
    by_hand = 160 * 4 * 16 + arcs * 16 + 160 * 16 * 4 + arcs * 4
    assert macs(model, blocks.x, blocks.edge_index) == by_hand
    with torch.no_grad():
        model.first.lin.weight[:3] = 0
    assert macs(model, blocks.x, blocks.edge_index) == by_hand - 160 * 4 * 3
    ticket = gs.find_ticket(make_plain(blocks), blocks, edge_keep=0.5, weight_keep=1, epochs=1)
    left = ticket.metrics["num_arcs_kept"] + 160
    assert ticket.metrics["dense_macs"] == by_hand
    assert ticket.metrics["macs"] == 160 * 4 * 16 + left * 16 + 160 * 16 * 4 + left * 4
    assert isolated_nodes(blocks.edge_index, 160) == 1


class Plain(torch.nn.Module):
    """No dropout: the loss of the first step can be computed by hand."""

    def __init__(self):
        super().__init__()
        self.first, self.second = GCNConv(4, 8), GCNConv(8, 4)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu(), edge_index)


def test_the_first_loss_of_a_student_by_hand(blocks):
    r"""Cross-entropy on training labels plus lambda KL(teacher || student) over all nodes."""
    torch.manual_seed(0)
    problem = Problem(Plain(), blocks, NodeTask(blocks), Training(epochs=5, distill=3.0))
    dense = train_dense(problem)
    found = OneShot("random")(problem, dense, EDGES, Fraction(1))
    with torch.no_grad():
        student = problem.model(blocks.x, blocks.edge_index[:, found.edge_mask]).log_softmax(1)
    teacher = dense.logits.log_softmax(1)
    divergence = (teacher.exp() * (teacher - student)).sum(1).mean()
    labelled = functional.nll_loss(student[blocks.train_mask], blocks.y[blocks.train_mask])
    assert found.result.history[0]["loss"] == pytest.approx(float(labelled + 3 * divergence), rel=1e-4)
    assert problem.teach(dense).weight == 3.0
    alone = dataclasses.replace(problem, training=Training(epochs=5, distill=0.0))
    assert alone.teach(dense) is None
