"""Choosing a recipe of fine-tuning: the same trials for every method, on validation data, at equal images."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from graphsparse.fit import Report, Task
from graphsparse.fit.measure import device_of
from graphsparse.metanet.fine_tuning import FineTune, blind

# What `tune` tries where nothing else is asked for.
TRIALS = tuple(
    FineTune(1, lr, batch_size=size, distill=distill)
    for distill in (0.0, 1.0)
    for size, lr in ((128, 0.05), (64, 0.05), (32, 0.02))
)

Cut = Callable[[FineTune], nn.Module]


@dataclass(frozen=True)
class Trial:
    """A recipe and what it gave.

    Args:
        recipe: the recipe.
        val: mean validation metric over the networks.
        each: the validation metric of each network.
        cpu_seconds: processor time of training and validation, all networks together.
    """

    recipe: FineTune
    val: float
    each: tuple[float, ...]
    cpu_seconds: float


@dataclass(frozen=True)
class Tuning:
    """All trials, and the best one.

    Args:
        trials: in the order in which they were asked for.
        maximize: whether a higher metric is better.
    """

    trials: tuple[Trial, ...]
    maximize: bool = True

    @property
    def best(self) -> FineTune:
        """The recipe with the best mean validation metric; of equals the first."""
        sign = 1 if self.maximize else -1
        return max(self.trials, key=lambda trial: sign * trial.val).recipe


def tune(
    pruned: Sequence[nn.Module | Cut],
    task: Task,
    trials: Sequence[FineTune] = TRIALS,
    *,
    teachers: Sequence[nn.Module] | None = None,
    seed: int = 0,
    progress: Report | None = None,
) -> Tuning:
    """Try recipes of fine-tuning on pruned networks, at equal images, and score them on validation data alone.

    Methods are compared fairly where each is tuned with the same trials on the same networks, which play no part in
    the comparison.

    Args:
        pruned: networks that are pruned and not trained yet (``prune(..., fine_tune=FineTune(epochs=0)).module``), or
            functions that make one for a recipe, where a method trains before it cuts. They are not changed.
        task: trains and validates; its test part is not read.
        trials: the recipes, all of the same number of epochs.
        teachers: the unpruned network of each, where a recipe distils.
        seed: of the training.
        progress: called with (trials done, trials, figures).

    Raises:
        ValueError: there are no networks or trials, trials see different numbers of images, or teachers are missing.

    Example:
        >>> import torch
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 2
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> found = tune([net], Task((x, y), (x, y), (x, y)), [FineTune(2, lr) for lr in (0.1, 1e-6)])
        >>> len(found.trials), found.best in [trial.recipe for trial in found.trials]
        (2, True)
    """
    pruned, trials = list(pruned), list(trials)
    if not pruned or not trials:
        raise ValueError("tuning needs at least one pruned network and one recipe")
    if len({trial.epochs for trial in trials}) > 1:
        raise ValueError("trials must see equally many images: give all recipes the same number of epochs")
    known: Sequence[nn.Module | None] = [None] * len(pruned) if teachers is None else list(teachers)
    if len(known) != len(pruned):
        raise ValueError(f"give one teacher for each of the {len(pruned)} networks, got {len(known)}")
    done: list[Trial] = []
    for recipe in trials:
        start = time.process_time()
        scores = [_tried(recipe, net, task, teacher, seed) for net, teacher in zip(pruned, known, strict=True)]
        val = math.fsum(scores) / len(scores)
        done.append(Trial(recipe, val, tuple(scores), time.process_time() - start))
        if progress is not None:
            progress(len(done), len(trials), {"val": val})
    return Tuning(tuple(done), task.metric.maximize)


def _tried(recipe: FineTune, net: nn.Module | Cut, task: Task, teacher: nn.Module | None, seed: int) -> float:
    module = copy.deepcopy(net) if isinstance(net, nn.Module) else net(recipe)
    unseen = blind(task)
    tuned = recipe.run(module, unseen, teacher=teacher, seed=seed)
    return unseen.score(module, "val", device_of(module)) if tuned is None else tuned.val
