"""Places and clocks that are not as they should be: no home, nothing to write to, a clock that jumps."""

import json
import os
import subprocess
import sys
import time
from itertools import count

import torch

import graphsparse as gs

SPARSIFY = """
import sys
import graphsparse as gs
from graphsparse.edges.files import sparsify_file

print(gs.data.load("digits-knn").num_edges)
print(sparsify_file("in.csv", sys.argv[1], "jaccard", rules={"keep": 0.5}))
"""


def test_without_a_home_and_a_cache_all_works_that_needs_neither(tmp_path):
    (tmp_path / "in.csv").write_text("src,dst\n0,1\n1,2\n2,0\n2,3\n")
    gone = {"HOME", "GRAPHSPARSE_CACHE", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"}
    environment = {name: value for name, value in os.environ.items() if name not in gone}
    environment |= {"HOME": "/nonexistent", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    words = [sys.executable, "-c", SPARSIFY, str(tmp_path / "out.csv")]
    run = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[1].startswith("kept 2 of 4 directed edges")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


def test_a_terminal_without_the_letters_of_a_name_is_no_error(tmp_path):
    (tmp_path / "in.csv").write_text("src,dst\n0,1\n1,2\n2,0\n2,3\n")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    words = [sys.executable, "-m", "graphsparse", "sparsify", "in.csv", "\u00fc.csv", "--keep", "0.5"]
    run = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("kept 2 of 4 directed edges (found so) (50.00 %): \\xfc.csv")
    assert (tmp_path / "\u00fc.csv").exists()


def test_a_clock_that_jumps_back_changes_no_result(tmp_path, monkeypatch):
    data = gs.data.load("digits-knn")
    how = {"method": "random", "edge_keep": 0.5, "weight_keep": 0.5, "epochs": 2}
    nets = []
    for _ in range(2):
        torch.manual_seed(0)
        nets.append(gs.nn.GCN(data.num_features, 4, data.num_classes))
    right = gs.find_ticket(nets[0], data, checkpoint=tmp_path / "a", **how)
    back = count(10**9, -86_400)  # every look at the clock is a day earlier than the one before
    monkeypatch.setattr(time, "time", lambda: float(next(back)))
    found = gs.find_ticket(nets[1], data, checkpoint=tmp_path / "b", **how)
    assert found.hash == right.hash
    assert found.metrics["inference_ms"] > 0
    assert json.dumps(found.metrics["test"]) == json.dumps(right.metrics["test"])
