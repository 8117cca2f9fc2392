"""Sparse soups: copies of a network are trained under one mask and averaged, which leaves the mask as it is."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from graphsparse.fit import BaseTask, Callback, Report, fit, rng
from graphsparse.fit.loop import OptimizerFactory
from graphsparse.fit.measure import device_of
from graphsparse.keep_rule import Keep, check_seed, keep_fraction, whole_number
from graphsparse.params import Fixed, Projection, project_mask, prunable, weights_kept
from graphsparse.params.tensors import count_kept
from graphsparse.registry import one_of
from graphsparse.sparse.training import figures_of

Masks = Mapping[str, Tensor]


@dataclass(frozen=True)
class SoupResult:
    """An averaged sparse network.

    Attributes:
        module: the average, of the caller's class, with zeros outside the masks and in evaluation mode.
        masks: bool, by name, true where kept.
        metrics: of the average: ``metric``, ``val``, ``test`` (and ``val_accuracy``, ``test_accuracy``),
            ``weights_kept``, ``weights_kept_matrices``.
        members: the same figures of each member of the last phase, the best on validation data first, and whether it
            was ``taken`` into the average.
    """

    module: nn.Module = field(repr=False)
    masks: dict[str, Tensor] = field(repr=False)
    metrics: dict[str, Any]
    members: list[dict[str, Any]]


def soup(
    net: nn.Module,
    task: BaseTask,
    masks: Masks | Sequence[Masks],
    *,
    members: int = 3,
    phases: int = 1,
    how: str = "uniform",
    keep: Keep | None = None,
    epochs: int = 20,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
    seed: int = 0,
    optimizer: OptimizerFactory | None = None,
    callbacks: Sequence[Callback] = (),
    device: torch.device | str | None = None,
    progress: bool | Report | None = None,
) -> SoupResult:
    r"""Train copies of a network under one mask, each in another order, and average them; several phases go on from it.

    Networks of different masks average to a denser one, which is neither: they are refused. Batch norms learn their
    statistics anew on the training part, since those of members say nothing of the average.

    Args:
        net: the network to begin with, usually trained and pruned; it is not changed.
        task: nodes, links, graphs, images, or one's own.
        masks: bool masks by name, true where kept; or those of each member, which must be equal.
        members: copies of a phase; they differ in the seed of their training.
        phases: how often copies are trained and averaged; each phase begins with the last average.
        how: ``"uniform"``, or ``"greedy"``: in falling order of their validation figures, members are taken into the
            average while its validation figure does not fall.
        keep: what is kept of the masked weights after the last cut, where the average is to become sparser: before
            phase p of P all but the share :math:`keep^{p / P}` of the largest ones is cut.
        epochs, lr, weight_decay, optimizer, callbacks, device, progress: of each training, as for
            :func:`graphsparse.fit.fit`.
        seed: member i of phase p is trained by the seed :math:`seed + i + p \cdot members`.

    Raises:
        ValueError: for masks that differ (the first tensor is named), that do not fit the network, a ``keep`` above
            theirs, or numbers out of range.
        TypeError: for masks that are not bool.

    Source: Zimmer, Spiegel, Pokutta, "Sparse model soups: a recipe for improved pruning via model averaging",
    ICLR 2024; greedy: Wortsman et al., "Model soups", ICML 2022.

    Example:
        >>> from graphsparse.fit import Task
        >>> x, y = torch.eye(6).repeat(4, 1), torch.arange(6).repeat(4) % 2
        >>> net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> result = soup(net, Task((x, y), (x, y), (x, y)), {"0.weight": net[0].weight > 0}, epochs=2)
        >>> len(result.members), bool((result.module[0].weight[~result.masks["0.weight"]] == 0).all())
        (3, True)
    """
    members, phases = (whole_number(n, w, least=1) for n, w in ((members, "members"), (phases, "phases")))
    epochs, seed = whole_number(epochs, "epochs", least=1), check_seed(seed)
    how = one_of(how, "how", ("uniform", "greedy"))
    mask = _one_mask(net, masks)
    kept, total = sum(count_kept(mask).values()), sum(m.numel() for m in mask.values())
    share = None if keep is None else keep_fraction(keep)
    if share is not None and share * total > kept:
        raise ValueError(f"keep={keep} is more than the masks keep, {kept} of {total}")
    best = copy.deepcopy(net)
    best.to(device_of(net) if device is None else device)
    task.check(best)
    mask = {name: own.to(best.get_parameter(name).device) for name, own in mask.items()}
    training: dict[str, Any] = {"epochs": epochs, "lr": lr, "weight_decay": weight_decay, "optimizer": optimizer}
    tastes: list[dict[str, Any]] = []
    for phase in range(phases):
        if share is not None:
            mask = _cut(best, mask, _share(Fraction(kept, total), share, phase + 1, phases))
        pot = []
        for number in range(members):
            member = copy.deepcopy(best)
            held = Projection(member, Fixed(mask), which=list(mask))
            held.apply()
            own = [*callbacks, held]
            fit(member, task, seed=seed + number + phase * members, callbacks=own, progress=progress, **training)
            pot.append((member, figures_of(task, member)))
        best, tastes = _mixed(task, pot, how)
    metrics = figures_of(task, best) | weights_kept(best, mask)
    return SoupResult(best, mask, metrics, tastes)


def recalibrated(task: BaseTask, module: nn.Module) -> nn.Module:
    """Let the batch norms of a network learn their statistics anew, in one pass over the training part; in place."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    if norms:
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean of all batches
        device = device_of(module)
        session = task.start(module, device)
        generators = session.generators()
        with rng.preserved(device, generators), torch.no_grad():
            rng.seed_all(0, device, generators)  # the same order of batches in every process
            for _ in session.losses():
                pass
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return module.eval()


