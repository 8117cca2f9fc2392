"""The compiled ticket: equal to the plain model whatever was pruned, and clear about what it cannot do."""

import copy
import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    APPNP,
    GAT,
    GCN,
    GIN,
    MLP,
    GATConv,
    GCNConv,
    GINConv,
    GraphConv,
    GraphSAGE,
    SAGEConv,
    SGConv,
    TransformerConv,
)
from typer.testing import CliRunner

import graphsparse as gs
from graphsparse.cli import app
from graphsparse.errors import GraphsparseError, TicketError, TraceError
from graphsparse.fit.edge_data import EdgeData
from graphsparse.fit.graph_call import GraphCall
from graphsparse.tickets.compiled.engine import Engine, may_reorder
from graphsparse.tickets.compiled.fast import CompiledTicket
from graphsparse.tickets.compiled.portable import Portable
from graphsparse.tickets.compiled.program import Mix
from graphsparse.tickets.compiled.read import read_program
from graphsparse.tickets.compiled.simplify import simplify

N, F = 12, 6


class Stack(nn.Module):
    """Layers of one kind, one of which may take the arcs' weights."""

    def __init__(self, *layers, act=torch.relu, weighted=False):
        super().__init__()
        self.layers, self.act, self.weighted = nn.ModuleList(layers), act, weighted

    def forward(self, x, edge_index, edge_weight=None):
        extra = (edge_weight,) if self.weighted else ()
        for number, layer in enumerate(self.layers):
            x = layer(x if number == 0 else self.act(x), edge_index, *extra)
        return x


class Mixed(nn.Module):
    """What people write between layers: skips, norms, gates, joins, numbers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = GCNConv(F, 8), SAGEConv(8, 8)
        self.norm, self.rows, self.skip, self.last = (
            nn.BatchNorm1d(8),
            nn.LayerNorm(8),
            nn.Linear(F, 8),
            nn.Linear(17, 3),
        )
        self.gate = nn.Parameter(torch.randn(8))

    def forward(self, x, edge_index):
        one = self.norm(self.first(x, edge_index)).relu_() + self.skip(x)
        one += 1
        two = self.rows(torch.tanh(self.second(one, edge_index)) * self.gate / 2)
        z = torch.cat([one, two, two.max(dim=1, keepdim=True)[0]], dim=1)
        return self.last(nn.functional.dropout(z, 0.5, self.training)).log_softmax(dim=-1)


NETS = {
    "gcn": lambda: gs.nn.GCN(F, 8, 3, num_layers=3),
    "gin": lambda: gs.nn.GIN(F, 8, 3),
    "sage": lambda: gs.nn.GraphSAGE(F, 8, 3),
    "gat": lambda: gs.nn.GAT(F, 8, 3, heads=2),
    "transformer": lambda: gs.nn.GraphTransformer(F, 8, 3, heads=2),
    "pyg gcn, batch norm": lambda: GCN(F, 8, 2, 3, norm="batch_norm", act_first=True),
    "pyg gin": lambda: GIN(F, 8, 2, 3, train_eps=True),
    "pyg sage, jumping": lambda: GraphSAGE(F, 8, 3, 3, jk="cat", act="elu"),
    "pyg gat": lambda: GAT(F, 8, 2, 3, heads=2),
    "pyg sage, max": lambda: Stack(SAGEConv(F, 8, aggr="max"), SAGEConv(8, 3, normalize=True)),
    "sage, sum": lambda: Stack(SAGEConv(F, 8, aggr="sum", root_weight=False), SAGEConv(8, 3, project=True)),
    "weighted gcn": lambda: Stack(GCNConv(F, 8, improved=True), GCNConv(8, 3), weighted=True),
    "weighted graph conv": lambda: Stack(GraphConv(F, 8), GraphConv(8, 3, aggr="mean"), weighted=True),
    "bare gcn": lambda: Stack(GCNConv(F, 8, normalize=False), GCNConv(8, 3, add_self_loops=False, bias=False)),
    "sgc": lambda: Stack(SGConv(F, 8, K=3), SGConv(8, 3, K=1)),
    "appnp": lambda: Stack(SAGEConv(F, 3), APPNP(3, 0.1)),
    "leaky": lambda: Stack(GCNConv(F, 8), GCNConv(8, 3), act=nn.LeakyReLU(0.3)),
    "softplus": lambda: Stack(GCNConv(F, 8), GCNConv(8, 3), act=nn.Softplus()),
    "mean heads": lambda: Stack(GATConv(F, 4, heads=2, concat=False), TransformerConv(4, 3, beta=True)),
    "against the arcs": lambda: Stack(GCNConv(F, 8, flow="target_to_source"), GCNConv(8, 3)),
    "gin of means": lambda: Stack(GINConv(nn.Linear(F, 8), aggr="mean"), GCNConv(8, 3)),
    "attention without a bias": lambda: Stack(GATConv(F, 4, heads=2, bias=False), GATConv(8, 3, add_self_loops=False)),
    "attention with a skip": lambda: Stack(GATConv(F, 8, residual=True), GATConv(8, 3)),
    "queries without a root": lambda: Stack(TransformerConv(F, 8, root_weight=False, bias=False), GCNConv(8, 3)),
    "mixed": Mixed,
}


def graph_of(seed, arcs):
    """Arcs with loops and copies among N nodes, some of which may have none, and a weight for each."""
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(0, N - 2, (2, arcs), generator=generator)
    return edge_index, torch.rand(arcs, generator=generator) + 0.1


def pruned(net, seed, keep):
    """The net with random norms and biases and, of each tensor, only some numbers left: none of some tensors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*net.named_parameters(), *net.named_buffers()]:
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=generator) / 2)
            if name in dict(net.named_parameters()) and value.dim() > 0:
                chance = torch.rand((), generator=generator) * 2 * keep  # of a tensor; some lose all
                value.mul_(torch.rand(value.shape, generator=generator) < chance * (chance > keep / 2))
    return net.eval()


