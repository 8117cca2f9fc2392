"""Pruning single weights of a network, unstructured or N:M, after a metanetwork has changed it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.fit import Report, Task, rng
from graphsparse.fit.measure import device_of
from graphsparse.keep_rule import Keep, check_seed
from graphsparse.metanet.batch_norms import recalibrate
from graphsparse.metanet.channels import TRANSPOSED, arguments, refit_weights
from graphsparse.metanet.fine_tuning import FineTune, example_of
from graphsparse.metanet.graph import NetworkGraph
from graphsparse.metanet.metanetwork import MetaNetwork
from graphsparse.params import Fixed, L0Projection, NofM, Projection, prunable, weights_kept
from graphsparse.params.counting import Which
from graphsparse.params.reparametrized import check_plain, check_unpruned

Masks = dict[str, Tensor]


@dataclass(frozen=True)
class WeightsResult:
    """A network with pruned weights and its figures.

    Args:
        module: the network, trained, in evaluation mode; removed weights are zero.
        masks: parameter name -> bool mask, true where kept.
        metric: name of the task's metric.
        accuracy_before: test metric of the network that was given.
        accuracy_untuned: test metric after pruning and recalibration of batch norms, before fine-tuning.
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
    pattern: str | None = None,
    fine_tune: FineTune | None = None,
    prepare: FineTune | None = None,
    which: Which = "matrices",
    reconstruct: bool = False,
    example_inputs: Any = None,
    seed: int = 0,
    progress: bool | Report | None = None,
) -> WeightsResult:
    """Prune the weights of smallest magnitude; the network that is given is not changed.

    With a metanetwork: pass, recalibrate batch norms, fine-tune (``prepare``); then, and without one only: prune,
    recalibrate, fine-tune with the removed weights held at zero.

    Args:
        net: any network; with a metanetwork, one that can be traced.
        metanet: of mode "change", or None for the baseline.
        task: trains, validates and tests; the test part is read for the reported figures only.
        sparsity: the removed fraction, in [0, 1), of the selected weights together (global l1, the exact count).
        pattern: or "N:M" such as "2:4": of every M consecutive input weights N stay.
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
        ValueError: not exactly one of ``sparsity`` and ``pattern`` is given, one is out of range, or the metanetwork
            is of mode "repair".
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
    """
    if (sparsity is None) == (pattern is None):
        raise ValueError("give exactly one of sparsity and pattern")
    runs = None if pattern is None else NofM.read(pattern)
    seed = check_seed(seed)
    check_unpruned(net)
    check_plain(net, prunable(net, which))
    if metanet is not None and metanet.mode != "change":
        raise ValueError(f"single weights are pruned after a pass of mode 'change', not {metanet.mode!r}")
    fine_tune = FineTune() if fine_tune is None else fine_tune
    device = device_of(net)
    with rng.preserved(device):
        rng.seed_all(seed, device)  # a loader that shuffles draws from torch's generator
        module = copy.deepcopy(net)
        if metanet is not None:
            inputs = example_of(task, device) if example_inputs is None else arguments(example_inputs)
            with torch.no_grad():
                module = metanet(NetworkGraph.from_module(net, inputs)).to_module()
            (prepare or FineTune()).run(module, task, teacher=net, seed=seed, progress=progress)
        whole = copy.deepcopy(module)
        held = _l0(module, sparsity, which) if runs is None else _n_of_m(module, runs, which)
        if reconstruct:
            refit_weights(whole, module, held.masks, task)
        recalibrate(module, task)
        untuned = task.score(module, "test", device)
        tuned = fine_tune.run(module, task, teacher=net, seed=seed, progress=progress, callbacks=(held,))
        before = task.score(net, "test", device)
        val = task.score(module, "val", device) if tuned is None else tuned.val
    module.eval()
    return WeightsResult(
        module=module,
        masks=held.masks,
        metric=task.metric.name,
        accuracy_before=before,
        accuracy_untuned=untuned,
        accuracy=untuned if tuned is None else tuned.test,
        val=val,
        **weights_kept(module, held.masks),
    )


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
