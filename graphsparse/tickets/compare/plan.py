"""What a comparison of ticket finders runs: data sets, models, methods, levels, seeds, and each method's trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from graphsparse.compare import Comparison
from graphsparse.data import DATASETS
from graphsparse.edges.keep import Guard
from graphsparse.fit.node_task import Protocol
from graphsparse.nn import BACKBONES
from graphsparse.params import METHODS
from graphsparse.registry import one_of, spelling
from graphsparse.tickets.compare.search import LEVELS
from graphsparse.tickets.finders.sparse_weights import check_open
from graphsparse.tickets.finders.table import check_rules, finder_name, finder_of
from graphsparse.tickets.problem import Finder
from graphsparse.tickets.weights import L0, read_weights

Trial = Mapping[str, Any]

ONE_SHOT = ("reliance", "teddy", "teddy+cover", "random", "dspar", "no-edges", "all-edges", "dense-student")
ITERATIVE = ("ugs", "wd-glt", "imp", "magnitude", "random-weights")
LEARNED = ("mixture", "denoise")
FEW = ("reliance", "teddy", "random", "teddy+cover", "dense-student")  # the last two are the bar in every table

_DISTILLED: tuple[Trial, ...] = ({"distill": 1.0}, {"distill": 10.0}, {"distill": 0.0})
_PENALISED: tuple[Trial, ...] = (
    {"distill": 1.0, "edge_penalty": 1e-4, "weight_penalty": 1e-4},
    {"distill": 0.0, "edge_penalty": 1e-2, "weight_penalty": 1e-3},
    {"distill": 0.0, "edge_penalty": 1e-4, "weight_penalty": 1e-4},
)
TRIALS: dict[str, tuple[Trial, ...]] = {"ugs": _PENALISED, "wd-glt": _PENALISED}
SETTING = ("dataset", "model", "hidden", "protocol", "features", "epochs", "lr", "weight_decay", "split")
OLDER = {"split": None}  # what rows that were made before a setting had this field say by their silence


def trials_of(method: str) -> tuple[Trial, ...]:
    """What is tried of a method's hyper-parameters: as many trials for every method.

    ``distill`` is the weight of the distillation term; anything else is an option of the finder. A finder of one's own
    may list others in an attribute ``trials``.

    Example:
        >>> [trial["distill"] for trial in trials_of("teddy")]
        [1.0, 10.0, 0.0]
    """
    own: tuple[Trial, ...] | None = getattr(finder_of(method), "trials", None)
    return own or TRIALS.get(method, _DISTILLED)


def base_of(name: str) -> str:
    """A method's name without its guard."""
    return name.partition("+")[0].strip()


@dataclass(frozen=True)
class Marks:
    """What a method's name says beside the finder, after plus signs, in any order.

    Attributes:
        guard: against nodes that lose all edges; None is none.
        pattern: ``"weights"``, kept one by one, or ``"units"``.
        weights: how they are made sparse, ``"l0"`` unless said.
    """

    guard: str | None = None
    pattern: str = "weights"
    weights: str = L0

    @property
    def words(self) -> tuple[str, ...]:
        """As a name spells them."""
        pattern = "units" if self.pattern == "units" else None
        weights = None if self.weights == L0 else self.weights
        return tuple(filter(None, (self.guard, pattern, weights)))


def marks_of(name: str) -> Marks:
    """What stands behind the plus signs of a method's name: a guard, ``units``, and a method for the weights.

    Raises:
        ValueError: for two of a kind, or what is none of them.

    Example:
        >>> marks_of("teddy+cover+units")
        Marks(guard='cover', pattern='units', weights='l0')
        >>> marks_of("teddy+RigL").weights
        'rigl'
    """
    found: dict[str, str] = {}
    for word in (part.strip() for part in name.split("+")[1:]):
        guard, units = spelling(word, get_args(Guard)), spelling(word, ("units",))
        if guard is None and units is None and METHODS.spelled(word) is None and spelling(word, (L0,)) is None:
            one_of(word, f"what follows {name.partition('+')[0]}+", (*get_args(Guard), "units", L0, *METHODS))
        kind = "guard" if guard else "pattern" if units else "weights"
        if kind in found:
            raise ValueError(f"{name!r} names more than one {_KINDS[kind]}; such as in teddy+cover+units")
        found[kind] = guard or units or str(read_weights(word))
    return Marks(**found)


