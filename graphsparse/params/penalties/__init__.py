"""What a proximal step makes smaller; one penalty a file, each in the table `PENALTIES`."""

from graphsparse.params.penalties.penalty import PENALTIES, Pool, Shrinkage

__all__ = ["PENALTIES", "Pool", "Shrinkage"]
