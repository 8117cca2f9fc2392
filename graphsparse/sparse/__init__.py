"""Training sparse networks by any recipe."""

from graphsparse.sparse.random_search import SearchResult, search
from graphsparse.sparse.rotating import FeaturesResult, features
from graphsparse.sparse.soups import SoupResult, soup
from graphsparse.sparse.training import SparseResult, train

__all__ = [
    "FeaturesResult",
    "SearchResult",
    "SoupResult",
    "SparseResult",
    "features",
    "search",
    "soup",
    "train",
]


def __dir__() -> list[str]:
    return sorted(__all__)
