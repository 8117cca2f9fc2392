"""What every command has in common, as a person types it; in process, since each new one takes seconds to start."""

import json
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import graphsparse as gs
from graphsparse import cli
from graphsparse.cli.checkup import Check
from graphsparse.cli.known_names import TABLES, names_of
from graphsparse.edges import SCORES
from graphsparse.tickets import finders
from graphsparse.tickets.standing import Standing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMMANDS = [
    ["ticket"], ["sparsify"], ["advise"], ["report"], ["bench", "tickets"], ["bench", "sparse"], ["meta", "zoo"],
    ["meta", "train"], ["meta", "prune"], ["list"], ["doctor"], ["sparse", "train"], ["data", "list"], ["data", "info"],
    ["data", "fetch"],
]  # fmt: skip
QUICK = ["ticket", "--seeds", "1", "--epochs", "2", "--hidden", "4", "--points", "1"]


def invoke(*words, code=0):
    found = CliRunner().invoke(cli.app, [str(word) for word in words], env={"COLUMNS": "80"}, prog_name="graphsparse")
    assert found.exit_code == code, (found.output, found.exception)
    return found


def flat(text):
    """What a box of the terminal says, on one line."""
    return " ".join(text.replace("│", "").split())


@pytest.fixture
def edges(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("edges.csv")
    path.write_text("src,dst\n" + "".join(f"{i},{(i + 1) % 10}\n" for i in range(10)))
    return path


def all_commands(group, names=()):
    for command in group.registered_commands:
        yield [*names, command.name]
    for inner in group.registered_groups:
        yield from all_commands(inner.typer_instance, (*names, inner.name))


def test_the_list_above_holds_every_command():
    assert sorted(all_commands(cli.app)) == sorted(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_examples_codes_and_the_shared_options(words):
    said = invoke(*words, "--help").output
    assert all(len(line) <= 80 for line in said.splitlines())
    for option in ("--config", "--json", "--quiet", "--version"):
        assert option in said
    assert "Exit codes: 0 fine, 1 failed, 2 wrong use, 130 interrupted" in said
    assert not any(f"{{{table}}}" in said for table in TABLES)  # all names are filled in
    examples = [line.split()[1:] for line in said.splitlines() if line.startswith("   graphsparse ")]
    assert len(examples) in (2, 3)
    for example in examples:
        assert example[: len(words)] == words
        assert all(word in said for word in example if word.startswith("--")), example
    assert invoke(*words, "--version").output == f"graphsparse {gs.__version__}\n"


def options_of(words):
    """The options and arguments of a command, by name."""
    found = typer.main.get_command(cli.app)
    for word in words:
        found = found.commands[word]
    return {option.name: option for option in found.params}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_has_every_option_that_makes_sense_for_it(words):
    """Of what it does its own options tell: epochs train, several seeds, networks or processes take long."""
    options = options_of(words)
    names = set(options)
    assert {"config", "as_json", "quiet", "version"} <= names
    if names & {"epochs", "method", "runs", "zoo"}:
        assert "out" in names
    if "epochs" in names:
        assert {"device", "tensorboard"} <= names
    if names & {"seeds", "jobs", "count", "speedup"} and "seconds" not in names:  # those bound what is done
        assert "dry_run" in names
    for name, option in options.items():
        assert option.help or getattr(option, "hidden", False), f"{name} has no help"


NAMED = {  # option -> the beginning of a value, and one that a shell offers
    "method": ("ted", "teddy"), "dataset": ("dig", "digits"), "guard": ("C", "Cover"), "protocol": ("ind", "inductive"),
    "model": ("g", "gat"), "weight_distribution": ("", "erk"), "device": ("a", "auto"), "criterion": ("tay", "taylor"),
    "objective": ("re", "repair"), "arch": ("res", "resnet"), "file_format": ("par", "parquet"),
    "graph": ("digits", "digits-knn"), "name": ("cor", "cora"), "what": ("sc", "scores"), "task": ("", "structure"),
    "pattern": ("u", "units"), "weights": ("ri", "rigl"),
}  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_shell_completes_the_values_of_options(words):
    for name, option in options_of(words).items():
        if name not in NAMED:
            continue
        begun, offered = ("ri", "rigl") if "sparse" in words and name == "method" else NAMED[name]
        given = [word for word in option.opts[:1] if word.startswith("--")]  # of an argument none
        said = completed(*words, *given, begun)
        assert any(line == offered or line.startswith(f"{offered}-") for line in said), (name, said)


def completed(*words):
    """What a shell offers for the last word."""
    env = {"_GRAPHSPARSE_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["graphsparse", *words])}
    found = CliRunner().invoke(cli.app, [], prog_name="graphsparse", env=env | {"COMP_CWORD": str(len(words))})
    return found.output.split()


def test_completion_goes_on_after_commas_and_plus_signs_and_keeps_the_names_for_the_next_tab(monkeypatch, tmp_path):
    from graphsparse.cli import completion

    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "cache"))
    assert completed("bench", "tickets", "--method", "teddy,UG") == ["teddy,UGs"]
    assert completed("bench", "tickets", "--method", "teddy+") == ["teddy+cover", "teddy+isolated"]
    (kept,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr(completion, "names_of", None)  # no table is read again
    assert completed("ticket", "--guard", "iso") == ["isolated"]
    monkeypatch.undo()
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "cache"))
    kept.write_text("[]")
    assert completed("ticket", "--guard", "iso") == ["isolated"]
    assert "tables" in kept.read_text()
    kept.unlink()
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_text("no folder")
    assert completed("ticket", "--guard", "iso") == ["isolated"]


