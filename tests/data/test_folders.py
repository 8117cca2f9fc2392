"""Where data is looked for: the data folder, the cache, the network; whole files or none."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphsparse.data import cache_root, data_root
from graphsparse.data.folders import atomic_write, fetch, locate
from graphsparse.errors import DataError


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A data folder and a cache, both empty."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(data))
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(cache))
    return data, cache


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serve files; one called ``short`` promises more than it sends."""

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:  # the name that http.server asks for
        if self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"only this")
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An address on this machine and the folder behind it."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(_Server, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


def test_the_argument_wins_over_the_variable(roots: tuple[Path, Path], tmp_path: Path) -> None:
    assert data_root() == roots[0]
    assert data_root(tmp_path) == tmp_path.resolve()


def test_no_folder_is_none_and_a_wrong_one_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GRAPHSPARSE_DATA", raising=False)
    assert data_root() is None
    with pytest.raises(DataError, match=r"root names .*nope, which is not a folder"):
        data_root(tmp_path / "nope")
    monkeypatch.setenv("GRAPHSPARSE_DATA", str(tmp_path / "nope"))
    with pytest.raises(DataError, match="GRAPHSPARSE_DATA names"):
        data_root()


@pytest.mark.parametrize(
    ("platform", "variable", "tail"),
    [("linux", "XDG_CACHE_HOME", "graphsparse"), ("win32", "LOCALAPPDATA", "graphsparse")],
)
def test_the_cache_follows_the_platform(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, variable: str, tail: str
) -> None:
    monkeypatch.delenv("GRAPHSPARSE_CACHE")
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    assert cache_root() == tmp_path.resolve() / tail


def test_the_data_folder_comes_before_the_cache_and_the_network(roots: tuple[Path, Path]) -> None:
    data, cache = roots
    dead = ["http://127.0.0.1:9/a"]
    cache.mkdir()
    (cache / "a").write_text("cached")
    assert locate(["a"], root=None, urls=dead, hint="a") == [cache / "a"]
    (data / "a").write_text("own")
    assert locate(["a"], root=None, urls=dead, hint="a") == [data / "a"]


def test_half_a_data_set_is_damage_not_a_download(roots: tuple[Path, Path]) -> None:
    (roots[0] / "a").touch()
    with pytest.raises(DataError, match=r"thing: .* lacks b"):
        locate(["a", "b"], root=None, urls=["http://127.0.0.1:9/a"] * 2, hint="thing")


def test_what_has_no_download_says_where_to_put_it(roots: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match=r"put w/x\.npz into the folder that GRAPHSPARSE_DATA names"):
        locate(["w/x.npz"], root=None, urls=[], hint="x")


def test_a_dead_network_is_a_clear_error(roots: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match=r"thing is not here: put a .* or make http://127\.0\.0\.1:9/a reachable"):
        locate(["a"], root=None, urls=["http://127.0.0.1:9/a"], hint="thing")
    assert list(roots[0].iterdir()) == []


def test_a_download_lands_whole_in_the_cache(roots: tuple[Path, Path], server: tuple[str, Path]) -> None:
    (server[1] / "a").write_bytes(b"content")
    (path,) = locate(["sub/a"], root=None, urls=[f"{server[0]}/a"], hint="a")
    assert path == roots[1] / "sub" / "a"
    assert path.read_bytes() == b"content"
    (server[1] / "a").unlink()
    assert locate(["sub/a"], root=None, urls=[f"{server[0]}/a"], hint="a") == [path]  # not asked for again
    assert [file.name for file in path.parent.iterdir()] == ["a"]


@pytest.mark.parametrize("page", ["absent", "short"])
def test_a_failed_download_leaves_nothing(tmp_path: Path, server: tuple[str, Path], page: str) -> None:
    with pytest.raises(DataError, match=r"^hint"):
        fetch(f"{server[0]}/{page}", tmp_path / "t" / "file", hint="hint")
    assert list(tmp_path.glob("t/*")) == []


def test_written_whole_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail() -> None:
        with atomic_write(target) as partial:
            partial.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with atomic_write(target) as partial:
        partial.write_text("new")
    assert target.read_text() == "new"
