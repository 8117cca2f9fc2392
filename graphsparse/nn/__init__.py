"""Backbones: graph neural networks made of PyG's layers, and convolutional networks for small images."""

from graphsparse.nn.cnn import CNNS, VGG, ResNet, make_cnn
from graphsparse.nn.gnn import GAT, GCN, GIN, Backbone, GraphSAGE, GraphTransformer
from graphsparse.nn.registry import BACKBONES, make

__all__ = [
    "BACKBONES",
    "CNNS",
    "GAT",
    "GCN",
    "GIN",
    "VGG",
    "Backbone",
    "GraphSAGE",
    "GraphTransformer",
    "ResNet",
    "make",
    "make_cnn",
]
