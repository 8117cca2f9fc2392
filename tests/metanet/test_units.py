"""Hidden units: what belongs to one in layers of every kind, and the module without them beside the one with zeros."""

import copy

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch_geometric.nn import MessagePassing

import graphsparse as gs
from graphsparse.metanet import NetworkGraph, ShrinkError, cut_out, find_units
from graphsparse.params import Units, prunable

ARCS = torch.tensor([[0, 1, 2, 3, 4, 5, 1, 2, 0], [1, 2, 3, 4, 5, 0, 0, 1, 2]])


class Two(nn.Module):
    """Two layers that get whatever edges carry, something between them, and a way around the second if there is one."""

    def __init__(self, first, second, between=None, around=False):
        super().__init__()
        self.first, self.second, self.between, self.around = first, second, between or nn.Identity(), around

    def forward(self, x, edge_index, *carried):
        h = torch.relu(self.between(self.first(x, edge_index, *carried)))
        out = self.second(h, edge_index, *carried)
        return h + out if self.around else out


class ByHand(MessagePassing):
    """A layer as users write them: parameters of its own, gates, and what edges carry."""

    def __init__(self, a, b, edge=3):
        super().__init__(aggr="max")
        self.weight, self.gate = nn.Parameter(torch.randn(a, b)), nn.Linear(2 * a, b)
        self.edge, self.shift = nn.Linear(edge, b, bias=False), nn.Parameter(torch.randn(b))

    def forward(self, x, edge_index, edge_attr):
        return self.propagate(edge_index, x=x, h=x @ self.weight, e=self.edge(edge_attr)) + self.shift

    def message(self, x_i, x_j, h_j, e):
        return torch.sigmoid(self.gate(torch.cat([x_i, x_j], 1))) * h_j + e