def arguments_of(net, x, edge_index, weight=None):
    held = EdgeData() if weight is None else EdgeData(edge_weight=weight)
    return GraphCall(net).arguments(x, edge_index, held)


def check_equal(net, x, edge_index, weight=None):
    arguments = arguments_of(net, x, edge_index, weight)
    program = simplify(read_program(net, arguments))
    engines = [Engine(program, x), *([Engine(program, x, reorder=True)] if may_reorder(program) else [])]
    portable = Portable(program)
    with torch.no_grad():
        for features in (x, -x.roll(1, 0), torch.zeros_like(x)):
            expected = arguments.with_x(features).run(net)
            for engine in engines:
                torch.testing.assert_close(engine(engine.prepare(features)), expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(portable(features), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(engines[0](None), arguments.run(net), rtol=1e-5, atol=1e-5)
    return program


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 1000),
    arcs=st.sampled_from([0, 1, 9, 40]),
    keep=st.sampled_from([0.05, 0.3, 1.0]),
    few=st.booleans(),
)
def test_whatever_is_pruned_the_outputs_stay(name, seed, arcs, keep, few):
    torch.manual_seed(seed)
    net = pruned(NETS[name](), seed, keep)
    x = torch.randn(N, F) * (torch.rand(N, F) < (0.15 if few else 1.0))
    edge_index, weight = graph_of(seed, arcs)
    weight = weight if getattr(net, "weighted", False) else None
    check_equal(net, x, edge_index, weight)


@pytest.mark.parametrize(
    "name", ["gcn", "gin", "sage", "gat", "transformer", "pyg gin", "pyg sage, jumping", "appnp", "sgc"]
)
def test_known_layers_are_not_run_as_they_are(name):
    x, (edge_index, _) = torch.randn(N, F), graph_of(0, 20)
    net = NETS[name]().eval()
    program = simplify(read_program(net, arguments_of(net, x, edge_index)))
    assert set(program.opaque) <= {"attention", "mean of heads"}
    assert name in ("gat", "transformer") or not program.opaque


def test_a_layer_that_somebody_looks_into_is_run_as_it_is():
    x, (edge_index, _) = torch.randn(N, F), graph_of(0, 20)
    net, seen = gs.nn.GCN(F, 8, 3).eval(), []
    net.convs[0].register_message_forward_hook(lambda *told: seen.append(len(told)))
    program = check_equal(net, x, edge_index)
    assert program.opaque == ("MatrixGCNConv",)
    assert seen


def test_double_precision_stays_double():
    net = gs.nn.GCN(F, 8, 3).double().eval()
    x = torch.randn(N, F, dtype=torch.double) * (torch.rand(N, F) < 0.1)
    edge_index, _ = graph_of(0, 20)
    arguments = arguments_of(net, x, edge_index)
    engine = Engine(simplify(read_program(net, arguments)), x)
    torch.testing.assert_close(engine(None), arguments.run(net).detach(), rtol=1e-12, atol=1e-12)


