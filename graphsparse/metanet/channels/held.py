"""Channels that must stay: by the user's wish, or because the network's structure or code holds them."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence

from graphsparse.metanet.channels.budget import Cost
from graphsparse.metanet.channels.sets import INPUT, OUTPUT, Channels
from graphsparse.metanet.graph import NetworkGraph

WISH = "keep_layers names it"
SCORES = "they are the scores of attention"
_EXPECTED = frozenset({INPUT, OUTPUT, SCORES, WISH})  # nothing to warn of


def keep_whole(graph: NetworkGraph, layers: Sequence[str]) -> Channels:
    """The units of a graph with all channels of some layers held; the name of a part holds every layer in it.

    Raises:
        ValueError: the network has no such layer.
    """
    units, names = Channels.of(graph), [name.partition(" (")[0] for name in graph.layer_names]
    reasons: dict[int, str] = {}
    for wish in layers:
        chosen = {number for number, name in enumerate(names) if f"{name}.".startswith(f"{wish}.")}
        if not chosen:
            near = difflib.get_close_matches(wish, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"keep_layers: no layer of the network that makes channels is named {wish!r}{hint}")
        reasons |= {group: WISH for group, own in enumerate(units.layers) if chosen & set(own)}
    return units.without(reasons) if reasons else units


def held_layers(graph: NetworkGraph, units: Channels) -> dict[str, str]:
    """Layer -> why its channels had to stay, in the order of the network; its inputs are left out."""
    found: dict[str, str] = {}
    for group, reason in sorted(units.reasons.items()):
        for layer in units.layers[group]:
            if reason != INPUT:
                found.setdefault(graph.layer_names[layer], reason)
    return found


def warn_of_held(graph: NetworkGraph, units: Channels, cost: Cost, held: Mapping[str, str]) -> None:
    """Warn where structure or code holds layers, and say how much of the cost lies in what cannot be cut."""
    forced = {name: why for name, why in held.items() if why not in _EXPECTED and not why.startswith("no weights")}
    if not forced:
        return
    free = units.of_nodes(units.prunable)
    fixed = cost.rest + float((cost.per_node * ~free).sum())
    fixed += sum(float((cost.per_edge[k] * ~(free[e.src] | free[e.dst])).sum()) for k, e in graph.edges.items())
    names = list(forced)
    shown = ", ".join(f"'{name}'" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    warnings.warn(
        f"{len(names)} layers cannot be cut and stay whole: {shown} ({forced[names[0]]}); "
        f"{fixed / cost.left(graph):.0%} of the cost lies there or in products of activations, and the other layers "
        "are cut for them: see the result's `held`",
        UserWarning,
        stacklevel=4,
    )