def _one_mask(net: nn.Module, masks: Masks | Sequence[Masks]) -> dict[str, Tensor]:
    """The mask that all members have."""
    each = [masks] if isinstance(masks, Mapping) else list(masks)
    if not each or not all(isinstance(one, Mapping) and one for one in each):
        raise ValueError("a soup needs masks by name, or those of each member")
    first = dict(each[0])
    weights_kept(net, first)  # names, shapes and kinds
    Fixed(first).project_({name: p.detach().clone() for name, p in prunable(net).items() if name in first})
    for number, other in enumerate(each[1:], start=2):
        for name in [*first, *other]:
            if name not in first or name not in other or not torch.equal(first[name].cpu(), other[name].cpu()):
                raise ValueError(
                    f"the masks of members 1 and {number} differ in {name!r}: their average would keep what either "
                    "keeps; a soup has one mask"
                )
    return first


def _share(begun: Fraction, last: Fraction, phase: int, phases: int) -> Keep:
    """What is kept in a phase, from 1: geometrically from what the masks keep to the last share, which is exact."""
    return last if phase == phases else float(begun) * float(last / begun) ** (phase / phases)


def _cut(net: nn.Module, mask: dict[str, Tensor], share: Keep) -> dict[str, Tensor]:
    """The share of all weights that is largest, of those within the masks."""
    held = {name: net.get_parameter(name).detach().masked_fill(~mask[name], 0) for name in mask}
    return {name: found & mask[name] for name, found in project_mask(held, share).items()}


def _mixed(
    task: BaseTask, pot: Sequence[tuple[nn.Module, dict[str, Any]]], how: str
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """The average, and what is said of its members, the best first."""
    sign = 1 if task.metric.maximize else -1
    ranked = sorted(pot, key=lambda each: -sign * each[1]["val"])
    taken = [0]
    if how == "uniform":
        taken = list(range(len(ranked)))
    mixed = _average(task, [ranked[i][0] for i in taken])
    if how == "greedy":
        best = figures_of(task, mixed)["val"]
        for number in range(1, len(ranked)):
            tried = _average(task, [ranked[i][0] for i in (*taken, number)])
            val = figures_of(task, tried)["val"]
            if sign * val >= sign * best:
                mixed, best = tried, val
                taken.append(number)
    return mixed, [figures | {"taken": i in taken} for i, (_, figures) in enumerate(ranked)]


@torch.no_grad()
def _average(task: BaseTask, members: Sequence[nn.Module]) -> nn.Module:
    """The mean of their parameters; buffers are those of the first, batch norms recalibrated."""
    mean = copy.deepcopy(members[0])
    parameters = [dict(member.named_parameters()) for member in members]
    for name, parameter in mean.named_parameters():
        parameter.copy_(torch.stack([own[name].detach() for own in parameters]).mean(dim=0))
    return recalibrated(task, mean) if len(members) > 1 else mean.eval()
