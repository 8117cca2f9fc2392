"""Sparsify files that do not fit in memory: passes over their parts, one part out for each part in."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphsparse.edges.files import Report
from graphsparse.edges.outofcore.budget import Budget
from graphsparse.edges.outofcore.copies import check_named_once, number_copies
from graphsparse.edges.outofcore.cut import find_cut
from graphsparse.edges.outofcore.engine import Engine, Tell, check_extra, open_engine
from graphsparse.edges.outofcore.passes import Cut, Passes, Scoring, find_ids, survey, write_part
from graphsparse.edges.outofcore.places import Places, find_places
from graphsparse.edges.outofcore.scratch import Facts, Found, Scratch
from graphsparse.edges.outofcore.statistics import METHODS, scoring_of
from graphsparse.edges.score_table import SCORES, check_options, check_words
from graphsparse.errors import DataError
from graphsparse.graphs.inner_form import MOST_NODES
from graphsparse.keep_rule import Keep, check_seed, keep_fraction, kept_count
from graphsparse.locking import only_one
from graphsparse.progress import Bars
from graphsparse.registry import one_of

Path_ = str | os.PathLike[str]


def sparsify_files(
    src: Any,
    dst: Path_,
    method: str = "teddy",
    *,
    keep: Keep | None = None,
    seed: int = 0,
    undirected: bool | None = None,
    memory: int | str | None = None,
    workers: int | None = None,
    client: Any = None,
    ends: tuple[str, str] | None = None,
    progress: bool | None = None,
    per_node: int | None = None,
    guard: str | None = None,
    forest: bool = False,
    **options: Any,
) -> Report:
    """Keep the best edges of a graph in files that need not fit in memory, by passes over its parts.

    The edges that stay are those that `graphsparse.sparsify` keeps of the whole list in memory, bit for bit, for any
    parts, workers and memory. The list is that of the parts in the order of their names (it matters for which of
    several parallel copies stays). The job may be killed: the same call goes on where it was.

    Args:
        src: a Parquet file, or a folder of Parquet parts of one schema (those below it, too), with whole numbers 0, 1,
            2 ... in the columns ``src`` and ``dst`` (or ``source`` and ``target``); CSV and TSV files with a header,
            which become Parquet; a ``.npy`` file ``[2, E]`` or ``[E, 2]``, a memory map of one, or a binary file of OGB
            (``raw/data.npz``), which become a ``.npy`` file. It is not changed.
        dst: a file for a file, and for a folder a new or empty one: for each part one of the same name, with the
            columns of the part, that are written whole or not at all.
        method: ``teddy``, ``dspar`` or ``random``.
        keep: fraction of the countable edges to keep, in (0, 1].
        seed: of ties and of ``random``.
        undirected: whether pairs are counted; None: if every arc has as many mirrors as copies.
        memory: bytes that the job may take, or ``"4GB"``; by default half of what is free. Python and its libraries,
            about 0.5 GB a process, count; of less than twice of that, half (or 16 MB) is for the job's data.
        workers: processes on this machine; by default threads of this process, one a core.
        client: a ``distributed.Client`` or the address of a scheduler; its workers see the same folders.
        ends: the names of the two columns of the ends.
        progress: show it; None: on a terminal.
        per_node: refused, like the two that follow: it takes memory for every edge.
        guard: see there.
        forest: see there.
        **options: of the method: ``normalization`` of ``teddy``.

    Returns:
        a sentence, with the same by name in its attribute ``figures``.

    Raises:
        ModuleNotFoundError: an extra is missing; it says which.
        DataError: a file is damaged, of another schema, or holds ids that are none.
        ValueError: another method or rule; ``dst`` is not empty; the numbers of the nodes do not fit in ``memory``.
        OSError: ``dst`` cannot be written; what is complete stays, and the same call goes on.

    Source: see the methods. The bins of float bits: `graphsparse.float_bits`.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     parts = Path(folder, "edges")
        ...     parts.mkdir()
        ...     pd.DataFrame({"src": [0, 1, 2, 3], "dst": [1, 2, 3, 4]}).to_parquet(parts / "a.parquet")
        ...     pd.DataFrame({"src": [0, 0, 0], "dst": [2, 3, 4]}).to_parquet(parts / "b.parquet")
        ...     said = sparsify_files(parts, Path(folder, "fewer"), keep=0.5, undirected=True)
        ...     said.figures["kept"], len(pd.read_parquet(Path(folder, "fewer")))
        (4, 4)
    """
    check_words(options)
    _check_rules(method, keep, per_node, guard, forest, options)
    assert keep is not None
    check_seed(seed)
    if not (undirected is None or isinstance(undirected, (bool, np.bool_))):
        raise TypeError(f"undirected must be True, False or None, got {undirected!r:.50}")
    budget = Budget.of(memory)
    check_extra()
    places = find_places(src, dst, ends)
    asked: Facts = {
        "source": places.identity,
        "method": SCORES.key(method),
        "options": {key: str(value) for key, value in options.items()},
        "keep": str(keep_fraction(keep)),
        "seed": int(seed),
        "undirected": None if undirected is None else bool(undirected),
    }
    with only_one(places.scratch):
        scratch = places.begin(asked)
        try:
            with open_engine(workers, client) as engine, Bars(progress) as bars:
                job = _Job(places, scratch, asked, keep, options, budget.shared_by(engine.processes), engine, bars)
                figures = job.run()
        except (DataError, ValueError, TypeError) as error:
            if isinstance(error, DataError) or not scratch.has_parts:
                places.discard(scratch)
            raise
        places.finish(scratch)
    return Report(_said(figures, undirected), figures)


@dataclass(frozen=True, eq=False)
class _Job:
    places: Places
    scratch: Scratch
    asked: Facts
    keep: Keep
    options: dict[str, Any]
    budget: Budget
    engine: Engine
    bars: Bars

    def run(self) -> Facts:
        source = self.places.open(self.scratch, self.engine, self._bar(1, 1))
        finished = self.scratch.done("finished", self.places.target)
        if finished is not None and self.places.all_there(self.scratch, source.parts):
            return finished
        bar = self._bar(len(source.parts), source.num_rows)
        small = Passes(source, self.engine, self.budget.rows(source.row_bytes, self.engine.workers), bar)
        nodes = self.scratch.step("ids", lambda: _nodes(small))["nodes"]
        plan = self.budget.plan(self.asked["method"], self.asked["undirected"], nodes, source, self.engine.workers)
        passes = Passes(source, self.engine, plan.rows, bar, small.shared)
        facts = self.scratch.step("survey", lambda: _survey(passes, nodes, self.asked["undirected"], plan.tasks))
        undirected, mirrored = facts["undirected"], facts["mirrored"]
        if undirected and not mirrored and 0 < facts["up"] < source.num_rows - facts["loops"]:
            self.scratch.step("named once", lambda: _checked(passes, self.scratch, plan.room))
        total = (source.num_rows - facts["loops"]) // (2 if mirrored else 1)
        count = kept_count(self.keep, total)
        cut = Cut(None)
        if count < total:
            sides = "each" if not undirected else "out" if mirrored else "both"
            scoring = scoring_of(
                passes,
                self.scratch,
                self.asked["method"],
                self.options,
                undirected,
                sides,
                self.asked["seed"],
                plan.tasks,
            )
            cut = self._cut(passes, scoring, count, nodes, mirrored, plan.room)
        kept_rows = self._write(passes, cut)
        figures = {
            "kept": count,
            "total": total,
            "undirected": undirected,
            "read_as": "found" if self.asked["undirected"] is None else "given",
            "self_loops": facts["loops"],
            "nodes": nodes,
            "parts": len(source.parts),
            "method": self.asked["method"],
            "out": str(self.places.target),
            "hint": _hint(facts, source.num_rows, self.asked["undirected"]),
        }
        if kept_rows != facts["loops"] + count * (2 if mirrored else 1):
            raise DataError(f"{self.places.source} has changed while it was read: start again")
        self.scratch.record("finished", figures, self.places.target, [])
        return figures

    def _cut(self, passes: Passes, scoring: Scoring, count: int, nodes: int, mirrored: bool, room: int) -> Cut:
        def find() -> Found:
            used = scoring
            if scoring.kind == "hash":
                used = replace(scoring, copies=number_copies(passes, self.scratch, scoring.undirected, mirrored, room))
            cut, kept = find_cut(passes, self.scratch, used, count, nodes, mirrored, room)
            facts = {"above": cut.above, "tied": cut.tied, "tied_above": cut.tied_above}
            return {**facts, "copies": cut.scoring is not None and cut.scoring.copies}, {"kept": kept}

        facts = self.scratch.step("cut", find)
        used = replace(scoring, copies=facts["copies"])
        return Cut(used, facts["above"], facts["tied"], facts["tied_above"], self.scratch.path("kept"))

    def _write(self, passes: Passes, cut: Cut) -> int:
        source, kept, left = passes.source, 0, []
        for number, part in enumerate(source.parts):
            path = self.places.out(part)
            done = self.scratch.done(f"part {part.name}", path.parent)
            if done is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                left.append((number, passes.rows, cut, str(path)))
            else:
                kept += done["kept"]
        counts: list[int] = []

        def done_with(at: int, rows: int) -> None:
            path = Path(left[at][3])
            self.scratch.record(f"part {source.parts[left[at][0]].name}", {"kept": rows}, path.parent, [path.name])
            counts.append(rows)

        passes.each(write_part, left, done_with, "write parts")
        return kept + sum(counts)

    def _bar(self, parts: int, rows: int) -> Callable[[str], Tell]:
        """A bar a pass, in parts."""

        def bar(called: str) -> Tell:
            report, read = self.bars.add(called), 0

            def tell(more: int) -> None:
                nonlocal read
                read += more
                report(parts * read // max(1, rows), parts, {})

            return tell

        return bar


def _nodes(passes: Passes) -> Found:
    """One more than the largest id: by the files' own word, which the survey checks, or by a pass."""
    if not passes.source.num_rows:
        return {"nodes": 0}, {}
    known = passes.source.known_ids()
    if known is None:
        found = passes.total(find_ids)
        known = min(low for low, _ in found), max(high for _, high in found)
    nodes = known[1] + 1
    if nodes > MOST_NODES:
        raise DataError(
            f"the largest id is {nodes - 1:,}, and ids are positions of at most {MOST_NODES:,} nodes (int32): relabel "
            "the nodes as 0, 1, 2 ..."
        )
    return {"nodes": max(0, nodes)}, {}


