"""Training in mini-batches: what is drawn, what is learned from it, and that figures are those of the whole graph."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import NodeLoader
from torch_geometric.nn import (
    APPNP,
    GAT,
    GCN,
    GIN,
    ChebConv,
    FastRGCNConv,
    GATv2Conv,
    GCNConv,
    GINEConv,
    GraphSAGE,
    MessagePassing,
    PairNorm,
    PNAConv,
    RGCNConv,
    SAGEConv,
    TransformerConv,
)
from torch_geometric.sampler import NodeSamplerInput, SamplerOutput

import graphsparse as gs
from graphsparse.fit import Batches, Distill, GraphTask, LinkTask, NeighborhoodSampler, NodeTask, fit
from graphsparse.fit.batches.chunks import in_chunks
from graphsparse.fit.batches.links import SampledLinks
from graphsparse.fit.batches.loader import Neighborhoods
from graphsparse.fit.batches.nodes import SampledNodes
from graphsparse.fit.batches.sampler import Incoming
from graphsparse.fit.batches.seeds import new_epoch


def random_arcs(num_nodes: int, num_arcs: int, seed: int = 0) -> Tensor:
    return torch.randint(num_nodes, (2, num_arcs), generator=torch.Generator().manual_seed(seed))


def drawn(sampler: NeighborhoodSampler, seeds: list[int]) -> dict[int, list[int]]:
    """The arcs that were drawn for each node of a batch, by their positions."""
    found = sampler.sample_from_nodes(NodeSamplerInput(None, torch.tensor(seeds)))
    arcs: dict[int, list[int]] = {}
    for head, edge in zip(found.node[found.col].tolist(), found.edge.tolist(), strict=True):
        arcs.setdefault(head, []).append(edge)
    return arcs


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("count", [1, 4, 33, 50, -1])
def test_what_is_drawn(count: int, replace: bool) -> None:
    """As many arcs as asked for, of that head, none twice without replacement; first 4 of 33 draws are those of 4."""
    arcs = random_arcs(20, 900)
    found = drawn(NeighborhoodSampler(arcs, 20, (count,), replace=replace, seed=3), list(range(20)))
    for head, edges in found.items():
        degree = int((arcs[1] == head).sum())
        assert (arcs[1, edges] == head).all()
        assert len(edges) == (degree if count < 0 else count if replace else min(count, degree))
        if not replace or count < 0:
            assert len(set(edges)) == len(edges)
        fewer = drawn(NeighborhoodSampler(arcs, 20, (1,), replace=replace, seed=3), [head])
        if count > 0:
            assert count >= degree or fewer[head] == edges[:1]


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("count", [3, 36])
def test_draws_are_uniform(count: int, replace: bool) -> None:
    """Of 40 arcs each is drawn count / 40 of the time, over seeds and over nodes."""
    tails, heads = torch.arange(40).repeat(50), torch.arange(50).repeat_interleave(40)
    hits = torch.zeros(40)
    for seed in range(20):
        sampler = NeighborhoodSampler(torch.stack([tails, heads + 40]), 90, (count,), replace=replace, seed=seed)
        for edges in drawn(sampler, list(range(40, 90))).values():
            hits += torch.bincount(tails[edges], minlength=40)
    expected = 20 * 50 * count / 40
    assert float((hits - expected).abs().max()) < 5 * expected**0.5


def test_a_node_has_the_same_neighbours_in_every_batch() -> None:
    arcs = random_arcs(200, 4000)
    sampler = NeighborhoodSampler(arcs, 200, (5, 5), seed=7)
    alone, among = drawn(sampler, [3]), drawn(sampler, [9, 120, 3, 50])
    assert {node: edges for node, edges in among.items() if node in alone} == alone
    assert drawn(NeighborhoodSampler(arcs, 200, (5, 5), seed=8), [3]) != alone


def test_batches_are_numbered_as_pyg_numbers_them() -> None:
    arcs = random_arcs(100, 700)
    found = NeighborhoodSampler(arcs, 100, (4, 3)).sample_from_nodes(NodeSamplerInput(None, torch.tensor([5, 2, 99])))
    assert found.node[:3].tolist() == [5, 2, 99]
    assert len(found.node.unique()) == len(found.node)
    assert torch.equal(torch.stack([found.node[found.row], found.node[found.col]]), arcs[:, found.edge])
    assert bool((found.col.diff() >= 0).all())
    assert sum(found.num_sampled_nodes) == len(found.node)
    assert sum(found.num_sampled_edges) == len(found.edge)


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_workers_draws_the_same(workers: int) -> None:
    arcs = random_arcs(100, 700)
    data, seeds = Data(num_nodes=100, edge_index=arcs), torch.arange(30)

    def batches(workers: int) -> list[Any]:
        sampler = NeighborhoodSampler(arcs, 100, (3, 2), seed=5)
        return list(NodeLoader(data, sampler, input_nodes=seeds, batch_size=10, num_workers=workers))

    for one, other in zip(batches(workers), batches(0), strict=True):
        assert torch.equal(one.n_id, other.n_id)
        assert torch.equal(one.edge_index, other.edge_index)
        assert torch.equal(one.e_id, other.e_id)


def test_an_epoch_takes_everyone_once_and_shares_out_each_group() -> None:
    groups = [torch.arange(10), torch.arange(10, 103)]
    epoch = new_epoch(Batches(25), groups, torch.Generator().manual_seed(0))
    assert torch.cat(epoch.steps).sort().values.tolist() == list(range(103))
    assert [int((step < 10).sum()) for step in epoch.steps] == [2, 2, 2, 2, 2]
    assert max(map(len, epoch.steps)) <= 25
    assert len(new_epoch(Batches(25, steps=2), groups, torch.Generator()).steps) == 2


LAYERS = {
    "gcn": lambda: GCNConv(8, 4),
    "gcn-weighted": lambda: GCNConv(8, 4),
    "gcn-against": lambda: GCNConv(8, 4, flow="target_to_source"),
    "sage-max": lambda: SAGEConv(8, 4, aggr="max"),
    "gatv2": lambda: GATv2Conv(8, 4, heads=2, edge_dim=3),
    "transformer": lambda: TransformerConv(8, 4, heads=2, edge_dim=3),
    "gine": lambda: GINEConv(nn.Linear(8, 4), edge_dim=3),
    "appnp": lambda: APPNP(3, 0.1),
    "cheb": lambda: ChebConv(8, 4, K=3),
    "rgcn": lambda: RGCNConv(8, 4, 3),
    "fast-rgcn": lambda: FastRGCNConv(8, 4, 3),
    "pna": lambda: PNAConv(8, 4, ["mean", "std"], ["identity"], deg=torch.ones(40)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_chunks_give_the_same_bits(name: str) -> None:
    """A layer's outputs are the same in chunks, though no chunk holds more than 60 messages of 700."""
    torch.manual_seed(0)
    arcs, x = random_arcs(100, 700), torch.randn(100, 8)
    named: dict[str, Tensor] = {}
    if name in ("gatv2", "transformer", "gine"):
        named["edge_attr"] = torch.randn(700, 3)
    if name == "gcn-weighted":
        named["edge_weight"] = torch.rand(700)
    if "rgcn" in name:
        named["edge_type"] = torch.randint(3, (700,))
    layer, most = LAYERS[name]().eval(), []
    for part in layer.modules():
        if isinstance(part, MessagePassing):
            part.register_message_forward_hook(lambda part, given, out: most.append(out.size(part.node_dim)))
    with torch.no_grad():
        whole = layer(x, arcs, **named)
        most.clear()
        with in_chunks(layer, arcs_at_once=60):
            chunked = layer(x, arcs, **named)
        assert max(most) <= 60
        assert len(most) > 10 or name == "rgcn"
        assert torch.equal(whole, chunked)
        assert torch.equal(layer(x, arcs, **named), whole)
        assert max(most) > 60


