"""Commands that are killed at random moments and given again: is the result that of an undisturbed run?

    python benchmarks/kills.py [--kills 50] [--only ticket,bench] [--seed 0]    # a table, and results/kills.json

Every job is run once undisturbed. Then it is started in fresh folders, killed (SIGKILL, the main process alone, so that
its workers have to notice by themselves) up to three times at moments drawn uniformly from the time that it takes, and
at last left to end. After each kill no process may be left, and whatever lies in the folder under its final name must
be whole; at the end the result must be the undisturbed one, and no temporary file may be left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from common import RESULTS, provenance, write_json
from pyarrow import parquet
from rich.console import Console
from rich.markdown import Markdown
from safetensors import safe_open

from graphsparse.report import markdown

COMMAND = (sys.executable, "-m", "graphsparse")
KILLS_A_FOLDER = 3
GRACE = 15.0  # seconds that workers have to notice that their parent is gone

SPARSE_TRAINING = """
import sys
import torch
import graphsparse as gs

data = gs.data.load("digits-knn")
torch.manual_seed(0)
net = gs.nn.GCN(data.num_features, 64, data.num_classes)
projection = gs.params.L0Projection(net, sparsity=0.9)
task, checkpoint = gs.fit.NodeTask.of(data), sys.argv[1] + "/checkpoint"
result = gs.fit.fit(net, task, epochs=400, callbacks=[projection], checkpoint=checkpoint)
from pathlib import Path
from safetensors.torch import save_file
from graphsparse.atomic_write import atomic_write

with atomic_write(Path(sys.argv[1], "weights.safetensors")) as file:
    save_file({name: value.contiguous() for name, value in result.state.items()}, file)
"""


@dataclass(frozen=True)
class Job:
    """A command with its folder of results.

    Attributes:
        command: its words; ``{out}`` is the folder, ``{made}`` that of what other jobs made before.
        result: what must be the same in every run, from the folder.
    """

    command: tuple[str, ...]
    result: Callable[[Path], Any]


def digest(*patterns: str) -> Callable[[Path], Any]:
    """The bytes of the files of these names."""

    def of(folder: Path) -> Any:
        files = sorted(file for pattern in patterns for file in folder.glob(pattern))
        return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    return of


def tickets(folder: Path) -> Any:
    """The tickets' hashes, with their figures."""
    found = [json.loads(file.read_text()) for file in sorted(folder.rglob("ticket.json"))]
    return [(one["hash"], one["metrics"]["test"], one["metrics"]["val"]) for one in found]


def rows(folder: Path) -> Any:
    """Every row of a comparison without what it took in time."""
    lines = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return sorted(
        [row["method"], row["seed"], row["level"], row["test"], row["val"], row.get("ticket")] for row in lines
    )


def command(*words: str) -> tuple[str, ...]:
    """One of the package's own commands."""
    return (*COMMAND, *words)


JOBS = {
    "ticket": Job(
        command("ticket", "--seeds", "1", "--epochs", "60", "--hidden", "16", "--points", "1", "--out", "{out}"),
        tickets,
    ),
    "bench": Job(
        command(
            *("bench", "tickets", "--dataset", "digits-knn", "--hidden", "8", "--method", "teddy,random"),
            *("--level", "10", "--seeds", "2", "--epochs", "60", "--trials", "1", "--jobs", "2", "--out", "{out}"),
        ),
        rows,
    ),
    "zoo": Job(
        command("meta", "zoo", "--count", "4", "--width", "4", "--epochs", "2", "--jobs", "2", "--out", "{out}"),
        digest("*/*.safetensors"),
    ),
    "train": Job(
        command(
            *("meta", "train", "--zoo", "{made}/zoo", "--hidden", "8", "--layers", "2", "--epochs", "3"),
            *("--steps", "4", "--val-count", "1", "--out", "{out}/metanet.safetensors"),
        ),
        digest("metanet.safetensors"),
    ),
    "prune": Job(
        command(
            *("meta", "prune", "--zoo", "{made}/zoo", "--metanet", "{made}/train/metanet.safetensors"),
            *("--speedup", "2", "--criterion", "group-l2", "--epochs", "1", "--out", "{out}"),
        ),
        digest("**/*.safetensors"),
    ),
    "sparse training": Job((sys.executable, "-c", SPARSE_TRAINING, "{out}"), digest("weights.safetensors")),
    "sparsify": Job(
        command("sparsify", "{made}/edges.csv", "{out}/fewer.csv", "--keep", "0.5", "--undirected"), digest("fewer.csv")
    ),
    "out of core": Job(
        command("sparsify", "{made}/parts", "{out}/fewer", "--keep", "0.5", "--undirected"), digest("fewer/*.parquet")
    ),
    "out of core, in processes": Job(
        command("sparsify", "{made}/parts", "{out}/fewer", "--keep", "0.5", "--undirected", "--workers", "2"),
        digest("fewer/*.parquet"),
    ),
}


