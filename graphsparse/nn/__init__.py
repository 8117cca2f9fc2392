"""Networks: graph neural networks for nodes, links and molecules, and convolutional networks for small images."""

from graphsparse.nn.cnn import CNNS, VGG, Family, MobileNet, ResNet, make_cnn
from graphsparse.nn.gnn import GAT, GCN, GIN, Backbone, GraphSAGE, GraphTransformer
from graphsparse.nn.graphs import MoleculeNet
from graphsparse.nn.links import LinkNet, NodeEmbedding
from graphsparse.nn.make_net import BACKBONES, make, make_link_net, make_molecule_net

__all__ = [
    "BACKBONES",
    "CNNS",
    "GAT",
    "GCN",
    "GIN",
    "VGG",
    "Backbone",
    "Family",
    "GraphSAGE",
    "GraphTransformer",
    "LinkNet",
    "MobileNet",
    "MoleculeNet",
    "NodeEmbedding",
    "ResNet",
    "make",
    "make_cnn",
    "make_link_net",
    "make_molecule_net",
]


def __dir__() -> list[str]:
    return sorted(__all__)
