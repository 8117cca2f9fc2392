"""Processes of our own: what they give back, and that none is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from graphsparse.errors import DataError, GraphsparseError
from graphsparse.workers import WorkerError, in_processes


def ended(call, items, jobs=2):
    with contextlib.closing(in_processes(call, items, jobs)) as ends:
        return {end.item: end for end in ends}


def work(item):
    if item == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "leave":
        os._exit(3)
    if item == "odd":
        raise OddError(1, 2)
    if item == "wrong":
        raise DataError("no such file")
    if item == "unsendable":
        return lambda: 0
    return os.environ["OMP_NUM_THREADS"]


class OddError(Exception):
    """Cannot be read back from a pickle: it wants two arguments and keeps one text."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def test_results_errors_and_deaths_each_belong_to_their_item():
    found = ended(work, ["fine", "die", "wrong", "odd", "leave", "unsendable", "also fine"])
    assert found["fine"].result() == found["also fine"].result() == "1"
    with pytest.raises(WorkerError, match="a process was killed, most likely for want of memory"):
        found["die"].result()
    with pytest.raises(WorkerError, match="exit code 3"):
        found["leave"].result()
    with pytest.raises(DataError, match="no such file") as error:
        found["wrong"].result()
    assert 'raise DataError("no such file")' in str(error.value.__cause__)
    with pytest.raises(GraphsparseError, match="OddError: 1 and 2"):
        found["odd"].result()
    with pytest.raises(GraphsparseError, match="pickle"):
        found["unsendable"].result()


def test_closing_ends_them_at_once():
    before, started = set(psutil.Process().children()), time.monotonic()
    with contextlib.closing(in_processes(time.sleep, [0, 600, 600, 600], 2)) as ends:
        assert next(ends).item == 0
        assert len(set(psutil.Process().children(recursive=True)) - before) >= 2
    assert time.monotonic() - started < 30
    assert not [p for p in set(psutil.Process().children()) - before if "spawn_main" in " ".join(p.cmdline())]


SLEEPERS = """
import time
from graphsparse.workers import in_processes
if __name__ == "__main__":
    for end in in_processes(time.sleep, [600, 600, 600], 2, beat=lambda: print("beat", flush=True)):
        pass
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_they_end_with_their_parent_however_it_ends(tmp_path, number):
    file = tmp_path / "sleepers.py"
    file.write_text(SLEEPERS)
    parent = subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"beat\n"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 2
    parent.send_signal(number)
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=10)
    for process in alive:
        process.kill()
    assert not alive
