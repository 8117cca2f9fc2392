"""The comparison: what is run, that it resumes, and what is concluded from rows worked out by hand."""

import dataclasses
import hashlib
import importlib
import json
import math
import shutil
import sys

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import ttest_rel

import graphsparse as gs
from graphsparse import cli
from graphsparse.compare import FAILED, ROWS, Bench, asked_rows, holm, missing_work, shared_out
from graphsparse.errors import TicketError
from graphsparse.graphs.anatomy import anatomy
from graphsparse.tickets import finders, level_keeps
from graphsparse.tickets.compare import runs as runs_room
from graphsparse.tickets.compare.comparison import TICKETS, verdicts
from graphsparse.tickets.compare.declared import family, outcomes, study
from graphsparse.tickets.compare.plan import Experiment, full, method_of, quick, trials_of
from graphsparse.tickets.compare.verdict import pages
from graphsparse.tickets.finders.table import FINDERS, finder_of

SMALL = Experiment("digits-knn", hidden=8, methods=("teddy", "no-edges"), levels=(10, 20), seeds=2, epochs=3, trials=1)


def run(out, *experiments, jobs=1):
    return Bench(experiments or (SMALL,), jobs).run(out, Console(quiet=True))


def rows_of(out):
    return [json.loads(line) for line in (out / ROWS).read_text().splitlines()]