def units(program):
    """Columns of each mix."""
    return [program.widths[step.out] for step in program.steps if isinstance(step, Mix)]


def test_dead_and_constant_units_are_cut_and_what_they_say_is_kept():
    torch.manual_seed(0)
    net = gs.nn.GCN(F, 8, 3)
    with torch.no_grad():
        net.convs[0].bias.fill_(0.5)
        net.convs[0].lin.weight[:3] = 0  # constant: relu(0.5) each
        net.convs[1].lin.weight[:, 3:5] = 0  # nobody listens
        net.convs[0].lin.weight[:, 2] = 0  # nobody reads this feature
    edge_index, _ = graph_of(1, 20)
    program = check_equal(net.eval(), torch.randn(N, F), edge_index)
    assert units(program) == [3, 3]
    assert program.live.tolist() == [0, 1, 3, 4, 5]
    assert "5 of 11 units are dead or constant and were cut away" in program.notes


def test_a_unit_that_ends_in_zero_after_a_norm_is_constant():
    torch.manual_seed(0)
    net = GCN(F, 8, 2, 3, norm="batch_norm").eval()
    with torch.no_grad():
        net.convs[0].lin.weight[2:] = 0
    edge_index, _ = graph_of(1, 20)
    assert units(check_equal(net, torch.randn(N, F), edge_index)) == [2, 3]


def test_without_any_weight_the_biases_are_left():
    net = gs.nn.GraphSAGE(F, 8, 3)
    with torch.no_grad():
        for name, value in net.named_parameters():
            value.fill_(0.25 if "bias" in name else 0)
    edge_index, _ = graph_of(1, 20)
    assert units(check_equal(net.eval(), torch.randn(N, F), edge_index)) == [0, 3]


def test_large_products_are_tried_and_the_fastest_form_is_told():
    torch.manual_seed(0)
    net = gs.nn.GCN(64, 64, 8).eval()
    with torch.no_grad():
        net.convs[0].lin.weight.mul_(torch.rand(64, 64) < 0.1)
    x, edge_index = torch.randn(500, 64), torch.randint(0, 500, (2, 2000))
    engine = Engine(simplify(read_program(net, arguments_of(net, x, edge_index))), x)
    assert any("sparse weights, then edges" in note and "dense weights, then edges" in note for note in engine.notes)


class Nosy(nn.Module):
    """What it does hangs on numbers of its features."""

    def __init__(self):
        super().__init__()
        self.conv = GCNConv(4, 4)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index) * (1.0 if float(x.sum()) > 0 else -1.0)


def test_a_compiled_ticket_gives_the_tickets_outputs(ticket, blocks, model):
    fast = ticket.compile(model, blocks)
    torch.testing.assert_close(fast(), ticket.logits, rtol=1e-4, atol=1e-5)
    kept = ticket.sparse_graph(blocks)
    others = torch.randn_like(blocks.x)
    plain = ticket.apply_to(model).eval()
    with torch.no_grad():
        expected = plain(others, kept.edge_index)
    prepared = fast.prepare(others)
    for outputs in (fast(others), fast(prepared), fast(prepared), fast(others.to_sparse_csr())):
        torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fast(others, kept.edge_index), expected, rtol=1e-5, atol=1e-5)
    assert fast.error <= 1e-5
    assert {"loops over rows", "the program in torch's operations"} <= set(fast.milliseconds)
    assert "the outputs differ from the plain model's by at most" in fast.explain()


def test_a_graph_in_another_order_compiles_to_the_same(ticket, blocks, model):
    order = torch.randperm(blocks.num_edges, generator=torch.Generator().manual_seed(0))
    other = copy.copy(blocks)
    other.edge_index = blocks.edge_index[:, order]
    torch.testing.assert_close(ticket.compile(model, other)(), ticket.compile(model, blocks)(), rtol=1e-5, atol=1e-5)


