"""Data sets: real graphs and images by name, offline first."""

from graphsparse.data.folders import cache_root, data_root
from graphsparse.data.graphs import load, names
from graphsparse.data.images import ImageSet, crop_flip, image_names, load_images
from graphsparse.data.ogb import OgbTask, load_ogb

__all__ = [
    "ImageSet",
    "OgbTask",
    "cache_root",
    "crop_flip",
    "data_root",
    "image_names",
    "load",
    "load_images",
    "load_ogb",
    "names",
]
