"""find_ticket(pattern="units"): whole hidden units are removed, counted by their weights, and cut out at the end."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GatedGraphConv, GCNConv, SGConv
from typer.testing import CliRunner

import graphsparse as gs
from graphsparse.cli import app
from graphsparse.cli.report_command import know_runs
from graphsparse.errors import TicketError, TraceError
from graphsparse.fit import LinkTask
from graphsparse.keep_rule import kept_count
from graphsparse.nn import GCN, LinkNet, NodeEmbedding, make_molecule_net
from graphsparse.report.parts import Prose, Sheet
from graphsparse.report.runs import read_run
from graphsparse.tickets.compare.plan import marks_of, method_of, plain_name
from graphsparse.tickets.problem import Found, Problem, Training
from graphsparse.tickets.units import units_of

know_runs()

SETTINGS = {"edge_keep": 0.7, "weight_keep": 0.5, "epochs": 3, "pattern": "units", "progress": False}


def outputs(model, data):
    with torch.no_grad():
        return model.eval()(data.x, data.edge_index)


def test_a_ticket_of_units_is_a_smaller_module_with_the_same_outputs(blocks, make_plain, tmp_path):
    """GCN 4 -> 16 -> 4: a unit has 4 + 1 + 4 = 9 weights of 148, 4 are of none; 74 may stay: 7 units, 67 weights."""
    model = make_plain(blocks)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ticket = gs.find_ticket(model, blocks, **SETTINGS | {"epochs": 20})
    metrics = ticket.metrics
    assert (metrics["num_units"], metrics["num_units_kept"], metrics["num_weights_kept"]) == (16, 7, 67)
    assert metrics["units_kept"] == 7 / 16
    assert metrics["cut"] is True
    small, wide = ticket.apply_to(model), ticket.apply_to(model, cut=False)
    assert (small.first.lin.weight.shape, small.second.lin.weight.shape) == ((7, 4), (4, 7))
    assert sum(value.numel() for value in small.parameters()) == 67
    assert wide.first.lin.weight.shape == (16, 4)
    sparse = ticket.sparse_graph(blocks)
    torch.testing.assert_close(outputs(small, sparse), outputs(wide, sparse), rtol=0, atol=1e-6)
    torch.testing.assert_close(outputs(small, sparse), ticket.logits, rtol=0, atol=1e-6)
    assert metrics["macs"] < metrics["dense_macs"] * 0.6
    loaded = gs.Ticket.load(ticket.save(tmp_path))
    assert loaded.hash == ticket.hash
    assert loaded.verify(blocks, model=model)["max_output_error"] < 1e-6
    assert loaded.config["pattern"] == "units"
    again = loaded.apply_to(model, rewind=True)
    rows = ticket.cuts["first.lin.weight"][(0,)]
    assert torch.equal(again.first.lin.weight, model.first.lin.weight[rows])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "method", ["teddy", "reliance", "random", "no-edges", "magnitude", "random-weights", "imp", "ugs", "mixture"]
)
def test_every_finder_keeps_whole_units(blocks, method):
    model = GCN(4, 8, 4)
    ticket = gs.find_ticket(model, blocks, method=method, **SETTINGS)
    total = sum(value.numel() for value in model.parameters())
    kept = sum(int(mask.sum()) for mask in ticket.weight_masks.values())
    assert total == 76  # 4 of no unit, 9 for each of 8
    assert kept == 4 + 9 * 3 <= kept_count(0.5, total)
    assert ticket.metrics["cut"]
    assert sum(value.numel() for value in ticket.apply_to(model).parameters()) == kept
    assert ticket.verify(blocks, model=model)


def test_a_control_that_keeps_all_cuts_nothing(blocks):
    ticket = gs.find_ticket(GCN(4, 8, 4), blocks, method="dense-student", **SETTINGS)
    assert ticket.cuts == {}
    assert ticket.metrics["num_units_kept"] == 8


def test_equal_calls_give_equal_tickets_and_an_interrupted_one_resumes(blocks, make_plain, tmp_path, monkeypatch):
    whole = gs.find_ticket(make_plain(blocks), blocks, **SETTINGS | {"epochs": 60})
    assert gs.find_ticket(make_plain(blocks), blocks, **SETTINGS | {"epochs": 60}).hash == whole.hash

    def stop(done, epochs, figures):
        if done == 52 and len(list(tmp_path.iterdir())) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gs.find_ticket(
            make_plain(blocks), blocks, **SETTINGS | {"epochs": 60, "progress": stop, "checkpoint": tmp_path}
        )
    resumed = gs.find_ticket(make_plain(blocks), blocks, **SETTINGS | {"epochs": 60, "checkpoint": tmp_path})
    assert resumed.hash == whole.hash
    settings = SETTINGS | {"epochs": 60, "pattern": "weights", "checkpoint": tmp_path}
    plain = gs.find_ticket(make_plain(blocks), blocks, **settings)
    assert plain.hash != whole.hash


def test_weights_one_by_one_stay_what_they_were(blocks, make_plain, tmp_path):
    plain = gs.find_ticket(make_plain(blocks), blocks, **SETTINGS | {"pattern": "weights"})
    assert "pattern" not in plain.config
    assert not plain.cuts
    assert "cut" not in plain.metrics
    assert plain.metrics["num_weights_kept"] == 74
    folder = plain.save(tmp_path)
    assert '"format": 2' in (folder / "ticket.json").read_text()


def test_links_are_scored_alike_by_a_smaller_network(blocks):
    """Embeddings that go out keep their width; what makes them, and the decoder's hidden layers, do not."""
    pairs = blocks.edge_index[:, blocks.edge_index[0] < blocks.edge_index[1]]
    generator = torch.Generator().manual_seed(0)
    other = torch.randint(0, 160, (2, 60), generator=generator)
    data = Data(
        edge_index=blocks.edge_index, num_nodes=160, train_pos_edge_index=pairs[:, :200], task="link",
        val_pos_edge_index=pairs[:, 200:220], val_neg_edge_index=other[:, :30], metric="hits@5",
        test_pos_edge_index=pairs[:, 220:240], test_neg_edge_index=other[:, 30:],
    )  # fmt: skip
    model = LinkNet(NodeEmbedding(GCN(6, 10, 8), 160, 6), 8)
    ticket = gs.find_ticket(model, data, weight_distribution="uniform", **SETTINGS)
    small, wide = ticket.apply_to(model).eval(), ticket.apply_to(model, cut=False).eval()
    assert ticket.metrics["cut"]
    assert small.encoder.weight.shape[1] < 6
    assert small.layers[0].in_features == 8
    assert small.layers[0].out_features < 8
    arcs = ticket.sparse_graph(data).edge_index
    with torch.no_grad():
        z = small(None, arcs)
        torch.testing.assert_close(z, wide(None, arcs), rtol=0, atol=1e-6)
        torch.testing.assert_close(small.decode(z, other), wide.decode(z, other), rtol=0, atol=1e-6)
    assert ticket.verify(data, model=model)
    task = LinkTask(data, batch_size=64)
    assert gs.find_ticket(model, data, task=task, **SETTINGS).metrics["cut"]


