"""Where data lies and where it is cached: the data folder is only read, the cache is only written whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from graphsparse.atomic_write import atomic_write
from graphsparse.cache_folder import cache_root
from graphsparse.errors import DataError

DATA_VARIABLE = "GRAPHSPARSE_DATA"
_TIMEOUT_SECONDS = 20.0
_CHUNK_BYTES = 1 << 20


def data_root(root: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the folder that holds the data sets: ``root`` if given, else ``$GRAPHSPARSE_DATA``, else None.

    Args:
        root: a folder that takes the place of the environment variable.

    Raises:
        DataError: the folder is named but is not there, so that a typing error does not become a download.

    Example:
        >>> data_root(".").name == Path(".").resolve().name
        True
    """
    chosen = os.fspath(root) if root is not None else os.environ.get(DATA_VARIABLE, "")
    if not chosen:
        return None
    folder = Path(chosen).expanduser().resolve()
    if not folder.is_dir():
        name = "root" if root is not None else DATA_VARIABLE
        raise DataError(f"{name} names {folder}, which is not a folder; point it at the folder of data sets.")
    return folder


class Announced(BaseException):
    """Carries what a reader is about to look for past it, when somebody only asks: see `announced`.

    Attributes:
        files: paths relative to a data folder.
        urls: where they are to be had, if anywhere.
        instead: other files, any one of which would do.
    """

    def __init__(self, files: Sequence[str], urls: Sequence[str], instead: Sequence[str]) -> None:
        super().__init__(files)
        self.files, self.urls, self.instead = list(files), list(urls), list(instead)


_ASKING: ContextVar[bool] = ContextVar("asking", default=False)


def announce(files: Sequence[str], urls: Sequence[str], instead: Sequence[str] = ()) -> None:
    """What every reader says before it looks for its files; stops it where somebody only asks."""
    if _ASKING.get():
        raise Announced(files, urls, instead)


def announced(read: Callable[[Any], Any]) -> Announced | None:
    """What files a reader looks for, without reading them; None if it needs none.

    Example:
        >>> announced(lambda root: locate(["a.npz"], root=root, urls=[], hint="a")).files
        ['a.npz']
    """
    token = _ASKING.set(True)
    try:
        read(None)
    except Announced as found:
        return found
    finally:
        _ASKING.reset(token)
    return None


def locate(files: Sequence[str], *, root: str | os.PathLike[str] | None, urls: Sequence[str], hint: str) -> list[Path]:
    """Return the paths of ``files``: from the data folder, else the cache, else downloaded into the cache.

    Args:
        files: paths relative to a data folder.
        root: as in :func:`data_root`.
        urls: one address per file, or none at all when there is no download.
        hint: how the data set is named in the error, such as ``"cora"``.

    Raises:
        DataError: a file is missing and there is no address, or the download failed.
    """
    announce(files, urls)
    own = data_root(root)
    folders = [folder for folder in (own, cache_root()) if folder is not None]
    for folder in folders:
        present = [(folder / file).is_file() for file in files]
        if all(present):
            return [folder / file for file in files]
        if any(present) and folder == own:
            # Half a data set is damage: saying so beats silently replacing it by a download.
            missing = ", ".join(file for file, there in zip(files, present, strict=True) if not there)
            raise DataError(f"{hint}: {folder} lacks {missing}; put the missing files there.")
    where = f"put {files[0]}{' and its siblings' if len(files) > 1 else ''} into the folder that {DATA_VARIABLE} names"
    if not urls:
        raise DataError(f"{hint} is not here and has no public download: {where}.")
    targets = [cache_root() / file for file in files]
    for url, target in zip(urls, targets, strict=True):
        if not target.is_file():
            fetch(url, target, hint=f"{hint} is not here: {where}, or make {url} reachable")
    return targets


def fetch(url: str, target: Path, *, hint: str) -> None:
    """Download ``url`` to ``target``; the file appears whole or not at all, and a dead network ends in an error.

    Raises:
        DataError: the address cannot be reached, or stops sending; the sentence starts with ``hint``.
    """
    import http.client
    import urllib.request

    from graphsparse.data.checksums import check_sum

    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer,
            atomic_write(target) as partial,
            partial.open("wb") as file,
        ):
            while chunk := answer.read(_CHUNK_BYTES):
                file.write(chunk)
            promised = answer.headers.get("Content-Length")
            if promised is not None and file.tell() != int(promised):
                raise DataError(f"{hint} ({file.tell():,} of {int(promised):,} bytes came).")
            file.flush()
            check_sum(url, partial)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{hint} ({error}).") from error
