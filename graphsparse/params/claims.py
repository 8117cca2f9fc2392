"""Who makes which parameters sparse at present, one at a time, and which optimizer steps them."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary

_HOLDERS: Any = WeakIdKeyDictionary()  # parameter -> weak reference to its holder


def check_free(parameters: Mapping[str, nn.Parameter], holder: object) -> None:
    """Refuse parameters that another one makes sparse.

    Raises:
        ValueError: naming the first.
    """
    for name, parameter in parameters.items():
        other = _of(parameter)
        if other is not None and other is not holder:
            kind = type(other).__name__
            ends = "finish() or detach()" if hasattr(other, "finish") else "detach()"
            raise ValueError(
                f"{name!r} is made sparse by another {kind} already, and two would undo each other's counts; call its "
                f"{ends} first, or leave the weight out by which="
            )


def claim(parameters: Mapping[str, nn.Parameter], holder: object) -> None:
    """Make parameters one's own until :func:`release`, or until the holder is gone.

    Raises:
        ValueError: as :func:`check_free`; nothing is claimed then.

    Example:
        >>> class Holder: ...
        >>> one, two, weights = Holder(), Holder(), {"weight": nn.Parameter(nn.Linear(1, 1).weight)}
        >>> claim(weights, one)
        >>> release(weights, one)
        >>> claim(weights, two)
    """
    check_free(parameters, holder)
    own = weakref.ref(holder)
    for parameter in parameters.values():
        _HOLDERS[parameter] = own


def release(parameters: Mapping[str, nn.Parameter], holder: object) -> None:
    """Let go of parameters that were claimed."""
    for parameter in _held(parameters, holder):
        del _HOLDERS[parameter]


def check_stepped(parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, *, each: bool = False) -> None:
    """Look whether an optimizer steps parameters.

    Args:
        parameters: by name.
        optimizer: any of torch's.
        each: whether it must step every one.

    Raises:
        TypeError: if it is no torch optimizer.
        ValueError: if it steps none of them, or not ``each``.

    Warns:
        UserWarning: if it steps some of them.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [name for name, p in parameters.items() if id(p) not in stepped]
    if len(missing) == len(parameters):
        raise ValueError("the optimizer steps none of the selected parameters; is it that of another model?")
    if missing and each:
        raise ValueError(
            f"the optimizer never steps {missing[0]!r}, so what grows there would stay zero; give it the parameter, or "
            "leave it out by which= (and make another one for it, if another optimizer steps it)"
        )
    if missing:
        warnings.warn(
            f"the optimizer never steps {missing[0]!r}; if another one does, its weights outside the mask are not zero "
            "between the steps: make one for the parameters of each optimizer, by which=",
            stacklevel=3,
        )


def _held(parameters: Mapping[str, nn.Parameter], holder: object) -> Iterator[nn.Parameter]:
    yield from (parameter for parameter in parameters.values() if _of(parameter) is holder)


def _of(parameter: nn.Parameter) -> object:
    found = _HOLDERS.get(parameter)
    return None if found is None else found()