_KINDS = {"guard": "guard", "pattern": "pattern", "weights": "method for the weights"}


def plain_name(name: str) -> str:
    """A method's name and guard: what its tickets are called, whose config tells the rest.

    Example:
        >>> plain_name("teddy+cover+units")
        'teddy+cover'
    """
    return "+".join(filter(None, (base_of(name), marks_of(name).guard)))


def method_of(name: str, trial: Trial) -> tuple[Finder, dict[str, Any]]:
    """The finder behind a method's name, with the trial's options, and the options of its edges.

    A name may end in marks, see `marks_of`, and may be ``"module:attribute"``, see
    :func:`graphsparse.tickets.finders.table.finder_of`.

    Raises:
        ValueError: there is no such method or mark, or the finder chooses its weights by a rule of its own.

    Example:
        >>> finder, options = method_of("random+cover", {"distill": 1.0})
        >>> finder.score, options
        ('random', {'guard': 'cover'})
    """
    base, marks = base_of(name), marks_of(name)
    rules = {"guard": marks.guard} if marks.guard else {}
    finder = finder_of(base)
    check_rules(base, rules)
    if marks.weights != L0:
        check_open(base, finder, marks.weights)
    options = {key: value for key, value in trial.items() if key != "distill"}
    return (_with_options(name, finder, options) if options else finder), rules


def _spelled(method: str) -> str:
    method_of(method, {})
    return "+".join([finder_name(base_of(method)), *marks_of(method).words])


def by_weights(methods: Sequence[str], weights: Sequence[str]) -> list[str]:
    """The methods with each way to make weights sparse, where they leave it open.

    Example:
        >>> by_weights(["teddy", "imp"], ["l0", "rigl"])
        ['teddy', 'teddy+rigl', 'imp']
    """
    found = []
    for method in methods:
        whole = [read_weights(each) for each in weights] if takes_weights(method) else [L0]
        found += [method if each == L0 else f"{method}+{each}" for each in whole]
    return list(dict.fromkeys(found))


def takes_weights(method: str) -> bool:
    """Whether a method, by name, leaves open how weights are made sparse."""
    return marks_of(method) == Marks(guard=marks_of(method).guard) and getattr(
        finder_of(base_of(method)), "any_weights", False
    )


