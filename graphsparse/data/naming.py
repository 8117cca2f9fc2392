"""Names of data sets as people type them."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def known_key(name: str, known: Collection[str], *, what: str, example: str) -> str:
    """The key of a name: case does not matter, ``_`` is ``-``.

    Args:
        name: what was typed.
        known: the keys that there are.
        what: what they name, such as ``"data set"``.
        example: one of them, for the error.

    Raises:
        TypeError: the name is no text.
        ValueError: it names nothing; the sentence says what comes close, or what there is.

    Example:
        >>> known_key("Digits_kNN", ["cora", "digits-knn"], what="data set", example="cora")
        'digits-knn'
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a data set is a text such as '{example}', not {type(name).__name__}.")
    key = name.lower().replace("_", "-")
    if key not in known:
        raise ValueError(f"there is no {what} {name!r}; {rather(key, known)}")
    return key


def rather(name: str, known: Collection[str]) -> str:
    """What to write instead of a name that is not known."""
    close = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}."
