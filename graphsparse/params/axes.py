"""What the arguments of a `Sparsifier` mean: a method's axes, those given beside it, and the counts they ask for."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

from torch import nn

from graphsparse.keep_rule import Keep, keep_fraction, kept_count
from graphsparse.params.choice import Choice
from graphsparse.params.counting import Which, prunable
from graphsparse.params.ends import with_ends
from graphsparse.params.grains import GRAINS, Grain, Modules, Spanning
from graphsparse.params.patterns.n_of_m import NofM
from graphsparse.params.recipes import METHODS
from graphsparse.params.rules import Project, Rule
from graphsparse.params.rules.rule import named_score
from graphsparse.params.schedule import Constant, Schedule, Stages
from graphsparse.params.scores import Score
from graphsparse.params.scores.evidence import needs
from graphsparse.params.tensors import Named
from graphsparse.registry import spelling

Given = Mapping[str, Any]


@dataclass(frozen=True)
class Axes:
    """A choice on each axis, checked as far as it can be without the tensors.

    Args:
        method: the name of the method, as it is registered, or None.
        cut: what is cut together.
        shares: the distribution, as it was given.
        score, schedule, rule: the other axes.
    """

    method: str | None
    cut: Grain | Spanning | NofM
    shares: Any
    score: Score
    schedule: Schedule | Stages
    rule: Rule

    @staticmethod
    def read(method: str | None, keep: Keep | None, steps: int | None, given: Given) -> Axes:
        """A method's axes, each replaced by the one that is given beside it.

        Raises:
            ValueError: for unknown names, or axes that do not go together.
            TypeError: for an axis of another kind.
        """
        own = _n_of_m(keep, given["pattern"])
        recipe = {} if method is None else METHODS.find(method).axes(method, steps, own)
        axes = {**recipe, **{axis: value for axis, value in given.items() if value is not None}}
        rule = axes.get("rule") or Project()
        if not isinstance(rule, Rule):
            raise TypeError(f"rule must be one such as DropGrow() or Hold(), got {_kind(rule)}")
        cut = own or _grain(axes.get("pattern", "elements"))
        if isinstance(cut, Spanning) and given["distribution"] is None:
            axes["distribution"] = "global"
        score, schedule = named_score(axes.get("score", "magnitude")), axes.get("schedule") or Constant()
        if not (callable(schedule) or isinstance(schedule, Stages)):
            raise TypeError(f"schedule is one such as Cubic(end=1000), got {type(schedule).__name__}")
        key = None if method is None else METHODS.key(method)
        return Axes(key, cut, axes.get("distribution", "global" if own else "erk"), score, schedule, rule)

    def select(self, model: nn.Module, which: Which | None) -> tuple[dict[str, nn.Parameter], Grain | Spanning | NofM]:
        """The parameters that are made sparse, and what is cut, bound to the model.

        Raises:
            ValueError: for ``which`` beside units that say themselves what belongs to them.
        """
        if not isinstance(self.cut, Spanning):
            chosen = prunable(model, "matrices" if which is None else which)
            heard = any("correlation" in needs(score) for score in self.rule.scores(self.score))
            return (with_ends(model, chosen) if heard and which is None else chosen), self.cut
        bound = self.cut.bind(model)
        if which is not None:
            raise ValueError(f"{type(bound).__name__} says itself which parameters go together; leave which= out")
        return bound.parameters(model), bound

    def choices(self, cut: Any, tensors: Named) -> list[Choice]:
        """How masks are made; several where N:M patterns come in stages."""
        if isinstance(self.schedule, Stages):
            if not isinstance(cut, NofM):
                raise ValueError("Stages are N:M patterns in turn: keep is the last of them, such as '2:8'")
            stages = [NofM.read(text, cut.dim) for text in self.schedule.patterns]
            if stages[-1] != cut:
                raise ValueError(
                    f"the last of the stages is {self.schedule.patterns[-1]!r}, and keep is '{cut.n}:{cut.m}'"
                )
            return [Choice(stage, "global", tensors) for stage in stages]
        if isinstance(cut, NofM) and self.shares != "global":
            raise ValueError(
                f"distribution={self.shares!r} has no say in N:M, which keeps {cut.n} of every {cut.m} everywhere; "
                f"methods for it are {', '.join(name for name in METHODS.names() if METHODS[name].n_of_m)}"
            )
        if isinstance(cut, Spanning) and self.shares != "global":
            raise ValueError(
                f"distribution={self.shares!r} has no say in {type(cut).__name__}, whose units span tensors and "
                "compete in one pool"
            )
        return [Choice(cut, self._densities(tensors), tensors)]

    def fraction(self, keep: Keep | None, choice: Choice) -> Fraction:
        """The kept fraction of all units that ``keep``, a pattern or a dict of keeps asks for."""
        if isinstance(choice.pattern, NofM):
            return choice.pattern.kept
        if not isinstance(self.shares, Mapping):
            if keep is None:
                raise ValueError("keep is missing: the kept fraction, such as 0.05, or a pattern, such as '2:4'")
            if isinstance(choice.pattern, Spanning):
                choice.pattern.check_count(kept_count(keep, choice.total))
            check_something_goes(choice, keep)
            return keep_fraction(keep)
        parts: Any = choice.distribution
        wanted = sum(kept_count(parts[name], units) for name, units in choice.units.items())
        if keep is not None and kept_count(keep, choice.total) != wanted:
            raise ValueError(
                f"distribution keeps {wanted} of {choice.total}, keep={keep} {kept_count(keep, choice.total)}; leave "
                "keep= out"
            )
        return Fraction(wanted, choice.total)

    def _densities(self, tensors: Named) -> Any:
        """A distribution, a dict of which names each tensor."""
        if not isinstance(self.shares, Mapping):
            return self.shares
        found: dict[str, Fraction] = {}
        for pattern, share in self.shares.items():
            names = [n for n in tensors if n == pattern or fnmatchcase(n, pattern)]
            if not names:
                raise ValueError(f"distribution has a keep for {pattern!r}, which names none of {list(tensors)[:8]}")
            found |= dict.fromkeys(names, keep_fraction(share))
        left = [name for name in tensors if name not in found]
        if left:
            raise ValueError(f"distribution has no keep for {left[0]!r}; '*' stands for all tensors")
        return found


def described(value: Any) -> str:
    """A value of an axis as a word that is the same in every process."""
    if is_dataclass(value):
        return f"{type(value).__module__.rpartition('.')[2]}.{value!r}"
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def check_something_goes(choice: Choice, keep: Keep) -> None:
    """Tell of a kept fraction below 1 that keeps every unit, as the count is rounded up and one always stays.

    Raises:
        ValueError: for units that span tensors, whose training would do nothing.
    """
    total, pattern = choice.total, choice.pattern
    if keep_fraction(keep) == 1 or kept_count(keep, total) < total or total == 0:
        return
    units, only, mend = "units", "there is one unit", "cut smaller units"
    if isinstance(pattern, Modules):
        units, only = "modules", f"{next(iter(pattern.names))!r} is the only module"
        mend = "name more, or take it out with bypass_(model, names)"
    if total > 1:
        only, mend = f"of {total} {units} all are kept, rounded up", f"keep at most '{total - 1}/{total}'"
    else:
        only += ", and one always stays"
    said = f"keep={keep} takes nothing out: {only}; {mend}"
    if isinstance(pattern, Spanning):
        raise ValueError(said)
    warnings.warn(said, stacklevel=4)


def say_short_runs(cut: object, tensors: Named) -> None:
    """Warn of tensors whose runs are shorter than those of an N:M pattern."""
    if not isinstance(cut, NofM):
        return
    short = {n: p.shape[cut.dim] % cut.m for n, p in tensors.items() if p.shape[cut.dim] < cut.m}
    if short:
        kept = ", ".join(f"{min(cut.n, left)} of {left} of {name!r}" for name, left in list(short.items())[:4])
        warnings.warn(
            f"runs shorter than {cut.m} keep up to {cut.n} weights: {kept}; leave such tensors out by which=",
            stacklevel=3,
        )


def _n_of_m(keep: Any, pattern: Any) -> NofM | None:
    """The N:M pattern that is asked for, by either argument."""
    pattern = _runs(pattern) or pattern
    named = _runs(keep)
    if isinstance(pattern, NofM):
        if keep is None or (named is not None and replace(named, dim=pattern.dim) == pattern):
            return pattern
        raise ValueError(
            f"pattern keeps {pattern.n} of every {pattern.m}, and keep={keep!r} says another; leave it out"
        )
    if named is None:
        return None
    if pattern is not None:
        raise ValueError(f"keep={keep!r} is a pattern itself; leave pattern= out, or give the kept fraction")
    return named


def _runs(text: Any) -> NofM | None:
    """What ``"2:4"`` names, along the inputs; None for anything else."""
    if isinstance(text, str) and re.fullmatch(r"\s*\d+\s*:\s*\d+\s*", text):
        return NofM.read(re.sub(r"\s", "", text), 1)
    return None


def _grain(pattern: Any) -> Any:
    if isinstance(pattern, type):
        raise TypeError(f"pattern must be one such as Rows() or Modules(names), got {_kind(pattern)}")
    if isinstance(pattern, str) and (spanning := spelling(pattern, ("modules", "coupled"))) is not None:
        made = {"modules": "Modules(names)", "coupled": "Coupled(find_units(graph).map)"}[spanning]
        raise ValueError(f"pattern={pattern!r} must say which: pattern={made}")
    return GRAINS.find(pattern)() if isinstance(pattern, str) else pattern


def _kind(value: object) -> str:
    return f"the class {value.__name__}: call it" if isinstance(value, type) else type(value).__name__
