"""The mixture of scores: votes worked out by hand, a router that learns, and training that sees no test node."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

import graphsparse as gs
from graphsparse.edges.score_table import SCORES
from graphsparse.fit import NodeTask
from graphsparse.graphs.interop import EdgeList, open_graph
from graphsparse.tickets import Mixture, Problem, Training, level_keeps, train_dense
from graphsparse.tickets.finders.mixture import EdgeVotes, Router


def star(leaves: int) -> EdgeList:
    pairs = torch.stack([torch.zeros(leaves, dtype=torch.long), torch.arange(1, leaves + 1)])
    return open_graph(torch.cat([pairs, pairs.flip(0)], dim=1)).edges


def test_votes_are_those_of_the_laplacians_minus_the_projections_on_their_kernels():
    graph = star(4)
    rising = graph.edge_index.max(dim=0).values.double()
    votes = EdgeVotes.of(graph, [-rising, rising], [Fraction(1, 2), Fraction(3, 4)], seed=0)
    gates = torch.tensor([0.1, 0.2, 0.3, 0.4])  # of the hub's four experts
    mixed = torch.zeros(5, 5, dtype=torch.float64)
    for gate, kept in zip(gates, ([1, 2], [1, 2, 3], [4, 3], [4, 3, 2]), strict=True):
        adjacency = torch.zeros(5, 5, dtype=torch.float64)
        adjacency[0, kept] = adjacency[kept, 0] = 1.0
        laplacian = adjacency.sum(dim=1).diag() - adjacency
        values, vectors = torch.linalg.eigh(laplacian)
        kernel = vectors[:, values < 1e-9]
        mixed += gate * (laplacian - kernel @ kernel.t())
    hub = torch.zeros(5, 4)
    hub[0] = gates
    assert (votes.low.tolist(), votes.high.tolist(), votes.size) == ([0] * 4, [1, 2, 3, 4], 4)
    torch.testing.assert_close(2 * votes.worth(hub).double(), -mixed[0, 1:])


def test_a_leaf_keeps_its_only_edge_whatever_the_share():
    graph = star(4)
    votes = EdgeVotes.of(graph, [-graph.edge_index.max(dim=0).values.double()], [Fraction(1, 100)], seed=0)
    assert votes.at_low[:, 0].tolist() == [1.5, 0, 0, 0], "the hub keeps one of four"
    assert votes.at_high[:, 0].tolist() == [1.5] * 4


def test_gates_are_noisy_in_training_and_not_after():
    router, x = Router(2, experts=6, top=2), torch.ones(50, 2)
    assert len(router(x).argmax(dim=1).unique()) > 1
    quiet = router.eval()(x)
    assert bool((quiet == quiet[0]).all())
    torch.testing.assert_close(quiet.sum(dim=1), torch.ones(50))
    assert int((quiet[0] > 0).sum()) == 2


class ByNeighbours(nn.Module):
    """The mean of its neighbours' features decides, those of the node itself do not."""

    def __init__(self) -> None:
        super().__init__()
        self.net = gs.nn.GCN(3, 8, 2)

    def forward(self, x, edge_index):
        return self.net(x, edge_index)


def test_nodes_come_to_listen_to_the_criterion_that_serves_them(request):
    """Each node has neighbours of its own class and as many of the other; one criterion finds the first kind."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(120) % 2
    tails = torch.arange(120).repeat_interleave(8)
    step = torch.randint(1, 60, (960,), generator=generator)
    heads = (tails + 2 * step + torch.arange(960) % 2) % 120
    arcs = torch.cat([torch.stack([tails, heads]), torch.stack([heads, tails])], dim=1)
    part = torch.randperm(120, generator=generator)
    masks = {name: part % 3 == number for number, name in enumerate(("train_mask", "val_mask", "test_mask"))}
    noise = torch.randn(120, 1, generator=generator)
    x = torch.cat([y[:, None] + 1.5 * noise, torch.ones(120, 2)], dim=1)
    data = Data(x=x, edge_index=arcs, y=y, **masks)

    def alike(graph):
        return (y[graph.edge_index[0]] == y[graph.edge_index[1]]).double()

    SCORES.register("alike", alike)
    SCORES.register("unlike", lambda graph: -alike(graph))
    request.addfinalizer(lambda: [SCORES.__delitem__(name) for name in ("alike", "unlike")])
    torch.manual_seed(0)
    problem = Problem(ByNeighbours(), data, NodeTask(data), Training(epochs=60))
    found = Mixture(("unlike", "alike"), top=1, balance=0.0)(problem, train_dense(problem), Fraction(1, 2), Fraction(1))
    kept = alike(open_graph(data).edges)[found.edge_mask].mean()
    assert float(kept) > 0.6, "half of all edges join a class to itself"


def test_inductively_test_nodes_move_no_training_edge_and_keep_their_share(blocks, make_plain):
    def mask(data):
        problem = Problem(make_plain(data), data, NodeTask(data, protocol="inductive"), Training(epochs=3))
        return Mixture()(problem, train_dense(problem), *level_keeps(15)).edge_mask

    moved = blocks.clone()
    moved.x[blocks.test_mask] += 50.0
    tails, heads = blocks.edge_index
    unseen = (blocks.test_mask[tails] | blocks.test_mask[heads]) & (tails != heads)
    first = mask(blocks)
    assert torch.equal(first[~unseen], mask(moved)[~unseen])
    for part in (unseen, ~unseen & (tails != heads)):
        assert float(first[part].float().mean()) == pytest.approx(0.95**15, abs=0.02)


def test_bad_options_get_one_sentence(blocks, make_plain):
    with pytest.raises(ValueError, match="unknown edge score 'jacard'"):
        Mixture(("jacard",))
    with pytest.raises(ValueError, match=r"top must lie in 1 ... 3, the number of the experts, not 4"):
        Mixture(("jaccard",), top=4)
    for options, error, said in [
        ({"criteria": "dspar"}, ValueError, "criteria must list names of edge scores, got 'dspar'"),
        ({"criteria": ()}, ValueError, r"criteria must list names of edge scores, got \(\)"),
        ({"top": 1.5}, ValueError, "top must be a whole number, got 1.5"),
        ({"balance": -1.0}, ValueError, "balance is the weight of a penalty, at least 0"),
        ({"balance": "much"}, TypeError, "balance is the weight of a penalty, a number, got str"),
    ]:
        with pytest.raises(error, match=said):
            Mixture(**options)


@pytest.mark.parametrize("layout", ["csr", "coo"])
@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
def test_features_may_be_sparse(blocks, make_plain, layout, protocol):
    other = blocks.clone()
    other.x = blocks.x.to_sparse_csr() if layout == "csr" else blocks.x.to_sparse()
    how = {"method": "mixture", "edge_keep": 0.6, "weight_keep": 1, "epochs": 2, "protocol": protocol}
    dense, sparse = (gs.find_ticket(make_plain(blocks), data, **how) for data in (blocks, other))
    assert sparse.metrics["num_arcs_kept"] == dense.metrics["num_arcs_kept"]
    assert torch.equal(sparse.edge_mask, dense.edge_mask)