def prepare(made: Path) -> None:
    """A table of 400,000 edges for the job that sparsifies, and the same in ten parts."""
    draw = random.Random(0)
    drawn = ((draw.randrange(50_000), draw.randrange(50_000)) for _ in range(400_000))
    pairs = dict.fromkeys((min(pair), max(pair)) for pair in drawn if pair[0] != pair[1])
    (made / "edges.csv").write_text("src,dst\n" + "".join(f"{a},{b}\n" for a, b in pairs))
    (made / "parts").mkdir()
    ends = np.array(list(pairs))
    for number, part in enumerate(np.array_split(ends, 10)):
        table = pa.table({"src": part[:, 0], "dst": part[:, 1]})
        parquet.write_table(table, made / "parts" / f"part-{number}.parquet", row_group_size=10_000)


def start(job: Job, out: Path, made: Path) -> subprocess.Popen[str]:
    """The job's process in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    words = [word.replace("{out}", str(out)).replace("{made}", str(made)) for word in job.command]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def to_the_end(job: Job, out: Path, made: Path) -> float:
    """Run the job until it ends; returns the seconds that it took."""
    begun = time.monotonic()
    process = start(job, out, made)
    _, error = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(job.command)} ended with {process.returncode}:\n{error}")
    return time.monotonic() - begun


def kill_once(job: Job, out: Path, made: Path, moment: float) -> tuple[bool, int]:
    """Start the job and kill it after ``moment`` seconds: whether it still ran, and how many processes outlived it."""
    process = start(job, out, made)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate()
        return True, len(psutil.wait_procs(children, timeout=GRACE)[1])
    process.communicate()
    return False, 0


def half_written(folder: Path) -> list[str]:
    """The files under their final names that are not whole."""
    return [str(file) for file in folder.rglob("*") if file.is_file() and not hidden(file, folder) and not whole(file)]


def hidden(file: Path, folder: Path) -> bool:
    """Whether it is a temporary file or a lock."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def whole(file: Path) -> bool:
    """Whether a file reads as what its name says."""
    try:
        match file.suffix:
            case ".json":
                json.loads(file.read_text())
            case ".jsonl":
                text = file.read_text()
                return text.endswith("\n") and all(json.loads(line) for line in text.splitlines())
            case ".safetensors":
                with safe_open(file, "pt") as held:
                    for name in held.keys():  # noqa: SIM118  (it is no dict)
                        held.get_tensor(name)
            case ".parquet":
                parquet.read_table(file)
            case ".csv":
                return file.read_bytes().endswith(b"\n")
            case ".png":
                return file.read_bytes().endswith(b"IEND\xaeB`\x82")
    except Exception:
        return False
    return file.stat().st_size > 0


def study(name: str, kills: int, draw: random.Random, made: Path, console: Console) -> dict[str, Any]:
    """Kill one job ``kills`` times; returns what was seen."""
    job, seen = JOBS[name], {"job": name, "kills": 0, "folders": 0, "processes left": 0, "half-written": 0, "other": 0}
    seconds = to_the_end(job, made / name, made)
    right = job.result(made / name)
    if not right:
        raise SystemExit(f"{name}: its undisturbed run left no result in {made / name}")
    while seen["kills"] < kills:
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch)
            for _ in range(min(KILLS_A_FOLDER, kills - seen["kills"])):
                hit, left = kill_once(job, out, made, draw.uniform(0, seconds))
                seen["kills"] += hit
                seen["processes left"] += left
                torn = half_written(out)
                seen["half-written"] += len(torn)
                for file in torn:
                    console.print(f"{name}: {file} is half-written", style="red", highlight=False)
            to_the_end(job, out, made)
            seen["folders"] += 1
            left_over = [file for file in out.rglob(".*") if file.is_file() and file.name.count(".") > 1]
            if job.result(out) != right or left_over:
                seen["other"] += 1
                console.print(f"{name}: {job.result(out)} is not {right}; left over: {left_over}", highlight=False)
    console.print(f"{name}: {seen}", highlight=False)
    return {**seen, "undisturbed, s": round(seconds, 1)}


def run(kills: int, names: Sequence[str], seed: int, console: Console) -> Iterator[dict[str, Any]]:
    """Kill the jobs, in turn and as often each, ``kills`` times in all; what was seen of each."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        prepare(made)
        for needed in ("zoo", "train"):  # what later jobs read
            if needed not in names and {"train", "prune"} & set(names):
                to_the_end(JOBS[needed], made / needed, made)
        shares = [kills // len(names) + (number < kills % len(names)) for number in range(len(names))]
        draw = random.Random(seed)
        for name, share in zip(names, shares, strict=True):
            yield study(name, share, draw, made, console)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", help="names of jobs, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    console = Console()
    names = list(JOBS) if arguments.only is None else arguments.only.split(",")
    found, about = [], {**provenance("kills"), "seed": arguments.seed}
    for seen in run(arguments.kills, names, arguments.seed, console):  # written job by job: it takes long
        found.append(seen)
        write_json(RESULTS / "kills.json", {**about, "jobs": found})
    console.print(Markdown(markdown(list(found[0]), [[str(value) for value in one.values()] for one in found])))
    sys.exit(any(one[fault] for one in found for fault in ("processes left", "half-written", "other")))


if __name__ == "__main__":
    main()