def small_command(monkeypatch, out, methods, levels, seeds):
    """The exit status of a comparison on the command line."""
    words = ["--dataset", "digits-knn", "--hidden", "8", "--method", methods, "--level", levels, "--seeds", seeds]
    words += ["--epochs", "3", "--trials", "1", "--jobs", "1", "--out", str(out), "--json"]
    monkeypatch.setattr("sys.argv", ["graphsparse", "bench", "tickets", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench")
    return out, run(out)


# what is run ---------------------------------------------------------------------------------------------------------


def test_every_run_is_a_line_with_all_that_repeats_it(made):
    out, _ = made
    rows = rows_of(out)
    assert len(rows) == 2 * (1 + 2 * 2)
    for row in rows:
        assert {k: row[k] for k in SMALL.setting} == SMALL.setting
        if row["method"] == "dense":
            continue
        edges, weights = level_keeps(row["level"])
        assert row["edges_kept"] == (0 if row["method"] == "no-edges" else pytest.approx(float(edges), abs=1e-3))
        assert float(weights) <= row["weights_kept"] <= float(weights) + 2e-3  # a tiny model: one weight is a lot
        assert row["trial"] == {"distill": 1.0}
        assert row["seconds"] > 0
        assert len(row["ticket"]) == 64
        assert {"python", "torch", "torch_geometric", "numpy", "scipy", "graphsparse"} <= set(row["versions"])
    assert not list((out / "checkpoints").glob("*"))


def test_the_page_draws_what_the_best_method_leaves_of_the_graph(made):
    from graphsparse.report.parts import Neighbourhoods
    from graphsparse.report.runs import read_run

    out, _ = made
    assert len(list((out / "graphs").iterdir())) == 2  # of each method one, at its sparsest level
    sections = {section.title: section for section in read_run(out).sections}
    (title,) = (title for title in sections if title.startswith("The graph before and after"))
    assert title.endswith("teddy at the sparsest level, first seed")
    (drawn,) = (block for block in sections[title].blocks if isinstance(block, Neighbourhoods))
    row = next(r for r in rows_of(out) if (r["method"], r["level"], r["seed"]) == ("teddy", 20, 0))
    assert drawn.graph["kept"].count("1") / len(drawn.graph["kept"]) == pytest.approx(row["edges_kept"], abs=1e-3)
    shutil.copytree(out, out.parent / "older")
    shutil.rmtree(out.parent / "older" / "graphs")
    assert not [s for s in read_run(out.parent / "older").sections if s.title.startswith("The graph before")]


def test_it_ends_with_tables_a_summary_and_a_plot(made):
    out, found = made
    assert [method["method"] for method in found[0]["methods"]] == ["teddy", "no-edges"]
    assert json.loads((out / "summary.json").read_text())["settings"] == json.loads(json.dumps(found))
    assert "no-edges" in (out / "tables.md").read_text()
    assert (out / "digits-knn-gcn-8-transductive.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_was_killed_goes_on_to_the_same_figures(made, tmp_path, monkeypatch):
    sparse, calls = runs_room.sparse_figures, []

    def killed(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sparse(*args)

    monkeypatch.setattr(runs_room, "sparse_figures", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    with (tmp_path / ROWS).open("a") as file:
        file.write('{"dataset": "digits-kn')  # the line that it was in
    assert len(calls) == 3
    run(tmp_path)
    assert len(calls) == 3 + 8 - 2
    run(tmp_path)
    assert len(calls) == 9

    def timeless(out):
        return {(r["seed"], r["method"], r["level"]): (r["val"], r["test"], r.get("ticket")) for r in rows_of(out)}

    assert timeless(tmp_path) == timeless(made[0])


@pytest.mark.parametrize("jobs", [2, 3])
def test_processes_make_the_same_tickets(made, tmp_path, request, jobs):
    if jobs == 3:
        request.getfixturevalue("warm_workers")  # with two they start from nothing
    run(tmp_path, jobs=jobs)  # a process for each seed; with the third, for each method of a seed
    tickets = [
        {(r["seed"], r["method"], r["level"]): r.get("ticket") for r in rows_of(out)} for out in (made[0], tmp_path)
    ]
    assert tickets[0] == tickets[1]


HALF = """
from graphsparse.fit import DivergedError
from graphsparse.tickets import OneShot

def half(problem, dense, edge_keep, weight_keep):
    if problem.seed == 0 and edge_keep < 0.5:
        raise DivergedError("the loss is nan")
    return OneShot("teddy")(problem, dense, edge_keep, weight_keep)
"""


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_stops_no_other_and_is_tried_again(tmp_path, monkeypatch, jobs):
    file = tmp_path / f"half_finder_{jobs}.py"
    file.write_text(HALF)
    monkeypatch.syspath_prepend(str(tmp_path))
    asked, out = dataclasses.replace(SMALL, methods=(f"{file.stem}:half", "teddy")), tmp_path / "out"
    for total in (10, 1):
        with pytest.raises(TicketError, match=rf"1 of {total} runs failed, first .*, seed 0, half_.* at level 20: Div"):
            run(out, asked, jobs=jobs)
        assert "the loss is nan" in (out / FAILED).read_text()
        assert len(rows_of(out)) == 9
        assert "teddy" in (out / "tables.md").read_text()
        assert len(list((out / "checkpoints").glob("*/*"))) == 1, "what it had found until then is not lost"
    file.write_text(HALF.replace("< 0.5", "< 0"))
    sys.modules.pop(file.stem, None)
    run(out, asked, jobs=jobs)
    assert not (out / FAILED).exists()


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize("jobs", [1, 2])
def test_figures_that_no_line_can_hold_fail_their_run_alone(tmp_path, monkeypatch, jobs):
    file = tmp_path / f"odd_finder_{jobs}.py"
    file.write_text(
        "import dataclasses\nimport numpy\nfrom graphsparse.tickets import OneShot\n"
        "def odd(problem, dense, edge_keep, weight_keep):\n"
        "    found = OneShot('teddy')(problem, dense, edge_keep, weight_keep)\n"
        "    gain = object() if edge_keep < 0.5 else numpy.float32(numpy.nan)\n"
        "    return dataclasses.replace(found, metrics={'gain': gain})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = dataclasses.replace(SMALL, methods=(f"{file.stem}:odd", "teddy"))
    with pytest.raises(TicketError, match=r"2 of 10 runs failed, .* at level 20: TypeError"):
        run(tmp_path / "out", asked, jobs=jobs)
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 8
    assert [row["gain"] for row in rows if "gain" in row] == [None, None]


def test_a_comparison_leaves_the_checkpoints_of_another_alone(tmp_path, monkeypatch):
    sparse = runs_room.sparse_figures

    def killed(problem, dense, method, *rest):
        if method == "imp":
            (problem.folder / "round").write_text("hours of work")
            raise KeyboardInterrupt
        return sparse(problem, dense, method, *rest)

    monkeypatch.setattr(runs_room, "sparse_figures", killed)
    one = dataclasses.replace(SMALL, seeds=1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, dataclasses.replace(one, methods=("imp",)))
    run(tmp_path, one)
    assert len(list((tmp_path / "checkpoints").glob("*/*/round"))) == 1


def test_a_command_with_failures_prints_what_it_has(tmp_path, capsys, monkeypatch):
    file = tmp_path / "never_finder.py"
    file.write_text("def never(problem, dense, edge_keep, weight_keep):\n    raise ValueError('not today')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert small_command(monkeypatch, tmp_path, "teddy,never_finder:never", "10", "1") == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["runs"] == 2
    assert "1 of 3 runs failed" in said.err
    assert "not today" in said.err


def test_no_processes_are_no_comparison():
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        Bench([SMALL], 0)


def test_a_model_that_cannot_be_made_fails_all_its_runs(tmp_path):
    with pytest.raises(TicketError, match="5 of 10 runs failed, first digits-knn-gcn9-transductive, seed 0, the dense"):
        run(
            tmp_path,
            dataclasses.replace(SMALL, hidden=9, seeds=1, model="gcn", lr=1e30),
            dataclasses.replace(SMALL, seeds=1),
        )


def test_a_finder_that_was_edited_after_a_kill_starts_anew(tmp_path, monkeypatch):
    file = tmp_path / "killed_finder.py"
    file.write_text(
        "from graphsparse.tickets import OneShot\n"
        "def own(problem, dense, edges, weights):\n"
        "    OneShot('random')(problem, dense, edges, weights)\n"
        "    raise KeyboardInterrupt\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    asked, out = dataclasses.replace(SMALL, methods=("killed_finder:own",), levels=(10,), seeds=1), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(out, asked)
    assert list((out / "checkpoints").rglob("random*"))
    file.write_text(
        "from graphsparse.edges import score\n"
        "from graphsparse.tickets import OneShot\n"
        "def random(edges): return score(edges.edge_index, 'jaccard')\n"
        "own = OneShot(random)\n"
    )
    del sys.modules["killed_finder"]
    run(out, asked)
    assert [row["method"] for row in rows_of(out)] == ["dense", "killed_finder:own"]


@pytest.mark.usefixtures("warm_workers")
def test_a_process_that_is_killed_says_so(tmp_path, monkeypatch):
    file = tmp_path / "dying_finder.py"
    file.write_text("import os\ndef own(problem, dense, edges, weights):\n    os.kill(os.getpid(), 9)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    out = tmp_path / "out"
    with pytest.raises(TicketError, match=r"runs failed, .*: a process was killed, most likely for want of memory"):
        run(out, dataclasses.replace(SMALL, methods=("dying_finder:own",)), jobs=2)
    assert (out / "tables.md").exists()


def test_another_comparison_shares_the_folder_and_says_only_its_own(made, tmp_path):
    (tmp_path / ROWS).write_text((made[0] / ROWS).read_text())
    other = Experiment("digits-knn", hidden=8, methods=("random",), levels=(10,), seeds=1, epochs=2, trials=1)
    found = run(tmp_path, other)
    assert len(rows_of(tmp_path)) == 10 + 2
    assert [verdict["setting"]["epochs"] for verdict in found] == [2]


def test_a_damaged_row_is_named(made, tmp_path):
    lines = (made[0] / ROWS).read_text().splitlines()
    (tmp_path / ROWS).write_text("\n".join([lines[0], "no row", *lines[1:]]) + "\n")
    with pytest.raises(ValueError, match=r"line 2 of .* is no row"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"methods": ("teddi",)}, "teddi"),
        ({"methods": ("teddy+covers",)}, "what follows teddy. must be"),
        ({"methods": ()}, "needs methods"),
        ({"levels": (0, 5)}, "levels go from 1 to 20"),
        ({"levels": (21,)}, "levels go from 1 to 20"),
        ({"seeds": 0}, "at least 1"),
        ({"features": "scaled"}, "row-normalised"),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(ValueError, match=said):
        Experiment("cora", **options)


def test_every_method_gets_as_many_trials():
    assert {len(trials_of(method)) for method in finders()} == {3}
    for method in finders():
        for trial in trials_of(method):
            method_of(method, trial)  # its options exist


def test_experiments_of_one_setting_share_a_dense_model():
    one = Experiment("digits-knn", hidden=8, methods=("teddy",), levels=(10,), seeds=2, trials=1)
    two = dataclasses.replace(one, methods=("random", "teddy"), seeds=3)
    work = missing_work([one, two], set())
    assert [(item.seed, [method for method, *_ in item.runs]) for item in work] == [
        (0, ["dense", "teddy", "random"]),
        (1, ["dense", "teddy", "random"]),
        (2, ["dense", "random", "teddy"]),
    ]


@given(seeds=st.integers(1, 4), methods=st.integers(1, 5), jobs=st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_every_run_is_somebodys(seeds, methods, jobs):
    names = ("teddy", "random", "dspar", "imp", "ugs")[:methods]
    asked = dataclasses.replace(SMALL, methods=names, seeds=seeds)
    work = missing_work([asked], set())
    shares = shared_out(work, jobs)
    assert len(shares) >= min(jobs, seeds * methods)
    assert all(share.runs for share in shares)
    for item in work:
        theirs = [share for share in shares if share.seed == item.seed]
        assert sorted(map(str, item.runs)) == sorted(str(run) for share in theirs for run in share.runs)
        assert all(len([s for s in theirs if any(r[0] == name for r in s.runs)]) == 1 for name in names)


def test_a_method_with_more_trials_than_were_asked_for_has_no_advantage(made):
    out, _ = made
    rows = rows_of(out)
    extra = [row | {"trial": {"distill": 10.0}, "val": 1.0, "test": 1.0} for row in rows if row["method"] == "teddy"]
    assert asked_rows([SMALL], rows + extra) == rows
    assert len(asked_rows([dataclasses.replace(SMALL, trials=2)], rows + extra)) == len(rows + extra)
    assert asked_rows([dataclasses.replace(SMALL, hidden=9)], rows) == []


def test_an_edited_finder_of_ones_own_is_another(tmp_path, monkeypatch):
    file = tmp_path / "edited_finder.py"
    file.write_text("from graphsparse.tickets import OneShot\nown = OneShot('teddy')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = dataclasses.replace(SMALL, methods=("edited_finder:own",), levels=(10,), seeds=1)
    out = tmp_path / "out"
    run(out, asked)
    assert [row["method"] for row in rows_of(out)] == ["dense", "edited_finder:own"]
    run(out, asked)
    assert len(rows_of(out)) == 2
    file.write_text("from graphsparse.tickets import OneShot\nown = OneShot('random')\n")
    del sys.modules["edited_finder"]
    assert [row["method"] for row in asked_rows([asked], rows_of(out))] == ["dense"], "what was made by the old one"
    run(out, asked)
    old, new = (row for row in rows_of(out) if row["method"] != "dense")
    assert old["source"] != new["source"]
    assert asked_rows([asked], rows_of(out))[1:] == [new]


def test_an_edited_data_set_of_ones_own_is_another(tmp_path, monkeypatch):
    file = tmp_path / "edited_data.py"
    text = "import graphsparse as gs\ndef graph():\n    data = gs.data.load('digits-knn')\n    return data\n"
    file.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = dataclasses.replace(SMALL, dataset="edited_data:graph", methods=("teddy",), levels=(10,), seeds=1)
    out = tmp_path / "out"
    run(out, asked)
    run(out, asked)
    assert [row["method"] for row in rows_of(out)] == ["dense", "teddy"]
    file.write_text(text.replace("    return", "    data.x = data.x.flip(1)\n    return"))
    del sys.modules["edited_data"]
    assert asked_rows([asked], rows_of(out)) == []
    run(out, asked)
    assert [row["method"] for row in asked_rows([asked], rows_of(out))] == ["dense", "teddy"]
    assert len({row["source"] for row in rows_of(out)}) == 2


def test_an_edit_while_a_finder_runs_does_not_name_what_runs(tmp_path, monkeypatch):
    file = tmp_path / "running_finder.py"
    file.write_text("from graphsparse.tickets import OneShot\nown = OneShot('teddy')\n")
    imported = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.syspath_prepend(str(tmp_path))
    finder_of("running_finder:own")
    file.write_text("from graphsparse.tickets import OneShot\nown = OneShot('random')\n\n")
    before = FINDERS.source_hash("running_finder:own")
    assert imported.startswith(before)
    importlib.reload(sys.modules["running_finder"])
    assert FINDERS.source_hash("running_finder:own") != before
    assert finder_of("running_finder:own").score == "random"


def test_rows_of_a_finder_that_is_gone_do_no_harm(made):
    out, _ = made
    rows = rows_of(out)
    gone = [row | {"method": "gone_module:Own"} for row in rows if row["method"] == "teddy"]
    assert asked_rows([SMALL], rows + gone) == rows


@pytest.mark.parametrize("words", [["--method", "teddy"], ["--seeds", "2"], ["--quick", "--level", "10"]])
def test_options_that_would_be_ignored_are_refused(tmp_path, capsys, monkeypatch, words):
    monkeypatch.setattr("sys.argv", ["graphsparse", "bench", "tickets", *words, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "goes with --dataset" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["reliance+cover", "no-edges+isolated"])
def test_a_guard_that_a_method_cannot_take_is_refused_before_anything_runs(method):
    with pytest.raises(ValueError, match="takes no guard"):
        Experiment("cora", methods=(method,))


def test_the_plans_hold_every_finder_and_both_protocols():
    methods = {method for experiment in full() for method in experiment.methods}
    assert {"teddy", "ugs", "wd-glt", "imp", "magnitude", "random", "random-weights", "no-edges"} <= methods
    assert {e.protocol for e in quick()} == {e.protocol for e in full()} == {"transductive", "inductive"}


def test_the_command(tmp_path, capsys, monkeypatch):
    assert small_command(monkeypatch, tmp_path, "teddy,no-edges", "10,20", "2") == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 10


# random splits and the declared family -------------------------------------------------------------------------------

SPLIT = dataclasses.replace(SMALL, methods=("teddy+cover",), levels=(20,), split="random")


def test_every_seed_of_random_splits_draws_its_own(tmp_path):
    dense = [row for row in run_rows(tmp_path, SPLIT) if row["method"] == "dense"]
    assert [row["split"] for row in dense] == ["random"] * 2
    expected = [gs.data.load("digits-knn", split="random", seed=seed) for seed in range(2)]
    assert not torch.equal(expected[0].test_mask, expected[1].test_mask)
    for row in dense:
        problem = runs_room._problem(SPLIT, row["seed"])
        assert torch.equal(problem.data.test_mask, expected[row["seed"]].test_mask)
        assert torch.equal(runs_room._problem(SMALL, 1).data.test_mask, gs.data.load("digits-knn").test_mask)


def run_rows(out, *experiments):
    run(out, *experiments)
    return rows_of(out)


def test_random_splits_are_a_setting_of_their_own(made, tmp_path):
    shutil.copy(made[0] / ROWS, tmp_path / ROWS)
    found = run(tmp_path, SPLIT)
    assert [verdict["setting"]["split"] for verdict in found] == ["random"], "the others' rows are not of this setting"
    assert {m["method"] for m in found[0]["methods"]} == {"teddy+cover"}
    assert "digits-knn, gcn 8, transductive, random splits" in (tmp_path / "tables.md").read_text()
    assert SPLIT.name.endswith("random-splits")
    assert (tmp_path / "digits-knn-gcn-8-transductive-random-splits.png").exists()


def test_rows_that_are_older_than_random_splits_are_of_the_data_sets_own(made, tmp_path):
    older = [{name: value for name, value in row.items() if name != "split"} for row in rows_of(made[0])]
    (tmp_path / ROWS).write_text("".join(json.dumps(row) + "\n" for row in older))
    assert missing_work([SMALL], {TICKETS.row_key(row) for row in TICKETS.read_runs(tmp_path / ROWS)}) == []
    assert (
        len(
            missing_work(
                [dataclasses.replace(SMALL, split="random")], {TICKETS.row_key(row) for row in older_rows(older)}
            )
        )
        == 2
    )


def older_rows(rows):
    return [{"split": None, **row} for row in rows]


def test_the_command_takes_random_splits(tmp_path, monkeypatch):
    words = ["--dataset", "digits-knn", "--hidden", "8", "--method", "teddy+cover", "--level", "20", "--seeds", "1"]
    words += ["--epochs", "2", "--trials", "1", "--jobs", "1", "--split", "random", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["graphsparse", "bench", "tickets", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert {(row["split"], row["method"]) for row in rows_of(tmp_path)} == {
        ("random", "dense"),
        ("random", "teddy+cover"),
    }


def of_family(method, values, experiment, level=20):
    figures = {"maximize": True, "metric": "accuracy", "seconds": 1.0, "trial": {"distill": 1.0}}
    shared = {**experiment.setting, **figures, "method": method, "level": level}
    return [{**shared, "seed": seed, "test": value, "val": value} for seed, value in enumerate(values)]


def test_the_family_is_all_its_tests_whether_they_were_made_or_not():
    tests = [one for one in family() if one.level == 20 and one.experiment.dataset == "cora"]
    assert len(tests) == 4
    assert len(family()) == 24
    experiment = tests[0].experiment
    noise = [0.01 * math.sin(seed) for seed in range(10)]
    rows = of_family("teddy", [0.7] * 10, experiment)
    rows += of_family("reliance", [0.7 + 0.02 + x for x in noise], experiment)
    rows += of_family("teddy+cover", [0.7] * 9, experiment)
    found = outcomes(rows, tests)
    p = ttest_rel([0.72 + x for x in noise], [0.7] * 10).pvalue
    assert [(one["ours"], one["theirs"]) for one in found][:2] == [("reliance", "teddy"), ("reliance", "teddy+cover")]
    assert found[0]["p"] == pytest.approx(p)
    assert found[0]["p_holm"] == pytest.approx(4 * p), "three tests that were not made count, too"
    assert (found[1]["pairs"], found[1]["wins"], found[1]["p"], found[1]["p_holm"]) == (9, 9, None, 1.0)
    assert (found[2]["pairs"], found[2]["mean"], found[2]["p"]) == (0, None, None)
    other = of_family("reliance", [0.1] * 10, dataclasses.replace(experiment, protocol="transductive"))
    assert outcomes([*rows, *other], tests) == found, "another setting's rows have no part"


def test_the_study_makes_what_the_family_needs_and_shows_the_bar():
    for experiment in study():
        assert {"teddy+cover", "dense-student"} <= set(experiment.methods)
        assert (experiment.split, experiment.seeds) == ("random", 10)
    for test in family():
        assert {test.ours, test.theirs} <= set(test.experiment.methods)
        assert test.level in test.experiment.levels
    assert all({"teddy+cover", "dense-student"} <= bar(experiment) for experiment in full())


def bar(experiment):
    """All methods of the plan in an experiment's setting."""
    return {method for other in full() if other.setting == experiment.setting for method in other.methods}


# what is concluded ---------------------------------------------------------------------------------------------------


def row(method, seed, test, level=10, val=None, trial=None, **figures):
    trial = {} if method == "dense" else trial or {"distill": 1.0}
    level = 0 if method == "dense" else level
    shared = {"maximize": True, "metric": "accuracy", "seconds": 1.0}
    return {**SMALL.setting, **shared, "method": method, "seed": seed, "level": level, "trial": trial,
            "test": test, "val": test if val is None else val, **figures}  # fmt: skip


DENSE = [row("dense", seed, 0.80 + 0.01 * seed) for seed in range(3)]


def cell_of(found, method, level=10):
    (methods,) = [m for m in found[0]["methods"] if m["method"] == method]
    return next(cell for cell in methods["levels"] if cell["level"] == level)


def test_the_trial_is_chosen_on_validation_and_never_on_test():
    good = [row("teddy", s, 0.7, val=0.9, trial={"distill": 1.0}) for s in range(3)]
    lucky = [row("teddy", s, 0.9, val=0.7, trial={"distill": 10.0}) for s in range(3)]
    cell = cell_of(verdicts([*DENSE, *lucky, *good]), "teddy")
    assert cell["trial"] == {"distill": 1.0}
    assert cell["test"] == pytest.approx(0.7)


def test_inference_is_told_beside_the_dense_model_of_the_same_run():
    busy = row("teddy", 0, 0.7, inference_ms=30.0, dense_inference_ms=40.0)
    quiet = row("teddy", 1, 0.7, inference_ms=3.0, dense_inference_ms=4.0)
    untimed = row("teddy", 2, 0.7)
    found = verdicts([*DENSE, busy, quiet, untimed])
    assert cell_of(found, "teddy")["inference_of_dense"] == pytest.approx(0.75)
    assert found[0]["dense"]["inference_ms"] == pytest.approx(22)
    assert "| 16.5 (0.75) |" in pages(found)


def test_a_table_says_which_keeps_a_control_ignores():
    rows = [row("no-edges", s, 0.7, ignores="edge_keep") for s in range(3)] + [row("teddy", s, 0.8) for s in range(3)]
    found = verdicts([*DENSE, *rows])
    assert [(m["method"], m["ignores"]) for m in found[0]["methods"]] == [("no-edges", "edge_keep"), ("teddy", "")]
    assert "| no-edges (ignores edge_keep) |" in pages(found)
    assert "| teddy |" in pages(found)


def test_a_minimised_metric_is_minimised():
    rows = [
        {**r, "maximize": False, "metric": "rmse"}
        for r in [
            *DENSE,
            *(row("teddy", s, 0.9, val=0.5, trial={"distill": 1.0}) for s in range(3)),
            *(row("teddy", s, 0.1, val=0.6, trial={"distill": 10.0}) for s in range(3)),
            *(row("random", s, 0.70 + 0.01 * s) for s in range(3)),
        ]
    ]
    found = verdicts(rows)
    assert cell_of(found, "teddy")["trial"] == {"distill": 1.0}
    assert cell_of(found, "random")["minus_dense"]["wins"] == 3, "0.1 less error than dense in every seed"
    assert {m["method"]: m["extreme"] for m in found[0]["methods"]} == {"teddy": None, "random": 10}


def test_a_trial_with_fewer_seeds_is_not_chosen():
    whole = [row("teddy", s, 0.7, trial={"distill": 1.0}) for s in range(3)]
    begun = [row("teddy", 0, 0.9, trial={"distill": 10.0})]
    assert cell_of(verdicts([*DENSE, *whole, *begun]), "teddy")["seeds"] == [0, 1, 2]


def test_differences_are_paired_by_seed_whatever_the_order():
    ours = [row("teddy", s, 0.79 + 0.01 * s) for s in (2, 0, 1)]
    difference = cell_of(verdicts([*ours, *reversed(DENSE)]), "teddy")["minus_dense"]
    assert difference["mean"] == pytest.approx(-0.01)
    assert difference["ci95"] == pytest.approx(0, abs=1e-12)
    assert (difference["wins"], difference["pairs"]) == (0, 3)


def test_equal_differences_have_no_p_value():
    ours = [row("teddy", seed, 0.79 + 0.01 * seed) for seed in range(3)]
    other = [row("random", seed, value) for seed, value in enumerate([0.70, 0.72, 0.75])]
    found = verdicts([*DENSE, *ours, *other])
    assert cell_of(found, "teddy")["minus_dense"]["p"] is None
    alone = ttest_rel([0.70, 0.72, 0.75], [0.80, 0.81, 0.82]).pvalue
    assert cell_of(found, "random")["minus_dense"]["p"] == pytest.approx(alone), "nobody else is in its family"


def test_p_values_are_those_of_the_paired_t_test_corrected_together():
    tests = {"a": [0.78, 0.80, 0.79], "b": [0.70, 0.72, 0.75], "c": [0.82, 0.81, 0.80]}
    rows = [row(name, seed, value) for name, values in tests.items() for seed, value in enumerate(values)]
    found = verdicts([*DENSE, *rows])
    plain = [ttest_rel(values, [0.80, 0.81, 0.82]).pvalue for values in tests.values()]
    for name, p in zip(tests, holm(plain), strict=True):
        assert cell_of(found, name)["minus_dense"]["p"] == pytest.approx(p)


def test_two_seeds_are_no_test_and_leave_the_family():
    whole, few = [0.70, 0.72, 0.75], [0.60, 0.72]
    rows = [row("random", seed, value) for seed, value in enumerate(whole)]
    rows += [row("dspar", seed, value) for seed, value in enumerate(few)]
    found = verdicts([*DENSE, *rows])
    assert cell_of(found, "dspar")["minus_dense"]["p"] is None
    alone = ttest_rel(whole, [0.80, 0.81, 0.82]).pvalue
    assert cell_of(found, "random")["minus_dense"]["p"] == pytest.approx(alone)


def test_one_run_at_several_levels_is_one_test():
    student = [row("dense-student", s, v, level=lv) for lv in (5, 10, 20) for s, v in enumerate([0.70, 0.72, 0.75])]
    found = verdicts([*DENSE, *student])
    alone = ttest_rel([0.70, 0.72, 0.75], [0.80, 0.81, 0.82]).pvalue
    assert [cell_of(found, "dense-student", lv)["minus_dense"]["p"] for lv in (5, 10, 20)] == pytest.approx([alone] * 3)


def test_the_extreme_ticket_is_told_by_the_dense_student_too():
    student = [row("dense-student", s, v, level=lv) for lv in (5, 20) for s, v in enumerate([0.84, 0.85, 0.86])]
    ours = [row("reliance", s, v, level=5) for s, v in enumerate([0.83, 0.86, 0.86])]
    ours += [row("reliance", s, v, level=20) for s, v in enumerate([0.81, 0.82, 0.83])]
    found = verdicts([*DENSE, *student, *ours])
    (reliance,) = [m for m in found[0]["methods"] if m["method"] == "reliance"]
    assert (reliance["extreme"], reliance["extreme_by_student"]) == (20, 5)
    assert "| level 5 | level 20 | extreme | by student | area |" in pages(found)
    assert "± 2.5 | 20 | 5 | 83.5 |" in pages(found)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_corrects_upwards_in_order_and_at_most_by_the_family(p_values):
    found = holm(p_values)
    for p, q in zip(p_values, found, strict=True):
        assert p <= q + 1e-15
        assert q <= min(1.0, len(p_values) * p) + 1e-12 or q >= max(r for r in found if r <= q)
    order = sorted(range(len(found)), key=lambda i: p_values[i])
    assert [found[i] for i in order] == sorted(found)
    assert found[order[0]] == pytest.approx(min(1.0, len(p_values) * p_values[order[0]]))


def test_the_extreme_ticket_is_the_sparsest_level_that_reaches_dense():
    by_level = {5: [0.80, 0.82, 0.81], 10: [0.75, 0.83, 0.81], 20: [0.70, 0.71, 0.72]}
    rows = [row("teddy", s, v, level=level) for level, values in by_level.items() for s, v in enumerate(values)]
    (method,) = verdicts([*DENSE, *rows])[0]["methods"]
    assert method["extreme"] == 10
    means = [0.81, (0.75 + 0.83 + 0.81) / 3, 0.71]
    assert method["area"] == pytest.approx((5 * (means[0] + means[1]) / 2 + 10 * (means[1] + means[2]) / 2) / 15)


def test_missing_levels_have_no_area_and_show_as_a_dash():
    rows = [row("teddy", 0, 0.8, level=lv) for lv in (10, 20)] + [row("random", 0, 0.7, level=10)]
    found = verdicts([*DENSE, *rows])
    assert [m["area"] is None for m in found[0]["methods"]] == [False, True]
    assert "| random | 70.0 (n=1) | - |" in pages(found)


def test_no_dense_row_no_verdict():
    assert verdicts([row("teddy", 0, 0.8)]) == []


# anatomy -------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=40))
def test_anatomy_agrees_with_networkx(nodes, pairs):
    pairs = [(u % nodes, v % nodes) for u, v in pairs]
    edge_index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    graph = nx.Graph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from((u, v) for u, v in pairs if u != v)
    y = torch.arange(nodes) % 2
    found = anatomy(edge_index, nodes, y)
    assert found["components"] == nx.number_connected_components(graph)
    assert found["largest_component"] == pytest.approx(max(map(len, nx.connected_components(graph))) / nodes)
    assert found["clustering"] == pytest.approx(nx.average_clustering(graph))
    assert found["isolated_nodes"] == nx.number_of_isolates(graph)
    same = [u % 2 == v % 2 for u, v in graph.edges]
    assert found["homophily"] == (pytest.approx(sum(same) / len(same)) if same else None)


def test_anatomy_of_nothing():
    found = anatomy(torch.empty(2, 0, dtype=torch.int64), 3)
    assert (found["components"], found["clustering"], found["homophily"]) == (3, 0.0, None)
    assert math.isclose(found["largest_component"], 1 / 3)


@pytest.mark.parametrize(("spare", "hidden", "inside"), [(True, 16, 1), (True, 40_000, 3), (False, 16, 3)])
def test_small_work_takes_one_thread_where_the_number_is_ours_to_choose(tmp_path, monkeypatch, spare, hidden, inside):
    from graphsparse.tickets.compare.study import Study

    seen = []
    monkeypatch.setattr(Study, "_found", lambda *_: seen.append(torch.get_num_threads()))
    names = {
        "dataset": "digits-knn",
        "model": "gcn",
        "method": "teddy",
        "edge_keep": "0.5",
        "weight_keep": "0.5",
        "weight_distribution": "global",
    }
    others = dict.fromkeys(("tolerance", "protocol", "split", "guard"))
    rest = {"distill": 1.0, "epochs": 1, "lr": 0.01, "weight_decay": 0.0, "seeds": 1, "points": 1, "device": "cpu"}
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        Study(**names, **others, **rest, hidden=hidden).run(tmp_path, Console(quiet=True), spare_threads=spare)
        assert (seen, torch.get_num_threads()) == ([inside], 3)
    finally:
        torch.set_num_threads(before)
