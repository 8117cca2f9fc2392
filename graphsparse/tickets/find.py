"""find_ticket: a model and a graph in, a graph lottery ticket out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch_geometric.data import Data

from graphsparse import ranks
from graphsparse.errors import TicketError
from graphsparse.fit import Batches, MessageTask
from graphsparse.fit.checks import tensor_of
from graphsparse.graphs.interop import of_library
from graphsparse.keep_rule import Keep, exact_fraction, keep_fraction, whole_number
from graphsparse.params import Distribution, L0Projection, prunable
from graphsparse.params.reparametrized import check_unpruned
from graphsparse.registry import spelling
from graphsparse.tickets.canonical import with_ordered_copies
from graphsparse.tickets.compare.search import LEVELS, level_keeps, sparsest_within
from graphsparse.tickets.finders.controls import IGNORED
from graphsparse.tickets.finders.sparse_weights import check_weights
from graphsparse.tickets.finders.table import EDGE_RULES, check_batches, check_rules, finder_name, finder_of
from graphsparse.tickets.make import make_ticket
from graphsparse.tickets.problem import KINDS, Problem, Training, train_dense
from graphsparse.tickets.ticket import Ticket
from graphsparse.tickets.units import units_pattern
from graphsparse.tickets.weights import L0, Weights


def find_ticket(
    model: nn.Module,
    data: Data,
    *,
    method: str = "teddy",
    edge_keep: Keep | None = None,
    weight_keep: Keep | None = None,
    tolerance: float | None = None,
    distill: float = 1.0,
    seed: int = 0,
    task: str | MessageTask | None = None,
    protocol: str | None = None,
    split: int = 0,
    which: str | tuple[str, ...] = "all",
    weights: Weights = "l0",
    weight_distribution: Distribution | None = None,
    pattern: str = "weights",
    epochs: int = 200,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
    batch_size: int | Batches | None = None,
    neighbors: Sequence[int] | None = None,
    guard: str | None = None,
    forest: bool = False,
    score_options: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Ticket:
    """Find a graph lottery ticket: a sparse graph and a sparse model that is as accurate as the dense one.

    A dense model is trained on the whole graph; the edges are pruned once; the sparse model starts from the same
    initial weights, is projected onto the l0 ball after every step (or kept sparse by another method, ``weights``), and
    learns from labels and from the dense model's outputs. Everything is chosen on validation data; the test figure is
    that of the best validation epoch.

    Args:
        model: any module called as ``model(x, edge_index)``, for graphs as ``model(x, edge_index, edge_attr, batch)``;
            its current weights are theta0. It is never changed. What the edges carry is passed by the names of its own
            ``forward``: ``edge_weight``, ``edge_attr``, ``edge_type``, cut along with the edges.
        data: the graph, with ``x``, ``edge_index``, ``y`` (of several labels a node ``[N, C]`` of 0, 1 and NaN) and
            ``train_mask``, ``val_mask``, ``test_mask``; many graphs as one `graphsparse.data.GraphSet`.
        method: a name of :func:`graphsparse.tickets.finders`: ``"teddy"``, ``"reliance"`` and ``"reliance-blind"``
            (ours), ``"ugs"``, ``"wd-glt"``, ``"imp"``, ``"mixture"``, ``"denoise"``, ``"magnitude"``, a control such as
            ``"random"`` or ``"no-edges"``, an edge score, or ``"module:attribute"``, a finder of your own.
        edge_keep: fraction of the edges to keep, in (0, 1]; by default all. Of many graphs each keeps its own share,
            rounded up: of small ones a little more stays in all.
        weight_keep: fraction of the weights to keep, in (0, 1]; by default all.
        tolerance: instead of the two keeps: the sparsest level of the paper (edges 0.95^i, weights 0.9^i, i = 20..1)
            whose validation metric is at most this much worse than the dense one.
        distill: weight lambda of the distillation term; 0 trains on labels alone.
        seed: drives dropout, ties and random scores, not theta0.
        task: ``"node"``, ``"link"`` or ``"graph"``, see `NodeTask`, `LinkTask` and `GraphTask` of `graphsparse.fit` for
            the data and how it is judged; or a task of your own. By default what ``data.task`` says, else ``"node"``.
        protocol: of nodes: ``"transductive"`` (the default), or ``"inductive"``: trained on the graph without the test
            nodes. Links are transductive, graphs inductive: all of them are sparsified, each by itself.
        split: column of two-dimensional masks.
        which: weights that count: ``"all"``, ``"matrices"`` or names.
        weights: how they are made sparse: ``"l0"``, the projection of the paper; a name of
            :func:`graphsparse.params.methods` that keeps a share, such as ``"rigl"``, ``"set"``, ``"gmp"`` or
            ``"random-erk"``; ``"module:attribute"``; or a recipe of your own, a :class:`graphsparse.params.Recipe` or
            the values of its axes by name. For methods that choose the edges alone (``"teddy"``, ``"reliance"``,
            ``"mixture"``, ``"random"``, every edge score).
        weight_distribution: how many weights each tensor keeps; None: as the method of ``weights`` has it, which for
            ``"l0"`` is ``"global"``: the largest of all tensors together, as in the paper. ``"uniform"``, ``"er"``,
            ``"erk"`` or a relative density for each tensor by name, see :func:`graphsparse.params.allot`. Where the
            tensors' scales differ, ``"global"`` leaves nothing of some. Of units: ``"global"`` or ``"uniform"``, among
            layers.
        pattern: ``"weights"``, kept one by one, or ``"units"``: whole hidden units, which are cut out at the end, so
            that `Ticket.apply_to` gives a smaller module. At most as many weights stay as ``weight_keep`` says, and
            less than a unit's fewer; every layer keeps a unit, see :class:`graphsparse.params.Units`.
        epochs: epochs of each training run.
        lr: Adam's learning rate.
        weight_decay: Adam's l2 penalty.
        batch_size: train in mini-batches of so many nodes, links or graphs; None: nodes and the messages of links on
            the whole graph. A `graphsparse.fit.Batches` says more. Figures are those of the whole graph in any case,
            see `NodeTask.in_batches`.
        neighbors: how many in-neighbours a batch of nodes or links draws at each layer of the model, such as
            ``(15, 10)``; -1 is all.
        guard: ``"cover"`` or ``"isolated"`` against nodes that lose their last neighbour, see
            :func:`graphsparse.edges.keep_mask`.
        forest: keep a maximum spanning forest first.
        score_options: options of the edge score.
        device: where to train; the CPU by default. In processes that ``torchrun`` started, which share out the batches,
            ``"cuda"`` is a GPU for each.
        checkpoint: folder for checkpoints; an interrupted call that is repeated resumes to the same ticket.
        progress: show progress bars; by default only on a terminal.

    Returns:
        The ticket. Its ``metrics``: ``metric``; ``dense_test``, ``dense_val``, ``test``, ``val`` in the metric's own
        unit (and ``test_accuracy``, ``dense_test_accuracy``, ``val_accuracy`` when that is accuracy); ``edges_kept``,
        ``weights_kept``, ``weights_kept_matrices`` (fractions) and their counts; ``isolated_nodes``, ``macs``,
        ``inference_ms`` and the same of the dense model (of many graphs: to predict the test part). Of units also
        ``num_units``, ``num_units_kept``, ``units_kept``, ``cut``, and where that is False ``cut_refused``, why.

    Raises:
        ValueError: for a keep outside (0, 1], an unknown method, guard or weight, a method for the weights that cannot
            serve, a tolerance together with a keep, a setting of the training that is out of range, a seed that is
            none, a guard, forest or option for a method that takes none, or batches for a method that learns masks of
            all edges.
        TypeError: for a keep that is no number, a model that is no module, a graph that is no ``Data`` with
            ``edge_index`` (the sentence says what makes one of it), or an option that the method does not have.
        TicketError: if no level is within the tolerance; it names the closest.
        TraceError: for units, if the model cannot be traced.

    Source: Seo, Yun, Yang, ICLR 2024; tickets on graphs: Chen et al., ICML 2021.

    Example:
        >>> import graphsparse as gs
        >>> data = gs.data.load("digits-knn")
        >>> net = gs.nn.GCN(data.num_features, 16, data.num_classes)
        >>> ticket = gs.find_ticket(net, data, edge_keep=0.6, weight_keep=0.1, epochs=5)
        >>> round(ticket.metrics["edges_kept"], 3), round(ticket.metrics["weights_kept"], 3)
        (0.6, 0.1)
    """
    keeps = read_keeps(edge_keep, weight_keep, tolerance)
    edge_options = _edge_options(guard, forest, score_options)
    check_rules(method, edge_options)
    split = whole_number(split, "split")
    check_is_data(data)
    if not isinstance(task, MessageTask):
        data = with_ordered_copies(data)
    learned = _task(task, data, protocol, split)
    batches = read_batches(batch_size, neighbors)
    if batches is not None:
        learned = learned.in_batches(batches)
    device = ranks.join(device) if ranks.asked_for() > 1 else device
    training = Training(epochs, lr, weight_decay, distill, which, weight_distribution, device, pattern, weights)
    problem = Problem(
        model=_checked(model, which, _distribution_of_l0(training)),
        data=data,
        task=learned,
        training=training,
        seed=seed,
        edge_options=edge_options,
        folder=None if checkpoint is None else Path(checkpoint),
        progress=progress,
        about={
            "task": type(task).__name__ if isinstance(task, MessageTask) else learned.kind,
            "protocol": learned.protocol,
            "split": split,
        },
    )
    check_problem(problem, method, None if keeps is None else keeps[1])
    dense = train_dense(problem)
    if keeps is None:
        return sparsest_within(problem, dense, method, float(tolerance or 0.0))
    return make_ticket(problem, dense, method, *keeps)


def check_problem(problem: Problem, method: str, weight_keep: Fraction | None) -> None:
    """Whatever a method or a pattern refuses, before anything is trained.

    Args:
        problem: the problem.
        method: the finder's name.
        weight_keep: what is to be kept of the weights; None: what some level of the paper leaves.

    Raises:
        ValueError, TypeError, TraceError: what they say.
    """
    check_batches(method, problem.task)
    check_weights(
        problem, method, finder_of(method), level_keeps(max(LEVELS))[1] if weight_keep is None else weight_keep
    )
    if hasattr(finder := finder_of(method), "check"):
        finder.check(problem)
    if problem.training.pattern == "units" and "weight_keep" not in IGNORED.get(finder_name(method), ()):
        pattern = units_pattern(problem, level_keeps(min(LEVELS))[1] if weight_keep is None else weight_keep)
        pattern.check(prunable(problem.model))


_DATA_FROM = (  # library, class, and the line that makes a Data of it
    ("torch_geometric", "HeteroData", "data.to_homogeneous() makes one"),
    ("torch_geometric", "Batch", "give its graphs as one graphsparse.data.GraphSet (graphsparse.data.join_graphs)"),
    ("torch_geometric", "Dataset", "give one of its graphs, data[0]; many as one graphsparse.data.GraphSet"),
    ("networkx", "", "torch_geometric.utils.from_networkx(graph) makes one; x, y and the masks are set on it"),
    ("dgl", "", "Data(x=g.ndata['feat'], y=g.ndata['label'], edge_index=torch.stack(g.edges())) makes one"),
    ("builtins", "str", "graphsparse.data.load(name) makes one of a data set"),
    ("builtins", "list", "give many graphs as one graphsparse.data.GraphSet (graphsparse.data.join_graphs)"),
)


def check_is_data(data: Any) -> None:
    """Raise a TypeError with the line that converts unless a graph is a ``Data`` whose edges are in ``edge_index``."""
    whole = isinstance(data, Data) and not of_library(data, "torch_geometric", "Batch")
    if whole and data.get("edge_index") is None and data.get("adj_t") is not None:
        raise TypeError(
            "the edges of the data are in adj_t: data.edge_index = torch_geometric.utils.to_edge_index(data.adj_t)[0]"
            ".flip(0) makes an edge_index of it, and then del data.adj_t"
        )
    if whole:
        tensor_of(data, "edge_index", "the data has no edges: set data.edge_index to a tensor [2, E]")
        return
    other = "Data(x=..., edge_index=..., y=...) is made of its arrays"
    line = next((line for library, name, line in _DATA_FROM if of_library(data, library, *filter(None, [name]))), other)
    raise TypeError(
        "a ticket is found on a torch_geometric Data with x, edge_index, y and masks of its train, val and test part, "
        f"got {type(data).__name__}: {line}"
    )


def _edge_options(guard: Any, forest: Any, score_options: Any) -> dict[str, Any]:
    if score_options is None:
        score_options = {}
    if not isinstance(score_options, Mapping):
        raise TypeError(f"score_options must be a dict of options by name, got {type(score_options).__name__}")
    for name in score_options:
        if not isinstance(name, str):
            raise TypeError(f"score_options must be named by strings, got {name!r:.50}")
        if name in (*EDGE_RULES, "seed", "keep"):
            raise ValueError(f"{name} is no option of a score: give it as an argument of its own")
    return {"guard": guard, "forest": forest, **score_options}


def read_keeps(
    edge_keep: Keep | None, weight_keep: Keep | None, tolerance: float | None
) -> tuple[Fraction, Fraction] | None:
    if tolerance is not None:
        if edge_keep is not None or weight_keep is not None:
            raise ValueError("tolerance= searches the levels itself: give it, or edge_keep= and weight_keep=, not both")
        if exact_fraction(tolerance, "tolerance") < 0:
            raise ValueError(f"tolerance must not be negative, got {tolerance}")
        return None
    if edge_keep is None and weight_keep is None:
        raise ValueError("say what to keep: edge_keep= and weight_keep= in (0, 1], or tolerance=")
    return keep_fraction(1 if edge_keep is None else edge_keep), keep_fraction(
        1 if weight_keep is None else weight_keep
    )


def read_batches(batch_size: int | Batches | None, neighbors: Sequence[int] | None) -> Batches | None:
    """What is asked for in batches; None for the whole graph.

    Raises:
        ValueError: for neighbours without a batch size, or said twice; and as `Batches`.
    """
    if batch_size is None and neighbors is not None:
        raise ValueError("neighbors= says what a mini-batch draws: give batch_size=, too")
    if isinstance(batch_size, Batches):
        if neighbors is not None:
            raise ValueError("neighbors are a part of Batches(size, neighbors): say them there, not in neighbors=, too")
        return batch_size
    return None if batch_size is None else Batches(batch_size, neighbors)  # type: ignore[arg-type]


def _checked(model: nn.Module, which: str | tuple[str, ...], distribution: Distribution) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for name, value in model.named_parameters():
        if is_lazy(value):
            raise ValueError(
                f"{name} has no values yet: call the model once on (x, edge_index), its weights are theta0"
            )
        if bool(value.isnan().any()):
            raise ValueError(f"{name} holds NaN")
    if not any(value.requires_grad for value in model.parameters()):
        raise TicketError(f"{type(model).__name__} has no trainable parameter")
    check_unpruned(model)
    L0Projection(model, 0, which, distribution=distribution)  # what it refuses is told before anything is trained
    return model


def _distribution_of_l0(training: Training) -> Distribution:
    """How the projection of single weights shares them out; ``"global"`` where something else makes weights sparse."""
    own = training.pattern == "weights" and training.weights == L0
    return training.distribution if own and training.distribution is not None else "global"


def _task(task: str | MessageTask | None, data: Data, protocol: str | None, split: int) -> MessageTask:
    if isinstance(task, MessageTask):
        return task
    kind = task or getattr(data, "task", None) or "node"
    named = spelling(kind, KINDS) if isinstance(kind, str) else None
    if named is None:
        raise ValueError(f"task must be {', '.join(map(repr, KINDS))} or a task of graphsparse.fit, got {task!r}")
    return KINDS[named].of(data, protocol=protocol, split=split)