def _survey(passes: Passes, nodes: int, asked: bool | None, tasks: int) -> Found:
    dtype = "int32" if passes.source.num_rows < 1 << 30 else "int64"
    both = asked is True
    loops, up, balance, out, into = passes.total(survey, nodes, dtype, both, most=tasks)
    symmetric = balance % (1 << 64) == 0
    mirrored = symmetric and asked is not False
    facts = {"loops": loops, "up": up, "mirrored": mirrored, "undirected": mirrored or both}
    if both and mirrored:
        out //= 2  # each edge was counted at both ends of both arcs
    return facts, {"degree_out": out} if mirrored or both else {"degree_out": out, "degree_in": into}


def _checked(passes: Passes, scratch: Scratch, room: int) -> Found:
    check_named_once(passes, scratch, room)
    return {}, {}


def _check_rules(
    method: str, keep: Keep | None, per_node: Any, guard: Any, forest: Any, options: dict[str, Any]
) -> None:
    """Say what works out of core, before anything is read."""
    said = f"a {type(method).__name__}" if not isinstance(method, str) else method
    if isinstance(method, str):
        SCORES.find(method)  # a misspelt name is told what comes close
        said = SCORES.key(method)
    if said not in METHODS:
        raise ValueError(
            f"{said} does not work out of core: it is no function of numbers of the nodes; {', '.join(METHODS)} do"
        )
    for name, given in (("per_node", per_node is not None), ("guard", guard is not None), ("forest", bool(forest))):
        if given:
            raise ValueError(f"{name} does not work out of core, where every edge is judged by itself: give keep alone")
    if keep is None:
        raise TypeError("say how much to keep: keep=0.5 keeps half of the edges")
    keep_fraction(keep)
    check_options(method, options)
    if "normalization" in options:
        options["normalization"] = one_of(options["normalization"], "normalization", ("degree", "sqrt"))


def _hint(facts: Facts, rows: int, asked: bool | None) -> str | None:
    """Of arcs that all point one way: so lists of undirected edges look."""
    one_way = facts["up"] in (0, rows - facts["loops"])
    if asked is not None or facts["undirected"] or not one_way:
        return None
    return "no arc has its mirror: add --undirected (undirected=True) if each line is an edge"


def _said(figures: Facts, undirected: bool | None) -> str:
    counted = "undirected edges" if figures["undirected"] else "directed edges"
    share = f" ({100 * figures['kept'] / figures['total']:.2f} %)" if figures["total"] else ""
    loops = f", and all {figures['self_loops']:,} self-loops" if figures["self_loops"] else ""
    hint = f"; {figures['hint']}" if figures["hint"] else ""
    return (
        f"kept {figures['kept']:,} of {figures['total']:,} {counted} ({figures['read_as']} so){share}{loops}, out of "
        f"core, in {figures['parts']:,} {'part' if figures['parts'] == 1 else 'parts'}: {figures['out']}{hint}"
    )
