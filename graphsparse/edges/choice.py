"""The choice among sparsifiers that were tried: by what a network makes of the edges, or by what is left of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphsparse.edges.trials import Trial
from graphsparse.fit import Metric, PairedDifference

TOLERANCE = 0.01  # of the metric: how far below the whole graph the recommended one may be on the mean
LONELY = 0.01  # by structure: the share of the nodes that may lose all edges
TOGETHER = 0.05  # and how much smaller the share of the largest component may be


def by_metric(rows: Sequence[Trial], metric: Metric) -> tuple[Trial, str]:
    """The trial to recommend by the validation metric, and why.

    The smallest keep at which one loses at most `TOLERANCE` and no loss is shown; of those, all that do not differ from
    the best are equal, and the one that isolates the fewest nodes is taken, of these the first.

    Args:
        rows: trials with ``values`` of the same seeds, the one to be preferred among equals first.
        metric: of the values.
    """
    holding = [row for row in rows if _holds(row)]
    keep = min(row.keep for row in holding) if holding else max(row.keep for row in rows)
    there = [row for row in rows if row.keep == keep]
    candidates = [row for row in holding or rows if row.keep == keep]
    lost = f"at most 1 point of validation {metric.name}"
    why = f"{keep:g} is the smallest keep measured at which a sparsifier loses {lost}"
    if not holding:
        why = f"No sparsifier measured loses {lost} without a loss that is shown; {keep:g} is the largest keep"
    best = max(candidates, key=lambda row: _mean(row) if metric.maximize else -_mean(row))
    equals = [row for row in candidates if not _shown(best.better_than(row, metric.maximize))]
    chosen = min(equals, key=lambda row: row.isolated_nodes)
    runs = len(best.values)
    sure = f"paired 95 % intervals over {runs} seeds" if runs > 1 else "one seed cannot tell chance from a difference"
    if len(equals) > 1:
        names = " and ".join(", ".join(row.method for row in equals).rsplit(", ", 1))
        why += (
            f"; there {names} do not differ ({sure}), so the one that leaves the fewest nodes isolated "
            f"({chosen.isolated_nodes:,}) is recommended, of equals the cheapest"
        )
    elif len(candidates) > 1:
        why += (
            f"; there it is better than the others that do ({sure})" if holding else f"; there it is the best ({sure})"
        )
    elif holding:
        why += "; it is the only one there that does"
    return chosen, f"{why}.{_beside_random(chosen, there, metric)}"


def by_structure(rows: Sequence[Trial], whole: Trial, num_nodes: int) -> tuple[Trial, str]:
    """The trial to recommend by what is left of the graph, and why.

    Args:
        rows: trials, the one to be preferred among equals first.
        whole: the whole graph.
        num_nodes: N.
    """
    holding = [
        row
        for row in rows
        if row.isolated_nodes - whole.isolated_nodes <= LONELY * num_nodes
        and row.largest_component >= whole.largest_component - TOGETHER
    ]
    keep = min(row.keep for row in holding) if holding else max(row.keep for row in rows)
    candidates = [row for row in holding or rows if row.keep == keep]
    chosen = min(candidates, key=lambda row: (row.isolated_nodes, -row.largest_component))
    lost = chosen.isolated_nodes - whole.isolated_nodes
    figures = (
        f"it isolates the fewest nodes of those measured there ({lost:,} more than before), and "
        f"{100 * chosen.largest_component:.1f} % of the nodes stay in the largest component "
        f"(before: {100 * whole.largest_component:.1f} %)"
    )
    if holding:
        return chosen, (
            f"By structure alone: {keep:g} is the smallest keep measured at which at most 1 % of the nodes lose all "
            f"edges and the largest component shrinks by at most 5 points; {figures}."
        )
    return chosen, (
        "By structure alone: each sparsifier measured isolates more than 1 % of the nodes or takes more than 5 points "
        f"off the largest component; at the largest keep {figures}."
    )


def in_points(difference: PairedDifference) -> str:
    """A difference in points with its interval.

    Example:
        >>> in_points(PairedDifference(-0.012, 0.004, 0, 3))
        '-1.20 ± 0.40'
    """
    text = f"{100 * difference.mean:+.2f}"
    return text if math.isnan(difference.half_width) else f"{text} ± {100 * difference.half_width:.2f}"


def _holds(row: Trial) -> bool:
    """Whether a trial loses at most so much, and no loss is shown."""
    gap = row.difference
    assert gap is not None
    return gap.mean >= -TOLERANCE and (gap.mean >= 0 or not _shown(gap))


def _shown(difference: PairedDifference) -> bool:
    """Whether an interval leaves 0 out; one seed has no interval and shows nothing."""
    return not math.isnan(difference.half_width) and abs(difference.mean) > difference.half_width


def _beside_random(chosen: Trial, there: Sequence[Trial], metric: Metric) -> str:
    """A sentence on the control, where it is not shown to be worse."""
    control = next((row for row in there if row.method == "random"), None)
    if control is chosen:
        return " These are random edges: no score is shown to be worth more than chance here."
    if control is None or _shown(gap := chosen.better_than(control, metric.maximize)):
        return ""
    return (
        f" Random edges are not shown to differ from it ({in_points(gap)} points): only the structure "
        "speaks for a score here."
    )


def _mean(row: Trial) -> float:
    assert row.mean is not None
    return row.mean
