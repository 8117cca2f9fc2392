"""Random and damaged inputs by the thousand: an exact result or one clear error, no crash, no hang, no memory at will.

    python benchmarks/fuzz.py [--inputs 20000] [--only csv,graphs] [--seed 0]    # a table, and results/fuzz.json
    python benchmarks/fuzz.py --engine atheris --only graphml    # guided by coverage; pip install atheris

Files of every kind are damaged byte by byte, spliced, cut and filled with words that readers stumble over; graphs,
scores, keeps and weights are drawn with all that is odd about them. Each kind of input runs in a process of its own,
which notes the input before it is tried, so that a crash of the interpreter is found, too. An input may take 20
seconds of computing, and memory of twice its size on top of 192 MB, which libraries take when they are first used.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import json
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch
from common import RESULTS, provenance, write_json
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from rich.console import Console
from rich.markdown import Markdown

import graphsparse as gs
from graphsparse.errors import GraphsparseError
from graphsparse.report import markdown

READERS = (  # modules of what reads files
    *(
        "graphsparse.graphs.formats",
        "graphsparse.untrusted",
        "graphsparse.plain_npz",
        "graphsparse.tickets.ticket_files",
    ),
    *("graphsparse.data.pickle_reader", "graphsparse.fit.checkpoint", "networkx.readwrite", "zipfile", "csv"),
)
SECONDS = 20  # of computing; by the clock an input gets ten times as long, since other work may slow it
MEMORY, RATIO = 192 << 20, 2
ADDRESSES = (
    12 << 30
)  # bytes of address space of a process: more than that ends in MemoryError, not in the machine's end
CLEAR = (GraphsparseError, ValueError, TypeError, OSError)
TOKENS = [
    *(b"nan", b"-1", b"1e400", b"99999999999999999999", b"2147483648", b"4294967296", b"0.5", b"-0", b"1e-999", b"inf"),
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"'", b",", b"\t", b"\r", b"\n", b"\n\n", b" ", b"#", b"%", b";"),
    *(b"<graph>", b"</graph>", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"]]>", b"<node/>", b"<edge source='a'/>"),
    *(b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"PAR1", b"\x93NUMPY", b"[" * 5000, b"{}", b"[]", b"null"),
    *(
        b"true",
        b'{"a":1}',
        b"cos\nsystem\n",
        b"\x80\x04",
        b"c__builtin__\neval\n",
        b".",
        b"pattern",
        b"complex",
        b"array",
    ),
]


# files: bytes in, a result or an error -------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Attributes:
        write: writes a sound file to a path.
        read: reads one, and holds what came out against what must be so.
        suffix: of the file.
    """

    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    suffix: str


EDGES = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 0, 0, 2], [1, 0, 2, 1, 3, 2, 0, 3, 2, 0]])


def table(separator: str) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        lines = [["src", "dst", "weight", "note"]] + [[f"n{a}", f"n{b}", "0.5", '"x"'] for a, b in EDGES.t().tolist()]
        path.write_text("".join(separator.join(line) + "\n" for line in lines))

    return write


def parquet(path: Path) -> None:
    import pandas as pd

    pd.DataFrame({"src": EDGES[0], "dst": EDGES[1], "weight": 0.5}).to_parquet(path)


def graphml(path: Path) -> None:
    import networkx as nx

    nx.write_graphml(nx.karate_club_graph(), path)


def matrix(path: Path) -> None:
    import scipy.io
    import scipy.sparse as sp

    scipy.io.mmwrite(path, sp.coo_matrix((np.ones(10), EDGES.numpy()), shape=(4, 4)))


def arrays(path: Path) -> None:
    np.savez(path, edge_index=EDGES.numpy(), edge_weight=np.ones(10), x=np.eye(4))


def scipy_npz(path: Path) -> None:
    import scipy.sparse as sp

    sp.save_npz(path, sp.csr_matrix((np.ones(10), EDGES.numpy()), shape=(4, 4)))


def converted(path: Path) -> None:
    """The same edges as a table, turned into the kind that the suffix says."""
    from graphsparse.edges.files import sparsify_file

    lines = ["src,dst"] + [f"{a},{b}" for a, b in EDGES.t().tolist()]
    plain = path.with_name("plain.csv")
    plain.write_text("\n".join(lines) + "\n")
    sparsify_file(plain, path, "random", rules={"keep": 1})


