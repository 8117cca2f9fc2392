"""The structure of ogbn-papers100M: its edges, mapped from the disk, without the 53 GB of features beside them."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch_geometric.data import Data

from graphsparse.atomic_write import atomic_write
from graphsparse.cache_folder import cache_root
from graphsparse.data.folders import locate
from graphsparse.errors import DataError

_FILE = "ogb/ogbn_papers100M/raw/data.npz"
_CHUNK_BYTES = 1 << 24


def papers100m_structure(root: str | os.PathLike[str] | None = None) -> Data:
    """The citations of ogbn-papers100M as arcs that are read from the disk when they are used.

    The first call unpacks the edges (25 GB) into the cache (``GRAPHSPARSE_CACHE``), a piece at a time; memory stays
    small. Features and labels are not touched.

    Args:
        root: the data folder, by default the one that ``GRAPHSPARSE_DATA`` names; the file is
            ``ogb/ogbn_papers100M/raw/data.npz`` in it, as OGB packs it.

    Returns:
        ``Data`` with ``edge_index`` int64 [2, E], mapped from a file, and ``num_nodes``.

    Raises:
        DataError: the file is missing or damaged, or holds no edges; or an edge names a node that is not there.

    Source: Hu et al., "Open Graph Benchmark", NeurIPS 2020.
    """
    (packed,) = locate([_FILE], root=root, urls=[], hint="ogbn-papers100M")
    stat = packed.stat()
    target = cache_root() / "ogb" / f"papers100M-edges-{stat.st_size}-{stat.st_mtime_ns}.npy"
    try:
        if not target.is_file():
            _unpack(packed, target)
        with zipfile.ZipFile(packed) as archive, archive.open("num_nodes_list.npy") as member:
            num_nodes = int(np.lib.format.read_array(member, allow_pickle=False).sum())
        edges = np.load(target, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{packed} is damaged or not OGB's binary file ({error}).") from error
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype != np.int64:
        raise DataError(f"{packed} holds edges of {edges.dtype} {list(edges.shape)}, not of int64 [2, E].")
    _check_ids(edges, num_nodes, packed)
    return Data(edge_index=torch.from_numpy(edges), num_nodes=num_nodes)


def _unpack(packed: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        zipfile.ZipFile(packed) as archive,
        archive.open("edge_index.npy") as member,
        atomic_write(target) as partial,
        partial.open("wb") as file,
    ):
        shutil.copyfileobj(member, file, _CHUNK_BYTES)


def _check_ids(edges: npt.NDArray[np.int64], num_nodes: int, packed: Path) -> None:
    step = _CHUNK_BYTES
    for begin in range(0, edges.shape[1], step):
        part = edges[:, begin : begin + step]
        if part.min() < 0 or part.max() >= num_nodes:
            raise DataError(f"{packed} names node {part.min() if part.min() < 0 else part.max()} of {num_nodes:,}.")
