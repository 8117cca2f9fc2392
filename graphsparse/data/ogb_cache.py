"""How OGB's data set classes are fed: from a folder of our own that they find complete, so they never ask or download.

What ogb 1.3.6 does otherwise: it asks with ``input()`` when a release file is missing or a download is large, exits the
process on "no", loads split files that today's ``torch.load`` refuses, and looks for its newest version in a thread.
None of its code is patched for that: the folder simply holds what it looks for.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphsparse.cache_folder import cache_root
from graphsparse.data.folders import DATA_VARIABLE, announce, fetch
from graphsparse.data.ogb_checks import check_processed, check_splits
from graphsparse.data.ogb_classes import Meta, OgbClasses
from graphsparse.data.unpickle import load_torch
from graphsparse.errors import DataError

REBUILT = "-rebuilt"
_MANIFEST = "source.json"
_PROCESSED = "processed/geometric_data_processed.pt"


def open_dataset(name: str, meta: Meta, classes: OgbClasses, root: Path | None) -> tuple[Any, dict[str, Any]]:
    """Return OGB's data set and its splits, from the cache where that is up to date.

    Args:
        name: the task, such as ``"ogbg-molhiv-rebuilt"``.
        meta: its row of OGB's table.
        classes: what OGB offers for its kind.
        root: the data folder, or None.

    Raises:
        DataError: files are missing, damaged, or do not fit together.
    """
    folder = name.replace("-", "_")
    announce([f"ogb/{folder}"], [] if name.endswith(REBUILT) else [meta["url"]])
    cached = cache_root() / "ogb" / folder
    source = _find_source(folder, root)
    missing = [] if source is None else _missing_files(source, meta, classes.kind)
    if source is not None and not missing:
        if _read_manifest(cached) != _manifest_of(source):
            _build(cached, source, meta, classes, take=_link)
    elif _read_manifest(cached) is None:
        if source is not None:
            raise DataError(
                f"{name}: {source} has no {', '.join(missing)}; put the complete files into ogb/{folder} of the folder "
                f"that {DATA_VARIABLE} names."
            )
        if name.endswith(REBUILT):
            raise DataError(
                f"{name} is not here and not offered anywhere; put its files into ogb/{folder} of the folder that "
                f"{DATA_VARIABLE} names."
            )
        with _downloaded(name, folder, meta, classes.kind) as fresh:
            _build(cached, fresh, meta, classes, take=shutil.move)
    try:
        return _open(cached, meta, classes)
    except Exception as error:
        if source is None or missing:
            raise DataError(f"{cached} is damaged ({error}); delete it and load {name} again.") from error
    _build(cached, source, meta, classes, take=_link)
    return _open(cached, meta, classes)


def _find_source(folder: str, root: Path | None) -> Path | None:
    """Find the task in the data folder; a ``_partial`` one is found too, to say what it lacks."""
    if root is None:
        return None
    candidates = [root / "ogb" / folder, root / "ogb" / f"{folder}_partial"]
    return next((candidate for candidate in candidates if candidate.is_dir()), None)


def _missing_files(source: Path, meta: Meta, kind: str) -> list[str]:
    """List what OGB's class would look for and not find."""
    if meta.get("binary") == "True":
        needed = ["raw/data.npz"] + ([f"raw/{kind}-label.npz"] if kind != "link" else [])
    else:
        parts = ["edge", "num-node-list", "num-edge-list"]
        parts += ["node-feat"] if meta["has_node_attr"] == "True" else []
        parts += ["edge-feat"] if meta["has_edge_attr"] == "True" else []
        parts += [f"{kind}-label"] if kind != "link" else []
        needed = [f"raw/{part}.csv.gz" for part in parts]
    needed += [f"split/{meta['split']}"]
    return [file for file in needed if not (source / file).exists()]


def _source_files(source: Path) -> list[Path]:
    """List the files that count, relative to ``source``; what others have processed does not."""
    found = [path for part in ("raw", "split", "mapping") for path in (source / part).rglob("*") if path.is_file()]
    return sorted(path.relative_to(source) for path in found)


def _manifest_of(source: Path) -> dict[str, list[int]]:
    """Describe the source well enough to notice another one."""
    stats = {file.as_posix(): (source / file).stat() for file in _source_files(source)}
    return {file: [stat.st_size, stat.st_mtime_ns] for file, stat in stats.items()}


