"""Structured optimal brain surgeon: what the layers that read a set lose when it goes and they are refitted."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graphsparse.fit import Task
from graphsparse.metanet.channels.criteria import CRITERIA, Evidence, square_sums
from graphsparse.metanet.channels.least_squares import check_options, strength_of
from graphsparse.metanet.channels.products import Product, Site, Watch, watched
from graphsparse.metanet.channels.rows import Inputs, Rows, calibration, check_rows, run, sites_of
from graphsparse.metanet.channels.sets import Channels
from graphsparse.metanet.graph import NetworkGraph

_FISHER_EXAMPLES = 512


@CRITERIA.register("obs")
def obs(evidence: Evidence) -> Tensor:
    r"""Structured optimal brain surgeon: see `output_errors`.

    Source: Hassibi & Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NeurIPS 1992, for
    whole sets of channels and the squared error of each layer's outputs.

    Raises:
        ValueError: the evidence has no task.
    """
    return _ranked(evidence, "obs")


@CRITERIA.register("obs-fisher")
def obs_fisher(evidence: Evidence) -> Tensor:
    r"""As ``obs``, each output weighted by half the mean square of the loss's gradient there.

    .. math:: \frac12 \sum_o F_o\,\mathbb{E}\,\delta_o^2, \qquad F_o = \mathbb{E}\,(\partial L / \partial y_o)^2

    Source: as ``obs``; the weights are the diagonal of the empirical Fisher matrix (Theis et al., "Faster gaze
    prediction with dense networks and Fisher pruning", 2018).

    Raises:
        ValueError: as ``obs``.
    """
    return _ranked(evidence, "obs-fisher", fisher=True)


def output_errors(
    graph: NetworkGraph,
    task: Task,
    *,
    inputs: Inputs = None,
    examples: int = 1024,
    samples: int = 8192,
    ridge: float = 0.01,
    fisher: bool = False,
) -> Tensor:
    r"""For each set of coupled channels, what its consumers lose when it goes and they are refitted, ``[num_sets]``.

    Taking the inputs S of a layer with weights W away and refitting the others by least squares raises its objective by

    .. math:: \sum_o w_{o,S}\,\big([H^{-1}]_{S,S}\big)^{-1} w_{o,S}^T - \lambda \|W_S\|^2, \qquad
        H = X^T X + \lambda I

    with X its inputs and :math:`\lambda` as in `reconstruct`, of which this is the error. It is divided by the number
    of rows and multiplied with that of places of an example, so that it is the expected squared error of an example,
    and summed over all layers that read the set. Outputs that go along with the set do not count.

    Where no layer is seen to read a set (its readers' weights are computed from others, as by a spectral norm, or mix
    the places of an axis), the whole group has the squares of `group-l2` instead, at the mean of the other sets.

    Args:
        graph: the network.
        task: calls the network on training examples; for ``fisher`` its loss is differentiated.
        inputs, examples, samples, ridge: as in `reconstruct`.
        fisher: weight the outputs by the squared gradients of the loss.

    Raises:
        ValueError: an option is out of range.
        FloatingPointError: inputs of a layer are not finite.

    Warns:
        UserWarning: where group-l2 stands in.

    Example:
        >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.tensor([[1.0], [2.0]])), net[1].weight.data.fill_(3.0)
        >>> x = torch.tensor([[1.0], [-1.0]])
        >>> task, graph = Task((x, x), (x, x), (x, x)), NetworkGraph.from_module(net, x)
        >>> bool((output_errors(graph, task, ridge=1e-6)[1:3] < 1e-3).all())  # either can stand in for the other
        True
    """
    total, unread = _found(graph, task, inputs, examples, samples, ridge, fisher=fisher)
    _warn(unread)
    return total


def _found(
    graph: NetworkGraph,
    task: Task,
    inputs: Inputs = None,
    examples: int = 1024,
    samples: int = 8192,
    ridge: float = 0.01,
    *,
    fisher: bool,
) -> tuple[Tensor, list[str]]:
    """The errors, and the layers whose channels have group-l2 in their place."""
    check_options(ridge, examples, samples)
    inputs = calibration(task, examples, graph.layer.device) if inputs is None else inputs
    module = graph.to_module()
    sites = sites_of(graph, graph.to_module(), task, inputs)
    slopes = _squared_gradients(graph, task, sites) if fisher else None
    found = _Readers(module, sites, Channels.of(graph), samples, ridge, slopes)
    found.examples = max(1, len(next(iter(pytree.tree_leaves(inputs)))))
    with torch.no_grad():
        run(module, task, inputs, found)
    channels = found.channels
    groups = torch.unique(channels.group_of[channels.prunable & ~found.read])
    bare = torch.isin(channels.group_of, groups)
    if len(groups):
        others = found.total[channels.prunable & ~bare]
        size = others.mean() if len(others) else found.total.new_ones(())
        squares = square_sums(graph).double()
        for group in groups.tolist():
            own = channels.group_of == group
            found.total[own] = squares[own] / squares[own].mean().clamp(min=1e-30) * size
    return found.total.float(), [graph.layer_names[channels.layers[group][0]] for group in groups.tolist()]


def _ranked(evidence: Evidence, name: str, *, fisher: bool = False) -> Tensor:
    if evidence.task is None:
        raise ValueError(f"{name} needs a task, whose training examples show the inputs of each layer")
    total, unread = _found(evidence.graph, evidence.task, fisher=fisher)
    evidence.instead.update(dict.fromkeys(unread, "by group-l2: no layer is seen to read its channels"))
    _warn(unread)
    return total


def _warn(unread: Sequence[str]) -> None:
    if unread:
        warnings.warn(
            f"no layer is seen to read the channels of {', '.join(map(repr, unread[:3]))}"
            f"{f' and {len(unread) - 3} more' if len(unread) > 3 else ''}, so group-l2 ranks them",
            UserWarning,
            stacklevel=3,
        )


class _Readers(Rows):  # type: ignore[no-untyped-call]
    """The pass that adds up, layer by layer, what each set costs those that read it.

    Attributes:
        total: of each set.
        read: whether anything reads it.
        examples: how many the pass sees.
    """

    def __init__(
        self,
        module: nn.Module,
        sites: Sequence[Site],
        channels: Channels,
        samples: int,
        ridge: float,
        slopes: dict[Any, Tensor] | None,
    ) -> None:
        super().__init__(module, sites, residual=False)
        self.channels, self.samples, self.ridge, self.slopes, self.examples = channels, samples, ridge, slopes, 1
        self.total = torch.zeros(len(channels.group_of), dtype=torch.float64, device=channels.group_of.device)
        self.read = torch.zeros_like(self.total, dtype=torch.bool)
        self._counts: Counter[Any] = Counter()

    def after(self, product: Product, outputs: Tensor) -> None:
        site = self.site(product)
        if site is None:
            return
        count = product.rows(outputs).shape[0]
        self._counts[site.weight] += count
        x = check_rows(product.design(self.drawn(count, self.samples, outputs.device)), site)
        (x,), whole = self.pooled(site, x)
        if whole:
            self._add(site, x.double(), product.matrix(product.weight).double())

    def _add(self, site: Site, x: Tensor, matrix: Tensor) -> None:
        """Add what the readers of one weight lose: inputs ``[groups, rows, inputs]``, weights."""
        if site.norm is not None or site.bias is not None:
            x = x - x.mean(1, keepdim=True)
        outputs = self.channels.set_of[site.outputs].view(len(matrix), -1)
        value = torch.full_like(outputs, self._counts[site.weight] / self.examples, dtype=x.dtype)
        if self.slopes is not None:
            value = self.slopes[site.weight].view(len(matrix), -1) / 2
        for group, sets in enumerate(self.channels.set_of[site.inputs]):
            self.read[sets] = True
            if bool((outputs[group] == sets[0]).all()) and bool((sets == sets[0]).all()):
                continue  # a depthwise layer goes along with what it reads
            for which, errors in _errors(x[group], matrix[group], sets, self.ridge):
                stay = outputs[group] != which.unsqueeze(1)
                self.total.index_add_(0, which, (errors * stay * value[group]).sum(1) / x.shape[1])


def _errors(x: Tensor, matrix: Tensor, sets: Tensor, ridge: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Sets ``[n]`` and the rise of each output's objective ``[n, outputs]`` when one of them goes.

    Args:
        x: rows of inputs, ``[rows, inputs]``.
        matrix: weights, ``[outputs, inputs]``.
        sets: of each input.
        ridge: as in `reconstruct`.
    """
    strength = float(strength_of(x.unsqueeze(0), ridge))
    distinct, number, width = torch.unique(sets, return_inverse=True, return_counts=True)
    order, ends = torch.argsort(number, stable=True), width.cumsum(0)
    few = x.shape[0] < x.shape[1]
    gram = (x @ x.t()) if few else (x.t() @ x)
    gram.diagonal().add_(strength)
    inverse = torch.linalg.solve(gram, x) if few else torch.linalg.inv(gram)
    for size in torch.unique(width).tolist():
        which = torch.nonzero(width == size)[:, 0]
        columns = order[(ends[which] - size).unsqueeze(1) + torch.arange(size, device=sets.device)]  # [n, size]
        if few:  # the same blocks of the inverse, from a system of as many equations as there are rows
            part, solved = x[:, columns].permute(1, 2, 0), inverse[:, columns].permute(1, 0, 2)
            blocks = (torch.eye(size, dtype=x.dtype, device=x.device) - part @ solved) / strength
        else:
            blocks = inverse[columns.unsqueeze(2), columns.unsqueeze(1)]
        weights = matrix[:, columns].permute(1, 2, 0)  # [n, size, outputs]
        rise = (weights * torch.linalg.solve(blocks, weights)).sum(1) - strength * weights.square().sum(1)
        yield distinct[which], rise.clamp(min=0)


