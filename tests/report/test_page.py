"""Pages as files: complete, escaped, alike each time; runs that are read, and folders that hold none."""

import json
import re

import networkx as nx
import numpy as np
import pytest
import torch

from graphsparse.errors import DataError
from graphsparse.graphs import picture as pictures
from graphsparse.graphs.interop import edge_list, open_graph
from graphsparse.report.graph_parts import graph_section
from graphsparse.report.html import fragment, page, record_in, write_page
from graphsparse.report.parts import Chart, Neighbourhoods, Run, Section, Sheet, figure
from graphsparse.report.runs import RUNS, read_run
from tests.report.page_runs import EVIL, karate, run


@pytest.fixture(scope="module")
def text():
    return page([run()])


def data_of(text):
    return json.loads(re.search(r'id="page-data">(.*?)</script>', text, re.DOTALL)[1])


def test_a_page_is_one_file_that_may_fetch_nothing(text):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy.partition("style-src")[0]
    head = text[: text.index("<script")]
    assert not re.search(r"(src|href)=[\"']?(http|//)", head)
    assert len(text) < 6_000_000


def test_names_cannot_leave_their_place(text):
    """A label may hold an end of a script, a tag or a quote: it is text, in the page and in its data."""
    assert text.count("<script") - text.count("\\u003cscript") >= 3
    assert text.count("</script>") == 3
    assert "<img" not in text.replace("<img>", "").split("<script>")[0]
    chart = next(iter(data_of(text)["charts"].values()))
    assert any(trace["meta"]["group"] == EVIL for trace in chart["traces"])
    assert all("<img" not in trace["name"] for trace in chart["traces"])


def test_the_same_runs_make_the_same_page(text):
    assert page([run()]) == text


@pytest.mark.parametrize("letter", ["\ud800", "\0", "\x1b", "\u2028", "é"])
def test_any_text_can_be_written(letter, tmp_path):
    found = write_page(tmp_path / "a.html", [Run(f"a{letter}b", "ticket", letter, ())])
    assert "<h1>a" in found.read_text(encoding="utf-8")


def test_charts_are_what_plotly_knows():
    """Plotly's own classes refuse a word that it does not know."""
    go = pytest.importorskip("plotly.graph_objects")
    charts = [block for section in run().sections for block in section.blocks if isinstance(block, Chart)]
    assert len(charts) == 3
    for chart in charts:
        go.Figure(data=list(chart.traces), layout=dict(chart.layout))


def test_several_runs_stand_beside_each_other(text):
    several = page([run("one"), run("two")])
    assert len(several) - len(text) < 100_000  # the library is there once
    traces = [trace["meta"]["group"] for chart in data_of(several)["charts"].values() for trace in chart["traces"]]
    assert {"one: teddy", "two: teddy"} <= set(traces)
    assert several.count("<article") == 2


def test_a_page_needs_a_run():
    with pytest.raises(ValueError, match="at least one run"):
        page([])


def test_a_notebook_shows_tables_and_no_script():
    section = run().sections[0]
    shown = fragment(section.blocks)
    assert "<table>" in shown
    assert not re.search("<(script|button|img)", shown)
    assert len(shown) < 5_000


def test_empty_figures_are_shown_as_such():
    assert figure(float("nan")).value is None
    assert figure(1.0, float("nan")).text == "1.00"
    assert figure(-0.01234, 0.5, scale=100, sign=True).text == "-1.23 ± 50.00"


# runs -----------------------------------------------------------------------------------------------------------------


def test_a_kind_of_run_is_one_function(tmp_path):
    @RUNS.register("of-a-test")
    def mine(path):
        return Run("mine", "of-a-test", (path / "mine.txt").read_text(), ()) if (path / "mine.txt").exists() else None

    try:
        (tmp_path / "mine.txt").write_text("it went well")
        assert read_run(tmp_path).lead == "it went well"
        (tmp_path / "mine.txt").write_bytes(b"\xff")
        with pytest.raises(DataError, match="is not a readable run of the kind of-a-test"):
            read_run(tmp_path)
    finally:
        del RUNS["of-a-test"]


def test_the_record_of_a_page_is_read_again(tmp_path):
    found = Run("a", "sparsify", "", (), record={"kind": "x", "text": EVIL, "n": [1, 2]})
    assert record_in(write_page(tmp_path / "a.html", [found])) == {"kind": "x", "text": EVIL, "n": [1, 2]}
    (tmp_path / "b.html").write_text("<p>another's page")
    assert record_in(tmp_path / "b.html") == {}


