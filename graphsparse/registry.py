"""One kind of table for everything that has a name: scores, finders, criteria, backbones, data sets, file formats."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Literal, TypeVar, overload

T = TypeVar("T")
F = TypeVar("F")


def spelling(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that a name means, whatever its case, hyphens, underscores and blanks; else None.

    Example:
        >>> spelling("Local-Degree", ["local_degree", "teddy"]), spelling("WDGLT", ["wd-glt"]), spelling("x", ["y"])
        ('local_degree', 'wd-glt', None)
    """
    known = list(known)
    for folded in _FOLDED:  # the closest way first, so that two entries may differ in a hyphen
        meant = [each for each in known if folded(each) == folded(name)]
        if len(meant) == 1:
            return meant[0]
    return None


_FOLDED: tuple[Callable[[str], str], ...] = (
    lambda name: name,
    lambda name: name.strip().lower(),
    lambda name: name.strip().lower().replace("_", "-").replace(" ", "-"),
    lambda name: name.lower().translate(dict.fromkeys(map(ord, "-_ "))),
)


@overload
def one_of(value: Any, what: str, known: Sequence[str]) -> str: ...


@overload
def one_of(value: Any, what: str, known: Sequence[str], *, none: Literal[True]) -> str | None: ...


def one_of(value: Any, what: str, known: Sequence[str], *, none: bool = False) -> str | None:
    """A word of a short list as the list spells it: `spelling` for options that have no table.

    Args:
        value: the word that was given.
        what: what it is, for the error.
        known: all that it may be.
        none: None may be given, too, and stays None.

    Raises:
        ValueError: it is none of them; the sentence names them and the closest.

    Example:
        >>> one_of("Cover", "guard", ("cover", "isolated"))
        'cover'
        >>> one_of("covr", "guard", ("cover", "isolated"))
        Traceback (most recent call last):
        ...
        ValueError: guard must be 'cover' or 'isolated', got 'covr' (did you mean 'cover'?)
    """
    if value is None and none:
        return None
    found = spelling(value, known) if isinstance(value, str) else None
    if found is None:
        *first, last = [*(["None"] if none else []), *map(repr, known)]
        listed = f"{', '.join(first)} or {last}" if first else last
        raise ValueError(f"{what} must be {listed}, got {value!r:.60}{_hint(value, known)}")
    return found


def _hint(name: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.lower(), list(known), n=1) if isinstance(name, str) else []
    return f" (did you mean {close[0]!r}?)" if close else ""