def test_help_names_what_the_tables_hold():
    said = flat(invoke("sparsify", "--help").output)
    assert all(name.replace("_", "-") in said for name in SCORES)
    assert "src" in said
    assert "dst" in said
    said = flat(invoke("ticket", "--help").output).replace(" ", "")
    assert all(name.replace("_", "-") in said for name in finders())


def test_list_has_a_line_for_every_name():
    found = json.loads(invoke("list", "--json").stdout)
    assert list(found) == list(TABLES)
    for table, names in found.items():
        assert names == names_of(table)
        for name, line in names.items():
            assert line, f"{name} of {table} has no description"
            assert "\\" not in line
    assert "Score an edge" in invoke("list", "scores").output


def test_a_configuration_reproduces_a_run_and_the_command_line_wins(edges):
    invoke("sparsify", edges, "--out", "a.csv", "--keep", "50%", "--method", "Local-Degree", "--undirected")
    held = tomllib.loads(Path("a.csv.config.toml").read_text())
    assert held["command"] == "sparsify"
    assert (held["in"], held["keep"], held["undirected"]) == ("edges.csv", "50%", True)
    invoke("sparsify", "--config", "a.csv.config.toml", "--out", "b.csv")
    assert Path("b.csv").read_bytes() == Path("a.csv").read_bytes()
    said = invoke("sparsify", "--config", "a.csv.config.toml", "--out", "c.csv", "--keep", "0.2", "--json").stdout
    assert json.loads(said)["kept"] == 2


def test_a_ticket_leaves_the_configuration_that_finds_it_again(tmp_path):
    invoke(*QUICK, "--edge-keep", "50%", "--out", tmp_path / "a", "--quiet")
    invoke("ticket", "--config", tmp_path / "a" / "config.toml", "--out", tmp_path / "b", "--quiet")
    one, two = (gs.Ticket.load(tmp_path / name) for name in "ab")
    assert one.hash == two.hash
    mine, its = (tomllib.loads((tmp_path / name / "config.toml").read_text()) for name in "ab")
    assert {**mine, "out": ""} == {**its, "out": ""}
    figures = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert figures["below_dense"] == pytest.approx(figures["dense_test"] - figures["test"])
    assert figures["standing"]["in_words"] == one.standing.sentence
    assert figures["controls"]["random"]["edges_kept"] == one.metrics["edges_kept"]
    assert ("points below dense" in repr(one)) == (one.metrics["below_dense"] > 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metod = 'teddy'", "did you mean 'method'"),
        ("keep = 0.5\nkeep-2 = 1", "unknown key 'keep-2'"),
        ("keep = [0.5]", "'keep' must be text"),
        ("[keep]\nx = 1", "'keep' must be text"),
        ("per_node = 1\nper-node = 2", "says again"),
        ("keep = ", "is no TOML file"),
        ("command = 'ticket'", "options of 'graphsparse ticket'"),
        ("seed = 'x'", "--seed"),
    ],
)
def test_a_wrong_configuration_is_wrong_use(edges, text, message):
    Path("wrong.toml").write_text(text)
    assert message in flat(invoke("sparsify", edges, "out.csv", "--config", "wrong.toml", code=2).stderr)
    assert not Path("out.csv").exists()


def test_numbers_of_a_configuration_are_read_as_they_are_written(edges):
    Path("c.toml").write_text("in = 'edges.csv'\nkeep = 0.30000000000000000001\n")  # a float would be 0.3
    assert json.loads(invoke("sparsify", "--config", "c.toml", "--out", "o.csv", "--json").stdout)["kept"] == 4