class Own(MessagePassing):
    """Its update takes what its message takes, so an argument cannot be told apart by node and by arc."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out: Tensor = self.propagate(edge_index, x=x)
        return out

    def message(self, x_j: Tensor) -> Tensor:
        return x_j

    def update(self, inputs: Tensor, x: Tensor) -> Tensor:
        return inputs + x


@pytest.mark.parametrize("layer", [Own(), SAGEConv(3, 4, aggr="lstm")])
def test_a_layer_that_cannot_be_cut_runs_whole(layer: nn.Module) -> None:
    """PyG's LSTM reads on over what fills its messages up to the largest degree of all."""
    arcs, x = random_arcs(50, 400), torch.randn(50, 3)
    arcs = arcs[:, arcs[1].argsort(stable=True)]
    with torch.no_grad():
        whole = layer(x, arcs)
        with in_chunks(layer, arcs_at_once=10):
            assert torch.equal(layer(x, arcs), whole)


NETS = {
    "gcn": lambda: GCN(40, 8, num_layers=2, out_channels=3),
    "gcn-cached": lambda: GCN(40, 8, num_layers=2, out_channels=3, cached=True),
    "our-gcn": lambda: gs.nn.GCN(40, 8, 3, dropout=0.0),
    "our-sage": lambda: gs.nn.GraphSAGE(40, 8, 3, dropout=0.0),
    "sage": lambda: GraphSAGE(40, 8, num_layers=2, out_channels=3),
    "gat": lambda: GAT(40, 8, num_layers=2, out_channels=3),
    "gin": lambda: GIN(40, 8, num_layers=2, out_channels=3),
}


