"""Pages of real runs: what the folder of each kind holds is shown, an old or damaged one is told."""

import html
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from scipy.stats import ttest_rel
from torch import nn
from typer.testing import CliRunner

import graphsparse as gs
from graphsparse.cli import app
from graphsparse.cli.report_command import know_runs
from graphsparse.edges.files import sparsify_file
from graphsparse.errors import DataError, GraphsparseError
from graphsparse.metanet import FineTune, prune
from graphsparse.metanet.page import X_AXIS
from graphsparse.report import Unit
from graphsparse.report.html import page
from graphsparse.report.record import typed_command
from graphsparse.report.runs import read_run
from graphsparse.tickets.compare import ticket_page
from tests.report.page_runs import EVIL

know_runs()


@pytest.fixture(scope="module")
def ticket_folder(tmp_path_factory):
    """What the command leaves, of a small run."""
    out = tmp_path_factory.mktemp("runs") / "small"
    words = ["--seeds", 3, "--epochs", 2, "--hidden", 8, "--points", 2, "--method", "random", "--out", out]
    done = CliRunner().invoke(app, ["ticket", *map(str, words)])
    assert done.exit_code == 0, done.output
    assert f"page: {out}/report.html" in done.output
    return out


def invoke(*words):
    return CliRunner().invoke(app, ["report", *map(str, words)], env={"COLUMNS": "400"})


def titles(run):
    return [section.title for section in run.sections]


# tickets --------------------------------------------------------------------------------------------------------------


def test_a_ticket_leaves_its_page(ticket_folder):
    run, text = read_run(ticket_folder), (ticket_folder / "report.html").read_text()
    assert text == page([run])
    summary = json.loads((ticket_folder / "metrics.json").read_text())
    assert f"{100 * summary['test']:.2f}" in run.lead
    assert f"{100 * summary['dense_test']:.2f}" in run.lead
    assert "60.0 % of the edges and 10.0 % of the weights" in run.lead
    assert titles(run)[1:6] == [
        "The graph before and after",
        "Weights kept per layer",
        "MACs beside measured time",
        "Every seed",
        "How it was made, and how to run it again",
    ]
    assert "graphsparse ticket --dataset digits-knn" in text
    ticket = gs.Ticket.load(ticket_folder)
    for name, mask in ticket.weight_masks.items():
        assert f">{name}<" in text
        assert f">{int(mask.sum()):,}<" in text
    assert ("What may help: more epochs" in text) == summary["standing"]["is_below"]
    record = json.loads((ticket_folder / "run.json").read_text())
    assert record["graph"]["after"]["edges"] == ticket.metrics["num_arcs_kept"] // 2
    last = record["curve"][0]["points"][-1]
    assert (last["edges_kept"], last["weights_kept"], last["test"]) == (0.6, 0.1, summary["test"])
    assert set(record["machine"]) == {"system", "processor", "cores"}


def test_the_page_without_the_library_is_small(ticket_folder):
    text = (ticket_folder / "report.html").read_text()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(text) - max(map(len, scripts)) < 400_000


def test_an_older_folder_gives_what_is_there(ticket_folder, tmp_path):
    old = shutil.copytree(ticket_folder, tmp_path / "old")
    (old / "run.json").unlink()
    run = read_run(old)
    assert "The graph before and after" not in titles(run)
    assert "Every seed" in titles(run)
    (old / "metrics.json").unlink()  # a ticket that was saved from Python
    assert "nothing is tested" in read_run(old).lead
    assert "Weights kept per layer" in titles(read_run(old))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", b"[]"),
        ("run.json", b"\xff\xfe"),
        ("run.json", b'{"graph": 3}'),
        ("run.json", b'{"curve": [{"label": 1}]}'),
        ("metrics.json", b"{"),
        ("metrics.json", b'{"ticket_hash": 1}'),
        ("ticket.json", b"{}"),
    ],
)
def test_a_damaged_folder_is_one_sentence(ticket_folder, tmp_path, file, content):
    broken = shutil.copytree(ticket_folder, tmp_path / "broken")
    (broken / file).write_bytes(content)
    with pytest.raises(GraphsparseError, match="broken") as told:
        read_run(broken)
    assert len(str(told.value).splitlines()) == 1


def test_a_foreign_folder_is_one_sentence(tmp_path):
    (tmp_path / "metrics.json").write_text('{"loss": 3}')
    with pytest.raises(DataError, match=r"holds no run that a page can show; known kinds are .*bench, meta prune"):
        read_run(tmp_path)


