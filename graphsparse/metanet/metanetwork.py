"""The metanetwork: a graph neural network that takes a network, as a graph, and returns a changed one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from safetensors.torch import load as from_bytes
from torch import Tensor, nn

from graphsparse.atomic_write import atomic_write
from graphsparse.errors import DataError
from graphsparse.hashing import named_hash
from graphsparse.metanet.channels import check_mask, masked
from graphsparse.metanet.features import (
    KINDS,
    NODE_FIGURES,
    RELATIONS,
    Wiring,
    bank_scale,
    kept_figures,
    node_figures,
    tensor_scale,
    wiring,
)
from graphsparse.metanet.foresight import Past
from graphsparse.metanet.graph import Kernel, NetworkGraph, kernel_name
from graphsparse.metanet.message_passing import Chunks, NetworkConv
from graphsparse.metanet.ways import Ways, check_past, times, ways_columns, ways_of
from graphsparse.registry import one_of, spelling
from graphsparse.tensor_bytes import to_bytes
from graphsparse.untrusted import read_bytes, read_json_object, reading

Mode = Literal["change", "repair", "nowcast"]
FORMAT = "graphsparse.metanet.metanetwork/2"
# Files of format 1 do not name what their encoders stand for; it was this.
_FORMAT_1 = "graphsparse.metanet.metanetwork/1"
_OF_FORMAT_1: dict[str, Any] = {
    "relations": [
        "add", "align", "broadcast", "depthwise", "grouped", "k-v", "multiply", "q-k", "reduce", "score", "shared",
    ],
    "features": ["beta", "bias", "gamma", "running_mean", "running_var", "scale", "shift", "slope", "token"],
}  # fmt: skip
PRETRAINED = Path(__file__).parent / "pretrained"

_LARGEST_CHANGE = 0.3  # of a kernel, in units of its tensor's root mean square, per unit of the decoder's output
_LEAST_SCALE = 0.1  # of a node feature: a fresh norm (gamma 1, beta 0) must be able to move


def _check_names(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError unless these are some of the known names, once each."""
    strange = [name for name in names if name not in known]
    if strange:
        raise ValueError(f"{strange[0]!r} is no {what} of this version, which knows {', '.join(known)}")
    if isinstance(names, str) or len(set(names)) < len(names):
        raise ValueError(f"the {what}s must be some of {', '.join(known)}, once each, got {names!r}")


def _hashed(metadata: Mapping[str, str]) -> str:
    return f"{metadata['format']}\n{metadata['config']}\n{metadata['notes']}"


def _metadata(content: bytes) -> dict[str, str]:
    """The words beside the tensors of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    found = read_json_object(content[8 : 8 + length]).get("__metadata__", {})
    return {str(name): str(value) for name, value in found.items()}


def _check_sizes(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError where settings ask for more than the file holds, before anything of that size is made."""
    for name in ("hidden", "layers", "chunk_edges"):
        if name in config and type(config[name]) is not int:
            raise ValueError(f"{name} is no whole number")
    there = {"hidden": len(tensors["node_encoder.bias"]), "layers": sum(n.endswith(".norm.bias") for n in tensors)}
    there["kernels"] = sum(n.startswith("edge_encoders.") and n.endswith(".bias") for n in tensors)
    for name, count in there.items():
        said = len(config[name]) if name == "kernels" else config[name]
        if said != count:
            raise ValueError(f"its settings say {said} {name}, and it holds weights of {count}")


