"""scipy sparse matrices and arrays of every format."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from graphsparse.graphs.inner_form import check_square, edge_list
from graphsparse.graphs.interop import KINDS, OpenGraph

Array = npt.NDArray[Any]


@KINDS.register("scipy")
class ScipyGraph(OpenGraph):
    """A scipy sparse matrix or array: entries in the order of its COO or, for CSC, its own form."""

    says = "a square scipy sparse matrix"

    @classmethod
    def accepts(cls, graph: Any, asked: bool = False) -> bool:
        return bool(scipy.sparse.issparse(graph))

    def __init__(self, matrix: Any, undirected: bool | None) -> None:
        check_square(tuple(matrix.shape))
        _check_compressed(matrix)
        self.matrix = matrix
        coo = matrix.tocoo()
        if matrix.format == "bsr":  # the padding of its blocks is no edge
            stored = coo.data != 0
            coo = type(coo)((coo.data[stored], (coo.row[stored], coo.col[stored])), shape=coo.shape)
        self.coo = coo
        ends = torch.from_numpy(np.stack([coo.row, coo.col]))
        if coo.data.dtype in (np.longdouble, np.clongdouble):
            values = torch.from_numpy(coo.data.astype(np.float64))
        else:
            values = torch.from_numpy(np.array(coo.data))
        self.edges = edge_list(ends, matrix.shape[0], undirected, weight=values)

    def cut(self, mask: Tensor, edge_weight: Tensor | None = None) -> Any:
        keep = mask.cpu().numpy()
        values = self.coo.data if edge_weight is None else edge_weight.cpu().numpy()
        cut = _cut_compressed if self.matrix.format in ("csr", "csc") else _cut_coo
        return cut(self.matrix, self.coo, values, keep)


def _check_compressed(matrix: Any) -> None:
    """scipy trusts the arrays of a compressed matrix; wrong ones crash the process or invent edges."""
    if matrix.format not in ("csr", "csc", "bsr"):
        return
    rows, columns = matrix.blocksize if matrix.format == "bsr" else (1, 1)
    major, minor = matrix.shape[0] // rows, matrix.shape[1] // columns  # square: the same for csc
    starts, ids = matrix.indptr, matrix.indices
    sound = (
        starts.shape == (major + 1,)
        and starts[0] == 0
        and starts[-1] == len(ids) == len(matrix.data)
        and bool((starts[1:] >= starts[:-1]).all())
        and (len(ids) == 0 or (int(ids.min()) >= 0 and int(ids.max()) < minor))
    )
    if not sound:
        raise ValueError(f"the {matrix.format} matrix is damaged: its indptr and indices do not fit its shape")


def _cut_compressed(matrix: Any, coo: Any, values: Array, keep: Array) -> Any:
    """Cut CSR and CSC in place of their own arrays: building them anew would add copies up."""
    kept_before = np.concatenate([[0], np.cumsum(keep)]).astype(matrix.indptr.dtype)
    parts = values[keep], matrix.indices[: len(keep)][keep], kept_before[matrix.indptr]
    return type(matrix)(parts, shape=matrix.shape)


def _cut_coo(matrix: Any, coo: Any, values: Array, keep: Array) -> Any:
    small = type(coo)((values[keep], (coo.row[keep], coo.col[keep])), shape=matrix.shape)
    if matrix.format == "bsr":
        return small.tobsr(blocksize=matrix.blocksize)
    return small.asformat(matrix.format)
