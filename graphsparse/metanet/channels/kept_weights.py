"""Least squares for single weights: in each row of a weight, those that stay take over what the others did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from graphsparse.fit import Task
from graphsparse.metanet.channels.least_squares import check_options, strength_of, tell_of_few_rows
from graphsparse.metanet.channels.products import Product, Site
from graphsparse.metanet.channels.rows import Inputs, Rows, Target, Targets, calibration, check_rows, run, sites_of

_DIRECT = 512  # inputs up to which every row's system is solved outright
_AT_ONCE = 1 << 25  # numbers of such systems in memory
_STEPS, _ACCURACY = 200, 1e-8  # of conjugate gradients


def refit_weights(
    wide: nn.Module,
    small: nn.Module,
    masks: Mapping[str, Tensor],
    task: Task,
    *,
    inputs: Inputs = None,
    examples: int = 1024,
    samples: int = 8192,
    ridge: float = 0.01,
) -> None:
    r"""Refit, in place, the weights that masks keep, so that each layer gives again what it gave in the whole network.

    In the order of the forward pass every row w of a weight, with its kept places K, becomes

    .. math:: \arg\min_{w'_K} \sum_r (w'_K x'_{r,K} - w x_r)^2 + \lambda \|w'_K - w_K\|^2

    which is a system of :math:`|K|` equations for each row. Up to 512 inputs each is solved outright; above, all rows
    of a layer are solved together by conjugate gradients. Inputs, constants and :math:`\lambda` as in `reconstruct`.

    Args:
        wide: the network before it was pruned; it is not changed.
        small: the same network with its removed weights at zero.
        masks: parameter name -> bool mask, true where kept.
        task, inputs, examples, samples, ridge: as in `reconstruct`.

    Warns:
        UserWarning: a layer has fewer rows than kept inputs, so that the penalty decides how it is refitted.

    Raises:
        ValueError: an option is out of range.
        FloatingPointError: a layer's inputs or outputs are not finite; it says which layer.

    Source: Hassibi & Stork, NeurIPS 1992; Frantar & Alistarh, "SparseGPT", ICML 2023, which does it approximately.

    Example:
        >>> wide, small = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
        >>> _ = wide.weight.data.fill_(1.0), small.weight.data.copy_(torch.tensor([[1.0, 0.0]]))
        >>> x = torch.randn(64, 1).repeat(1, 2)  # two equal inputs
        >>> refit_weights(wide, small, {"weight": torch.tensor([[True, False]])}, Task((x, x), (x, x), (x, x)))
        >>> small.weight.data.round(decimals=1)
        tensor([[2., 0.]])
    """
    check_options(ridge, examples, samples)
    modes = {part: part.training for module in (wide, small) for part in module.modules()}
    device = next(iter(small.parameters())).device
    inputs = calibration(task, examples, device) if inputs is None else inputs
    buffers = [(buffer, buffer.detach().clone()) for module in (wide, small) for buffer in module.buffers()]
    with torch.no_grad():
        sites = sites_of(None, wide, task, inputs)
        targets = Targets.of(wide, task, inputs, sites, samples, residual=False)
        run(small, task, inputs, _Refit(small, sites, targets, masks, ridge))
        for buffer, before in buffers:
            buffer.copy_(before)
    for part, mode in modes.items():
        part.training = mode


class _Refit(Rows):  # type: ignore[no-untyped-call]
    """The pass of the pruned network: each weight is refitted just before it is used."""

    def __init__(
        self,
        module: nn.Module,
        sites: Sequence[Site],
        targets: Mapping[int, Target],
        masks: Mapping[str, Tensor],
        ridge: float,
    ) -> None:
        super().__init__(module, sites, residual=False)
        self.targets, self.masks, self.ridge = targets, masks, ridge
        self._before = {name: value.detach().clone() for name, value in self.state.items() if value.dim() <= 1}

    def before(self, product: Product) -> None:
        site = self.site(product)
        if site is None or site.name not in self.masks or site.number not in self.targets:
            return
        target = self.targets[site.number]
        x = check_rows(product.design(target.chosen), site)
        (x, y), _ = self.pooled(site, x, product.by_group(target.y))
        kept = self.masks[site.name].flatten()[site.elements.to(x.device)]
        free = site.norm is not None or site.bias is not None
        x_mean, y_mean = (part.mean(1, keepdim=True) * free for part in (x, y))
        if x.shape[1] - free < int(kept.sum(2).max()):
            tell_of_few_rows(x, site.name)
        old = product.matrix(product.weight)
        new = old + kept_least_squares(x - x_mean, y - y_mean, old, kept, self.ridge)
        product.write(new)
        if site.bias is not None:
            bias = self.state[site.bias]
            constant = (y_mean.squeeze(1) - (new @ x_mean.transpose(1, 2)).squeeze(2)).flatten()
            constant = constant + self._before[site.bias] if site.apart else constant
            bias.copy_(torch.where(self.masks.get(site.bias, torch.ones_like(bias, dtype=torch.bool)), constant, bias))


def kept_least_squares(x: Tensor, y: Tensor, old: Tensor, kept: Tensor, ridge: float) -> Tensor:
    """The change of the kept weights, row by row, that brings ``x`` times them nearest to ``y``.

    Args:
        x: ``[groups, rows, inputs]``, centred where there is a constant.
        y: ``[groups, rows, outputs]``.
        old: ``[groups, outputs, inputs]``, zero where nothing is kept.
        kept: bool, of the same shape.
        ridge: as in `reconstruct`.
    """
    strength = strength_of(x, ridge)
    wrong = y - x @ old.transpose(1, 2)
    right = (wrong.transpose(1, 2) @ x).double() * kept  # [groups, outputs, inputs]
    if x.shape[2] > _DIRECT:
        return _conjugate(x, right, kept, strength).to(old)
    gram = (x.transpose(1, 2) @ x).double()
    gram.diagonal(dim1=1, dim2=2).add_(strength.squeeze(2))
    found = torch.zeros_like(right)
    for group, matrix in enumerate(gram):
        for rows in torch.split(torch.arange(old.shape[1]), max(1, _AT_ONCE // matrix.numel())):
            stay = kept[group, rows].double()
            systems = matrix * stay.unsqueeze(1) * stay.unsqueeze(2) + torch.diag_embed(1 - stay)
            found[group, rows] = torch.linalg.solve(systems, right[group, rows])
    return found.to(old)


def _conjugate(x: Tensor, right: Tensor, kept: Tensor, strength: Tensor) -> Tensor:
    """The same by conjugate gradients, all rows at once; the matrix is only multiplied with."""
    x = x.double()
    gram = x.transpose(1, 2) @ x if x.shape[1] >= x.shape[2] else None
    diagonal = x.square().sum(1, keepdim=True) + strength

    def times(v: Tensor) -> Tensor:
        product = v @ gram if gram is not None else (v @ x.transpose(1, 2)) @ x
        return (product + strength * v) * kept

    found, residual = torch.zeros_like(right), right.clone()
    steer = residual / diagonal
    direction, size = steer.clone(), (residual * steer).sum(2, keepdim=True)
    enough = _ACCURACY**2 * size
    for _ in range(_STEPS):
        if bool((size <= enough).all()):
            break
        image = times(direction)
        step = size / (direction * image).sum(2, keepdim=True).clamp(min=1e-300)
        found, residual = found + step * direction, residual - step * image
        steer = residual / diagonal
        before, size = size, (residual * steer).sum(2, keepdim=True)
        direction = steer + size / before.clamp(min=1e-300) * direction
    return found
