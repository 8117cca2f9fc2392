"""The command ``graphsparse``: find a ticket, sparsify a file, learn to prune networks; one file a command."""

import importlib
import pkgutil

from graphsparse.cli.entry import main
from graphsparse.cli.groups import Interrupted, app

for _found in pkgutil.iter_modules(__path__):  # a file of a command adds it to its group
    importlib.import_module(f"{__name__}.{_found.name}")

__all__ = ["Interrupted", "app", "main"]