class MetaNetwork(nn.Module):
    r"""A graph neural network on network graphs.

    ``mode="change"`` (the paper's) returns :math:`x + a\,s\,\mathrm{Dec}(h)`: a network that is easier to prune.
    ``mode="repair"`` is also told which channels stay and returns a network without the others, in which the kernels
    that stay have become :math:`w (1 + \tfrac12 \tanh u) + a\,s\,d`, the norms' scales
    :math:`\gamma \exp(\tfrac12 \tanh u)`, and other node features :math:`x + s\,n`.
    ``mode="nowcast"`` sees a pruned network in fine-tuning, with earlier states of its weights, and returns it as it
    will be some steps later: :math:`x + a\,s\,(u\,\hat v + d)`, where :math:`\hat v` is the way :math:`x` has
    come, over the root mean square of its tensor's (of node features: without :math:`a`).
    The scale :math:`s` is each tensor's root mean square (of node features: the standard deviation, with a floor).
    Decoders start at zero: an untrained metanetwork is the identity. Running statistics are read and never changed.

    One metanetwork works on graphs of every architecture whose kernel sizes it has, whatever widths and depths;
    permuting channels of the network permutes the result.

    Args:
        kernels: kernel sizes, ``()`` for linear layers.
        mode: "change", "repair" or "nowcast".
        hidden: width H of node and edge features, even.
        layers: number of message-passing layers.
        chunk_edges: with more edges than this, edges are worked on in parts, to save memory.
        relations: types of relations that it tells apart, in the order of its encoder's columns.
        features: kinds of node features that it reads.

    Raises:
        ValueError: an option is out of range, or no version of this package makes such a relation or feature.

    ``notes`` holds what `save` was told to write beside the weights, once `load` has read it.

    Source: "Meta Pruning via Graph Metanetworks", arXiv 2506.12041, section 3; mode "repair" is ours. Mode "nowcast"
    does for fine-tuning after pruning what "Accelerating training with neuron interaction and nowcasting networks"
    (Knyazev et al., ICLR 2025) does for training.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> graph = NetworkGraph.from_module(net, torch.zeros(1, 2))
        >>> metanet = MetaNetwork.for_graph(graph, mode="change", hidden=8, layers=2)
        >>> torch.equal(metanet(graph).to_module()[0].weight, net[0].weight)  # untrained: nothing changes
        True
    """

    def __init__(
        self,
        kernels: Iterable[Kernel],
        *,
        mode: Mode = "repair",
        hidden: int = 32,
        layers: int = 4,
        chunk_edges: int = 1 << 20,
        relations: Sequence[str] = RELATIONS,
        features: Sequence[str] = KINDS,
    ) -> None:
        super().__init__()
        mode = cast(Mode, one_of(mode, "mode", get_args(Mode)))
        if hidden < 2 or hidden % 2 or layers < 1 or chunk_edges < 1:
            raise ValueError(
                f"hidden must be even and at least 2, layers and chunk_edges at least 1; "
                f"got {hidden}, {layers}, {chunk_edges}"
            )
        _check_names("relation", relations, RELATIONS)
        _check_names("node feature", features, KINDS)
        self.relations, self.features = tuple(relations), tuple(features)
        self.kernels = tuple(sorted(set(kernels)))
        self.mode, self.hidden, self.layers, self.chunk_edges = mode, hidden, layers, chunk_edges
        self.notes: dict[str, Any] = {}
        flags = 2 if mode == "repair" else 0  # of the ends of edges: is it kept
        sizes = {kernel_name(kernel): int(torch.Size(kernel).numel()) for kernel in self.kernels}
        read = {name: size + 1 + flags for name, size in sizes.items()}
        columns, changing = dict.fromkeys(features, 1), [k for k in features if not k.startswith("running_")]
        if mode == "nowcast":
            read = {name: count + ways_columns(sizes[name]) for name, count in read.items()}
            columns |= {kind: 1 + ways_columns(1) for kind in changing}
        self.node_encoder = nn.Linear(NODE_FIGURES + (0 if mode == "change" else 2), hidden)
        self.bank_encoders = nn.ModuleDict({kind: nn.Linear(n, hidden, bias=False) for kind, n in columns.items()})
        self.edge_encoders = nn.ModuleDict({name: nn.Linear(count, hidden) for name, count in read.items()})
        self.relation_encoder = nn.Linear(len(relations) + flags, hidden) if relations else None
        self.convs = nn.ModuleList([NetworkConv(hidden) for _ in range(layers)])
        outputs = 1 if mode == "change" else 2
        of_bank = 2 if mode == "nowcast" else 1
        self.bank_decoders = nn.ModuleDict({kind: nn.Linear(hidden, of_bank) for kind in changing})
        self.edge_decoders = nn.ModuleDict({n: nn.Linear(hidden, outputs * size) for n, size in sizes.items()})
        for decoder in [*self.bank_decoders.values(), *self.edge_decoders.values()]:
            nn.init.zeros_(cast(nn.Linear, decoder).weight)
            nn.init.zeros_(cast(nn.Linear, decoder).bias)

    @staticmethod
    def for_graph(*graphs: NetworkGraph, mode: Mode = "repair", hidden: int = 32, layers: int = 4) -> MetaNetwork:
        """A metanetwork for what these graphs have: their kernel sizes, relations and node features, and no others.

        Initial weights are from torch's generator. Give one graph of each kind of network that it is to read.
        """
        return MetaNetwork(
            {kernel for graph in graphs for kernel in graph.edges},
            mode=mode,
            hidden=hidden,
            layers=layers,
            relations=sorted({kind for graph in graphs for kind in graph.relations}),
            features=sorted({name.split(".")[0] for graph in graphs for name in graph.banks}),
        )

    def forward(self, graph: NetworkGraph, keep: Tensor | None = None, past: Past | None = None) -> NetworkGraph:
        """The changed network; in mode "repair" that of the kept channels, in mode "nowcast" that of later weights.

        Args:
            graph: the network; its values are not changed.
            keep: bool ``[num_nodes]``, which channels stay: given exactly when the mode is "repair".
            past: earlier states of the network, and how far ahead to look: given exactly when the mode is "nowcast".

        Raises:
            ValueError: ``keep`` or ``past`` is given or missing against the mode or does not fit this graph, or the
                graph has a kernel size that the metanetwork lacks, or weights that are not finite.
        """
        self._check(graph, keep, past)
        wires = graph.once(wiring)
        kept = None if keep is None else kept_figures(graph, keep).to(self.dtype)
        ways = None if past is None else ways_of(graph, past, _LEAST_SCALE)
        h = self._encode_nodes(graph, kept if past is None else times(graph, past).to(self.dtype), ways)
        e = self._encode_edges(graph, wires, kept, ways)
        chunks = None
        if e.shape[0] > self.chunk_edges:
            chunks = Chunks(wires.edge_index, self.chunk_edges)
        for conv in self.convs:
            h, e = conv(h, e, wires.edge_index, chunks)
        changed = graph.with_values(self._decode_edges(graph, wires, e, ways), self._decode_banks(graph, h, ways))
        return changed if keep is None else masked(changed, keep)

    def check(self, graph: NetworkGraph) -> None:
        """Refuse a network that this metanetwork cannot read, and say all that it lacks.

        Raises:
            ValueError: the graph has kernel sizes, relations or node features that the metanetwork does not know, or
                weights that are not finite, or lies on another device.
        """
        if graph.layer.device != self.node_encoder.weight.device:
            raise ValueError(
                f"the metanetwork is on {self.node_encoder.weight.device} and the network on {graph.layer.device}: "
                f"move one of them"
            )
        others = [f"relations of type {kind}" for kind in graph.relations if kind not in self.relations]
        others += [f"node features {name}" for name in graph.banks if name.split(".")[0] not in self.features]
        missing = [kernel_name(kernel) for kernel in graph.edges if kernel not in self.kernels]
        wrong = [f"{', '.join(others)}, which this metanetwork does not know: train another"] if others else []
        if missing:
            wrong.append(
                f"kernels of size {', '.join(missing)}, and this metanetwork knows "
                f"{', '.join(map(kernel_name, self.kernels))}: train one on graphs that have them"
            )
        if wrong:
            raise ValueError(f"the network has {'; it has '.join(wrong)}")
        for kernel, edges in graph.edges.items():
            if not bool(torch.isfinite(edges.values).all()):
                raise ValueError(f"weights of kernel size {kernel_name(kernel)} are not finite")
        for name, bank in graph.banks.items():
            if not bool(torch.isfinite(bank.values).all()):
                raise ValueError(f"values of {name} are not finite")

    @property
    def dtype(self) -> torch.dtype:
        """The type that the metanetwork computes in."""
        return self.node_encoder.weight.dtype

    def save(self, path: str | Path, **notes: Any) -> None:
        """Write weights and settings to one safetensors file; ``notes`` (plain values) go into its header."""
        path = Path(path)
        config = {
            "kernels": [list(kernel) for kernel in self.kernels],
            "mode": self.mode,
            "hidden": self.hidden,
            "layers": self.layers,
            "chunk_edges": self.chunk_edges,
            "relations": list(self.relations),
            "features": list(self.features),
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        metadata = {"format": FORMAT, "config": json.dumps(config), "notes": json.dumps(notes, allow_nan=False)}
        metadata["sha256"] = named_hash(_hashed(metadata), tensors)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            partial.write_bytes(to_bytes(tensors, metadata))

    @staticmethod
    def load(path: str | Path) -> MetaNetwork:
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing, damaged, no metanetwork, or one that tells relations or features apart that
                this version does not know.
        """
        with reading(path, DataError, "an undamaged metanetwork"):
            content = read_bytes(path)
            tensors, metadata = from_bytes(content), _metadata(content)
            if metadata.get("format") not in (FORMAT, _FORMAT_1):
                raise DataError(f"{path} is no metanetwork of this version")
            old = metadata["format"] == _FORMAT_1
            hashed = metadata["config"] if old else _hashed(metadata)
            if (not old or "sha256" in metadata) and metadata["sha256"] != named_hash(hashed, tensors):
                raise DataError(f"{path} is damaged: its hash differs")
            config = read_json_object(metadata["config"].encode()) | (_OF_FORMAT_1 if old else {})
            config["kernels"] = [tuple(kernel) for kernel in config["kernels"]]
            _check_sizes(config, tensors)
            with torch.device("meta"):  # whatever shapes the settings ask for, nothing of their size is made yet
                asked = MetaNetwork(**config).state_dict()
            if {name: tensor.shape for name, tensor in asked.items()} != {n: t.shape for n, t in tensors.items()}:
                raise DataError(f"{path} is damaged: its weights are not those that its settings ask for")
            found = MetaNetwork(**config)
            found.load_state_dict(tensors)
            found.notes = read_json_object(metadata.get("notes", "{}").encode())
        return found

    @staticmethod
    def from_pretrained(name: str = "resnet-tiny") -> MetaNetwork:
        """A metanetwork that comes with the package.

        Raises:
            ValueError: there is none of that name.
        """
        known = sorted(file.stem for file in PRETRAINED.glob("*.safetensors"))
        found = spelling(name, known)
        if found is None:
            raise ValueError(f"there is no pretrained metanetwork {name!r}; there are: {', '.join(known) or 'none'}")
        return MetaNetwork.load(PRETRAINED / f"{found}.safetensors")

    def _check(self, graph: NetworkGraph, keep: Tensor | None, past: Past | None) -> None:
        if (keep is None) == (self.mode == "repair"):
            needs = "needs keep, the mask of channels that stay" if keep is None else "takes no keep"
            raise ValueError(f"a metanetwork of mode {self.mode!r} {needs}")
        if (past is None) == (self.mode == "nowcast"):
            needs = "needs past, earlier states of the network" if past is None else "takes no past"
            raise ValueError(f"a metanetwork of mode {self.mode!r} {needs}")
        self.check(graph)
        if keep is not None:
            check_mask(graph, keep)
        if past is not None:
            check_past(graph, past)

    def _encode_nodes(self, graph: NetworkGraph, more: Tensor | None, ways: Ways | None) -> Tensor:
        with torch.no_grad():
            figures = node_figures(graph).to(self.dtype)
        h = cast(Tensor, self.node_encoder(figures if more is None else torch.cat([figures, more], dim=1)))
        for name, bank in graph.banks.items():
            kind = name.split(".")[0]
            value = bank.values.to(self.dtype).mean(1, keepdim=True)
            value = torch.log(value.clamp(min=1e-5)) if kind == "running_var" else value
            if ways is not None and not bank.input_only:
                value = torch.cat([value, ways[name].of_rows().to(self.dtype)], dim=1)
            h = h.index_add(0, bank.nodes, self.bank_encoders[kind](value))
        return h

    def _encode_edges(self, graph: NetworkGraph, wires: Wiring, kept: Tensor | None, ways: Ways | None) -> Tensor:
        src, dst = wires.edge_index
        parts: list[tuple[nn.Module, Kernel | str, Tensor]] = []
        for kernel, edges in graph.edges.items():
            scale = tensor_scale(edges.values, wires.tensor_of[kernel]).clamp(min=1e-8).unsqueeze(1)
            past = [] if ways is None else [ways[kernel].columns]
            described = torch.cat([edges.values / scale, scale.log(), *past], dim=1)
            parts.append((self.edge_encoders[kernel_name(kernel)], kernel, described.to(self.dtype)))
        for kind, pairs in graph.relations.items():
            one_hot = src.new_zeros(pairs.shape[1], len(self.relations), dtype=self.dtype)
            one_hot[:, self.relations.index(kind)] = 1.0
            parts.append((cast(nn.Module, self.relation_encoder), kind, one_hot))
        encoded = []
        for encoder, key, columns in parts:
            ends = wires.slices[key]
            flags = [] if kept is None else [kept[src[ends], :1], kept[dst[ends], :1]]
            encoded.append(encoder(torch.cat([columns, *flags], dim=1)))
        return torch.cat(encoded) if encoded else torch.zeros(0, self.hidden, dtype=self.dtype, device=src.device)

    def _decode_edges(self, graph: NetworkGraph, wires: Wiring, e: Tensor, ways: Ways | None) -> dict[Kernel, Tensor]:
        changed = {}
        for kernel, edges in graph.edges.items():
            scale = tensor_scale(edges.values, wires.tensor_of[kernel]).unsqueeze(1)
            out = self.edge_decoders[kernel_name(kernel)](e[wires.slices[kernel]]).to(edges.values.dtype)
            values = edges.values
            if self.mode == "repair":
                values, out = values * (1.0 + 0.5 * torch.tanh(out[:, ::2])), out[:, 1::2]
            elif ways is not None:
                out = out[:, ::2] * ways[kernel].whole + out[:, 1::2]
            changed[kernel] = values + _LARGEST_CHANGE * scale * out
        return changed

    def _decode_banks(self, graph: NetworkGraph, h: Tensor, ways: Ways | None) -> dict[str, Tensor]:
        changed = {}
        for name, bank in graph.banks.items():
            if bank.input_only:
                continue
            kind = name.split(".")[0]
            out = self.bank_decoders[kind](h[bank.nodes]).to(bank.values.dtype)
            if kind == "gamma" and self.mode == "repair":
                changed[name] = bank.values * torch.exp(0.5 * torch.tanh(out))
            else:
                out = out if ways is None else out[:, :1] * ways[name].whole + out[:, 1:]
                changed[name] = bank.values + bank_scale(graph, bank, _LEAST_SCALE) * out
        return changed
