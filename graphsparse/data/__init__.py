"""Data sets: real graphs and images by name, offline first."""

from graphsparse.cache_folder import cache_root
from graphsparse.data.catalogue import DATASETS, DataSet, register
from graphsparse.data.folders import data_root
from graphsparse.data.graph_set import GraphSet, join_graphs
from graphsparse.data.graphs import load, names
from graphsparse.data.images import IMAGES, ImageSet, RawImages, crop_flip, image_names, load_images
from graphsparse.data.ogb import OgbTask, load_ogb
from graphsparse.data.papers100m import papers100m_structure

__all__ = [
    "DATASETS",
    "IMAGES",
    "DataSet",
    "GraphSet",
    "ImageSet",
    "OgbTask",
    "RawImages",
    "cache_root",
    "crop_flip",
    "data_root",
    "image_names",
    "join_graphs",
    "load",
    "load_images",
    "load_ogb",
    "names",
    "papers100m_structure",
    "register",
]


def __dir__() -> list[str]:
    return sorted(__all__)