def seeds(*pairs):
    return [{"test": ours, "dense_test": theirs} for ours, theirs in pairs]


def test_the_test_is_said_in_words():
    unit = Unit("accuracy")
    pairs = [(0.80, 0.82), (0.79, 0.83), (0.81, 0.82), (0.80, 0.83)]
    said = ticket_page.tested(seeds(*pairs), unit)
    p = ttest_rel(*zip(*pairs, strict=True)).pvalue
    assert "differs from the dense one by -2.50 points" in said
    assert f"p = {p:.2g}" in said
    assert "excludes 0" in said
    assert "holds 0" in ticket_page.tested(seeds((0.8, 0.81), (0.82, 0.8), (0.8, 0.8)), unit)
    assert "no t test is made" in ticket_page.tested(seeds((0.8, 0.81), (0.7, 0.71), (0.6, 0.61)), unit)
    assert "needs at least 3" in ticket_page.tested(seeds((0.8, 0.81), (0.7, 0.72)), unit)
    assert "-0.100 rmse" in ticket_page.tested(seeds((0.8, 0.9), (0.7, 0.8), (0.6, 0.7)), Unit("rmse", False))


@pytest.mark.parametrize(
    ("pairs", "maximize", "words"),
    [
        ([(0.80, 0.82), (0.79, 0.81), (0.80, 0.82)], True, "2.00 points worse than the dense model, more than"),
        ([(0.80, 0.82), (0.82, 0.80), (0.80, 0.81)], True, "worse than the dense model, which the spread"),
        ([(0.84, 0.82)], True, "2.00 points better than the dense model; with fewer than 3 seeds nothing is tested"),
        ([(0.84, 0.84)], True, "the same as the dense model"),
        ([(0.84, 0.82)], False, "0.020 rmse worse"),
    ],
)
def test_the_lead_is_honest(pairs, maximize, words):
    mean = [sum(column) / len(pairs) for column in zip(*pairs, strict=True)]
    unit = Unit("accuracy" if maximize else "rmse", maximize)
    assert words in ticket_page._standing({"test": mean[0], "dense_test": mean[1]}, seeds(*pairs), unit)


# comparisons ----------------------------------------------------------------------------------------------------------


def rows(dataset="cora", ours=0.02):
    """Runs of a comparison, with a name that tries to break out."""
    setting = {"model": "gcn", "hidden": 64, "protocol": "transductive", "features": "raw"}
    setting |= {"dataset": dataset, "epochs": 9, "lr": 0.01, "weight_decay": 0.0, "split": None}
    made = []
    for seed in range(4):
        shared = setting | {"seed": seed, "trial": {}, "metric": "accuracy", "maximize": True, "components": 3}
        more = {"degrees": [[0, 1], [3, 7]]} if seed == 0 else {}
        made.append(shared | more | {"method": "dense", "level": 0, "val": 0.8, "test": 0.8 + seed / 1000})
        for method, below in (("teddy", 0.05), (EVIL, ours)):
            for level in (10, 20):
                figures = {"edges_kept": 0.95**level, "weights_kept": 0.9**level, "macs": 40, "dense_macs": 100}
                figures |= {"val": 0.8, "test": 0.8 - below * level / 20 + seed * seed / 1000, "seconds": 1.5}
                times = {"inference_ms": 2.0, "dense_inference_ms": 4.0}
                more = {"degrees": [[0, level], [2, 5]]} if seed == 0 else {}
                made.append(shared | figures | times | more | {"method": method, "level": level})
    return made


