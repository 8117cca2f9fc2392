"""What a comparison of sparse training runs: data, models, methods, keeps, seeds, trials, and the controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from torch import nn

from graphsparse.compare import Comparison
from graphsparse.data import DATASETS, IMAGES
from graphsparse.keep_rule import keep_fraction
from graphsparse.nn import BACKBONES
from graphsparse.params import METHODS, DropGrow, Evidence, NofM, Sparsifier, methods
from graphsparse.params.scores.at_random import at_random
from graphsparse.registry import one_of, spelling

Trial = Mapping[str, Any]

SETTING = ("dataset", "model", "hidden", "epochs", "lr", "weight_decay", "optimizer", "init")
SEARCH = "random-search"  # draws of random masks, the best on validation data: as many as others have trials
CONTROLS = ("random-erk", SEARCH)
RANDOM = "random"  # NAME+random: the same method with random scores
_RATES: tuple[Trial, ...] = ({"lr_factor": 1.0}, {"lr_factor": 0.3}, {"lr_factor": 3.0})
_DRAWS: tuple[Trial, ...] = ({"draw": 1}, {"draw": 2}, {"draw": 3})


@dataclass(frozen=True)
class Drawn:
    """A weight's random worth, the same at every step.

    Args:
        draw: which of many.
    """

    draw: int = 0

    def __call__(self, evidence: Evidence) -> Any:
        """Uniform in [0, 1) by seed, draw and name."""
        return at_random(replace(evidence, step=-self.draw))


def trials_of(method: str) -> tuple[Trial, ...]:
    """What is tried of a method: as many trials for each; of the random search other masks, of all others rates.

    Example:
        >>> trials_of("rigl")[0], trials_of("random-search")[1]
        ({'lr_factor': 1.0}, {'draw': 2})
    """
    method_name(method)
    return _DRAWS if method == SEARCH else _RATES


def base_of(name: str) -> str:
    """A method's name without the mark of random scores; of the random search that of its masks."""
    base = name.partition("+")[0].strip()
    return "random-erk" if spelling(base, (SEARCH,)) else base


def method_name(name: str) -> str:
    """A method as the tables spell it, with ``+random`` where its scores are random.

    Raises:
        ValueError: there is no such method, what follows the plus is no ``random``, or its scores are random anyway.

    Example:
        >>> method_name("RigL+Random"), method_name("Random_Search")
        ('rigl+random', 'random-search')
    """
    base, plus, mark = (part.strip() for part in name.partition("+"))
    if spelling(base, (SEARCH,)) and not plus:
        return SEARCH
    known = METHODS.key(base)
    if not plus:
        return known
    mark = one_of(mark, f"what follows {base}+", (RANDOM,))
    if not takes_scores(known):
        raise ValueError(f"{name!r}: {known} is random as it is, or ranks by a rule of its own")
    return f"{known}+{mark}"


def takes_scores(name: str) -> bool:
    """Whether a method goes by scores, in whose place random ones can be put.

    Example:
        >>> takes_scores("gmp"), takes_scores("random-erk"), takes_scores("gates")
        (True, False, False)
    """
    recipe = METHODS.find(name)
    if recipe.modules or name.startswith("random-"):
        return False
    try:
        Sparsifier(nn.Linear(8, 8), name, keep="1:4" if recipe.n_of_m else 0.5, steps=1000, score="random")
    except ValueError:
        return False
    return True


def axes_of(name: str, trial: Trial, steps: int, keep: str) -> dict[str, Any]:
    """What a method's mark or draw changes of its axes.

    An exchange drops and grows by new chance at every update; everything else has one random worth for each weight.
    """
    if name == SEARCH:
        return {"score": Drawn(trial["draw"])}
    if "+" not in name:
        return {}
    pattern = NofM.read(keep) if ":" in keep else None
    rule = METHODS.find(base_of(name)).axes(base_of(name), steps, pattern).get("rule")
    if isinstance(rule, DropGrow):
        return {"score": "random", "rule": replace(rule, grow="random")}
    return {"score": Drawn()}


def takes(name: str, keep: str) -> bool:
    """Whether a method takes a keep: N:M or a share.

    Example:
        >>> takes("nm", "2:4"), takes("rigl", "2:4"), takes("rigl+random", "0.1")
        (True, False, True)
    """
    return METHODS.find(base_of(name)).n_of_m == (":" in keep)


def share_of(keep: str) -> Fraction:
    """The kept fraction of a keep.

    Example:
        >>> share_of("1:16"), share_of("0.05")
        (Fraction(1, 16), Fraction(1, 20))
    """
    return NofM.read(keep).kept if ":" in keep else keep_fraction(keep)


def default_methods() -> list[str]:
    """All methods but those that take out whole modules, of which many a network has none."""
    return [name for name in methods() if not METHODS[name].modules]


