"""Knowledge distillation: the student also learns what the teacher says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsparse.registry import one_of

Outputs = Literal["classes", "labels", "values"]


@dataclass(frozen=True)
class Distill:
    r"""What is distilled, and with which weight beside the task's loss.

    .. math:: L = L_{task} + \lambda \frac{T^2}{|S|} \sum_{v \in S} \mathrm{KL}(teacher_v \,\|\, student_v)

    S are the distilled nodes and both distributions are softmax(logits / T) (TEDDY, ICLR 2024, eq. 9, has
    T = 1 and all nodes; Hinton et al., 2015, the factor T^2). For outputs that are no classes, see `outputs`.

    Args:
        teacher_logits: eval-mode outputs of the teacher, one row per node of the whole graph (for other
            tasks: per graph or training example), e.g. `FitResult.logits`; with `decode` what that takes. None where
            `teacher` is given.
        weight: lambda, at least 0.
        nodes: which nodes to distil, a mask [N] or ids; None takes all. An inductive task takes those of
            them that lie in its training graph.
        temperature: T, above 0.
        outputs: ``"classes"``: a row is a distribution over classes; ``"labels"``: each column is a label of its own
            that holds or not, KL(sigmoid || sigmoid) is averaged over the columns; ``"values"``: a row is distilled by
            its mean squared error, without a temperature.
        decode: from embeddings of nodes [N, H] and pairs [2, M] to the teacher's logits [M], where pairs are distilled
            that are drawn in training.
        teacher: a network that is asked batch by batch (a `Task` of examples only): for inputs that are augmented, or
            that come from a loader, of which no row is known beforehand.
        attention: weights by name of modules whose attention maps are distilled, too (with a `teacher`): the squared
            distance of :math:`\mathrm{mean}_c F_c^2`, normalised, of each example. Both networks have these modules;
            their channels may differ in number, their places may not.

    Raises:
        ValueError: if the logits are not a finite matrix, not exactly one of `teacher_logits` and `teacher` is given,
            or `weight`, `temperature` or one of `attention` is out of range.
    """

    teacher_logits: Tensor | None
    weight: float = 1.0
    nodes: Tensor | None = None
    temperature: float = 1.0
    outputs: Outputs = "classes"
    decode: Callable[[Tensor, Tensor], Tensor] | None = None
    teacher: nn.Module | None = None
    attention: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        logits = self.teacher_logits
        if (logits is None) == (self.teacher is None):
            raise ValueError("give exactly one of teacher_logits and teacher")
        if logits is not None and (logits.dim() != 2 or not bool(torch.isfinite(logits).all())):
            raise ValueError("teacher_logits must be a finite matrix with one row per node")
        if not self.weight >= 0:
            raise ValueError(f"the distillation weight must be at least 0, got {self.weight}")
        if not self.temperature > 0:
            raise ValueError(f"the distillation temperature must be above 0, got {self.temperature}")
        if self.attention and self.teacher is None:
            raise ValueError("attention maps are those of a network: give teacher= in the place of teacher_logits")
        for name, weight in self.attention.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"the weight of the attention of {name!r} must be at least 0, got {weight}")
        object.__setattr__(self, "outputs", one_of(self.outputs, "outputs", get_args(Outputs)))

    @property
    def logits(self) -> Tensor:
        """The teacher's outputs.

        Raises:
            ValueError: if a teacher was given in their place, which only a `Task` of examples asks.
        """
        if self.teacher_logits is None:
            raise ValueError("this task distils teacher_logits, its teacher's outputs, and asks no teacher by batches")
        return self.teacher_logits

    def mask(self, rows: int) -> Tensor:
        """The distilled rows as a mask [rows] on the CPU.

        Raises:
            ValueError: if the teacher does not have one row each, or `nodes` names none or unknown rows.
        """
        if self.logits.size(0) != rows:
            raise ValueError(f"the teacher has {self.logits.size(0)} rows of logits for {rows} examples")
        if self.nodes is None:
            return torch.ones(rows, dtype=torch.bool)
        nodes = self.nodes.detach().cpu()
        if nodes.dtype == torch.bool:
            if nodes.shape != (rows,):
                raise ValueError(f"a mask of distilled nodes must have shape [{rows}], got {list(nodes.shape)}")
            chosen = nodes.clone()
        else:
            if nodes.numel() and not 0 <= int(nodes.min()) <= int(nodes.max()) < rows:
                raise ValueError(f"distilled nodes must be ids in 0 ... {rows - 1}")
            chosen = torch.zeros(rows, dtype=torch.bool)
            chosen[nodes.long()] = True
        if not bool(chosen.any()):
            raise ValueError("no node is left to distil")
        return chosen

    def term(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The weighted loss of the given rows: a scalar.

        Args:
            student, teacher: outputs [M, C] of the same rows; one column of classes stands for two. Of further
                dimensions [M, C, ...], such as pixels, each place is a row.
        """
        if student.shape != teacher.shape:
            raise ValueError(f"teacher and student differ in shape: {list(teacher.shape)}, {list(student.shape)}")
        if student.dim() != 2 and self.outputs != "values":
            student, teacher = (rows_of(outputs) for outputs in (student, teacher))
        if self.outputs == "values":
            return self.weight * functional.mse_loss(student, teacher)
        T = self.temperature
        if self.outputs == "labels":
            student, teacher = student.reshape(-1, 1), teacher.reshape(-1, 1)
        divergence = functional.kl_div(
            functional.log_softmax(two_columns(student) / T, dim=1),
            functional.log_softmax(two_columns(teacher) / T, dim=1),
            reduction="sum",
            log_target=True,
        )
        return self.weight * T * T * divergence / student.size(0)


def rows_of(outputs: Tensor) -> Tensor:
    """Outputs [N, C, ...] as rows [M, C]; one number for each example is a column."""
    return outputs.movedim(1, -1).flatten(0, -2) if outputs.dim() > 1 else outputs.unsqueeze(1)


def two_columns(logits: Tensor) -> Tensor:
    """Logits [N, C] of C classes; a single column is that of the second of two classes."""
    return torch.cat((torch.zeros_like(logits), logits), dim=1) if logits.size(1) == 1 else logits
