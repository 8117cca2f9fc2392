"""What the commands ``graphsparse meta zoo``, ``train`` and ``prune`` do: work that can be resumed, a table, a plot."""

from graphsparse.metanet.study.comparison import PruneStudy, find_metanet
from graphsparse.metanet.study.meta_training import TrainStudy
from graphsparse.metanet.study.zoo import ZooStudy, zoo_summary

__all__ = ["PruneStudy", "TrainStudy", "ZooStudy", "find_metanet", "zoo_summary"]