def test_other_graphs_models_and_features_are_refused(ticket, blocks, model, make_plain):
    other = copy.copy(blocks)
    other.edge_index = blocks.edge_index[:, 2:]
    with pytest.raises(TicketError, match="this is not the ticket's graph"):
        ticket.compile(model, other)
    with pytest.raises(TicketError, match="build the model with the ticket's sizes"):
        ticket.compile(type(model)(4, 8, 4), blocks)
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module"):
        ticket.compile(None, blocks)
    with pytest.raises(TypeError, match="data must be a PyG Data, got Tensor"):
        ticket.compile(model, blocks.edge_index)
    fast = ticket.compile(model, blocks)
    with pytest.raises(
        ValueError, match=r"compiled for features torch.float32 \[160, 4\] on cpu, got torch.float32 \[80, 4\]"
    ):
        fast(blocks.x[:80])
    with pytest.raises(ValueError, match="this edge_index is another's"):
        fast(blocks.x, blocks.edge_index)
    with pytest.raises(ValueError, match="prepared by another compiled ticket"):
        fast(ticket.compile(model, blocks).prepare(blocks.x))


def test_a_model_that_cannot_be_read_is_run_as_it_is(blocks):
    fast = CompiledTicket(Nosy(), arguments_of(Nosy(), blocks.x, blocks.edge_index))
    assert "reads numbers of its features" in fast.explain()
    for x in (blocks.x, -blocks.x):
        with torch.no_grad():
            torch.testing.assert_close(fast(x), fast.model(x, blocks.edge_index))
    with pytest.raises(TraceError, match="Nosy cannot be exported: the model reads numbers of its features"):
        fast.portable()


def test_a_form_with_other_outputs_is_not_taken(ticket, blocks, model, monkeypatch):
    monkeypatch.setattr(Engine, "__call__", lambda self, features: torch.full((160, 4), 0.1))
    fast = ticket.compile(model, blocks)
    assert "loops over rows was not taken: its outputs differ by" in fast.explain()
    torch.testing.assert_close(fast(), ticket.logits, rtol=1e-4, atol=1e-5)


def test_a_form_that_fails_is_not_taken(ticket, blocks, model, monkeypatch):
    def fails(self, *given, **named):
        raise RuntimeError("no loops today")

    monkeypatch.setattr(Engine, "__init__", fails)
    fast = ticket.compile(model, blocks)
    assert "a form was not taken, since it failed (RuntimeError: no loops today)" in fast.explain()
    torch.testing.assert_close(fast(), ticket.logits, rtol=1e-4, atol=1e-5)


def test_it_stays_in_evaluation_mode(blocks, make_plain):
    net = make_plain(blocks)
    fast = CompiledTicket(net, arguments_of(net, blocks.x, blocks.edge_index))
    expected = fast()
    fast.train()
    assert not any(part.training for part in fast.modules())
    assert torch.equal(fast(), expected)


def test_links_without_features_compile_too():
    torch.manual_seed(0)
    net = gs.nn.make_link_net("sage", 160, 0, 8, seed=0).eval()
    edge_index = torch.randint(0, 160, (2, 600))
    fast = CompiledTicket(net, GraphCall(net).arguments(None, edge_index, EdgeData()))
    pairs = torch.tensor([[0, 1], [2, 3]])
    with torch.no_grad():
        expected = net(None, edge_index)
        torch.testing.assert_close(fast(), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fast.decode(fast(), pairs), net.decode(expected, pairs), rtol=1e-5, atol=1e-5)
    assert "loops over rows" in fast.milliseconds
    with pytest.raises(ValueError, match="the model has no features"):
        fast(torch.ones(160, 8))


