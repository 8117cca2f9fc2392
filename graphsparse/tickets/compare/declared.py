"""The declared study: which methods are tested against which, where, and how often, fixed before any run was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graphsparse.compare import holm
from graphsparse.fit import finite_or_none, paired_difference
from graphsparse.tickets.compare.plan import LEARNED, ONE_SHOT, Experiment, base_of, trials_of

Row = Mapping[str, Any]

SPLITS = 10
LEVELS = (10, 20)
DATASETS = ("cora", "citeseer", "pubmed")
PAIRS = (
    ("reliance", "teddy"),
    ("reliance", "teddy+cover"),
    ("reliance-blind", "teddy"),
    ("reliance-blind", "teddy+cover"),
)


@dataclass(frozen=True)
class Test:
    """A two-sided paired t test over the splits: two methods at a level of a setting.

    Attributes:
        experiment: whose setting it is.
        level: of the paper.
        ours: the method whose figures come first.
        theirs: the method whose figures are subtracted.
    """

    __test__ = False  # a test of hypotheses, not of the program

    experiment: Experiment
    level: int
    ours: str
    theirs: str


def study() -> tuple[Experiment, ...]:
    """The runs: GCN with 64 hidden units on random splits, each with its seed; what the family needs first.

    Inductively on Cora, CiteSeer and PubMed, then transductively on Cora, which is shown and not tested. Each method
    has one trial.
    """
    shared: dict[str, Any] = {"hidden": 64, "levels": LEVELS, "seeds": SPLITS, "trials": 1, "split": "random"}
    whole = tuple(dict.fromkeys([*(name for pair in PAIRS for name in pair), *ONE_SHOT, *LEARNED]))
    seeing = tuple(name for name in whole if name != "reliance-blind")  # transductively it is reliance
    inductive = [Experiment(name, protocol="inductive", methods=whole, **shared) for name in DATASETS]
    return (*inductive, Experiment("cora", protocol="transductive", methods=seeing, **shared))


def family() -> tuple[Test, ...]:
    """The tests that Holm's correction goes over: all `PAIRS` at all `LEVELS` of the inductive settings, no others.

    Example:
        >>> len(family()), family()[0].ours, family()[0].theirs
        (24, 'reliance', 'teddy')
    """
    inductive = [experiment for experiment in study() if experiment.protocol == "inductive"]
    return tuple(Test(experiment, level, *pair) for experiment in inductive for level in LEVELS for pair in PAIRS)


def outcomes(rows: Iterable[Row], tests: Iterable[Test] | None = None) -> list[dict[str, Any]]:
    """What the rows say of each declared test, in the order of the family.

    Pairs are those splits that both methods have a row for. A test with fewer than `SPLITS` of them, or whose
    differences are all alike, is not made, and stays in the family with p = 1: what is missing lowers no other p value.

    Returns:
        For each test: ``dataset``, ``protocol``, ``level``, ``ours``, ``theirs``, ``pairs``, ``wins``; ``mean`` and
        ``ci95`` of the difference (None without pairs); ``p`` (None where it is not made) and ``p_holm``, corrected for
        the whole family.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    tests, rows = list(family() if tests is None else tests), list(rows)
    found = [_outcome(test, rows) for test in tests]
    corrected = holm([1.0 if one["p"] is None else one["p"] for one in found])
    return [one | {"p_holm": p} for one, p in zip(found, corrected, strict=True)]


def _outcome(test: Test, rows: list[Row]) -> dict[str, Any]:
    from scipy.stats import ttest_rel

    ours, theirs = (_by_seed(test, method, rows) for method in (test.ours, test.theirs))
    seeds = sorted(ours.keys() & theirs.keys())
    a, b = ([values[seed] for seed in seeds] for values in (ours, theirs))
    found: dict[str, Any] = {
        "dataset": test.experiment.dataset,
        "protocol": test.experiment.protocol,
        "level": test.level,
        "ours": test.ours,
        "theirs": test.theirs,
        "pairs": len(seeds),
        "wins": sum(x > y for x, y in zip(a, b, strict=True)),
        "mean": None,
        "ci95": None,
        "p": None,
    }
    if seeds:
        difference = paired_difference(a, b)
        found |= {"mean": difference.mean, "ci95": finite_or_none(difference.half_width)}
    spread = len({round(x - y, 9) for x, y in zip(a, b, strict=True)}) > 1
    if len(seeds) >= SPLITS and spread:
        found["p"] = float(ttest_rel(a, b).pvalue)
    return found


def _by_seed(test: Test, method: str, rows: list[Row]) -> dict[int, float]:
    """The method's test metric, by seed, in the setting and at the level of a test."""
    trial = dict(trials_of(base_of(method))[0])
    asked = test.experiment.setting | {"method": method, "level": test.level, "trial": trial}
    runs = [row for row in rows if all(row[name] == value for name, value in asked.items())]
    return {row["seed"]: row["test"] for row in runs}
