"""What the program knows before it runs a command."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class State:
    """Of this process; `graphsparse.cli.entry.main` fills it.

    Attributes:
        threads_are_ours: whether the number of torch's threads may follow the size of the work.
    """

    threads_are_ours: bool = False


STATE = State()
