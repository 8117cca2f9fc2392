"""Random search over neurons: the neutral baseline of every method that chooses what to keep."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor, nn

from graphsparse.fit import BaseTask, rng
from graphsparse.fit.measure import device_of
from graphsparse.keep_rule import Keep, check_seed, keep_fraction, kept_count, whole_number
from graphsparse.params import prunable
from graphsparse.sparse.layers import layer_weights


@dataclass(frozen=True)
class SearchResult:
    """The best of many random choices of neurons.

    Attributes:
        masks: bool, by name, true where kept: the rows of every hidden matrix, and the biases of these neurons.
        loss: the training loss at the initial weights under these masks.
        losses: that of each try.
    """

    masks: dict[str, Tensor] = field(repr=False)
    loss: float
    losses: list[float] = field(repr=False)


def search(task: BaseTask, net: nn.Module, keep: Keep, *, tries: int = 64, seed: int = 0) -> SearchResult:
    r"""Draw neurons at random, several times, and take the draw of least training loss at the initial weights.

    Each hidden layer of width h keeps :math:`\lceil keep \cdot h \rceil` neurons: the rows of its matrix and its bias.
    A neuron without them gives 0 after a ReLU, so that the weights that read it are out, too. Hidden are all layers
    but the last; embeddings are none. Validation and test data are not read; the tries are the price that a comparison
    has to count.

    Args:
        task: nodes, links, graphs, images, or one's own.
        net: the network with its initial weights; it is not changed.
        keep: the kept fraction of each hidden layer's neurons, in (0, 1].
        tries: how many draws.
        seed: of the draws and of what the loss draws (order, dropout), which is the same for all.

    Raises:
        ValueError: for a network without a hidden layer, or numbers out of range.

    Source: Farahani, "Random search as a baseline for sparse neural network architecture search", 2024.

    Example:
        >>> from graphsparse.fit import Task
        >>> x, y = torch.eye(6), torch.arange(6) % 2
        >>> net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> found = search(Task((x, y), (x, y), (x, y)), net, 0.25, tries=4)
        >>> int(found.masks["0.bias"].sum()), len(found.losses), found.loss == min(found.losses)
        (2, 4, True)
    """
    share, tries, seed = keep_fraction(keep), whole_number(tries, "tries", least=1), check_seed(seed)
    task.check(net)
    groups = _layers(net)
    if not groups:
        raise ValueError("the network has one layer at the most, and so no hidden layer to choose neurons of")
    best: dict[str, Tensor] | None = None
    losses: list[float] = []
    for number in range(tries):
        masks = _drawn(net, groups, share, number, seed)
        losses.append(_loss(task, net, masks, seed))
        if best is None or losses[-1] < min(losses[:-1]):
            best = masks
    assert best is not None
    return SearchResult(best, min(losses), losses)


def _layers(net: nn.Module) -> list[list[str]]:
    """The tensors of each hidden layer: its matrix, and the bias of its module or of the module around it."""
    parameters = prunable(net)
    found = []
    for name in list(layer_weights(net))[:-1]:
        home = name.rpartition(".")[0]
        biases = [f"{home}.bias", f"{home.rpartition('.')[0]}.bias".lstrip(".")]
        own = [bias for bias in biases if bias in parameters and parameters[bias].shape == parameters[name].shape[:1]]
        found.append([name, *own])
    return found


def _drawn(net: nn.Module, groups: list[list[str]], share: Fraction, number: int, seed: int) -> dict[str, Tensor]:
    generator, masks = rng.generator_for(f"random search {number}", seed), {}
    for names in groups:
        width = net.get_parameter(names[0]).size(0)
        kept = torch.zeros(width, dtype=torch.bool)
        kept[torch.randperm(width, generator=generator)[: kept_count(share, width)]] = True
        for name in names:
            parameter = net.get_parameter(name)
            mask = kept.view(-1, *[1] * (parameter.dim() - 1)).expand(parameter.shape).clone()
            masks[name] = mask.to(parameter.device)
    return masks


@torch.no_grad()
def _loss(task: BaseTask, net: nn.Module, masks: dict[str, Tensor], seed: int) -> float:
    """The training loss of a masked copy."""
    twin, device = copy.deepcopy(net), device_of(net)
    for name, mask in masks.items():
        twin.get_parameter(name).masked_fill_(~mask, 0)
    session = task.start(twin, device)
    generators = session.generators()
    with rng.preserved(device, generators):
        rng.seed_all(seed, device, generators)
        losses = [float(loss) for loss in session.losses()]
    return math.fsum(losses) / len(losses)
