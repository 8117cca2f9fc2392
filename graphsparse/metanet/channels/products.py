"""Where a network multiplies by its weights: seen as operations of torch, whatever code calls them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from graphsparse.metanet.graph import NetworkGraph

_aten = torch.ops.aten
_MATRIX = {_aten.mm.default, _aten.addmm.default}
_VIEWS = {_aten.view.default, _aten._unsafe_view.default, _aten.reshape.default}
_SUMS = {_aten.add.Tensor, _aten.add_.Tensor}


class Product:
    """One multiplication of rows of inputs by a weight, as it runs: a matrix product or a convolution.

    A transposed convolution is one of its inputs spread out, with flipped kernels.

    Args:
        function: the operation of torch.
        args: what it is called with.

    Attributes:
        x: its inputs.
        weight: the weight as it is used, a view of a parameter.
        bias: what is added in the same operation, or None.
        groups: how many blocks of inputs and outputs there are.
    """

    def __init__(self, function: Any, args: tuple[Any, ...]) -> None:
        self.matrix_product = function in _MATRIX
        if self.matrix_product:
            self.x, self.weight = args[-2:]
            self.bias = args[0] if len(args) > 2 else None
            self.groups, self.transposed = 1, False
        else:
            self.x, self.weight, self.bias = args[:3]
            self.stride, self.padding, self.dilation, self.transposed, self.more, self.groups = args[3:9]

    def matrix(self, values: Tensor) -> Tensor:
        """Values of the weight's shape as ``[groups, outputs, inputs]`` (inputs of a group, times places)."""
        if self.matrix_product:
            return values.t().unsqueeze(0)
        if not self.transposed:
            return values.reshape(self.groups, values.shape[0] // self.groups, -1)
        split = values.reshape(self.groups, -1, *values.shape[1:]).transpose(1, 2)
        return split.flip(tuple(range(3, split.dim()))).flatten(2)

    def write(self, matrix: Tensor) -> None:
        """Put a matrix ``[groups, outputs, inputs]`` into the weight."""
        if self.matrix_product:
            self.weight.copy_(matrix[0].t())
        elif not self.transposed:
            self.weight.copy_(matrix.reshape(self.weight.shape))
        else:
            kernel = self.weight.shape[2:]
            split = matrix.reshape(*matrix.shape[:2], -1, *kernel)
            self.weight.copy_(split.flip(tuple(range(3, split.dim()))).transpose(1, 2).reshape(self.weight.shape))

    def rows(self, outputs: Tensor) -> Tensor:
        """Outputs (or what is added to them) as ``[rows, channels]``: a row for each example and place."""
        last = outputs if self.matrix_product else outputs.movedim(1, -1)
        return last.reshape(-1, last.shape[-1])

    def design(self, chosen: Tensor) -> Tensor:
        """What the weight is multiplied with in these rows of the outputs: ``[groups, rows, inputs]``."""
        x = self.x[chosen] if self.matrix_product else self._patches(chosen)
        return x.reshape(len(chosen), self.groups, -1).transpose(0, 1)

    def by_group(self, rows: Tensor) -> Tensor:
        """Outputs ``[rows, channels]`` as ``[groups, rows, outputs]``."""
        return rows.reshape(len(rows), self.groups, -1).transpose(0, 1)

    def _patches(self, chosen: Tensor) -> Tensor:
        x, kernel, stride = self.x, self.weight.shape[2:], self.stride
        padding = [p for p in reversed(self.padding) for _ in range(2)]
        if self.transposed:
            places = zip(x.shape[2:], stride, self.more, strict=True)
            spread = x.new_zeros(*x.shape[:2], *((size - 1) * step + 1 + more for size, step, more in places))
            inner = zip(x.shape[2:], stride, strict=True)
            spread[(..., *(slice(0, (size - 1) * step + 1, step) for size, step in inner))] = x
            x, stride = spread, [1] * len(kernel)
            reach = zip(self.dilation, kernel, self.padding, strict=True)
            padding = [p for p in reversed([d * (k - 1) - p for d, k, p in reach]) for _ in range(2)]
        x = nn.functional.pad(x, padding)
        for axis, (size, step, gap) in enumerate(zip(kernel, stride, self.dilation, strict=True)):
            x = x.unfold(2 + axis, gap * (size - 1) + 1, step)[..., ::gap]  # a view
        at = torch.unravel_index(chosen, (x.shape[0], *x.shape[2 : 2 + len(kernel)]))
        return x.movedim(1, 1 + len(kernel))[at].flatten(1)


@dataclass
class Site:
    """A multiplication of the traced network, and what stands around it.

    Args:
        number: which product of the pass it is; ``index`` which operation.
        name: the parameter that the weight is a view of.
        elements: which of its elements, ``[groups, outputs, inputs]``.
        outputs: the node of each output, ``[groups * outputs]``.
        inputs: the node of each input, ``[groups, inputs]``.
        norm: names of scale and shift of the batch norm that takes up the outputs.
        bias: name of what is added to the outputs, in the same operation or next (``apart``).
        shortcut: the operation whose result is added to the outputs (after the norm) and is known before them.
        known: whether all of this could be told, so that the weight can be refitted.
    """

    number: int
    index: int
    name: str
    elements: Tensor
    outputs: Tensor
    inputs: Tensor
    norm: tuple[str | None, str | None] | None = None
    bias: str | None = None
    apart: bool = False
    shortcut: int | None = None
    known: bool = True

    @property
    def weight(self) -> tuple[Any, ...]:
        """What is equal for all uses of one weight."""
        return self.name, tuple(self.elements.shape), *self.elements.flatten()[:2].tolist()


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations and products as a module of the given state runs; subclasses act on them."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        spans = [(t.data_ptr(), t.data_ptr() + t.numel() * t.element_size(), name) for name, t in state.items()]
        self.state, self._spans = state, sorted(span for span in spans if span[0] < span[1])
        self._starts = [start for start, _, _ in self._spans]
        self.operations = self.products = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}  # what is called in here is not dispatched to here again
        product = self._product(function, args)
        if product is not None:
            self.before(product)
        outputs = function(*args, **kwargs)
        if product is not None:
            self.after(product, outputs)
            self.products += 1
        self.seen(function, args, kwargs, outputs)
        self.operations += 1
        return outputs

    def before(self, product: Product) -> None:
        """Called before a product runs."""

    def after(self, product: Product, outputs: Tensor) -> None:
        """Called when it has run."""

    def seen(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], outputs: Any) -> None:
        """Called after each operation."""

    def name_of(self, value: Any) -> str | None:
        """The parameter that a tensor is, or is a view of."""
        if not isinstance(value, Tensor) or not self._spans or value.layout != torch.strided:
            return None
        at = bisect_right(self._starts, value.data_ptr()) - 1
        return self._spans[at][2] if at >= 0 and value.data_ptr() < self._spans[at][1] else None

    def _product(self, function: Any, args: tuple[Any, ...]) -> Product | None:
        if function not in _MATRIX and function is not _aten.convolution.default:
            return None
        product = Product(function, args)
        return None if self.name_of(product.weight) is None else product


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Run what is inside under a watch, and attention in its parts instead of as one operation."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with watch:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Survey(Watch):  # type: ignore[no-untyped-call]
    """One pass that finds the sites."""

    def __init__(self, graph: NetworkGraph | None, state: Mapping[str, Tensor]) -> None:
        super().__init__(state)
        self.graph, self.sites = graph, list[Site]()
        self._elsewhere: set[str] = set()  # parameters that something else reads, too
        self._made: dict[int, Site] = {}
        self._writer: dict[int, int] = {}
        self._alive: list[Any] = []  # an id names a tensor only as long as it lives
        self._tables: dict[str, list[tuple[Any, Tensor]]] = {}

    def after(self, product: Product, outputs: Tensor) -> None:
        name = self.name_of(product.weight)
        assert name is not None
        site = self._site(product, name)
        site.bias = self.name_of(product.bias)
        site.known &= product.bias is None or site.bias is not None
        self.sites.append(site)
        self._made[id(outputs)] = site

    def seen(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], outputs: Any) -> None:
        if function in _SUMS and isinstance(args[1], Tensor) and kwargs.get("alpha", 1) == 1:
            self._sum(args[0], args[1])
        made = self._made.get(id(args[0])) if args else None
        if made is not None:
            if "batch_norm" in str(function) and made.norm is None:
                made.norm = (self.name_of(args[1]), self.name_of(args[2]))
                self._made[id(outputs[0])] = made
            elif (function in _VIEWS and args[0].dim() == 2 and outputs.shape[-1] == args[0].shape[-1]) or (
                function in _SUMS and made.bias is not None and self.name_of(args[1]) == made.bias
            ):
                self._made[id(outputs)] = made
        made_now = [value for value in pytree.tree_leaves(outputs) if isinstance(value, Tensor)]
        for value in made_now:
            self._writer[id(value)] = self.operations
        if function not in _MATRIX and function is not _aten.convolution.default:
            views = {self.name_of(value) for value in made_now}
            read = {self.name_of(value) for value in pytree.tree_leaves((args, kwargs))}
            self._elsewhere |= {name for name in read - views if name is not None}
        self._alive.append((args, outputs))

    def _sum(self, a: Tensor, b: Tensor) -> None:
        left, right = self._made.get(id(a)), self._made.get(id(b))
        if left is not None and left.bias is None and left.norm is None and b.dim() == 1 and self.name_of(b):
            left.bias, left.apart = self.name_of(b), True
            return
        if a.shape != b.shape:
            return
        pairs = [(site, other) for site, other in ((left, b), (right, a)) if site is not None]
        if not pairs:
            return
        site, other = max(pairs, key=lambda pair: pair[0].index)
        writer = self._writer.get(id(other))
        if site.shortcut is None and writer is not None and writer < site.index:
            site.shortcut = writer

    def _site(self, product: Product, name: str) -> Site:
        none = torch.empty(0, dtype=torch.int64)
        lost = Site(self.products, self.operations, name, none, none, none, known=False)
        elements = _elements(product.weight, self.state[name])
        if elements is None:
            return lost
        elements = product.matrix(elements)
        ends = self._ends(name, elements)
        return lost if ends is None else Site(self.products, self.operations, name, elements, *ends)

    def _ends(self, name: str, elements: Tensor) -> tuple[Tensor, Tensor] | None:
        """The node of each output and of each input, where there is a graph and it knows this use."""
        if self.graph is None:
            none = torch.empty(0, dtype=torch.int64)
            return none, none
        first = elements[0, 0, 0]
        uses = [entry for entry in self._table(self.graph, name) if int(entry[1][first]) >= 0]
        before = sum(site.name == name and bool(torch.isin(first, site.elements)) for site in self.sites)
        if not uses:
            return None
        kernel, row_of = uses[min(before, len(uses) - 1)]
        rows, edges, device = row_of[elements], self.graph.edges[kernel], self.graph.layer.device
        src, dst = edges.src.cpu()[rows], edges.dst.cpu()[rows]
        if bool((rows < 0).any() or (src != src[:, :1]).any() or (dst != dst[..., :1]).any()):
            return None
        return dst[..., 0].flatten().to(device), src[:, 0].to(device)

    def _table(self, graph: NetworkGraph, name: str) -> list[tuple[Any, Tensor]]:
        """For each use of a parameter in the graph, the kernel class and the edge of each element (-1: none)."""
        if name not in self._tables:
            self._tables[name] = []
            for slot in graph.slots(name):
                if slot.kind == "edge":
                    row_of = torch.full((self.state[name].numel(),), -1)
                    row_of[slot.element] = slot.row.cpu()
                    self._tables[name].append((slot.group, row_of))
        return self._tables[name]

    def found(self) -> list[Site]:
        """The sites; those whose weight has another part as well, which a refit would spoil, are not ``known``."""
        by_name: dict[str, list[Site]] = {}
        for site in self.sites:
            by_name.setdefault(site.name, []).append(site)
        for name, sites in by_name.items():
            together = torch.cat([*{site.weight: site.elements.flatten() for site in sites}.values()])
            if name in self._elsewhere or len(torch.unique(together)) < len(together):
                for site in sites:
                    site.known = False
        return self.sites


