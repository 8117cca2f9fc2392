"""What a shell offers at TAB for the value of an option: the names of the tables that the option's help names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from graphsparse import __version__
from graphsparse.atomic_write import atomic_write
from graphsparse.cache_folder import cache_root
from graphsparse.cli.known_names import TABLES, names_of
from graphsparse.registry import spelling

Completion = Callable[[str], list[tuple[str, str]]]

_TABLE = re.compile(r"\{(\w+)\}|graphsparse list (\w+)")


def of_help(text: str | None) -> Completion | None:
    """The completion of an option whose help says ``{scores}`` or ``graphsparse list datasets``; None if it names none.

    Example:
        >>> of_help("Guards: {guards}.")("c")
        [('cover', 'spend the count so that few nodes lose all edges, as far as it goes')]
    """
    tables = [table for found in _TABLE.findall(text or "") for table in found if table in TABLES]
    return completion(*tables) if tables else None


def completion(*known: str | Iterable[str]) -> Completion:
    """A completion from words, or from the names of tables with a line on each.

    After a comma the next word of a list is completed, and after a plus what may follow a score: a guard.

    Example:
        >>> completion(["cpu", "cuda"])("cu")
        [('cuda', '')]
        >>> [word for word, _ in completion("scores")("teddy,Local")]
        ['teddy,Local-degree']
        >>> [word for word, _ in completion("scores")("teddy+")]
        ['teddy+cover', 'teddy+isolated']
    """

    def complete(incomplete: str) -> list[tuple[str, str]]:
        separator, word = _last(incomplete)
        offered: dict[str, str] = {}
        for table in ["guards"] if separator == "+" else known:
            offered |= _names(table) if isinstance(table, str) else dict.fromkeys(table, "")
        found = [(name[length:], line) for name, line in offered.items() if (length := _begun(name, word)) is not None]
        return [(f"{incomplete}{rest}", line) for rest, line in found]  # a shell offers what goes on as was typed

    return complete


def _names(table: str) -> dict[str, str]:
    """What `names_of` gives, kept in the cache: reading the tables imports torch, for which nobody waits at a TAB."""
    package = Path(__file__).parents[1]
    made_of = [str(package), max(file.stat().st_mtime_ns for file in package.rglob("*.py"))]
    try:
        kept = cache_root() / f"names-{__version__}.json"
    except RuntimeError:  # no home folder is known
        return names_of(table)
    with suppress(
        OSError, ValueError, LookupError, TypeError, AttributeError
    ):  # there is none, or what is there is of no use
        held = json.loads(kept.read_text(encoding="utf-8"))
        if held["of"] == made_of:
            return {str(name): str(line) for name, line in held["tables"][table].items()}
    found = {table: names_of(table) for table in TABLES}
    with suppress(OSError):  # where nothing can be kept, every TAB takes its seconds
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(kept) as partial:
            partial.write_text(json.dumps({"of": made_of, "tables": found}), encoding="utf-8")
    return found[table]


def _last(text: str) -> tuple[str, str]:
    """The comma or plus before the word that is being typed, and the word."""
    at = max(text.rfind(","), text.rfind("+"))
    return (text[at], text[at + 1 :]) if at >= 0 else ("", text)


def _begun(name: str, word: str) -> int | None:
    """How much of a name a word is, in any case, with or without hyphens; None if it is no beginning of it."""
    return next((length for length in range(len(name) + 1) if spelling(word, [name[:length]]) is not None), None)
