"""Tickets: a sparse graph and a sparse network that are as accurate as the dense ones, found, saved and verified."""

from graphsparse.tickets.compare.search import LEVELS, best_on_validation, level_keeps, sparsest_within, summarise
from graphsparse.tickets.compiled.fast import CompiledTicket
from graphsparse.tickets.find import find_ticket
from graphsparse.tickets.finders.controls import all_edges, dense_student, no_edges
from graphsparse.tickets.finders.denoise import Denoise
from graphsparse.tickets.finders.imp import IMP
from graphsparse.tickets.finders.magnitude import Magnitude
from graphsparse.tickets.finders.mixture import Mixture
from graphsparse.tickets.finders.one_shot import OneShot
from graphsparse.tickets.finders.random_weights import RandomWeights
from graphsparse.tickets.finders.reliance import Reliance, RelianceBlind
from graphsparse.tickets.finders.table import FINDERS, finders, register
from graphsparse.tickets.finders.ugs import UGS
from graphsparse.tickets.finders.wd_glt import WDGLT
from graphsparse.tickets.make import make_ticket
from graphsparse.tickets.problem import Finder, Found, Problem, Training, train_dense, unguarded
from graphsparse.tickets.ticket import Ticket

__all__ = [
    "FINDERS",
    "IMP",
    "LEVELS",
    "UGS",
    "WDGLT",
    "CompiledTicket",
    "Denoise",
    "Finder",
    "Found",
    "Magnitude",
    "Mixture",
    "OneShot",
    "Problem",
    "RandomWeights",
    "Reliance",
    "RelianceBlind",
    "Ticket",
    "Training",
    "all_edges",
    "best_on_validation",
    "dense_student",
    "find_ticket",
    "finders",
    "level_keeps",
    "make_ticket",
    "no_edges",
    "register",
    "sparsest_within",
    "summarise",
    "train_dense",
    "unguarded",
]


def __dir__() -> list[str]:
    return sorted(__all__)
