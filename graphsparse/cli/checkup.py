"""What ``graphsparse doctor`` looks at: each check says how it stands and, where something is amiss, what to do."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from graphsparse import __version__
from graphsparse.cores import THREADS, WAITING, usable_cores

NEEDED = (
    "torch", "torch_geometric", "numpy", "scipy", "networkx", "numba", "pandas", "sklearn", "matplotlib", "safetensors",
    "torch_pruning", "ot", "typer", "rich",
)  # fmt: skip
OPTIONAL = {  # module -> what it is for, and how to come by it
    "pyarrow": ("Parquet and Feather files, out-of-core graphs", 'pip install "graphsparse[scale]"'),
    "dask": ("graphs on a cluster", 'pip install "graphsparse[scale]"'),
    "pyg_lib": ("faster samples of neighbours", "see pytorch-geometric.readthedocs.io for the wheel of your torch"),
    "tensorboard": ("logs of training, gs.fit.fit(..., tensorboard=DIR)", 'pip install "graphsparse[tensorboard]"'),
    "zstandard": ("graph files that are packed as .zst", "pip install zstandard"),
}
OF_DISTRIBUTIONS = {"sklearn": "scikit-learn", "ot": "POT"}  # where a module's package has another name
LEAST_FREE = 2 << 30  # bytes: less and checkpoints or a download may fill the disk


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        group: "versions", "devices", "threads", "disk", "data" or "optional".
        name: of what.
        state: "ok", "note" (works, but something could be better) or "broken" (something needed does not work).
        found: what was found.
        advice: what to do; empty where all is well.
    """

    group: str
    name: str
    state: str
    found: str
    advice: str = ""


def checks() -> Iterator[Check]:
    """All checks, one after the other."""
    yield Check("versions", "graphsparse", "ok", __version__)
    yield Check("versions", "python", "ok", f"{platform.python_version()} on {platform.platform()}")
    broken = False
    for name in NEEDED:
        yield (check := _needed(name))
        broken = broken or check.state == "broken"
    if not broken:
        yield from _devices()
    yield from _threads()
    yield from _disk()
    if not broken:
        yield from _data()
    for name, (use, how) in OPTIONAL.items():
        yield _optional(name, use, how)


def _needed(name: str) -> Check:
    package = OF_DISTRIBUTIONS.get(name, name.replace("_", "-"))
    try:
        importlib.import_module(name)
        return Check("versions", package, "ok", _version(package))
    except Exception as error:  # whatever an import can raise: a missing library, a clash of binaries
        said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        advice = f"pip install -c constraints.txt --force-reinstall {package}"
        return Check("versions", package, "broken", f"cannot be imported ({said:.120})", advice)


def _optional(name: str, use: str, how: str) -> Check:
    if importlib.util.find_spec(name) is None:
        return Check("optional", name, "note", f"not installed; it is for {use}", how)
    return Check("optional", name, "ok", f"{_version(name.replace('_', '-'))}; for {use}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "installed"


def _devices() -> Iterator[Check]:
    import torch

    yield Check("devices", "cpu", "ok", f"{torch.backends.cpu.get_cpu_capability()}")
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        advice = "" if torch.version.cuda is None else "if there is a GPU, look at its driver: nvidia-smi"
        yield Check("devices", "cuda", "note", f"no GPU here ({built})", advice)
        return
    for number in range(torch.cuda.device_count()):
        at = torch.cuda.get_device_properties(number)
        yield Check("devices", f"cuda:{number}", "ok", f"{at.name}, {at.total_memory / 2**30:.0f} GiB; --device cuda")


def _threads() -> Iterator[Check]:
    usable, there = usable_cores(), os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    limit = f"; affinity allows {affinity}" if affinity < there else ""
    limit += "; a limit of the control group allows fewer" if usable < affinity else ""
    yield Check("threads", "cores", "ok", f"{usable} of {there} usable{limit}")
    for name in (*THREADS, *WAITING):
        if not (value := os.environ.get(name)):
            continue
        if name in THREADS and value.isdigit() and int(value) > usable:
            yield Check("threads", name, "note", f"{value}, more than the {usable} cores", f"export {name}={usable}")
        else:
            yield Check("threads", name, "ok", value)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > usable:
        yield Check("threads", "load", "note", f"{load:.1f} processes on {usable} cores", "times will vary")


def _disk() -> Iterator[Check]:
    from graphsparse.cache_folder import cache_root

    try:
        cache = cache_root()
    except RuntimeError:  # no home folder is known
        yield Check("disk", "cache", "broken", "there is no home folder", "export GRAPHSPARSE_CACHE=/some/folder")
        return
    above = next(folder for folder in (cache, *cache.parents) if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        advice = "export GRAPHSPARSE_CACHE=/a/folder/of/yours"
        yield Check("disk", "cache", "broken", f"{cache} cannot be written", advice)
    else:
        yield Check("disk", "cache", "ok", f"{cache}{'' if cache.exists() else ' (made when it is needed)'}")
    for name, folder in (("free for the cache", above), ("free here", Path.cwd())):
        free = shutil.disk_usage(folder).free
        state, advice = ("ok", "") if free >= LEAST_FREE else ("note", "make room before a long run or a download")
        yield Check("disk", name, state, f"{free / 2**30:.1f} GiB", advice)


def _data() -> Iterator[Check]:
    from graphsparse.data.folders import DATA_VARIABLE, data_root
    from graphsparse.data.whereabouts import all_data
    from graphsparse.errors import DataError

    try:
        root = data_root()
        told = f"{root}" if root is not None else "not set: data sets are downloaded into the cache when asked for"
        yield Check("data", DATA_VARIABLE, "ok", told)
    except DataError as error:
        yield Check("data", DATA_VARIABLE, "broken", str(error), f"export {DATA_VARIABLE}=/the/folder, or unset it")
        return
    for each in all_data():
        yield Check("data", each.name, "ok" if each.here else "note", "here" if each.here else "missing", each.advice)