def test_a_missing_keep_is_told_before_the_file_is_read():
    assert "say how much to keep: --keep 0.5" in flat(invoke("sparsify", "nowhere.csv", "out.csv", code=2).stderr)
    assert "required, or --per-node" in flat(invoke("sparsify", "--help").output)


def test_pairs_that_are_named_once_are_told_of_undirected(edges):
    assert "no arc has its mirror: add --undirected" in flat(invoke("sparsify", edges, "o.csv", "--keep", 0.5).output)
    for more in ("--undirected", "--directed"):
        assert "mirror" not in invoke("sparsify", edges, "o.csv", "--keep", 0.5, more).output
    for content in ("0,1\n1,0\n1,2\n", "0,0\n1,1\n"):
        edges.write_text(f"src,dst\n{content}")
        assert "mirror" not in invoke("sparsify", edges, "o.csv", "--keep", 0.5).output


@pytest.mark.parametrize("method", ["reliance", "UGS", "wd_glt", "no-edges", "dense-student"])
def test_a_finder_is_no_score_since_it_needs_a_model(edges, method):
    found = CliRunner().invoke(cli.app, ["sparsify", str(edges), "o.csv", "--keep", "0.5", "--method", method])
    assert found.exit_code == 1
    assert "needs a model" in str(found.exception)
    assert "graphsparse ticket --method" in str(found.exception)
    with pytest.raises(ValueError, match="needs a model"):
        gs.SparsifyEdges(method, keep=0.5)


def test_who_says_sparsity_is_told_to_say_keep(edges):
    import networkx as nx

    for call in (gs.sparsify, gs.edges.score):
        with pytest.raises(TypeError, match="say keep instead of sparsity"):
            call(nx.path_graph(4), sparsity=0.5)
    with pytest.raises(TypeError, match="say keep instead of sparsity"):
        gs.SparsifyEdges("teddy", sparsity=0.5)
    assert "1 - sparsity" in flat(invoke("sparsify", edges, "o.csv", "--sparsity", "0.5", code=2).stderr)


def test_per_cents_case_and_hyphens_are_one_spelling():
    import networkx as nx

    graph = nx.karate_club_graph()
    plain = gs.sparsify(graph, "local_degree", keep=0.5)
    for method, keep in (("Local-Degree", "50%"), ("LOCAL_DEGREE", " 50 %"), ("local-degree", "1/2")):
        assert nx.utils.edges_equal(gs.sparsify(graph, method, keep=keep).edges, plain.edges)
    with pytest.raises(ValueError, match="write '50%'"):
        gs.sparsify(graph, keep=50)
    with pytest.raises(
        ValueError, match=r"keep must lie in \(0, 1\], got 150%; keep is the kept fraction, 1.0 keeps.*$"
    ) as told:
        gs.sparsify(graph, keep="150%")
    assert "for per cents" not in str(told.value)


def test_quiet_says_nothing_and_json_one_object(edges):
    found = invoke("sparsify", edges, "o.csv", "--keep", 0.5, "--quiet")
    assert (found.stdout, found.stderr) == ("", "")
    found = invoke("sparsify", edges, "o.csv", "--keep", 0.5, "--json")
    assert json.loads(found.stdout)["total"] == 10
    assert "kept 5 of 10" in found.stderr


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_device_that_is_not_there_is_told_by_every_command_before_anything_is_done(tmp_path, words):
    if "device" not in options_of(words):
        return
    more = {"advise": ["digits-knn"], "tickets": ["--dataset", "digits-knn"]}.get(words[-1], [])
    out = str(tmp_path / "x.safetensors")
    found = CliRunner().invoke(cli.app, [*words, *more, "--device", "cuda:77", "--out", out])
    assert isinstance(found.exception, ValueError), found.output
    assert "there is no device 'cuda:77' here" in str(found.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["gpu", "cuda:77"])
def test_a_device_that_is_not_there_gets_one_sentence(tmp_path, device):
    found = CliRunner().invoke(cli.app, ["ticket", "--device", device, "--out", str(tmp_path / "t")])
    assert isinstance(found.exception, ValueError)
    assert "auto" in str(found.exception)
    assert "\n" not in str(found.exception)
    assert not list(tmp_path.iterdir())


