"""Backbones: graph neural networks made of PyG's layers."""

from graphsparse.nn.gnn import GAT, GCN, GIN, Backbone, GraphSAGE, GraphTransformer
from graphsparse.nn.registry import BACKBONES, make

__all__ = ["BACKBONES", "GAT", "GCN", "GIN", "Backbone", "GraphSAGE", "GraphTransformer", "make"]
