"""Trajectories: pruned networks on their way through fine-tuning, kept on disk without pickle."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.fit import Task, rng
from graphsparse.fit.call import moved_to
from graphsparse.fit.checkpoint import load_checkpoint, save_checkpoint
from graphsparse.fit.fingerprint import model_hash, tree_hash
from graphsparse.fit.measure import device_of
from graphsparse.keep_rule import Keep
from graphsparse.metanet.batch_norms import recalibrate
from graphsparse.metanet.channels import cut, reconstruct, shrink
from graphsparse.metanet.fine_tuning import FineTune, blind
from graphsparse.metanet.foresight import Past, looked_at
from graphsparse.metanet.graph import NetworkGraph
from graphsparse.metanet.jump import Recorder
from graphsparse.metanet.learn.member import Member


@dataclass(frozen=True)
class Trajectories:
    """How trajectories are collected: networks are pruned at random, refitted by least squares and fine-tuned.

    Args:
        count: how many; they take the networks in turn.
        after: steps after which weights are to be foreseen; `looked_at` says what is remembered for them.
        fine_tune: the fine-tuning; weights are remembered after each of its epochs, too.
        speedups, jitter, min_keep: of the masks, as in `Repair`.
        folder: a file for each trajectory lies there, and what is there is not made again; None keeps them in memory.
        report: called with (done, all) after each one.
    """

    count: int = 100
    after: tuple[int, ...] = (0, 8, 32)
    fine_tune: FineTune = field(default_factory=FineTune)
    speedups: tuple[float, float] = (1.5, 6.0)
    jitter: tuple[float, float] = (0.15, 0.15)
    min_keep: Keep = 0.2
    folder: str | Path | None = field(default=None, repr=False, compare=False)
    report: Callable[[int, int], None] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.count < 1 or self.fine_tune.epochs < 1 or self.fine_tune.jump is not None:
            raise ValueError("trajectories need a count and epochs of fine-tuning from 1 on, and no jump in it")
        if not self.after or any(type(steps) is not int or steps < 0 for steps in self.after):
            raise ValueError(f"weights are foreseen after numbers of steps from 0 on, got {self.after}")

    def collect(
        self,
        networks: Sequence[nn.Module],
        task: Task,
        inputs: tuple[Any, ...],
        device: torch.device | str | None = None,
    ) -> list[Trajectory]:
        """The trajectories of these networks; the test part of the task is not read.

        Trajectory i depends on its network, the task, these settings (but not their count) and i alone: an interrupted
        collection goes on to the same ones, and so does one that is asked for more.

        Args:
            networks: trained networks.
            task: what they are fine-tuned on.
            inputs: what they are traced with.
            device: where they are worked with; None is where each network is.

        Raises:
            DataError: a file is damaged, or of other networks, another task or other settings.
        """
        unjudged = _unjudged(task)
        about = {"settings": repr(replace(self, count=1)), "task": tree_hash(task.fingerprint())}
        found = []
        for number in range(self.count):
            net = networks[number % len(networks)]
            place = device_of(net) if device is None else torch.device(device)
            net, moved = copy.deepcopy(net).to(place), moved_to(inputs, place)
            run = {**about, "network": model_hash(net), "number": str(number)}
            path = None if self.folder is None else Path(self.folder) / f"trajectory-{number:04d}.safetensors"
            if path is not None and path.exists():
                state = load_checkpoint(path, run)
            else:
                state = self._made(net, unjudged, moved, number)
                if path is not None:
                    save_checkpoint(path, state, run)
            found.append(Trajectory.of(net, task, moved, state))
            if self.report is not None:
                self.report(number + 1, self.count)
        return found

    def _made(self, net: nn.Module, task: Task, inputs: tuple[Any, ...], number: int) -> dict[str, Any]:
        member = Member(net, task, inputs)
        with rng.preserved(member.device):
            rng.seed_all(number, member.device)
            keep = member.random_mask(self.speedups, self.jitter, self.min_keep)
            module, kept = shrink(reconstruct(member.graph, keep, task), keep, inputs)
            epoch = sum(1 for _ in self.fine_tune.batched(task).batches("train"))
            wanted = {step for steps in self.after for step in looked_at(steps)}
            wanted |= {epoch * (done + 1) for done in range(self.fine_tune.epochs)}
            recorder = Recorder(module, wanted)
            recalibrate(module, task)
            buffers = {name: tensor.clone() for name, tensor in module.named_buffers()}
            self.fine_tune.run(module, task, teacher=net, seed=number, callbacks=(recorder,))
        return {"kept": kept, "epoch": epoch, "states": recorder.states, "buffers": buffers}


class Trajectory(Member):
    """A pruned network at the start of its fine-tuning, and what became of its weights.

    Args:
        module: the network after least squares.
        states: step -> the parameters after it.
        epoch: steps of an epoch.
        task, inputs: as for a `Member`.
    """

    def __init__(
        self,
        module: nn.Module,
        states: Mapping[int, Mapping[str, Tensor]],
        epoch: int,
        task: Task,
        inputs: tuple[Any, ...],
    ) -> None:
        super().__init__(module, task, inputs)
        self.epoch = epoch
        self.states: dict[int, NetworkGraph] = {}
        for step, weights in sorted(states.items()):
            self.states[step] = self.graph.with_module(_filled(module, weights))

    @staticmethod
    def of(net: nn.Module, task: Task, inputs: tuple[Any, ...], state: Mapping[str, Any]) -> Trajectory:
        """The trajectory that `Trajectories` made of a network."""
        module = copy.deepcopy(net)
        cut(module, state["kept"], inputs)
        start = _filled(module, {**state["buffers"], **state["states"][0]})
        return Trajectory(start, state["states"], state["epoch"], task, inputs)

    def case(self, after: int, epochs: int) -> tuple[NetworkGraph, Past, NetworkGraph]:
        """The network after some steps, its past, and the network at the end of an epoch (counted from 1)."""
        *earlier, now = (self.states[step] for step in looked_at(after))
        end = epochs * self.epoch
        return now, Past(tuple(earlier), after, end - after), self.states[end]

    def cases(self, after: Sequence[int], epochs: Sequence[int]) -> Iterator[tuple[NetworkGraph, Past, NetworkGraph]]:
        """`case` for all of these."""
        return (self.case(k, e) for k in after for e in epochs if e * self.epoch > k)


def _filled(module: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
    with torch.no_grad():
        for name, tensor in chain(module.named_parameters(), module.named_buffers()):
            if name in values:
                tensor.copy_(values[name])
    return module


def _unjudged(task: Task) -> Task:
    """The task with one batch to be judged on: of a trajectory only the training counts."""
    task = copy.copy(task)
    if isinstance(task.parts["val"], tuple):
        batch = next(task.batches("val"))
        task.parts = {**task.parts, "val": (batch.inputs, batch.targets)}
    return blind(task)
