"""The training loop: one for dense models, tickets, metanetworks and images alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from graphsparse import ranks
from graphsparse.errors import DataError, GraphsparseError
from graphsparse.fit import rng
from graphsparse.fit.checkpoint import checkpoint_file, load_checkpoint, save_checkpoint
from graphsparse.fit.distill import Distill
from graphsparse.fit.fingerprint import model_hash, name_of, tree_hash
from graphsparse.fit.measure import device_of
from graphsparse.fit.metrics import Metric
from graphsparse.fit.task import BaseTask, Evaluation, Session
from graphsparse.fit.tensorboard_log import logged
from graphsparse.hashing import tensor_hash
from graphsparse.progress import Report, reporting

_LONGEST = 60.0  # seconds from one checkpoint to the next, if epochs are shorter


class DivergedError(GraphsparseError, FloatingPointError):
    """Training produced a loss or outputs that are not finite."""


class Callback(Protocol):
    """What acts on the weights through the optimizer, e.g. a projection after every step.

    One with an attribute ``ready`` that is False says that the weights are not yet of the kind that it is to end with:
    the best epoch is then looked for among the later ones.
    """

    def attach(self, optimizer: Optimizer) -> Any:
        """Begin to act."""

    def detach(self) -> Any:
        """Stop, leaving no hook behind."""

    def state_dict(self) -> dict[str, Any]:
        """Settings and state: tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Continue from what `state_dict` gave."""


OptimizerFactory = Callable[..., Optimizer]


@dataclass(frozen=True)
class FitResult:
    """What a run gave; all figures are those of the best validation epoch.

    Args:
        metric: name and direction of `val` and `test`.
        best_epoch: counted from 0; of equally good epochs the last.
        val, test: the metric, in its own unit.
        logits: eval-mode outputs of that epoch on the CPU: of all nodes, of all graphs, of the judged pairs of a link
            task, else of the test part.
        state: the model's parameters and buffers of that epoch, on the CPU.
        history: ``epoch``, ``loss`` and ``val`` of each epoch.
        seconds: wall time of all its epochs, those of earlier sittings among them; no part of what makes runs equal.
    """

    metric: Metric
    best_epoch: int
    val: float
    test: float
    logits: Tensor = field(repr=False)
    state: dict[str, Any] = field(repr=False)
    history: list[dict[str, float]] = field(repr=False)
    seconds: float = field(default=0.0, compare=False)


@dataclass
class _State:
    """What a run has come to."""

    epochs_done: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    seconds: float = 0.0


def fit(
    model: nn.Module,
    task: BaseTask,
    *,
    epochs: int = 200,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
    seed: int = 0,
    distill: Distill | None = None,
    callbacks: Sequence[Callback] = (),
    optimizer: OptimizerFactory | None = None,
    device: torch.device | str | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 50,
    progress: bool | Report | None = None,
    tensorboard: str | Path | None = None,
) -> FitResult:
    """Train `model` in place from its present weights, and leave it with those of the best validation epoch.

    Every epoch is evaluated. The test part is looked at when the validation figure is the best so far, and
    only to be reported. On the CPU equal calls give equal results, bit for bit.

    Args:
        model: the module; at the end it is in evaluation mode.
        task: what is learned.
        epochs: passes over the training part.
        lr, weight_decay: of Adam, or passed to `optimizer`.
        seed: of dropout, shuffling and whatever else draws from global generators, which are afterwards as
            they were. It has no part in the initial weights.
        distill: a teacher, if there is one.
        callbacks: attached to the optimizer for the time of the run, in this order.
        optimizer: called as ``optimizer(parameters, lr=..., weight_decay=...)``; None is Adam.
        device: None is where the model is.
        checkpoint: a file. If it exists, the run goes on from it (a finished one just returns its result);
            the outcome is that of a run that was never interrupted.
        checkpoint_every: epochs between two checkpoints; where these take over a minute, one follows every minute.
        progress: True for a bar, or a function of (epochs done, epochs, figures), e.g. from `Bars.add`.
        tensorboard: a folder for TensorBoard's logs of loss and validation metric, an epoch a step (optional part
            ``tensorboard``).

    Raises:
        DivergedError: if a loss or an output is not finite; the last checkpoint stays.
        DataError: if the checkpoint is damaged or of another run.
        ValueError: if an argument is out of range, or the model has lazy or no trainable parameters.
        GraphsparseError: if ``tensorboard`` is asked for and not installed.

    Example:
        >>> x, y = torch.eye(6), torch.arange(6) % 2
        >>> from graphsparse.fit import Task
        >>> result = fit(nn.Linear(6, 2), Task((x, y), (x, y), (x, y)), epochs=50, lr=0.1)
        >>> result.test, result.best_epoch
        (1.0, 49)
    """
    _check(model, epochs, checkpoint_every)
    _check_processes(task)
    where = device_of(model) if device is None else torch.device(device)
    model.to(where)
    run = _run_hashes(model, task, distill, epochs, lr, weight_decay, seed, optimizer) if checkpoint else {}
    task.check(model)
    session = task.start(model, where, distill)
    generators = session.generators()
    with (
        rng.preserved(where, generators),
        reporting(progress if ranks.is_first() else None) as shown,
        logged(tensorboard if ranks.is_first() else None, shown) as report,
    ):
        rng.seed_all(seed, where, generators)
        optim = _optimizer(model, optimizer, lr, weight_decay)
        attached: list[Callback] = []
        try:
            for callback in callbacks:
                callback.attach(optim)
                attached.append(callback)
            trainer = _Trainer(model, task.metric, session, optim, callbacks, where)
            if checkpoint is not None:
                run["callbacks"] = tree_hash([[name_of(c), c.state_dict()] for c in callbacks])
                ranks.wait()  # else one that is ahead might have written what another has not looked for yet
                if ranks.number_of_first(Path(checkpoint).exists(), where) and not Path(checkpoint).exists():
                    raise DataError(f"{checkpoint} is there for the first process and not for all: use a shared folder")
                if Path(checkpoint).exists():
                    with checkpoint_file(checkpoint):
                        trainer.load(load_checkpoint(checkpoint, run))
            written = time.perf_counter()
            while trainer.state.epochs_done < epochs:
                figures = trainer.epoch()
                done = trainer.state.epochs_done
                due = done % checkpoint_every == 0 or done == epochs or time.perf_counter() - written > _LONGEST
                if checkpoint is not None and due:
                    save_checkpoint(checkpoint, trainer.dump(), run)
                    written = time.perf_counter()
                report(done, epochs, figures)
        finally:
            for callback in reversed(attached):
                callback.detach()
    return trainer.result()


class _Trainer:
    """Model, optimizer and callbacks on their way through the epochs."""

    def __init__(
        self,
        model: nn.Module,
        metric: Metric,
        session: Session,
        optimizer: Optimizer,
        callbacks: Sequence[Callback],
        device: torch.device,
    ) -> None:
        self.model, self.metric, self.session = model, metric, session
        self.optimizer, self.callbacks, self.device = optimizer, callbacks, device
        self.state = _State()

    def epoch(self) -> dict[str, float]:
        """Train once over the training part, evaluate, and remember the outcome if none was better."""
        start, number = time.perf_counter(), self.state.epochs_done
        losses: list[float] = []
        for step, loss in enumerate(self.session.losses()):
            value = ranks.summed(float(loss.detach()), self.device)
            if not math.isfinite(value):  # before the step, which would spoil the weights and any projection of them
                saw = getattr(self.session, "saw", None)
                before = f", after {losses[-1]:.4g} in the step before" if losses else ""
                raise DivergedError(
                    f"the loss of epoch {number} is {value} in its step {step}{before}"
                    f"{'' if saw is None else f' ({saw()})'}; a smaller learning rate may help"
                )
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            ranks.sum_gradients(self.model)
            self.optimizer.step()
            losses.append(value)
        mean = math.fsum(losses) / len(losses)
        ranks.share(self.model.buffers())  # a batch norm learns from each process's own batches
        evaluation = self.session.evaluate()
        evaluation = Evaluation(ranks.number_of_first(evaluation.val, self.device), evaluation.finish)
        if not math.isfinite(evaluation.val):
            raise DivergedError(f"the validation {self.metric.name} of epoch {number} is {evaluation.val}")
        self._keep_if_best(number, evaluation)
        self.state.history.append({"epoch": number, "loss": mean, "val": evaluation.val})
        self.state.epochs_done = number + 1
        self.state.seconds += time.perf_counter() - start
        return {"loss": mean, "val": evaluation.val}

    def _keep_if_best(self, number: int, evaluation: Evaluation) -> None:
        best = self.state.best
        ready = all(getattr(callback, "ready", True) for callback in self.callbacks)
        if best is not None and ready == best.get("ready", True):
            if not self.metric.at_least(evaluation.val, best["val"]):
                return
        elif best is not None and not ready:
            return
        test, logits = evaluation.finish()
        test, logits = ranks.number_of_first(test, self.device), ranks.of_first(logits)
        if not bool(torch.isfinite(logits).all()):
            raise DivergedError(f"the outputs of epoch {number} are not finite; a smaller learning rate may help")
        self.state.best = {
            "epoch": number,
            "val": evaluation.val,
            "test": test,
            "logits": logits.detach().cpu().clone(),
            "model": _cpu_copy(self.model.state_dict()),
            **({} if ready else {"ready": False}),
        }

    def dump(self) -> dict[str, Any]:
        """All that is needed to go on, as nested plain values and tensors."""
        return {
            "epochs_done": self.state.epochs_done,
            "history": self.state.history,
            "best": self.state.best,
            "seconds": self.state.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "rng": rng.capture(self.device, self.session.generators()),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from what `dump` gave."""
        self.state = _State(saved["epochs_done"], saved["history"], saved["best"], saved["seconds"])
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for callback, state in zip(self.callbacks, saved["callbacks"], strict=True):
            callback.load_state_dict(state)
        rng.restore(saved["rng"], self.device, self.session.generators())

    def result(self) -> FitResult:
        """The best epoch; the model gets its weights."""
        best = self.state.best
        assert best is not None  # at least one epoch was run
        self.model.load_state_dict(best["model"])
        self.model.eval()
        return FitResult(
            metric=self.metric,
            best_epoch=best["epoch"],
            val=best["val"],
            test=best["test"],
            logits=best["logits"],
            state=best["model"],
            history=self.state.history,
            seconds=self.state.seconds,
        )


