"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` (with its suffix); rename it to ``target`` on success, else remove it.

    The content reaches the disk before the new name does, so that a crash leaves the old file or the new one.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(Path(folder) / "a.txt") as partial:
        ...         _ = partial.write_text("all of it")
        ...     [path.name for path in Path(folder).iterdir()]
        ['a.txt']
    """
    partial = target.with_name(f".{uuid.uuid4().hex}.{target.name}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
