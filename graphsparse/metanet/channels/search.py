"""The least-pruned network within a limit, of all that an order of removal goes through."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.metanet.channels.budget import Cost, first_reaching, prefix_for
from graphsparse.metanet.channels.cutting import KeptChannels, shrink
from graphsparse.metanet.channels.sets import Channels, keep_after
from graphsparse.metanet.channels.slicing import ShrinkError
from graphsparse.metanet.graph import NetworkGraph


def least_pruned(
    graph: NetworkGraph,
    order: Callable[[Channels], list[Tensor]],
    cost: Cost,
    exact: Callable[[nn.Module], int],
    limit: float | Fraction,
    example_inputs: Tensor | tuple[Any, ...],
    channels: Channels | None = None,
) -> tuple[Tensor, tuple[nn.Module, KeptChannels], Channels]:
    """The mask of the least-pruned network within a limit, that network, and its units with those found to be held.

    Where the last step goes further than it must, the next step of another group takes its place if that is enough and
    goes less far. A group that cannot be cut stays whole.

    Args:
        graph: the network.
        order: from units to the steps of removal, such as `removal_order` with its options.
        cost: the network's cost, spread over the graph: exact, or a first guess.
        exact: the cost of a module.
        limit: the largest cost that will do.
        example_inputs: as for `shrink`.
        channels: the units; None takes all of the graph.

    Raises:
        ValueError: the limit is out of reach.
        ShrinkError: nothing of what has to go can be cut.
    """
    channels = Channels.of(graph) if channels is None else channels
    free = channels.prunable
    while True:
        search = _Search(graph, channels, order(channels), exact, example_inputs)
        try:
            at = search.first(cost, limit)
            if at is not None:
                return *search.finest(at, cost, limit), channels
            left, whole = search.exact(len(search.steps)), search.exact(0)
        except ShrinkError as error:
            channels = cuttable(graph, channels, search.last, example_inputs, error)
            continue
        held = int((free & ~channels.prunable).sum())
        raise ValueError(
            f"the target cannot be reached: with all groups cut down to what must stay (min_keep, round_to) "
            f"{left / whole:.3f} of the cost is left, and {float(limit) / whole:.3f} is asked for"
            + (f"; {held} of {int(free.sum())} sets of channels cannot be cut ({_why(channels)})" if held else "")
        )


def _why(channels: Channels) -> str:
    """The reason that was found last (`Channels.without` puts it first)."""
    return next(iter(channels.reasons.values()))


_NEAR = 0.98  # of the limit: what comes nearer needs no filling
_TRIES = 12  # networks that are cut to fill a limit where the cost is only an estimate


class _Search:
    """The networks that an order of removal goes through, by the number of steps."""

    def __init__(
        self,
        graph: NetworkGraph,
        channels: Channels,
        steps: list[Tensor],
        measure: Callable[[nn.Module], int],
        inputs: Tensor | tuple[Any, ...],
    ) -> None:
        self.graph, self.channels, self.steps, self.measure, self.inputs = graph, channels, steps, measure, inputs
        self.last = self.keep(0)  # the mask that was shrunk last
        self._costs: dict[int, int] = {}
        self._found: tuple[int, tuple[nn.Module, KeptChannels]] | None = None

    def first(self, cost: Cost, limit: float | Fraction) -> int | None:
        """The smallest number of steps within the limit, None if there is none."""
        count = len(self.steps)
        found = prefix_for(count, lambda k: cost.left(self.graph, self.keep(k)), limit)
        at = min(found, count)
        if self.exact(at) != cost.left(self.graph, self.keep(at)):  # products of activations: only an estimate
            found = first_reaching(count, lambda k: self.exact(k) <= limit, at)
        return None if found > count else found

    def finest(self, at: int, cost: Cost, limit: float | Fraction) -> tuple[Tensor, tuple[nn.Module, KeptChannels]]:
        """Mask and network after so many steps, or after another last step that cuts less and is enough."""
        best = self.keep(at)
        most = cost.left(self.graph, best)
        if at and most == self.exact(at):  # else the cost is only an estimate
            groups = {int(self.channels.group_of[self.steps[at - 1][0]])}
            for step in self.steps[at:]:
                group = int(self.channels.group_of[step[0]])
                if group not in groups:
                    groups.add(group)
                    other = keep_after(self.channels, [*self.steps[: at - 1], step])
                    if most < (left := cost.left(self.graph, other)) <= limit:
                        best, most = other, left
        else:
            most = self.exact(at)
        if most < _NEAR * float(limit):
            best = self._filled(best, at, cost, limit)
        if torch.equal(best, self.keep(at)):
            return best, self.shrunk(at)
        self.last = best
        return best, shrink(self.graph, best, self.inputs)

    def _filled(self, best: Tensor, at: int, cost: Cost, limit: float | Fraction) -> Tensor:
        """The mask with steps taken back as long as one fits; if that is far from the limit, after one more of a group.

        A further step of one group can make room for steps of others that fill the limit better.
        """
        gone = [step for step in self.steps if not bool(self._stays(best, step))]
        if self.exact(at) != cost.left(self.graph, self.keep(at)):
            return self._filled_by_cutting(best, gone, cost, limit)
        most, best = self._with_steps_back(gone, cost, limit)
        if most < _NEAR * float(limit):
            gone = [step for step in self.steps if not bool(self._stays(best, step))]
            more = [self._with_steps_back([*gone, step], cost, limit, step) for step in self._next_steps(best)]
            most, best = max([(most, best), *(one for one in more if one[0] <= limit)], key=itemgetter(0))
        return best

    def _with_steps_back(
        self, gone: list[Tensor], cost: Cost, limit: float | Fraction, but: Tensor | None = None
    ) -> tuple[float, Tensor]:
        """What a mask costs, and it, once the last steps of groups are back that fill the limit best, one by one.

        The group of the step ``but`` gets none back.
        """
        gone, best = list(gone), keep_after(self.channels, gone)
        most = cost.left(self.graph, best)
        while True:
            found = [(cost.left(self.graph, other), place, other) for place, other in self._with_one_back(gone, but)]
            fitting = max((one for one in found if one[0] <= limit), key=itemgetter(0), default=None)
            if fitting is None:
                return most, best
            most, place, best = fitting
            del gone[place]

    def _next_steps(self, keep: Tensor) -> list[Tensor]:
        """Of each group the first step that is not gone."""
        found: dict[int, Tensor] = {}
        for step in self.steps:
            if self._stays(keep, step):
                found.setdefault(int(self.channels.group_of[step[0]]), step)
        return list(found.values())

    def _filled_by_cutting(self, best: Tensor, gone: list[Tensor], cost: Cost, limit: float | Fraction) -> Tensor:
        """The same where the cost is only an estimate: of one group after another as many as fit, in a few tries."""
        order = sorted(self._with_one_back(gone), key=lambda one: -cost.left(self.graph, one[1]))
        tries = _TRIES
        for group in [int(self.channels.group_of[gone[place][0]]) for place, _ in order]:
            own = [place for place, step in enumerate(gone) if int(self.channels.group_of[step[0]]) == group]
            fits, stride, most = 0, 1, len(own)  # so many last steps of the group are back; no more than ``most`` fit
            while fits < most and tries:
                back = min(fits + stride, most)
                other = keep_after(
                    self.channels, [gone[i] for i in range(len(gone)) if i not in own[len(own) - back :]]
                )
                tries -= 1
                if self.measure(shrink(self.graph, other, self.inputs)[0]) <= limit:
                    best, fits, stride = other, back, 2 * stride
                else:
                    most, stride = back - 1, max(1, (back - 1 - fits) // 2)
            gone = [step for i, step in enumerate(gone) if i not in own[len(own) - fits :]] if fits else gone
        return best

    def _with_one_back(self, gone: list[Tensor], but: Tensor | None = None) -> list[tuple[int, Tensor]]:
        """For each group the place of its last step in what is gone, and the mask without that step.

        The group of the step ``but`` is left out.
        """
        last = {int(self.channels.group_of[step[0]]): place for place, step in enumerate(gone)}
        if but is not None:
            last.pop(int(self.channels.group_of[but[0]]), None)
        return [(place, keep_after(self.channels, [*gone[:place], *gone[place + 1 :]])) for place in last.values()]

    def _stays(self, keep: Tensor, step: Tensor) -> Tensor:
        sets = torch.ones(len(self.channels.group_of), dtype=torch.bool, device=keep.device)
        sets[self.channels.set_of] = keep
        return sets[step.to(keep.device)].all()

    def keep(self, count: int) -> Tensor:
        """The mask after so many steps."""
        return keep_after(self.channels, self.steps[:count])

    def shrunk(self, count: int) -> tuple[nn.Module, KeptChannels]:
        """The network after so many steps."""
        if self._found is None or self._found[0] != count:
            self.last = self.keep(count)
            self._found = count, shrink(self.graph, self.last, self.inputs)
        return self._found[1]

    def exact(self, count: int) -> int:
        """The cost of the network after so many steps."""
        if count not in self._costs:
            self._costs[count] = self.measure(self.shrunk(count)[0])
        return self._costs[count]


def cuttable(
    graph: NetworkGraph, channels: Channels, keep: Tensor, example_inputs: Tensor | tuple[Any, ...], cause: ShrinkError
) -> Channels:
    """The same units, with only those groups prunable that can be cut as a mask asks which cannot be cut as a whole.

    Args:
        graph: the network.
        channels: its units.
        keep: bool ``[num_nodes]``, a mask that `shrink` refused.
        example_inputs: as for `shrink`.
        cause: what `shrink` raised.

    Raises:
        ShrinkError: no group can be cut.
    """
    sets = torch.ones(len(channels.group_of), dtype=torch.bool, device=keep.device)
    sets[channels.set_of] = keep
    groups = torch.unique(channels.group_of[~sets]).tolist()
    good: list[int] = []
    bad: dict[int, str] = {}
    parts = [groups[: len(groups) // 2], groups[len(groups) // 2 :]]
    while parts:
        part = parts.pop(0)
        chosen = torch.tensor([*good, *part], device=sets.device, dtype=torch.int64)
        try:
            shrink(graph, channels.of_nodes(sets | ~torch.isin(channels.group_of, chosen)), example_inputs)
            good += part
        except ShrinkError as error:
            if len(part) == 1:
                bad[part[0]] = str(error)
            else:
                parts[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
    if not good:
        raise ShrinkError(f"no channels can be cut: {cause}") from cause
    return channels.without(bad)
