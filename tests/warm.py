"""Processes that start at once: forked from a server that has loaded the heavy libraries, and none of graphsparse.

A command takes five seconds of computing to start, nearly all of it for these libraries. Tests of what a command prints
and writes start it here; those of a *fresh* process (what it loads, how it is stopped or killed, how its threads wait)
start one with `subprocess`, as a person does.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from subprocess import CompletedProcess

import pytest

LOADED = ["torch_geometric", "numba", "typer", "rich.console", "sklearn.datasets", "matplotlib.figure", "ogb"]
LONGEST = 300  # seconds


def context() -> ForkServerContext:
    """What `multiprocessing` starts processes with; each has one thread."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(LOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    return found


def command(
    *words: object, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = LONGEST
) -> CompletedProcess[str]:
    """Run ``graphsparse`` with these words, and return its exit status and what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("out", "error")]
        process = context().Process(
            target=_main, args=([str(word) for word in words], outputs, cwd or Path.cwd(), env or dict(os.environ))
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
        status = process.exitcode
        assert status is not None
        out, error = (path.read_bytes().decode() for path in outputs)
    return CompletedProcess(["graphsparse", *words], status, out, error)


def _main(words: list[str], outputs: list[Path], cwd: Path, env: dict[str, str]) -> None:
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = ["graphsparse", *words]
    from graphsparse.cli import main

    main()
