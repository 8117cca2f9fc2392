"""One sparse training: a copy of a network, any task, any method."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.fit import BaseTask, Callback, Distill, FitResult, Report, fit, rehearsed, rng, steps_of
from graphsparse.fit.loop import OptimizerFactory
from graphsparse.fit.measure import device_of
from graphsparse.keep_rule import Keep, check_seed, whole_number
from graphsparse.params import METHODS, Modules, Sparsifier, prunable, weights_kept
from graphsparse.params.counting import Which
from graphsparse.params.whole_blocks import find_blocks_in


@dataclass(frozen=True)
class SparseResult:
    """What a sparse training gave.

    Attributes:
        module: the trained copy, of the caller's class, with zeros outside the masks and in evaluation mode.
        masks: bool, by name, true where kept.
        counts: kept weights of each selected tensor.
        metrics: ``metric`` (its name), ``val`` and ``test`` in its own unit (and ``val_accuracy`` and
            ``test_accuracy``, fractions, where it is accuracy), all of the returned module; ``weights_kept`` of all
            trainable weights and ``weights_kept_matrices``; ``best_epoch``, ``steps``, ``seen`` (share of the selected
            weights that were ever kept).
        fit: the training, epoch by epoch.
    """

    module: nn.Module = field(repr=False)
    masks: dict[str, Tensor] = field(repr=False)
    counts: dict[str, int]
    metrics: dict[str, Any]
    fit: FitResult = field(repr=False)


def train(
    net: nn.Module,
    task: BaseTask,
    method: str | None = None,
    *,
    keep: Keep | None = None,
    epochs: int = 200,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
    seed: int = 0,
    which: Which | None = None,
    axes: dict[str, Any] | None = None,
    init: str | None = None,
    optimizer: OptimizerFactory | None = None,
    distill: Distill | None = None,
    callbacks: Sequence[Callback] = (),
    device: torch.device | str | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 50,
    progress: bool | Report | None = None,
    tensorboard: str | Path | None = None,
) -> SparseResult:
    """Train a copy of a network sparse; the network that is given is not changed.

    The best validation epoch is looked for among those that are as sparse as the end.

    Args:
        net: any network that the task can train, with its initial (or trained) weights.
        task: nodes, links, graphs, images, or one's own.
        method, keep, seed, which, init: as for :class:`graphsparse.params.Sparsifier`; ``seed`` is that of the
            training, too.
        axes: more of the sparsifier's arguments by name: ``pattern``, ``distribution``, ``score``, ``schedule``,
            ``rule``. For ``"blocks"`` the pattern is, unless it is given, that of the blocks whose input and output
            have one shape.
        epochs, lr, weight_decay, optimizer, distill, device: as for :func:`graphsparse.fit.fit`.
        callbacks: more of them, attached before the sparsifier, such as a learning rate's schedule.
        checkpoint, checkpoint_every, progress, tensorboard: as for :func:`graphsparse.fit.fit`; a run that was
            interrupted goes on to the same result.

    Returns:
        the trained module with its masks and figures.

    Raises:
        ValueError, TypeError: as :class:`graphsparse.params.Sparsifier` and :func:`graphsparse.fit.fit`.
        DivergedError, DataError: as :func:`graphsparse.fit.fit`.

    Example:
        >>> from graphsparse.fit import Task
        >>> x, y = torch.eye(12).repeat(4, 1), torch.arange(12).repeat(4) % 3
        >>> net = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3))
        >>> result = train(net, Task((x, y), (x, y), (x, y)), "rigl", keep=0.2, epochs=30)
        >>> result.metrics["weights_kept_matrices"], sum(result.counts.values())
        (0.2, 60)
    """
    seed, epochs = check_seed(seed), whole_number(epochs, "epochs", least=1)
    module = copy.deepcopy(net)
    module.to(device_of(net) if device is None else device)
    task.check(module)
    steps = epochs * steps_of(task, module)
    axes = dict(axes or {})
    if method is not None and METHODS.find(method).modules and axes.get("pattern") is None:
        axes["pattern"] = Modules(_blocks(task, module))
    sparsifier = Sparsifier(module, method, keep=keep, steps=steps, seed=seed, which=which, init=init, **axes)
    found = fit(
        module,
        task,
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        seed=seed,
        distill=distill,
        callbacks=[*callbacks, sparsifier],
        optimizer=optimizer,
        device=device,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        progress=progress,
        tensorboard=tensorboard,
    )
    masks = sparsifier.finish()
    module.eval()
    metrics = figures_of(task, module)
    metrics |= weights_kept(prunable(net), masks)  # of the given network: blocks that are gone count, too
    metrics |= {"best_epoch": found.best_epoch, "steps": steps, "seen": sparsifier.seen}
    return SparseResult(module, masks, sparsifier.counts(), metrics, found)


def _blocks(task: BaseTask, net: nn.Module) -> list[str]:
    """Blocks that can become the identity, found in one batch of training."""
    with rehearsed(task, net) as (twin, losses):
        return find_blocks_in(twin, lambda: next(iter(losses)))


def figures_of(task: BaseTask, module: nn.Module) -> dict[str, Any]:
    """The metric on the validation and the test part, as a result's metrics hold it."""
    device = device_of(module)
    session = task.start(module, device)
    with rng.preserved(device, session.generators()):
        evaluation = session.evaluate()
        val, test = evaluation.val, evaluation.finish()[0]
    found = {"metric": task.metric.name, "val": val, "test": test}
    return found | ({"val_accuracy": val, "test_accuracy": test} if task.metric.name == "accuracy" else {})
