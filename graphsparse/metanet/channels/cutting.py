"""Cutting channels out of a module for good, through Torch-Pruning's dependency graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree
from torch_geometric.nn.dense.linear import Linear as GraphLinear

from graphsparse.errors import GraphsparseError
from graphsparse.fit import rng
from graphsparse.fit.measure import device_of, evaluating
from graphsparse.metanet.channels.budget import LAYERS, TRANSPOSED, Cost, arguments, first_reaching, prefix_for
from graphsparse.metanet.channels.sets import Channels, check_mask, keep_after, masked
from graphsparse.metanet.graph import NetworkGraph

if TYPE_CHECKING:
    import torch_pruning as tp

KeptChannels = dict[str, list[int]]

_OVER_CHANNELS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)


class ShrinkError(GraphsparseError):
    """A module cannot be cut as a mask asks."""


def shrink(
    graph: NetworkGraph, keep: Tensor, example_inputs: Tensor | tuple[Any, ...]
) -> tuple[nn.Module, KeptChannels]:
    """The module of the kept channels, smaller in memory and time.

    It computes what the module of ``masked(graph, keep)`` computes, except where a norm averages over channels. What a
    module does in training mode only (an auxiliary head) is cut along, or keeps the channels that it takes up.

    Args:
        graph: the network; its values become the small module's.
        keep: bool ``[num_nodes]``; coupled channels stay or go together, inputs and outputs stay.
        example_inputs: as for `NetworkGraph.from_module`.

    Returns:
        The module, and for each layer that lost channels the indices of those that it kept.

    Raises:
        ValueError: the mask tears coupled channels apart or drops what must stay.
        ShrinkError: Torch-Pruning cannot cut this module so.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> graph = NetworkGraph.from_module(net, torch.zeros(1, 2))
        >>> small, kept = shrink(graph, torch.tensor([1, 1, 1, 0, 1, 1]).bool(), torch.zeros(1, 2))
        >>> small[0].weight.shape, kept
        (torch.Size([2, 2]), {'0': [0, 2]})
    """
    check_mask(graph, keep)
    module = graph.to_module()
    kept = kept_channels(graph, keep, module)
    cut(module, kept, example_inputs)
    wide, inputs = masked(graph, keep).to_module(), arguments(example_inputs)
    _check_same(wide, module, inputs)
    _check_trains(wide, module, inputs)
    return module, kept


def kept_channels(graph: NetworkGraph, keep: Tensor, module: nn.Module) -> KeptChannels:
    """For each layer that loses channels, the indices that stay.

    Raises:
        ShrinkError: a dropped channel is made by no linear layer or convolution.
    """
    found: KeptChannels = {}
    made = torch.zeros(graph.num_nodes, dtype=torch.bool)
    keep = keep.cpu()
    for name, layer in module.named_modules():
        uses = output_nodes(graph, layer, f"{name}.weight" if name else "weight") if isinstance(layer, LAYERS) else []
        if not uses:
            continue
        made[torch.cat(uses)] = True
        nodes = uses[0]  # a layer that is used twice has coupled channels
        if not bool(keep[nodes].all()):
            found[name] = torch.nonzero(keep[nodes])[:, 0].tolist()
    orphans = torch.nonzero(~keep & ~made)
    if len(orphans):
        where = graph.layer_names[int(graph.layer[orphans[0, 0]])]
        raise ShrinkError(f"channels of '{where}' are made by no linear layer or convolution: they cannot be cut")
    return found


def layer_widths(module: nn.Module) -> dict[str, int]:
    """Number of output channels of each layer that can be cut, in the order of the module.

    Example:
        >>> layer_widths(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
        {'0': 3, '2': 1}
    """
    return {name: _width(layer) for name, layer in module.named_modules() if isinstance(layer, LAYERS)}


def cut(module: nn.Module, kept: Mapping[str, Sequence[int]], example_inputs: Tensor | tuple[Any, ...]) -> nn.Module:
    """Cut a module in place down to the given output channels of its layers, and all that hangs on them.

    Args:
        module: a module whose layers have their full widths.
        kept: layer name -> indices of the output channels that stay, for each layer that loses some.
        example_inputs: as for `NetworkGraph.from_module`.

    Raises:
        ShrinkError: there is no such layer or channel, or Torch-Pruning cannot cut this module so.
    """
    initialise(module, arguments(example_inputs))
    layers = dict(module.named_modules())
    modes = {part: part.training for part in layers.values()}
    named = dict(module.named_parameters(remove_duplicate=False))
    learns = {name: parameter.requires_grad for name, parameter in named.items()}
    first = {id(parameter): name for name, parameter in reversed(named.items())}
    ties = {name: first[id(parameter)] for name, parameter in named.items() if first[id(parameter)] != name}
    width = {}
    for name, stay in kept.items():
        if name not in layers or not isinstance(layers[name], LAYERS):
            raise ShrinkError(f"the module has no linear or convolution layer named '{name}'")
        width[name] = _width(layers[name])
        if not stay or min(stay) < 0 or max(stay) >= width[name] or len(set(stay)) < len(stay):
            raise ShrinkError(
                f"layer '{name}' has {width[name]} channels: the kept ones must be some of them, once each"
            )
    module.eval().requires_grad_(True)
    try:
        dependency = _dependencies(module, example_inputs)
        for name, stay in kept.items():
            if _width(layers[name]) == width[name]:  # else a layer that it is coupled to has cut it already
                _cut_layer(dependency, layers[name], sorted(set(range(width[name])) - set(stay)))
    except ShrinkError:
        raise
    except Exception as error:
        raise ShrinkError(f"Torch-Pruning cannot cut this {type(module).__name__}: {error}") from error
    finally:
        for part, mode in modes.items():
            part.training = mode
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(learns[name])
            parameter.grad = None
    _tie(module, ties)
    for name, stay in kept.items():
        if _width(layers[name]) != len(stay):
            raise ShrinkError(f"layer '{name}' was left with {_width(layers[name])} channels instead of {len(stay)}")
    return module


def _tie(module: nn.Module, ties: Mapping[str, str]) -> None:
    """Make one parameter of those that were one: Torch-Pruning gives each layer its own."""
    for name, first in ties.items():
        mine, other = module.get_parameter(name), module.get_parameter(first)
        if mine.shape != other.shape or not torch.equal(mine.detach(), other.detach()):
            raise ShrinkError(f"'{name}' and '{first}' are one parameter and were cut differently")
        path, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(path), attribute, other)


def least_pruned(
    graph: NetworkGraph,
    order: Callable[[Channels], list[Tensor]],
    cost: Cost,
    exact: Callable[[nn.Module], int],
    limit: float | Fraction,
    example_inputs: Tensor | tuple[Any, ...],
) -> tuple[Tensor, tuple[nn.Module, KeptChannels]]:
    """The mask of the least-pruned network within a limit, and that network, of all that an order goes through.

    Where the last step goes further than it must, the next step of another group takes its place if that is enough and
    goes less far. A group that Torch-Pruning cannot cut stays whole.

    Args:
        graph: the network.
        order: from units to the steps of removal, such as `removal_order` with its options.
        cost: the network's cost, spread over the graph: exact, or a first guess.
        exact: the cost of a module.
        limit: the largest cost that will do.
        example_inputs: as for `shrink`.

    Raises:
        ValueError: the limit is out of reach.
        ShrinkError: Torch-Pruning can cut nothing of what has to go.
    """
    channels = Channels.of(graph)
    while True:
        search = _Search(graph, channels, order(channels), exact, example_inputs)
        try:
            at = search.first(cost, limit)
            if at is not None:
                return search.finest(at, cost, limit)
            left, whole = search.exact(len(search.steps)), search.exact(0)
        except ShrinkError as error:
            channels = cuttable(graph, channels, search.last, example_inputs, error)
            continue
        free = Channels.of(graph).prunable
        held = int((free & ~channels.prunable).sum())
        raise ValueError(
            f"the target cannot be reached: with all groups cut down to what must stay (min_keep, round_to) "
            f"{left / whole:.3f} of the cost is left, and {float(limit) / whole:.3f} is asked for"
            + (f"; {held} of {int(free.sum())} sets of channels cannot be cut" if held else "")
        )


class _Search:
    """The networks that an order of removal goes through, by the number of steps."""

    def __init__(
        self,
        graph: NetworkGraph,
        channels: Channels,
        steps: list[Tensor],
        measure: Callable[[nn.Module], int],
        inputs: Tensor | tuple[Any, ...],
    ) -> None:
        self.graph, self.channels, self.steps, self.measure, self.inputs = graph, channels, steps, measure, inputs
        self.last = self.keep(0)  # the mask that was shrunk last
        self._costs: dict[int, int] = {}
        self._found: tuple[int, tuple[nn.Module, KeptChannels]] | None = None

    def first(self, cost: Cost, limit: float | Fraction) -> int | None:
        """The smallest number of steps within the limit, None if there is none."""
        count = len(self.steps)
        found = prefix_for(count, lambda k: cost.left(self.graph, self.keep(k)), limit)
        at = min(found, count)
        if self.exact(at) != cost.left(self.graph, self.keep(at)):  # products of activations: only an estimate
            found = first_reaching(count, lambda k: self.exact(k) <= limit, at)
        return None if found > count else found

    def finest(self, at: int, cost: Cost, limit: float | Fraction) -> tuple[Tensor, tuple[nn.Module, KeptChannels]]:
        """Mask and network after so many steps, or after another last step that cuts less and is enough."""
        best = self.keep(at)
        most = cost.left(self.graph, best)
        if at and most == self.exact(at):  # else the cost is only an estimate
            groups = {int(self.channels.group_of[self.steps[at - 1][0]])}
            for step in self.steps[at:]:
                group = int(self.channels.group_of[step[0]])
                if group not in groups:
                    groups.add(group)
                    other = keep_after(self.channels, [*self.steps[: at - 1], step])
                    if most < (left := cost.left(self.graph, other)) <= limit:
                        best, most = other, left
        if torch.equal(best, self.keep(at)):
            return best, self.shrunk(at)
        self.last = best
        return best, shrink(self.graph, best, self.inputs)

    def keep(self, count: int) -> Tensor:
        """The mask after so many steps."""
        return keep_after(self.channels, self.steps[:count])

    def shrunk(self, count: int) -> tuple[nn.Module, KeptChannels]:
        """The network after so many steps."""
        if self._found is None or self._found[0] != count:
            self.last = self.keep(count)
            self._found = count, shrink(self.graph, self.last, self.inputs)
        return self._found[1]

    def exact(self, count: int) -> int:
        """The cost of the network after so many steps."""
        if count not in self._costs:
            self._costs[count] = self.measure(self.shrunk(count)[0])
        return self._costs[count]


def cuttable(
    graph: NetworkGraph, channels: Channels, keep: Tensor, example_inputs: Tensor | tuple[Any, ...], cause: ShrinkError
) -> Channels:
    """The same units, with only those groups prunable that can be cut as a mask asks which cannot be cut as a whole.

    Args:
        graph: the network.
        channels: its units.
        keep: bool ``[num_nodes]``, a mask that `shrink` refused.
        example_inputs: as for `shrink`.
        cause: what `shrink` raised.

    Raises:
        ShrinkError: no group can be cut.
    """
    sets = torch.ones(len(channels.group_of), dtype=torch.bool, device=keep.device)
    sets[channels.set_of] = keep
    groups = torch.unique(channels.group_of[~sets]).tolist()
    good: list[int] = []
    bad: list[int] = []
    parts = [groups[: len(groups) // 2], groups[len(groups) // 2 :]]
    while parts:
        part = parts.pop(0)
        chosen = torch.tensor([*good, *part], device=sets.device, dtype=torch.int64)
        try:
            shrink(graph, channels.of_nodes(sets | ~torch.isin(channels.group_of, chosen)), example_inputs)
            good += part
        except ShrinkError:
            if len(part) == 1:
                bad += part
            else:
                parts[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
    if not good:
        raise ShrinkError(f"no channels can be cut: {cause}") from cause
    held = torch.isin(channels.group_of, torch.tensor(bad, device=channels.group_of.device))
    return replace(channels, prunable=channels.prunable & ~held)


def initialise(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Run a module that has lazy layers once, so that they know their widths; its other state stays as it is."""
    if any(is_lazy(parameter) for parameter in module.parameters()):
        with torch.no_grad(), evaluating(module):
            module(*inputs)


def _check_same(wide: nn.Module, small: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Torch-Pruning may cut the wrong channels, or a module's code may count on its widths: compare outputs."""
    with torch.no_grad(), evaluating(wide), evaluating(small):
        inputs = pytree.tree_map(_probe, inputs)
        try:
            outputs = pytree.tree_leaves(small(*inputs))
        except Exception as error:
            raise ShrinkError(f"the cut {type(small).__name__} does not run: {error}") from error
        if any(_averages_fewer(part, cut) for part, cut in zip(wide.modules(), small.modules(), strict=True)):
            return
        for expected, found in zip(pytree.tree_leaves(wide(*inputs)), outputs, strict=True):
            if not isinstance(expected, Tensor) or not bool(torch.isfinite(expected).all()):
                continue
            if expected.shape != found.shape or float((expected - found).abs().max()) > 1e-3 * float(
                expected.abs().max() + 1e-3
            ):
                raise ShrinkError(f"the cut {type(small).__name__} computes something else than the masked one")


def _check_trains(wide: nn.Module, small: nn.Module, inputs: tuple[Any, ...]) -> None:
    """What runs in training mode only is not in the graph: the cut module must run there if the whole one does."""
    inputs = _in_training(inputs)
    expected = _pass_of(wide, inputs, training=True)[1]
    if expected is None:
        return
    found = _pass_of(small, inputs, training=True)[1]
    if found is None or [part.shape for part in found] != [part.shape for part in expected]:
        raise ShrinkError(f"the cut {type(small).__name__} does not run in training mode")


def _pass_of(
    module: nn.Module, inputs: tuple[Any, ...], *, training: bool
) -> tuple[set[nn.Module], list[Tensor] | None]:
    """Which layers one pass calls, and its outputs, None if it fails; the module's state and mode stay as they are."""
    called: set[nn.Module] = set()
    layers = [part for part in module.modules() if next(part.parameters(recurse=False), None) is not None]
    hooks = [part.register_forward_hook(lambda part, *_: called.add(part)) for part in layers]
    try:
        with torch.no_grad(), _undisturbed(module):
            module.train(training)
            return called, [part for part in pytree.tree_leaves(module(*inputs)) if isinstance(part, Tensor)]
    except Exception:
        return called, None
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Afterwards the module's buffers and modes, and torch's random numbers, are what they were."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    with rng.preserved(device_of(module)), evaluating(module):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


def _in_training(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Two examples where there is one: batch norms do not train on less."""
    return pytree.tree_map(  # type: ignore[no-any-return]
        lambda part: part.repeat(2, *[1] * (part.dim() - 1)) if _is_one(part) else part, inputs
    )


def _is_one(part: Any) -> bool:
    return isinstance(part, Tensor) and part.dim() > 0 and len(part) == 1


def _averages_fewer(wide: nn.Module, small: nn.Module) -> bool:
    """Whether a norm over channels lost some, so that its output is another one rightly."""
    if not isinstance(wide, _OVER_CHANNELS):
        return False
    if isinstance(wide, nn.LocalResponseNorm):
        return True
    return any(getattr(wide, name, None) != getattr(small, name, None) for name in ("normalized_shape", "num_channels"))


def _probe(value: Any) -> Any:
    """An input that tells channels apart: random numbers in the place of a constant such as zeros."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or bool((value != value.flatten()[:1]).any()):
        return value
    generator = torch.Generator().manual_seed(0)
    return torch.randn(value.shape, generator=generator, dtype=torch.float32).to(value)


def _dependencies(module: nn.Module, example_inputs: Tensor | tuple[Any, ...]) -> tp.DependencyGraph:
    """Torch-Pruning's graph of the passes in both modes, where training calls layers that evaluation does not."""
    inputs = arguments(example_inputs)
    in_training = _in_training(inputs)
    evaluated, outputs = _pass_of(module, inputs, training=False)
    trained, learned = _pass_of(module, in_training, training=True)
    if outputs is None or learned is None or trained <= evaluated:
        return _traced(module, inputs, None)

    def both(module: nn.Module, inputs: Any) -> list[Tensor]:
        found = [] if evaluated <= trained else pytree.tree_leaves(module(*inputs))
        module.train()
        found += pytree.tree_leaves(module(*in_training))
        return [part for part in found if isinstance(part, Tensor) and part.grad_fn is not None]

    try:
        with _undisturbed(module):
            return _traced(module, inputs, both)
    except Exception:  # what it cannot follow keeps its channels: see `_check_trains`
        return _traced(module, inputs, None)


def _traced(module: nn.Module, inputs: tuple[Any, ...], forward: Callable[..., Any] | None) -> tp.DependencyGraph:
    import torch_pruning as tp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tp.DependencyGraph().build_dependency(
            module,
            example_inputs=inputs if len(inputs) > 1 or forward is not None else inputs[0],
            forward_fn=forward,
            customized_pruners={GraphLinear: _graph_linear_pruner()},
        )


def _graph_linear_pruner() -> Any:
    """How Torch-Pruning cuts PyG's linear layer, whose widths have names of their own."""
    from torch_pruning.pruner.function import BasePruningFunc

    class GraphLinearPruner(BasePruningFunc):  # type: ignore[misc]
        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            return self._cut(layer, "out_channels", 0, idxs)

        def prune_in_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            return self._cut(layer, "in_channels", 1, idxs)

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.out_channels)

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.in_channels)

        def _cut(self, layer: Any, width: str, axis: int, gone: Sequence[int]) -> Any:
            stay = sorted(set(range(getattr(layer, width))) - set(gone))
            setattr(layer, width, len(stay))
            layer.weight = self._prune_parameter_and_grad(layer.weight, stay, axis)
            if axis == 0 and layer.bias is not None:
                layer.bias = self._prune_parameter_and_grad(layer.bias, stay, 0)
            return layer

    return GraphLinearPruner()


def _cut_layer(dependency: tp.DependencyGraph, layer: nn.Module, gone: list[int]) -> None:
    prune = dependency.get_pruner_of_module(layer).prune_out_channels
    group = dependency.get_pruning_group(layer, prune, gone)
    if not dependency.check_pruning_group(group):
        raise ShrinkError("the mask would leave a layer without channels")
    group.prune(record_history=False)


def _width(layer: nn.Module) -> int:
    return int(getattr(layer, "out_features", 0) or layer.out_channels)  # type: ignore[arg-type]


def output_nodes(graph: NetworkGraph, layer: nn.Module, weight: str) -> list[Tensor]:
    """For each use of a layer, the node of each output channel, from where its weight lies in the graph."""
    shape: torch.Size = layer.weight.shape  # type: ignore[assignment]
    uses = []
    for slot in graph.slots(weight):
        if slot.kind != "edge":
            continue
        index = torch.unravel_index(slot.element, shape)
        channel = index[0]
        if isinstance(layer, TRANSPOSED):
            channel = channel // (shape[0] // int(layer.groups)) * shape[1] + index[1]
        nodes = torch.empty(_width(layer), dtype=torch.int64)
        nodes[channel] = graph.edges[slot.group].dst[slot.row.to(graph.layer.device)].cpu()  # type: ignore[index]
        uses.append(nodes)
    return uses
