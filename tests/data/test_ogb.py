"""Open Graph Benchmark: offline, no prompt, no damage unnoticed, nothing left changed in the process."""

from __future__ import annotations

import builtins
import functools
import gzip
import http.server
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from graphsparse.data import OgbTask, load, load_ogb
from graphsparse.data.ogb_classes import classes_of
from graphsparse.errors import DataError


@pytest.fixture(autouse=True)
def no_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt would hang a batch job: here it fails the test."""

    def refuse(*_: object) -> str:
        raise AssertionError("something asked on the terminal")

    monkeypatch.setattr(builtins, "input", refuse)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own, and no data folder but the one that the test names."""
    monkeypatch.delenv("GRAPHSPARSE_DATA", raising=False)
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _write(path: Path, rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.writelines(",".join(map(str, np.atleast_1d(row))) + "\n" for row in rows)


def _toy_arxiv(root: Path) -> Path:
    """Write a citation graph of 5 nodes in the layout of ogbn-arxiv."""
    folder = root / "ogb" / "ogbn_arxiv"
    _write(folder / "raw/edge.csv.gz", [[0, 1], [2, 1], [3, 4], [1, 0]])
    _write(folder / "raw/num-node-list.csv.gz", [5])
    _write(folder / "raw/num-edge-list.csv.gz", [4])
    _write(folder / "raw/node-feat.csv.gz", [[0.5 * node, 1.0] for node in range(5)])
    _write(folder / "raw/node-label.csv.gz", [0, 1, 2, 1, 0])
    _write(folder / "raw/node_year.csv.gz", [2010, 2011, 2012, 2018, 2019])
    for part, ids in {"train": [0, 1, 2], "valid": [3], "test": [4]}.items():
        _write(folder / f"split/time/{part}.csv.gz", ids)
    return folder


def _toy_ddi(root: Path) -> Path:
    """Write a link task of 4 nodes in the layout of ogbl-ddi: numpy arrays in torch files of old."""
    folder = root / "ogb" / "ogbl_ddi"
    _write(folder / "raw/edge.csv.gz", [[0, 1], [1, 2]])
    _write(folder / "raw/num-node-list.csv.gz", [4])
    _write(folder / "raw/num-edge-list.csv.gz", [2])
    (folder / "split/target").mkdir(parents=True)
    for part in ("train", "valid", "test"):
        content = {"edge": np.array([[0, 1], [1, 2]])} | ({} if part == "train" else {"edge_neg": np.array([[0, 3]])})
        path = folder / f"split/target/{part}.pt"
        torch.save(content, path, pickle_protocol=4, _use_new_zipfile_serialization=False)
    return folder


def _toy_bace(root: Path) -> Path:
    """Write three molecules in the layout of ogbg-molbace."""
    folder = root / "ogb" / "ogbg_molbace"
    _write(folder / "raw/edge.csv.gz", [[0, 1], [1, 2], [0, 1]])
    _write(folder / "raw/edge-feat.csv.gz", [[0, 0, 0], [1, 0, 1], [2, 0, 0]])
    _write(folder / "raw/num-node-list.csv.gz", [3, 2, 1])
    _write(folder / "raw/num-edge-list.csv.gz", [2, 1, 0])
    _write(folder / "raw/node-feat.csv.gz", [[node] * 9 for node in range(6)])
    _write(folder / "raw/graph-label.csv.gz", [0, 1, 1])
    for number, part in enumerate(("train", "valid", "test")):
        _write(folder / f"split/scaffold/{part}.csv.gz", [number])
    return folder


def test_node_task_by_hand(tmp_path: Path, cache: Path) -> None:
    _toy_arxiv(tmp_path)
    task = load_ogb("ogbn-arxiv", root=tmp_path)
    assert (task.kind, task.metric, task.higher_is_better) == ("node", "acc", True)
    assert task.data.edge_index.tolist() == [[0, 2, 3, 1], [1, 1, 4, 0]]
    assert task.splits["train"].tolist() == [0, 1, 2]
    right = {"y_true": task.data.y, "y_pred": task.data.y}
    assert task.evaluator.eval(right) == {"acc": 1.0}


def test_node_task_as_one_graph_with_masks(tmp_path: Path, cache: Path) -> None:
    _toy_arxiv(tmp_path)
    data = load("ogbn-arxiv", root=tmp_path)
    assert sorted(map(tuple, data.edge_index.t().tolist())) == [(0, 1), (1, 0), (1, 2), (2, 1), (3, 4), (4, 3)]
    assert data.y.tolist() == [0, 1, 2, 1, 0]
    assert data.train_mask.tolist() == [True, True, True, False, False]
    assert (data.split, data.metric, data.num_classes) == ("public", "accuracy", 3)


def test_graph_task_by_hand(tmp_path: Path, cache: Path) -> None:
    _toy_bace(tmp_path)
    task = load_ogb("ogbg-molbace", root=tmp_path)
    assert [graph.num_nodes for graph in task.dataset] == [3, 2, 1]
    assert task.dataset[0].edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert task.dataset[1].edge_attr.tolist() == [[2, 0, 0], [2, 0, 0]]
    with pytest.raises(ValueError, match=r"holds 3 graphs; take them from \.dataset"):
        _ = task.data


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_link_task_reads_numpy_pickles_and_leaves_only_tensors(tmp_path: Path, cache: Path) -> None:
    source = _toy_ddi(tmp_path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(source / "split/target/valid.pt", weights_only=True)
    task = load_ogb("ogbl-ddi", root=tmp_path)
    assert task.splits["valid"]["edge_neg"].tolist() == [[0, 3]]
    assert task.data.num_nodes == 4
    for path in (cache / "ogb").rglob("split/**/*.pt"):
        torch.load(path, weights_only=True)


def test_the_data_folder_is_only_read_and_the_second_load_only_opens(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _toy_bace(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    load_ogb("ogbg-molbace", root=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert [path.name for path in (cache / "ogb").iterdir()] == ["ogbg_molbace"]
    monkeypatch.setattr(
        classes_of("graph").dataset, "process", lambda self: pytest.fail("the second load processed again")
    )
    assert len(load_ogb("ogbg-molbace", root=tmp_path).dataset) == 3
    shutil.rmtree(folder)  # the links to the raw files are dead now, and the cache is enough
    assert len(load_ogb("ogbg-molbace").dataset) == 3


def test_a_changed_source_is_processed_again(tmp_path: Path, cache: Path) -> None:
    folder = _toy_bace(tmp_path)
    assert load_ogb("ogbg-molbace", root=tmp_path).dataset[0].y.item() == 0
    _write(folder / "raw/graph-label.csv.gz", [1, 1, 1])
    os.utime(folder / "raw/graph-label.csv.gz", ns=(1, 1))
    assert load_ogb("ogbg-molbace", root=tmp_path).dataset[0].y.item() == 1


def test_interrupted_processing_leaves_nothing_that_loads(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _toy_bace(tmp_path)
    dataset = classes_of("graph").dataset
    whole = dataset.process

    def stop(self: Any) -> None:
        whole(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "process", stop)
        with pytest.raises(KeyboardInterrupt):
            load_ogb("ogbg-molbace", root=tmp_path)
    assert list((cache / "ogb").iterdir()) == []
    assert len(load_ogb("ogbg-molbace", root=tmp_path).dataset) == 3


def test_a_killed_process_leaves_nothing_that_loads(tmp_path: Path, cache: Path) -> None:
    _toy_bace(tmp_path)
    program = (
        "import os, sys\n"
        "from graphsparse.data import load_ogb\n"
        "from graphsparse.data.ogb_classes import classes_of\n"
        "dataset = classes_of('graph').dataset\n"
        "def die(self):\n"
        "    open(self.processed_paths[0], 'wb').write(b'half')\n"
        "    os._exit(9)\n"
        "dataset.process = die\n"
        "load_ogb('ogbg-molbace', root=sys.argv[1])\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, capture_output=True)
    assert run.returncode == 9, run.stderr.decode()
    assert not (cache / "ogb" / "ogbg_molbace").exists()
    assert len(load_ogb("ogbg-molbace", root=tmp_path).dataset) == 3


@pytest.mark.parametrize("content", [b"", b"half", None])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, cache: Path, content: bytes | None) -> None:
    folder = _toy_bace(tmp_path)
    load_ogb("ogbg-molbace", root=tmp_path)
    (processed,) = (cache / "ogb").rglob("geometric_data_processed.pt")
    whole = processed.read_bytes()
    processed.write_bytes(whole[:-100] if content is None else content)
    assert len(load_ogb("ogbg-molbace", root=tmp_path).dataset) == 3
    processed.write_bytes(b"")
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=r"ogbg_molbace is damaged .*; delete it"):
        load_ogb("ogbg-molbace")


def test_a_poisoned_cache_runs_nothing(tmp_path: Path, cache: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "marker"),)

    _toy_bace(tmp_path)
    load_ogb("ogbg-molbace", root=tmp_path)
    (processed,) = (cache / "ogb").rglob("geometric_data_processed.pt")
    torch.save(Evil(), processed)
    assert len(load_ogb("ogbg-molbace", root=tmp_path).dataset) == 3
    assert not (tmp_path / "marker").exists()


def test_a_malicious_split_file_runs_nothing(tmp_path: Path, cache: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "marker"),)

    folder = _toy_ddi(tmp_path)
    torch.save({"edge": Evil()}, folder / "split/target/valid.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match=r"valid\.pt asks for \w+\.mkdir"):
        load_ogb("ogbl-ddi", root=tmp_path)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("file", "rows", "said"),
    [
        ("raw/edge.csv.gz", [[0, 1], [1, 2]], "edges, the files hold 3 with 4"),
        ("raw/edge.csv.gz", [[0, 1], [1, 3], [0, 1]], "names a node that its graph does not have"),
        ("raw/edge.csv.gz", [[0, 1], [1, -1], [0, 1]], "names a node that its graph does not have"),
        ("raw/edge.csv.gz", [["a", "b"]], "cannot be processed"),
        ("raw/node-feat.csv.gz", [[node] * 9 for node in range(5)], "x has 5 rows where 6 belong"),
        ("raw/graph-label.csv.gz", [0, 1], "cannot be processed"),
        ("raw/num-node-list.csv.gz", [3, 2], "the lists name 3 graphs with 6 edges, the files hold 2"),
        ("split/scaffold/test.csv.gz", [3], "the test split names 3, but ids end at 2"),
        ("split/scaffold/test.csv.gz", [-1], "the test split names -1"),
        ("split/scaffold/test.csv.gz", [0], "an id is in two of training"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, cache: Path, file: str, rows: list[Any], said: str) -> None:
    folder = _toy_bace(tmp_path)
    _write(folder / file, rows)
    with pytest.raises(DataError, match=rf"ogbg_molbace.*{said}"):
        load_ogb("ogbg-molbace", root=tmp_path)
    assert list((cache / "ogb").iterdir()) == []


def test_truncated_and_missing_files_are_named(tmp_path: Path, cache: Path) -> None:
    folder = _toy_bace(tmp_path)
    edges = folder / "raw/edge.csv.gz"
    edges.write_bytes(edges.read_bytes()[:-12])
    with pytest.raises(DataError, match="ogbg_molbace cannot be processed"):
        load_ogb("ogbg-molbace", root=tmp_path)
    edges.unlink()
    with pytest.raises(DataError, match=r"ogbg_molbace has no raw/edge\.csv\.gz; put the complete files"):
        load_ogb("ogbg-molbace", root=tmp_path)


def test_a_partial_folder_is_not_taken_for_the_data_set(tmp_path: Path, cache: Path) -> None:
    folder = _toy_arxiv(tmp_path)
    (folder / "raw/edge.csv.gz").unlink()
    folder.rename(folder.with_name("ogbn_arxiv_partial"))
    for loader in (load_ogb, load):
        with pytest.raises(DataError, match=r"ogbn_arxiv_partial has no raw/edge\.csv\.gz"):
            loader("ogbn-arxiv", root=tmp_path)


def test_the_process_is_left_as_it_was(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # safe_globals takes away on leaving what it was given, even what PyG had allowed for good before.
    before, loader = set(torch.serialization.get_safe_globals()), torch.load
    _toy_bace(tmp_path)
    load_ogb("ogbg-molbace", root=tmp_path)
    assert set(torch.serialization.get_safe_globals()) == before
    assert torch.load is loader
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
    assert capsys.readouterr().out == ""  # commands with --json own the standard output


def test_importing_ogb_starts_no_thread_and_asks_no_network() -> None:
    program = (
        "import threading, sys, os\n"
        "from graphsparse.data.ogb_classes import classes_of\n"
        "classes_of('node')\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert 'OUTDATED_IGNORE' not in os.environ\n"
        "assert sys.modules.get('outdated', 0) is not None\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_two_threads_may_load_at_once(tmp_path: Path, cache: Path) -> None:
    _toy_bace(tmp_path)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(len(load_ogb("ogbg-molbace", root=tmp_path).dataset)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [3] * 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An address on this machine and the folder behind it."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


def test_a_download_is_processed_and_kept(
    tmp_path: Path, cache: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _toy_bace(tmp_path).rename(tmp_path / "bace")
    shutil.make_archive(str(server[1] / "bace"), "zip", tmp_path, "bace")
    found = classes_of("graph")
    found.master["ogbg-molbace"]["url"] = f"{server[0]}/bace.zip"
    monkeypatch.setattr("graphsparse.data.ogb.classes_of", lambda kind: found)
    assert len(load_ogb("ogbg-molbace").dataset) == 3
    (server[1] / "bace.zip").write_bytes(b"no zip")
    assert len(load_ogb("ogbg-molbace").dataset) == 3
    shutil.rmtree(cache)
    with pytest.raises(DataError, match=r"bace\.zip is no zip archive"):
        load_ogb("ogbg-molbace")
    assert list((cache / "ogb").iterdir()) == []


def test_no_network_says_where_to_put_it(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(url: str, **_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", dead)
    with pytest.raises(DataError, match=r"put it into ogb/ogbn_products .* or make http\S+ reachable \(no network\)"):
        load_ogb("ogbn-products", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ogbg-molbase", "did you mean ogbg-molbace"),
        ("cora", "there is no OGB task 'cora'"),
        ("ogbn-mag", "several types of nodes"),
    ],
)
def test_wrong_names(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_ogb(name)


@pytest.mark.parametrize(
    ("name", "graphs", "metric", "higher"),
    [
        ("ogbg-molbace", 1513, "rocauc", True),
        ("ogbg-molbbbp", 2039, "rocauc", True),
        ("ogbg-molesol", 1128, "rmse", False),
        ("ogbg-molfreesolv", 642, "rmse", False),
    ],
)
def test_real_molecules(need: Callable[[str], Path], name: str, graphs: int, metric: str, higher: bool) -> None:
    need(f"ogb/{name.replace('-', '_')}")
    task = load_ogb(name)
    assert (len(task.dataset), task.metric, task.higher_is_better) == (graphs, metric, higher)
    assert sum(len(ids) for ids in task.splits.values()) == graphs
    batch = next(iter(DataLoader(task.dataset[task.splits["test"]], batch_size=1000)))
    perfect = task.evaluator.eval({"y_true": batch.y, "y_pred": batch.y.float()})
    assert perfect == {metric: pytest.approx(1.0 if higher else 0.0)}


def test_real_drug_interactions(need: Callable[[str], Path]) -> None:
    need("ogb/ogbl_ddi")
    task = load_ogb("ogbl-ddi")
    assert (task.data.num_nodes, task.data.num_edges) == (4267, 2 * 1067911)
    assert [len(task.splits[part]["edge"]) for part in ("train", "valid", "test")] == [1067911, 133489, 133489]
    scores = {
        "y_pred_pos": torch.arange(100.0),
        "y_pred_neg": torch.arange(len(task.splits["test"]["edge_neg"])) / 1000 - 5,
    }
    # The 20th best of the 95,599 negatives scores 90.579: the positives 91 ... 99 are above it.
    assert task.evaluator.eval(scores)["hits@20"] == 0.09


def test_real_rebuilt_molecules_say_so(need: Callable[[str], Path]) -> None:
    need("ogb/ogbg_molhiv_rebuilt")
    task: OgbTask = load_ogb("ogbg-molhiv-rebuilt")
    assert task.name == "ogbg-molhiv-rebuilt"
    assert [len(task.splits[part]) for part in ("train", "valid", "test")] == [32901, 4113, 4113]
    assert len(task.dataset) == 41127


def test_a_rebuilt_task_is_never_replaced_by_the_official_one(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"ogbg-molhiv-rebuilt is not here and not offered anywhere; put its files into ogb/"
    ):
        load_ogb("ogbg-molhiv-rebuilt", root=tmp_path)


def test_the_real_partial_arxiv_is_refused(need: Callable[[str], Path]) -> None:
    need("ogb/ogbn_arxiv_partial")
    with pytest.raises(DataError, match=r"no raw/edge\.csv\.gz"):
        load("ogbn-arxiv")
