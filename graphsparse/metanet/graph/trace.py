"""Any torch module -> what its network graph is made of: export it, and interpret the exported graph on ids."""

from __future__ import annotations

import copy
import inspect
import logging
import operator
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from graphsparse.errors import TraceError
from graphsparse.fit.rng import preserved
from graphsparse.metanet.graph.architecture import computed_tensors
from graphsparse.metanet.graph.id_algebra import activation, current, pointwise
from graphsparse.metanet.graph.moves import FRESH, KEEPS, MOVES, PASSES, SHAPED_LIKE, move, pad, stored_of
from graphsparse.metanet.graph.record import (
    VALUES,
    Const,
    Elements,
    Ids,
    Made,
    Mixed,
    Record,
    UncoveredError,
    Value,
    collapse,
    nothing,
)
from graphsparse.metanet.graph.rules import RULES
from graphsparse.metanet.graph.widths import tie_layers, tie_parts

_RESHAPES = frozenset(("view", "reshape", "_unsafe_view", "unflatten", "pixel_shuffle", "pixel_unshuffle"))
_PARTS = frozenset(
    ("split", "chunk", "unsafe_split", "unsafe_chunk", "tensor_split", "split_with_sizes", "hsplit", "vsplit")
)
_LARGEST = 2**20  # ids of one activation that are kept for its sizes


@dataclass(frozen=True)
class Trace:
    """What an interpretation found: the record, and the ids behind each input and output."""

    record: Record
    names: dict[str, int]  # parameter or buffer -> number of its first element
    shapes: dict[int, torch.Size]  # number of a first element -> shape of its parameter
    inputs: list[Tensor]
    outputs: list[Tensor]
    constants: frozenset[str]  # buffers whose values the trace has read


def trace(module: nn.Module, inputs: tuple[Any, ...], *, training: bool = False) -> Trace:
    """Export a copy of the module in one mode and interpret it; module and random states stay as they are."""
    shadow = _shadow(module).train(training)
    inputs = pytree.tree_map(lambda leaf: leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf, inputs)
    with preserved(torch.device("cpu")), warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        program = _program(module, shadow, inputs)
        with torch.no_grad():
            try:
                return _Interpreter(shadow, program, inputs).run()
            except _InPlaceOnViewError:
                functional = program.run_decompositions({})
                return _Interpreter(shadow, functional, inputs).run()


