"""How many cores this process may use, and a command that leaves room for what else runs on them.

Nothing here imports torch: OpenMP reads its settings when torch's libraries are loaded, so they are made before.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import MutableMapping
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # either one sets torch's number of threads
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # of GNU's runtime (torch's wheels), and of LLVM's


def usable_cores(process: str | os.PathLike[str] = "/proc/self") -> int:
    """The cores that this process may use: its affinity, and its control group's share of time, rounded up.

    Args:
        process: where the system describes the process; elsewhere than on Linux there is no such folder, and no limit.

    Example:
        >>> 1 <= usable_cores() <= os.cpu_count()
        True
    """
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(count, _share(Path(process)))))


def leave_room(environment: MutableMapping[str, str] | None = None) -> bool:
    """Settle, before torch is loaded, how threads wait and how many there are; what the user has set stays.

    Threads that spin while they wait take the core from the very thread that they wait for as soon as another process
    computes on it; asleep they do not. OpenMP knows affinities and no limits of control groups, so it is told.

    Args:
        environment: of the process, by default ``os.environ``.

    Returns:
        Whether the number of threads is ours to choose: torch is not loaded yet, and the user has set none.
    """
    environment = os.environ if environment is None else environment
    if "torch" in sys.modules:
        return False
    if not any(environment.get(name) for name in WAITING):
        environment.update(OMP_WAIT_POLICY="PASSIVE", KMP_BLOCKTIME="0")
    if any(environment.get(name) for name in THREADS):
        return False
    environment["OMP_NUM_THREADS"] = str(usable_cores())
    return True


def group_folders(process: Path, controller: str) -> list[Path]:
    """The folders of the control groups that a process is in, and of those above them, for one controller.

    Args:
        process: where the system describes the process.
        controller: ``"cpu"`` or ``"memory"``.

    Example:
        >>> group_folders(Path("/no/such/process"), "cpu")
        []
    """
    try:
        groups = (process / "cgroup").read_text().splitlines()
        mounts = (process / "mountinfo").read_text().splitlines()
    except OSError:
        return []
    paths = {}  # "number:controllers:path"; version 2 has number 0 and names no controllers
    for line in groups:
        number, controllers, path = line.split(":", 2)
        if number == "0" or controller in controllers.split(","):
            paths["cgroup2" if number == "0" else "cgroup"] = path
    folders: list[Path] = []
    for line in mounts:
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, *_, options = after.split()
        if kind in paths and (kind == "cgroup2" or controller in options.split(",")):
            parts = _below(paths[kind], _plain(root))
            folders += [Path(_plain(point)).joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return folders


def _share(process: Path) -> float:
    """The smallest limit of the process's control groups and of those above them, in cores."""
    limits = [_limit(folder) for folder in group_folders(process, "cpu")]
    return min((limit for limit in limits if limit is not None), default=math.inf)


def _plain(text: str) -> str:
    """A path of mountinfo, where spaces and the like stand as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _below(path: str, root: str) -> list[str]:
    """The folders below the mount point: a container often sees its own group as the root of the mount."""
    inside = path == root or path.startswith(root.rstrip("/") + "/")
    return [part for part in path[len(root.rstrip("/")) :].split("/") if part] if inside else []


def _limit(folder: Path) -> float | None:
    """The limit of one group: ``cpu.max`` holds quota and period in version 2, two files do in version 1."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = (float(word) for name in names for word in (folder / name).read_text().split())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if quota > 0 and period > 0:  # -1 is no limit
            return quota / period
    return None