def find_sites(graph: NetworkGraph | None, module: nn.Module, call: Callable[[], Any]) -> list[Site]:
    """All multiplications by weights in one call of a module, in order.

    Args:
        graph: the module's graph; None where nobody asks which channels a weight joins.
        module: what ``graph.to_module()`` gave, in the mode in which it is called.
        call: runs it.
    """
    survey = _Survey(graph, dict(module.named_parameters()))
    with torch.no_grad(), watched(survey):
        call()
    return survey.found()


def _elements(weight: Tensor, parameter: Tensor) -> Tensor | None:
    """Which element of a parameter each entry of a view of it is; None where that cannot be told."""
    order = torch.arange(parameter.numel()).view(parameter.shape)
    pairs = [(parameter, order), *([(parameter.t(), order.t())] if parameter.dim() == 2 else [])]
    for candidate, numbered in pairs:
        if weight.shape == candidate.shape and weight.stride() == candidate.stride():
            return numbered
    if not parameter.is_contiguous():
        return None
    found = torch.full(weight.shape, int(weight.storage_offset() - parameter.storage_offset()))
    for axis, (size, step) in enumerate(zip(weight.shape, weight.stride(), strict=True)):
        found += (step * torch.arange(size)).view([-1] + [1] * (weight.dim() - 1 - axis))
    return found
