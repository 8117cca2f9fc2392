"""Any recipe for sparse training, beside any training loop: the five axes joined."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from graphsparse.keep_rule import Keep, check_seed, whole_number
from graphsparse.params.axes import Axes, described, say_short_runs
from graphsparse.params.claims import check_free, check_stepped, claim, release
from graphsparse.params.counting import Which
from graphsparse.params.distribution import Distribution
from graphsparse.params.grains import Grain, Spanning
from graphsparse.params.joint import Joint, check_finite
from graphsparse.params.memory import check_apart
from graphsparse.params.patterns.n_of_m import NofM
from graphsparse.params.reparametrized import check_plain, check_unpruned
from graphsparse.params.rules import DropGrow, Rule
from graphsparse.params.scaled import scale_
from graphsparse.params.schedule import Schedule, Stages
from graphsparse.params.scores import Score
from graphsparse.params.scores.evidence import momentary
from graphsparse.params.state import check_state
from graphsparse.params.tensors import check_tensor, count_kept
from graphsparse.registry import one_of
from graphsparse.step_hooks import after_steps, before_steps

if TYPE_CHECKING:
    from typing_extensions import Self

_TENSORS = ("masks", "seen", "alive", "start", "extra")
_PLAIN = ("step", "churn", "cut", "begun", "finished")


class Sparsifier:
    r"""Train a model sparse by any recipe, beside any loop and any torch optimizer.

    A method is a choice on five axes: *pattern* (what is cut together), *distribution* (how many units each tensor
    keeps), *score* (what a unit is worth), *schedule* (how many are kept when) and *rule* (what becomes of the others).
    Each axis that is given replaces the method's own.

    Args:
        model: the module, which is changed in place.
        method: a name of :func:`methods`. None: the largest weights are projected after every step, shared out by ERK.
        keep: the kept fraction of the selected units together, in (0, 1], or ``"N:M"``. None: what ``distribution``, a
            dict, adds up to.
        steps: optimizer steps of the whole training, for what changes over time.
        seed: of random scores; a method without them does not depend on it.
        which: the weights that count, as in :func:`prunable`. None: ``"matrices"``, so that biases and norms stay
            dense, or what a pattern that spans tensors says itself.
        pattern: :class:`Elements`, :class:`Rows`, :class:`Blocks` (or a name, ``"rows"``), :class:`Modules`,
            :class:`Coupled`, or :class:`NofM`. ``"N:M"`` runs along dimension 1, the inputs of linear and convolution
            layers.
        distribution: ``"global"``, ``"uniform"``, ``"er"``, ``"erk"``, or the kept fraction of each tensor by name, in
            which ``*`` and ``?`` match as in file names.
        score: a name of :data:`SCORES` (``"magnitude"``, ``"random"``, ``"gradient"``, ``"taylor"``, ``"movement"``,
            ``"explore"``), or a function of :class:`Evidence`.
        schedule: the sparsity at each step, such as :class:`Cubic`, or :class:`Stages`.
        rule: :class:`Project`, :class:`Hold`, :class:`Shrink`, :class:`StraightThrough` or :class:`DropGrow`.
        init: ``"scaled"`` multiplies the kept weights of each row by :math:`\sqrt{\text{fan-in} / \text{kept
            fan-in}}` when the masks are first made, so that signals keep their size; for masks of new networks without
            batch norms.

    Attributes:
        parameters: the selected parameters by name.
        step: optimizer steps seen.
        churn: elements of the masks that the last update changed.

    Raises:
        ValueError: for unknown names (the closest is named), numbers out of range, axes that do not go together, a
            training too short for one update, weights that are computed from others (``torch.nn.utils.prune``,
            parametrizations), or nothing to select. Model and optimizer are then as they were.
        TypeError: for a parameter that is no dense floating-point tensor, or an axis of another kind.

    Warns:
        UserWarning: for a layer of which hardly anything is left, and for runs of N:M that are too short.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> sparsifier = Sparsifier(net, "rigl", keep=0.25, steps=40, seed=0).attach(optimizer)
        >>> for _ in range(40):
        ...     optimizer.zero_grad()
        ...     net(torch.ones(2, 8)).square().sum().backward()
        ...     optimizer.step()
        >>> masks = sparsifier.finish()
        >>> sum(int(mask.sum()) for mask in masks.values()), sparsifier.counts()
        (48, {'0.weight': 26, '2.weight': 22})
    """

    def __init__(
        self,
        model: nn.Module,
        method: str | None = None,
        *,
        keep: Keep | None = None,
        steps: int | None = None,
        seed: int = 0,
        which: Which | None = None,
        pattern: str | Grain | Spanning | NofM | None = None,
        distribution: Distribution | None = None,
        score: str | Score | None = None,
        schedule: Schedule | Stages | None = None,
        rule: Rule | None = None,
        init: str | None = None,
    ) -> None:
        self.seed = check_seed(seed)
        self.steps = None if steps is None else whole_number(steps, "steps", least=1)
        self.init = one_of(init, "init", ("scaled",), none=True)
        given = {"pattern": pattern, "distribution": distribution, "score": score, "schedule": schedule, "rule": rule}
        axes = Axes.read(method, keep, self.steps, given)
        self.method, self.rule = axes.method, axes.rule
        self.parameters, cut = axes.select(model, which)
        for name, parameter in self.parameters.items():
            check_tensor(name, parameter)
        check_unpruned(model)
        check_plain(model, self.parameters)
        check_apart(self.parameters)
        if not any(parameter.numel() for parameter in self.parameters.values()):
            raise ValueError(f"the model has no trainable weight to make sparse (which={which or 'matrices'!r})")
        choices = axes.choices(cut, self.parameters)
        fraction = axes.fraction(keep, choices[-1])
        self._joint = Joint(model, self.parameters, choices, axes.score, axes.schedule, fraction, self.seed, self.steps)
        self._joint.keep_at(0)  # a schedule that cannot work fails here
        self.rule.check(self._joint)
        self.rule.prepare(self._joint)
        self._joint.remember(self.rule.scores(axes.score))
        if self.init and (self.rule.dense or momentary(self._joint.score)):
            raise ValueError(
                "init='scaled' is for masks that hold from the start; this rule begins with a dense network, which "
                "needs no scaling"
            )
        self._settings = self._described()
        self._begun = self._finished = False
        self._begun_at: list[int] = []
        self._handles: list[RemovableHandle] = []
        say_short_runs(cut, self.parameters)

    def attach(self, optimizer: Optimizer, scaler: torch.amp.GradScaler | None = None) -> Self:
        """Choose the first masks, unless that was done before, and act at each ``optimizer.step()`` from now on.

        Args:
            optimizer: any of torch's.
            scaler: an AMP scaler by which the loss is multiplied; only a rule that adds to the loss, :class:`Bypass`,
                must know it.

        Raises:
            ValueError: if it is attached already or finished, another one makes a parameter sparse, or the optimizer
                does not step the parameters: any of them, or with ``DropGrow`` each of them.
            TypeError: if ``optimizer`` is no torch optimizer.

        Warns:
            UserWarning: if the optimizer does not step some of the parameters.
        """
        if self._handles:
            raise ValueError("the sparsifier is attached already; call detach() first")
        if self._finished:
            raise ValueError("the sparsifier has finished; make another one to go on")
        check_stepped(self.parameters, optimizer, each=isinstance(self.rule, DropGrow))
        check_free(self.parameters, self)
        if scaler is not None:
            self._joint.loss_scale = scaler.get_scale
        self._begin()
        if self._joint.ends is not None:
            self._joint.ends.listen(lambda: self.rule.reads("correlation", self._joint, self._joint.step + 1))
        self._handles = [
            before_steps(optimizer, self._before_step),
            after_steps(optimizer, self._after_step),
        ]
        return self

    def detach(self) -> None:
        """Stop acting; weights and masks stay as they are. Does nothing if it is not attached."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if not (self._joint.installed or self._joint.hooks):  # else the model is not plain before finish()
            release(self.parameters, self)
        if self._joint.ends is not None:
            self._joint.ends.stop()

    @torch.no_grad()
    def finish(self) -> dict[str, Tensor]:
        """Stop, cut to the wanted count exactly, and leave a plain module: zeros outside the masks, no hooks.

        If weights of an earlier step have been loaded, the masks are those of these weights. Called again it gives the
        same result.

        Returns:
            bool masks by name.

        Raises:
            ValueError: for weights that are not finite; where masks are chosen by gradients, if no step was made.
        """
        self.detach()
        if not self._finished:
            self._begin()
            self._joint.follow()
            if not self.rule.dense and self._joint.step == 0 and momentary(self._joint.score):
                raise ValueError("the masks are chosen by gradients or activations: make a step before finish()")
            self.rule.finish(self._joint)
            self._finished = True
            release(self.parameters, self)
        return self.masks

    @property
    def attached(self) -> bool:
        """Whether an optimizer calls this sparsifier."""
        return bool(self._handles)

    @property
    def ready(self) -> bool:
        """Whether the model is now as sparse as it will be in the end; `fit` looks for the best epoch among those."""
        return self._begun and self.rule.ready(self._joint)

    @property
    def step(self) -> int:
        """Optimizer steps seen."""
        return self._joint.step

    @property
    def churn(self) -> int:
        """Elements of the masks that the last update changed."""
        return self._joint.churn

    @property
    def seen(self) -> float:
        """Share of the selected weights that were ever kept."""
        return sum(count_kept(self._joint.seen).values()) / sum(p.numel() for p in self.parameters.values())

    @property
    def masks(self) -> dict[str, Tensor]:
        """Copies of the bool masks by name, true where kept; all true before the first are chosen."""
        self._joint.follow()
        return {name: mask.clone() for name, mask in self._joint.masks.items()}

    def counts(self) -> dict[str, int]:
        """How many weights of each selected tensor the masks keep."""
        self._joint.follow()
        return count_kept(self._joint.masks)

    def state_dict(self) -> dict[str, Any]:
        """Settings, masks and counters: plain values and copies of tensors, fit for JSON and safetensors."""
        self._joint.follow()
        plain = {"step": self._joint.step, "churn": self._joint.churn, "cut": self._joint.cut}
        tensors = {part: {n: t.clone() for n, t in getattr(self._joint, part).items()} for part in _TENSORS}
        return {"settings": self._settings, **plain, "begun": self._begun, "finished": self._finished, **tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave; no weight is changed, so load those of the same step, too.

        Load it before :meth:`attach`, or the model's state after: the first masks cut weights, once they are chosen.

        Raises:
            ValueError: for the state of other settings or parameters; nothing is loaded then.

        Warns:
            UserWarning: if ``attach`` has cut weights that the loaded masks keep.
        """
        self._joint.follow()
        check_state(state, self._settings, {part: getattr(self._joint, part) for part in _TENSORS}, _PLAIN)
        step = whole_number(state["step"], "the state's step", least=0)
        if state["finished"] and not self._finished:
            raise ValueError(
                "the state is that of a finished sparsifier; load the finished model, there is no more to do"
            )
        if self._begun and not state["begun"]:
            raise ValueError("the state was saved before the first masks were chosen: there is nothing to go on from")
        if state["begun"]:
            claim(self.parameters, self)
        if self._begun and self._lost(state["masks"]):
            warnings.warn(
                "attach() has cut weights that the loaded masks keep: load the model's state again now, or call "
                "load_state_dict() before attach()",
                stacklevel=2,
            )
        with torch.no_grad():
            for part in _TENSORS:
                for name, tensor in getattr(self._joint, part).items():
                    tensor.copy_(state[part][name])
        self._joint.step, self._joint.churn, self._joint.cut = step, state["churn"], state["cut"]
        if state["begun"] and not self._begun:
            self.rule.dress(self._joint)
            self._begun = True
        self.rule.restored(self._joint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": []}  # a copy belongs to no optimizer

    @torch.no_grad()
    def _begin(self) -> None:
        check_free(self.parameters, self)
        if not self._begun:
            self._first_masks()
        claim(self.parameters, self)

    def _first_masks(self) -> None:
        self._joint.follow()
        for name, parameter in self.parameters.items():
            check_finite(parameter.detach(), f"the weight {name!r}")
            if name in self._joint.start:
                self._joint.start[name].copy_(parameter)
        self.rule.begin(self._joint)
        self.rule.dress(self._joint)
        self._joint.churn = 0  # nothing was there before
        if self.init:
            for name, parameter in self.parameters.items():
                scale_(self._joint.model, parameter, self._joint.masks[name])
        self._begun = True
        self._begun_at = self._versions()

    def _lost(self, masks: Mapping[str, Tensor]) -> bool:
        """Whether the first masks have cut what others keep, and the weights are still as they left them."""
        if self.rule.dense or self._joint.step or self._versions() != self._begun_at:
            return False
        own = self._joint.masks
        return self.init is not None or any(bool((masks[name].to(own[name].device) & ~own[name]).any()) for name in own)

    def _versions(self) -> list[int]:
        """Numbers that grow when somebody writes to the parameters."""
        return [0 if parameter.is_inference() else parameter._version for parameter in self.parameters.values()]

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if _skipped(optimizer):
            return None
        given = dict(zip(("optimizer", "closure"), args, strict=False)) | kwargs
        closure = given.get("closure")
        if closure is None:
            self._on_gradients(optimizer)
            return None

        def followed() -> Any:  # the gradients of the step are those that the closure makes, each time it is called
            loss = closure()
            self._on_gradients(optimizer)
            return loss

        return (optimizer,), {**kwargs, "closure": followed}

    @torch.no_grad()
    def _on_gradients(self, optimizer: Optimizer) -> None:
        """What the rule does before a step."""
        self._joint.follow()
        self._joint.scale = getattr(optimizer, "grad_scale", None)
        try:
            self.rule.before_step(self._joint, optimizer)
        finally:
            self._joint.scale = None

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if _skipped(optimizer):
            return
        self._joint.step += 1
        self.rule.after_step(self._joint, optimizer)
        if self._joint.ends is not None:
            self._joint.ends.forget()

    def _described(self) -> dict[str, Any]:
        """What decides the outcome, as plain values that are the same in every process."""
        joint = self._joint
        return {
            "method": self.method,
            "keep": str(joint.keep),
            "steps": self.steps,
            "seed": self.seed,
            "init": self.init,
            "choices": [choice.settings() for choice in joint.choices],
            "score": described(joint.score),
            "schedule": described(joint.schedule),
            "rule": described(self.rule),
        }


def _skipped(optimizer: Optimizer) -> bool:
    """Whether a fused optimizer is about to skip its step, because an AMP scaler has found an overflow."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)
