"""Advice on sparsifiers: what is measured, what is recommended, and that it does not claim more than was seen."""

import json
from pathlib import Path

import networkx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from typer.testing import CliRunner

import graphsparse as gs
from graphsparse import cli
from graphsparse.edges import subject
from graphsparse.edges.choice import by_metric, by_structure
from graphsparse.edges.trials import Trial
from graphsparse.fit import METRICS, paired_difference
from graphsparse.graphs.anatomy import anatomy

QUICK = {"methods": ["random", "teddy", "teddy+cover"], "keeps": [0.5], "epochs": 15, "hidden": 8}


def two_communities(size=60, seed=0, *, features=True):
    """Two dense groups with few edges between them; features tell the groups, so any edges will do."""
    sizes, chances = [size // 2] * 2, [[0.2, 0.01], [0.01, 0.2]]
    graph = networkx.stochastic_block_model(sizes, chances, seed=seed)
    ends = torch.tensor(list(graph.edges)).t()
    y = (torch.arange(size) >= size // 2).long()
    part = torch.arange(size) % 3
    data = Data(edge_index=torch.cat([ends, ends.flip(0)], 1), y=y, num_nodes=size)
    if features:
        data.x = torch.nn.functional.one_hot(y, 2).float()
    data.train_mask, data.val_mask, data.test_mask = part == 0, part == 1, part == 2
    return data


def made(method, values, *, keep=0.5, isolated=0, whole=(0.8, 0.8, 0.8), largest=1.0):
    gap = paired_difference(values, whole) if values else None
    return Trial(method, keep, 10, 0.1, isolated, 1, largest, 0.0, 0.0, None, tuple(values), gap)


def test_figures_are_those_of_the_sparsified_graph():
    data = two_communities(features=False)
    found = gs.advise(data, methods=["local-degree", "teddy+cover"], keeps=["40%"], seed=3)
    assert [row.method for row in found.rows] == ["local_degree", "teddy+cover"]
    kept = gs.sparsify(data, "teddy", keep=0.4, guard="cover", seed=3)
    row, figures = found.rows[1], anatomy(kept.edge_index, 60, data.y)
    assert row.edges == kept.num_edges // 2
    for name in ("isolated_nodes", "components", "largest_component", "clustering"):
        assert getattr(row, name) == figures[name], name
    tails, heads = kept.edge_index
    seen = ~data.test_mask[tails] & ~data.test_mask[heads]
    assert row.homophily == pytest.approx(float((data.y[tails] == data.y[heads])[seen].double().mean()))
    assert found.whole.degree_distance == 0 < row.degree_distance


def test_without_labels_the_guard_is_recommended_where_others_isolate_nodes():
    data = two_communities(features=False)
    found = gs.advise(data.edge_index, methods=["random", "teddy", "teddy+cover"], keeps=[0.5, 0.2])
    isolated = {(row.method, row.keep): row.isolated_nodes for row in found.rows}
    assert isolated["teddy+cover", 0.2] < min(isolated["teddy", 0.2], isolated["random", 0.2])
    assert found.recommended.method == "teddy+cover"
    assert found.metric is None
    assert "By structure alone" in found.reason
    assert "isolates the fewest nodes" in found.reason
    assert any("no labels" in note for note in found.notes)
    assert [row.keep for row in found.curve] == [0.5, 0.2]
    small = eval(found.call, {"gs": gs, "graph": data.edge_index})
    assert small.size(1) == 2 * found.recommended.edges


def test_where_methods_do_not_differ_it_says_so():
    found = gs.advise(two_communities(), **QUICK)
    assert found.metric == "accuracy"
    assert all(len(row.values) == 3 for row in (found.whole, *found.rows))
    assert "do not differ" in found.reason
    assert "random" in found.reason.lower()
    assert found.recommended.isolated_nodes == min(row.isolated_nodes for row in found.rows)
    assert f"Recommended: {found.recommended.method}" in str(found)
    assert "val accuracy, %" in str(found)


def test_equal_calls_give_equal_advice_and_test_labels_are_not_read():
    data = two_communities()
    first = gs.advise(data, **QUICK, seeds=2)
    other = data.clone()
    other.y[other.test_mask] = 1 - other.y[other.test_mask]
    before = other.y.clone()
    assert gs.advise(other, **QUICK, seeds=2) == first
    assert torch.equal(other.y, before)
    assert gs.advise(data, **QUICK, seeds=2, seed=7).rows != first.rows


def test_what_is_better_by_more_than_the_interval_is_recommended():
    accuracy = METRICS["accuracy"]
    good, bad = made("good", (0.80, 0.81, 0.80), isolated=9), made("random", (0.794, 0.804, 0.794))
    chosen, reason = by_metric([bad, good], accuracy)
    assert chosen is good
    assert "better than the others" in reason
    assert "Random" not in reason
    noisy = made("random", (0.85, 0.75, 0.80), isolated=2)
    chosen, reason = by_metric([good, noisy], accuracy)
    assert chosen is noisy
    assert "do not differ" in reason
    assert "no score is shown to be worth more than chance" in reason


def test_the_smallest_keep_that_holds_is_taken_and_else_the_largest():
    accuracy = METRICS["accuracy"]
    rows = [
        made("a", (0.8, 0.8, 0.81), keep=0.8),
        made("a", (0.80, 0.79, 0.80), keep=0.5),
        made("a", (0.6,) * 3, keep=0.3),
    ]
    chosen, reason = by_metric(rows, accuracy)
    assert chosen is rows[1]
    assert "0.5 is the smallest keep" in reason
    chosen, reason = by_metric(rows[2:], accuracy)
    assert chosen is rows[2]
    assert "No sparsifier measured" in reason


def test_one_seed_shows_no_difference():
    one = [made("a", (0.9,), whole=(0.8,), isolated=3), made("b", (0.8,), whole=(0.8,))]
    chosen, reason = by_metric(one, METRICS["accuracy"])
    assert chosen is one[1]
    assert "one seed cannot tell chance from a difference" in reason


def test_by_structure_says_where_no_sparsifier_holds():
    whole = made("whole graph", (), keep=1.0)
    rows = [made("a", (), isolated=30, largest=0.5), made("b", (), isolated=20, largest=0.4)]
    chosen, reason = by_structure(rows, whole, 100)
    assert chosen is rows[1]
    assert "each sparsifier measured isolates more than 1 %" in reason


def test_a_budget_ends_the_measurements_and_says_what_is_missing():
    found = gs.advise(two_communities(), **QUICK | {"keeps": [0.8, 0.5]}, seconds=1e-9)
    assert [(row.method, row.keep) for row in found.rows] == [("random", 0.8)]
    assert found.recommended == found.rows[0]
    assert found.not_measured[0] == "structure at keep 0.8: teddy, teddy+cover"
    assert found.not_measured[-1].startswith("accuracy")
    assert "the seconds were over" in str(found)


@pytest.mark.parametrize("directed", [False, True])
def test_of_a_large_graph_a_sample_is_measured(directed):
    generator = np.random.default_rng(0)
    ends = torch.from_numpy(generator.integers(0, 400, (2, 1500)))
    ends = ends[:, ends[0] < ends[1]].unique(dim=1)
    both = ends if directed else torch.cat([ends, ends.flip(0)], 1)
    data = Data(edge_index=both, num_nodes=450, x=torch.arange(450.0)[:, None], y=torch.arange(450))
    small = subject.open_subject(data, None).cut(200, 1)
    nodes = small.y
    assert torch.equal(small.edges.x[:, 0].long(), nodes)
    assert 150 < small.edges.num_countable <= 200
    named = {(int(nodes[a]), int(nodes[b])) for a, b in small.edges.edge_index.t()}
    inside = set(nodes.tolist())
    assert named == {(a, b) for a, b in both.t().tolist() if a in inside and b in inside}
    assert small.edges.undirected is not directed
    found = gs.advise(data, methods=["teddy"], keeps=[0.5], most_edges=200, seed=1, task="structure")
    assert found.rows[0].edges == -(-small.edges.num_countable // 2)
    assert any("a sample" in note for note in found.notes)


def test_a_sample_of_two_components_goes_on_in_the_next():
    lines = torch.arange(300).view(-1, 3)
    ends = torch.cat([lines[:, :2], lines[:, 1:]]).t()
    small = subject.open_subject(ends, False).cut(150, 0)
    assert small.edges.num_countable == 150


def test_directed_graphs_and_files_and_data_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("cycle.csv").write_text("src,dst\n" + "".join(f"{i},{(i + 1) % 20}\n" for i in range(20)))
    found = gs.advise("cycle.csv", methods=["random"], keeps=[0.5])
    assert found.rows[0].edges == 10
    assert any("--undirected" in note for note in found.notes)
    data = two_communities()
    arrays = {key: value.numpy() for key, value in data.to_dict().items() if isinstance(value, torch.Tensor)}
    np.savez("graph.npz", **arrays)
    one = {"methods": ["teddy"], "keeps": [0.5], "epochs": 5, "seeds": 1}
    assert gs.advise("graph.npz", **one).rows == gs.advise(data, **one).rows

    @gs.data.register("two-communities")
    def read():
        return two_communities()

    try:
        assert gs.advise("two-communities", **one).rows == gs.advise(data, **one).rows
    finally:
        del gs.data.DATASETS["two-communities"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"methods": ["tedy"]}, "did you mean 'teddy'"),
        ({"methods": ["teddy+cove"]}, "after \\+ comes cover, isolated or forest"),
        ({"methods": ["teddy+cover+isolated"]}, "there can be one guard"),
        ({"keeps": [0]}, "keep must lie in \\(0, 1\\]"),
        ({"keeps": [50]}, "keep must lie in"),
        ({"keeps": []}, "at least one"),
        ({"task": "edge"}, "task must be 'node', 'structure' or None"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"seconds": 0}, "seconds must be above 0"),
        ({"methods": ["cosine"]}, "features"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(change, said):
    with pytest.raises(ValueError, match=said):
        gs.advise(torch.tensor([[0, 1], [1, 2]]), **{"methods": ["teddy"], "keeps": [0.5]} | change)


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (torch.empty(2, 0, dtype=torch.int64), "no edges"),
        (torch.tensor([[0, 1], [0, 1]]), "no edges"),
        ([Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)] * 2, "one graph"),
        ("coraa", "did you mean 'cora'"),
    ],
)
def test_what_is_no_graph_to_advise_on(graph, said):
    with pytest.raises(ValueError, match=said):
        gs.advise(graph)


