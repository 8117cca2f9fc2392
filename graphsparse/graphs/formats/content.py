"""The bytes of text files, packed or not, and lines of them that stay as they are."""

from __future__ import annotations

import gzip
import importlib
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from graphsparse.untrusted import most_unpacked, read_bytes

PACKINGS = (".gz", ".zst")
_LARGEST_WINDOW = 128 << 20  # bytes that unpacking .zst may hold at once, whatever the file asks for


def inner_suffix(path: Path) -> str:
    """The suffix that tells the kind of a file, before ``.gz`` or ``.zst``.

    Example:
        >>> inner_suffix(Path("a/edges.CSV.gz"))
        '.csv'
    """
    return Path(path.stem if path.suffix.lower() in PACKINGS else path.name).suffix.lower()


def read_content(path: Path) -> bytes:
    """The content of a regular file, unpacked where its name ends in ``.gz`` or ``.zst``.

    Raises:
        ValueError: it unpacks into more than it can mean, or is no packed file or a damaged one.
        ModuleNotFoundError: nothing here unpacks ``.zst``.
        OSError: it cannot be read.
    """
    content = read_bytes(path)
    packing = path.suffix.lower()
    if packing not in PACKINGS:
        return content
    most = most_unpacked(len(content))
    name = "gzip" if packing == ".gz" else "zstd"
    try:
        text = _ungzipped(content, most) if packing == ".gz" else _unzstd(content, most)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # each library has errors of its own kind
        raise ValueError(f"it is no {name} file, or a damaged one ({error})") from error
    if len(text) > most:
        raise ValueError(f"its {len(content):,} bytes unpack into more than {most:,}")
    return text


def write_content(path: Path, pieces: Iterable[bytes]) -> None:
    """Write pieces of a file, packed as its name ends (without a time: equal content, equal bytes)."""
    packing = path.suffix.lower()
    with path.open("wb") as file:
        if packing == ".gz":
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                packed.writelines(pieces)
        elif packing == ".zst":
            file.write(_zstd(b"".join(pieces)))
        else:
            file.writelines(pieces)


def _ungzipped(content: bytes, most: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
        return packed.read(most + 1)


def _unzstd(content: bytes, most: int) -> bytes:
    if not content:
        raise ValueError("it is empty")
    library, own = zstd_library()
    if own:  # Python 3.14's own
        options = {library.DecompressionParameter.window_log_max: _LARGEST_WINDOW.bit_length() - 1}
        with library.ZstdFile(io.BytesIO(content), options=options) as packed:
            found: bytes = packed.read(most + 1)
        return found
    unpacker = library.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    pieces, size, at = [], 0, 0
    frame = unpacker.decompressobj()
    while at < len(content) and size <= most:
        taken = content[at : at + 1024]  # such a piece unpacks into 34 MB at most
        pieces.append(frame.decompress(taken))
        size += len(pieces[-1])
        at += len(taken) - len(frame.unused_data)
        if frame.eof and at < len(content):
            frame = unpacker.decompressobj()
    if size <= most and not frame.eof:
        raise ValueError("it ends within a frame")
    return b"".join(pieces)


def _zstd(content: bytes) -> bytes:
    library, own = zstd_library()
    packed: bytes = library.compress(content) if own else library.ZstdCompressor().compress(content)
    return packed


def zstd_library() -> tuple[Any, bool]:
    """What packs zstd here, and whether it is Python's own (from 3.14 on)."""
    if sys.version_info >= (3, 14):
        return importlib.import_module("compression.zstd"), True
    try:
        return importlib.import_module("zstandard"), False
    except ModuleNotFoundError:
        raise ModuleNotFoundError('.zst files need zstandard: pip install "graphsparse[scale]"') from None
