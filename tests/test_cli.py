"""The commands as a person types them."""

import json
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from warm import command as run

import graphsparse as gs

COMMAND = [sys.executable, "-c", "from graphsparse.cli import main; main()"]
QUICK = ["ticket", "--seeds", "2", "--epochs", "15", "--hidden", "16", "--points", "2"]


def test_ticket_prints_a_table_and_leaves_a_ticket_that_verifies(tmp_path):
    done = run(*QUICK, "--out", tmp_path / "t")
    assert done.returncode == 0, done.stderr
    for word in (
        "digits-knn",
        "1,797 nodes",
        "test accuracy",
        "edges kept",
        "weights kept",
        "MACs",
        "inference",
        "isolated",
    ):
        assert word in done.stdout
    assert (tmp_path / "t" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    ticket = gs.Ticket.load(tmp_path / "t")
    assert ticket.metrics["edges_kept"] == pytest.approx(0.6, abs=1e-3)
    data = gs.data.load("digits-knn")
    ticket.verify(data, model=gs.nn.make("gcn", data.num_features, data.num_classes, 16))
    assert not (tmp_path / "t" / "checkpoints").exists()


def test_json_is_one_object_with_means_intervals_and_seeds(tmp_path):
    done = run(*QUICK, "--json", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    ticket = gs.Ticket.load(tmp_path)
    for key, value in ticket.metrics.items():
        assert key in found
        if isinstance(value, float):
            assert f"{key}_ci95" in found
    assert [each["seed"] for each in found["seeds"]] == [0, 1]
    assert found["test_accuracy"] == pytest.approx(np.mean([each["test_accuracy"] for each in found["seeds"]]))
    assert found["ticket_hash"] == ticket.hash
    best = max(found["seeds"], key=lambda each: each["val"])
    assert best["ticket_hash"] == ticket.hash


def test_molecules_are_a_data_set_like_others(tmp_path, need):
    need("ogb/ogbg_molfreesolv")
    words = ["--dataset", "ogbg-molfreesolv", "--model", "gin", "--lr", "0.001", "--weight-decay", "0"]
    done = run(*QUICK, *words, "--epochs", 3, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("642 graphs", "5,385 undirected edges", "test rmse "):
        assert word in done.stdout
    data, ticket = gs.data.load("ogbg-molfreesolv"), gs.Ticket.load(tmp_path)
    assert (ticket.config["protocol"], ticket.config["lr"], ticket.config["weight_decay"]) == ("inductive", 0.001, 0.0)
    ticket.verify(data, model=gs.nn.make_molecule_net("gin", 1, 16))
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert ticket.metrics["val"] == min(each["val"] for each in found["seeds"])  # an error: the smallest is the best
    wrong = run("ticket", "--dataset", "ogbg-molfreesolv", "--model", "sage", "--out", tmp_path)
    assert wrong.returncode == 1
    assert "must be 'gin' or 'gcn', got 'sage'" in wrong.stderr


def test_tolerance_finds_the_sparsest_level(tmp_path):
    done = run("ticket", "--seeds", 1, "--epochs", 15, "--hidden", 16, "--tolerance", 1, "--json", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["edges_kept"] == pytest.approx(0.95**20, abs=1e-3)


def test_a_killed_run_resumes_to_the_same_ticket(tmp_path):
    words = ["ticket", "--seeds", "2", "--epochs", "60", "--hidden", "16", "--points", "1", "--json", "--out"]
    whole = run(*words, tmp_path / "whole")
    process = subprocess.Popen(
        [*COMMAND, *words, str(tmp_path / "killed")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("checkpoints/*/*/*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = run(*words, tmp_path / "killed")
    assert json.loads(again.stdout)["ticket_hash"] == json.loads(whole.stdout)["ticket_hash"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ticket", "--dataset", "coraa"], "cora"),
        (["ticket", "--model", "gnc"], "gcn"),
        (["ticket", "--method", "tedy"], "teddy"),
        (["ticket", "--edge-keep", "1.5"], "(0, 1]"),
        (["ticket", "--weight-keep", "x"], "number"),
        (["ticket", "--edge-keep", "0.5", "--tolerance", "0.1"], "not both"),
        (["ticket", "--device", "gpu"], "the device 'gpu' cannot be used"),
        (["sparsify", "missing.csv", "out.csv", "--keep", "0.5"], "missing.csv"),
    ],
)
def test_bad_words_get_one_sentence_and_no_traceback(tmp_path, words, message):
    out = ["--out", tmp_path / "t"] if words[0] == "ticket" else []
    done = run(*words, *out, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_brackets_of_an_error_are_printed_and_mean_nothing(capsys, monkeypatch):
    from graphsparse.cli import entry

    monkeypatch.setattr(entry, "app", lambda: (_ for _ in ()).throw(ValueError("take [red] or [/x], in (0, 1]")))
    with pytest.raises(SystemExit, match="1"):
        entry.main()
    assert capsys.readouterr().err == "error: take [red] or [/x], in (0, 1]\n"


def test_errors_of_the_system_name_the_file_first_and_warnings_are_a_line(capsys, monkeypatch):
    from graphsparse.cli import entry

    def full():
        warnings.warn("half of it is gone", stacklevel=1)
        raise OSError(28, "No space left on device", "out/rows.jsonl")

    monkeypatch.setattr(entry, "app", full)
    with pytest.raises(SystemExit, match="1"):
        entry.main()
    said = capsys.readouterr()
    assert said.err == "warning: half of it is gone\nerror: out/rows.jsonl: No space left on device\n"
    assert said.out == ""


def test_a_place_that_cannot_be_written_is_told_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    done = run("ticket", "--epochs", 100_000, "--json", "--out", tmp_path / "file", timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert "it is no folder; choose another place" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_lists_the_commands():
    done = run("--help")
    assert done.returncode == 0
    assert "ticket" in done.stdout
    assert "sparsify" in done.stdout


def test_the_package_is_the_command():
    done = subprocess.run([sys.executable, "-m", "graphsparse", "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: python -m graphsparse" in done.stdout
