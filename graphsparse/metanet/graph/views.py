"""A network graph as others know graphs: PyTorch Geometric, networkx, and words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphsparse.report.parts import Block, Cell, Facts, Sheet, figure

if TYPE_CHECKING:
    import networkx as nx
    from torch_geometric.data import HeteroData

    from graphsparse.metanet.graph.network_graph import NetworkGraph


def kernel_name(kernel: tuple[int, ...]) -> str:
    """ "linear", "3", "3x3" ..."""
    return "x".join(map(str, kernel)) or "linear"


def node_features(graph: NetworkGraph) -> tuple[Tensor, tuple[str, ...]]:
    """All banks side by side, [num_nodes, columns] with 0 where a node lacks a feature, and the columns' names."""
    columns, names = [], list[str]()
    for name, bank in graph.banks.items():
        width = bank.values.shape[1]
        full = bank.values.new_zeros(graph.num_nodes, width)
        columns.append(full.index_copy(0, bank.nodes, bank.values))
        names += [name] if width == 1 else [f"{name}[{column}]" for column in range(width)]
    x = torch.cat(columns, dim=1) if columns else torch.zeros(graph.num_nodes, 0, device=graph.layer.device)
    return x, tuple(names)


def to_data(graph: NetworkGraph) -> HeteroData:
    """Node type ``channel``, edge types ``("channel", "3x3", "channel")``, ``("channel", "add", "channel")`` ..."""
    from torch_geometric.data import HeteroData

    data = HeteroData()
    x, names = node_features(graph)
    data["channel"].x, data["channel"].x_names = x, names
    data["channel"].layer, data["channel"].layer_names = graph.layer, graph.layer_names
    for role, groups in (("is_input", graph.inputs), ("is_output", graph.outputs)):
        data["channel"][role] = _mask(graph, groups)
    for kernel, edges in graph.edges.items():
        store = data["channel", kernel_name(kernel), "channel"]
        store.edge_index, store.edge_attr = torch.stack([edges.src, edges.dst]), edges.values
    for kind, pairs in graph.relations.items():
        data["channel", kind, "channel"].edge_index = pairs
    return data


def _mask(graph: NetworkGraph, groups: tuple[Tensor, ...]) -> Tensor:
    mask = torch.zeros(graph.num_nodes, dtype=torch.bool, device=graph.layer.device)
    for nodes in groups:
        mask[nodes] = True
    return mask


def to_networkx(graph: NetworkGraph) -> nx.MultiDiGraph:
    """Nodes with ``layer``, ``is_input``, ``is_output`` and their features by name; edges with ``kind``, ``parameter``
    and ``values`` (kernels) or ``kind`` alone (relations)."""
    import networkx as nx

    out = nx.MultiDiGraph()
    inputs, outputs = (_mask(graph, groups).tolist() for groups in (graph.inputs, graph.outputs))
    for node, layer in enumerate(graph.layer.tolist()):
        out.add_node(node, layer=graph.layer_names[layer], is_input=inputs[node], is_output=outputs[node])
    for name, bank in graph.banks.items():
        for node, values in zip(bank.nodes.tolist(), bank.values.tolist(), strict=True):
            out.nodes[node][name] = values[0] if len(values) == 1 else values
    for kernel, edges in graph.edges.items():
        ends = list(zip(edges.src.tolist(), edges.dst.tolist(), edges.values.tolist(), strict=True))
        for name, first, last in zip(edges.names, edges.ptr, edges.ptr[1:], strict=False):
            out.add_edges_from(
                (src, dst, {"kind": kernel_name(kernel), "parameter": name, "values": values})
                for src, dst, values in ends[first:last]
            )
    for kind, pairs in graph.relations.items():
        out.add_edges_from((src, dst, {"kind": kind}) for src, dst in pairs.T.tolist())
    return out


def description(graph: NetworkGraph) -> str:
    """A few lines on what the graph holds."""
    total = sum(len(edges.src) for edges in graph.edges.values())
    lines = [f"NetworkGraph: {graph.num_nodes:,} nodes, {total:,} kernel edges"]
    counts = torch.bincount(graph.layer, minlength=len(graph.layer_names)).tolist()
    lines.append("  layers (nodes):")
    lines += [f"    {name}: {count}" for name, count in zip(graph.layer_names, counts, strict=True)]
    lines.append("  edges, by kernel and parameter:")
    for kernel, edges in graph.edges.items():
        lines.append(f"    {kernel_name(kernel)}: {len(edges.src):,}")
        sizes = [last - first for first, last in zip(edges.ptr, edges.ptr[1:], strict=False)]
        lines += [f"      {name}: {size:,}" for name, size in zip(edges.names, sizes, strict=True)]
    lines.append("  relations: " + (", ".join(f"{k} {p.shape[1]:,}" for k, p in graph.relations.items()) or "none"))
    lines.append("  node features (nodes x columns):")
    lines += [f"    {name}: {len(b.nodes):,} x {b.values.shape[1]}" for name, b in graph.banks.items()]
    for role, groups in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        lines.append(f"  {role}: " + "; ".join(f"{len(nodes)} nodes" for nodes in groups))
    return "\n".join(lines)


def blocks(graph: NetworkGraph) -> list[Block]:
    """The same as tables."""
    total = sum(len(edges.src) for edges in graph.edges.values())
    counts = torch.bincount(graph.layer, minlength=len(graph.layer_names)).tolist()
    kernels: list[list[Cell | str]] = [
        [kernel_name(kernel), name, figure(last - first, digits=0)]
        for kernel, edges in graph.edges.items()
        for name, first, last in zip(edges.names, edges.ptr, edges.ptr[1:], strict=False)
    ]
    features: list[list[Cell | str]] = [
        [name, figure(len(bank.nodes), digits=0), figure(bank.values.shape[1], digits=0)]
        for name, bank in graph.banks.items()
    ]
    relations: list[list[Cell | str]] = [
        [kind, figure(pairs.shape[1], digits=0)] for kind, pairs in graph.relations.items()
    ]
    sizes: list[list[Cell | str]] = [
        [name, figure(count, digits=0)] for name, count in zip(graph.layer_names, counts, strict=True)
    ]
    whole = [("NetworkGraph", f"{graph.num_nodes:,} nodes (channels), {total:,} edges (kernels)")]
    found: list[Block] = [
        Facts(whole),
        Sheet("Layers", ["layer", "nodes"], sizes),
        Sheet("Edges", ["kernel", "parameter", "edges"], kernels),
        Sheet("Relations", ["kind", "pairs"], relations),
        Sheet("Node features", ["feature", "nodes", "columns"], features),
    ]
    return [block for block in found if not isinstance(block, Sheet) or block.rows]


def _counted(pairs: Iterable[tuple[str, int]]) -> list[list[Cell | str]]:
    return [[name, figure(count, digits=0)] for name, count in pairs]
