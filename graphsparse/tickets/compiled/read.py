"""From a model and its graph to a program: the model is run once on the graph, and what it does to `x` is written down.

Whatever does not hang on the features (norms of the graph, self-loops, weights of edges) is computed then, once and for
all. What is no sum, no function of each element and no layer known here becomes a `Call` of itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch_geometric.nn import MessagePassing

from graphsparse.errors import TraceError
from graphsparse.fit.features import clear_graph_caches
from graphsparse.fit.graph_call import Arguments
from graphsparse.nn import Backbone
from graphsparse.tickets.compiled import attention as _  # noqa: F401  (its layers join the table)
from graphsparse.tickets.compiled.layers import LAYERS, Form, Place, hooked
from graphsparse.tickets.compiled.portable import mixed
from graphsparse.tickets.compiled.program import Call, Graph, Held, Join, Map, Mix, Program, Ref, Scale, Step, Term

# Functions of each element by itself, by their names in torch, torch.nn.functional and as methods.
_ELEMENTWISE = frozenset(
    ("relu", "relu_", "relu6", "elu", "elu_", "leaky_relu", "leaky_relu_", "gelu", "silu", "mish", "selu", "celu")
) | frozenset(
    ("softplus", "hardtanh", "hardswish", "softsign", "logsigmoid", "tanh", "tanh_", "sigmoid", "sigmoid_", "exp")
)
# What asks about a value and not for it.
_ABOUT = frozenset(
    ("size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "is_floating_point", "__len__")
)
_SUMS = frozenset(("add", "__add__", "__radd__", "add_", "__iadd__"))
_PRODUCTS = frozenset(("mul", "__mul__", "__rmul__", "mul_", "__imul__", "multiply"))
_QUOTIENTS = frozenset(("div", "__truediv__", "div_", "true_divide"))


def read_program(model: nn.Module, arguments: Arguments) -> Program:
    """The program of a model in evaluation mode; the model is not changed.

    Args:
        model: called as ``model(*arguments.places, **arguments.named)``; returns one tensor.
        arguments: what it is called with; without features, its parameters with a row for each node take their place.

    Raises:
        TraceError: the model reads numbers of its features (``if x.sum() > 0``), or its output does not hang on them.
    """
    model = copy.deepcopy(model).eval()
    if arguments.x is not None:
        arguments = arguments.with_x(arguments.x.clone())  # what is done in place is done to a copy
    clear_graph_caches(model)
    for part in model.modules():
        if isinstance(part, Backbone):
            part.fast = False  # along the edges: the matrix is made here
    reader = _Reader(model, arguments)
    with torch.no_grad(), reader.intercepting(model), reader:
        out = model(*arguments.places, **arguments.named)
    return reader.program(out)


class _Reader(TorchFunctionMode):
    def __init__(self, model: nn.Module, arguments: Arguments) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.widths: dict[int, int] = {}
        self.graphs: list[Graph] = []
        self.paused = False
        self._numbers: dict[int, int] = {}  # identity of a tensor: number of its value
        self._alive: list[Tensor] = []  # so that no identity is taken twice
        self._next = 0
        x = arguments.x
        self.num_nodes = self._count(model, arguments)
        self._new(x)
        if x is None:
            for value in model.parameters():
                if value.dim() == 2 and value.size(0) == self.num_nodes:
                    self._add(Held(self._next, value.detach().clone()), value)

    @staticmethod
    def _count(model: nn.Module, arguments: Arguments) -> int:
        if arguments.x is not None:
            return arguments.x.size(0)
        rows = [value.size(0) for value in model.parameters() if value.dim() == 2]
        largest = int(arguments.edge_index.max()) + 1 if arguments.edge_index.numel() else 0
        return min((n for n in rows if n >= largest), default=largest)

    def program(self, out: Any) -> Program:
        if not isinstance(out, Tensor) or id(out) not in self._numbers:
            raise TraceError("the model does not return one tensor that its features lead to")
        return Program(tuple(self.steps), self.widths, self._numbers[id(out)])

    # What is known of tensors

    def _new(self, tensor: Tensor | None, width: int | None = None) -> None:
        number, self._next = self._next, self._next + 1
        if tensor is not None:
            self._same(number, tensor)
            if tensor.dim() == 2 and tensor.size(0) == self.num_nodes:
                width = tensor.size(1)
        if width is not None:
            self.widths[number] = width

    def _add(self, step: Step, tensor: Tensor | None, width: int | None = None) -> None:
        assert step.out == self._next
        self._new(tensor, width)
        self.steps.append(step)

    def _follows(self, value: Any) -> bool:
        return isinstance(value, Tensor) and id(value) in self._numbers

    def _matrix(self, value: Any) -> int | None:
        """The number of a value with a row for each node, else None."""
        number = self._numbers.get(id(value)) if isinstance(value, Tensor) else None
        return number if number in self.widths else None

    # What is intercepted

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        out = func(*args, **named)
        if self.paused or not any(map(self._follows, pytree.tree_leaves((args, named)))):
            return out
        name = getattr(func, "__name__", str(func))
        self.paused = True
        try:
            if not self._known(func, name, args, named, out):
                self._as_it_is(func, name, args, named, out)
        finally:
            self.paused = False
        return out

    def _known(self, func: Any, name: str, args: tuple[Any, ...], named: dict[str, Any], out: Any) -> bool:
        if not isinstance(out, Tensor):
            return name in _ABOUT or name == "__get__"
        first = self._matrix(args[0]) if args else self._matrix(named.get("input"))
        number = self._next
        if name == "cat":
            return self._join(args, named, out)
        if first is None:
            return name in ("add", "__add__", "__radd__") and self._sum(args, named, out)
        if name in ("dropout", "feature_alpha_dropout", "alpha_dropout") and torch.equal(out, args[0]):
            self._same(first, out)
        elif func is functional.linear and len(args) + len(named) <= 3:
            given = dict(zip(("input", "weight", "bias"), args, strict=False)) | named
            weight, bias = given["weight"], given.get("bias")
            if self._follows(weight) or self._follows(bias):
                return False
            self._add(Mix(number, (Term(first, weight.detach()),), None if bias is None else bias.detach()), out)
        elif name in _ELEMENTWISE:
            rest = {key: value for key, value in named.items() if key != "inplace"}
            if any(map(self._follows, (*args[1:], *rest.values()))) or out.shape != args[0].shape:
                return False
            plain = getattr(torch, name.rstrip("_"), None) or getattr(functional, name.rstrip("_"))
            self._add(Map(number, first, partial(_later, plain, args[1:], rest), name.rstrip("_")), out)
        elif name == "batch_norm":
            return self._norm(first, args, named, out)
        elif name in _SUMS:
            return self._sum(args, named, out)
        elif name in _PRODUCTS | _QUOTIENTS:
            return self._scaled(first, name in _QUOTIENTS, args, named, out)
        else:
            return False
        return True

    def _same(self, number: int, out: Tensor) -> None:
        self._numbers[id(out)] = number
        self._alive.append(out)

    def _join(self, args: tuple[Any, ...], named: dict[str, Any], out: Tensor) -> bool:
        parts: Any = args[0] if args else named.get("tensors")
        dim = args[1] if len(args) > 1 else named.get("dim", 0)
        shaped = all(isinstance(part, Tensor) and part.dim() == 2 and len(part) == self.num_nodes for part in parts)
        if dim not in (1, -1) or not shaped or any(self._follows(p) and self._matrix(p) is None for p in parts):
            return False
        for part in parts:
            if not self._follows(part):
                self._add(Held(self._next, part.detach().clone()), part)
        self._add(Join(self._next, tuple(self._numbers[id(part)] for part in parts), (None,) * len(parts)), out)
        return True

    def _norm(self, first: int, args: tuple[Any, ...], named: dict[str, Any], out: Tensor) -> bool:
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        given = {"weight": None, "bias": None, "training": False, "eps": 1e-5} | dict(zip(names, args, strict=False))
        given |= named
        mean, variance = given.get("running_mean"), given.get("running_var")
        if given["training"] or mean is None or variance is None:
            return False
        factor = (variance.double() + given["eps"]).rsqrt()
        if given["weight"] is not None:
            factor = factor * given["weight"].double()
        shift = -mean.double() * factor
        if given["bias"] is not None:
            shift = shift + given["bias"].double()
        self._add(Scale(self._next, first, factor.to(out.dtype), shift.to(out.dtype)), out)
        return True

    def _sum(self, args: tuple[Any, ...], named: dict[str, Any], out: Tensor) -> bool:
        if named or len(args) != 2:
            return False
        one, other = map(self._matrix, args)
        if one is not None and other is not None and self.widths[one] == self.widths[other] == out.size(1):
            self._add(Mix(self._next, (Term(one), Term(other))), out)
            return True
        source, rest = (one, args[1]) if one is not None else (other, args[0])
        if source is None or self._follows(rest):
            return False
        shift = self._row(rest, self.widths[source], out)
        if shift is None:
            return False
        self._add(Scale(self._next, source, torch.ones_like(shift), shift), out)
        return True

    def _scaled(self, first: int, divide: bool, args: tuple[Any, ...], named: dict[str, Any], out: Tensor) -> bool:
        if named or len(args) != 2 or self._follows(args[1]):
            return False
        factor = self._row(args[1], self.widths[first], out)
        if factor is None:
            return False
        self._add(Scale(self._next, first, 1 / factor if divide else factor, torch.zeros_like(factor)), out)
        return True

    @staticmethod
    def _row(value: Any, width: int, out: Tensor) -> Tensor | None:
        """A number, or one for each column, as a row of the output's type; None for anything else."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return torch.full((width,), value, dtype=out.dtype, device=out.device)
        fits = isinstance(value, Tensor) and value.layout == torch.strided and value.dtype == out.dtype
        if fits and (value.numel() == 1 or value.shape in ((width,), (1, width))) and value.dim() <= 2:
            row: Tensor = value.detach().reshape(-1).expand(width).clone()
            return row
        return None

    def _as_it_is(self, func: Any, name: str, args: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        """A call that is repeated as it was."""
        outs = [out] if isinstance(out, Tensor) else list(out) if isinstance(out, (tuple, list)) else []
        if not outs or not all(isinstance(one, Tensor) for one in outs):
            raise TraceError(f"the model reads numbers of its features ({name}), so what it does may hang on them")
        if any(one is leaf for one in outs for leaf in pytree.tree_leaves((args, named))):
            raise TraceError(f"the model changes its features in place ({name})")
        args, named = pytree.tree_map(self._held, (args, named))
        for place, one in enumerate(outs):
            pick = None if isinstance(out, Tensor) else place
            self._add(Call(self._next, func, args, named, name, pick), one)

    def _held(self, leaf: Any) -> Any:
        if self._follows(leaf):
            return Ref(self._numbers[id(leaf)])
        return leaf.detach() if isinstance(leaf, Tensor) else leaf

    @contextmanager
    def intercepting(self, model: nn.Module) -> Iterator[None]:
        """While it lasts, the layers that send messages tell this reader of their calls."""
        layers = [part for part in model.modules() if isinstance(part, MessagePassing)]
        for layer in layers:
            layer.forward = partial(self._layer, layer)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    def _layer(self, layer: nn.Module, *args: Any, **named: Any) -> Any:
        """Instead of a layer's own forward."""
        forward = partial(type(layer).forward, layer)
        if self.paused or not any(map(self._follows, pytree.tree_leaves((args, named)))):
            return forward(*args, **named)
        self.paused = True
        try:
            out = forward(*args, **named)
        finally:
            self.paused = False
        form = self._form(layer, args, named)
        if form is not None and form.then is None:
            for step, width in form.steps[:-1]:
                self._add(step, None, width)
            self._add(form.steps[-1][0], out)
            return out
        if form is not None and form.then is not None:
            (step, width), *_ = form.steps
            assert isinstance(step, Mix)
            self.paused = True
            summed = mixed(step, {step.terms[0].source: args[0]})
            self.paused = False
            self._add(step, summed, width)
            return form.then(summed)
        del layer.forward  # a call repeats the layer's own
        self._as_it_is(layer, type(layer).__name__, args, named, out)
        layer.forward = partial(self._layer, layer)
        return out

    def _form(self, layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Form | None:
        """The layer as sums of products, if it is one that is known and nobody looks into it."""
        rule, source = LAYERS.get(type(layer)), self._matrix(args[0]) if args else None
        rest = pytree.tree_leaves((args[1:], named))
        if rule is None or source is None or hooked(layer) or any(map(self._follows, rest)):
            return None
        place = Place(self._next, self.num_nodes, self.widths[source], self.graphs)
        return rule(layer, source, place, *args[1:], **named)


def _later(function: Callable[..., Tensor], rest: tuple[Any, ...], named: Mapping[str, Any], x: Tensor) -> Tensor:
    return function(x, *rest, **named)