def halve(path: Path) -> None:
    """Half of the edges of a graph file, and then all of those: the second file must hold what the first does.

    A plain list has no header here: whether its first line is one is a guess, which the lines that stay may change.
    """
    from graphsparse.edges.files import sparsify_file
    from graphsparse.graphs.formats import open_file

    how = {"header": False} if path.suffix == ".txt" else {}
    once, twice = (path.with_name(f"{name}{''.join(path.suffixes)}") for name in ("once", "twice"))
    sparsify_file(path, once, "random", rules={"keep": 0.5}, **how)
    before = open_file(path, **how).edges
    after = open_file(once, before.undirected, **how).edges
    assert -(-before.num_countable // 2) >= after.num_countable >= before.num_countable // 2, "not half of the edges"
    sparsify_file(once, twice, "random", undirected=before.undirected, rules={"keep": 1}, **how)
    again = open_file(twice, before.undirected, **how).edges
    assert torch.equal(again.edge_index, after.edge_index), "keep=1 changes the edges"


def tiny() -> tuple[Any, Any]:
    data = gs.data.load("digits-knn")
    torch.manual_seed(0)
    return gs.nn.GCN(data.num_features, 4, data.num_classes), data


def ticket_folder(which: str) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        net, data = tiny()
        ticket = gs.find_ticket(net, data, method="random", edge_keep=0.5, weight_keep=0.5, epochs=1)
        folder = path.parent / "ticket"
        ticket.save(folder)
        (file,) = folder.glob(which)
        path.write_bytes(file.read_bytes())
        (path.parent / "name").write_text(file.name)

    return write


def ticket(path: Path) -> None:
    """The damaged file in the place of the sound one."""
    folder = path.parent / "ticket"
    (folder / (path.parent / "name").read_text()).write_bytes(path.read_bytes())
    gs.Ticket.load(folder)


def metanet_file(path: Path) -> None:
    gs.metanet.MetaNetwork.from_pretrained("resnet-tiny").save(path)


def zoo_network(path: Path) -> None:
    from graphsparse.metanet.learn.zoo import save_network

    net = gs.nn.make_cnn("resnet8", width=4, in_channels=1, seed=0)
    save_network(path.parent / "network", net, {}, (torch.zeros(1, 1, 8, 8),))
    path.write_bytes((path.parent / "network" / "network.json").read_bytes())


def restore(path: Path) -> None:
    folder = path.parent / "network"
    (folder / "network.json").write_bytes(path.read_bytes())
    gs.metanet.restore(folder, gs.nn.make_cnn("resnet8", width=4, in_channels=1, seed=0))


def pickled(path: Path) -> None:
    import pickle

    import scipy.sparse as sp

    path.write_bytes(
        pickle.dumps({"x": np.eye(3), "m": sp.csr_matrix(np.eye(3)), "l": [1, "a", (2.0, None)]}, protocol=2)
    )


def unpickle(path: Path) -> None:
    from graphsparse.data.unpickle import load_pickle

    load_pickle(path)


def torch_file(path: Path) -> None:
    torch.save({"x": torch.eye(3), "n": [1, 2]}, path)


def load_torch(path: Path) -> None:
    from graphsparse.data.unpickle import load_torch as load

    load(path)


def checkpoint_file(path: Path) -> None:
    from graphsparse.fit.checkpoint import save_checkpoint

    save_checkpoint(path, {"epoch": 3, "weight": torch.ones(4), "log": [1.0, {"a": None}]}, {"seed": "0"})


def load_checkpoint(path: Path) -> None:
    from graphsparse.fit.checkpoint import load_checkpoint as load

    load(path, {"seed": "0"})


FILES = {
    "csv": FileKind(table(","), halve, ".csv"),
    "tsv": FileKind(table("\t"), halve, ".tsv"),
    "parquet": FileKind(parquet, halve, ".parquet"),
    "graphml": FileKind(graphml, halve, ".graphml"),
    "mtx": FileKind(matrix, halve, ".mtx"),
    **{
        name: FileKind(converted, halve, f".{name}")
        for name in ("txt", "gexf", "metis", "feather", "csv.gz", "csv.zst")
    },
    "npz arrays": FileKind(arrays, halve, ".npz"),
    "npz matrix": FileKind(scipy_npz, halve, ".npz"),
    "ticket json": FileKind(ticket_folder("ticket.json"), ticket, ".json"),
    "ticket tensors": FileKind(ticket_folder("*.safetensors"), ticket, ".safetensors"),
    "metanetwork": FileKind(metanet_file, gs.metanet.MetaNetwork.load, ".safetensors"),
    "network": FileKind(zoo_network, restore, ".json"),
    "pickle": FileKind(pickled, unpickle, ".pkl"),
    "torch file": FileKind(torch_file, load_torch, ".pt"),
    "checkpoint": FileKind(checkpoint_file, load_checkpoint, ".checkpoint"),
}


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """A sound file after a few changes; now and then something else altogether."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=300))
    content = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        to = min(len(content), at + draw(st.integers(0, 40)))
        match draw(st.sampled_from(["byte", "token", "cut", "twice", "gone", "junk"])):
            case "byte" if at < len(content):
                content[at] = draw(st.integers(0, 255))
            case "token":
                content[at : at + draw(st.integers(0, 4))] = draw(st.sampled_from(TOKENS))
            case "cut":
                del content[at:]
            case "twice":
                content[at:at] = content[at:to]
            case "gone":
                del content[at:to]
            case "junk":
                content[at:to] = draw(st.binary(max_size=12))
    return bytes(content)


# what is drawn in memory ---------------------------------------------------------------------------------------------

NUMBERS = st.sampled_from(
    [0.5, 1, 1.0, 0.3, 1e-9, 0.999999, 0, -1, 2, float("nan"), float("inf"), "1/3", "x", None, True]
)


@st.composite
def odd_edges(draw: st.DrawFn) -> Any:
    """Edges with loops, copies, ids out of range, odd types and shapes."""
    nodes = draw(st.integers(0, 9))
    low, high = draw(st.sampled_from([(0, max(nodes - 1, 0)), (0, max(nodes - 1, 0)), (-1, nodes)]))
    pairs = draw(st.lists(st.tuples(st.integers(low, high), st.integers(low, high)), max_size=24))
    kind = draw(st.sampled_from([torch.long, torch.long, torch.int32, torch.float32, torch.bool]))
    edge_index = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t()
    if draw(st.booleans()):
        edge_index = torch.cat([edge_index, edge_index.flip(0)], 1)
    return edge_index.to(kind), nodes


def graphs(draw: Callable[[Any], Any]) -> None:
    """A graph of some kind through `sparsify`, with any score, keep and guard."""
    import networkx as nx
    import scipy.sparse as sp
    from torch_geometric.data import Data

    edge_index, nodes = draw(odd_edges())
    keep = draw(NUMBERS)
    undirected = draw(st.sampled_from([None, None, True, False]))
    method = draw(st.sampled_from([*gs.edges.SCORES]))
    rules = {"guard": draw(st.sampled_from([None, None, "cover", "isolated"])), "forest": draw(st.booleans())}
    graph: Any
    match draw(st.sampled_from(["tensor", "data", "networkx", "scipy"])):
        case "tensor":
            graph = edge_index
        case "data":
            features = torch.rand(nodes, 3)
            graph = Data(x=features, edge_index=edge_index, edge_attr=torch.rand(edge_index.shape[1], 2))
        case "networkx":
            graph = draw(st.sampled_from([nx.Graph, nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph]))()
            graph.add_nodes_from(range(nodes))
            graph.add_edges_from(map(tuple, edge_index.t().tolist()))
        case _:
            size = int(edge_index.max()) + 1 if edge_index.numel() else nodes
            graph = sp.coo_matrix((np.ones(edge_index.shape[1]), edge_index.long().numpy()), shape=(size, size))
    small = gs.sparsify(graph, method=method, keep=keep, undirected=undirected, **rules)
    assert type(small) is type(graph), "another kind of graph"
    before, after = arcs(graph), arcs(small)
    assert after <= before or len(after) <= len(before), "edges that were not there"
    if keep == 1:
        assert len(after) == len(before), "keep=1 drops edges"


def arcs(graph: Any) -> set[tuple[int, int]]:
    """The arcs without loops, each once."""
    if isinstance(graph, torch.Tensor):
        pairs = graph.t().tolist()
    elif hasattr(graph, "edge_index"):
        pairs = graph.edge_index.t().tolist()
    elif hasattr(graph, "tocoo"):
        coo = graph.tocoo()
        pairs = list(zip(coo.row.tolist(), coo.col.tolist(), strict=True))
    else:
        pairs = [edge[:2] for edge in graph.edges]
    return {(a, b) for a, b in pairs if a != b}


def masks(draw: Callable[[Any], Any]) -> None:
    """Scores of any values through `keep_mask`: exactly as many as were asked for, whole pairs."""
    edge_index, _ = draw(odd_edges())
    values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e300, 5e-324, float("nan"), float("inf"), -float("inf")])
    kind = draw(st.sampled_from([torch.float64, torch.float32, torch.int64, torch.bool]))
    length = edge_index.shape[1] + draw(st.sampled_from([0, 0, 0, 1, -1]))
    scores = torch.tensor(draw(st.lists(values, min_size=max(length, 0), max_size=max(length, 0))), dtype=torch.float64)
    keep = draw(NUMBERS)
    mask = gs.edges.keep_mask(scores.nan_to_num(7) if kind != torch.float64 else scores, edge_index, keep=keep)
    pairs = list(map(tuple, edge_index.t().tolist()))
    kept = {pair for pair, stays in zip(pairs, mask.tolist(), strict=True) if stays and pair[0] != pair[1]}
    dropped = {pair for pair, stays in zip(pairs, mask.tolist(), strict=True) if not stays}
    assert mask.dtype == torch.bool, "no mask"
    assert not any(a == b for a, b in dropped), "a self-loop is dropped"
    if {(b, a) for a, b in pairs} == set(pairs) and len(set(pairs)) == len(pairs):
        assert {(b, a) for a, b in kept} == kept, "half a pair is kept"


def weights(draw: Callable[[Any], Any]) -> None:
    """Tensors of any shape through `project_l0_`: exactly as many zeros, the largest stay."""
    shapes = draw(st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=0, max_size=3))
    odd = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e30, 1e-40, 0.1, -0.2, float("nan"), float("inf")])
    tensors = []
    for shape in shapes:
        count = int(np.prod(shape)) if shape else 1
        tensors.append(torch.tensor(draw(st.lists(odd, min_size=count, max_size=count))).reshape(shape))
    before = torch.cat([t.reshape(-1) for t in tensors]) if tensors else torch.zeros(0)
    before = before.clone()
    sparsity = draw(NUMBERS)
    gs.params.project_l0_(tensors, sparsity)
    after = torch.cat([t.reshape(-1) for t in tensors]) if tensors else torch.zeros(0)
    kept, gone = after != 0, (after == 0) & (before != 0)
    assert torch.equal(after[kept], before[kept]), "a weight that stays has changed"
    if bool(kept.any()) and bool(gone.any()):
        assert before[kept].abs().min() >= before[gone].abs().max(), "a larger weight has gone"


DRAWN: dict[str, Callable[[Callable[[Any], Any]], None]] = {"graphs": graphs, "masks": masks, "weights": weights}


# one kind, in a process of its own -----------------------------------------------------------------------------------


class Watch:
    """Tries inputs one by one and keeps account of what came of them."""

    def __init__(self, noted: Path) -> None:
        self.noted = noted
        self.seen: dict[str, Any] = {"inputs": 0, "results": 0, "errors": 0, "slowest, s": 0.0, "memory, MB": 0.0}
        self.faults: list[str] = []

    def try_one(self, call: Callable[[], Any], size: int) -> None:
        """Call; whatever is neither a result nor a clear error is a fault."""
        faulthandler.dump_traceback_later(10 * SECONDS, exit=True)
        start, held = time.process_time(), _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        try:
            call()
            self.seen["results"] += 1
        except CLEAR as error:
            self.seen["errors"] += 1
            if not str(error).strip():
                self._fault(f"an error without words: {type(error).__name__}")
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self._fault(f"{type(error).__name__}: {str(error)[:150]} ({Path(last.filename).name}:{last.lineno})")
        faulthandler.cancel_dump_traceback_later()
        more = _memory("VmHWM") - held
        self.seen["inputs"] += 1
        took = time.process_time() - start
        self.seen["slowest, s"] = max(self.seen["slowest, s"], round(took, 2))
        if took > SECONDS:
            self._fault(f"{took:.0f} s of computing")
        self.seen["memory, MB"] = max(self.seen["memory, MB"], round(more / 2**20, 1))
        if more > MEMORY + RATIO * size:
            self._fault(f"{more >> 20} MB of memory for {size} bytes")

    def _fault(self, words: str) -> None:
        if words not in self.faults and len(self.faults) < 20:
            self.faults.append(words)
            kept = self.noted.with_name(f"fault-{len(self.faults)}-{self.noted.name}")
            with contextlib.suppress(OSError):
                kept.write_bytes(self.noted.read_bytes())

    def told(self) -> dict[str, Any]:
        """The account."""
        return {**self.seen, "faults": self.faults}


def _memory(name: str) -> int:
    """Bytes of this process by their name in the kernel's account."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(f"{name}:"))


def work(name: str, inputs: int, seed: int, folder: Path, engine: str) -> dict[str, Any]:
    """Try one kind of input."""
    warnings.simplefilter("ignore")
    noted = folder / f"input{FILES[name].suffix if name in FILES else '.txt'}"
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    watch = Watch(noted)
    how = settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    if name in FILES:
        kind = FILES[name]
        kind.write(noted)
        sound = noted.read_bytes()
        kind.read(noted)  # a sound file must be read, or nothing is tried at all

        def try_bytes(content: bytes) -> None:
            noted.write_bytes(content)
            watch.try_one(lambda: kind.read(noted), len(content))

        if engine == "atheris":
            return _by_atheris(try_bytes, sound, inputs, seed, watch)
        hypothesis_seed(seed)(how(given(damaged(sound))(try_bytes)))()
        return watch.told()

    def try_drawn(data: st.DataObject) -> None:
        def noting(strategy: Any) -> Any:
            value = data.draw(strategy)
            with noted.open("a") as file:
                file.write(f"{value!r}\n")
            return value

        noted.write_text("")
        watch.try_one(lambda: DRAWN[name](noting), 0)

    hypothesis_seed(seed)(how(given(st.data())(try_drawn)))()
    return watch.told()


def _by_atheris(
    try_bytes: Callable[[bytes], None], sound: bytes, inputs: int, seed: int, watch: Watch
) -> dict[str, Any]:
    import atheris  # of the extra "fuzz"

    corpus = watch.noted.parent / "corpus"
    corpus.mkdir(exist_ok=True)
    (corpus / "sound").write_bytes(sound)
    for found in gc.get_objects():  # what reads files; to instrument torch, too, takes longer than the run
        if isinstance(found, types.FunctionType) and str(found.__module__).startswith(READERS):
            atheris.instrument_func(found)

    def one(content: bytes) -> None:
        try_bytes(content)
        (watch.noted.parent / "told.json").write_text(json.dumps(watch.told()))

    atheris.Setup([sys.argv[0], f"-runs={inputs}", f"-seed={seed + 1}", "-rss_limit_mb=0", str(corpus)], one)
    atheris.Fuzz()  # ends the process
    raise AssertionError("not reached")


def started(name: str, inputs: int, seed: int, folder: Path, engine: str) -> dict[str, Any]:
    """Try one kind in a process of its own; a process that dies is a fault of the input that it noted.

    What was tried to the end in the same folder before is not tried again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "told.json"
    if told.exists() and (found := json.loads(told.read_text()))["inputs"] >= inputs:
        return {"kind": name, **found}
    words = [sys.executable, __file__, "--kind", name, "--inputs", str(inputs), "--seed", str(seed)]
    run = subprocess.run(
        [*words, "--folder", str(folder), "--engine", engine], capture_output=True, text=True, check=False
    )
    found = json.loads(told.read_text()) if told.exists() else {"inputs": 0, "faults": []}
    if run.returncode:
        lines = [line.strip() for line in run.stderr.splitlines() if line.strip()]
        found["faults"].append(
            f"the process ended with {run.returncode}: {' | '.join([*lines[:8], '...', *lines[-4:]])}"
        )
    return {"kind": name, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="in all")
    parser.add_argument("--only", help="kinds, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("hypothesis", "atheris"), default="hypothesis")
    parser.add_argument("--folder", type=Path, help="of inputs that make a fault; with the same one a run resumes")
    parser.add_argument("--kind", help=argparse.SUPPRESS)  # set for the processes that this one starts
    arguments = parser.parse_args()
    if arguments.kind is not None:
        found = work(arguments.kind, arguments.inputs, arguments.seed, arguments.folder, arguments.engine)
        (arguments.folder / "told.json").write_text(json.dumps(found))
        return
    console = Console()
    names = [*FILES, *DRAWN] if arguments.only is None else arguments.only.split(",")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    share, rows = -(-arguments.inputs // len(names)), []
    for name in names:
        rows.append(started(name, share, arguments.seed, folder / name.replace(" ", "-"), arguments.engine))
        console.print(rows[-1], highlight=False, soft_wrap=True)
    own = "fuzz.json" if arguments.engine == "hypothesis" else f"fuzz-{arguments.engine}.json"
    write_json(RESULTS / own, {**provenance("fuzz"), "seed": arguments.seed, "kinds": rows})
    shown = ["kind", "inputs", "results", "errors", "slowest, s", "memory, MB"]
    console.print(Markdown(markdown([*shown, "faults"], [_line(row, shown) for row in rows])))
    faults = sum(len(row["faults"]) for row in rows)
    console.print(f"{faults} faults; their inputs lie in {folder}", highlight=False)
    sys.exit(faults > 0)


def _line(row: dict[str, Any], shown: list[str]) -> list[str]:
    return [*(str(row.get(name, "-")) for name in shown), str(len(row["faults"]))]


if __name__ == "__main__":
    main()