def _with_options(name: str, finder: Any, options: dict[str, Any]) -> Finder:
    if not dataclasses.is_dataclass(finder):
        raise ValueError(f"{name} has trials with the option {next(iter(options))!r}, so it must be a dataclass")
    changed: Any = dataclasses.replace(finder, **options)  # type: ignore[type-var]
    return changed  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Experiment:
    """Runs that share a data set, a model and a protocol.

    Args:
        dataset: a name of `graphsparse.data.names`.
        model: a backbone's name.
        hidden: hidden units.
        protocol: "transductive" or "inductive"; links know the first only, graphs the second.
        methods: names of finders, with ``+cover`` or ``+isolated`` for a guard, ``+units`` for whole units, or a way to
            make weights sparse, ``+rigl``.
        levels: of the paper: edges 0.95^level, weights 0.9^level.
        seeds: how many.
        epochs: of each training run.
        features: "raw", or "row-normalised".
        lr, weight_decay: of Adam.
        split: None, the data set's own (all seeds share it), or ``"random"``: every seed draws another, by its number.
        trials: for each method how many of its trials are made, at least 1.

    Raises:
        ValueError: a level, method or number is out of range.
    """

    dataset: str
    model: str = "gcn"
    hidden: int = 512
    protocol: str = "transductive"
    methods: tuple[str, ...] = ONE_SHOT
    levels: tuple[int, ...] = (5, 10, 15, 20)
    seeds: int = 5
    epochs: int = 200
    features: str = "raw"
    lr: float = 0.01
    weight_decay: float = 5e-4
    split: str | None = None
    trials: int = 3

    def __post_init__(self) -> None:
        if not self.methods or not self.levels or min(self.seeds, self.epochs, self.hidden, self.trials) < 1:
            raise ValueError("an experiment needs methods, levels, and seeds, epochs, hidden and trials of at least 1")
        wrong = sorted(set(self.levels) - set(LEVELS))
        if wrong:
            raise ValueError(f"levels go from {min(LEVELS)} to {max(LEVELS)}, got {wrong[0]}")
        named = {  # as the tables spell them, so that rows of two spellings are the same runs
            "dataset": DATASETS.spelled(self.dataset) or self.dataset,
            "model": BACKBONES.spelled(self.model) or self.model,
            "protocol": one_of(self.protocol, "protocol", get_args(Protocol)),
            "features": one_of(self.features, "features", ("raw", "row-normalised")),
            "split": one_of(self.split, "split", ("random",), none=True),
            "methods": tuple(map(_spelled, self.methods)),
        }
        for name, value in named.items():
            object.__setattr__(self, name, value)
        for method in self.methods:
            for trial in trials_of(base_of(method)):
                method_of(method, trial)

    @property
    def name(self) -> str:
        """A word for a file."""
        features = "" if self.features == "raw" else f"-{self.features}"
        split = "" if self.split is None else f"-{self.split}-splits"
        return f"{self.dataset}-{self.model}{self.hidden}-{self.protocol}{features}{split}"

    @property
    def setting(self) -> dict[str, Any]:
        """What all rows of the experiment share."""
        return {name: getattr(self, name) for name in SETTING}

    @property
    def comparison(self) -> Comparison:
        """That of tickets."""
        from graphsparse.tickets.compare.comparison import TICKETS  # which makes what is planned here

        return TICKETS

    def runs(self) -> Iterator[tuple[str, Trial, int]]:
        """Method, trial and level of every sparse run of one seed; levels of a trial follow each other."""
        for method in self.methods:
            for trial in trials_of(base_of(method))[: self.trials]:
                for level in sorted(self.levels):
                    yield method, trial, level


def quick() -> tuple[Experiment, ...]:
    """Minutes on two cores: every kind of method on Cora, small, at two levels."""
    methods = (*ONE_SHOT, "ugs", "imp")
    return tuple(
        Experiment("cora", hidden=64, protocol=protocol, methods=methods, levels=(10, 20), seeds=3, epochs=60, trials=1)
        for protocol in ("transductive", "inductive")
    )


def full() -> tuple[Experiment, ...]:
    """The whole comparison: about 8 hours of two cores.

    Every method has one trial (the first of `trials_of`), iterative methods have fewer seeds, and links and molecules
    fewer epochs: so much was cut for the time.
    """
    planetoid, both = ("cora", "citeseer", "pubmed"), ("transductive", "inductive")
    two: dict[str, Any] = {"methods": FEW, "levels": (10, 20), "seeds": 3, "trials": 1}
    slow: dict[str, Any] = {"methods": ITERATIVE, "trials": 1}
    return (
        *(Experiment(name, protocol=protocol, trials=1) for name in planetoid[:2] for protocol in both),
        *(Experiment("pubmed", protocol=protocol, seeds=3, trials=1) for protocol in both),
        Experiment("actor", hidden=128, trials=1),
        *(Experiment(name, hidden=128, seeds=3, trials=1) for name in ("facebook", "tolokers")),
        *(Experiment(name, model, **two) for name in planetoid[:2] for model in ("gat", "gin", "sage", "transformer")),
        *(
            Experiment(name, "gin", 64, "inductive", epochs=50, lr=0.001, weight_decay=0.0, **two)
            for name in ("ogbg-molbace", "ogbg-molbbbp", "ogbg-molesol")
        ),
        Experiment("ogbl-ddi", "sage", 128, epochs=20, lr=0.005, weight_decay=0.0, **two),
        *(Experiment(name, protocol=protocol, seeds=3, **slow) for name in planetoid[:2] for protocol in both),
        *(Experiment("pubmed", protocol=protocol, seeds=1, **slow) for protocol in both),
    )
