"""Projected training of a plain PyG model on real data."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn
from torch_geometric.nn import GCN

from graphsparse.data import load
from graphsparse.keep_rule import kept_count
from graphsparse.params import Cubic, L0Projection, weights_kept


@pytest.mark.skipif("GRAPHSPARSE_DATA" not in os.environ, reason="needs Cora: set GRAPHSPARSE_DATA")
def test_a_tenth_of_the_weights_still_learns_cora() -> None:
    data = load("cora")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GCN(data.num_features, 64, num_layers=2, out_channels=int(data.y.max()) + 1, dropout=0.5)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
        projection = L0Projection(model, 0.9, schedule=Cubic(end=30)).attach(optimizer)
        for _ in range(60):
            optimizer.zero_grad()
            output = model(data.x, data.edge_index)
            nn.functional.cross_entropy(output[data.train_mask], data.y[data.train_mask]).backward()
            optimizer.step()
    total = sum(p.numel() for p in model.parameters())
    assert sum(int(p.count_nonzero()) for p in model.parameters()) == kept_count(0.1, total)
    assert weights_kept(model, projection.masks)["weights_kept"] == kept_count(0.1, total) / total
    predicted = model.eval()(data.x, data.edge_index).argmax(1)
    assert float((predicted == data.y)[data.val_mask].float().mean()) > 0.74
