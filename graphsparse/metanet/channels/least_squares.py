"""Least squares after pruning: the weights that stay take over what the dropped channels did, layer by layer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.fit import Task
from graphsparse.metanet.channels.products import Product, Site, Watch
from graphsparse.metanet.channels.rows import Inputs, Rows, Target, Targets, calibration, check_rows, run, sites_of
from graphsparse.metanet.channels.sets import check_mask, masked
from graphsparse.metanet.graph import NetworkGraph

_LEAST_GAMMA = 1e-2  # of the largest: below, a batch norm hardly passes its channel on, and nothing is taken over there


def reconstruct(
    graph: NetworkGraph,
    keep: Tensor,
    task: Task,
    *,
    inputs: Inputs = None,
    examples: int = 1024,
    samples: int = 8192,
    ridge: float = 0.01,
    residual: bool = False,
    rescale: bool = False,
) -> NetworkGraph:
    r"""The network with the weights between kept channels refitted, so that each layer gives again what it gave.

    In the order of the forward pass, each multiplication by a weight (linear layers, convolutions of any kind, the
    layers inside attention and graph convolutions, weights of your own) gets the kernels (and bias)

    .. math:: \arg\min_{W'} \sum_r \|W' x'_r - W x_r\|^2 + \lambda \|W' - W\|^2

    where :math:`x` are its inputs in the whole network, :math:`x'` those in the network of kept channels (with the
    layers before it refitted), and :math:`\lambda` is ``ridge`` times the mean square of an input. Outputs that a batch
    norm takes up are compared up to a constant. A weight that is used several times is fitted to all of them. No labels
    are used. Dropped channels stay as they are (see `masked` and `shrink`), and so does a weight that has another part
    as well, such as an embedding that is also the classifier.

    Args:
        graph: the network.
        keep: bool ``[num_nodes]``, which channels stay.
        task: calls the network, on training examples.
        inputs: what to call it on; None takes the first ``examples`` of the training part.
        examples: how many.
        samples: examples (times positions) that each layer is fitted to, drawn at random.
        ridge: strength of the penalty, above 0.
        residual: where a layer's output is added to something that was computed before (a shortcut), it also makes up
            for what that lost: its target is its old output plus the shortcut's error.
        rescale: the scale of a batch norm falls with the standard deviation that least squares leave of its input,
            instead of blowing up what is left.

    Warns:
        UserWarning: a layer has fewer rows than inputs, so that the penalty decides how it is refitted.

    Raises:
        ValueError: ``keep`` is no mask of this graph, or an option is out of range.
        FloatingPointError: a layer's inputs or outputs are not finite; it says which layer.

    Source: "Channel Pruning for Accelerating Very Deep Neural Networks" (He, Zhang, Sun, ICCV 2017), its second step,
    and with ``residual`` its treatment of shortcuts; the penalty towards the old weights, ``rescale`` and the
    statistics of batch norms are ours.

    Example:
        >>> net = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
        >>> _ = net[0].weight.data.fill_(1.0), net[1].weight.data.fill_(1.0)  # two equal channels
        >>> x, y = torch.rand(64, 2), torch.zeros(64)
        >>> task = Task((x, y), (x, y), (x, y))
        >>> graph = NetworkGraph.from_module(nn.Sequential(*net), x)
        >>> keep = torch.tensor([1, 1, 1, 0, 1]).bool()  # nodes: two inputs, two channels, one output
        >>> reconstruct(graph, keep, task, ridge=1e-6).to_module()[1].weight.data.round(decimals=3)
        tensor([[2., 1.]])
    """
    check_mask(graph, keep)
    check_options(ridge, examples, samples)
    inputs = calibration(task, examples, graph.layer.device) if inputs is None else inputs
    wide, small = graph.to_module(), masked(graph, keep).to_module()
    sites = sites_of(graph, graph.to_module(), task, inputs)
    with torch.no_grad():
        targets = Targets.of(wide, task, inputs, sites, samples, residual=residual)
        for refit in _passes(small, sites, targets, ridge, keep, residual=residual, rescale=rescale):
            run(small, task, inputs, refit)
        refitted = graph.with_module(small)
    edges = {
        kernel: torch.where((keep[e.src] & keep[e.dst]).unsqueeze(1), refitted.edges[kernel].values, e.values)
        for kernel, e in graph.edges.items()
    }
    changed = ("bias", *["beta"] * residual, *["gamma"] * rescale)
    banks = {
        name: torch.where(keep[bank.nodes].unsqueeze(1), refitted.banks[name].values, bank.values)
        for name, bank in graph.banks.items()
        if name.split(".")[0] in changed
    }
    return graph.with_values(edges, banks)


def check_options(ridge: float, examples: int, samples: int) -> None:
    """Raise ValueError unless these are options of least squares."""
    if not ridge > 0 or examples < 1 or samples < 1:
        raise ValueError(f"ridge, examples and samples must be above 0, got {ridge}, {examples} and {samples}")


def _passes(
    small: nn.Module,
    sites: Sequence[Site],
    targets: Mapping[int, Target],
    ridge: float,
    keep: Tensor,
    *,
    residual: bool,
    rescale: bool,
) -> list[Watch]:
    """One pass; a second one where a weight is used twice, as what lies between its uses saw it half fitted."""
    options: dict[str, bool] = {"residual": residual, "rescale": rescale}
    weights = [site.weight for site in sites if site.known]
    twice = {weight for weight in weights if weights.count(weight) > 1}
    first = _Refit(small, sites, targets, ridge, keep, frozenset(), **options)
    return [first, _Refit(small, sites, targets, ridge, keep, frozenset(twice), **options)] if twice else [first]


class _Refit(Rows):  # type: ignore[no-untyped-call]
    """The pass of the network of kept channels: each weight is refitted in place just before it is used."""

    def __init__(
        self,
        module: nn.Module,
        sites: Sequence[Site],
        targets: Mapping[int, Target],
        ridge: float,
        keep: Tensor,
        done: frozenset[Any],
        *,
        residual: bool,
        rescale: bool,
    ) -> None:
        super().__init__(module, sites, residual=residual)
        self.targets, self.ridge, self.keep, self.done = targets, ridge, keep, done
        self.residual, self.rescale = residual, rescale
        self._before = {name: value.detach().clone() for name, value in self.state.items() if value.dim() <= 1}

    def before(self, product: Product) -> None:
        site = self.site(product)
        target = None if site is None else self.targets.get(site.number)
        if site is None or target is None or site.weight in self.done:
            return
        x = check_rows(product.design(target.chosen), site)
        error = self._shortcut_error(site, product, target)
        y = target.y if error is None else target.y + error * self._slope(site, target)
        (x, y), _ = self.pooled(site, x, product.by_group(y))
        new, constant = self._fit(site, product, x, y)
        stays = self.keep[site.outputs].view(*new.shape[:2], 1)
        product.write(torch.where(stays, new, product.matrix(product.weight)))
        self._norm(site, target, x @ new.transpose(1, 2), error)
        if site.bias is not None:
            bias = self.state[site.bias]
            constant = constant + self._before[site.bias] if site.apart else constant
            bias.copy_(torch.where(self.keep[site.outputs], constant, bias))

    def _fit(self, site: Site, product: Product, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``[groups, outputs, inputs]`` and the constant ``[channels]`` that goes with them."""
        old = product.matrix(product.weight)
        free = site.norm is not None or site.bias is not None
        x_mean, y_mean = (part.mean(1, keepdim=True) * free for part in (x, y))
        if x.shape[1] - free < int(self.keep[site.inputs].sum(1).max()):
            tell_of_few_rows(x, site.name)
        new = old + least_squares(x - x_mean, y - y_mean, old, self.ridge)
        return new, (y_mean.squeeze(1) - (new @ x_mean.transpose(1, 2)).squeeze(2)).flatten()

    def _shortcut_error(self, site: Site, product: Product, target: Target) -> Tensor | None:
        """What the shortcut lost in these rows, where the layer is to make up for it."""
        now = self.shortcut(site, product, target.chosen)
        return None if now is None or target.shortcut is None else target.shortcut - now

    def _slope(self, site: Site, target: Target) -> Tensor:
        """How much the layer's output changes for a unit after its batch norm; 0 where that passes nothing on."""
        if site.norm is None:
            return torch.ones_like(target.y[0])
        if site.norm[0] is None:
            return target.deviation
        gamma = self._before[site.norm[0]]
        passes = gamma.abs() > _LEAST_GAMMA * gamma.abs().max()
        return torch.where(passes, target.deviation / torch.where(passes, gamma, 1.0), 0.0)

    def _norm(self, site: Site, target: Target, fitted: Tensor, error: Tensor | None) -> None:
        """Let the batch norm keep the size that least squares left, and the mean that the shortcut lost."""
        if site.norm is None:
            return
        stays = self.keep[site.outputs]
        scale, shift = (None if name is None else self.state[name] for name in site.norm)
        if self.rescale and scale is not None:
            left = fitted.std(1, correction=0).flatten() / target.deviation
            scale.copy_(torch.where(stays, self._before[site.norm[0]] * left, scale))  # type: ignore[index]
        if error is not None and shift is not None:
            passes = stays & (self._slope(site, target) != 0)
            shift.copy_(torch.where(passes, self._before[site.norm[1]] + error.mean(0), shift))  # type: ignore[index]


def tell_of_few_rows(x: Tensor, name: str) -> None:
    """Warn that a weight of that name has fewer rows ``[groups, rows, inputs]`` than inputs."""
    warnings.warn(
        f"least squares have {x.shape[1]} rows for the {x.shape[2]} inputs of '{name}': the penalty towards the old "
        "weights decides there; more training examples (examples=, samples=) would tell",
        stacklevel=2,
    )


def least_squares(x: Tensor, y: Tensor, old: Tensor, ridge: float) -> Tensor:
    """The change of the weights ``old`` that brings ``x`` times them nearest to ``y``, for each group.

    Args:
        x: ``[groups, rows, inputs]``, centred where there is a constant.
        y: ``[groups, rows, outputs]``.
        old: ``[groups, outputs, inputs]``.
        ridge: the penalty on the change, in units of an input's sum of squares.
    """
    strength = strength_of(x, ridge)
    wrong = y - x @ old.transpose(1, 2)
    if x.shape[1] < x.shape[2]:  # the same solution, from a system of as many equations as there are rows
        x = x.double()
        inner = torch.linalg.solve(_ridged(x @ x.transpose(1, 2), strength), wrong.double())
        change: Tensor = x.transpose(1, 2) @ inner
    else:
        gram, right = x.transpose(1, 2) @ x, x.transpose(1, 2) @ wrong
        change = torch.linalg.solve(_ridged(gram.double(), strength), right.double())
    return change.to(old).transpose(1, 2)


def strength_of(x: Tensor, ridge: float) -> Tensor:
    """The penalty for each group ``[groups, 1, 1]``, from its inputs ``[groups, rows, inputs]``."""
    return ridge * x.double().square().sum(1).mean(1)[:, None, None].clamp(min=1e-12)


def _ridged(gram: Tensor, strength: Tensor) -> Tensor:
    return gram + strength * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
