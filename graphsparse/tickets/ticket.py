"""The graph lottery ticket as an artefact: what it holds, its hash, how it is saved, loaded and verified."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.errors import TicketError
from graphsparse.fit import Batches, MessageTask
from graphsparse.graphs.interop import EdgeList, open_graph
from graphsparse.hashing import framed_hash
from graphsparse.keep_rule import keep_fraction
from graphsparse.params import weights_kept
from graphsparse.report.html import fragment
from graphsparse.tickets.canonical import canonical_order, graph_hash, pack_bits, unpack_bits
from graphsparse.tickets.check import check_claims, check_edges, check_outputs, check_weight_count, scores
from graphsparse.tickets.compiled.fast import CompiledTicket
from graphsparse.tickets.finders.controls import IGNORED
from graphsparse.tickets.memory_probe import check_forgets
from graphsparse.tickets.problem import task_class
from graphsparse.tickets.shown import ticket_blocks
from graphsparse.tickets.standing import Standing
from graphsparse.tickets.ticket_files import grouped, read_cuts, read_files, write_files
from graphsparse.untrusted import reading

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, repr=False)
class Ticket:
    """A graph lottery ticket: a sparse graph and a sparse network that were found together.

    It stores which edges and weights stay, the initial (theta0) and the trained values of the kept weights, and the
    outputs, so that it can be checked long after; it names no class to import and runs no code when it is loaded.

    Attributes:
        method: how the edges were chosen, such as ``"teddy"``.
        edge_mask: bool ``[E]``, the edges that stay, in canonical order (sorted by tail, head, copy).
        weight_masks: for each pruned parameter a bool mask of its shape; a kept zero is kept.
        theta0: initial values of the kept positions of each pruned parameter, 1-D.
        weights: trained values of the same positions, 1-D.
        state: parameters that were not pruned and buffers, trained, by name.
        logits: eval-mode outputs of the best validation epoch on what is tested: ``[N, C]`` of nodes, ``[G, T]`` of
            graphs, ``[M]`` of the judged pairs of nodes.
        graph_hash: SHA-256 of the dense graph, independent of its edge order.
        config: how it was found (keeps, seed, training settings, task).
        metrics: flat figures, see :func:`graphsparse.find_ticket`.
        versions: versions of the libraries that found it.
        source: the file that it was read from, for errors; no part of what makes tickets equal.
        cuts: of a ticket of units, what stays of each parameter and buffer that loses something: axes -> bool of their
            sizes, see :func:`graphsparse.metanet.cut_out`.
    """

    method: str
    edge_mask: Tensor
    weight_masks: Mapping[str, Tensor]
    theta0: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    state: Mapping[str, Tensor]
    logits: Tensor
    graph_hash: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)
    source: str = field(default="the ticket", compare=False)
    cuts: Mapping[str, Mapping[tuple[int, ...], Tensor]] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """SHA-256 over the canonical tensors, the graph hash, the method and what was kept; never over times."""
        kept = [str(self.config.get("edge_keep")), str(self.config.get("weight_keep"))]
        return framed_hash(self._tensors(), self.graph_hash, self.method, *kept)

    def __repr__(self) -> str:
        figures = self.metrics
        below = "" if self.standing.below <= 0 else f", {self.standing.distance} dense"
        return (
            f"Ticket({self.method}, edges {figures['edges_kept']:.2%}, weights {figures['weights_kept']:.2%}, "
            f"test {figures['metric']} {figures['test']:.4f}, dense {figures['dense_test']:.4f}{below}, "
            f"{self.hash[:12]})"
        )

    @property
    def standing(self) -> Standing:
        """How it stands beside its dense model on the test part; ``.sentence`` says it and what may help.

        A single run cannot tell loss from chance: `graphsparse ticket` compares several seeds.
        """
        figures = self.metrics
        maximize = self.config.get("direction") != "min"
        return Standing.of([figures["dense_test"]], [figures["test"]], maximize=maximize)

    def _repr_html_(self) -> str:
        """What a notebook shows: the ticket beside the dense model, and the weights kept of each tensor."""
        return fragment(ticket_blocks(self))

    def sparse_graph(self, data: Data) -> Data:
        """Return ``data`` with the ticket's edges only; every attribute is kept, edge-level ones are cut along.

        Raises:
            TicketError: if ``data`` is not the graph that the ticket was found on.
        """
        self._check_graph(data)
        return open_graph(data).cut(self.mask_for(data))

    def apply_to(self, model: M, *, rewind: bool = False, cut: bool = True) -> M:
        """Return a copy of ``model`` that holds the ticket's weights, zeros elsewhere; ``model`` is not changed.

        A ticket of units gives a *smaller* copy, without the units that are out, with the same outputs. Where that was
        found to be impossible (``metrics["cut"]`` is False, ``metrics["cut_refused"]`` says why) it holds zeros.

        Args:
            model: a module with the parameters and buffers, by name and shape, of the one that was trained.
            rewind: give the kept positions their initial values (theta0) instead of the trained ones.
            cut: whether to cut units out; False gives the widths of ``model`` with zeros.

        Raises:
            TicketError: if names or shapes differ.
        """
        values = self.theta0 if rewind else self.weights
        state = dict(self.state)
        for name, mask in self.weight_masks.items():
            dense = torch.zeros(mask.shape, dtype=values[name].dtype)
            dense[mask] = values[name]
            state[name] = dense
        clone = copy.deepcopy(model)
        own = clone.state_dict()
        for name in own.keys() | state.keys():
            if name not in own or name not in state:
                _complain_names(name, name in own, model)
            elif own[name].shape != state[name].shape:
                raise TicketError(
                    f"{name} has shape {tuple(own[name].shape)} in {type(model).__name__} and "
                    f"{tuple(state[name].shape)} in the ticket; build the model with the ticket's sizes"
                )
        clone.load_state_dict(state)
        return self._cut(clone) if cut and self.cuts and self.metrics.get("cut") is True else clone

    def _cut(self, model: M) -> M:
        from graphsparse.metanet import ShrinkError, cut_out

        try:
            return cut_out(model, self.cuts)
        except ShrinkError as error:
            raise TicketError(f"the ticket's units cannot be cut out of {type(model).__name__}: {error}") from error

    def verify(
        self,
        data: Data,
        model: nn.Module | None = None,
        *,
        expected_hash: str | None = None,
        task: MessageTask | None = None,
    ) -> dict[str, Any]:
        """Check that the ticket belongs to ``data`` and that its figures follow from what it stores.

        The graph hash, the figures of the stored outputs and the counts of the masks are always checked; with
        ``model`` the weights are loaded into a copy and the outputs are computed again on the sparse graph. (Damage to
        the files is found by :meth:`load`; a deliberate forgery only by ``expected_hash``.)

        Args:
            data: the dense graph, its edges in any order.
            model: any module of the right shape; its own weights do not matter.
            expected_hash: the ``hash`` that the ticket must have.
            task: the task to evaluate with, if it was a custom one.

        Returns:
            What was checked: ``hash``, ``graph_hash``, ``test``, ``val``, and with a model ``max_output_error``.

        Raises:
            TicketError: naming the first check that failed.

        Example:
            >>> import graphsparse as gs
            >>> data = gs.data.load("digits-knn")
            >>> net = gs.nn.GCN(data.num_features, 8, data.num_classes)
            >>> ticket = gs.find_ticket(net, data, edge_keep=0.6, weight_keep=0.5, epochs=3)
            >>> ticket.verify(data, model=net)["graph_hash"] == ticket.graph_hash
            True
        """
        _check_types(model, data)
        with reading(self.source, TicketError, "a ticket that verifies"):
            return self._verified(data, model, expected_hash, task)

    def _verified(
        self, data: Data, model: nn.Module | None, expected_hash: str | None, task: MessageTask | None
    ) -> dict[str, Any]:
        if expected_hash is not None and expected_hash != self.hash:
            raise TicketError(f"the ticket's hash is {self.hash}, not the expected {expected_hash}")
        self._check_graph(data)
        task = task if task is not None else self._task(data)
        figures, mask = scores(task, self.logits), self.mask_for(data)
        named = {f"{part}_accuracy": value for part, value in figures.items() if f"{part}_accuracy" in self.metrics}
        kept = kept_figures(data.edge_index, mask, self.weight_masks)
        check_claims({**figures, **named}, self.metrics, "stored outputs", "ticket")
        check_claims(kept, self.metrics, "stored masks", "ticket")
        self._check_keeps(open_graph(data).edges, mask, task)
        self._check_cuts()
        report: dict[str, Any] = {"hash": self.hash, "graph_hash": self.graph_hash, **figures}
        if model is not None:
            check_forgets(model, task.excerpt())
            report["max_output_error"] = check_outputs(task.with_mask(mask), self.apply_to(model), self.logits)
        return report

    def _check_keeps(self, graph: EdgeList, mask: Tensor, task: MessageTask) -> None:
        """No more is kept than the config says, unless the method is a control, which says so."""
        ignored = IGNORED.get(self.method, ())
        if self.metrics.get("ignores", "") not in ("", ", ".join(ignored)):
            raise TicketError(
                f"the ticket ignores {self.metrics['ignores']!r:.50}, which is not what {self.method} may"
            )
        if "edge_keep" in self.config and "edge_keep" not in ignored:
            check_edges(graph, mask, task.graph_of, keep_fraction(self.config["edge_keep"]), "ticket")
        if "weight_keep" in self.config and "weight_keep" not in ignored and self.config.get("which") == "all":
            total = sum(bits.numel() for bits in self.weight_masks.values())
            check_weight_count(self.weight_masks, total, keep_fraction(self.config["weight_keep"]), "ticket")

    def compile(
        self, model: nn.Module, data: Data, *, task: MessageTask | None = None, torch_compile: bool = False
    ) -> CompiledTicket:
        """The fastest module on this machine that gives the outputs of the ticket's model on the ticket's graph.

        Dropped edges are left out, norms of the graph and of layers folded in, hidden units that are dead or constant
        cut away, and each product is done in the form that takes least time when it is tried: features and weights
        in compressed rows or dense, weights or edges first, on one thread or all. Nothing that hangs on the features is
        computed ahead. The outputs are compared with the plain model's when it is made, on the graph's features and
        on others; a form whose outputs differ by more than 1e-5 (of the largest, where that is above 1) is not taken.
        A model that cannot be read step by step is run as it is, on fewer and sorted edges.

        Args:
            model: any module of the right shape, as for :meth:`apply_to`.
            data: the dense graph, its edges in any order.
            task: the task, if it was a custom one.
            torch_compile: try ``torch.compile``, too, which takes a minute and needs a C++ compiler on the CPU.

        Returns:
            A module called as ``fast()`` for the graph's own features, ``fast(x)`` for others ``[N, F]`` on the same
            graph; ``print(fast.explain())`` tells what it does, ``fast.export("net.onnx")`` writes it.

        Raises:
            TicketError: the graph or the model is not the ticket's.

        Example:
            >>> import graphsparse as gs
            >>> data = gs.data.load("digits-knn")
            >>> net = gs.nn.GCN(data.num_features, 8, data.num_classes)
            >>> ticket = gs.find_ticket(net, data, edge_keep=0.6, weight_keep=0.5, epochs=3)
            >>> fast = ticket.compile(net, data)
            >>> bool((fast(data.x).argmax(dim=1) == ticket.logits.argmax(dim=1)).float().mean() > 0.99)
            True
        """
        if model is None:
            raise TypeError("model must be a torch.nn.Module of the ticket's shape, got NoneType")
        _check_types(model, data)
        applied = self.apply_to(model).eval()
        self._check_graph(data)
        task = task if task is not None else self._task(data)
        return CompiledTicket(
            applied, task.with_mask(self.mask_for(data)).arguments(applied), torch_compile=torch_compile
        )

    def _check_cuts(self) -> None:
        """No weight that a mask keeps is cut away."""
        for name, cut in self.cuts.items():
            if name not in self.weight_masks:
                continue
            mask = self.weight_masks[name]
            for axes, kept in cut.items():
                others = [axis for axis in range(mask.dim()) if axis not in axes]
                held = mask.any(dim=others) if others else mask
                if bool((held & ~kept).any()):
                    raise TicketError(f"the ticket cuts away weights of {name} that its mask keeps")

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``ticket.json`` and a safetensors file into ``folder``; an earlier ticket there is replaced at once.

        A killed run leaves the old ticket or the new one.

        Raises:
            TicketError: for a setting or figure of the caller's own that JSON cannot say.
        """
        about = {
            "hash": self.hash,
            "method": self.method,
            "graph_hash": self.graph_hash,
            "num_edges": self.edge_mask.numel(),
            "shapes": {name: list(mask.shape) for name, mask in self.weight_masks.items()},
            "config": dict(self.config),
            "metrics": dict(self.metrics),
            "versions": dict(self.versions),
        }
        return write_files(folder, about, self._tensors())

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Ticket:
        """Read a ticket from ``folder`` (or from its ``ticket.json``); nothing that is read can run code.

        Raises:
            TicketError: if a file is missing, damaged, altered or of an unknown format.
        """
        path = Path(folder)
        path = path if path.suffix == ".json" else path / "ticket.json"
        with reading(path, TicketError, "a readable ticket"):
            about, tensors = read_files(path)
            ticket = cls._from_parts(about, tensors, str(path))
            if ticket.hash != about["hash"]:
                raise TicketError(f"{path} is damaged or altered: it hashes to {ticket.hash}, not {about['hash']:.64}")
        return ticket

    @classmethod
    def _from_parts(cls, about: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str) -> Ticket:
        packed = grouped(tensors, "mask/")  # in an order of its own; that of the shapes is the model's
        masks = {name: unpack_bits(packed[name], shape) for name, shape in about["shapes"].items()}
        for prefix in ("theta0/", "weight/"):
            for name, values in grouped(tensors, prefix).items():
                if values.shape != (int(masks[name].sum()),) or not values.is_floating_point():
                    raise TicketError(f"{source} is no readable ticket: {prefix}{name} is not what its mask keeps")
        return cls(
            method=about["method"],
            edge_mask=unpack_bits(tensors["edge_mask"], (about["num_edges"],)),
            weight_masks=masks,
            theta0=grouped(tensors, "theta0/"),
            weights=grouped(tensors, "weight/"),
            state=grouped(tensors, "state/"),
            logits=tensors["logits"],
            graph_hash=about["graph_hash"],
            config=about["config"],
            metrics=about["metrics"],
            versions=about["versions"],
            source=source,
            cuts=read_cuts(grouped(tensors, "cut/")),
        )

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {"edge_mask": pack_bits(self.edge_mask), "logits": self.logits}
        tensors |= {f"mask/{name}": pack_bits(mask) for name, mask in self.weight_masks.items()}
        for prefix, values in (("theta0/", self.theta0), ("weight/", self.weights), ("state/", self.state)):
            tensors |= {prefix + name: value.contiguous() for name, value in values.items()}
        for name, cut in self.cuts.items():
            tensors |= {f"cut/{','.join(map(str, axes))}/{name}": kept for axes, kept in cut.items()}
        return tensors

    def mask_for(self, data: Data) -> Tensor:
        """Which edges stay: bool ``[E]``, in the order of ``data.edge_index`` ``[2, E]``, of the ticket's graph.

        Raises:
            TicketError: their number is not that of the ticket's graph.
        """
        if self.edge_mask.numel() != data.edge_index.size(1):
            raise TicketError(
                f"the ticket says which of {self.edge_mask.numel()} edges stay, {data.edge_index.size(1)} are there"
            )
        mask = torch.empty_like(self.edge_mask)
        mask[canonical_order(data)] = self.edge_mask
        return mask

    def _check_graph(self, data: Data) -> None:
        found = graph_hash(data, self.config.get("split", 0), task_class(self.config.get("kind", "node")).hashed)
        if found != self.graph_hash:
            raise TicketError(
                f"this is not the ticket's graph: it hashes to {found[:16]}..., the ticket was found on "
                f"{self.graph_hash[:16]}... (nodes, edges, what they carry, features, labels, split must be the same)"
            )

    def _task(self, data: Data) -> MessageTask:
        kind = self.config.get("kind", "node")
        if self.config.get("task") != kind:
            raise TicketError("the ticket was found with a task of the caller's own: pass it as task=")
        make = partial(task_class(kind).of, data, protocol=self.config["protocol"], split=self.config["split"])
        own, name = data.get("metric"), self.metrics["metric"]
        task = make(metric=name if own is None else own)
        if task.metric.name != name:  # a metric of the caller's own is found by the data alone
            task = make(metric=name)
        try:
            batches = Batches.of_config(self.config)
        except (TypeError, ValueError) as error:
            raise TicketError(f"the ticket's config says nothing readable of mini-batches: {error}") from error
        return task if batches is None else task.in_batches(batches)


