"""Passes of a network that stop at every multiplication by a weight, at rows drawn at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graphsparse.fit import Task
from graphsparse.fit.call import joined
from graphsparse.metanet.channels.products import Product, Site, Watch, find_sites, watched
from graphsparse.metanet.graph import NetworkGraph

Inputs = Any
_LOOK = 2  # examples of the pass that only looks at the structure


def calibration(task: Task, examples: int, device: torch.device) -> Inputs:
    """Inputs of the first training examples, in one piece; the first batch's where they are no plain tensors."""
    first = next(task.batches("train", device)).inputs
    leaves = pytree.tree_leaves(first)
    if not all(isinstance(leaf, Tensor) and leaf.dim() for leaf in leaves) or not leaves:
        return first
    batches = -(-examples // max(1, len(leaves[0])))
    parts = [batch.inputs for batch in islice(task.batches("train", device), batches)]
    return pytree.tree_map(lambda part: part[:examples], joined(parts))


def batch_statistics(module: nn.Module) -> nn.Module:
    """Put the batch norms of a module, and nothing else, into training mode."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.train()
    return module


def run(module: nn.Module, task: Task, inputs: Inputs, watch: Watch) -> None:
    """One forward pass under a watch, with batch norms on the batch's statistics."""
    batch_statistics(module.eval())
    with watched(watch):
        task.forward(module, inputs)


def sites_of(graph: NetworkGraph | None, module: nn.Module, task: Task, inputs: Inputs) -> list[Site]:
    """The multiplications by weights in a call of a module, found on few examples where inputs can be cut."""
    batch_statistics(module.eval())
    leaves = pytree.tree_leaves(inputs)
    if all(isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == len(leaves[0]) for leaf in leaves):
        few = pytree.tree_map(lambda part: part[:_LOOK], inputs)
        with suppress(Exception):  # tensors of equal length that are no examples, such as a dense adjacency matrix
            return find_sites(graph, module, lambda: task.forward(module, few))
    return find_sites(graph, module, lambda: task.forward(module, inputs))


class Rows(Watch):  # type: ignore[no-untyped-call]
    """A pass that visits each site as it runs: its product, its drawn rows, its shortcut.

    Args:
        module: the module that runs.
        sites: its multiplications.
        residual: whether shortcuts are remembered.
    """

    def __init__(self, module: nn.Module, sites: Sequence[Site], *, residual: bool) -> None:
        super().__init__(dict(module.named_parameters()))
        self.sites, self._shortcuts = sites, dict[int, Tensor]()
        self._generator = torch.Generator().manual_seed(0)
        self._uses = Counter(site.weight for site in sites if site.known)
        self._pool: dict[Any, list[tuple[Tensor, ...]]] = {}
        wanted = [site for site in sites if residual and site.known and site.shortcut is not None]
        self._last = {site.shortcut: site.number for site in wanted}

    def site(self, product: Product) -> Site | None:
        """The site that a product is, where it can be refitted."""
        site = self.sites[self.products] if self.products < len(self.sites) else None
        return site if site is not None and site.known and site.name == self.name_of(product.weight) else None

    def drawn(self, count: int, samples: int, device: torch.device) -> Tensor:
        """At most so many of ``count`` rows, at random."""
        if count <= samples:
            return torch.arange(count, device=device)
        return torch.randint(count, (samples,), generator=self._generator).to(device)

    def pooled(self, site: Site, *parts: Tensor) -> tuple[tuple[Tensor, ...], bool]:
        """Parts ``[groups, rows, ...]`` of a use of a weight, after those of its earlier uses; and whether this is all.

        Nothing is held longer than until the last use: the rows of a wide layer take hundreds of megabytes.
        """
        held = self._pool.setdefault(site.weight, [])
        held.append(parts)
        whole = len(held) == self._uses[site.weight]
        if whole:
            del self._pool[site.weight]
        return tuple(torch.cat(part, dim=1) for part in zip(*held, strict=True)), whole

    def shortcut(self, site: Site, product: Product, chosen: Tensor) -> Tensor | None:
        """What will be added to the outputs in these rows."""
        found = self._shortcuts.get(-1 if site.shortcut is None else site.shortcut)
        if found is None:
            return None
        rows = product.rows(found)[chosen]
        if self._last[site.shortcut] == site.number:
            del self._shortcuts[site.shortcut]  # type: ignore[arg-type]
        return rows

    def seen(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], outputs: Any) -> None:
        if self.operations in self._last:
            found = next(value for value in pytree.tree_leaves(outputs) if isinstance(value, Tensor))
            self._shortcuts[self.operations] = found


@dataclass(frozen=True)
class Target:
    """What a site gives in the whole network, at rows drawn at random.

    Args:
        chosen: the rows.
        y: its outputs there, ``[rows, channels]``.
        shortcut: what is added to them there, or None.
    """

    chosen: Tensor
    y: Tensor
    shortcut: Tensor | None

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each output, as a batch norm takes it."""
        return (self.y.var(0, correction=0) + 1e-5).sqrt()


class Targets(Rows):  # type: ignore[no-untyped-call]
    """The pass of the whole network."""

    def __init__(self, module: nn.Module, sites: Sequence[Site], samples: int, *, residual: bool) -> None:
        super().__init__(module, sites, residual=residual)
        self.samples, self.found = samples, dict[int, Target]()

    @staticmethod
    def of(
        module: nn.Module, task: Task, inputs: Inputs, sites: Sequence[Site], samples: int, *, residual: bool
    ) -> dict[int, Target]:
        """The target of each site, by its number."""
        watch = Targets(module, sites, samples, residual=residual)
        run(module, task, inputs, watch)
        return watch.found

    def after(self, product: Product, outputs: Tensor) -> None:
        site = self.site(product)
        if site is None:
            return
        y = product.rows(outputs)
        chosen = self.drawn(len(y), self.samples, y.device)
        shortcut = self.shortcut(site, product, chosen)
        self.found[site.number] = Target(chosen, check_rows(y[chosen], site), shortcut)


def check_rows(rows: Tensor, site: Site) -> Tensor:
    """The rows, once they are known to be finite."""
    if not bool(torch.isfinite(rows).all()):
        raise FloatingPointError(
            f"least squares stop at '{site.name}', product {site.number + 1} of the forward pass: its "
            f"{'inputs' if rows.dim() == 3 else 'outputs'} hold {int((~torch.isfinite(rows)).sum())} NaN or infinite "
            f"values of {rows.numel()}"
        )
    return rows