def test_an_mlp_compiles_though_no_message_is_sent(blocks):
    class NoEdges(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = MLP([4, 8, 4], norm="batch_norm")

        def forward(self, x, edge_index):
            return self.mlp(x)

    net = NoEdges().eval()
    fast = CompiledTicket(net, arguments_of(net, blocks.x, blocks.edge_index))
    with torch.no_grad():
        torch.testing.assert_close(fast(), net.mlp(blocks.x), rtol=1e-5, atol=1e-5)


def test_an_exported_program_gives_the_outputs(ticket, blocks, model, tmp_path):
    fast = ticket.compile(model, blocks)
    fast.export(tmp_path / "net.pt2")
    again = torch.export.load(tmp_path / "net.pt2").module()
    others = torch.randn_like(blocks.x)
    torch.testing.assert_close(again(others), fast(others), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"\.pt2 for torch.export or \.onnx for ONNX, got 'net.bin'"):
        fast.export(tmp_path / "net.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]


def test_onnx_gives_the_outputs(tmp_path):
    onnx = pytest.importorskip("onnx.reference")
    torch.manual_seed(0)
    net, x = Mixed().eval(), torch.randn(N, F)
    edge_index, _ = graph_of(0, 30)
    fast = CompiledTicket(net, arguments_of(net, x, edge_index))
    fast.export(tmp_path / "net.onnx")
    written = onnx.ReferenceEvaluator(str(tmp_path / "net.onnx"))
    (outputs,) = written.run(None, {written.input_names[0]: (-x).numpy()})
    torch.testing.assert_close(torch.from_numpy(outputs), fast(-x), rtol=1e-4, atol=1e-5)


def test_onnx_without_its_packages_says_what_to_install(ticket, blocks, model, tmp_path, monkeypatch):
    monkeypatch.setattr("graphsparse.tickets.compiled.export.find_spec", lambda name: None)
    with pytest.raises(GraphsparseError, match=r"ONNX needs onnx and onnxscript: pip install 'graphsparse\[onnx\]'"):
        ticket.compile(model, blocks).export(tmp_path / "net.onnx")


def test_a_ticket_of_units_compiles_to_the_smaller_model(blocks, model):
    ticket = gs.find_ticket(model, blocks, edge_keep=0.5, weight_keep=0.3, pattern="units", epochs=3)
    fast = ticket.compile(model, blocks)
    assert fast.model.first.lin.weight.size(0) < 16
    torch.testing.assert_close(fast(), ticket.logits, rtol=1e-4, atol=1e-5)


def test_the_command_compiles_and_its_page_shows_the_time(tmp_path):
    words = ["ticket", "--compile", "--seeds", "1", "--epochs", "2", "--hidden", "8", "--points", "1"]
    done = CliRunner().invoke(app, [*words, "--method", "random", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "Compiled, a pass takes" in done.output
    times = json.loads((tmp_path / "metrics.json").read_text())["compiled"]
    assert 0 < times["ms"] <= times["plain_ms"] * 2
    page = (tmp_path / "report.html").read_text()
    assert "one forward pass, compiled, ms" in page
    assert times["plan"][-1] in page.replace("&#x27;", "'")
    assert "graphsparse ticket --dataset" in page
    assert "--compile" in page


def test_data_is_not_changed(ticket, blocks, model):
    before = {name: value.clone() for name, value in blocks.to_dict().items() if isinstance(value, torch.Tensor)}
    weights = copy.deepcopy(model.state_dict())
    ticket.compile(model, blocks)(blocks.x)
    assert all(torch.equal(value, blocks[name]) for name, value in before.items())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in weights.items())
    assert isinstance(blocks, Data)


class Between(nn.Module):
    """A layer, and then what is written of its outputs, the features and the arcs."""

    def __init__(self, written):
        super().__init__()
        self.written, self.first, self.lin = written, GCNConv(F, 8), nn.Linear(8, 8)
        self.row, self.rows, self.square = (nn.Parameter(torch.randn(size)) for size in (8, (N, 8), (8, 8)))

    def forward(self, x, edge_index):
        return self.written(self, self.first(x, edge_index), x, edge_index)


FUNCTIONAL = nn.functional
WRITTEN = {  # name -> (what is written, the calls that are repeated as they are)
    "by keyword": (lambda n, h, x, e: torch.relu(input=h), "relu"),
    "functional by keyword": (lambda n, h, x, e: FUNCTIONAL.elu(input=h, alpha=0.5), None),
    "a slope in place": (lambda n, h, x, e: FUNCTIONAL.leaky_relu(h, negative_slope=0.3, inplace=True), None),
    "weights from features": (lambda n, h, x, e: FUNCTIONAL.linear(h, h[:8]), "__getitem__, linear"),
    "weights by keyword": (lambda n, h, x, e: FUNCTIONAL.linear(input=h, weight=n.square, bias=None), None),
    "joined by keyword": (lambda n, h, x, e: torch.cat(tensors=[h, x], dim=1), None),
    "joined with what is fixed": (lambda n, h, x, e: torch.cat([h, n.rows], dim=1), None),
    "joined below each other": (lambda n, h, x, e: torch.cat([h, h], dim=0)[:N], "__getitem__, cat"),
    "a norm of this batch": (lambda n, h, x, e: FUNCTIONAL.batch_norm(h, None, None, training=True), "batch_norm"),
    "a norm without a scale": (
        lambda n, h, x, e: FUNCTIONAL.batch_norm(h, torch.zeros(8), torch.ones(8), None, n.row), None,
    ),
    "a sum with a factor": (lambda n, h, x, e: torch.add(h, n.lin(h), alpha=2), "add"),
    "a row added": (lambda n, h, x, e: n.row + h, None),
    "a column added": (lambda n, h, x, e: h + h.mean(1, keepdim=True), "add, mean"),
    "a matrix added": (lambda n, h, x, e: h + n.rows, "add"),
    "another width added": (lambda n, h, x, e: h + x[:, :1], "__getitem__, add"),
    "times a bool": (lambda n, h, x, e: h * True, "mul"),
    "times by keyword": (lambda n, h, x, e: torch.mul(h, other=n.row), "mul"),
    "over a row": (lambda n, h, x, e: h / n.row, None),
    "over features": (lambda n, h, x, e: h / (1 + h.abs()), "abs, div"),
    "halves rounded down": (lambda n, h, x, e: torch.div(h, 2.0, rounding_mode="floor"), "div"),
    "arcs weighed by features": (
        lambda n, h, x, e: n.first(x, e, (h[e[0]] * h[e[1]]).sum(1).abs()), "GCNConv, __getitem__, abs, mul, sum",
    ),
    "its own features": (lambda n, h, x, e: x, None),
}  # fmt: skip


def between(written):
    torch.manual_seed(0)
    return Between(written).eval(), torch.randn(N, F), graph_of(0, 30)[0]


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_between_layers_is_read_or_repeated_as_it_is(name):
    written, repeated = WRITTEN[name]
    program = check_equal(*between(written))
    assert ", ".join(sorted(set(program.opaque))) == (repeated or "")


def compiled(written):
    net, x, edge_index = between(written)
    fast, other = CompiledTicket(net, arguments_of(net, x, edge_index)), torch.randn(N, F)
    with torch.no_grad():
        assert torch.equal(fast(other), net(other, edge_index))
        assert torch.equal(fast(), net(x, edge_index))
    return fast


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (lambda n, h, x, e: h.sub_(1.0), r"the model changes its features in place \(sub_\)"),
        (
            lambda n, h, x, e: (h.__setitem__((slice(None), 0), 0.0), h)[1],
            r"reads numbers of its features \(__setitem__\)",
        ),
        (lambda n, h, x, e: h if float(h.sum()) > 0 else -h, r"reads numbers of its features \(__float__\)"),
        (lambda n, h, x, e: n.rows * 2, "does not return one tensor that its features lead to"),
    ],
)
def test_what_cannot_be_read_is_run_as_it_is_and_said(written, said):
    fast = compiled(written)
    assert re.search(said, fast.untraced)
    assert any(line.startswith("the model is run as it is: ") for line in fast.plan)


def test_a_part_that_is_changed_behind_its_back_is_found_out():
    """The program holds the value from before; its outputs differ, so no form of it is taken."""
    fast = compiled(lambda n, h, x, e: (h[:, :4].relu_(), h)[1])
    assert fast.plan[0].startswith("the plain model")
    assert sum("was not taken: its outputs differ by" in line for line in fast.plan) == 2


def test_a_model_that_draws_numbers_equals_nothing():
    net, x, edge_index = between(lambda n, h, x, e: h + torch.randn(8))
    with pytest.raises(TicketError, match="Between does not give the same outputs twice"):
        CompiledTicket(net, arguments_of(net, x, edge_index))


def test_without_a_compiler_the_rest_is_tried(monkeypatch):
    monkeypatch.setattr("graphsparse.tickets.compiled.fast.shutil.which", lambda name: None)
    net, x, edge_index = between(lambda n, h, x, e: n.lin(h.relu()))
    fast = CompiledTicket(net, arguments_of(net, x, edge_index), torch_compile=True)
    assert "torch.compile was not tried: there is no C++ compiler here" in fast.plan
    torch.testing.assert_close(fast(), net(x, edge_index), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_csr])
def test_the_plain_model_takes_other_features_in_either_layout(layout):
    """In place of what it was made for: rows that are compressed are spread out, or the other way round."""
    net, x, edge_index = between(lambda n, h, x, e: h.sub_(1.0))
    fast, other = CompiledTicket(net, arguments_of(net, x, edge_index)), torch.randn(N, F)
    given = other if layout == torch.strided else other.to_sparse_csr()
    torch.testing.assert_close(fast(given), net(other, edge_index), rtol=1e-5, atol=1e-5)
