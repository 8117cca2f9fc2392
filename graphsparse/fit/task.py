"""What is learned: data, forward, loss, and the metric with its direction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset
from torch_geometric.loader import DataLoader

from graphsparse.fit.attention import attention_loss, check_modules, outputs_of
from graphsparse.fit.call import call, moved_to
from graphsparse.fit.distill import Distill
from graphsparse.fit.fingerprint import name_of
from graphsparse.fit.measure import evaluating
from graphsparse.fit.metrics import Metric, find_metric
from graphsparse.hashing import tensor_hash

Loss = Callable[[Tensor, Tensor], Tensor]
Forward = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True)
class Evaluation:
    """A validation figure, and how to get what is only looked at if it is the best one.

    Args:
        val: metric on the validation part.
        finish: returns the metric on the test part, and the outputs that go with both.
    """

    val: float
    finish: Callable[[], tuple[float, Tensor]]


class Session(Protocol):
    """A task bound to one model on one device: what the loop drives."""

    def losses(self) -> Iterator[Tensor]:
        """One epoch in training mode: the loss of each optimiser step, in turn."""

    def evaluate(self) -> Evaluation:
        """The figures of the model as it is, in evaluation mode and without gradients."""

    def generators(self) -> list[torch.Generator]:
        """Random generators of the task's own that training draws from."""


class BaseTask(ABC):
    """The interface of all tasks: node classification, images, and whatever is added."""

    metric: Metric

    @abstractmethod
    def start(self, model: nn.Module, device: torch.device, distill: Distill | None = None) -> Session:
        """Bind the task to a model that already lies on `device`."""

    @abstractmethod
    def fingerprint(self) -> dict[str, str]:
        """Hashes of all that the result depends on, by name."""

    def check(self, model: nn.Module) -> None:  # noqa: B027
        """Refuse, before it is trained, a model that cannot learn this, and say what of the data it ignores."""


class Batch(NamedTuple):
    """Inputs and targets of one step, and which training examples they are (None: not known)."""

    inputs: Any
    targets: Tensor
    rows: Tensor | None


