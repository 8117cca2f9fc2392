"""Which columns of a table hold the ends and the weights: one rule for tables in memory and in files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WEIGHTS = ("weight", "edge_weight")  # where weights lie when nobody says


def end_columns(names: Sequence[Any], src: str | None = None, dst: str | None = None) -> tuple[int, int]:
    """The positions of the two columns that hold the ends of edges: those named, else src and dst or source and target.

    Raises:
        ValueError: a column is not there, or there twice.

    Example:
        >>> end_columns(["Target", "since", "Source"])
        (2, 0)
        >>> end_columns(["a", "b"], src="b", dst="a")
        (1, 0)
    """
    if src is not None or dst is not None:
        if src is None or dst is None or src == dst:
            raise ValueError("name both columns of the ends, src= and dst=, and not one column twice")
        return _position(names, src), _position(names, dst)
    spelled = [name.strip().lower() if isinstance(name, str) else name for name in names]
    for tail, head in (("src", "dst"), ("source", "target")):
        if tail in spelled and head in spelled:
            return _position(spelled, tail), _position(spelled, head)
    missing = "dst" if "src" in spelled else "src"
    raise ValueError(
        f"the table has no column {missing!r}: src and dst (or source and target) hold the ends, and its columns are "
        f"{', '.join(map(str, names))!r:.200}; other names are given by src= and dst= (--src, --dst)"
    )


def _position(names: Sequence[Any], name: str) -> int:
    count = list(names).count(name)
    if count > 1:
        raise ValueError(f"two columns are named {name!r}")
    if not count:
        raise ValueError(f"the table has no column {name!r}; it has {', '.join(map(str, names))!r:.200}")
    return list(names).index(name)


def weight_name(names: Sequence[Any], asked: str | None, what: str) -> str | None:
    """Which of the columns, attributes or arrays are the weights: one rule for all.

    That which is asked for; else ``weight`` or ``edge_weight``, or where none is called so the same in any case.

    Raises:
        ValueError: the name that was asked for is not there, or more than one could be meant.

    Example:
        >>> weight_name(["src", "dst", "weight"], None, "column")
        'weight'
        >>> weight_name(["Source", "Target", "Weight"], None, "column")
        'Weight'
    """
    listed = ", ".join(map(str, names)) or "none"
    if asked is not None and asked not in names:
        raise ValueError(f"there is no {what} {asked!r} to take weights from; there are {listed}")
    found = [name for name in names if (name in WEIGHTS if asked is None else name == asked)]
    if asked is None and not found:
        found = [name for name in names if isinstance(name, str) and name.strip().lower() in WEIGHTS]
    if len(found) > 1:
        raise ValueError(
            f"the weights could be in several {what}s ({', '.join(map(str, found))}): say which by weight="
        )
    return found[0] if found else None