def _check(model: nn.Module, epochs: int, checkpoint_every: int) -> None:
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be at least 1, got {checkpoint_every}")
    parameters = list(model.parameters())
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in parameters):
        raise ValueError("the model has lazy parameters without values: call it once on the data before training")
    if not any(parameter.requires_grad for parameter in parameters):
        raise ValueError("the model has no trainable parameter")


def _check_processes(task: BaseTask) -> None:
    if ranks.count() > 1 and not getattr(task, "shares_out", False):
        raise ValueError(
            f"{ranks.count()} processes share out mini-batches, and this training takes none: give batch_size= "
            "and (but for graphs) neighbors=, on the command line --batch-size and --neighbors, or start one process"
        )


def _optimizer(model: nn.Module, factory: OptimizerFactory | None, lr: float, weight_decay: float) -> Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if factory is not None:
        return factory(trained, lr=lr, weight_decay=weight_decay)
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in trained)
    return torch.optim.Adam(trained, lr=lr, weight_decay=weight_decay, fused=fused)


def _run_hashes(
    model: nn.Module,
    task: BaseTask,
    distill: Distill | None,
    epochs: int,
    lr: float,
    weight_decay: float,
    seed: int,
    optimizer: OptimizerFactory | None,
) -> dict[str, str]:
    hashes = {f"task {name}": value for name, value in task.fingerprint().items()}
    if distill is not None:
        options = f"{distill.weight!r} {distill.temperature!r} "
        options += "" if distill.outputs == "classes" else f"{distill.outputs} "
        options += f"{dict(distill.attention)!r} " if distill.attention else ""
        taught = distill.teacher
        said = tensor_hash(distill.logits, distill.nodes) if taught is None else f"teacher {model_hash(taught)}"
        hashes["distill"] = options + said
    named = "adam" if optimizer is None else name_of(optimizer)
    settings = {"epochs": epochs, "lr": lr, "weight_decay": weight_decay, "seed": seed, "optimizer": named}
    return {
        **hashes,
        **{name: repr(value) for name, value in settings.items()},
        "initial weights": model_hash(model),
    }


def _cpu_copy(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.detach().cpu().clone() if isinstance(value, Tensor) else value for name, value in state.items()}
