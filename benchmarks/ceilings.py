"""How much there is to learn at all: an oracle of masks, and the ceiling of foreseeing fine-tuning.

    python benchmarks/ceilings.py masks --study cifar    # the best of random masks by validation after an epoch
    python benchmarks/ceilings.py weights --study cifar  # a jump to the mean of what four epochs gave with other seeds
    python benchmarks/ceilings.py kinds --study cifar    # what is foreseen of each kind of parameter, beside that mean
    python benchmarks/nowcast_page.py                    # the tables, with those of nowcast.py

Networks, cuts and rows are those of nowcast.py: 4 times fewer FLOPs, least squares, one epoch. A row of the oracle of
masks has the mask's number as its seed; beside it stands the uniform mask with as many seeds, since the best of many
runs is better by luck alone. What is chosen is chosen by validation, and the test part is read for the figure.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from common import append_row, provenance, read_rows
from nowcast import KEY, ROWS, SPEEDUP, STUDIES, Work, say

from graphsparse.metanet import FineTune, Jump, Landing, NetworkGraph, Past
from graphsparse.metanet.batch_norms import recalibrate
from graphsparse.metanet.channels import count_flops, reconstruct, shrink
from graphsparse.metanet.foresight import combined
from graphsparse.metanet.jump import Recorder
from graphsparse.metanet.learn.member import Member
from graphsparse.metanet.learn.objectives import shares, unexplained

RATES = (0.005, 0.02, 0.05)  # of the epoch after a jump to the mean


def masks(arguments: argparse.Namespace) -> None:
    """Random masks and random seeds, each after least squares and one epoch; what is chosen by validation is tested."""
    work = Work(arguments.study, arguments.work)
    done = {tuple(row[k] for k in KEY) for row in read_rows(arguments.out, KEY)}
    _, rate = work.options("no jump")
    about = provenance("nowcast")
    for net, module in enumerate(work.networks("unseen", arguments.nets)):
        for number in range(arguments.masks):
            for method in ("oracle: random mask", "oracle: uniform mask"):
                row = {"study": arguments.study, "net": net, "method": method, "seed": number}
                if tuple(row[k] for k in KEY) in done:
                    continue
                mask = method == "oracle: random mask" and number > 0  # the first one is the uniform mask
                small = randomly_cut(work, module, number) if mask else work.cut(module, 0)
                recalibrate(small, work.blind)
                row |= {"rate": rate, "untuned": work.task.score(small, "val")}
                tuned = FineTune(1, rate).run(small, work.blind, seed=0 if mask else number)
                assert tuned is not None
                row |= {"val": tuned.val, "test": work.task.score(small, "test")}
                row |= {"flops": count_flops(module, work.inputs) / count_flops(small, work.inputs)}
                append_row(arguments.out, row | {"commit": about["commit"], "command": about["command"]})
                say(f"{net} {method} {number}: val {row['val']:.4f} test {row['test']:.4f} {row['flops']:.2f}x")


def randomly_cut(work: Work, module: Any, number: int) -> Any:
    """A network after a mask with jittered ratios and channels, and least squares."""
    member = Member(module, work.blind, work.inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        keep = member.random_mask((SPEEDUP, SPEEDUP), (0.15, 0.15), 0.2)
    return shrink(reconstruct(member.graph, keep, work.blind), keep, work.inputs)[0]


@dataclasses.dataclass(frozen=True)
class Told:
    """Foresight that was told: the very network, whatever it is asked."""

    graph: NetworkGraph

    def __call__(self, graph: NetworkGraph, *, past: Past) -> NetworkGraph:
        """The network that it was told."""
        return combined(graph, self.graph, lambda key, now, told: told)


def weights(arguments: argparse.Namespace) -> None:
    """What the best foresight from the start could do: it knows the mean of the weights after four epochs.

    Of all functions of the pruned network alone the mean over seeds misses least. The seeds that it is taken over are
    others than the one that is tested.
    """
    work = Work(arguments.study, arguments.work)
    done = {tuple(row[k] for k in KEY) for row in read_rows(arguments.out, KEY)}
    about = provenance("nowcast")
    for net, module in enumerate(work.networks("unseen", arguments.nets)):
        keys = [(seed, rate) for seed in range(arguments.seeds) for rate in RATES]
        todo = [(s, rate) for s, rate in keys if (arguments.study, net, f"ceiling at {rate}", s) not in done]
        if not todo:
            continue
        cut = work.cut(module, 0)
        recalibrate(cut, work.blind)
        start = NetworkGraph.from_module(cut, work.inputs)
        ends = [start.with_module(_after(work, cut, 100 + seed)) for seed in range(arguments.others)]
        others = [_mean([end for end in ends if end is not out]) for out in ends]
        missed = [float(unexplained(start, guess, out)) for guess, out in zip(others, ends, strict=True)]
        told = {"others": len(ends), "unexplained": {"0 -> 4": sum(missed) / len(missed)}}
        for seed, rate in todo:
            small, landings = copy.deepcopy(cut), list[Landing]()
            row = {"study": arguments.study, "net": net, "method": f"ceiling at {rate}", "seed": seed, **told}
            tune = FineTune(1, rate, jump=Jump(Told(_mean(ends)), after=(0,)))
            tuned = tune.run(small, work.blind, seed=seed, landings=landings)
            assert tuned is not None
            row |= {"val": tuned.val, "test": work.task.score(small, "test")}
            row |= {"jumps": [list(each) for each in landings]}
            append_row(arguments.out, row | {"commit": about["commit"], "command": about["command"]})
            say(f"{net} ceiling {seed} at {rate}: {row['test']:.4f}, {told}")


def kinds(arguments: argparse.Namespace) -> None:
    """What is not foreseen of each kind of parameter: by a metanetwork (8 steps -> 4 epochs), and by the mean."""
    work = Work(arguments.study, arguments.work)
    about = provenance("nowcast")
    metanet = work.metanet("nowcast", 0)
    held_out = work.trajectories("held-out", 4).collect(work.networks("held-out"), work.blind, work.inputs)
    cases = [each.case(8, 4) for each in held_out]
    with torch.no_grad():
        found = [shares(now, metanet(now, past=past), later) for now, past, later in cases]
    cut = work.cut(work.networks("unseen", 1)[0], 0)
    recalibrate(cut, work.blind)
    start = NetworkGraph.from_module(cut, work.inputs)
    ends = [start.with_module(_after(work, cut, 100 + seed)) for seed in range(arguments.others)]
    best = [shares(start, _mean([end for end in ends if end is not out]), out) for out in ends]
    for method, each in (("kinds: nowcast", found), ("kinds: mean of seeds", best)):
        row = {"study": arguments.study, "net": -1, "method": method, "seed": 0}
        row["unexplained"] = {str(key): sum(float(one[key]) for one in each) / len(each) for key in each[0]}
        append_row(arguments.out, row | {"commit": about["commit"], "command": about["command"]})
        say(f"{method}: {row['unexplained']}")


def _after(work: Work, cut: Any, seed: int) -> Any:
    """The network as four epochs leave it."""
    module = copy.deepcopy(cut)
    epoch = sum(1 for _ in work.blind.batches("train"))
    recorder = Recorder(module, {4 * epoch})
    FineTune(4).run(module, work.blind, seed=seed, callbacks=(recorder,))
    module.load_state_dict({**module.state_dict(), **recorder.states[4 * epoch]})
    return module


def _mean(graphs: list[NetworkGraph]) -> NetworkGraph:
    total = graphs[0]
    for graph in graphs[1:]:
        total = combined(total, graph, lambda key, a, b: a + b)
    return combined(total, total, lambda key, a, b: a / len(graphs))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("masks", "weights", "kinds"))
    parser.add_argument("--study", choices=tuple(STUDIES), default="cifar")
    parser.add_argument("--nets", type=int, default=3, help="test networks in this sitting")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of the epoch after a jump")
    parser.add_argument("--masks", type=int, default=16, help="masks, and seeds of the uniform one")
    parser.add_argument("--others", type=int, default=6, help="seeds that the mean is taken over")
    parser.add_argument("--work", type=Path, default=Path("nowcast-study"), help="as for nowcast.py")
    parser.add_argument("--out", type=Path, default=ROWS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    {"masks": masks, "weights": weights, "kinds": kinds}[arguments.action](arguments)


if __name__ == "__main__":
    main()
