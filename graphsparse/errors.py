"""The errors that graphsparse raises on purpose; everything a caller may want to catch by name."""

from __future__ import annotations


class GraphsparseError(Exception):
    """Base of the errors that are particular to graphsparse."""


class DataError(GraphsparseError):
    """A data set or a file is missing, damaged, or not what it claims to be."""


class TicketError(GraphsparseError):
    """A ticket is damaged, belongs to another graph or model, or could not be found."""


class TraceError(GraphsparseError):
    """A module holds an operation that cannot be turned into a network graph."""
