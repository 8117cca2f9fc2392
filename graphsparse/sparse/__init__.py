"""Training sparse networks by any recipe."""

from graphsparse.sparse.training import SparseResult, train

__all__ = ["SparseResult", "train"]


def __dir__() -> list[str]:
    return sorted(__all__)