def _program(module: nn.Module, shadow: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """The exported graph of the shadow; where that fails, with frozen what the module has frozen.

    Gradients keep torch's attention out of its fused form, but some operations (a batch norm over statistics that are
    frozen parameters) take none.
    """
    try:
        return _exported(shadow, inputs)
    except Exception as error:
        cause = error
    pairs = list(zip(module.parameters(), shadow.parameters(), strict=True))
    if any(own.requires_grad != other.requires_grad for own, other in pairs):
        for own, other in pairs:
            other.requires_grad_(own.requires_grad)
        with suppress(Exception):
            return _exported(shadow, inputs)
    raise TraceError(f"torch.export cannot trace {type(module).__name__}: {_first_lines(cause)}") from cause


def _exported(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """The exported graph; where code asks for a number out of the data (how many graphs, relations), that number."""
    with _quiet(), redirect_stderr(StringIO()):  # torch prints the whole graph before it raises
        try:
            return torch.export.export(module, inputs, strict=False)
        except GuardOnDataDependentSymNode:
            with functorch.patch(fake_tensor_propagate_real_tensors=True):
                return torch.export.export(module, inputs, strict=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's own log."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _shadow(module: nn.Module) -> nn.Module:
    """A copy on the CPU that shares the module's weights without their history."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().cpu(), requires_grad=parameter.is_floating_point())
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.detach().cpu()
    memo.update({key: tensor.cpu() for key, tensor in computed_tensors(module).items()})
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise TraceError(f"{type(module).__name__} cannot be copied: {_first_lines(error)}") from error


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).strip().split("\n")[:3]) or type(error).__name__


class _InPlaceOnViewError(Exception):
    """A part of an activation gets other ids in place: the graph is to be made functional first."""


class _Interpreter:
    def __init__(self, module: nn.Module, program: Any, inputs: tuple[Any, ...]) -> None:
        self.module, self.program = module, program
        self.leaves = pytree.tree_leaves(inputs)
        self.record = Record()
        self.values: dict[Node, Any] = {}
        self.names: dict[str, int] = {}
        self.shapes: dict[int, torch.Size] = {}
        self.inputs: list[Tensor] = []
        self.origins: list[Any] = []
        self.read: set[str] = set()
        self.numbers: dict[str, frozenset[int]] = {}
        self.last_use = {argument: node for node in program.graph.nodes for argument in node.all_input_nodes}

    def run(self) -> Trace:
        self._number_elements()
        self._place_inputs()
        outputs: list[Tensor] = []
        for node in self.program.graph.nodes:
            if node.op == "call_function":
                self.values[node] = self._call(node)
            elif node.op == "get_attr":
                self.values[node] = Const(self._attribute(str(node.target)))
            elif node.op == "output":
                outputs = self._outputs(node)
            for argument in node.all_input_nodes:
                if self.last_use[argument] is node:
                    self.values.pop(argument, None)
        inputs = [self._origin(position, value) for position, value in enumerate(self.origins)]
        return Trace(self.record, self.names, self.shapes, inputs, outputs, frozenset(self.read))

    def _attribute(self, path: str) -> Tensor:
        found = operator.attrgetter(path)(self.program.graph_module)
        if not isinstance(found, Tensor):
            raise TraceError(f"the module branches or loops on its data ({path}), which a network graph does not cover")
        return found.detach().clone()

    def _number_elements(self) -> None:
        """One numbering of all elements of parameters and floating buffers, tied ones once."""
        first, seen = 0, dict[int, int]()
        both = [
            *self.module.named_parameters(remove_duplicate=False),
            *self.module.named_buffers(remove_duplicate=False),
        ]
        for name, tensor in both:
            if id(tensor) not in seen:
                seen[id(tensor)] = first
                self.shapes[first] = tensor.shape
                first += tensor.numel()
            self.names[name] = seen[id(tensor)]

    def _place_inputs(self) -> None:
        nodes = {node.name: node for node in self.program.graph.nodes if node.op == "placeholder"}
        state = {
            **dict(self.module.named_parameters(remove_duplicate=False)),
            **dict(self.module.named_buffers(remove_duplicate=False)),
        }
        position = 0
        for spec in self.program.graph_signature.input_specs:
            node = nodes.get(spec.arg.name)
            if spec.kind == InputKind.USER_INPUT:
                leaf = self.leaves[position]
                value = self._input(leaf, position) if isinstance(leaf, Tensor) else leaf
                self.origins.append(value)
                position += 1
            elif spec.kind == InputKind.PARAMETER:
                value = Elements(self.names[spec.target], state[spec.target].shape)
            elif spec.kind == InputKind.BUFFER:
                tensor = state[spec.target]
                stored = (Elements(self.names[spec.target], tensor.shape),) if tensor.is_floating_point() else ()
                value = Const(tensor.detach().clone(), stored=stored, buffer=spec.target)
            elif spec.kind == InputKind.CONSTANT_TENSOR:
                value = Const(self.program.constants[spec.target].detach().clone())
            else:
                raise TraceError(f"the module takes an argument of kind {spec.kind.name}, which is not covered")
            if node is not None:
                self.values[node] = value

    def _input(self, leaf: Tensor, position: int) -> Value:
        if leaf.is_complex():
            raise TraceError(f"input {position} is complex; real and integer inputs are covered")
        if not leaf.is_floating_point():
            return Const(leaf.clone(), origin=position)
        return Ids(self.record.new(leaf.shape, of_input=True, label=f"input {position}"))

    def _origin(self, position: int, value: Any) -> Tensor:
        if isinstance(value, Ids):
            return current(self.record, value.tensor)
        return self.record.tokens.get(position, torch.empty(0, dtype=torch.int64))

    def _outputs(self, node: Node) -> list[Tensor]:
        """The ids of what the module returns (and not of what it changes on the way)."""
        found = []
        leaves = pytree.tree_leaves(node.args, is_leaf=lambda leaf: isinstance(leaf, Node))
        for leaf, spec in zip(leaves, self.program.graph_signature.output_specs, strict=True):
            if spec.kind != OutputKind.USER_OUTPUT:
                continue
            value = self.values[leaf] if isinstance(leaf, Node) else leaf
            if isinstance(value, VALUES) and not isinstance(value, Mixed):
                found.append(current(self.record, activation(self.record, value)))
        return found

    def _call(self, node: Node) -> Any:
        """The value of one operation; an error names it, its module and, where it is known, its line."""
        self.record.path = _module_of(node)[0]
        self.record.numbers = self._numbers(self.record.path)

        def fetch(argument: Any) -> Any:
            return self.values[argument] if isinstance(argument, Node) else argument

        args, kwargs = pytree.tree_map(fetch, (node.args, node.kwargs), is_leaf=lambda leaf: isinstance(leaf, Node))
        try:
            found = self._dispatch(node, list(args), dict(kwargs))
            self._note_made(node, found)
            return found
        except (TraceError, _InPlaceOnViewError):
            raise
        except UncoveredError as reason:
            raise TraceError(f"{_where(node)}: {reason}") from None
        except Exception as error:
            raise TraceError(f"{_where(node)} could not be followed: {_first_lines(error)}") from error

    def _numbers(self, path: str) -> frozenset[int]:
        """The whole numbers that a module holds; torch's own attention computes its widths from its inputs."""
        if path not in self.numbers:
            module = dict(self.module.named_modules(remove_duplicate=False)).get(path)
            held = () if module is None or isinstance(module, nn.MultiheadAttention) else vars(module).values()
            self.numbers[path] = frozenset(value for value in held if type(value) is int)
        return self.numbers[path]

    def _note_made(self, node: Node, found: Any) -> None:
        """Remember the ids that an operation made, for what its module says of their sizes."""
        name = str(getattr(getattr(node.target, "_schema", None), "name", "")).partition("::")[2]
        spelled = _spelled(node) if name in _RESHAPES or name in _PARTS else (frozenset(), "")
        for leaf in _leaves(found):
            if isinstance(leaf, Ids):
                small = collapse(leaf.tensor)
                if small.numel() <= _LARGEST:
                    self.record.made.append(Made(self.record.path, leaf.shape, small, name in _RESHAPES, *spelled))

    def _dispatch(self, node: Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
        target: Any = node.target
        if target is operator.getitem or not isinstance(target, torch._ops.OpOverload):
            return args[0][args[1]] if target is operator.getitem else target(*args, **kwargs)
        name = target._schema.name.split("::")[1]
        in_place = name.endswith("_") and not name.endswith("__")
        name = name.rstrip("_") if in_place else name
        if not target._schema.name.startswith("aten::"):
            raise UncoveredError("it is not one of torch's own")
        if name.startswith(("sym_", "_assert")):
            return self._about_shapes(name, args, kwargs)
        if name in SHAPED_LIKE:  # its second argument lends a shape, no values
            args[1] = Const(torch.zeros(()).expand(args[1].shape))
        leaves = [leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, VALUES)]
        if all(isinstance(leaf, Const) for leaf in leaves):
            return self._concretely(target, args, kwargs)
        result = self._symbolically(node, name, target, args, kwargs)
        if in_place:
            self._rebind(node, args[0], result)
        return result

    def _about_shapes(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if name == "sym_size":
            return args[0].shape[args[1]]
        if name == "sym_numel":
            return args[0].shape.numel()
        if name.startswith("_assert") or name.startswith("sym_constrain"):
            return None
        raise UncoveredError("it asks for more than a shape")

    def _concretely(self, target: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Constants alone: computed as the module would."""
        self._note_read(args, kwargs)
        result = target(*_plain(args), **_plain(kwargs))
        stored = iter(stored_of(target._schema.name.split("::")[1], target, args, kwargs, result))
        return pytree.tree_map(lambda leaf: Const(leaf, next(stored)) if isinstance(leaf, Tensor) else leaf, result)

    def _symbolically(self, node: Node, name: str, target: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if name in FRESH:
            shape, dtype = args[0].shape, node.meta["val"].dtype
            stand_in = torch.zeros((), dtype=dtype).expand(shape)
            return Const(target(stand_in, *_plain(args[1:]), **_plain(kwargs)))
        bound = _bound(target, args, kwargs)
        if name in RULES:
            return _apply(RULES[name], self.record, name, target, bound)
        if name in ("masked_fill", "fill"):
            return args[0]
        if name == "copy":
            return self._copied(args[0], args[1])
        if name in KEEPS:
            return args[0] if name != "native_dropout" else (args[0], nothing(args[0].shape))
        if name in ("pad", "constant_pad_nd"):
            return Ids(
                pad(activation(self.record, bound["self"]), **{k: v for k, v in bound.items() if k in ("pad", "mode")})
            )
        if name in MOVES and not (name == "where" and isinstance(args[0], Ids)):
            self._note_read(args, kwargs)
            moved = move(self.record, name, target, args, kwargs)
            if name in _PARTS:
                tie_parts(self.record, moved, bound)
            elif name == "stack":
                tie_layers(self.record, args[0])
            return moved
        if name in PASSES or torch.Tag.pointwise in target.tags:
            return self._pointwise(node, name, args, kwargs)
        raise UncoveredError("there is no rule for it")

    def _note_read(self, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Remember the buffers whose values decide what the graph looks like."""
        leaves = _leaves((args, kwargs))
        self.read.update(leaf.buffer for leaf in leaves if isinstance(leaf, Const) and leaf.buffer is not None)

    def _pointwise(self, node: Node, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        values = [leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, VALUES)]
        meta = node.meta.get("val")
        return pointwise(self.record, name, values, isinstance(meta, Tensor) and meta.dtype == torch.bool)

    def _copied(self, into: Value, source: Value) -> Ids:
        return Ids(activation(self.record, source).expand(into.shape))

    def _rebind(self, node: Node, before: Any, after: Any) -> None:
        """An operation in place: what it changed is known under its old name, too."""
        changed = node.args[0]
        assert isinstance(changed, Node)
        same = isinstance(before, Ids) and isinstance(after, Ids) and _same(self.record, before, after)
        if not same and _is_view(changed) and before is not after:
            raise _InPlaceOnViewError
        self.values[changed] = after


def _same(record: Record, left: Ids, right: Ids) -> bool:
    return bool(torch.equal(current(record, left.tensor), current(record, right.tensor)))


def _is_view(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None or schema.name.endswith("_"):
        return False
    return any(returned.alias_info is not None for returned in schema.returns)


def _apply(function: Any, record: Record, name: str, overload: Any, bound: dict[str, Any]) -> Any:
    """Call a rule with what it names: arguments by schema name; the operation's name or overload on request."""
    wanted = inspect.signature(function).parameters
    extra = {"name": name, "overload": overload}
    asked = {key: value for key, value in extra.items() if key in wanted}
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in wanted.values())
    return function(record, **asked, **{key: value for key, value in bound.items() if takes_all or key in wanted})


def _bound(target: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an operation by name, those that it was not given as the schema has them."""
    arguments = target._schema.arguments
    given = {**dict(zip((argument.name for argument in arguments), args, strict=False)), **kwargs}
    return {
        argument.name: given.get(argument.name, argument.default_value)
        for argument in arguments
        if argument.name in given or argument.has_default_value()
    }


def _leaves(tree: Any) -> list[Any]:
    return pytree.tree_leaves(tree, is_leaf=lambda leaf: isinstance(leaf, VALUES))


def _plain(tree: Any) -> Any:
    """Constants as the tensors that they are."""
    return pytree.tree_map(
        lambda leaf: leaf.tensor if isinstance(leaf, Const) else leaf,
        tree,
        is_leaf=lambda leaf: isinstance(leaf, VALUES),
    )


def _module_of(node: Node) -> tuple[str, str]:
    """The path and the class of the module that an operation belongs to."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    return re.sub(r"@\d+", "", path), str(kind).rsplit(".", 1)[-1]


def _spelled(node: Node) -> tuple[frozenset[int], str]:
    """The sizes that an operation's own line of code spells out as numbers, and that line."""
    found = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]+)', node.meta.get("stack_trace") or "")
    if not found:
        return frozenset(), ""
    path, number, code = found[-1]
    sizes = {size for size in pytree.tree_leaves(node.args[1:]) if type(size) is int and size > 1}
    literals = frozenset(size for size in sizes if re.search(rf"(?<![\w.]){size}(?![\w.])", code))
    return literals, f"{path.rsplit('/', 1)[-1]}:{number} `{code.strip():.80}`" if literals else ""


def _where(node: Node) -> str:
    path, kind = _module_of(node)
    lines = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    line = f", {lines[-1][0].rsplit('/', 1)[-1]}:{lines[-1][1]}" if lines else ""
    return f"operation {node.target} in module '{path or 'the network itself'}' ({kind}{line})"