class Task(BaseTask):
    """A task of examples: images, vectors, or small graphs.

    Args:
        train, val, test: each a pair of tensors ``(x, y)``, a map-style data set (of pairs, or of PyG
            ``Data`` with ``y``), or a loader of batches. A model of several inputs takes a tuple, a list or a dict of
            tensors for ``x``.
        loss: ``"cross_entropy"``, or a function of (outputs, targets).
        metric: a name of `graphsparse.fit.METRICS`, or a `Metric`.
        forward: from (model, inputs) to outputs; ``model(inputs)`` by default, ``model(*inputs)`` for a tuple or a
            list, ``model(**inputs)`` for a dict. A batch of PyG graphs comes as the whole ``Batch``.
        batch_size: examples per step, where no loader is given.
        augment: changes the inputs of a batch of tensors while a model trains, such as
            `graphsparse.data.crop_flip`; what it draws, it draws from torch's generator.

    Raises:
        ValueError: if a part is empty or its tensors differ in length, or features hold NaN.
        TypeError: if a part is none of the kinds above.

    Example:
        >>> x, y = torch.randn(60, 4), torch.arange(60) % 3
        >>> task = Task((x[:40], y[:40]), (x[40:50], y[40:50]), (x[50:], y[50:]), batch_size=16)
        >>> 0 <= task.score(nn.Linear(4, 3), "val") <= 1
        True
    """

    def __init__(
        self,
        train: Any,
        val: Any,
        test: Any,
        *,
        loss: str | Loss = "cross_entropy",
        metric: str | Metric = "accuracy",
        forward: Forward | None = None,
        batch_size: int = 128,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if augment is not None and not isinstance(train, tuple):
            raise ValueError(
                "augment changes batches of tensors: give train as a pair (x, y), or augment in the data set"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if isinstance(loss, str) and loss != "cross_entropy":
            raise ValueError(f"there is no loss named {loss!r}; there is cross_entropy, or give a function")
        self.parts = {"train": train, "val": val, "test": test}
        for name, part in self.parts.items():
            _check_part(name, part)
        self.metric = find_metric(metric)
        self.loss: Loss = functional.cross_entropy if isinstance(loss, str) else loss
        self.forward: Forward = forward or call
        self.batch_size, self.augment = batch_size, augment

    def batches(self, part: str, device: torch.device | str = "cpu", *, shuffle: bool = False) -> Iterator[Batch]:
        """The batches of ``"train"``, ``"val"`` or ``"test"``; `shuffle` draws from torch's generator and augments.

        A loader that was given keeps its own order.
        """
        source = self.parts[part]
        if isinstance(source, tuple):
            yield from self._tensor_batches(source, torch.device(device), shuffle)
        elif isinstance(source, torch.utils.data.DataLoader):
            for batch in source:
                yield Batch(*_pair(batch, device), None)
        else:
            loader = DataLoader(_Numbered(source), batch_size=self.batch_size, shuffle=shuffle)
            for index, batch in loader:
                yield Batch(*_pair(batch, device), index)

    def _tensor_batches(self, source: tuple[Any, Tensor], device: torch.device, shuffle: bool) -> Iterator[Batch]:
        x, y = source
        order = torch.randperm(len(y)) if shuffle else torch.arange(len(y))
        for index in torch.split(order, self.batch_size):
            inputs = pytree.tree_map(lambda part, rows=index: part[rows.to(part.device)].to(device), x)
            if shuffle and self.augment is not None:
                inputs = self.augment(inputs)
            yield Batch(inputs, y[index.to(y.device)].to(device), index)

    @torch.no_grad()
    def predict(self, model: nn.Module, part: str = "test", device: torch.device | str = "cpu") -> Tensor:
        """Eval-mode outputs of a part, row by row; the model's mode is left as it was."""
        return self._evaluated(model, part, torch.device(device))[0]

    def score(self, model: nn.Module, part: str = "test", device: torch.device | str = "cpu") -> float:
        """The metric of a part, in evaluation mode."""
        return self.metric.score(*self._evaluated(model, part, torch.device(device)))

    @torch.no_grad()
    def _evaluated(self, model: nn.Module, part: str, device: torch.device) -> tuple[Tensor, Tensor]:
        with evaluating(model):
            pairs = [(self._judged(model, batch), batch.targets) for batch in self.batches(part, device)]
        return torch.cat([outputs for outputs, _ in pairs]), torch.cat([targets for _, targets in pairs])

    def _judged(self, model: nn.Module, batch: Batch) -> Tensor:
        outputs = self.forward(model, batch.inputs)
        if not isinstance(outputs, Tensor):
            raise TypeError(
                f"in evaluation {type(model).__name__} gives a {type(outputs).__name__}, and one tensor is judged; "
                "say which by Task(forward=), such as forward=lambda net, x: net(x) if net.training else net(x)[0]"
            )
        return outputs

    def start(self, model: nn.Module, device: torch.device, distill: Distill | None = None) -> Session:
        return _Examples(self, model, device, distill)

    def fingerprint(self) -> dict[str, str]:
        found = {
            "metric": f"{self.metric.name} {self.metric.direction}",
            "loss": name_of(self.loss),
            "batch_size": str(self.batch_size),
            **({} if self.augment is None else {"augment": name_of(self.augment)}),
        }
        for name, part in self.parts.items():
            found[name] = (
                tensor_hash(*pytree.tree_leaves(part))
                if isinstance(part, tuple)
                else f"{type(part).__name__} {len(part)}"
            )
        return found


class _Examples:
    """`Task` in training."""

    def __init__(self, task: Task, model: nn.Module, device: torch.device, distill: Distill | None) -> None:
        self.task, self.model, self.device, self.distill = task, model, device, distill
        if distill is None:
            return
        if distill.teacher is not None:
            self.teacher = distill.teacher.to(device)
            for who, network in (("teacher", self.teacher), ("student", model)):
                check_modules(network, distill.attention, who)
            return
        train = task.parts["train"]
        if isinstance(train, torch.utils.data.DataLoader):
            raise ValueError(
                "distillation needs to know which examples a batch holds: give a data set, no loader, or the teacher "
                "itself (Distill(None, teacher=net))"
            )
        self.distilled = distill.mask(len(train[1]) if isinstance(train, tuple) else len(train))
        self.logits = distill.logits.detach().to(device)

    def losses(self) -> Iterator[Tensor]:
        self.model.train()
        for batch in self.task.batches("train", self.device, shuffle=True):
            with outputs_of(self.model, () if self.distill is None else self.distill.attention) as seen:
                outputs = self.task.forward(self.model, batch.inputs)
            loss = self.task.loss(outputs, batch.targets)
            self._last = {"inputs": batch.inputs, "targets": batch.targets, "outputs": _detached(outputs)}
            if self.distill is not None:
                loss = loss + self._taught(self.distill, outputs, seen, batch)
            yield loss

    def saw(self) -> str:
        """What the last step looked at: the error of a loss that is not finite says it."""
        return "; ".join(in_words(name, value) for name, value in self._last.items())

    def _taught(self, distill: Distill, outputs: Tensor, seen: dict[str, Tensor], batch: Batch) -> Tensor | float:
        """What the teacher adds to the loss of a batch."""
        if distill.teacher is not None:
            with torch.no_grad(), evaluating(self.teacher), outputs_of(self.teacher, distill.attention) as theirs:
                taught = self.task.forward(self.teacher, batch.inputs)
            term = distill.term(outputs, taught)
            return term + attention_loss(seen, theirs, distill.attention) if distill.attention else term
        assert batch.rows is not None
        rows = self.distilled[batch.rows]
        if not bool(rows.any()):
            return 0.0
        return distill.term(outputs[rows.to(self.device)], self.logits[batch.rows[rows].to(self.device)])

    def evaluate(self) -> Evaluation:
        return Evaluation(self.task.score(self.model, "val", self.device), self._finish)

    def _finish(self) -> tuple[float, Tensor]:
        outputs, targets = self.task._evaluated(self.model, "test", self.device)
        return self.task.metric.score(outputs, targets), outputs

    def generators(self) -> list[torch.Generator]:
        loaders = (part for part in self.task.parts.values() if isinstance(part, torch.utils.data.DataLoader))
        return [loader.generator for loader in loaders if loader.generator is not None]


def _detached(value: Any) -> Any:
    """Tensors without their history; a model may return several while it trains."""
    return pytree.tree_map(lambda part: part.detach() if isinstance(part, Tensor) else part, value)


def in_words(name: str, value: Any) -> str:
    """The range of some tensors, or how much of them is not finite.

    Example:
        >>> in_words("inputs", torch.tensor([1.0, 3.0])), in_words("outputs", torch.tensor([1.0, float("nan")]))
        ('inputs from 1 to 3', '1 of 2 outputs NaN or infinite')
    """
    leaves = [leaf.detach() for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    numbers = [leaf.flatten().double().cpu() for leaf in leaves if leaf.numel() and not leaf.is_complex()]
    if not numbers:
        return f"{name} are no numbers"
    whole = torch.cat(numbers)
    wrong = int((~torch.isfinite(whole)).sum())
    if wrong:
        return f"{wrong} of {len(whole)} {name} NaN or infinite"
    return f"{name} from {float(whole.min()):.4g} to {float(whole.max()):.4g}"


class _Numbered(Dataset[Any]):
    """A data set whose items carry their number."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: int) -> tuple[int, Any]:
        return item, self.source[item]


def _check_part(name: str, part: Any) -> None:
    if isinstance(part, tuple):
        leaves = pytree.tree_leaves(part)
        if len(part) != 2 or not isinstance(part[1], Tensor) or not all(isinstance(leaf, Tensor) for leaf in leaves):
            raise TypeError(f"{name} must be a pair of tensors (x, y), a data set or a loader")
        for x in pytree.tree_leaves(part[0]):
            if len(x) != len(part[1]):
                raise ValueError(f"{name} has {len(x)} inputs but {len(part[1])} targets")
            if x.is_floating_point() and bool(torch.isnan(x).any()):
                raise ValueError(f"{name} has NaN among its inputs")
    elif not (hasattr(part, "__len__") and hasattr(part, "__getitem__")) and not isinstance(
        part, torch.utils.data.DataLoader
    ):
        raise TypeError(f"{name} must be a pair of tensors (x, y), a data set or a loader, got {type(part).__name__}")
    if len(part[1] if isinstance(part, tuple) else part) == 0:
        raise ValueError(f"the {name} part is empty")


def _pair(batch: Any, device: torch.device | str) -> tuple[Any, Tensor]:
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return moved_to(batch[0], device), batch[1].to(device)
    if isinstance(getattr(batch, "y", None), Tensor):
        moved = batch.to(device)
        return moved, moved.y
    raise TypeError(f"a batch must be a pair (x, y) or have a y, got {type(batch).__name__}")