def test_molecules_with_encoders_of_atoms_and_bonds():
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for number in range(12):
        arcs = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
        x, bonds = (torch.randint(0, 2, size, generator=generator) for size in ((4, 9), (3, 3)))
        y = torch.tensor([[float(number % 2)]])
        graphs.append(Data(x=x, edge_index=arcs, edge_attr=bonds.repeat_interleave(2, 0), y=y))
    data = gs.data.join_graphs(graphs, {"train": range(4), "val": range(4, 8), "test": range(8, 12)})
    data.metric, data.task = "rocauc", "graph"
    model = make_molecule_net("gin", 1, 6, num_layers=2, seed=0)
    ticket = gs.find_ticket(model, data, **SETTINGS | {"epochs": 1})
    assert ticket.metrics["cut"]
    small = ticket.apply_to(model)
    assert sum(p.numel() for p in small.parameters()) == ticket.metrics["num_weights_kept"]


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = GCNConv(4, 8), nn.GroupNorm(2, 8), GCNConv(8, 4)

    def forward(self, x, edge_index):
        return self.second(self.norm(self.first(x, edge_index)).relu(), edge_index)


def test_where_units_cannot_be_cut_out_zeros_stay_and_are_explained(blocks):
    model = Normed()
    ticket = gs.find_ticket(model, blocks, **SETTINGS)
    assert ticket.metrics["cut"] is False
    assert "outputs that differ" in ticket.metrics["cut_refused"]
    assert ticket.metrics["num_units_kept"] < 8
    same = ticket.apply_to(model)
    assert same.first.lin.weight.shape == (8, 4)
    assert ticket.verify(blocks, model=model)