def _read_manifest(cached: Path) -> Any:
    """Return what a complete cache entry was made from; None where there is none."""
    try:
        return json.loads((cached / _MANIFEST).read_text())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def _downloaded(name: str, folder: str, meta: Meta, kind: str) -> Iterator[Path]:
    """Yield the folder of a fresh download from OGB's address, without OGB's question about its size."""
    import zipfile

    hint = f"{name} is not here: put it into ogb/{folder} of the folder that {DATA_VARIABLE} names, or make "
    hint += f"{meta['url']} reachable"
    parent = cache_root() / "ogb"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder}.download.", dir=parent) as scratch:
        archive = Path(scratch) / "archive.zip"
        fetch(meta["url"], archive, hint=hint)
        try:
            with zipfile.ZipFile(archive) as content:
                content.extractall(scratch)
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise DataError(f"{meta['url']} is no zip archive ({error}).") from error
        archive.unlink()
        source = Path(scratch) / meta["download_name"]
        missing = _missing_files(source, meta, kind)
        if missing:
            raise DataError(f"{meta['url']} has no {', '.join(missing)}.")
        yield source


def _link(source: Path, target: Path) -> None:
    """Link a file of the data folder into the cache, or copy it where links are not allowed."""
    try:
        target.symlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _build(
    cached: Path, source: Path, meta: Meta, classes: OgbClasses, *, take: Callable[[Path, Path], object]
) -> None:
    """Process ``source`` beside the cache entry and rename the whole into place: it is complete or not there.

    Args:
        cached: the cache entry to make or to replace.
        source: a folder with all of :func:`_missing_files`.
        meta: the task's row of OGB's table.
        classes: what OGB offers for its kind.
        take: brings one raw file from the source to its place.

    Raises:
        DataError: OGB's class cannot process the files, or the result does not fit them.
    """
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{cached.name}.", dir=cached.parent) as scratch:
        built = Path(scratch) / "built"
        built.mkdir()
        manifest = _manifest_of(source)
        for file in _source_files(source):
            (built / file).parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".pt":
                # Read through the allow-list and written anew as tensors, which OGB's torch.load accepts.
                torch.save(_as_tensors(load_torch(source / file)), built / file)
            elif file.parts[0] == "raw":
                take(source / file, built / file)
            else:
                # Small, and read at every load: a link would die with the data folder.
                shutil.copyfile(source / file, built / file)
        (built / f"RELEASE_v{meta['version']}.txt").touch()
        try:
            with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
                # Newer pandas hands out read-only arrays; nothing writes to these tensors before they are saved.
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                dataset, splits = _open(built, meta, classes)
            check_processed(dataset, built, classes.kind, meta)
            check_splits(dataset, splits, classes.kind)
        except DataError as error:
            raise DataError(f"{source}: {error}") from error
        except Exception as error:
            raise DataError(f"{source} cannot be processed ({type(error).__name__}: {error}).") from error
        for note in ("pre_transform.pt", "pre_filter.pt"):
            # PyG reads these two with weights_only=False; without them it does not.
            (built / "processed" / note).unlink(missing_ok=True)
        (built / _MANIFEST).write_text(json.dumps(manifest))
        _put_in_place(built, cached, Path(scratch) / "replaced")


def _put_in_place(built: Path, cached: Path, replaced: Path) -> None:
    """Rename ``built`` to ``cached``; another process that was faster with the same files wins."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(cached, replaced)
    try:
        os.rename(built, cached)
    except OSError:
        if _read_manifest(cached) != _read_manifest(built):
            raise


def _as_tensors(content: Any) -> Any:
    """Replace every numpy array in nested dicts and lists by a tensor."""
    if isinstance(content, dict):
        return {key: _as_tensors(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_as_tensors(value) for value in content]
    return torch.from_numpy(content.copy()) if isinstance(content, np.ndarray) else content


def _open(folder: Path, meta: Meta, classes: OgbClasses) -> tuple[Any, dict[str, Any]]:
    """Let OGB's class load (and first process) a folder that holds all it looks for."""

    class Offline(classes.dataset):  # type: ignore[misc, name-defined]
        """OGB's class, which finds everything in place."""

        def download(self) -> None:
            """Do nothing when a link to a raw file is dead but the processed file is here."""
            if not (folder / _PROCESSED).is_file():
                raise DataError(f"{folder} has lost its raw files; delete it.")

    Offline.__name__ = classes.dataset.__name__
    with _safe_pyg_classes():
        dataset = Offline(name="", meta_dict={**meta, "dir_path": str(folder)})
        splits = dataset.get_edge_split() if classes.kind == "link" else dataset.get_idx_split()
    return dataset, splits


@contextlib.contextmanager
def _safe_pyg_classes() -> Iterator[None]:
    """Let ``torch.load(weights_only=True)`` read PyG's containers for the length of the block.

    Only classes that are not allowed already are added: on leaving, ``safe_globals`` takes away what it was given, and
    newer PyG versions have allowed these classes for good.
    """
    from torch_geometric.data import Data
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import BaseStorage, GlobalStorage

    number: Any = np.int64(0).__reduce__()[0]  # how a number of nodes in OGB's binary files is pickled
    plain = [number, np.dtype, type(np.dtype(np.int64))]
    wanted = [Data, DataEdgeAttr, DataTensorAttr, BaseStorage, GlobalStorage, *plain]
    known = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals([each for each in wanted if each not in known]):
        yield