def test_a_node_task_says_what_it_lacks():
    data = two_communities(features=False)
    with pytest.raises(ValueError, match="no features"):
        gs.advise(data, task="node")
    with pytest.raises(ValueError, match="no labels"):
        gs.advise(data.edge_index, task="node")
    del data.train_mask
    data.x = torch.eye(60)
    with pytest.raises(ValueError, match="RandomNodeSplit"):
        gs.advise(data, task="node")


def test_a_guard_that_cannot_be_held_is_noted():
    star = torch.tensor([[0] * 6, [1, 2, 3, 4, 5, 6]])
    found = gs.advise(star, methods=["teddy+isolated", "teddy"], keeps=[0.5], undirected=True)
    assert [row.method for row in found.rows] == ["teddy"]
    assert any("teddy+isolated at keep 0.5 is not possible" in note for note in found.notes)


def test_the_command_prints_writes_and_gives_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ring.csv").write_text("src,dst\n" + "".join(f"{i},{(i + 1) % 20}\n" for i in range(20)))
    words = ["advise", "ring.csv", "--undirected", "--method", "random,teddy+cover", "--keep", "80%,0.5"]
    done = CliRunner().invoke(cli.app, [*words, "--out", "advice"], prog_name="graphsparse")
    assert done.exit_code == 0, done.output
    assert "Recommended: teddy+cover at keep" in done.stdout
    written = json.loads(Path("advice/advice.json").read_text())
    assert [row["edges"] for row in written["rows"]] == [16, 16, 10, 10]
    again = CliRunner().invoke(cli.app, ["advise", "--config", "advice/config.toml", "--json"], prog_name="graphsparse")
    assert again.exit_code == 0, again.output
    told = json.loads(again.stdout)
    assert told["recommended"] | {"seconds": 0} == written["recommended"] | {"seconds": 0}
    quiet = CliRunner().invoke(cli.app, [*words, "--quiet"], prog_name="graphsparse")
    assert (quiet.exit_code, quiet.stdout) == (0, "")
    wrong = CliRunner().invoke(cli.app, ["advise", "ring.csv", "--task", "node"], prog_name="graphsparse")
    assert wrong.exit_code == 1
    assert "no labels" in str(wrong.exception)