# pictures -------------------------------------------------------------------------------------------------------------


def test_a_picture_counts_what_networkx_counts():
    graph = nx.gnp_random_graph(40, 0.2, seed=1)
    opened = open_graph(graph).edges
    mask = torch.from_numpy(np.random.default_rng(1).random(opened.num_edges) < 0.6)
    found = pictures.picture(opened, mask)
    left = nx.Graph(graph)
    left.remove_edges_from([edge for edge, keep in zip(graph.edges, mask.tolist(), strict=True) if not keep])
    for side, whole in (("before", graph), ("after", left)):
        degrees = [degree for _, degree in whole.degree]
        assert found[side]["edges"] == whole.number_of_edges()
        assert found[side]["components"] == nx.number_connected_components(whole)
        assert found[side]["clustering"] == pytest.approx(nx.average_clustering(whole))
        assert found[side]["degrees"] == [[d, degrees.count(d)] for d in sorted(set(degrees))]
    drawn = found["drawing"]
    assert drawn["whole"]
    edges = zip(drawn["tails"], drawn["heads"], drawn["kept"], strict=True)
    assert {(a, b): kept == "1" for a, b, kept in edges} == dict(zip(graph.edges, mask.tolist(), strict=True))


def test_both_arcs_of_a_pair_are_one_edge_of_a_picture():
    arcs = torch.tensor([[0, 1, 1, 2, 2, 2], [1, 0, 2, 1, 2, 0]])
    both = edge_list(torch.cat([arcs[:, :5], torch.tensor([[2, 0], [0, 2]])], 1))
    found = pictures.picture(both, torch.tensor([True, True, False, False, True, True, True]))
    assert (found["before"]["edges"], found["after"]["edges"]) == (3, 2)
    directed = pictures.picture(edge_list(arcs), torch.ones(6, dtype=torch.bool))
    assert (directed["undirected"], directed["before"]["edges"]) == (False, 5)  # a loop is no edge
    nothing = pictures.picture(edge_list(torch.empty(2, 0, dtype=torch.int64), 3), torch.empty(0, dtype=torch.bool))
    assert nothing["drawing"]["centres"] == []
    assert "no edge to draw" in fragment([]) + page([Run("a", "b", "", [graph_section(nothing)])])


def test_the_picture_of_a_large_graph_stays_small(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_EDGES", 500)
    graph = nx.barabasi_albert_graph(3000, 3, seed=0)
    opened = open_graph(graph).edges
    mask = torch.arange(opened.num_edges) % 2 == 0
    found = pictures.picture(opened, mask)["drawing"]
    assert not found["whole"]
    assert len(found["centres"]) == pictures.MOST_CENTRES
    assert len(found["nodes"]) <= pictures.MOST_CENTRES * pictures.BALL
    assert len(json.dumps(found)) < 100_000
    degrees = dict(graph.degree)
    assert [degrees[node] for node in found["nodes"]] == found["degrees"][0]  # of the whole graph, not of the sample
    whole = {frozenset(edge): bool(keep) for edge, keep in zip(graph.edges, mask.tolist(), strict=True)}
    for tail, head, kept in zip(found["tails"], found["heads"], found["kept"], strict=True):
        assert whole[frozenset((found["nodes"][tail], found["nodes"][head]))] == (kept == "1")
    centre, why = found["centres"][0]
    assert "the largest degree" in why
    assert degrees[found["nodes"][centre]] == max(degrees.values())
    drawn = page([Run("a", "b", "", [graph_section(pictures.picture(opened, mask))])])
    assert "The graph is large: the page holds the surroundings of 40 chosen centres" in drawn


def test_many_degrees_share_bins():
    found = pictures.degree_counts(np.arange(1000))
    assert len(found) < 60
    assert found[0] == [0.0, 1.0]
    assert all(count == 1 for _, count in found)


def test_neighbourhoods_name_classes_in_the_legend():
    text = page([run()])
    assert re.search(">class 0</button>.*>class 1</button>", text)
    many = dict(karate()["drawing"], classes=list(range(34)))
    other = page([Run("a", "b", "", [Section("s", [Neighbourhoods("n", many)])])])
    assert ">class 0</button>" not in other
    assert ">nodes</button>" in other


def test_a_sheet_of_texts_is_no_sheet_of_numbers():
    sheet = Sheet("t", ["a", "b"], [["x", "1"], ["y", figure(2.0)]])
    text = page([Run("a", "b", "", [Section("s", [sheet])])])
    assert 'class="number"' not in text.partition("<main>")[2].partition("<script")[0]
