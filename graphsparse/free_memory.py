"""How much memory a process may still take, how much it has taken, and sizes as people write them."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from graphsparse.cores import group_folders

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([kmgt]i?|)b?\s*", re.IGNORECASE)


def memory_size(size: int | float | str, name: str = "memory") -> int:
    """Read a number of bytes: ``4_000_000_000``, ``"4GB"``, ``"512 MiB"``.

    Raises:
        ValueError: it is no size, or not positive.
        TypeError: it is no number and no text.

    Example:
        >>> memory_size("4GB"), memory_size("1.5 KiB"), memory_size(100)
        (4000000000, 1536, 100)
    """
    if isinstance(size, bool) or not isinstance(size, (int, float, str)):
        raise TypeError(f"{name} must be a number of bytes or a text such as '4GB', got {type(size).__name__}")
    found = _SIZE.fullmatch(str(size))
    bytes_ = 0.0
    if found and (unit := found[2].lower()) in UNITS:
        bytes_ = float(found[1]) * UNITS[unit]
    elif isinstance(size, float):
        bytes_ = size
    if not 1 <= bytes_ < float("inf"):
        raise ValueError(f"{name} must be a number of bytes or a text such as '4GB', got {size!r:.50}")
    return int(bytes_)


def free_memory(
    process: str | os.PathLike[str] = "/proc/self", machine: str | os.PathLike[str] = "/proc/meminfo"
) -> int:
    """Bytes that this process may still take: what the machine has left, and what its control groups leave it.

    Args:
        process: where the system describes the process.
        machine: where it describes the machine's memory; elsewhere than on Linux there is none, and 4 GB are taken.

    Example:
        >>> free_memory() > 0
        True
    """
    left = [4 * 10**9]
    with suppress(OSError, ValueError, IndexError, StopIteration):
        lines = Path(machine).read_text().splitlines()
        left = [1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])]
    for folder in group_folders(Path(process), "memory"):
        left += [found for found in (_left(folder),) if found is not None]
    return max(0, min(left))


def taken_memory() -> int:
    """Bytes of memory that this process holds now; 0 where the system does not say.

    Example:
        >>> taken_memory() >= 0
        True
    """
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _left(folder: Path) -> int | None:
    """What a control group leaves: its limit less what it holds, of which cached files can be given up."""
    for limit, use in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        try:
            most, held = int((folder / limit).read_text()), int((folder / use).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        with suppress(OSError, ValueError, IndexError):
            for line in (folder / "memory.stat").read_text().splitlines():
                if line.split()[0] in ("inactive_file", "total_inactive_file"):
                    held -= int(line.split()[1])
                    break
        return max(0, most - max(0, held))
    return None
