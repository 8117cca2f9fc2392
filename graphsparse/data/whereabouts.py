"""Where the files of a data set are, and where they are to be had; nothing is read and nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graphsparse.cache_folder import cache_root
from graphsparse.data.catalogue import DATASETS
from graphsparse.data.checksums import known_sum, sum_of
from graphsparse.data.folders import DATA_VARIABLE, announced, data_root
from graphsparse.data.images import IMAGES
from graphsparse.errors import DataError


@dataclass(frozen=True)
class Whereabouts:
    """Of one data set.

    Attributes:
        name: as `graphsparse.data.load` (or ``load_images``) knows it.
        kind: "graph" or "images".
        about: what it is.
        files: paths relative to a data folder; none of what comes with a library.
        urls: one address for each, or none where it is not offered.
        folder: where it is; None where it is missing.
        missing: the files that are not there.
    """

    name: str
    kind: str
    about: str
    files: list[str]
    urls: list[str]
    folder: Path | None
    missing: list[str]

    @property
    def here(self) -> bool:
        """Whether it can be loaded without a network."""
        return not self.missing

    @property
    def advice(self) -> str:
        """How to come by it, in a sentence; empty where it is here."""
        if self.here:
            return ""
        more = f" and {len(self.missing) - 1} more" if len(self.missing) > 1 else ""
        where = f"put {self.missing[0]}{more} into the folder that {DATA_VARIABLE} names"
        return f"graphsparse data fetch {self.name}, or {where}" if self.urls else where

    def checks(self) -> dict[str, str]:
        """For each file that is here ``"as published"``, ``"another than published"`` or ``"no checksum known"``."""
        found = {}
        for file, url in zip(self.files, self.urls, strict=True):
            path = None if self.folder is None else self.folder / file
            if path is not None and path.is_file():
                known = known_sum(url)
                same = known is not None and sum_of(path, known.partition(":")[0]) == known
                found[file] = "no checksum known" if known is None else f"{'as' if same else 'another than'} published"
        return found


def find_data(name: str) -> Whereabouts:
    """Where a data set is, by its name.

    Raises:
        ValueError: there is none of that name; the sentence names those that there are.

    Example:
        >>> find_data("digits-knn").here
        True
    """
    images = DATASETS.spelled(name) is None and IMAGES.spelled(name) is not None
    key = IMAGES.key(name) if images else DATASETS.key(name)
    read = IMAGES.find(key) if images else DATASETS.find(key).read
    about = (read.__doc__ or "").strip().partition("\n")[0] if images else DATASETS.find(key).about
    found = announced(read)
    kind = "images" if images else "graph"
    if found is None:
        return Whereabouts(key, kind, about, [], [], None, [])
    try:
        own = data_root()
    except DataError:  # the folder that is named is not there
        own = None
    folders = [folder for folder in (own, cache_root()) if folder is not None]
    for folder in folders:
        other = next((file for file in found.instead if (folder / file).exists()), None)
        if other is not None or all((folder / file).exists() for file in found.files):
            return Whereabouts(key, kind, about, found.files, found.urls, folder, [])
    place = folders[0]
    missing = [file for file in found.files if not (place / file).exists()]
    return Whereabouts(key, kind, about, found.files, found.urls, None, missing)


def all_data() -> list[Whereabouts]:
    """Every data set that has a name: graphs first, then images."""
    graphs = [find_data(name) for name in DATASETS.names()]
    return graphs + [find_data(name) for name in IMAGES.names() if DATASETS.spelled(name) is None]
