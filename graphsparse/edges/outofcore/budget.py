"""Memory that a job may take, and what it is spent on: the numbers of nodes, and a batch of edges a worker."""

from __future__ import annotations

from dataclasses import dataclass

from graphsparse.edges.outofcore.parts import Parts
from graphsparse.free_memory import free_memory, memory_size, taken_memory

FEWEST_ROWS, MOST_ROWS = 1 << 12, 1 << 20  # a batch: more is not faster
EDGE_BYTES = 80  # that a batch takes for each edge besides what is read
SMALL_JOB = 1 << 24  # bytes, little beside Python itself
DECODED = 4  # times what a row takes in a file: decoded, filtered and packed again


@dataclass(frozen=True)
class Plan:
    """What fits.

    Attributes:
        rows: edges of a batch.
        tasks: how many may hold vectors of their own at once.
        room: bytes for edges that are collected.
    """

    rows: int
    tasks: int
    room: int


@dataclass(frozen=True)
class Budget:
    """Bytes.

    Attributes:
        limit: that the job may take.
        data: of these for its data; the others are Python's and its libraries'.
    """

    limit: int
    data: int

    @classmethod
    def of(cls, memory: int | str | None) -> Budget:
        """What was asked for, or half of what is free."""
        limit = max(1, free_memory() // 2) if memory is None else memory_size(memory)
        return cls(limit, limit)

    def shared_by(self, processes: int) -> Budget:
        """What is left when each of some processes holds Python; at least half of it, and what a small job takes."""
        return Budget(self.limit, max(self.limit - processes * taken_memory(), self.limit // 2, SMALL_JOB))

    def rows(self, row_bytes: int, workers: int, room: int | None = None) -> int:
        """Edges of a batch, for so many workers."""
        room = self.data // 2 if room is None else room
        rows = room // (workers * (EDGE_BYTES + DECODED * row_bytes))
        return max(FEWEST_ROWS, min(MOST_ROWS, rows))

    def plan(self, method: str, undirected: bool | None, nodes: int, source: Parts, workers: int) -> Plan:
        """Divide the memory.

        Raises:
            ValueError: the numbers of the nodes do not fit; it says what would.
        """
        degree = 4 if source.num_rows < 1 << 30 else 8
        sides = 1 if undirected else 2
        held = {"teddy": sides * (degree + 4), "dspar": sides * degree, "random": 0}[method] * nodes
        own = {"teddy": 8 * sides, "dspar": 8 * sides, "random": degree * sides}[method] * nodes  # of a task
        least = held + own
        if least > self.data * 3 // 4:
            asked = self.limit - self.data + least * 4 // 3 + (1 << 20)
            raise ValueError(
                f"the graph has {nodes:,} nodes by its largest id, and the numbers that {method} needs of them take "
                f"{_bytes(least)}, which does not fit in memory={_bytes(self.limit)} beside Python and a batch of "
                f"edges: give at least {_bytes(asked)}, or relabel the nodes as 0, 1, 2 ... if there are fewer"
            )
        tasks = max(1, min(workers, (self.data * 3 // 4 - held) // max(1, own)))
        left = self.data - held - tasks * own
        return Plan(self.rows(source.row_bytes, workers, left // 2), tasks, left // 2)


def _bytes(number: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if number >= size:
            return f"{-(-10 * number // size) / 10:g} {unit}"
    return f"{-(-number // 1000)} kB"