def test_models_that_cannot_be_followed_are_refused_in_a_sentence_before_training(blocks):
    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.experts = GCNConv(4, 8), nn.Parameter(torch.rand(8, 4 * 8))

        def forward(self, x, edge_index):
            x = self.conv(x, edge_index)
            return functional.linear(x, (x.mean(0) @ self.experts).view(4, 8))  # a weight of activations

    settings = SETTINGS | {"epochs": 10**8}
    with pytest.raises(TraceError, match=r"hidden units of Conditional cannot be found: .*Take pattern='weights'"):
        gs.find_ticket(Conditional(), blocks, **settings)
    with pytest.raises(ValueError, match="SGConv has no hidden units that could go"):
        gs.find_ticket(SGConv(4, 4), blocks, **settings)
    with pytest.raises(ValueError, match=r"one unit of each of 1 layers has 13 of 76 weights.*keep at least"):
        gs.find_ticket(GCN(4, 8, 4), blocks, **settings | {"weight_keep": 0.1})
    with pytest.raises(ValueError, match="pattern must be 'weights' or 'units', got 'rows'"):
        gs.find_ticket(GCN(4, 8, 4), blocks, **settings | {"pattern": "rows"})
    with pytest.raises(ValueError, match="units are shared out 'global' or 'uniform' among the layers, not 'erk'"):
        gs.find_ticket(GCN(4, 8, 4), blocks, **settings, weight_distribution="erk")
    with pytest.raises(ValueError, match="denoise exchanges weights one by one"):
        gs.find_ticket(GCN(4, 8, 4), blocks, method="denoise", **settings)


def test_units_of_gated_recurrent_layers_go_together(blocks):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.out = GatedGraphConv(8, 2), nn.Linear(8, 4)

        def forward(self, x, edge_index):
            return self.out(self.conv(x, edge_index))

    net = Recurrent()
    ticket = gs.find_ticket(net, blocks, **SETTINGS | {"weight_keep": 0.6})
    ticket.verify(blocks, model=net)
    masks = ticket.weight_masks
    rows = masks["conv.rnn.weight_hh"].view(3, 8, 8)
    assert bool((rows == rows[0]).all())  # the three gates of a unit stay or go as one
    assert ticket.metrics["num_units_kept"] < ticket.metrics["num_units"]


def test_a_finder_that_keeps_parts_of_units_is_found_out(blocks):
    def finder(problem: Problem, dense, edge_keep, weight_keep) -> Found:
        edges = problem.edge_mask("random", edge_keep)
        masks = {name: torch.rand(value.shape) < 0.2 for name, value in problem.model.named_parameters()}
        state = {n: v.masked_fill(~masks[n], 0) if n in masks else v for n, v in dense.state.items()}
        model = problem.fresh_model()
        model.load_state_dict(state)
        task = problem.task.with_mask(edges)
        logits = task.predict(model)
        scores = {part: task.score(logits, part) for part in ("val", "test")}
        return Found(edges, masks, dataclasses.replace(dense, state=state, logits=logits, **scores))

    finder.takes = ()
    gs.tickets.register("parts", finder)
    try:
        with pytest.raises(TicketError, match="keeps parts of units"):
            gs.find_ticket(GCN(4, 8, 4), blocks, method="parts", **SETTINGS)
    finally:
        del gs.tickets.FINDERS["parts"]


def test_a_ticket_that_cuts_away_what_it_keeps_does_not_verify(blocks, make_plain):
    ticket = gs.find_ticket(make_plain(blocks), blocks, **SETTINGS)
    kept = ticket.cuts["first.bias"][(0,)].clone()
    kept[kept.nonzero()[0]] = False
    other = dataclasses.replace(ticket, cuts={**ticket.cuts, "first.bias": {(0,): kept}})
    assert other.hash != ticket.hash
    with pytest.raises(TicketError, match=r"cuts away weights of first\.bias that its mask keeps"):
        other.verify(blocks)


def test_a_tolerance_passes_over_levels_that_leave_less_than_a_unit(blocks):
    """Of 76 weights a unit and what is of none are 13: 0.9^17 is the sparsest level that leaves as many."""
    ticket = gs.find_ticket(GCN(4, 8, 4), blocks, tolerance=1.0, epochs=1, pattern="units", progress=False)
    assert ticket.metrics["num_units_kept"] == 1
    assert ticket.config["weight_keep"] == str(Fraction(9, 10) ** 17)


def test_matrices_alone_may_count(blocks):
    """64 weights of 4 -> 8 -> 4 in matrices: half of them are 4 units, whose biases go along."""
    ticket = gs.find_ticket(GCN(4, 8, 4), blocks, which="matrices", **SETTINGS)
    assert ticket.metrics["num_units_kept"] == 4
    assert ticket.metrics["weights_kept_matrices"] == 0.5
    assert int(ticket.weight_masks["convs.0.bias"].sum()) == 4


