"""Projected training: keep the weights of a model sparse after every step of any torch optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from graphsparse.keep_rule import Keep, kept_count
from graphsparse.params.counting import Which, prunable
from graphsparse.params.largest import mark_largest
from graphsparse.params.project import check_tensor, empty_mask
from graphsparse.params.schedule import Constant, Schedule, sparsity_fraction


class L0Projection:
    r"""Project a model's weights onto the l0 ball after every optimizer step (projected gradient descent).

    .. math:: \theta_{t+1} = P_{k_t}\big(\theta_t - \eta\, u_t\big), \qquad
        k_t = \max(1, \lceil (1 - s_t)\, m \rceil)

    where :math:`u_t` is whatever the optimizer makes of the gradient and :math:`s_t` the scheduled sparsity.

    Args:
        model: the module to keep sparse; its other parameters are not touched.
        sparsity: the removed fraction, in [0, 1), of the selected weights together.
        which: the weights that count, as in :func:`prunable`.
        schedule: ``"constant"``, or the sparsity at each step, ``schedule(step, sparsity)``, such as :class:`Cubic`.
            Steps count from 1, the first call of ``optimizer.step()``.
        revive: whether a weight that was zeroed may return when its updates make it large (projection, as in TEDDY);
            ``False`` keeps every removed weight removed (a mask).
        every: project after every so many steps; the steps between are left as they are.

    Attributes:
        step: optimizer steps seen.
        parameters: the selected parameters by name.

    Raises:
        ValueError: for a sparsity outside [0, 1), no weight to project, ``every`` below 1, or, in a step, a NaN weight.

    Source: Blumensath & Davies 2009 (iterative hard thresholding); Seo et al., "TEDDY", ICLR 2024, section 4.2.

    Example:
        >>> net = nn.Linear(8, 5)
        >>> optimizer = torch.optim.Adam(net.parameters())
        >>> projection = L0Projection(net, sparsity=0.9).attach(optimizer)
        >>> net(torch.ones(2, 8)).sum().backward()
        >>> optimizer.step()
        >>> sum(int(p.count_nonzero()) for p in net.parameters()), projection.step
        (5, 1)
        >>> projection.detach()
    """

    def __init__(
        self,
        model: nn.Module,
        sparsity: Keep = 0.9,
        which: Which = "all",
        schedule: str | Schedule = "constant",
        *,
        revive: bool = True,
        every: int = 1,
    ) -> None:
        self.sparsity = sparsity_fraction(sparsity)
        self.schedule = _read_schedule(schedule)
        if every < 1:
            raise ValueError(f"every must be at least 1 step, got {every}")
        self.revive, self.every, self.step = revive, every, 0
        self.parameters = prunable(model, which)
        for name, parameter in self.parameters.items():
            check_tensor(name, parameter)
        self.total = sum(parameter.numel() for parameter in self.parameters.values())
        if not self.total:
            raise ValueError(f"the model has no trainable weight to project (which={which!r})")
        self._count()  # a schedule that cannot work fails here, not in the first step
        self._masks = {name: empty_mask(p).fill_(True) for name, p in self.parameters.items()}
        self._handle: RemovableHandle | None = None

    def attach(self, optimizer: Optimizer) -> L0Projection:
        """Project after each ``optimizer.step()`` from now on; the hook also survives ``optimizer.load_state_dict``.

        A copy of the optimizer, or one that was pickled, carries no hook: attach another projection to it.

        Raises:
            ValueError: if it is attached already, or the optimizer steps none of the selected parameters.
            TypeError: if ``optimizer`` is no torch optimizer.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if self._handle is not None:
            raise ValueError("the projection is attached already; call detach() first")
        stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not any(id(p) in stepped for p in self.parameters.values()):
            raise ValueError("the optimizer steps none of the projected parameters; is it that of another model?")
        self._handle = optimizer.register_step_post_hook(self._after_step)
        return self

    def detach(self) -> None:
        """Remove the hook; the weights and masks stay as they are. Does nothing if it is not attached."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    @property
    def attached(self) -> bool:
        """Whether an optimizer calls this projection."""
        return self._handle is not None

    @property
    def masks(self) -> dict[str, Tensor]:
        """A copy of the last projection's bool masks by name, true where kept; all true before the first."""
        return {name: mask.clone() for name, mask in self._masks.items()}

    @torch.no_grad()
    def apply(self) -> None:
        """Project now, at the sparsity of the current step, without counting a step."""
        self._follow_devices()
        k, masks = self._count(), list(self._masks.values())
        if self.revive:
            mark_largest(self.parameters, masks, k, zero=True)
            return
        alive = sum(int(mask.sum()) for mask in masks)
        if k < alive:
            self._thin_out(k)
        for parameter, mask in zip(self.parameters.values(), masks, strict=True):
            parameter.masked_fill_(~mask, 0)

    def state_dict(self) -> dict[str, Any]:
        """Settings, ``step`` and ``masks`` by name (copies): plain values and tensors, fit for JSON and safetensors."""
        return {**self._settings(), "step": self.step, "masks": self.masks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave; an attached projection stays attached. No weight is changed.

        Raises:
            ValueError: if the state is that of other settings or parameters; nothing is loaded then.
        """
        for name, value in self._settings().items():
            if state.get(name) != value:
                raise ValueError(f"the state has {name} = {state.get(name)!r}, this projection {value!r}")
        step, masks = state.get("step"), state.get("masks")
        if not isinstance(step, int) or step < 0 or not isinstance(masks, Mapping):
            raise ValueError("the state of an L0Projection has 'step', a whole number, and 'masks' by name")
        if masks.keys() != self._masks.keys():
            differing = sorted(masks.keys() ^ self._masks.keys())
            raise ValueError(f"the state belongs to other parameters; they differ in {differing[:5]}")
        for name, mask in self._masks.items():
            saved = masks[name]
            if not isinstance(saved, Tensor) or saved.shape != mask.shape or saved.dtype != torch.bool:
                raise ValueError(f"the state's mask of {name!r} is no bool tensor of shape {[*mask.shape]}")
        self.step = step
        for name, mask in self._masks.items():
            mask.copy_(masks[name])

    def __enter__(self) -> L0Projection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def __getstate__(self) -> dict[str, Any]:
        # A copy belongs to no optimizer; copying the hook's handle would copy the optimizer's other hooks too.
        return {**self.__dict__, "_handle": None}

    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.step += 1
        if self.step % self.every == 0:
            self.apply()

    def _settings(self) -> dict[str, Any]:
        """What decides the outcome, as plain values that are the same in every process."""
        named = self.schedule if hasattr(self.schedule, "__qualname__") else type(self.schedule)
        schedule = repr(self.schedule) if is_dataclass(self.schedule) else f"{named.__module__}.{named.__qualname__}"
        return {"sparsity": str(self.sparsity), "schedule": schedule, "revive": self.revive, "every": self.every}

    def _count(self) -> int:
        sparsity = sparsity_fraction(self.schedule(self.step, self.sparsity), "the scheduled sparsity")
        return kept_count(1 - sparsity, self.total)

    def _thin_out(self, k: int) -> None:
        """Leave the ``k`` largest of the weights that the masks still keep; a removed one may not win a tie."""
        left = {name: p[self._masks[name]] for name, p in self.parameters.items()}
        kept = [empty_mask(weights) for weights in left.values()]
        mark_largest(left, kept, k, zero=False)
        for mask, part in zip(self._masks.values(), kept, strict=True):
            mask[mask.clone()] = part

    def _follow_devices(self) -> None:
        for name, parameter in self.parameters.items():
            self._masks[name] = self._masks[name].to(parameter.device)


def _read_schedule(schedule: str | Schedule) -> Schedule:
    if schedule == "constant":
        return Constant()
    if isinstance(schedule, str):
        raise ValueError(f"schedule must be 'constant' or a schedule such as Cubic(end=1000), got {schedule!r}")
    return schedule
