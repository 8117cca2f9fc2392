"""``graphsparse meta``: a zoo, a metanetwork and pruned networks from the command line, resumed and refused."""

import json
import shutil
import sys

import pytest
import torch
from metanet_networks import same_bits
from typer.testing import CliRunner

from graphsparse import cli
from graphsparse.cli.groups import Interrupted
from graphsparse.metanet import MetaNetwork, load_zoo, restore
from graphsparse.metanet.learn import Nowcast, Repair, Trajectories
from graphsparse.metanet.learn.zoo import load_network, read_header
from graphsparse.metanet.study import comparison

ZOO = ["--train", 200, "--width", "4,5", "--epochs", 1, "--count", 4]
TRAIN = ["--hidden", 8, "--layers", 1, "--epochs", 2, "--steps", 2, "--val-count", 1]
PRUNE = ["--speedup", "2", "--speedup", "3", "--criterion", "group-l2,random,group-l2+least-squares", "--epochs", 0]


def invoke(*words, code=0):
    """The command as a process would end it: an interruption comes out of the app, and `cli.main` makes it a status."""
    if code == 130:
        with pytest.raises(Interrupted) as stopped:
            CliRunner().invoke(cli.app, ["meta", *map(str, words)])
        assert stopped.value.status == code
        return None
    found = CliRunner().invoke(cli.app, ["meta", *map(str, words)], env={"COLUMNS": "160"})
    assert found.exit_code == code, (found.output, found.exception)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A zoo and a metanetwork, as the commands make them, and what they printed."""
    folder = tmp_path_factory.mktemp("meta")
    said = [invoke("zoo", *ZOO, "--out", folder / "zoo").output]
    said.append(invoke("train", *TRAIN, "--zoo", folder / "zoo", "--out", folder / "m.safetensors").output)
    return folder, said


@pytest.fixture
def copied(made, tmp_path):
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def few(made, tmp_path_factory):
    """One network that the metanetwork learned from, and the one that judged it."""
    folder = tmp_path_factory.mktemp("few")
    for name in ("resnet8-w4-e1-s0", "resnet8-w5-e1-s3"):
        shutil.copytree(made[0] / "zoo" / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def pruned(made, few, tmp_path_factory):
    out = tmp_path_factory.mktemp("pruned")
    words = ["prune", *PRUNE, "--zoo", few, "--metanet", made[0] / "m.safetensors", "--out", out]
    return out, words, invoke(*words)


def lines_with(text, *words):
    return [line for line in text.splitlines() if all(word in line for word in words)]


def test_zoo_cycles_through_the_options_and_ends_with_a_table(made):
    folder, (said, _) = made
    assert sorted(path.name for path in (folder / "zoo").iterdir()) == [
        "resnet8-w4-e1-s0",
        "resnet8-w4-e1-s2",
        "resnet8-w5-e1-s1",
        "resnet8-w5-e1-s3",
    ]
    assert "accuracy (%) on digits" in said
    assert "±" in lines_with(said, "all")[0]
    assert "width 5" in said
    assert f"networks: {folder / 'zoo'}" in said


def test_zoo_trains_only_what_is_missing(copied):
    before = {path: path.stat().st_mtime_ns for path in copied.glob("zoo/*/*")}
    words = ["zoo", *ZOO[:-1], 5, "--out", copied / "zoo"]
    invoke(*words)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(load_zoo(copied / "zoo")) == 5
    again = invoke("zoo", *ZOO[:-1], 5, "--width", "4", "--width", "5", "--out", copied / "zoo")
    assert len(load_zoo(copied / "zoo")) == 5
    assert "5 networks" in again.output


def test_zoo_prunes_mildly_and_mixes_architectures(tmp_path):
    invoke(
        "zoo", "--train", 100, "--arch", "resnet8,vgg8", "--width", 3, "--epochs", 1, "--count", 2, "--seed", 5,
        "--speedup", 1.3, "--out", tmp_path,
    )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resnet8-w3-e1-s5-x1.3", "vgg8-w3-e1-s6-x1.3"]
    assert all(each.figures["speedup"] >= 1.3 for each in load_zoo(tmp_path))


def test_train_leaves_a_metanetwork_its_figures_and_a_plot(made):
    folder, (_, said) = made
    metanet = MetaNetwork.load(folder / "m.safetensors")
    assert (metanet.mode, metanet.hidden, metanet.layers) == ("repair", 8, 1)
    figures = json.loads((folder / "m.json").read_text())
    assert len(figures["history"]) == 2
    assert figures["area"] == max(each["val"] for each in figures["history"])
    assert figures["options"]["steps"] == 2
    assert figures["versions"]["torch"] == torch.__version__
    assert [len(figures["networks"][role]) for role in ("learned", "judged")] == [3, 1]
    assert metanet.notes["judged"] == figures["networks"]["judged"]
    assert (folder / "m.png").read_bytes().startswith(b"\x89PNG")
    assert f"{100 * figures['untrained_area']:.2f}" in lines_with(said, "untrained")[0]
    assert f"{100 * figures['area']:.2f}" in lines_with(said, "best")[0]


def test_nowcast_goes_on_from_its_trajectories_and_its_checkpoint(copied, monkeypatch):
    words = ["train", *TRAIN, "--zoo", copied / "zoo", "--objective", "nowcast", "--trajectories", 3]
    invoke(*words, "--out", copied / "whole" / "m.safetensors")
    made, loss, calls = Trajectories._made, Nowcast.loss, []

    def killed(function, at):
        def called(self, *args):
            calls.append(1)
            if len(calls) == at:
                raise KeyboardInterrupt
            return function(self, *args)

        return called

    out = ["--out", copied / "new" / "m.safetensors"]
    monkeypatch.setattr(Trajectories, "_made", killed(made, 3))
    invoke(*words, *out, code=130)
    kept = copied / "new" / "m.trajectories"
    assert [path.name for path in sorted(kept.iterdir())] == [f"trajectory-000{n}.safetensors" for n in range(2)]
    monkeypatch.setattr(Nowcast, "loss", killed(loss, 7))  # three calls so far, one trajectory more, two steps and one
    invoke(*words, *out, code=130)
    invoke(*words, *out)
    assert len(calls) == 3 + 1 + 4 + 1  # no trajectory is made twice
    found, whole = (MetaNetwork.load(copied / name / "m.safetensors") for name in ("new", "whole"))
    assert found.mode == "nowcast"
    assert same_bits(found.state_dict(), whole.state_dict())


def test_train_goes_on_from_its_checkpoint(copied, monkeypatch, made):
    words = ["train", *TRAIN, "--zoo", copied / "zoo", "--out", copied / "new" / "m.safetensors"]
    loss, calls = Repair.loss, []

    def killed(self, *args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(self, *args)

    monkeypatch.setattr(Repair, "loss", killed)
    invoke(*words, code=130)
    assert [path.name for path in (copied / "new").iterdir()] == ["m.checkpoint"]
    invoke(*words)
    assert len(calls) == 4 + 2  # one epoch of two steps was left
    found, whole = (MetaNetwork.load(path) for path in (copied / "new" / "m.safetensors", copied / "m.safetensors"))
    assert same_bits(found.state_dict(), whole.state_dict())
    invoke(*words)
    assert len(calls) == 6


def test_prune_ends_with_a_table_a_plot_and_figures(pruned):
    out, _, done = pruned
    figures = json.loads((out / "metrics.json").read_text())
    assert len(figures["runs"]) == 2 * 2 * 4
    for run in figures["runs"]:
        assert run["speedup"] >= run["target"]
        assert run["flops"] < run["flops_before"]
    assert [each["method"] for each in figures["summary"]] == [
        m for m in ("metanetwork", "group-l2", "random", "group-l2+least-squares") for _ in "23"
    ]
    for each in figures["summary"]:
        mine = [
            r["accuracy"] for r in figures["runs"] if (r["method"], r["target"]) == (each["method"], each["target"])
        ]
        base = [r["accuracy"] for r in figures["runs"] if (r["method"], r["target"]) == ("group-l2", each["target"])]
        assert each["accuracy"] == pytest.approx(sum(mine) / 2)
        if each["method"] == "group-l2":
            assert "difference" not in each
            continue
        gaps = [a - b for a, b in zip(mine, base, strict=True)]
        assert each["difference"]["mean"] == pytest.approx(sum(gaps) / 2)
        assert each["difference"]["wins"] == sum(gap > 0 for gap in gaps)
        assert each["difference"]["to"] == "group-l2"
    assert figures["command"] == "graphsparse meta prune"
    assert figures["options"]["seed"] == 0
    assert set(figures["in_meta_training"].values()) == {"learned", "judged"}
    for row in ("metanetwork ", "group-l2 ", "random ", "metanetwork - group-l2", "random - group-l2"):
        assert lines_with(done.output, row, "±")
    assert "2 of 2 networks took part in meta-training" in done.output
    assert (out / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_pruned_networks_come_back(pruned, few):
    out, _, _ = pruned
    figures = json.loads((out / "metrics.json").read_text())
    for network in load_zoo(few):
        folder = out / "networks" / network.recipe.name / "metanetwork-x2"
        module = restore(folder, network.module)
        run = next(
            r for r in figures["runs"]
            if (r["network"], r["method"], r["target"]) == (network.recipe.name, "metanetwork", 2.0)
        )  # fmt: skip
        assert network.images.task().score(module, "test") == pytest.approx(run["accuracy"])
        assert sum(p.numel() for p in module.parameters()) == run["params"]


def test_an_interrupted_prune_goes_on_and_ends_alike(pruned, made, few, tmp_path, monkeypatch):
    words = ["prune", "--speedup", 2, "--criterion", "group-l2", "--epochs", 0, "--zoo", few]
    words += ["--metanet", made[0] / "m.safetensors", "--out", tmp_path]
    prune, calls = comparison.prune, []

    def killed(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return prune(*args, **options)

    monkeypatch.setattr(comparison, "prune", killed)
    invoke(*words, code=130)
    assert not (tmp_path / "metrics.json").exists()
    invoke(*words)
    assert len(calls) == 3 + 4 - 2  # two networks, by two methods
    found, whole = (json.loads((folder / "metrics.json").read_text())["runs"] for folder in (tmp_path, pruned[0]))
    whole = [run for run in whole if run["target"] == 2 and run["method"] in {"metanetwork", "group-l2"}]
    timeless = [
        [{k: v for k, v in run.items() if "latency" not in k and "cpu_seconds" not in k} for run in runs]
        for runs in (found, whole)
    ]
    assert timeless[0] == timeless[1]
    invoke(*words)
    assert len(calls) == 5
    one = ["--zoo", few / "resnet8-w4-e1-s0"]
    invoke(*words, *one)
    assert len(calls) == 5
    invoke(*words, *one, "--seed", 1)  # another question: nothing of the answers counts
    assert len(calls) == 5 + 2


def test_json_is_one_object_on_standard_output(pruned, made):
    out, words, _ = pruned
    done = invoke(*words, "--json")
    assert json.loads(done.stdout) == json.loads((out / "metrics.json").read_text())


def test_one_network_without_a_metanetwork(made, tmp_path):
    folder = made[0] / "zoo" / "resnet8-w5-e1-s1"
    done = invoke("prune", "--zoo", folder, "--metanet", "none", "--speedup", 2, "--epochs", 1, "--out", tmp_path)
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert [run["method"] for run in figures["runs"]] == ["group-l2", "group-l2+least-squares", "taylor"]
    assert figures["unpruned"] == pytest.approx(load_network(folder).figures["test"])
    assert figures["unpruned_ci95"] is None
    assert "took part" not in done.output
    assert "metanetwork" not in done.stdout


def test_every_method_gets_the_same_epochs_in_all(made, tmp_path, monkeypatch):
    graph_folder, given = made[0], {}
    words = [*TRAIN, "--objective", "group-norm", "--zoo", graph_folder / "zoo", "--out", tmp_path / "c.safetensors"]
    invoke("train", *words)
    assert MetaNetwork.load(tmp_path / "c.safetensors").mode == "change"
    prune = comparison.prune

    def watched(net, metanet, task, **options):
        name = "metanetwork" if metanet else options["criterion"]
        given[name] = (options["prepare"].epochs, options["fine_tune"].epochs)
        return prune(net, metanet, task, **options)

    monkeypatch.setattr(comparison, "prune", watched)
    invoke(
        "prune", "--zoo", graph_folder / "zoo" / "resnet8-w4-e1-s0", "--metanet", tmp_path / "c.safetensors",
        "--criterion", "group-l2,sparse-learning", "--speedup", 2, "--epochs", 3, "--out", tmp_path / "p",
    )  # fmt: skip
    assert given == {"metanetwork": (1, 2), "group-l2": (0, 3), "sparse-learning": (1, 2)}


def test_a_pruned_network_says_what_it_was_asked_for(pruned):
    header = read_header(pruned[0] / "networks" / "resnet8-w4-e1-s0" / "random-x3")
    assert header["asked"]["method"] == "random"
    assert header["asked"]["metanet"] is None
    assert header["asked"]["images"]["train"] == 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["zoo", "--dataset", "digit"], "did you mean 'digits'?"),
        (["zoo", "--arch", "resnet9"], "6 n + 2"),
        (["zoo", "--arch", "lenet"], "no network named 'lenet'"),
        (["zoo", "--width", "4,x"], "--width takes whole numbers"),
        (["zoo", "--epochs", "2.5"], "--epochs takes whole numbers"),
        (["zoo", "--epochs", "0"], "epochs >= 1"),
        (["zoo", "--width", "0"], "width must be at least 1"),
        (["zoo", "--width", ","], "at least one architecture, one width"),
        (["zoo", "--lr", "0"], "lr > 0"),
        (["zoo", "--speedup", "0.5"], "at least 1"),
        (["zoo", "--train", "5000"], "do not fit"),
        (["zoo", "--lr", "0.01", *ZOO], "lr=0.01"),
        (["train", "--objective", "repare"], "known are group-lasso, group-norm, nowcast, repair"),
        (["train", "--zoo", "nowhere"], "graphsparse meta zoo"),
        (["train", "--val-count", "4"], "val-count must be at least 1 and leave one"),
        (["train", "--hidden", "7"], "even"),
        (["train", "--lr", "0.1", *TRAIN], "another run: callbacks, lr differ"),
        (["prune", "--zoo", "nowhere", "--metanet", "none"], "graphsparse meta zoo"),
        (["prune", "--metanet", "resnet-huge"], "no pretrained metanetwork 'resnet-huge'"),
        (["prune", "--metanet", "gone.safetensors"], "gone.safetensors"),
        (["prune", "--metanet", "none", "--criterion", "group-l3"], "did you mean 'group-l2'?"),
        (["prune", "--metanet", "none", "--speedup", "1"], "above 1"),
        (["prune", "--metanet", "none", "--speedup", "two"], "--speedup takes numbers"),
        (["prune", "--metanet", "none", "--speedup", "1000"], "cannot be reached"),
        (["prune", "--metanet", "none", "--lr", "0"], "lr > 0"),
        (["prune", "--metanet", "none", "--criterion", ","], "at least one criterion"),
        (["prune", "--metanet", "none", "--criterion", "group-l2+more"], "followed by +least-squares"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, list) else "",
)
def test_bad_words_get_one_sentence(copied, monkeypatch, capsys, words, message):
    monkeypatch.chdir(copied)
    if words[0] == "train" and "--out" not in words:
        words = [*words, "--out", "m.safetensors"]
    monkeypatch.setattr(sys, "argv", ["graphsparse", "meta", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_another_kind_of_file_for_a_metanetwork_is_wrong_use(copied, monkeypatch, capsys):
    monkeypatch.chdir(copied)
    monkeypatch.setattr(sys, "argv", ["graphsparse", "meta", "train", "--out", "m.pt"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "m.pt" in capsys.readouterr().err
    assert not (copied / "m.pt").exists()


def test_networks_of_different_images_are_refused(copied, monkeypatch, capsys):
    invoke("zoo", "--train", 100, "--width", 4, "--epochs", 1, "--count", 1, "--seed", 9, "--out", copied / "zoo")
    monkeypatch.setattr(sys, "argv", ["graphsparse", "meta", "train", "--zoo", str(copied / "zoo")])
    with pytest.raises(SystemExit):
        cli.main()
    assert "learned different images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "shown"), [("zoo", "resnet8"), ("train", "metanet.safetensors"), ("prune", "0.05")]
)
def test_help_names_the_defaults(command, shown):
    text = "".join(invoke(command, "--help").output.split())
    assert f"default:({shown})" in text or f"default:{shown}" in text