def test_units_come_back_where_nothing_looks_at_them(blocks):
    """Every group of these models was tried: what makes a unit may rest; not so beside a norm over channels."""

    def resting(model):
        task = gs.fit.NodeTask.of(blocks)
        units = units_of(Problem(model, blocks, task, Training(pattern="units"))).trained
        return any(bool(claim.rests.any()) for claims in units.claims.values() for claim in claims)

    assert resting(GCN(4, 8, 4))
    assert resting(gs.nn.GAT(4, 8, 4, heads=2))
    assert resting(gs.nn.GraphTransformer(4, 8, 4, heads=2))
    assert not resting(Normed())


def test_other_types_and_frozen_layers(blocks):
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.given, self.conv, self.out = nn.Linear(4, 8), GATConv(8, 4, heads=2), nn.Linear(8, 4)
            self.given.requires_grad_(False)

        def forward(self, x, edge_index):
            return self.out(self.conv(self.given(x).relu(), edge_index))

    model = Frozen().double()
    data = blocks.clone()
    data.x = data.x.double()
    ticket = gs.find_ticket(model, data, **SETTINGS)
    small = ticket.apply_to(model)
    assert ticket.metrics["cut"]
    assert small.conv.lin.weight.dtype == torch.float64
    assert small.given.weight.requires_grad is False
    assert torch.equal(small.given.weight, model.given.weight[ticket.cuts["given.weight"][(0,)]] if "given.weight" in
                       ticket.cuts else model.given.weight)  # fmt: skip


def test_the_command_finds_units_and_its_page_shows_them_by_layer(tmp_path):
    words = ["ticket", "--pattern", "units", "--seeds", "1", "--epochs", "2", "--hidden", "12", "--points", "1"]
    words += ["--weight-keep", "40%", "--method", "random", "--json", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    ticket = gs.Ticket.load(tmp_path)
    assert ticket.config["units"] == {"convs.0.lin": [4, 12]}  # 65 + 10 weights a unit, 10 of none: 4 units of 12
    run = read_run(tmp_path)
    section = next(section for section in run.sections if section.title == "Units kept per layer")
    rows = next(block.rows for block in section.blocks if isinstance(block, Sheet))
    assert str(rows[0][0]) == "convs.0.lin"
    assert any("outputs the same" in block.text for block in section.blocks if isinstance(block, Prose))
    wrong = CliRunner().invoke(app, [*words, "--pattern", "unit"])
    assert wrong.exit_code != 0


def test_a_comparison_takes_units_beside_single_weights():
    assert method_of("teddy+cover+units", {})[1] == {"guard": "cover"}
    assert (marks_of("teddy+units").pattern, plain_name("teddy+units")) == ("units", "teddy")
    with pytest.raises(ValueError, match="more than one guard"):
        method_of("teddy+cover+isolated", {})


class PerNode(nn.Module):
    """A row of its own for each node of the whole graph, so that nothing runs on a part of it."""

    def __init__(self, nodes):
        super().__init__()
        self.first, self.rows, self.second = GCNConv(4, 8), nn.Parameter(torch.rand(nodes, 8)), GCNConv(8, 4)

    def forward(self, x, edge_index):
        return self.second((self.first(x, edge_index) + self.rows).relu(), edge_index)


def test_a_model_with_rows_for_every_node_is_followed_on_all_of_them(blocks):
    model = PerNode(160)
    ticket = gs.find_ticket(model, blocks, **SETTINGS)
    left = ticket.metrics["num_units_kept"]
    assert ticket.metrics["cut"] is True
    small = ticket.apply_to(model)
    assert small.rows.shape == (160, left)
    torch.testing.assert_close(outputs(small, ticket.sparse_graph(blocks)), ticket.logits, rtol=0, atol=1e-6)


class Widths(nn.Module):
    """A width is written into its code."""

    def __init__(self):
        super().__init__()
        self.first, self.second = GCNConv(4, 8), GCNConv(8, 4)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).relu() + torch.zeros(8), edge_index)


def test_a_smaller_model_whose_code_counts_on_a_width_is_explained(blocks):
    ticket = gs.find_ticket(Widths(), blocks, **SETTINGS)
    assert ticket.metrics["cut"] is False
    assert "does not run" in ticket.metrics["cut_refused"]
    assert ticket.verify(blocks, model=Widths())["max_output_error"] < 1e-6