class Registry(Mapping[str, T], Generic[T]):
    """Things of one kind by name: they are registered, looked up, and a wrong name is told what comes close.

    Names are looked up by `spelling`, without regard to case, hyphens and underscores. A name of the form
    ``"module:attribute"`` is an entry of the user's own, imported from where Python finds modules.

    Args:
        noun: what the entries are, in one or two words, for the errors (``"edge score"``).
        folder: a package whose modules register the entries; all of them are imported when the table is first read.
        check: called as ``check(name, entry)`` with whatever is registered or imported; returns the entry to be kept
            and raises TypeError or ValueError for what cannot serve.
        kin: other tables, as ``"module:attribute"``, whose names are often looked for here, and what to say then; the
            sentence may hold ``{name}``. They are imported only when a name is missing.

    Example:
        >>> SHAPES: Registry[type] = Registry("shape")
        >>> @SHAPES.register("round")
        ... class Round: ...
        >>> SHAPES.find("round") is Round, SHAPES.names()
        (True, ['round'])
        >>> SHAPES.find("rond")
        Traceback (most recent call last):
        ...
        ValueError: unknown shape 'rond' (did you mean 'round'?); known are round
    """

    def __init__(
        self,
        noun: str,
        *,
        folder: str | None = None,
        check: Callable[[str, Any], T] | None = None,
        kin: Mapping[str, str] | None = None,
    ) -> None:
        self.noun = noun
        self._kin = dict(kin or {})
        self._a_noun = f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
        self._folder = folder
        self._check = check
        self._entries: dict[str, T] = {}
        self._hashes: dict[str, tuple[Any, str | None]] = {}  # by module: its spec, new at every import, and its hash

    @overload
    def register(self, name: str) -> Callable[[F], F]: ...

    @overload
    def register(self, name: str, entry: F) -> F: ...

    def register(self, name: str, entry: Any = None) -> Any:
        """Put an entry under a free name; without ``entry`` this is a decorator.

        Raises:
            TypeError: the name is no string, or the entry cannot serve.
            ValueError: the name is taken, empty, or holds a colon, which marks entries that are imported.
        """
        if not isinstance(name, str):
            raise TypeError(f"the name of {self._a_noun} is a string, got {type(name).__name__}")
        if not name or ":" in name:
            raise ValueError(f"{name!r} cannot name {self._a_noun}: a name is not empty and holds no colon")
        if entry is None:
            return lambda given: self.register(name, given)
        if name in self:
            raise ValueError(f"there is already {self._a_noun} {name!r}; choose another name")
        self._entries[name] = entry if self._check is None else self._check(name, entry)
        return entry

    def find(self, name: str) -> T:
        """The entry of that name.

        Raises:
            TypeError: the name is no string.
            ValueError: there is no such entry; the sentence names the closest and all that there are.
        """
        return self._entries[key] if (key := self.key(name)) in self._entries else self._imported(key)

    def key(self, name: str) -> str:
        """The name as it is registered (``"Digits_kNN"`` gives ``"digits-knn"``); raises as :meth:`find` does."""
        if not isinstance(name, str):
            raise TypeError(f"{self._a_noun} is named by a string, got {type(name).__name__}")
        if ":" in name:
            return name
        if (spelled := self.spelled(name)) is not None:
            return spelled
        for table, advice in self._kin.items():
            module, _, attribute = table.partition(":")
            if (found := getattr(importlib.import_module(module), attribute).spelled(name)) is not None:
                raise ValueError(
                    f"{found!r} is no {self.noun}: {advice.format(name=found)}; {self.noun}s are "
                    f"{', '.join(self.names())}"
                )
        raise ValueError(
            f"unknown {self.noun} {name!r}{_hint(name, self._entries)}; known are {', '.join(self.names())}"
        )

    def spelled(self, name: str) -> str | None:
        """The name as it is registered, or None where there is none; nothing is imported for it."""
        self._scan()
        return spelling(name, self._entries)

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self)

    def source_hash(self, name: str) -> str | None:
        """A hash of the file that ``"module:attribute"`` comes from, so that an edited one is another; else None.

        It is taken once after each import: an edit while a run is under way is not what runs.
        """
        if ":" not in name:
            return None
        self.find(name)
        return self._hash_of(sys.modules[name.partition(":")[0]])

    def __getitem__(self, name: str) -> T:
        self._scan()
        return self._entries[name]

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._scan()
        return iter(self._entries)

    def __len__(self) -> int:
        self._scan()
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Registry({self.noun!r}: {', '.join(self.names())})"

    def _scan(self) -> None:
        """Import the folder's modules, which register what they hold; once, and not while one of them is imported."""
        if self._folder is None or self._half_imported(self._folder):
            return
        folder, self._folder = self._folder, None
        try:
            for found in pkgutil.iter_modules(importlib.import_module(folder).__path__):
                importlib.import_module(f"{folder}.{found.name}")
        except BaseException:
            self._folder = folder  # what could not be imported is no reason to lack it for ever
            raise

    @staticmethod
    def _half_imported(folder: str) -> bool:
        """Whether one of the folder's modules is being imported by itself; it could not be imported by another yet."""
        modules = [module for name, module in sys.modules.items() if name.startswith(f"{folder}.")]
        return any(getattr(module.__spec__, "_initializing", False) for module in modules)

    def _imported(self, path: str) -> T:
        module, _, name = path.partition(":")
        try:
            home = importlib.import_module(module)
        except (ModuleNotFoundError, ValueError, TypeError) as error:
            if isinstance(error, ModuleNotFoundError) and error.name not in (module, module.partition(".")[0]):
                raise  # what the module imports is missing, not the module
            raise ValueError(f"there is no {self.noun} {path!r}: {error}") from error
        self._hash_of(home)
        if not hasattr(home, name):
            raise ValueError(f"there is no {self.noun} {path!r}: {getattr(home, '__file__', module)} has no {name!r}")
        entry = getattr(home, name)
        found: T = entry if self._check is None else self._check(path, entry)
        return found

    def _hash_of(self, module: ModuleType) -> str | None:
        spec, found = self._hashes.get(module.__name__, (None, None))
        if spec is None or spec is not module.__spec__:
            file = getattr(module, "__file__", None)
            found = None if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
            self._hashes[module.__name__] = module.__spec__, found
        return found
