"""Figures of nodes, worked out by hand on a network of six neurons."""

import math

import pytest
import torch
from torch import nn

from graphsparse.metanet import NetworkGraph
from graphsparse.metanet.features import (
    NODE_FIGURES,
    bank_scale,
    group_rank,
    kept_figures,
    node_figures,
    tensor_scale,
    wiring,
)


@pytest.fixture
def graph():
    """2 inputs, 3 hidden neurons whose incoming weights have norms 5, 1 and 10, one output."""
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    net[0].weight.data = torch.tensor([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]])
    net[0].bias.data = torch.tensor([1.0, 2.0, 3.0])
    net[2].weight.data = torch.tensor([[1.0, 2.0, 2.0]])
    return NetworkGraph.from_module(net, torch.zeros(1, 2))


def test_norms_widths_and_ranks_by_hand(graph):
    figures = node_figures(graph)
    assert figures.shape == (6, NODE_FIGURES)
    inward = [math.log(5), 0.0, math.log(10)]
    mean = sum(inward) / 3
    torch.testing.assert_close(figures[2:5, 0], torch.tensor([v - mean for v in inward]))
    torch.testing.assert_close(figures[2:5, 1], torch.full((3,), mean))
    assert not figures[:2, :2].any()  # nothing comes into the inputs
    outward = [0.0, math.log(2), math.log(2)]
    torch.testing.assert_close(figures[2:5, 2], torch.tensor([v - sum(outward) / 3 for v in outward]))
    assert not figures[5, 2:4].any()  # nothing leaves the output
    torch.testing.assert_close(figures[:, 4], torch.tensor([2.0, 2, 3, 3, 3, 1]).log())
    # group l2: sqrt(25 + 1), sqrt(1 + 4), sqrt(100 + 4)
    torch.testing.assert_close(figures[2:5, 5], torch.tensor([0.0, -1 / 3, 1 / 3]))


def test_the_rank_does_not_depend_on_the_order_of_channels(graph):
    assert group_rank(graph)[2:5].argsort().tolist() == [1, 0, 2]
    assert (group_rank(graph).abs() < 0.5).all()


def test_kept_figures_by_hand(graph):
    keep = torch.tensor([1, 1, 1, 0, 1, 1]).bool()
    figures = kept_figures(graph, keep)
    torch.testing.assert_close(figures[:, 0], torch.tensor([0.5, 0.5, 0.5, -0.5, 0.5, 0.5]))
    torch.testing.assert_close(figures[2:5, 1], torch.full((3,), 2 / 3 - 0.5))
    torch.testing.assert_close(figures[[0, 1, 5], 1], torch.full((3,), 0.5))


def test_the_scale_is_each_tensors_own(graph):
    edges = graph.edges[()]
    scale = tensor_scale(edges.values, wiring(graph).tensor_of[()])
    torch.testing.assert_close(scale[:6], torch.full((6,), math.sqrt(126 / 6)))
    torch.testing.assert_close(scale[6:], torch.full((3,), math.sqrt(9 / 3)))


def test_the_scale_of_a_node_feature_has_a_floor(graph):
    scale = bank_scale(graph, graph.banks["bias"], 0.1)
    torch.testing.assert_close(scale[:3, 0], torch.full((3,), math.sqrt(2 / 3)))
    torch.testing.assert_close(scale[3:, 0], torch.tensor([0.1]))
    fresh = NetworkGraph.from_module(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).eval(), torch.zeros(2, 2))
    torch.testing.assert_close(bank_scale(fresh, fresh.banks["gamma"], 0.1), torch.full((3, 1), 0.1))
