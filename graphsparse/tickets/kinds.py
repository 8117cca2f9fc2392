"""What tickets are found for: nodes, links and whole graphs."""

from __future__ import annotations

from graphsparse.errors import TicketError
from graphsparse.fit import GraphTask, LinkTask, MessageTask, NodeTask

KINDS: dict[str, type[MessageTask]] = {task.kind: task for task in (NodeTask, LinkTask, GraphTask)}


def task_class(kind: str) -> type[MessageTask]:
    """The task of a kind, as a ticket's config names it.

    Raises:
        TicketError: if there is no such kind.

    Example:
        >>> task_class("graph").__name__
        'GraphTask'
    """
    if kind not in KINDS:
        raise TicketError(f"there are tickets for {', '.join(KINDS)}, not for {kind!r}")
    return KINDS[kind]