def with_controls(names: Sequence[str]) -> tuple[str, ...]:
    """Methods, each followed by itself with random scores, after the controls that every table has.

    Example:
        >>> with_controls(["rigl", "random-er"])
        ('random-erk', 'random-search', 'rigl', 'rigl+random', 'random-er')
    """
    found = list(CONTROLS)
    for name in map(method_name, names):
        found.append(name)
        if "+" not in name and takes_scores(name):
            found.append(f"{name}+{RANDOM}")
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Experiment:
    """Runs that share a data set, a model and how it is trained.

    Args:
        dataset: images, or a graph of labelled nodes, by name.
        model: as for :class:`graphsparse.sparse.study.SparseStudy`; None: ``"mlp"``, for graphs ``"gcn"``.
        hidden: hidden units, channels of a CNN's first stage.
        methods: names of :func:`graphsparse.params.methods`, ``NAME+random`` for random scores, ``"random-search"``.
        keeps: kept fractions, or ``"N:M"``; each method runs at those that it takes.
        seeds: how many, of initial weights, masks and training.
        epochs: of each run; None: 20, for graphs 200.
        lr: None: 0.002, for graphs 0.01; 0.1 of SGD.
        weight_decay: L2 penalty.
        optimizer: ``"adam"``, or ``"sgd"``: momentum 0.9 and a rate that falls as a cosine.
        init: None, or ``"scaled"`` for methods whose masks hold from the start.
        trials: for each method how many of its trials are made.

    Raises:
        ValueError: for unknown names, numbers out of range, or a method that takes none of the keeps.
    """

    dataset: str = "digits"
    model: str | None = None
    hidden: int = 256
    methods: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ("0.1", "0.05", "0.02")
    seeds: int = 5
    epochs: int | None = None
    lr: float | None = None
    weight_decay: float = 5e-4
    optimizer: str = "adam"
    init: str | None = None
    trials: int = 3

    def __post_init__(self) -> None:
        images = IMAGES.spelled(self.dataset) is not None
        optimizer = one_of(self.optimizer, "optimizer", ("adam", "sgd"))
        usual = 0.1 if optimizer == "sgd" else 0.002 if images else 0.01
        model = self.model or ("mlp" if images else "gcn")
        named = {
            "dataset": (IMAGES if images else DATASETS).spelled(self.dataset) or self.dataset,
            "model": model if images else BACKBONES.spelled(model) or model,
            "methods": tuple(map(method_name, self.methods or with_controls(default_methods()))),
            "keeps": tuple(str(keep) for keep in self.keeps),
            "epochs": (20 if images else 200) if self.epochs is None else self.epochs,
            "lr": usual if self.lr is None else self.lr,
            "optimizer": optimizer,
            "init": one_of(self.init, "init", ("scaled",), none=True),
        }
        for name, value in named.items():
            object.__setattr__(self, name, value)
        if not self.keeps or min(self.seeds, self.epochs or 0, self.hidden, self.trials) < 1:
            raise ValueError("an experiment needs keeps, and seeds, epochs, hidden and trials of at least 1")
        if not (self.lr or 0) > 0 or not self.weight_decay >= 0:
            raise ValueError(f"lr must be above 0, weight_decay at least 0, got {self.lr} and {self.weight_decay}")
        for keep in self.keeps:
            share_of(keep)
        if self.methods and not any(takes(method, keep) for method in self.methods for keep in self.keeps):
            raise ValueError(
                f"{self.methods[0]} takes none of the keeps {', '.join(self.keeps)}: N:M, such as 2:4, is for nm and "
                "its kin, a share for all others"
            )

    @property
    def name(self) -> str:
        """A word for a file."""
        init = "" if self.init is None else f"-{self.init}"
        return f"{self.dataset}-{self.model}{self.hidden}-{self.optimizer}{init}"

    @property
    def setting(self) -> dict[str, Any]:
        """What all rows of the experiment share."""
        return {name: getattr(self, name) for name in SETTING}

    @property
    def comparison(self) -> Comparison:
        """That of sparse training."""
        from graphsparse.sparse.compare.comparison import SPARSE  # which makes what is planned here

        return SPARSE

    def runs(self) -> Iterator[tuple[str, Trial, str]]:
        """Method, trial and keep of every sparse run of one seed."""
        for method in self.methods:
            for trial in trials_of(method)[: self.trials]:
                for keep in sorted(self.keeps, key=share_of, reverse=True):
                    if takes(method, keep):
                        yield method, trial, keep


def quick() -> tuple[Experiment, ...]:
    """A minute or two of one core: every method and control on digits, at one share and one N:M."""
    return (Experiment("digits", hidden=64, keeps=("0.05", "1:4"), seeds=3, epochs=6, trials=1),)


def full() -> tuple[Experiment, ...]:
    """The whole comparison: about 3 hours of one core."""
    shared: dict[str, Any] = {"seeds": 5, "trials": 3}
    return (
        Experiment("digits", keeps=("0.1", "0.05", "0.02", "2:4", "1:16"), epochs=67, optimizer="sgd", **shared),
        Experiment("cora", keeps=("0.1", "0.02"), **shared),
        Experiment("cifar10", "resnet8", 16, keeps=("0.05", "0.02"), epochs=10, seeds=3, trials=1),
    )