def test_doctor_is_healthy_here_and_says_what_is_not(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(tmp_path))
    found = json.loads(invoke("doctor", "--json").stdout)
    assert found["healthy"]
    checks = {check["name"]: check for check in found["checks"]}
    assert checks["torch"]["state"] == "ok"
    assert checks["cora"]["state"] == "note"
    assert "graphsparse data fetch cora" in checks["cora"]["advice"]
    monkeypatch.setattr("graphsparse.cli.checkup._devices", lambda: [Check("devices", "x", "broken", "no", "mend[x]")])
    assert "broken: x: no. mend[x]" in invoke("doctor", code=1).output
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(tmp_path / "nowhere"))
    assert "which is not a folder" in flat(invoke("doctor", code=1).output)


def test_a_cache_that_cannot_be_written_is_broken(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "file" / "cache"))
    said = json.loads(invoke("doctor", "--json", code=1).stdout)
    assert [check["name"] for check in said["checks"] if check["state"] == "broken"] == ["cache"]


def test_data_says_what_is_missing_and_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(tmp_path))
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "cache"))
    found = json.loads(invoke("data", "info", "Cora", "--json").stdout)
    assert not found["here"]
    assert "Planetoid/Cora/raw/ind.cora.x" in found["advice"]
    listed = json.loads(invoke("data", "list", "--json").stdout)
    assert listed["digits-knn"]["here"]
    assert not listed["cora"]["here"]
    wanted = CliRunner().invoke(cli.app, ["data", "fetch", "wordnet"])
    assert isinstance(wanted.exception, gs.DataError)
    assert "no public download: put wordnet/wordnet_synsets.npz into" in str(wanted.exception)


def test_a_download_is_checked(tmp_path):
    import http.server
    import threading

    from graphsparse.data.folders import fetch

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"something else")

        def log_message(self, *words):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(gs.DataError, match="not the published file: its checksum is sha256:"):
            fetch(f"{address}/ind.cora.x", tmp_path / "ind.cora.x", hint="cora")
        assert not list(tmp_path.iterdir())
        fetch(f"{address}/unknown", tmp_path / "unknown", hint="x")
    finally:
        server.shutdown()
    assert (tmp_path / "unknown").read_bytes() == b"something else"


def test_the_files_of_the_data_folder_are_as_published(need):
    from graphsparse.data.whereabouts import find_data

    need("Planetoid/Cora/raw/ind.cora.x")
    assert set(find_data("cora").checks().values()) == {"as published"}


def test_a_dry_run_counts_the_runs_and_writes_nothing(tmp_path):
    words = ["bench", "tickets", "--dataset", "digits-knn", "--hidden", 4, "--epochs", 100, "--method", "teddy,random"]
    words += ["--level", "10,20", "--seeds", 2, "--trials", 1, "--jobs", 1, "--out", tmp_path / "b", "--dry-run"]
    cost = json.loads(invoke(*words, "--json").stdout)
    assert cost["runs"] == 2 * (1 + 2 * 2)  # of each seed the dense model, and two methods at two levels
    assert cost["seconds"] == pytest.approx(cost["runs"] * cost["settings"][0]["seconds"])
    assert cost["memory_mb"] > 50
    assert not (tmp_path / "b").exists()


def test_a_dry_run_of_a_ticket_and_of_a_zoo_and_of_pruning(tmp_path):
    found = invoke(*QUICK, "--edge-keep", "50%", "--out", tmp_path / "t", "--dry-run", "--json")
    cost = json.loads(found.stdout)
    assert cost["runs"] == 3  # the dense model, the ticket, and its random control
    assert cost["seconds"] > 0
    assert "3 trainings of 2 epochs" in flat(found.stderr)
    words = ["meta", "zoo", "--arch", "vgg8", "--width", "2", "--epochs", "1", "--count", "2", "--train", "32"]
    words += ["--out", tmp_path / "zoo"]
    cost = json.loads(invoke(*words, "--dry-run", "--json").stdout)
    assert [each["network"] for each in cost["missing"]] == ["vgg8-w2-e1-s0", "vgg8-w2-e1-s1"]
    assert (cost["made"], cost["epochs"]) == (0, 2)
    assert not list(tmp_path.iterdir())
    invoke(*words, "--count", "1", "--quiet", "--tensorboard", tmp_path / "logs")
    assert json.loads(invoke(*words, "--dry-run", "--json").stdout)["made"] == 1
    words = ["meta", "prune", "--zoo", tmp_path / "zoo", "--metanet", "None", "--speedup", "1.5", "--epochs", "1"]
    words += ["--criterion", "random", "--out", tmp_path / "pruned"]
    assert json.loads(invoke(*words, "--dry-run", "--json").stdout) == {"runs": 1, "made": 0, "epochs": 1}
    assert not (tmp_path / "pruned").exists()
    invoke(*words, "--quiet", "--tensorboard", tmp_path / "logs")
    assert json.loads(invoke(*words, "--dry-run", "--json").stdout) == {"runs": 0, "made": 1, "epochs": 0}
    runs = {"vgg8-w2-e1-s0", "vgg8-w2-e1-s0/random-x1.5/fine-tune"}
    assert runs <= {str(file.parent.relative_to(tmp_path / "logs")) for file in (tmp_path / "logs").rglob("*tfevents*")}


