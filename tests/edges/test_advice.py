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
        ("coraa", "there is no such file or data set: .*did you mean 'cora'"),
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


def labelled_files(folder, graph, y):
    """The same graph and labels as files; node 7 is called n7, and there is a label of a node that has no edge."""
    edges, labels = folder / "edges.csv", folder / "labels.csv"
    edges.write_text("src,dst\n" + "".join(f"n{u},n{v}\n" for u, v in graph))
    labels.write_text(
        "label,node\n" + "".join(f"class {'b' if c else 'a'},n{u}\n" for u, c in enumerate(y)) + "a,lonely\n"
    )
    return edges, labels


def test_labels_may_stand_in_a_table_beside_the_graph(tmp_path):
    data = two_communities()
    pairs = data.edge_index[:, data.edge_index[0] < data.edge_index[1]].t().tolist()
    edges, labels = labelled_files(tmp_path, pairs, data.y.tolist())
    asked = {"methods": ["random"], "keeps": [0.5], "epochs": 30, "hidden": 8, "seeds": 2, "undirected": True}
    found = gs.advise(edges, labels=labels, **asked)
    assert found.metric == "accuracy"
    notes = " ".join(found.notes)
    assert "1 of 61 labels is of a node without edges" in notes
    assert "labelled nodes are split at random: random 60/20/20, seed 0" in notes
    assert "the nodes have no features" in notes
    assert found.whole.homophily > 0.9
    assert found.whole.mean > 0.6  # by the edges alone
    order = list(dict.fromkeys(str(end) for pair in pairs for end in pair))  # as the file's nodes are numbered
    same = gs.advise(edges, labels={f"n{u}": int(data.y[int(u)]) for u in order}, **asked)
    assert same.rows == found.rows


def test_labels_beside_a_graph_with_features_and_masks_take_the_place_of_its_own():
    data = two_communities()
    own = gs.advise(data, **QUICK, seeds=1)
    data.y, y = torch.zeros_like(data.y), data.y
    given = gs.advise(data, labels=y, **QUICK, seeds=1)
    assert [row.values for row in given.rows] == [row.values for row in own.rows]
    few = gs.advise(data, labels={node: "ab"[int(y[node])] for node in range(40)}, **QUICK, seeds=1)
    assert few.metric == "accuracy"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("node,colour\n1,2\n", "its columns must be node and label, got 'node, colour'"),
        ("1,a,x\n2,b,y\n", "its columns must be node and label"),
        ("node,label\n0,a\n0,b\n", "line 3 names node '0' again"),
        ("node,label\n0\n", "line 2 has 1 cells"),
        ("node,label\nx,a\n", "none of the 1 labels is of a node with edges"),
        ("", "it is empty"),
    ],
)
def test_a_table_of_labels_that_cannot_be_used(tmp_path, text, said):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises((ValueError, gs.DataError), match=said):
        gs.advise(torch.tensor([[0, 1], [1, 2]]), labels=path)
    with pytest.raises(ValueError, match="2 labels for 3 nodes"):
        gs.advise(torch.tensor([[0, 1], [1, 2]]), labels=["a", "b"])


@pytest.mark.parametrize("name", ["labels.tsv", "labels.txt", "labels.csv.gz"])
def test_a_table_of_labels_in_other_kinds_of_text(tmp_path, name):
    import gzip

    from graphsparse.edges.node_labels import read_labels

    sign = "," if "csv" in name else "\t" if "tsv" in name else " "
    content = f"0{sign}a\n1{sign}b\n2{sign}\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content.replace(b"2 \n", b""))
    assert read_labels(tmp_path / name) == {"0": "a", "1": "b"}


def test_the_curve_is_drawn_in_the_terminal_and_on_a_page(tmp_path):
    data = two_communities()
    np.savez(tmp_path / "a.npz", **{key: value.numpy() for key, value in data if isinstance(value, torch.Tensor)})
    words = ["advise", str(tmp_path / "a.npz"), "--method", "random,teddy", "--keep", "0.5,0.3", "--seeds", "2"]
    words += ["--epochs", "15", "--hidden", "8", "--out", str(tmp_path / "o")]
    said = CliRunner().invoke(cli.app, words, env={"COLUMNS": "80"}).output
    drawn = said.split("Its curve over keep:\n")[1].split("To do it")[0].splitlines()
    assert drawn[0].startswith("  validation accuracy, %; bars begin at ")
    assert [line.split()[0] for line in drawn[1:]] == ["whole", "0.5", "0.3"]
    assert all("█" in line and len(line) < 80 for line in drawn[1:])
    from graphsparse.edges.advice_page import advice_run
    from graphsparse.report.parts import Chart

    run = advice_run(tmp_path / "o")
    assert run.kind == "advise"
    charts = [block for section in run.sections for block in section.blocks if isinstance(block, Chart)]
    assert [chart.title for chart in charts] == [
        "validation metric, % against what is kept", "nodes in the largest component, % against what is kept"
    ]  # fmt: skip
    figures = json.loads((tmp_path / "o" / "advice.json").read_text())
    teddy = next(trace for trace in charts[0].traces if trace["name"] == "teddy")
    assert teddy["x"] == [30, 50]
    assert teddy["y"] == [100 * row["mean"] for row in figures["rows"][::-1] if row["method"] == "teddy"]
    page = (tmp_path / "o" / "report.html").read_text()
    assert "Recommended for a.npz" in page
    both = CliRunner().invoke(cli.app, ["report", *[str(tmp_path / "o")] * 2, "--out", str(tmp_path / "both.html")])
    assert both.exit_code == 0, both.exception
    assert advice_run(tmp_path) is None


def test_a_file_that_is_not_there_is_no_such_file_whatever_its_name(tmp_path):
    for name in ("nowhere", "nowhere.csv", "deep/nowhere"):
        with pytest.raises((ValueError, gs.DataError), match=r"no such file|does not exist"):
            gs.advise(str(tmp_path / name) if "/" in name else name)
        with pytest.raises(gs.DataError, match="does not exist"):  # rather than that it has no suffix
            gs.edges.sparsify_file(tmp_path / name, tmp_path / "out.csv", rules={"keep": 0.5})


def test_a_file_in_the_place_of_the_folder_is_told_before_anything_is_tried(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from graphsparse.cli.entry import app

    (tmp_path / "a.txt").write_text("0 1\n1 2\n2 0\n")
    monkeypatch.setattr("graphsparse.edges.advice.advise", lambda *_, **__: pytest.fail("it was tried"))
    words = ["advise", str(tmp_path / "a.txt"), "--out", str(tmp_path / "a.txt")]
    with pytest.raises(NotADirectoryError, match=r"cannot write into .*a\.txt: it is no folder; choose another place"):
        CliRunner().invoke(app, words, catch_exceptions=False)