class Residual(nn.Module):
    def __init__(self, a, b, c):
        super().__init__()
        self.stem, self.out = nn.Linear(a, b), nn.Linear(b, c)
        self.convs = nn.ModuleList(pyg.GCNConv(b, b) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm1d(b) for _ in range(3))

    def forward(self, x, edge_index):
        x = self.stem(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + torch.relu(norm(conv(x, edge_index)))
        return self.out(x)


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.gate, self.out = pyg.SAGEConv(5, 8), nn.Linear(8, 1), nn.Linear(16, 2)

    def forward(self, x, edge_index, batch):
        x = self.conv(x, edge_index).relu()
        weighed = pyg.global_add_pool(torch.sigmoid(self.gate(x)) * x, batch)
        return self.out(torch.cat([weighed, pyg.global_max_pool(x, batch)], 1))


def mlp(a, b):
    return nn.Sequential(nn.Linear(a, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, b))


MODELS = {
    "gcn": lambda: gs.nn.GCN(5, 8, 3),
    "gin": lambda: gs.nn.GIN(5, 8, 3, num_layers=3),
    "sage": lambda: gs.nn.GraphSAGE(5, 8, 3),
    "gat": lambda: gs.nn.GAT(5, 8, 3, heads=2),
    "gat one channel a head": lambda: gs.nn.GAT(5, 8, 3, heads=8),
    "transformer": lambda: gs.nn.GraphTransformer(5, 8, 3, heads=2),
    "pyg gcn with norms": lambda: pyg.GCN(5, 8, 3, 3, norm="batch_norm"),
    "pyg sage, jumping": lambda: pyg.GraphSAGE(5, 8, 3, 3, jk="cat"),
    "pyg sage, jumping by maxima": lambda: pyg.GraphSAGE(5, 8, 3, 3, jk="max"),
    "pyg gin": lambda: pyg.GIN(5, 8, 2, 3, train_eps=True),
    "gin of one's own": lambda: Two(pyg.GINConv(mlp(5, 8)), pyg.GINConv(mlp(8, 3), train_eps=True)),
    "pyg gat, three layers": lambda: pyg.GAT(5, 8, 3, 3, heads=2),
    "gat, mean of heads": lambda: Two(pyg.GATConv(5, 8, heads=2, concat=False), pyg.GATConv(8, 3)),
    "gat, residual": lambda: Two(pyg.GATConv(5, 4, heads=2, residual=True), pyg.GATConv(8, 3)),
    "gat with edge data": lambda: Two(pyg.GATConv(5, 4, heads=2, edge_dim=3), pyg.GATConv(8, 3, edge_dim=3)),
    "gatv2": lambda: Two(pyg.GATv2Conv(5, 4, heads=2), pyg.GATv2Conv(8, 3)),
    "transformer, beta": lambda: Two(pyg.TransformerConv(5, 4, heads=2, beta=True), pyg.TransformerConv(8, 3)),
    "tag": lambda: Two(pyg.TAGConv(5, 8), pyg.TAGConv(8, 3)),
    "sgc after a layer": lambda: Two(pyg.SGConv(5, 8, 2), pyg.SGConv(8, 3, 2)),
    "cheb": lambda: Two(pyg.ChebConv(5, 8, 3), pyg.ChebConv(8, 3, 3)),
    "edge conv": lambda: Two(pyg.EdgeConv(mlp(10, 8)), pyg.GraphConv(8, 3)),
    "gine": lambda: Two(pyg.GINEConv(mlp(5, 8), edge_dim=3), pyg.GINEConv(mlp(8, 3), edge_dim=3)),
    "rgcn": lambda: Two(pyg.RGCNConv(5, 8, 2), pyg.RGCNConv(8, 3, 2)),
    "sage, projected maxima": lambda: Two(pyg.SAGEConv(5, 8, "max", project=True), pyg.SAGEConv(8, 3)),
    "graph norm": lambda: Two(pyg.GCNConv(5, 8), pyg.GCNConv(8, 3), pyg.GraphNorm(8)),
    "layer norm": lambda: Two(pyg.GCNConv(5, 8), pyg.GCNConv(8, 3), nn.LayerNorm(8)),
    "layer norm of a graph": lambda: Two(pyg.GCNConv(5, 8), pyg.GCNConv(8, 3), pyg.LayerNorm(8)),
    "layer norm of nodes": lambda: Two(pyg.GCNConv(5, 8), pyg.GCNConv(8, 3), pyg.LayerNorm(8, mode="node")),
    "root mean square": lambda: Two(pyg.GCNConv(5, 8), pyg.GCNConv(8, 3), nn.RMSNorm(8)),
    "gen": lambda: Two(pyg.GENConv(5, 8), pyg.GENConv(8, 3)),
    "pyg gat with layer norms": lambda: pyg.GAT(5, 8, 3, 3, heads=2, norm="layer_norm"),
    "residual": lambda: Residual(5, 8, 3),
    "pooled": Pooled,
    "by hand": lambda: Two(ByHand(5, 8), ByHand(8, 3)),
}  # fmt: skip


def made(name):
    """A model in double precision whose biases and norms are alive, and what it is called with."""
    torch.manual_seed(0)
    x, model = torch.randn(6, 5, dtype=torch.float64), MODELS[name]().double().eval()
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.add_(0.1 * torch.rand(value.shape))
    carried = {
        "gat with edge data": torch.randn(9, 3, dtype=torch.float64),
        "gine": torch.randn(9, 3, dtype=torch.float64),
        "by hand": torch.randn(9, 3, dtype=torch.float64),
        "rgcn": torch.arange(9) % 2,
        "pooled": torch.tensor([0, 0, 0, 1, 1, 1]),
    }
    return model, (x, ARCS, carried[name]) if name in carried else (x, ARCS)


def zeroed(model, units, keep):
    wide = copy.deepcopy(model)
    masks = units.map.of(prunable(model)).masks(keep)
    for name, value in wide.named_parameters():
        value.data.masked_fill_(~masks[name], 0)
    return wide, sum(int(mask.sum()) for mask in masks.values())


@pytest.mark.parametrize("name", MODELS)
def test_the_module_without_units_computes_what_the_one_with_zeros_does(name):
    model, inputs = made(name)
    units = find_units(NetworkGraph.from_module(model, inputs))
    trained = units.map.of(prunable(model))
    total = sum(value.numel() for value in model.parameters())
    done = set()
    for share in ("0.75", "0.5", "0.35"):
        keep = Units(share, trained).kept_units({n: value.detach() for n, value in model.named_parameters()})
        wide, left = zeroed(model, units, keep)
        small = cut_out(model, units.cuts(keep))
        with torch.no_grad():
            torch.testing.assert_close(small(*inputs), wide(*inputs), rtol=1e-9, atol=1e-9)
        assert sum(value.numel() for value in small.parameters()) == left <= float(share) * total + 1
        done.add(left)
        small.train()
        small(*inputs).sum().backward()  # it can be trained on
    assert len(done) > 1


def test_what_belongs_to_a_unit_of_gat_by_hand():
    """Two heads of two channels: channel c of head h is row 2 h + c, its place in both attention vectors, a bias, and a
    column of the next layer. The classes of the last layer, with its attention, are no units."""
    model = Two(pyg.GATConv(3, 2, heads=2), pyg.GATConv(4, 3))
    units = find_units(NetworkGraph.from_module(model, (torch.randn(6, 3), ARCS))).map
    assert units.count == 4
    assert units.lane.tolist() == [0, 0, 1, 1]
    assert units.sizes.tolist() == [3 + 1 + 1 + 1 + 3] * 4
    masks = units.masks(torch.tensor([True, True, True, False]))
    assert [not bool(mask.all()) for mask in masks.values()].count(True) == 5
    assert masks["first.lin.weight"].any(1).tolist() == [True, True, True, False]
    assert masks["first.att_src"].tolist() == masks["first.att_dst"].tolist() == [[[True, True], [True, False]]]
    assert masks["second.lin.weight"].tolist() == [[True, True, True, False]] * 3
    assert all(bool(masks[f"second.{name}"].all()) for name in ("att_src", "att_dst", "bias"))


def test_what_belongs_to_a_unit_of_sage_and_of_a_residual_network_by_hand():
    units = find_units(NetworkGraph.from_module(gs.nn.GraphSAGE(5, 4, 3), (torch.randn(6, 5), ARCS))).map
    assert units.sizes.tolist() == [5 + 5 + 1 + 3 + 3] * 4  # two rows, a bias, two columns
    model, inputs = made("residual")
    units = find_units(NetworkGraph.from_module(model, inputs)).map
    trained = units.of(prunable(model))
    assert units.count == 8  # one set of channels goes through the whole stream
    ends, block = 5 + 1 + 3, 8 + 8 + 1 + 2  # a weight of a block counts in its row and in its column
    assert trained.sizes.tolist() == [ends + 3 * block] * 8


def test_queries_keys_and_values_of_one_place_are_one_unit():
    model, inputs = made("transformer")
    units = find_units(NetworkGraph.from_module(model, inputs)).map
    masks = units.masks(torch.arange(8) > 0)
    for part in ("query", "key", "value", "skip"):
        assert masks[f"convs.0.lin_{part}.weight"].any(1).tolist() == [False] + [True] * 7
    assert bool(masks["convs.1.lin_query.bias"].all())


def test_the_widths_that_modules_write_down_follow():
    model, inputs = made("gat")
    units = find_units(NetworkGraph.from_module(model, inputs))
    small = cut_out(model, units.cuts(torch.tensor([True, False, True, False, False, True, True, False])))
    assert (small.convs[0].heads, small.convs[0].out_channels, small.convs[1].in_channels) == (2, 2, 4)
    small = cut_out(model, units.cuts(torch.arange(8) < 4))
    assert (small.convs[0].heads, small.convs[0].out_channels) == (1, 4)
    assert model.convs[0].heads == 2


def test_layers_whose_channels_look_at_each_other_tell_by_their_outputs():
    """A group norm over fewer channels is another function."""
    model = Two(pyg.GCNConv(5, 8), pyg.GCNConv(8, 3), nn.GroupNorm(2, 8)).eval()
    inputs = torch.randn(6, 5), ARCS
    units = find_units(NetworkGraph.from_module(model, inputs))
    keep = torch.arange(units.map.count) < 2
    small = cut_out(model, units.cuts(keep))
    assert small.between.num_channels < 8
    assert not torch.allclose(small(*inputs), zeroed(model, units, keep)[0](*inputs), atol=1e-3)


def test_what_cannot_be_cut_is_refused():
    layer = nn.Linear(4, 3)
    with pytest.raises(ShrinkError, match="Linear has no tensor 'height'"):
        cut_out(layer, {"height": {(0,): torch.ones(3) > 0}})
    with pytest.raises(ShrinkError, match=r"'weight' has shape \[3, 4\], and not \[4\] along \(0,\)"):
        cut_out(layer, {"weight": {(0,): torch.ones(4) > 0}})
    with pytest.raises(ShrinkError, match="not equally wide"):
        cut_out(layer, {"weight": {(0, 1): torch.eye(3, 4) + torch.tensor([1.0, 0, 0, 0]) > 0}})


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.out = nn.Linear(5, 8), nn.Linear(8, 3)
        self.convs = nn.ModuleList(pyg.GCNConv(8, 8) for _ in range(2))
        self.convs[1].lin.weight = self.convs[0].lin.weight

    def forward(self, x, edge_index):
        x = self.stem(x)
        for conv in self.convs:
            x = torch.tanh(conv(x, edge_index))
        return self.out(x)


def test_tied_layers_stay_tied():
    model, inputs = Tied().double().eval(), (torch.randn(6, 5, dtype=torch.float64), ARCS)
    units = find_units(NetworkGraph.from_module(model, inputs))
    keep = torch.arange(units.map.count) % 2 == 0
    small = cut_out(model, units.cuts(keep))
    assert small.convs[0].lin.weight is small.convs[1].lin.weight
    assert small.convs[0].lin.weight.shape == (4, 4)
    with torch.no_grad():
        torch.testing.assert_close(small(*inputs), zeroed(model, units, keep)[0](*inputs), rtol=1e-9, atol=1e-9)


def test_a_model_that_was_called_before_is_traced_all_the_same():
    """It remembers a matrix of the graph, which no hash of dense tensors takes."""
    model = gs.nn.GCN(5, 4, 3)
    model(torch.randn(6, 5), ARCS)
    assert find_units(NetworkGraph.from_module(model, (torch.randn(6, 5), ARCS))).map.count == 4


def test_networks_without_hidden_units_have_none():
    assert find_units(NetworkGraph.from_module(pyg.SGConv(5, 3, 2), (torch.randn(6, 5), ARCS))).map.count == 0
