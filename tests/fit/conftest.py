"""A small graph whose classes can be learned, and a model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv
from torch_geometric.utils import to_undirected


class Net(nn.Module):
    """A PyG model as users write it, with dropout on its input and batch normalisation."""

    def __init__(self, in_channels: int = 40, out_channels: int = 3, *, cached: bool = False) -> None:
        super().__init__()
        self.first = GCNConv(in_channels, 8, cached=cached)
        self.norm = nn.BatchNorm1d(8)
        self.second = GCNConv(8, out_channels, cached=cached)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.norm(self.first(nn.functional.dropout(x, 0.3, self.training), edge_index)).relu()
        return self.second(nn.functional.dropout(x, 0.5, self.training), edge_index)


def new_net(seed: int = 0, **options: int | bool) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(**options)


@pytest.fixture
def net() -> Net:
    return new_net()


@pytest.fixture
def data() -> Data:
    """60 nodes of 3 classes; 40 sparse features (under 10 % filled), edges mostly within a class."""
    generator = torch.Generator().manual_seed(0)
    nodes = torch.arange(60)
    y = nodes % 3
    x = torch.zeros(60, 40)
    x[nodes, y * 5 + torch.randint(0, 8, (60,), generator=generator)] = 1
    x[nodes, torch.randint(20, 40, (60,), generator=generator)] = 1
    source = torch.randint(0, 60, (150,), generator=generator)
    step = 3 * torch.randint(1, 20, (150,), generator=generator) + (torch.rand(150, generator=generator) < 0.2)
    target = (source + step) % 60
    part = torch.randperm(60, generator=generator)
    masks = {name: torch.zeros(60, dtype=torch.bool) for name in ("train", "val", "test")}
    for name, chosen in zip(masks, part.split(20), strict=True):
        masks[name][chosen] = True
    return Data(
        x=x,
        edge_index=to_undirected(torch.stack((source, target))),
        y=y,
        metric="accuracy",
        **{f"{name}_mask": mask for name, mask in masks.items()},
    )
