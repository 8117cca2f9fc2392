"""How many hops away a model looks, tried on a ring before it is trained."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from graphsparse.fit.batches.plan import Batches
from graphsparse.fit.edge_data import EdgeData
from graphsparse.fit.graph_call import GraphCall, name_under
from graphsparse.fit.measure import device_of
from graphsparse.fit.rng import preserved, seed_all

_BEYOND = 24  # hops that the ring is longer than what neighbours are drawn for, in both directions


def check_hops(model: nn.Module, x: Tensor, edge_data: EdgeData, batches: Batches) -> None:
    """Hold the hops of a batch against those that a model reads.

    Warns of more hops than it reads, which cost time, and of a model that mixes all nodes (``PairNorm``, ``GraphNorm``,
    attention over all of them): its outputs for a batch are not those for the whole graph.

    Args:
        model: called as ``model(x, edge_index)`` and by the names of its forward; copies are called.
        x: features of the nodes [N, F], of which some rows are taken.
        edge_data: what arcs carry, of which some rows are taken.
        batches: what is asked for.

    Raises:
        ValueError: for fewer hops than the model reads: it would be trained on what it is not evaluated on.
    """
    found, asked = reach(model, x, edge_data, len(batches.hops)), len(batches.hops)
    if found is None or found == asked:
        return
    name = name_under(model)
    if found >= asked + _BEYOND:
        warnings.warn(
            f"{name} mixes all nodes of the graph, whatever its edges (such as PairNorm or GraphNorm): in training it "
            "sees those of a batch only, so it is trained on other figures than it is evaluated on",
            stacklevel=3,
        )
    elif found > asked:
        enough = ", ".join(map(str, (*batches.hops, *batches.hops[-1:] * (found - asked))))
        raise ValueError(
            f"neighbors lists {asked} hop{'s' * (asked > 1)}, but {name} reads {found}: give a number for each, "
            f"such as neighbors=({enough})"
        )
    else:
        warnings.warn(
            f"neighbors lists {asked} hops, but {name} reads {found}: the outer ones cost time and change nothing",
            stacklevel=3,
        )


def reach(model: nn.Module, x: Tensor, edge_data: EdgeData, hops: int) -> int | None:
    """How far along a ring a node's features are felt, in evaluation mode; None if the model cannot be called on one.

    Nodes of a model that mixes all of them feel each other across the whole ring, which is `hops` and 24 more.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> reach(GCN(4, 8, num_layers=3), torch.ones(5, 4), EdgeData(), 2)
        3
    """
    half, where = hops + _BEYOND, device_of(model)
    ring = torch.arange(2 * half + 1)
    arcs = torch.stack([torch.cat([ring, ring.roll(-1)]), torch.cat([ring.roll(-1), ring])])
    some = x[ring % len(x)].float() if x.is_floating_point() else x[ring % len(x)]
    size = max(float(some.abs().max()), 1.0) if some.is_floating_point() else 1.0
    rows = torch.arange(arcs.size(1))
    held = edge_data.take(rows % len(edge_data)) if len(edge_data) else EdgeData()
    felt = torch.zeros(len(ring), dtype=torch.bool)
    with preserved(where), torch.no_grad():
        trial, call = copy.deepcopy(model).eval(), GraphCall(model)

        def outputs(features: Tensor) -> Tensor:
            seed_all(0, where)
            found: Tensor = call.arguments(features, arcs, held).to(where).run(trial)
            return found.detach().cpu()

        try:
            noise = torch.randn(len(ring), some.size(1), generator=torch.Generator().manual_seed(0))
            features = some + 0.1 * size * noise
            base = outputs(features)
            for number in range(4):
                moved = features.clone()
                moved[0] += 3 * size * torch.randn(some.size(1), generator=torch.Generator().manual_seed(number))
                changed = (outputs(moved) - base).abs() > 1e-6 * float(base.abs().max())
                felt |= changed.flatten(1).any(dim=1)
        except Exception:
            return None  # what it says on the real graph is told there
    distance = torch.minimum(ring, len(ring) - ring)
    return int(distance[felt].max()) if bool(felt.any()) else 0
