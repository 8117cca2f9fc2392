"""The compiled ticket: candidates that compute the same, checked against the plain model, and the fastest of them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.errors import GraphsparseError, TicketError, TraceError
from graphsparse.fit.features import features_for
from graphsparse.fit.graph_call import Arguments, by_target, whole_outputs
from graphsparse.fit.measure import inference_ms
from graphsparse.parallel import one_thread
from graphsparse.tickets.compiled.engine import Engine, may_reorder
from graphsparse.tickets.compiled.export import write_export
from graphsparse.tickets.compiled.portable import Portable
from graphsparse.tickets.compiled.program import Program
from graphsparse.tickets.compiled.read import read_program
from graphsparse.tickets.compiled.simplify import simplify

TOLERANCE = 1e-5
_REORDER_FROM = 1 << 20  # numbers of the widest value: fewer lie in the cache in any order


@dataclass(frozen=True)
class Candidate:
    """One way to compute the outputs.

    Attributes:
        name: in words.
        prepare: features [N, F] in the form that `run` takes.
        run: outputs of prepared features; of None: of the graph's own.
        notes: what it does, in words.
        work: ``multiplications`` and ``bytes`` of a pass, where they are known.
    """

    name: str
    prepare: Callable[[Tensor], Any]
    run: Callable[[Any], Tensor]
    notes: tuple[str, ...] = ()
    work: Mapping[str, int] = field(default_factory=dict)


class Prepared:
    """Features that a compiled ticket has put into its own form, see `CompiledTicket.prepare`."""

    def __init__(self, owner: CompiledTicket, value: Any) -> None:
        self.owner, self.value = owner, value


class CompiledTicket(nn.Module):
    """The fastest module that was found here for a ticket on its graph; made by :meth:`graphsparse.Ticket.compile`.

    It is called as ``fast()`` for the features of the ticket's graph, as ``fast(x)`` for others ``[N, F]`` on the same
    graph, dense or CSR, or as ``fast(fast.prepare(x))``, which puts them into its own form once for many calls. So that
    it may stand where the model stood, it takes the kept edges, too, and no others: ``fast(x, edge_index)``. It gives
    outputs, not gradients.

    Attributes:
        plan: what it does, line by line; ``print(fast.explain())`` shows it.
        milliseconds: median time of a pass of each candidate when it was made, by its name, and of the plain model.
        error: the largest difference from the plain model's outputs that was seen then.
        work: ``multiplications`` and least ``bytes`` read and written of a pass; empty where the model is run as it is.
        model: the ticket's model, zeros where weights went.
    """

    def __init__(self, model: nn.Module, arguments: Arguments, *, torch_compile: bool = False) -> None:
        super().__init__()
        self.model = model.eval()
        self.arguments = arguments
        self.program: Program | None = None
        self.untraced = ""
        self._choose(torch_compile)

    def forward(
        self, x: Tensor | Prepared | None = None, edge_index: Tensor | None = None, **edge_data: Tensor
    ) -> Tensor:
        """Outputs, as the ticket's model gives them on the ticket's edges.

        Args:
            x: features [N, F], dense or CSR, or what `prepare` gave; None: those of the graph.
            edge_index: if it is given, the ticket's kept edges [2, E'] in the order of ``ticket.sparse_graph(data)``.
            edge_data: likewise what they carry.

        Raises:
            ValueError: features of another shape or type, or another graph.
        """
        self._check_edges(edge_index, edge_data)
        with torch.no_grad(), one_thread(self.threads == 1):
            return self._run(None if x is None else self.prepare(x).value)

    def train(self, mode: bool = True) -> CompiledTicket:
        """It stays in evaluation mode, whatever a loop around it asks for."""
        return super().train(False)

    def prepare(self, x: Tensor | Prepared) -> Prepared:
        """Features [N, F] in the form that the first product takes.

        Raises:
            ValueError: features of another shape or type, or those of another compiled ticket.
        """
        if isinstance(x, Prepared):
            if x.owner is not self:
                raise ValueError("these features were prepared by another compiled ticket: call its prepare, or give x")
            return x
        own = self.arguments.x
        if own is None:
            raise ValueError("the model has no features, so that there are no others: call it without any")
        if not isinstance(x, Tensor) or x.shape != own.shape or x.dtype != own.dtype or x.device != own.device:
            what = f"{x.dtype} {list(x.shape)} on {x.device}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"the ticket was compiled for features {own.dtype} {list(own.shape)} on {own.device}, got {what}; "
                "for another graph compile its own ticket"
            )
        return Prepared(self, self._prepare(x))

    def decode(self, *inputs: Any) -> Any:
        """What the model's own ``decode`` gives, such as logits of pairs of nodes from their embeddings."""
        with torch.no_grad():
            return self.model.decode(*inputs)  # type: ignore[operator]

    def explain(self) -> str:
        """The plan as a text."""
        return "\n".join(self.plan)

    def portable(self) -> nn.Module:
        """The same in torch's own operations, as a module of the features alone; no loops of this machine.

        Raises:
            TraceError: the model could not be read; the sentence says why.
        """
        if self.program is None:
            raise TraceError(f"{type(self.model).__name__} cannot be exported: {self.untraced}")
        return Portable(self.program).eval()

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write the model with its graph for other programs: ``.pt2`` for ``torch.export``, ``.onnx`` for ONNX.

        What is written takes the features [N, F] of the graph's nodes (of a model without features: nothing) and gives
        the outputs; graph and weights lie in it.

        Raises:
            ValueError: for another suffix.
            TraceError: the model cannot be written so; the sentence says why.
            GraphsparseError: ONNX is asked for and its packages are not installed.
        """
        x = self.arguments.x
        write_export(self.portable(), () if x is None else (x,), path, type(self.model).__name__)

    def _check_edges(self, edge_index: Tensor | None, edge_data: Mapping[str, Tensor]) -> None:
        held = {"edge_index": self.arguments.edge_index, **self.arguments.named}
        for name, given in (("edge_index", edge_index), *edge_data.items()):
            own = held.get(name)
            if given is not None and own is not given and not _same(own, given):
                raise ValueError(
                    f"the ticket was compiled for its own graph, and this {name} is another's: leave it out, or give "
                    "that of ticket.sparse_graph(data)"
                )

    def _choose(self, torch_compile: bool) -> None:
        expected = whole_outputs_of(self.model, self.arguments)
        x = self.arguments.x
        others = None if x is None else _others(x)
        again = None if others is None else whole_outputs_of(self.model, self.arguments.with_x(others))
        good: list[tuple[Candidate, float]] = []
        refused: list[str] = []
        for make in self._makers(torch_compile):
            try:
                with torch.no_grad():
                    made = make()
                    error = _difference(made.run(None), expected)
                    if others is not None and again is not None:
                        error = max(error, _difference(made.run(made.prepare(others)), again))
            except GraphsparseError as failure:
                refused.append(str(failure))
                continue
            except Exception as failure:  # the plain model has run: what another form cannot do is no error
                said = " ".join(f"{type(failure).__name__}: {failure}".split())[:200]
                refused.append(f"a form was not taken, since it failed ({said})")
                continue
            if error <= TOLERANCE:
                good.append((made, error))
            else:
                refused.append(f"{made.name} was not taken: its outputs differ by {error:.1g}")
        if not good:
            raise TicketError(
                f"{type(self.model).__name__} does not give the same outputs twice, so nothing can be said to equal it"
            )
        self._take(good, refused)

    def _take(self, good: Sequence[tuple[Candidate, float]], refused: Sequence[str]) -> None:
        runs = [partial(candidate.run, None) for candidate, _ in good]
        with torch.no_grad():
            times = [_once(run) for run in runs]
            near = [place for place, ms in enumerate(times) if ms <= 3 * min(times)]
            for place, ms in zip(near, inference_ms([runs[place] for place in near], 5, 0.3), strict=True):
                times[place] = ms
            best = min(near, key=lambda place: times[place])
            (taken, self.error), self.threads = good[best], torch.get_num_threads()
            if self.threads > 1:
                with one_thread():
                    (alone,) = inference_ms([runs[best]], 5, 0.2)
                if alone <= times[best]:
                    self.threads = 1
        self._prepare, self._run, self.work = taken.prepare, taken.run, taken.work
        self.milliseconds = {candidate.name: ms for (candidate, _), ms in zip(good, times, strict=True)}
        timed = ", ".join(f"{name} {ms:.2f} ms" for name, ms in self.milliseconds.items())
        self.plan = (
            f"{taken.name}, on {self.threads} thread{'' if self.threads == 1 else 's'}",
            *([f"the model is run as it is: {self.untraced}"] if self.untraced else []),
            *taken.notes,
            *refused,
            f"tried: {timed}",
            f"the outputs differ from the plain model's by at most {self.error:.1g}",
        )

    def _makers(self, torch_compile: bool) -> list[Callable[[], Candidate]]:
        makers: list[Callable[[], Candidate]] = [self._plain, self._sorted]
        try:
            self.program = simplify(read_program(self.model, self.arguments))
        except Exception as failure:  # a model may do anything: it is run as it is then
            said = str(failure) if isinstance(failure, TraceError) else f"{type(failure).__name__}: {failure}"
            self.untraced = " ".join(said.split())[:200]
        program = self.program
        if program is not None:
            makers.append(partial(self._portable, program))
            if self._on_cpu():
                makers.append(partial(self._engine, program, False))
                widest = max(program.widths.values(), default=0) * self._rows()
                if may_reorder(program) and widest >= _REORDER_FROM:
                    makers.append(partial(self._engine, program, True))
        if torch_compile:
            makers.append(self._compiled)
        return makers

    def _rows(self) -> int:
        x = self.arguments.x
        return int(self.arguments.edge_index.max()) + 1 if x is None else x.size(0)

    def _on_cpu(self) -> bool:
        values = [v for v in (*self.model.parameters(), *self.model.buffers()) if v.is_floating_point()]
        values += [] if self.arguments.x is None else [self.arguments.x]
        kinds = {(value.device.type, value.dtype) for value in values}
        return kinds in ({("cpu", torch.float32)}, {("cpu", torch.float64)})

    # Candidates

    def _plain(self) -> Candidate:
        return _of_model("the plain model without the dropped edges", self.model, self.arguments)

    def _sorted(self) -> Candidate:
        arguments = self.arguments
        order = by_target(arguments.edge_index)
        places = (arguments.places[0], arguments.edge_index[:, order], *arguments.places[2:])
        moved = Arguments(places, arguments.named).with_edge_data(
            {name: value[order] for name, value in arguments.edge_data.items()}
        )
        notes = ["edges are sorted by their target"]
        x = moved.x
        if x is not None and x.dim() == 2 and x.is_floating_point():
            moved = moved.with_x(features_for(self.model, x, moved.edge_index, **moved.named))
            notes += ["features in compressed rows"] if moved.x is not x else []
        return _of_model("the plain model, its edges sorted", self.model, moved, tuple(notes))

    def _portable(self, program: Program) -> Candidate:
        module, x = Portable(program).eval(), self.arguments.x
        dense = partial(_densely, own=x)
        return Candidate(
            "the program in torch's operations", dense, lambda p: module(x if p is None else p), _said(program)
        )

    def _engine(self, program: Program, reorder: bool) -> Candidate:
        threads = torch.get_num_threads()
        engine = Engine(program, self.arguments.x, threads=threads, reorder=reorder)
        name = "loops over rows, nodes numbered anew" if reorder else "loops over rows"
        work = {"multiplications": engine.multiplications, "bytes": engine.traffic}
        return Candidate(name, engine.prepare, engine, (*_said(program), *engine.notes), work)

    def _compiled(self) -> Candidate:
        plain = self._sorted()
        names = (os.environ.get("CXX", "g++"), "g++", "clang++", "cl")
        if self._on_cpu() and not any(map(shutil.which, names)):
            raise GraphsparseError("torch.compile was not tried: there is no C++ compiler here")
        module = torch.compile(self.model, dynamic=False)
        return _of_model("torch.compile of the plain model", module, self.arguments, plain.notes)  # type: ignore[arg-type]


def _once(run: Callable[[], Any]) -> float:
    """Milliseconds of a second pass, which is long enough to leave the slow ones out."""
    run()
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def _said(program: Program) -> tuple[str, ...]:
    opaque = sorted(set(program.opaque) - {"attention", "mean of heads"})
    return (*program.notes, *([f"run as they are: {', '.join(opaque)}"] if opaque else []))


def _of_model(name: str, model: nn.Module, arguments: Arguments, notes: tuple[str, ...] = ()) -> Candidate:
    own = arguments.x
    sparse = own is not None and own.layout == torch.sparse_csr

    def prepare(x: Tensor) -> Arguments:
        if sparse:
            return arguments.with_x(x if x.layout == torch.sparse_csr else x.to_sparse_csr())
        return arguments.with_x(x.to_dense() if x.layout != torch.strided else x)

    def run(prepared: Arguments | None) -> Tensor:
        with torch.no_grad():
            outputs: Tensor = (prepared or arguments).run(model)
            return outputs

    return Candidate(name, prepare, run, notes)


def _densely(x: Tensor, own: Tensor | None) -> Tensor:
    return x if x.layout == torch.strided else x.to_dense()


def whole_outputs_of(model: nn.Module, arguments: Arguments) -> Tensor:
    """Outputs of one pass of the plain model."""
    with torch.no_grad():
        return whole_outputs(model, arguments)


def _others(x: Tensor) -> Tensor:
    """Other features like the graph's own: each node has those of the node before, some of them another sign."""
    moved = x.roll(1, 0)
    if not x.is_floating_point():
        return moved
    moved[::3] *= -1
    return moved


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, of outputs above 1 relative to the largest of them."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf")
    if not one.numel():
        return 0.0
    same_holes = torch.equal(one.isfinite(), other.isfinite())
    found = float((one - other).detach().abs().nan_to_num(0).max()) if same_holes else float("inf")
    return found / max(1.0, float(other.abs().nan_to_num(0, 0, 0).max()))


def _same(own: Any, given: Any) -> bool:
    both = isinstance(own, Tensor) and isinstance(given, Tensor)
    return both and own.shape == given.shape and own.dtype == given.dtype and torch.equal(own, given)