class Drawn(NodeTask):
    """A task whose batches are cut out of the graph, even if they take all of it."""

    def start(self, model: nn.Module, device: torch.device, distill: Distill | None = None) -> Any:
        return (
            SampledNodes(self, self.batches, model, device, distill)
            if self.batches
            else super().start(model, device, distill)
        )


def new(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETS[name]()


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_one_batch_of_all_is_the_whole_graph(data: Data, name: str, protocol: Any, distilled: bool) -> None:
    """Also where only the labelled nodes are seeds, and their batch is a part of the graph with other degrees."""
    data.edge_index = torch.cat([data.edge_index, torch.tensor([[3, 7], [3, 7]])], dim=1)
    distill = Distill(torch.randn(60, 3, generator=torch.Generator().manual_seed(1))) if distilled else None
    task = Drawn(data, protocol=protocol)
    small = task.in_batches(Batches(60, (-1, -1)))
    one, other = (fit(new(name), each, epochs=4, distill=distill) for each in (task, small))
    assert largest_difference(one.state, other.state) < 1e-4
    assert (one.val, one.test) == (other.val, other.test)
    assert torch.allclose(one.logits, other.logits, atol=1e-4)
    assert one.history[-1]["loss"] == pytest.approx(other.history[-1]["loss"], abs=1e-5)


def test_edge_data_and_labels_go_along(data: Data) -> None:
    """Weights of arcs and several labels a node, in one batch of all, give the whole graph's result."""
    data.edge_weight = torch.rand(data.edge_index.size(1), generator=torch.Generator().manual_seed(2))
    data.y = torch.nn.functional.one_hot(data.y, 3).float()
    data.y[::7, 1] = torch.nan
    data.metric = None
    task = Drawn(data)
    one, other = (fit(new("gcn"), each, epochs=3) for each in (task, task.in_batches(Batches(60, (-1, -1)))))
    assert largest_difference(one.state, other.state) < 1e-5
    del data.edge_weight
    without = fit(new("gcn"), Drawn(data).in_batches(Batches(60, (-1, -1))), epochs=3)
    assert largest_difference(one.state, without.state) > 1e-3


def test_all_nodes_and_neighbours_are_the_whole_graph_to_the_bit(data: Data) -> None:
    """Dropout draws the same, too; one neighbour less, or one node, is a batch."""
    task = NodeTask(data, protocol="inductive")
    net = gs.nn.GCN(40, 8, 3)
    whole, batch = (fit(copy.deepcopy(net), each, epochs=3) for each in (task, task.in_batches(Batches(60, (-1, -1)))))
    assert whole.history == batch.history
    assert largest_difference(whole.state, batch.state) == 0.0
    for some in (Batches(59, (-1, -1)), Batches(60, (-1, 99))):
        assert fit(copy.deepcopy(net), task.in_batches(some), epochs=3).history != whole.history


def test_the_loss_of_small_batches_is_that_of_the_whole_graph_in_the_mean(data: Data) -> None:
    """With all neighbours and weights that stand still, the steps of an epoch average to the whole graph's loss."""
    task, distill = NodeTask(data), Distill(torch.randn(60, 3))
    losses = []
    for each in (task, task.in_batches(Batches(7, (-1, -1))), task.in_batches(Batches(7, (2, 2), replace=True))):
        session = each.start(new("gcn"), torch.device("cpu"), distill)
        losses.append(torch.stack([loss.detach() for loss in session.losses()]))
    assert len(losses[1]) == 9
    assert torch.allclose(losses[0].mean(), losses[1].mean(), atol=1e-5)
    assert not torch.allclose(losses[0].mean(), losses[2].mean(), atol=1e-5)


def test_sampled_sums_are_those_of_the_whole_graph_in_the_mean() -> None:
    """GCN on 3 of 100 neighbours weighs them by the whole graph's degrees; a batch's own degrees are far off."""
    star = torch.stack([torch.arange(1, 101), torch.zeros(100, dtype=torch.long)])
    arcs = torch.cat([star, star.flip(0)], dim=1)
    data = Data(x=1 + 0.1 * torch.rand(101, 2), edge_index=arcs, y=torch.arange(101) % 2)
    part = torch.arange(101)
    data.train_mask, data.val_mask, data.test_mask = part == 0, part == 1, part == 2
    net = gs.nn.GCN(2, 1, 2, num_layers=1, dropout=0.0)
    task = NodeTask(data, loss=lambda outputs, targets: outputs[:, 0].mean()).in_batches(Batches(1, (3,)))
    session = task.start(net, torch.device("cpu"))
    found = torch.stack([loss.detach() for _ in range(300) for loss in session.losses()])
    exact = net(data.x, arcs)[0, 0].detach()
    assert abs(float(found.mean() - exact)) < 4 * float(found.std()) / 300**0.5
    own = net(data.x[:4], arcs[:, :3])[0, 0].detach()
    assert abs(float(own - exact)) > 10 * float(found.std()) / 300**0.5


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(data: Data, tmp_path: Any, workers: int) -> None:
    task = NodeTask(data).in_batches(Batches(16, (3, 2), workers=workers))
    whole = fit(new("sage"), NodeTask(data).in_batches(Batches(16, (3, 2))), epochs=5)

    class StopError(Exception):
        pass

    def stop(done: int, epochs: int, figures: dict[str, float]) -> None:
        if done == 3:
            raise StopError

    with pytest.raises(StopError):
        fit(new("sage"), task, epochs=5, checkpoint=tmp_path / "run", checkpoint_every=2, progress=stop)
    again = fit(new("sage"), task, epochs=5, checkpoint=tmp_path / "run", checkpoint_every=2)
    assert again.history == whole.history
    assert largest_difference(again.state, whole.state) == 0.0
    assert torch.equal(again.logits, whole.logits)


def test_the_global_generator_decides_nothing_that_is_drawn(data: Data) -> None:
    task = NodeTask(data).in_batches(Batches(16, (3, 2)))
    one = fit(new("sage"), task, epochs=2, seed=1)
    torch.rand(7)
    assert largest_difference(fit(new("sage"), task, epochs=2, seed=1).state, one.state) == 0.0
    assert largest_difference(fit(new("sage"), task, epochs=2, seed=2).state, one.state) > 0.0


class Normed(nn.Module):
    """A model that mixes all nodes in its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = SAGEConv(40, 3), PairNorm()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x, edge_index))
        return out


def test_hops_are_held_against_the_model(data: Data) -> None:
    task = NodeTask(data)
    with pytest.raises(ValueError, match=r"neighbors lists 1 hop, but GCN reads 2.*neighbors=\(5, 5\)"):
        fit(new("gcn"), task.in_batches(Batches(16, (5,))), epochs=1)
    with pytest.warns(UserWarning, match="neighbors lists 3 hops, but GAT reads 2: the outer ones cost time"):
        fit(new("gat"), task.in_batches(Batches(16, (5, 5, 5))), epochs=1)
    with pytest.warns(UserWarning, match="Normed mixes all nodes of the graph"):
        fit(Normed(), task.in_batches(Batches(16, (5,))), epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(new("gin"), task.in_batches(Batches(16, (5, 5))), epochs=1)


def test_a_model_that_drops_edges_itself_keeps_what_it_has_left(data: Data) -> None:
    """The whole graph's degrees are for the arcs of the batch; other arcs are normalised as they are."""

    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = GCNConv(40, 3)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            out: Tensor = self.conv(x, edge_index[:, :0])
            return out

    net = Dropping()
    task = NodeTask(data).in_batches(Batches(60, (-1,)))
    session = task.start(net, torch.device("cpu"))
    (loss,) = session.losses()
    alone = net.conv(data.x, data.edge_index[:, :0])[data.train_mask]
    assert torch.allclose(loss, nn.functional.cross_entropy(alone, data.y[data.train_mask]), atol=1e-6)
    assert net.conv._cached_edge_index is None
    assert not net.conv._forward_pre_hooks


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"size": 0, "neighbors": (5,)}, ValueError, "batch_size must be at least 1, got 0"),
        ({"size": -3, "neighbors": (5,)}, ValueError, "batch_size must be at least 1, got -3"),
        ({"size": 2.5, "neighbors": (5,)}, ValueError, "batch_size must be a whole number, got 2.5"),
        ({"size": True, "neighbors": (5,)}, ValueError, "batch_size must be a whole number, got True"),
        ({"size": 8, "neighbors": ()}, ValueError, "neighbors must name at least one hop"),
        ({"size": 8, "neighbors": 15}, TypeError, "neighbors must list a number for each layer"),
        ({"size": 8, "neighbors": "15"}, TypeError, "neighbors must list a number for each layer"),
        ({"size": 8, "neighbors": (0,)}, ValueError, "each of neighbors must be at least 1, or -1 for all"),
        ({"size": 8, "neighbors": (-2,)}, ValueError, "each of neighbors must be at least 1, or -1 for all"),
        ({"size": 8, "neighbors": (1.5,)}, ValueError, "each of neighbors must be a whole number"),
        ({"size": 8, "neighbors": (5,), "workers": -1}, ValueError, "workers must be at least 0"),
        ({"size": 8, "neighbors": (5,), "steps": 0}, ValueError, "steps must be at least 1"),
        ({"size": 8, "neighbors": (5,), "replace": "yes"}, TypeError, "replace must be True or False"),
    ],
)
def test_bad_batches(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Batches(**options)


def test_batches_of_nodes_need_neighbours(data: Data) -> None:
    with pytest.raises(ValueError, match="say how many neighbours a batch draws at each layer"):
        NodeTask(data).in_batches(Batches(16))


def test_an_excerpt_is_a_piece_of_the_graph() -> None:
    arcs = random_arcs(6000, 30000)
    part = torch.arange(6000)
    data = Data(x=torch.randn(6000, 2), edge_index=arcs, y=part % 2, edge_weight=torch.rand(30000))
    data.train_mask, data.val_mask, data.test_mask = part % 3 == 0, part % 3 == 1, part % 3 == 2
    task = NodeTask(data)
    assert task.excerpt() is task
    small = task.in_batches(Batches(16, (5,))).excerpt()
    assert 8 <= small.num_nodes < 1000
    assert len(small.edge_data.edge_weight) == small.edge_index.size(1) > 0
    weights = {
        (float(x[0]), float(y[0])): float(w) for (x, y), w in zip(data.x[arcs.t()], data.edge_weight, strict=True)
    }
    tails, heads = small.edge_index
    for tail, head, weight in zip(small.x[tails], small.x[heads], small.edge_data.edge_weight, strict=True):
        assert weights[float(tail[0]), float(head[0])] == float(weight)


def test_arcs_are_arranged_by_head() -> None:
    arcs = random_arcs(30, 200)
    found = Incoming.of(arcs, 30)
    order = arcs[1].argsort(stable=True)
    assert found.positions.tolist() == order.tolist()
    assert found.sources.tolist() == arcs[0, order].tolist()
    assert found.degrees.tolist() == torch.bincount(arcs[1], minlength=30).tolist()


def test_copies_of_a_task_stay_in_batches(data: Data) -> None:
    task = NodeTask(data).in_batches(Batches(16, (5, 5)))
    fewer = task.with_mask(torch.arange(data.edge_index.size(1)) % 2 == 0)
    assert fewer.batches == task.batches
    assert copy.copy(task).fingerprint() == task.fingerprint() != NodeTask(data).fingerprint()


def link_data(features: bool = True) -> Data:
    draw = torch.Generator().manual_seed(0)
    arcs = torch.unique(torch.randint(80, (2, 500), generator=draw).sort(dim=0).values, dim=1)
    arcs = arcs[:, arcs[0] != arcs[1]]
    data = Data(edge_index=torch.cat([arcs, arcs.flip(0)], dim=1), num_nodes=80, train_pos_edge_index=arcs[:, 60:])
    data.x = torch.randn(80, 6, generator=draw) if features else None
    for part, pairs in (("val", arcs[:, :30]), ("test", arcs[:, 30:60])):
        data[f"{part}_pos_edge_index"] = pairs
        data[f"{part}_neg_edge_index"] = torch.randint(80, (2, 40), generator=draw)
    return data


def test_a_batch_of_all_links_is_the_step_of_the_whole_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same links and negatives give the same loss and gradients, from neighbourhoods as from the whole graph."""
    task = LinkTask(link_data(), metric="hits@5", batch_size=None)
    small = task.in_batches(Batches(10**6, (-1, -1)))
    cpu = torch.device("cpu")
    monkeypatch.setattr(task.negatives, "draw", lambda count: (torch.arange(2 * count) * 7 % 80).view(2, count))
    found = []
    for each in (task, small):
        torch.manual_seed(0)
        net = GCN(6, 8, num_layers=2, out_channels=4)
        teacher = each.teach(copy.deepcopy(net), torch.empty(0), 1.0)
        session = each.start(net, cpu, teacher) if each is task else SampledLinks(each, each.batches, net, cpu, teacher)
        (loss,) = session.losses()
        found.append((loss.detach(), *torch.autograd.grad(loss, list(net.parameters()))))
        assert each.predict(net).shape == (140,)
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_links_in_small_batches() -> None:
    task = LinkTask(link_data(), metric="hits@5").in_batches(Batches(50, (4, 3)))
    torch.manual_seed(0)
    first = GraphSAGE(6, 8, num_layers=2, out_channels=4)
    runs = [fit(copy.deepcopy(first), task, epochs=3) for _ in range(2)]
    assert largest_difference(runs[0].state, runs[1].state) == 0.0
    whole = LinkTask(link_data(), metric="hits@5").predict(_with(first, runs[0].state))
    assert torch.allclose(whole, runs[0].logits, atol=1e-5)
    with pytest.raises(ValueError, match="the data has no features x, so the model holds an embedding of every node"):
        LinkTask(link_data(features=False), metric="hits@5").in_batches(Batches(50, (4, 3)))
    assert LinkTask(link_data(features=False), metric="hits@5").in_batches(Batches(50)).batch_size == 50


def _with(net: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    net.load_state_dict(state)
    return net


def test_graphs_are_taken_whole() -> None:
    part = torch.arange(12) % 3
    data = Data(x=torch.randn(24, 3), edge_index=torch.stack([torch.arange(24), torch.arange(24) // 2 * 2]))
    data.batch, data.y = torch.arange(24) // 2, (torch.arange(12) % 4 > 1).float()
    data.train_mask, data.val_mask, data.test_mask = part == 0, part == 1, part == 2
    task = GraphTask(data, metric="rocauc")
    assert task.in_batches(Batches(3)).batch_size == 3
    with pytest.raises(ValueError, match="a batch of graphs takes each of them whole: leave neighbors out"):
        task.in_batches(Batches(3, (5, 5)))


class FromTheGlobalGenerator:
    """PyG's sampler as its libraries have it: every draw is from torch's global generator."""

    edge_permutation = None

    def __init__(self, data: Data, neighbors: list[int], replace: bool) -> None:
        self.num_edges = data.num_edges

    def sample_from_nodes(self, index: NodeSamplerInput) -> SamplerOutput:
        edge = torch.randint(self.num_edges, (3,))
        none = torch.empty(0, dtype=torch.long)
        return SamplerOutput(index.node, none, none, edge, metadata=(index.input_id, None))


def test_pygs_sampler_draws_by_seed_and_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With pyg-lib or torch-sparse PyG draws; the result depends on the seed, and the global generator stays."""
    monkeypatch.setattr("graphsparse.fit.batches.loader.NeighborSampler", FromTheGlobalGenerator)
    monkeypatch.setattr("torch_geometric.typing.WITH_PYG_LIB", True)
    around = Neighborhoods(random_arcs(30, 500), 30, Batches(4, (2,)))
    steps = [torch.arange(4), torch.arange(4, 8)]
    torch.manual_seed(0)
    before = torch.get_rng_state()
    found = [[batch.e_id.tolist() for batch in around.around(steps, stream)] for stream in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1] != found[2]
    assert found[0][0] != found[0][1]
    assert found[0][1:] == [batch.e_id.tolist() for batch in around.around(steps[1:], 1)]
