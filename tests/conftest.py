"""What all tests share: the cores, where real data lies, and a cache of their own.

Without a path on the command line all tests are shared out among the cores (pytest-xdist); a part that is named runs in
this process, so that ``-x``, ``--pdb`` and prints work as usual. ``-n 4`` or ``-n 0`` asks for something else.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

from graphsparse.cores import usable_cores

# Before torch is loaded: beside other work, threads that spin while they wait make a run ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The tests start many processes: what the first one compiles is read by the others.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

sys.path.insert(0, str(Path(__file__).parent))  # tests have no packages, and share `warm`

MOST_WORKERS = 8  # each one holds torch and what its tests compute: about 1 GB

# The same examples in every run: a failure can be seen again, and a change is not blamed for an old fault's luck.
# ``--hypothesis-profile=search`` looks for new ones.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile("same")


@pytest.hookimpl(optionalhook=True)  # with -p no:xdist, too
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes share the tests; 0 is this one."""
    cores = usable_cores()
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return min(cores, MOST_WORKERS) if whole and cores > 1 else 0


def pytest_configure(config: pytest.Config) -> None:
    """Let signals reach the commands under test, and give each of several workers one thread."""
    usual = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}
    for name, handler in usual.items():  # nohup and a job in the background leave them ignored, in children, too
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    if hasattr(config, "workerinput"):
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep every test out of the user's cache, and out of what an earlier run has left there."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHSPARSE_CACHE", str(folder))
        yield folder


@pytest.fixture
def warm_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of `graphsparse.workers` start at once; that they start from nothing, too, is for other tests."""
    import warm

    monkeypatch.setattr("graphsparse.workers.multiprocessing", SimpleNamespace(get_context=lambda _: warm.context()))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data; tests that need it are skipped without."""
    folder = os.environ.get("GRAPHSPARSE_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GRAPHSPARSE_DATA names no folder of real data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def need(data_root: Path) -> Callable[[str], Path]:
    """Return a function that gives the path of a file or folder of the real data, or skips the test."""

    def find(relative: str) -> Path:
        path = data_root / relative
        if not path.exists():
            pytest.skip(f"{relative} is not in the folder that GRAPHSPARSE_DATA names")
        return path

    return find
