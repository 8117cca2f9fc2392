"""The bytes of text files, gzipped or not, and lines of them that stay as they are."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable
from pathlib import Path

from graphsparse.untrusted import most_unpacked, read_bytes


def read_content(path: Path) -> bytes:
    """The content of a regular file, unpacked where its name ends in ``.gz``.

    Raises:
        ValueError: it unpacks into more than it can mean, or is no gzip file or a damaged one.
        OSError: it cannot be read.
    """
    content = read_bytes(path)
    if path.suffix.lower() != ".gz":
        return content
    most = most_unpacked(len(content))
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            text = packed.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"it is no gzip file, or a damaged one ({error})") from error
    if len(text) > most:
        raise ValueError(f"its {len(content):,} bytes unpack into more than {most:,}")
    return text


def write_content(path: Path, pieces: Iterable[bytes]) -> None:
    """Write pieces of a file, packed where its name ends in ``.gz`` (without a time: equal content, equal bytes)."""
    with path.open("wb") as file:
        if path.suffix.lower() != ".gz":
            file.writelines(pieces)
            return
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            packed.writelines(pieces)
