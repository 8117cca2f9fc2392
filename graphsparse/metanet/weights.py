"""Pruning single weights of a network, unstructured or N:M, after a metanetwork has changed it."""

from __future__ import annotations

import copy
import math
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.fit import Report, Task, rng, steps_of
from graphsparse.fit.measure import device_of
from graphsparse.keep_rule import Keep, check_seed
from graphsparse.metanet.batch_norms import recalibrate
from graphsparse.metanet.channels import TRANSPOSED, arguments, refit_weights
from graphsparse.metanet.fine_tuning import FineTune, example_of
from graphsparse.metanet.graph import NetworkGraph
from graphsparse.metanet.metanetwork import MetaNetwork
from graphsparse.params import (
    GRAINS,
    METHODS,
    DropGrow,
    Fixed,
    Grain,
    L0Projection,
    NofM,
    Projection,
    Sparsifier,
    prunable,
    weights_kept,
)
from graphsparse.params.counting import Which
from graphsparse.params.reparametrized import check_plain, check_unpruned
from graphsparse.params.schedule import sparsity_fraction

Masks = dict[str, Tensor]


@dataclass(frozen=True)
class WeightsResult:
    """A network with pruned weights and its figures.

    Args:
        module: the network, trained, in evaluation mode; removed weights are zero.
        masks: parameter name -> bool mask, true where kept.
        metric: name of the task's metric.
        accuracy_before: test metric of the network that was given.
        accuracy_untuned: test metric after pruning (of a method all at once) and recalibration of batch norms, before
            fine-tuning; NaN where a method chooses by gradients of the training.
        accuracy: test metric of ``module``.
        val: validation metric of ``module``.
        weights_kept, weights_kept_matrices: kept fraction of all weights, and of the matrices only.
    """

    module: nn.Module = field(repr=False)
    masks: Masks = field(repr=False)
    metric: str
    accuracy_before: float
    accuracy_untuned: float
    accuracy: float
    val: float
    weights_kept: float
    weights_kept_matrices: float

    def figures(self) -> dict[str, Any]:
        """All numbers as plain values, for JSON and tables."""
        left_out = ("module", "masks")
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out}


def prune_weights(
    net: nn.Module,
    metanet: MetaNetwork | None,
    task: Task,
    *,
    sparsity: Keep | None = None,
    pattern: str | Grain | None = None,
    method: str | None = None,
    fine_tune: FineTune | None = None,
    prepare: FineTune | None = None,
    which: Which = "matrices",
    reconstruct: bool = False,
    example_inputs: Any = None,
    seed: int = 0,
    progress: bool | Report | None = None,
) -> WeightsResult:
    """Prune weights, by default those of smallest magnitude; the network that is given is not changed.

    With a metanetwork: pass, recalibrate batch norms, fine-tune (``prepare``); then, and without one only: prune,
    recalibrate, fine-tune with the removed weights held at zero. With a ``method`` of sparse training it is that which
    prunes, while the network is fine-tuned.

    Args:
        net: any network; with a metanetwork, one that can be traced.
        metanet: of mode "change", or None for the baseline.
        task: trains, validates and tests; the test part is read for the reported figures only.
        sparsity: the removed fraction, in [0, 1), of the selected weights together (global l1, the exact count); of a
            method as it shares them out.
        pattern: or "N:M" such as "2:4": of every M consecutive input weights N stay. Beside ``sparsity``: what a method
            cuts together, ``"rows"``, ``"blocks"``, `graphsparse.params.Rows` or `graphsparse.params.Blocks`.
        method: None, or a name of :func:`graphsparse.params.methods`, such as ``"gmp"``, ``"rigl"`` or ``"nm-sr-ste"``.
            Methods that exchange weights begin with the largest, since the network is trained.
        fine_tune: the training at the end; None is ``FineTune()``.
        prepare: the training between pass and pruning.
        which: the weights that count, as in `graphsparse.params.counting`; for a pattern, tensors of two dimensions
            or more.
        reconstruct: refit the weights that stay by least squares before fine-tuning, row by row, so that each layer
            gives again what it gave (`graphsparse.metanet.refit_weights`).
        example_inputs: as for `NetworkGraph.from_module`; None takes one example of the training part.
        seed: of fine-tuning.
        progress: as for `graphsparse.fit.fit`.

    Raises:
        ValueError: not exactly one of ``sparsity`` and an N:M pattern is given, one is out of range, the metanetwork is
            of mode "repair", or the method refuses the network or needs a longer fine-tuning.
        TraceError: an operation of the network is not covered.

    Source: arXiv 2506.12041 (unstructured and N:M pruning after a pass); Mishra et al. 2021 for N:M.

    Example:
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 2
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> task = Task((x, y), (x, y), (x, y))
        >>> prune_weights(net, None, task, sparsity=0.75, fine_tune=FineTune(epochs=1)).weights_kept_matrices
        0.25
        >>> result = prune_weights(net, None, task, pattern="2:4", fine_tune=FineTune(epochs=1))
        >>> result.masks["0.weight"].sum(1).tolist()
        [2, 2, 2, 2, 2, 2, 2, 2]
        >>> task = Task((x, y), (x, y), (x, y), batch_size=16)
        >>> prune_weights(net, None, task, sparsity=0.75, method="gmp").weights_kept_matrices
        0.25
    """
    grain = pattern if isinstance(pattern, Grain) or GRAINS.spelled(pattern or "") is not None else None
    runs = NofM.read(pattern) if isinstance(pattern, str) and grain is None else None
    if (sparsity is None) == (runs is None):
        raise ValueError("give exactly one of sparsity and pattern")
    seed = check_seed(seed)
    check_unpruned(net)
    check_plain(net, prunable(net, which))
    if metanet is not None and metanet.mode != "change":
        raise ValueError(f"single weights are pruned after a pass of mode 'change', not {metanet.mode!r}")
    fine_tune = FineTune() if fine_tune is None else fine_tune
    recipe = None
    if method is not None or grain is not None:
        if reconstruct:
            raise ValueError("reconstruct=True goes with one cut by magnitude: leave method= and whole units out")
        assert sparsity is not None or isinstance(pattern, str)
        keep: Keep = str(pattern) if sparsity is None else 1 - sparsity_fraction(sparsity)
        recipe = _Recipe(method or "magnitude", keep, grain, fine_tune, which)
        recipe.check(net, task)
    device = device_of(net)
    with rng.preserved(device):
        rng.seed_all(seed, device)  # a loader that shuffles draws from torch's generator
        module = copy.deepcopy(net)
        if metanet is not None:
            inputs = example_of(task, device) if example_inputs is None else arguments(example_inputs)
            with torch.no_grad():
                module = metanet(NetworkGraph.from_module(net, inputs)).to_module()
            (prepare or FineTune()).run(module, task, teacher=net, seed=seed, progress=progress)
        if recipe is not None:
            untuned, masks = recipe.tuned(module, task, net, seed, progress)
            test, val = (task.score(module, part, device) for part in ("test", "val"))
        else:
            whole = copy.deepcopy(module)
            held = _l0(module, sparsity, which) if runs is None else _n_of_m(module, runs, which)
            if reconstruct:
                refit_weights(whole, module, held.masks, task)
            recalibrate(module, task)
            untuned = task.score(module, "test", device)
            tuned = fine_tune.run(module, task, teacher=net, seed=seed, progress=progress, callbacks=(held,))
            val = task.score(module, "val", device) if tuned is None else tuned.val
            test, masks = untuned if tuned is None else tuned.test, held.masks
        before = task.score(net, "test", device)
    module.eval()
    return WeightsResult(
        module=module,
        masks=masks,
        metric=task.metric.name,
        accuracy_before=before,
        accuracy_untuned=untuned,
        accuracy=test,
        val=val,
        **weights_kept(module, masks),
    )


