"""What the program knows of the command that it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class State:
    """Of this process.

    Attributes:
        threads_are_ours: whether the number of torch's threads may follow the size of the work.
        resumes: whether a command that does not always resume would do so now.
    """

    threads_are_ours: bool = False
    resumes: bool = False


STATE = State()
