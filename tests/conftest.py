"""What all tests share: where real data lies, and a cache of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before torch is loaded: beside other work, threads that spin while they wait make a run ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep every test out of the user's cache, and out of what an earlier run has left there."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHSPARSE_CACHE", str(folder))
        yield folder


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
