"""Projected training: keep the weights of a model sparse after every step of any torch optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from graphsparse.keep_rule import Keep, whole_number
from graphsparse.params.claims import check_stepped, claim, release
from graphsparse.params.counting import Which, prunable
from graphsparse.params.distribution import Distribution
from graphsparse.params.memory import check_apart
from graphsparse.params.patterns.l0 import L0
from graphsparse.params.patterns.pattern import Pattern
from graphsparse.params.reparametrized import TorchMasks, check_plain
from graphsparse.params.schedule import Constant, Schedule, sparsity_fraction
from graphsparse.params.starved import Starved
from graphsparse.params.tensors import check_tensor, empty_mask, filled_in
from graphsparse.step_hooks import after_steps

if TYPE_CHECKING:
    from typing_extensions import Self

_LOOKS = 32  # steps between two looks for starved layers: counting every mask at every step costs a tenth of it


class Projection:
    r"""Project a model's weights onto a pattern after every optimizer step (projected gradient descent).

    .. math:: \theta_{t+1} = P_t\big(\theta_t - \eta\, u_t\big)

    where :math:`u_t` is whatever the optimizer makes of the gradient and :math:`P_t` the projection onto the pattern at
    the scheduled sparsity.

    Args:
        model: the module to keep sparse; its other parameters are not touched. What ``torch.nn.utils.prune`` has masked
            in it is never kept.
        pattern: which weights stay: :class:`L0`, :class:`Groups`, :class:`NofM` or :class:`Fixed`.
        schedule: ``"constant"``, or the sparsity at each step, ``schedule(step, sparsity)``, such as :class:`Cubic`; it
            leads to the pattern's own sparsity. Steps count from 1, the first call of ``optimizer.step()``.
        which: the weights that count, as in :func:`prunable`.
        revive: whether a weight that was zeroed may return when its updates make it large (projection, as in TEDDY);
            ``False`` keeps every removed weight removed (a mask).
        every: project after every so many steps; the steps between are left as they are.

    Attributes:
        pattern: the pattern at the end of the schedule.
        step: optimizer steps seen.
        parameters: the selected parameters by name.
        total: how many weights they hold.

    Raises:
        ValueError: for no weight to project, parameters that overlap in memory or that weights are computed from
            (``weight_norm`` and other parametrizations), tensors that the pattern cannot be made of, ``every`` below 1,
            or, in a step, a NaN weight.
        TypeError: for a parameter that is no dense floating-point tensor, or a pattern that is none.

    Warns:
        UserWarning: once for each tensor of which nothing, and each layer of which hardly anything is left.

    Source: Blumensath & Davies 2009 (iterative hard thresholding).

    Example:
        >>> from graphsparse.params import NofM
        >>> net = nn.Linear(8, 3)
        >>> optimizer = torch.optim.Adam(net.parameters())
        >>> projection = Projection(net, NofM(2, 4), which="matrices").attach(optimizer)
        >>> net(torch.ones(2, 8)).sum().backward()
        >>> optimizer.step()
        >>> net.weight.count_nonzero(dim=1), projection.step
        (tensor([4, 4, 4]), 1)
        >>> projection.detach()
    """

    def __init__(
        self,
        model: nn.Module,
        pattern: Pattern,
        schedule: str | Schedule = "constant",
        *,
        which: Which = "all",
        revive: bool = True,
        every: int = 1,
    ) -> None:
        if not isinstance(pattern, Pattern):
            raise TypeError(f"pattern must be one such as L0(keep=0.1), got {type(pattern).__name__}")
        self.pattern = pattern
        self.schedule = _read_schedule(schedule)
        self.every = whole_number(every, "every", least=1)
        self.revive, self.step = revive, 0
        self.parameters = prunable(model, which)
        for name, parameter in self.parameters.items():
            check_tensor(name, parameter)
        check_plain(model, self.parameters)
        check_apart(self.parameters)
        self.total = sum(parameter.numel() for parameter in self.parameters.values())
        if not self.total:
            raise ValueError(f"the model has no trainable weight to project (which={which!r})")
        pattern.check(self.parameters)
        self._now()  # a schedule that cannot work fails here, not in the first step
        self._pruned = TorchMasks(model)
        self._masks = {name: empty_mask(p).fill_(True) for name, p in self.parameters.items()}
        self._starved = Starved({name: p.numel() for name, p in self.parameters.items()})
        self._applied = 0
        self._handle: RemovableHandle | None = None

    def attach(self, optimizer: Optimizer) -> Self:
        """Project after each ``optimizer.step()`` from now on; the hook also survives ``optimizer.load_state_dict``.

        A copy of the optimizer, or one that was pickled, carries no hook: attach another projection to it.

        Raises:
            ValueError: if it is attached already, another one makes a parameter sparse, or the optimizer steps none of
                the selected parameters.
            TypeError: if ``optimizer`` is no torch optimizer.
        """
        if self._handle is not None:
            raise ValueError("the projection is attached already; call detach() first")
        check_stepped(self.parameters, optimizer)
        claim(self.parameters, self)
        self._handle = after_steps(optimizer, self._after_step)
        return self

    def detach(self) -> None:
        """Remove the hook; the weights and masks stay as they are. Does nothing if it is not attached."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
            release(self.parameters, self)

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
        pruned = filled_in(self.parameters, self._pruned) if self._pruned else None
        within = pruned
        if not self.revive:
            within = self._masks
            if pruned is not None:
                within = {name: mask & pruned[name] for name, mask in self._masks.items()}
        self._now().write(self.parameters, self._masks, within, zero=True)
        if self._applied % _LOOKS == 0:
            self._starved.warn(self._masks)
        self._applied += 1

    def state_dict(self) -> dict[str, Any]:
        """Settings, ``step`` and ``masks`` by name (copies): plain values and tensors, fit for JSON and safetensors."""
        return {**self._settings(), "step": self.step, "masks": self.masks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave; an attached projection stays attached. No weight is changed.

        Raises:
            ValueError: if the state is that of other settings or parameters; nothing is loaded then.
        """
        settings = self._settings()
        for name in dict.fromkeys([*settings, *(key for key in state if key not in ("step", "masks"))]):
            if state.get(name) != settings.get(name):
                raise ValueError(f"the state has {name} = {state.get(name)!r}, this projection {settings.get(name)!r}")
        step, masks = state.get("step"), state.get("masks")
        if not isinstance(step, int) or step < 0 or not isinstance(masks, Mapping):
            raise ValueError("the state of a projection has 'step', a whole number, and 'masks' by name")
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

    def __enter__(self) -> Self:
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
        return {**self.pattern.settings(), "schedule": schedule, "revive": self.revive, "every": self.every}

    def _now(self) -> Pattern:
        """The pattern at the sparsity of the current step."""
        final = 1 - self.pattern.kept
        sparsity = self.schedule(self.step, final)
        if sparsity == final:
            return self.pattern
        return self.pattern.at(1 - sparsity_fraction(sparsity, "the scheduled sparsity"))

    def _follow_devices(self) -> None:
        for name, parameter in self.parameters.items():
            self._masks[name] = self._masks[name].to(parameter.device)


class L0Projection(Projection):
    r"""Project a model's weights onto the l0 ball after every optimizer step: :class:`Projection` onto :class:`L0`.

    .. math:: \theta_{t+1} = P_{k_t}\big(\theta_t - \eta\, u_t\big), \qquad
        k_t = \max(1, \lceil (1 - s_t)\, m \rceil)

    where :math:`u_t` is whatever the optimizer makes of the gradient and :math:`s_t` the scheduled sparsity.

    Args:
        model: the module to keep sparse; its other parameters are not touched.
        sparsity: the removed fraction, in [0, 1), of the selected weights together.
        which: the weights that count, as in :func:`prunable`.
        schedule: as for :class:`Projection`.
        revive: as for :class:`Projection`.
        every: as for :class:`Projection`.
        distribution: how many weights each tensor keeps. ``"global"``: the largest of all tensors together, as in
            TEDDY; where their scales differ (layers of other widths, no normalisation), whole layers run empty and the
            model learns no more. ``"uniform"``: the same share of each; ``"er"``, ``"erk"``: more of small tensors; or
            a relative density for each tensor by name, see :func:`allot`.

    Attributes:
        sparsity: as it was given, exactly.

    Raises:
        ValueError: for a sparsity outside [0, 1), an unknown distribution, and what :class:`Projection` raises.

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
        distribution: Distribution = "global",
    ) -> None:
        self.sparsity = sparsity_fraction(sparsity)
        pattern = L0(1 - self.sparsity, distribution)
        super().__init__(model, pattern, schedule, which=which, revive=revive, every=every)


def _read_schedule(schedule: str | Schedule) -> Schedule:
    if schedule == "constant":
        return Constant()
    if isinstance(schedule, str):
        raise ValueError(f"schedule must be 'constant' or a schedule such as Cubic(end=1000), got {schedule!r}")
    return schedule
