"""What a weight is worth; one score a file, each in the table `SCORES`."""

from graphsparse.params.scores.evidence import SCORES, Evidence, Score

__all__ = ["SCORES", "Evidence", "Score"]
