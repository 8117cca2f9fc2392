"""What flows through the two ends of a layer's weights: its inputs and outputs in the last training batch."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils.hooks import RemovableHandle

from graphsparse.params.hooks import seen_by_compiled_models
from graphsparse.params.masked import homes
from graphsparse.params.ranks import over_ranks

Heard = tuple[Tensor, Tensor]
# Tables of rows, and the last layer of attention, which torch's own attention never calls.
_UNHEARD = (nn.Embedding, nn.EmbeddingBag, nn.modules.linear.NonDynamicallyQuantizableLinear)


class Ends:
    """Forward hooks that keep the last batch at the two ends of some weights.

    A weight of a tied layer has the batches of all its layers. Of images each channel's mean counts. In a distributed
    training the correlation is that of all processes' batches together.

    Args:
        model: the module.
        parameters: the weights, by name.

    Raises:
        ValueError: for a weight of anything else than linear and convolution layers.
    """

    def __init__(self, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        self._layers: dict[str, list[nn.Module]] = {}
        for name, parameter in parameters.items():
            self._layers[name] = _layers(model, parameter)
            if not self._layers[name]:
                kinds = sorted({type(module).__name__ for module, _ in homes(model, parameter)})
                raise ValueError(
                    f"correlation is that of the two ends of a linear or convolution layer's weight, and {name!r} is a "
                    f"parameter of {', '.join(kinds)}; leave it out by which="
                )
        self._ears = {name: [_Ear() for _ in layers] for name, layers in self._layers.items()}
        self._handles: list[RemovableHandle] = []

    def listen(self, wanted: Callable[[], bool]) -> None:
        """Keep what passes in training mode, whenever it is wanted, from now on."""
        for name, layers in self._layers.items():
            for ear, layer in zip(self._ears[name], layers, strict=True):
                ear.wanted = wanted
                self._handles.append(layer.register_forward_hook(ear))
        seen_by_compiled_models()

    def stop(self) -> None:
        """Keep nothing more, and forget what was kept."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for ear in self._all():
            ear.wanted = _never  # code that was compiled with it may still call it
        self.forget()

    def forget(self) -> None:
        """Drop the last batch."""
        for ear in self._all():
            ear.heard = None

    def _all(self) -> Iterator[_Ear]:
        return itertools.chain.from_iterable(self._ears.values())

    def correlation(self, name: str, shape: torch.Size, step: int) -> Tensor:
        """Pearson's correlation of the two ends of each weight, in [-1, 1], float64, along its first two dimensions.

        It is 0 where one end does not vary.

        Raises:
            ValueError: if no batch has passed in training mode, or what passed does not fit.
        """
        moments: Tensor | None = None
        layer = self._layers[name][0]
        groups = int(getattr(layer, "groups", 1))
        rows, columns = shape[0], shape[1] * groups
        for ear in self._ears[name]:
            if ear.heard is not None:
                before, after = (_examples(part, layer) for part in ear.heard)
                first, second = (before, after) if isinstance(layer, _ConvTransposeNd) else (after, before)
                if first.shape[1:] != (rows,) or second.shape[1:] != (columns,) or len(first) != len(second):
                    raise ValueError(
                        f"the inputs {[*ear.heard[0].shape]} and outputs {[*ear.heard[1].shape]} of the layer of "
                        f"{name!r} are not the ends of a weight of shape {[*shape]}; leave it out by which="
                    )
                own = _moments(first, second)
                moments = own if moments is None else moments + own
        if moments is None:
            raise ValueError(
                f"{name!r} has heard no batch at step {step}, and the masks are chosen by its activations: call the "
                "model in training mode before optimizer.step(), and the layer as layer(x), not by its forward; or "
                "leave it out by which="
            )
        return _diagonal(_correlated(over_ranks(moments), rows, columns), groups)


class _Ear:
    """A forward hook; a copy or a pickle of it, in a copy of the model, hears nothing."""

    def __init__(self) -> None:
        self.heard: Heard | None = None
        self.wanted: Callable[[], bool] = _never

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # else every step would be compiled anew
    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if (
            module.training
            and self.wanted()
            and inputs
            and isinstance(inputs[0], Tensor)
            and isinstance(output, Tensor)
        ):
            self.heard = inputs[0].detach(), output.detach()

    def __deepcopy__(self, memo: object) -> _Ear:
        return _Ear()

    def __reduce__(self) -> tuple[type[_Ear], tuple[()]]:
        return _Ear, ()


def with_ends(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Those parameters of which both ends can be heard; a warning names the others, which stay dense.

    Raises:
        ValueError: if there is none.
    """
    found = {name: parameter for name, parameter in parameters.items() if _layers(model, parameter)}
    others = [name for name in parameters if name not in found]
    if others and not found:
        raise ValueError(f"no weight has two ends to be heard: {others[0]!r} is none of a linear or convolution layer")
    if others:
        warnings.warn(
            f"{len(others)} weights stay dense, for only those of linear and convolution layers have two ends: "
            f"{', '.join(map(repr, others[:3]))}{' and more' if len(others) > 3 else ''}",
            stacklevel=4,
        )
    return found


def _never() -> bool:
    return False


def _layers(model: nn.Module, parameter: nn.Parameter) -> list[nn.Module]:
    """The layers whose weight a parameter is, with an input and an output that can be heard."""
    return [module for module, own in homes(model, parameter) if _two_ends(module, own, parameter)]


def _two_ends(module: nn.Module, own: str, parameter: nn.Parameter) -> bool:
    if isinstance(module, _ConvNd):
        return own == "weight"
    return parameter.dim() == 2 and own == "weight" and not isinstance(module, _UNHEARD)


def _examples(values: Tensor, layer: nn.Module) -> Tensor:
    """Activations as ``[examples, channels]``, float64."""
    values = values.double()
    if not isinstance(layer, _ConvNd):
        return values.reshape(-1, values.shape[-1])
    spatial = layer.weight.dim() - 2
    return values.mean(tuple(range(-spatial, 0))).reshape(-1, values.shape[-spatial - 1])


def _moments(first: Tensor, second: Tensor) -> Tensor:
    """Sums that add up over batches: of both ends, of their squares, and of their products, with the count in front."""
    count = first.new_full((1,), len(first))
    sums = [part.sum(0) for part in (first, second, first.square(), second.square())]
    return torch.cat([count, *sums, (first.T @ second).reshape(-1)])


def _correlated(moments: Tensor, rows: int, columns: int) -> Tensor:
    count, one, two, squares, others, products = torch.split(moments, [1, rows, columns, rows, columns, rows * columns])
    mean, other = one / count, two / count
    shared = products.view(rows, columns) / count - mean[:, None] * other
    spread, spread_of_others = _variance(squares / count, mean), _variance(others / count, other)
    found: Tensor = (shared / (spread[:, None] * spread_of_others).sqrt()).clamp(-1, 1)
    return found


def _variance(square: Tensor, mean: Tensor) -> Tensor:
    """Of what does not vary, as far as sums in float64 can tell: infinite, so that its correlation is 0."""
    found = square - mean.square()
    return found.masked_fill(found <= 1e-12 * square, torch.inf)


def _diagonal(found: Tensor, groups: int) -> Tensor:
    """Of groups that do not meet, each row's own columns."""
    rows, columns = found.shape
    blocks = found.view(groups, rows // groups, groups, columns // groups)
    return torch.stack([blocks[i, :, i] for i in range(groups)]).reshape(rows, columns // groups)
