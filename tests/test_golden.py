"""What a ticket and a metanetwork gave once they give for ever: the house may be rebuilt, its results may not move.

Masks are exact on any machine; trained figures are held to what another processor's rounding leaves of them.
"""

from __future__ import annotations

import hashlib

import pytest
import torch

import graphsparse as gs

GOLDEN = {
    "mask": "641dc29577c83080",
    "edges_kept": 0.600048626306832,
    "weights_kept": 0.6,
    "dense_test": 0.9013632718524459,
    "test": 0.838813151563753,
    "val": 0.872,
}
GOLDEN_STATE = {
    "conv.weight": (1.932069, 2.470075),
    "norm.bias": (-0.019165, 0.000196),
    "blocks.1.conv2.weight": (1.563251, 16.327826),
    "blocks.2.norm2.weight": (17.015278, 18.097624),
    "blocks.2.shortcut.0.weight": (-0.497357, 20.349763),
    "head.weight": (7.647361, 4.943996),
    "head.bias": (0.757347, 0.271193),
}


def _digest(mask: torch.Tensor) -> str:
    return hashlib.sha256(mask.to(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def test_a_golden_ticket():
    data = gs.data.load("digits-knn")
    net = gs.nn.make("gcn", data.num_features, data.num_classes, 16, seed=0)
    ticket = gs.find_ticket(net, data, method="teddy", edge_keep=0.6, weight_keep=0.6, distill=1.0, seed=0, epochs=30)
    mask = gs.edges.keep_mask(gs.edges.score(data, "teddy"), data.edge_index, keep=0.6)
    assert torch.equal(ticket.sparse_graph(data).edge_index, data.edge_index[:, mask])
    assert _digest(mask) == GOLDEN["mask"]
    for name in ("edges_kept", "weights_kept", "dense_test", "test", "val"):
        assert ticket.metrics[name] == pytest.approx(GOLDEN[name], abs=0.01 if "kept" not in name else 1e-12), name


def test_a_golden_metanetwork():
    torch.manual_seed(0)
    net = gs.nn.make_cnn("resnet8", width=4, in_channels=1, seed=0).eval()
    graph = gs.metanet.NetworkGraph.from_module(net, torch.zeros(1, 1, 8, 8))
    metanet = gs.metanet.MetaNetwork.from_pretrained("resnet-tiny").eval()
    keep = torch.ones(graph.num_nodes, dtype=torch.bool)
    with torch.no_grad():
        changed = metanet(graph, keep=keep).to_module()
    for name, (total, size) in GOLDEN_STATE.items():
        weight = changed.state_dict()[name].double()
        assert float(weight.sum()) == pytest.approx(total, abs=1e-4), name
        assert float(weight.square().sum()) == pytest.approx(size, rel=1e-4, abs=1e-5), name