def scalars(folder):
    """What TensorBoard itself reads of a folder: (step, value) of each figure."""
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard is not installed"
    )
    found = events.EventAccumulator(str(folder)).Reload()
    return {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_reads_what_every_training_command_writes(tmp_path, monkeypatch):
    words = [*QUICK, "--edge-keep", "50%", "--quiet", "--tensorboard", tmp_path / "logs"]
    invoke(*words, "--out", tmp_path / "a")
    found = scalars(tmp_path / "logs" / "seed-0" / "dense")
    assert [step for step, _ in found["loss"]] == [1, 2]
    assert len(found["val"]) == 2
    names = sorted(path.name for path in (tmp_path / "logs" / "seed-0").iterdir())
    assert len(names) == 3  # the dense model, the ticket, the random control
    assert "tensorboard" in (tmp_path / "a" / "config.toml").read_text()
    asked = ["bench", "tickets", "--dataset", "digits-knn", "--hidden", 4, "--epochs", 2, "--method", "Teddy"]
    asked += ["--level", "10", "--seeds", 1, "--trials", 1, "--jobs", 1, "--tensorboard", tmp_path / "bench"]
    invoke(*asked, "--out", tmp_path / "b", "--quiet")
    assert len(list((tmp_path / "bench").rglob("*tfevents*"))) == 2
    asked = ["advise", "digits-knn", "--method", "random", "--keep", "0.5", "--seeds", 1, "--epochs", 3, "--hidden", 4]
    invoke(*asked, "--tensorboard", tmp_path / "advise", "--quiet")
    assert [step for step, _ in scalars(tmp_path / "advise" / "random-0.5-seed-0")["val"]] == [1, 2, 3]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    failed = CliRunner().invoke(cli.app, [str(word) for word in [*words, "--out", tmp_path / "c"]])
    assert "graphsparse[tensorboard]" in str(failed.exception)
    assert not (tmp_path / "c").exists()


def test_a_training_that_goes_on_takes_back_what_was_logged_after_its_checkpoint(tmp_path):
    import torch

    from graphsparse.fit import Task, fit

    x, y = torch.eye(4), torch.arange(4) % 2
    task = Task((x, y), (x, y), (x, y))

    def stop(done, total, figures):
        if done == 5:
            raise KeyboardInterrupt

    def run(**more):
        torch.manual_seed(0)
        options = {"epochs": 6, "checkpoint": tmp_path / "c", "checkpoint_every": 3, "tensorboard": tmp_path / "logs"}
        return fit(torch.nn.Linear(4, 2), task, **options, **more)

    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    with pytest.raises(KeyboardInterrupt):
        run(progress=stop)
    time.sleep(1.1)  # TensorBoard's files of one process are in order from one second to the next
    found = run()
    losses = scalars(tmp_path / "logs")["loss"]
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5, 6]
    assert [value for _, value in losses] == pytest.approx([each["loss"] for each in found.history])


def test_quick_takes_fewer_seeds(need, tmp_path):
    need("Planetoid/Cora/raw/ind.cora.x")
    words = ["bench", "tickets", "--quick", "--dry-run", "--json", "--out", tmp_path, "--jobs", 1]
    three, one = (json.loads(invoke(*words, *more).stdout)["runs"] for more in ([], ["--seeds", 1]))
    assert three == 3 * one


def test_a_ticket_says_how_it_stands_beside_the_dense_model():
    worse = Standing.of([0.91, 0.92, 0.90], [0.86, 0.865, 0.85], maximize=True)
    assert worse.is_below
    assert "5.17 ± 0.72 points below the dense model (paired over 3 seeds); what may help" in worse.sentence
    same = Standing.of([0.91, 0.92, 0.90], [0.92, 0.91, 0.89], maximize=True)
    assert not same.is_below
    assert same.sentence.endswith("no difference is shown")
    error = Standing.of([1.0, 1.1], [1.3, 1.4], maximize=False)
    assert error.is_below
    assert "0.300 ± 0.000 above the dense model" in error.sentence
