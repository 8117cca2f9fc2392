"""The names that the tables hold, one line each, for help texts and for ``graphsparse list``."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from typing import Any

TABLES: dict[str, tuple[str, str]] = {  # word of the command line -> what the entries are, and where their table is
    "scores": ("edge scores: which edges matter; --method of sparsify, ticket, bench", "edges.score_table:SCORES"),
    "finders": ("ticket finders besides the edge scores; --method of ticket, bench", "tickets.finders.table:FINDERS"),
    "guards": ("rules against nodes that lose all edges; --guard", "cli.known_names:GUARDS"),
    "protocols": ("what of the graph training may see; --protocol", "cli.known_names:PROTOCOLS"),
    "patterns": ("what is removed of the weights; --pattern of ticket", "cli.known_names:PATTERNS"),
    "backbones": ("graph neural networks; --model", "nn.make_net:BACKBONES"),
    "distributions": ("how many weights each tensor keeps; --weight-distribution", "params.distribution:DISTRIBUTIONS"),
    "methods": (
        "sparse training; --method of sparse train, --weights of ticket, bench",
        "params.recipes:METHODS",
    ),
    "datasets": ("graphs by name; --dataset of ticket, bench, advise", "data.catalogue:DATASETS"),
    "formats": ("kinds of graph files; the suffix, or --format of sparsify", "graphs.formats.graph_file:FORMATS"),
    "metrics": ("what a task is judged by", "fit.metrics:METRICS"),
    "cnns": ("families of CNNs; --arch of meta zoo", "nn.cnn:CNNS"),
    "images": ("sets of images; --dataset of meta zoo, --data of sparse train", "data.images:IMAGES"),
    "criteria": ("how important channels are; --criterion of meta prune", "metanet.channels.criteria:CRITERIA"),
    "objectives": ("what a metanetwork learns; --objective of meta train", "metanet.learn.objectives:OBJECTIVES"),
}

GUARDS = {
    "cover": "spend the count so that few nodes lose all edges, as far as it goes",
    "isolated": "no node loses all its edges, or an error says the smallest keep",
}

PATTERNS = {
    "weights": "single weights, which become zeros",
    "units": "whole hidden units, which are cut out of the network at the end",
}

PROTOCOLS = {
    "transductive": "training sees the whole graph, but no label of the validation and test part",
    "inductive": "test nodes or graphs are not seen in training",
}


def names_of(table: str) -> dict[str, str]:
    """Names and a line on each, in the order of the alphabet.

    Example:
        >>> sorted(names_of("guards"))
        ['cover', 'isolated']
    """
    return {name: entry if isinstance(entry, str) else first_line(entry) for name, entry in _entries(table).items()}


def first_line(entry: Any) -> str:
    """The first sentence of what documents an entry, in plain letters.

    That is its attribute ``about``, else its docstring, that of its class, or of the function that a metric or a family
    of networks is made of.

    Example:
        >>> first_line(names_of)
        'Names and a line on each, in the order of the alphabet.'
    """
    entry = getattr(entry, "score" if hasattr(entry, "maximize") else "make", entry)
    own = inspect.isroutine(entry) or inspect.isclass(entry)
    text = getattr(entry, "about", None) or (entry.__doc__ if own else type(entry).__doc__) or ""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    paragraph = re.sub(r":math:`([^`]*)`", lambda found: _plain_formula(found[1]), paragraph)
    paragraph = re.sub(r":\w+:`~?(?:[\w.]*\.)?([^`]*)`", r"\1", paragraph).replace("`", "")
    return re.sub(r"(?<=[^.\s]{2}\.) [A-Z].*", "", paragraph)


_SIGNS = {r"\langle": "<", r"\rangle": ">", r"\cap": "and", r"\cup": "or", r"\cdot": "·", r"\partial": "d", r"\|": "|"}


def _plain_formula(formula: str) -> str:
    """A formula in plain letters, such as ``sqrt(a)`` for ``\\sqrt{a}``."""
    for sign, plain in _SIGNS.items():
        formula = formula.replace(sign, plain)
    formula = re.sub(r"\\sqrt\{((?:[^{}]|\{[^{}]*\})*)\}", r"sqrt(\1)", formula)
    formula = re.sub(r"\\text\{(\w+)\}|\{(\w+)\}", r"\1\2", formula)
    return re.sub(r"\\([a-z]+)", r"\1", formula).replace("\\,", "").replace("\\", "")


def fill_in(text: str) -> str:
    """A help text with the names of a table where it says ``{scores}`` or the like.

    Example:
        >>> fill_in("one of {guards}")
        'one of cover, isolated'
    """
    return re.sub(r"\{(\w+)\}", lambda found: ", ".join(_entries(found[1])), text)


def _entries(table: str) -> dict[str, Any]:
    module, _, attribute = TABLES[table][1].partition(":")
    found: Mapping[str, Any] = getattr(importlib.import_module(f"graphsparse.{module}"), attribute)
    return {name.replace("_", "-"): found[name] for name in sorted(found)}  # one spelling; tables take both
