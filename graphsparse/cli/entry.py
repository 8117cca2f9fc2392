"""The program: it runs the command that was typed, and says errors, warnings and interruptions in one line each."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Any

from rich.console import Console
from rich.text import Text

from graphsparse.cli.groups import Interrupted, app
from graphsparse.cli.state import STATE
from graphsparse.cores import leave_room
from graphsparse.errors import GraphsparseError
from graphsparse.stopping import stoppable

RESUMING = ("ticket", "meta", "bench", "sparse")  # go on where they were stopped; others write all or nothing
MENDABLE = (GraphsparseError, ValueError, TypeError, OSError, MemoryError)  # one sentence says what to do

_warned: set[str] = set()


def main() -> None:
    """Run the command; an error that a user can mend is one sentence, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without the letters of a file's name is no error
            stream.reconfigure(errors="backslashreplace")
    STATE.threads_are_ours = leave_room()
    sys.path.append(os.getcwd())  # where module:finder may lie; last, so that nothing there hides a library
    with warnings.catch_warnings(), stoppable(_say_stopped) as told:
        warnings.showwarning = _show_warning
        try:
            app()
        except Interrupted as stopped:
            _say_stopped()
            sys.exit(stopped.status)
        except Exception as error:
            if told:  # a library made another error of the interruption
                _say_stopped()
                sys.exit(128 + told[0])
            if not isinstance(error, MENDABLE):
                raise
            _say("error", "red", _sentence(error))
            sys.exit(1)


def _sentence(error: BaseException) -> str:
    """What an error says; of the system's own errors the file first, and no number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _say(kind: str, colour: str, text: str) -> None:
    """One line on standard error, whatever brackets the text holds."""
    Console(stderr=True).print(Text.assemble((f"{kind}:", colour), f" {text}"), soft_wrap=True)


def _say_stopped() -> None:
    """The last words of a command that was told to end."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    resumes = command in RESUMING or STATE.resumes
    rest = "the same command resumes where it stopped" if resumes else "nothing half done is left"
    Console(stderr=True).print(f"interrupted; {rest}", highlight=False, soft_wrap=True)


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """A warning as one line, said once: a command trains many models that are warned of alike."""
    if str(message) not in _warned:
        _warned.add(str(message))
        _say("warning", "yellow", str(message))
