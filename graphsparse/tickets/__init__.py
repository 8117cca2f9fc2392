"""Tickets: a sparse graph and a sparse network that are as accurate as the dense ones, found, saved and verified."""

from graphsparse.tickets.find import find_ticket
from graphsparse.tickets.make import FINDERS, make_ticket
from graphsparse.tickets.problem import Finder, Found, Problem, Training, train_dense
from graphsparse.tickets.search import LEVELS, best_on_validation, level_keeps, sparsest_within, summarise
from graphsparse.tickets.ticket import Ticket

__all__ = [
    "FINDERS",
    "LEVELS",
    "Finder",
    "Found",
    "Problem",
    "Ticket",
    "Training",
    "best_on_validation",
    "find_ticket",
    "level_keeps",
    "make_ticket",
    "sparsest_within",
    "summarise",
    "train_dense",
]
