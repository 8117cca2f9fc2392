"""The embedded data set: scikit-learn's handwritten digits, joined to their nearest neighbours."""

from __future__ import annotations

import numpy as np
import torch

from graphsparse.data.catalogue import DATASETS, DataSet
from graphsparse.data.raw import RawGraph, tensor_of
from graphsparse.data.splits import PerClass

NEIGHBOURS = 10


def read_digits() -> RawGraph:
    """Build the k-nearest-neighbour graph of the 1,797 8x8 digits (k = 10, Euclidean, made undirected).

    Pixels are whole numbers, so squared distances are computed without rounding and ties go to the lower node id:
    the graph is the same on every machine. Features are the pixels over 16, in [0, 1].
    """
    from sklearn.datasets import load_digits
    from torch_geometric.utils import to_undirected

    digits = load_digits()
    pixels = np.asarray(digits.data, dtype=np.float64)
    norms = (pixels**2).sum(axis=1)
    # Below 2^53 every float64 step is exact, whatever order the BLAS sums in.
    distances = norms[:, None] + norms[None, :] - 2.0 * (pixels @ pixels.T)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
    sources = np.repeat(np.arange(len(pixels)), NEIGHBOURS)
    edge_index = to_undirected(torch.from_numpy(np.stack([sources, nearest.ravel()])), num_nodes=len(pixels))
    return RawGraph(
        tensor_of(pixels / 16.0, torch.float32), edge_index, tensor_of(np.asarray(digits.target), torch.int64)
    )


_ABOUT = "scikit-learn's 1,797 digits, linked to their nearest neighbours; embedded, nothing is downloaded"
# Few labels, so that the edges are worth something.
DATASETS.register("digits-knn", DataSet(lambda root: read_digits(), random=PerClass(5, 500, None), about=_ABOUT))