def _squared_gradients(graph: NetworkGraph, task: Task, sites: Sequence[Site]) -> dict[Any, Tensor]:
    """For each weight, the expected square of the loss's gradient at each output, over examples; places added up."""
    module = graph.to_module().eval().requires_grad_(True)
    found, seen = _Gradients(module, sites), 0
    for batch in task.batches("train", graph.layer.device):
        found.begin(len(batch.targets))
        with torch.enable_grad(), watched(found):
            loss = task.loss(task.forward(module, batch.inputs), batch.targets)
            found.backward = True
            torch.autograd.backward(loss)
        seen += len(batch.targets)
        if seen >= _FISHER_EXAMPLES:
            break
    none = torch.zeros(1, dtype=torch.float64, device=graph.layer.device)
    return {s.weight: found.squares.get(s.weight, none.expand(len(s.outputs))) / seen for s in sites}


class _Gradients(Watch):  # type: ignore[no-untyped-call]
    """Forward and backward passes: the squared gradients at the outputs of each weight, added up over examples."""

    def __init__(self, module: nn.Module, sites: Sequence[Site]) -> None:
        super().__init__(dict(module.named_parameters()))
        self.sites, self.squares = sites, dict[Any, Tensor]()
        self._weights: dict[tuple[int, int], Any] = {}

    def begin(self, examples: int) -> None:
        """Another batch, of whose examples the loss is the mean."""
        self.examples, self.backward = examples, False
        self.operations = self.products = 0

    def after(self, product: Product, outputs: Tensor) -> None:
        if not self.backward and self.products < len(self.sites):
            site = self.sites[self.products]
            self._weights[product.weight.data_ptr(), len(site.outputs)] = site.weight

    def seen(self, function: Any, args: tuple[Any, ...], kwargs: Any, outputs: Any) -> None:
        if not self.backward:
            return
        if function is torch.ops.aten.convolution_backward.default:
            gradient, weight = args[0].movedim(1, -1).flatten(0, -2), args[2]
        elif function is torch.ops.aten.mm.default:  # of a linear layer: its inputs' gradient
            gradient, weight = args
        else:
            return
        key = self._weights.get((weight.data_ptr(), gradient.shape[1]))
        if key is not None:
            square = gradient.detach().double().square().sum(0) * self.examples**2
            self.squares[key] = self.squares.get(key, 0.0) + square