def _check_types(model: nn.Module | None, data: Data) -> None:
    """Raise a TypeError unless these are a module, or none, and a graph."""
    if not isinstance(data, Data):
        raise TypeError(f"data must be a PyG Data, got {type(data).__name__}")
    if model is not None and not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")


def kept_figures(edge_index: Tensor, edge_mask: Tensor, weight_masks: Mapping[str, Tensor]) -> dict[str, float]:
    """Counts and fractions of what masks keep; self-loops are not counted.

    Args:
        edge_index: ``[2, E]``.
        edge_mask: bool ``[E]``, true on self-loops.
        weight_masks: a bool mask for each weight that counts.
    """
    loops = int((edge_index[0] == edge_index[1]).sum())
    arcs, left = edge_index.size(1) - loops, int(edge_mask.sum()) - loops
    return {
        "edges_kept": left / arcs if arcs else 1.0,
        **weights_kept(weight_masks),
        "num_arcs": arcs,
        "num_arcs_kept": left,
        "num_weights_kept": sum(int(mask.sum()) for mask in weight_masks.values()),
    }


def _complain_names(name: str, in_model: bool, model: nn.Module) -> None:
    where = (
        f"{type(model).__name__} but not in the ticket" if in_model else f"the ticket but not in {type(model).__name__}"
    )
    raise TicketError(f"{name} is in {where}; build the model as the one that the ticket was found with")