def test_a_comparison_of_rows_alone_is_shown(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    run = read_run(tmp_path)
    assert run.kind == "bench tickets"
    assert "2 methods, 20 runs." in run.lead
    assert f"{EVIL} has the best mean test accuracy of 2 methods" in run.lead
    assert "beyond the interval of the paired difference" in run.lead
    text = page([run])
    assert "<img" not in text.partition("<script")[0]
    assert "corrected by Holm" in text
    assert "Degree distribution (log axes)" in text
    assert "no place for nodes of degree 0: dense 1, x 20, teddy 20." in text.replace(html.escape(EVIL), "x")
    assert len(run.trends) == 2
    assert run.trends[0].x == [pytest.approx(100 * (1 - 0.9**level)) for level in (10, 20)]


def test_many_settings_fold_and_are_counted(tmp_path):
    many = [row for name, ours in (("a", 0.0), ("b", 0.1), ("c", 0.1)) for row in rows(name, ours)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    run = read_run(tmp_path)
    assert "In 1 of 3 settings the best ticket at the sparsest level is not below the dense model" in run.lead
    assert [section.folded for section in run.sections[1:4]] == [False, True, True]
    assert run.trends == ()


def test_a_comparison_without_a_dense_model_is_told(tmp_path):
    kept = [row for row in rows() if row["method"] != "dense"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    with pytest.raises(DataError, match="none of its runs is of a dense model"):
        read_run(tmp_path)


# pruned networks ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pruned():
    """A small network, pruned four times."""
    torch.manual_seed(0)
    x, y = torch.randn(64, 4), torch.arange(64) % 2
    net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    return prune(net, None, gs.Task((x, y), (x, y), (x, y)), speedup=4, fine_tune=FineTune(epochs=0))


def pruning(result, **more):
    """What ``graphsparse meta prune`` writes of two networks and two methods."""
    runs, summary = [], []
    for method, accuracy in (("group-l2", 0.8), (EVIL, 0.9)):
        for network in ("one", "two"):
            named = {"network": network, "method": method, "target": 4.0, "widths": result.widths}
            runs.append({**named, **result.figures(), "accuracy": accuracy})
        each = {"method": method, "target": 4.0, "networks": 2, "accuracy": accuracy, "speedup": 4.0}
        each |= dict.fromkeys(("accuracy_untuned", "val", "flops", "params", "latency_ms"), 1.0)
        each |= {f"{key}_ci95": 0.01 for key in ("accuracy", "speedup", "accuracy_untuned", "val", "flops", "params")}
        summary.append(each | {"latency_ms_ci95": None})
    summary[1]["difference"] = {"to": "group-l2", "mean": 0.1, "ci95": 0.05, "wins": 2}
    about = {"command": "graphsparse meta prune", "metric": "accuracy", "unpruned": 0.95, "unpruned_ci95": 0.02}
    return {**about, "in_meta_training": {}, "summary": summary, "runs": runs, "options": {"speedups": [4.0]}, **more}


def test_a_pruning_shows_channels_accuracy_and_time(pruned, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps(pruning(pruned)))
    run = read_run(tmp_path)
    assert f"at 4 times fewer FLOPs, {EVIL} with 90.00 ± 1.00 % (5.00 points less than unpruned)" in run.lead
    text = page([run])
    assert X_AXIS in text
    assert "Channels per layer, before and after" in titles(run)
    assert ">8<" in text  # of 32
    assert "--speedup 4.0" in text
    assert "<img" not in text.partition("<script")[0]


def test_an_older_pruning_says_that_it_holds_no_channels(pruned, tmp_path):
    old = pruning(pruned)
    for each in old["runs"]:
        del each["widths"]
    (tmp_path / "metrics.json").write_text(json.dumps(old))
    assert "did not write the channels" in page([read_run(tmp_path)])


# files of graphs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "edges.csv"
    lines = [f'"{EVIL.replace(chr(34), chr(34) * 2)}",b', *(f"n{i},n{i + 1}" for i in range(40))]
    path.write_text("src,dst\n" + "\n".join(lines) + "\n")
    return path


def test_a_sparsified_file_has_a_page_that_is_read_again(table, tmp_path):
    few, shown = tmp_path / "few.csv", tmp_path / "page.html"
    done = CliRunner().invoke(
        app,
        [str(word) for word in ("sparsify", table, few, "--keep", 0.5, "--undirected", "--report", shown)],
        env={"COLUMNS": "400"},
    )
    assert done.exit_code == 0, done.output
    assert f"page: {tmp_path}/page.html" in done.output
    run, text = read_run(tmp_path / "page.html"), (tmp_path / "page.html").read_text()
    assert run.lead.startswith("teddy kept 21 of 41 undirected edges (51.22 %) of edges.csv.")
    assert page([run]) == text
    assert EVIL in run.record["graph"]["drawing"]["labels"]
    assert "<img" not in text.partition("<script")[0]


def test_the_place_of_a_page_is_told_before_any_work(table, tmp_path):
    rules = {"keep": "0.5", "per_node": None, "guard": None, "forest": False}
    for name, words in (("page.txt", "must end in .html"), ("no/page.html", "does not exist")):
        with pytest.raises(ValueError, match=words):
            sparsify_file(table, tmp_path / "few.csv", rules=rules, report=tmp_path / name)
        assert not (tmp_path / "few.csv").exists()


# the command ----------------------------------------------------------------------------------------------------------


def test_the_command_makes_pages_of_one_run_and_of_several(ticket_folder, tmp_path):
    first = shutil.copytree(ticket_folder, tmp_path / "a" / "small")
    second = shutil.copytree(ticket_folder, tmp_path / "b" / "small")
    (first / "report.html").unlink()
    done = invoke(first)
    assert done.exit_code == 0, done.output
    assert (first / "report.html").read_bytes() == (ticket_folder / "report.html").read_bytes()
    assert read_run(first).lead in done.output
    done = invoke(first, second, "--out", tmp_path / "both.html")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "both.html").read_text()
    assert f">{first}<" in text  # folders of one name are told apart
    assert f">{second}<" in text


@pytest.fixture
def of_three_kinds(ticket_folder, pruned, table, tmp_path):
    """A page that compares a sparsified file, a ticket and pruned networks."""
    few, shown, cut = tmp_path / "few.csv", tmp_path / "sparse.html", tmp_path / "cut"
    sparsify_file(table, few, undirected=True, rules={"keep": "0.5"}, report=shown)
    cut.mkdir()
    (cut / "metrics.json").write_text(json.dumps(pruning(pruned)))
    done = invoke(shown, ticket_folder, cut, "--out", tmp_path / "all.html")
    assert done.exit_code == 0, done.output
    return tmp_path / "all.html"


def test_runs_of_three_kinds_are_compared_on_one_page(of_three_kinds):
    text = of_three_kinds.read_text()
    for kind in ("sparsify", "ticket", "meta prune"):
        assert f'<span class="kind">{kind}</span>' in text
    table = text.partition("The runs beside each other")[2].partition("</table>")[0]
    for column in ("edges kept, %", "weights kept, %", "nodes without a neighbour"):
        assert column in table
    assert table.count("<tr") == 4
    assert "no test is made between them" in text


def test_a_page_of_three_kinds_fits_a_phone_and_draws_everything(of_three_kinds, browser):
    tab = browser.new_page(viewport={"width": 390, "height": 844})
    said = []
    tab.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(of_three_kinds.as_uri())
    while (folded := tab.locator("details:not([open]) > summary")).count():
        folded.first.click()
    for box in tab.locator(".chart").all():
        box.scroll_into_view_if_needed()
        box.locator(".main-svg").first.wait_for(state="attached")  # charts are drawn when they come into view
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.locator("article").count() == 3
    assert said == []
    tab.close()


def test_the_command_refuses_before_it_reads(ticket_folder, tmp_path):
    for words in (["--out", tmp_path / "a.txt"], ["--out", tmp_path / "no" / "a.html"]):
        assert isinstance(invoke(ticket_folder, *words).exception, ValueError)
    assert isinstance(invoke(tmp_path / "nowhere").exception, DataError)
    (tmp_path / "page.html").write_text("")
    assert isinstance(invoke(tmp_path / "page.html", "--out", tmp_path / "page.html").exception, ValueError)


def test_a_command_is_remembered_as_it_was_typed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/graphsparse", "ticket", "--out", "a b"])
    assert typed_command() == "graphsparse ticket --out 'a b'"
    monkeypatch.setattr(sys, "argv", ["/x/graphsparse/__main__.py", "ticket"])
    assert typed_command() == "graphsparse ticket"
    monkeypatch.setattr(sys, "argv", ["/x/study.py", "--secret", "1"])
    assert typed_command() is None


# notebooks ------------------------------------------------------------------------------------------------------------


def test_notebooks_show_the_same_pieces(ticket_folder, pruned):
    ticket = gs.Ticket.load(ticket_folder)
    graph = gs.metanet.NetworkGraph.from_module(pruned.module, torch.zeros(1, 4))
    for thing, words in ((ticket, "convs.0.bias"), (pruned, ">32<"), (graph, ">linear<")):
        shown = thing._repr_html_()
        assert words in shown
        assert not re.search("<(script|link|img|button)", shown)
        assert len(shown) < 10_000
    assert f"{100 * ticket.metrics['test']:.2f}" in ticket._repr_html_()


def test_notebooks_escape_names():
    class Odd(nn.Sequential):
        """A network whose layer has a name of the user's own."""

    net = Odd()
    net.add_module("<img src=x onerror=alert(1)>", nn.Linear(2, 2))
    shown = gs.metanet.NetworkGraph.from_module(net, torch.zeros(1, 2))._repr_html_()
    assert "<img" not in shown
    assert "&lt;img src=x" in shown


def test_a_page_does_not_import_plotly_itself():
    """Only its file of JavaScript is read: the import would take a second of every command."""
    code = "import sys; from graphsparse.report.html import page; from graphsparse.report.parts import Run;"
    code += "page([Run('a', 'b', '', ())]); print('plotly' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
