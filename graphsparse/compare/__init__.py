"""Comparisons of methods under one protocol: rows that resume, trials chosen on validation data, paired differences."""

from graphsparse.compare.bench import FAILED, SUMMARY, TABLES, Bench, asked_rows
from graphsparse.compare.comparison import Comparison, Experiment, Seat
from graphsparse.compare.runs import ROWS, Failure, Work, digest_of, make_runs, missing_work, shared_out
from graphsparse.compare.verdict import FEWEST, differs, holm, mean_of, verdicts_of

__all__ = [
    "FAILED",
    "FEWEST",
    "ROWS",
    "SUMMARY",
    "TABLES",
    "Bench",
    "Comparison",
    "Experiment",
    "Failure",
    "Seat",
    "Work",
    "asked_rows",
    "differs",
    "digest_of",
    "holm",
    "make_runs",
    "mean_of",
    "missing_work",
    "shared_out",
    "verdicts_of",
]


def __dir__() -> list[str]:
    return sorted(__all__)
