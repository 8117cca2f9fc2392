"""Whether a model keeps a graph that it was called with: its ticket would be the dense graph's, whatever it claims.

Research code often holds on to what it made of the first graph (``if self.a is None: self.a = norm(edge_index)``).
Where it is held cannot be listed: attributes, dicts, buffers, closures, ``lru_cache``. What it does can be seen.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from graphsparse.errors import TicketError
from graphsparse.fit import MessageTask, clear_graph_caches
from graphsparse.fit.graph_call import Arguments, by_target
from graphsparse.fit.measure import device_of
from graphsparse.fit.rng import preserved, seed_all

_MOVED = 4  # nodes whose features are changed at once
_REBIRTHS = 64  # graphs made in the hope that one gets the identity of one that is gone


def check_forgets(model: nn.Module, task: MessageTask) -> None:
    """Raise an error if a model answers for a graph that it saw before, or was built with, and not for the one given.

    - A copy that saw the whole graph and another that saw fewer edges are called with those fewer edges: whoever
      remembers gives other outputs. The second graph is one without edges between nodes (or with the fewest with which
      the model runs), then one of as many arcs as the whole, all of them self-loops, then the same with the identity of
      a tensor that is gone.
    - Without edges between nodes, no node may feel its neighbours' features: who holds a graph already, or shares it
      between copies, is seen by that. Models that mix all nodes by a rule that knows no order (attention over all of
      them, norms over the graph) are told apart by permuting the nodes.
    - Whoever gives the same whatever edges, features and embeddings it gets, and yet not the same for all nodes, holds
      what it once made of them. What tells nodes apart and is neither a feature nor a parameter (degrees, positional
      encodings) may come from the graph or not: a warning names it.

    Everything runs on copies, in evaluation mode, with equal seeds; PyG's own caches are cleared whenever the graph
    changes, as in training. The global generators are left as they were.

    Args:
        model: any module that the task can call; it is not changed.
        task: whose graph it is.

    Raises:
        TicketError: naming the model and the way out. A model that cannot be run at all is left to its training.

    Example:
        >>> import graphsparse as gs
        >>> from graphsparse.fit import NodeTask
        >>> data = gs.data.load("digits-knn")
        >>> check_forgets(gs.nn.GCN(data.num_features, 8, data.num_classes), NodeTask(data))
    """
    where = device_of(model)
    with preserved(where), torch.no_grad():
        _Probe(model, task, where).check()


class _Probe:
    def __init__(self, model: nn.Module, task: MessageTask, where: torch.device) -> None:
        self.model, self.task, self.where = model, task, where
        self.dense = task.arguments(model).to(where)

    def check(self) -> None:
        whole = self._outputs(self.dense)  # first, so that what copies share holds the whole graph
        if whole is None:
            return
        loops = self._loops_only()
        for graph in (self._first_that_runs(self._fewer()), loops):
            alone = None if graph is None else self._outputs(graph)
            if graph is None or alone is None:
                continue
            self._check_order(graph, alone)
            self._check_neighbours(graph, alone, whole)
            if graph is loops:
                self._check_identity(graph, alone)
                self._check_features(graph, alone, whole)
            else:
                self._check_order(graph, alone, train=True)

    def _first_that_runs(self, graphs: Iterator[Arguments]) -> Arguments | None:
        return next((graph for graph in graphs if self._outputs(graph) is not None), None)

    def _fewer(self) -> Iterator[Arguments]:
        """Graphs with ever more edges; a model may need some (a pooling, an aggregation that fits a density)."""
        arcs = self.task.edge_index
        apart = arcs[0] != arcs[1]
        low, high = arcs.min(dim=0).values, arcs.max(dim=0).values
        numbers = (low * self.task.num_nodes + high) % 997  # both arcs of a pair have one
        first = apart.nonzero()[:1].view(-1)
        pair = (low == low[first]) & (high == high[first]) if len(first) else apart
        for kept in (torch.zeros_like(apart), pair, apart & (numbers % 8 == 0), apart & (numbers % 2 == 0)):
            yield self.task.with_mask(kept | ~apart).arguments(self.model).to(self.where)

    def _loops_only(self) -> Arguments | None:
        """A graph of the very shape of the whole one, whose arcs join nothing."""
        arcs, number = self.dense.edge_index, self._num_nodes()
        if not number or not arcs.size(1):
            return None
        nodes = torch.arange(arcs.size(1), device=arcs.device, dtype=arcs.dtype) % number
        loops = torch.stack([nodes, nodes])
        return self.dense.with_arcs(loops[:, by_target(loops)])

    def _check_order(self, graph: Arguments, alone: Tensor, train: bool = False) -> None:
        """Whoever saw the whole graph before must answer as one who saw this one before, or none."""
        after = self._outputs(graph, before=self.dense, train=train)
        if (after is None or not self._same(after, alone)) and self._steady(graph, alone, train):
            raise self._remembers("it answers for the whole graph when it is given fewer edges")

    def _check_identity(self, graph: Arguments, alone: Tensor) -> None:
        """A cache by ``id(edge_index)`` or its address finds a graph that is gone when another takes its place."""
        if self.where.type != "cpu":
            return  # the memory of other devices cannot be taken back on purpose
        model, memory = self._copy(), self.dense.edge_index.numpy().copy()
        free = sys.getrefcount(memory)
        first = torch.from_numpy(memory)
        name = id(first)
        self._run(model, self.dense.with_arcs(first))
        del first
        if sys.getrefcount(memory) > free:
            return  # somebody holds the graph itself, so that no other can take its place
        memory[...] = graph.edge_index.numpy()
        held = [torch.from_numpy(memory) for _ in range(_REBIRTHS)]  # at the old address, and one with the old id
        for reborn in (*(other for other in held if id(other) == name), held[-1]):
            outputs = self._run(model, self.dense.with_arcs(reborn))
            if (outputs is None or not self._same(outputs, alone)) and self._steady(graph, alone):
                raise self._remembers("it takes another graph for one that was freed, by its id or its address")

    def _steady(self, graph: Arguments, alone: Tensor, train: bool = False) -> bool:
        """Whether a second call gives what the first gives: otherwise its state moves by itself, whatever the graph."""
        again = self._outputs(graph, before=graph, train=train)
        return again is not None and self._same(again, alone)

    def _check_neighbours(self, graph: Arguments, base: Tensor, whole: Tensor) -> None:
        """Where no edge leads to a node, no other's features may reach it."""
        arcs = graph.edge_index
        if self.task.kind == "graph":
            self._check_graphs(graph, base, whole)
            return
        number = self._num_nodes()
        tails, heads = self.dense.edge_index
        apart = tails != heads
        degree = torch.bincount(tails[apart], minlength=number) + torch.bincount(heads[apart], minlength=number)
        degree[arcs[:, arcs[0] != arcs[1]].reshape(-1)] = 0  # these have edges here
        able = (degree > 0).nonzero().view(-1)
        if base.size(0) != number or not len(able):
            return
        nodes = able[degree[able].argsort(stable=True)[:_MOVED]]  # few neighbours: others should feel nothing
        moved = self._outputs(graph, rows=lambda values: _raised(values, nodes))
        if moved is None:
            return
        felt = ((moved - base).abs() > self._tolerance(base)).flatten(1).any(dim=1)
        near = torch.zeros_like(felt)
        for one, other in ((tails, heads), (heads, tails)):
            near[other[torch.isin(one, nodes)]] = True
        near[nodes] = felt[nodes] = False
        if not bool(felt[near].any()) or self._knows_no_order(graph, base):
            return
        far = ~near
        far[nodes] = False
        share, others = float(felt[near].float().mean()), float(felt[far].float().mean()) if bool(far.any()) else 0.0
        if share - others >= 0.2 or (share >= 0.5 and self._same(whole, base)):
            raise self._remembers("without any edge a node still feels its neighbours in the whole graph")

    def _check_features(self, graph: Arguments, base: Tensor, whole: Tensor) -> None:
        """What a model holds of the nodes, besides their features and its parameters, must not come from the graph."""
        number = self._num_nodes()
        if self.task.kind == "graph" or base.size(0) != number or self._same(base[:1].expand_as(base), base):
            return
        nodes = torch.arange(number, device=self.where)
        if self._same(whole, base):
            moved = self._outputs(graph, rows=lambda values: _raised(values, nodes), embeddings=True)
            if moved is not None and self._same(moved, base):
                raise self._remembers("its outputs are the same whatever edges and features it is given")
        held = list(_held_rows(self.model, number))
        if held and self._steady(graph, base) and not self._knows_no_order(graph, base, embeddings=True):
            warnings.warn(
                f"{type(self.model).__name__} holds a row for each node ({', '.join(held)}), neither features nor "
                "parameters: if they were made of the graph, its ticket still knows the dense one. Make them of "
                "edge_index in every forward pass, or give them as a part of data.x",
                stacklevel=4,
            )

    def _check_graphs(self, graph: Arguments, base: Tensor, whole: Tensor) -> None:
        """Of whole graphs: who gives the same with and without edges, and yet knows which node is which, holds some."""
        batch = graph.batch
        if not self._same(whole, base) or batch is None:
            return
        drawn = torch.rand(len(batch), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        order = (batch + drawn.to(batch.device)).argsort()  # new places, each within its graph
        turned = self._outputs(graph, rows=lambda values: values[order])
        if turned is not None and not self._same(turned, base):
            raise self._remembers("its outputs are the same with and without edges, and yet not those of bare nodes")

    def _knows_no_order(self, graph: Arguments, base: Tensor, embeddings: bool = False) -> bool:
        """Whether permuted nodes give permuted outputs."""
        order = torch.randperm(base.size(0), generator=torch.Generator().manual_seed(0)).to(self.where)
        arcs = graph.edge_index
        moved = graph.with_arcs(order.argsort()[arcs.long()].to(arcs.dtype))
        permuted = self._outputs(moved, rows=lambda v: v[order], embeddings=embeddings)
        return permuted is not None and self._same(permuted, base[order])

    def _outputs(
        self,
        graph: Arguments,
        *,
        before: Arguments | None = None,
        train: bool = False,
        rows: Callable[[Tensor], Tensor] | None = None,
        embeddings: bool = False,
    ) -> Tensor | None:
        """Outputs of a new copy for a graph; None if it cannot take it.

        ``before``: a graph that it is called with first (``train``: in training mode, norms excepted, which would learn
        from it). ``rows``: what becomes of the nodes' features; without features, or with ``embeddings``, of the
        parameters with a row a node.
        """
        model = self._copy()
        if before is not None:
            if train:
                model.train()
                for module in model.modules():
                    if getattr(module, "running_mean", None) is not None:
                        module.eval()
            if self._run(model, before) is None:
                return None
            model.eval()
        if rows is not None:
            x = graph.x
            if x is not None:
                graph = graph.with_x(rows(x))
            for value in model.parameters() if x is None or embeddings else ():
                if value.dim() > 1 and value.size(0) == self._num_nodes():
                    value.copy_(rows(value))
        return self._run(model, graph)

    def _run(self, model: nn.Module, graph: Arguments) -> Tensor | None:
        seed_all(0, self.where)
        clear_graph_caches(model)
        try:
            outputs = model(*graph.places, **graph.named)
        except Exception:
            return None
        finite = isinstance(outputs, Tensor) and outputs.is_floating_point() and bool(outputs.isfinite().all())
        return outputs.clone() if finite else None

    def _copy(self) -> nn.Module:
        try:
            return copy.deepcopy(self.model).eval()
        except Exception as error:
            raise TicketError(
                f"{type(self.model).__name__} cannot be copied: {str(error).splitlines()[0]}; "
                "keep no tensor of an earlier forward pass, or detach it"
            ) from error

    def _num_nodes(self) -> int:
        x = self.dense.x
        return x.size(0) if isinstance(x, Tensor) else self.task.num_nodes

    def _tolerance(self, outputs: Tensor) -> float:
        return 1e-4 * float(outputs.abs().max()) + 1e-7 if outputs.numel() else 0.0

    def _same(self, one: Tensor, other: Tensor) -> bool:
        if one.shape != other.shape:
            return False
        return not bool(((one - other).abs() > self._tolerance(other)).any())

    def _remembers(self, how: str) -> TicketError:
        return TicketError(
            f"{type(self.model).__name__} keeps a graph: {how}, so its ticket would claim a sparse graph and use "
            "another. Compute what depends on edge_index in every forward pass (PyG's cached=True is fine), and hold "
            "no graph in the model"
        )


def _held_rows(model: nn.Module, number: int) -> Iterator[str]:
    """Names of tensors with a row for each node that a module holds and that are no parameters."""
    for prefix, module in model.named_modules():
        for name, value in [*module.named_buffers(recurse=False), *vars(module).items()]:
            if isinstance(value, Tensor) and value.dim() and value.size(0) == number:
                yield f"{prefix}.{name}" if prefix else name


def _raised(values: Tensor, nodes: Tensor) -> Tensor:
    """The same rows, those of some nodes far from what they were."""
    changed = values.clone()
    size = values.abs().max().clamp_min(1.0)
    sign = torch.where(torch.arange(values[0].numel(), device=values.device) % 2 == 0, 1.0, -1.0).view(values[0].shape)
    changed[nodes] = (values[nodes] + 3 * size * (1 + sign / 2)).to(values.dtype)
    return changed