@dataclass(frozen=True)
class _Recipe:
    """A method of sparse training that prunes a trained network while it is fine-tuned."""

    method: str
    keep: Keep
    grain: str | Grain | None
    fine_tune: FineTune
    which: Which

    def check(self, net: nn.Module, task: Task) -> None:
        """Raise what the method refuses, before anything is done."""
        recipe = METHODS.find(self.method)
        if recipe.n_of_m and not isinstance(self.keep, str):
            raise ValueError(f"{self.method!r} keeps N of every M weights: give pattern='2:4' in the place of sparsity")
        if recipe.modules:
            raise ValueError(
                f"{self.method!r} takes whole blocks out of a network: gs.sparse.train(net, task, {self.method!r}, "
                "keep=...) does that"
            )
        if recipe.timed and self.fine_tune.epochs == 0:
            raise ValueError(f"{self.method!r} prunes while the network is fine-tuned: fine_tune needs epochs")
        if isinstance(self.keep, str):
            turned = {id(part.weight) for part in net.modules() if isinstance(part, TRANSPOSED)}
            named = [name for name, weight in prunable(net, self.which).items() if id(weight) in turned]
            if named:
                raise ValueError(
                    f"{named[0]!r} is a transposed convolution, whose inputs are its first dimension: leave method= "
                    "out, or leave it out by which="
                )
        self._sparsifier(copy.deepcopy(net), task, 0)

    def tuned(
        self, module: nn.Module, task: Task, teacher: nn.Module, seed: int, progress: bool | Report | None
    ) -> tuple[float, Masks]:
        """Prune and train in place; the test metric where everything is cut at once, and the masks."""
        once = copy.deepcopy(module)
        untuned = math.nan
        with suppress(ValueError):  # chosen by gradients, of which there are none yet
            self._sparsifier(once, task, seed).finish()
            recalibrate(once, task)
            untuned = task.score(once, "test", device_of(once))
        sparsifier = self._sparsifier(module, task, seed)
        tuned = self.fine_tune.run(module, task, teacher=teacher, seed=seed, progress=progress, callbacks=(sparsifier,))
        masks = sparsifier.finish()
        if tuned is None:
            recalibrate(module, task)
        return untuned, masks

    def _sparsifier(self, module: nn.Module, task: Task, seed: int) -> Sparsifier:
        steps = self.fine_tune.epochs * steps_of(self.fine_tune.batched(task), module)
        options: dict[str, Any] = {"keep": self.keep, "steps": steps or None, "which": self.which, "seed": seed}
        options |= {} if self.grain is None else {"pattern": self.grain}
        found = Sparsifier(module, self.method, **options)
        if isinstance(found.rule, DropGrow):  # the network is trained: its large weights are worth more than any draw
            found = Sparsifier(module, self.method, rule=replace(found.rule, first="magnitude"), **options)
        return found


def _l0(module: nn.Module, sparsity: Keep | None, which: Which) -> L0Projection:
    """Project once onto the l0 ball; what comes back holds the mask in training."""
    assert sparsity is not None
    held = L0Projection(module, sparsity, which, revive=False)
    held.apply()
    return held


def _n_of_m(module: nn.Module, runs: NofM, which: Which) -> Projection:
    """Project once onto the pattern, along the input side of each layer; what comes back holds the mask in training."""
    transposed = {id(part.weight) for part in module.modules() if isinstance(part, TRANSPOSED)}
    masks: Masks = {}
    for name, weight in prunable(module, which).items():
        masks |= replace(runs, dim=0 if id(weight) in transposed else 1).mask({name: weight})
    held = Projection(module, Fixed(masks), which=which)
    held.apply()
    return held
