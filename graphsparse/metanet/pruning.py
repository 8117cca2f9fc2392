"""Pruning a network: choose channels, let a metanetwork change or repair it, shrink, fine-tune."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graphsparse.fit import Report, Task, rng
from graphsparse.fit.call import with_state
from graphsparse.fit.measure import device_of, evaluating, inference_ms
from graphsparse.keep_rule import Keep
from graphsparse.metanet.batch_norms import recalibrate
from graphsparse.metanet.channels import (
    CRITERIA,
    Budget,
    Distribution,
    Evidence,
    KeptChannels,
    LatencyBudget,
    arguments,
    check_options,
    count_flops,
    count_parameters,
    held_layers,
    importance,
    initialise,
    keep_whole,
    layer_widths,
    least_pruned,
    removal_order,
    shrink,
    warn_of_held,
)
from graphsparse.metanet.channels import reconstruct as least_squares
from graphsparse.metanet.fine_tuning import FineTune, example_of, standard
from graphsparse.metanet.graph import NetworkGraph
from graphsparse.metanet.jump import Landing
from graphsparse.metanet.metanetwork import MetaNetwork
from graphsparse.registry import one_of
from graphsparse.report.html import fragment
from graphsparse.report.parts import Cell, Sheet, figure

_LOSS_BATCHES = 8
_LATENCY_EXAMPLES = 32


@dataclass(frozen=True)
class PruneResult:
    """A pruned network and its figures; pairs are (before, after).

    Args:
        module: the small network, trained, in evaluation mode.
        kept: layer -> indices of the output channels that stayed.
        flops: of one example.
        params: numbers of parameters.
        latency_ms: measured time of one pass over up to 32 examples.
        metric: name of the task's metric.
        accuracy_before: test metric of the network that was given.
        accuracy_untuned: test metric after shrinking and recalibration of batch norms, before fine-tuning.
        accuracy: test metric of ``module``.
        val: validation metric of ``module``.
        cpu_seconds: processor time of all threads: to choose, refit and cut (with what is trained before), and to
            fine-tune.
        example_inputs: what the network was traced with.
        widths: layer -> numbers of its output channels, of every layer that can be cut.
        jumps: what became of the jumps in fine-tuning, if there were any.
        held: layer -> why its channels had to stay.
        instead: layer -> how its channels were ranked where the criterion could not rank them.
    """

    module: nn.Module = field(repr=False)
    kept: KeptChannels = field(repr=False)
    flops: tuple[int, int]
    params: tuple[int, int]
    latency_ms: tuple[float, float]
    metric: str
    accuracy_before: float
    accuracy_untuned: float
    accuracy: float
    val: float
    cpu_seconds: tuple[float, float]
    example_inputs: tuple[Any, ...] = field(repr=False)
    widths: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False)
    jumps: tuple[Landing, ...] = ()
    held: dict[str, str] = field(default_factory=dict, repr=False)
    instead: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def speedup(self) -> float:
        """FLOPs before over FLOPs after."""
        return self.flops[0] / self.flops[1]

    def _repr_html_(self) -> str:
        """What a notebook shows: figures before and after, and the channels of each layer."""
        rows: list[list[Cell | str]] = [
            [f"test {self.metric}, %", figure(self.accuracy_before, scale=100), figure(self.accuracy, scale=100)],
            ["FLOPs, million", *(figure(count, scale=1e-6) for count in self.flops)],
            ["parameters", *(figure(count, digits=0) for count in self.params)],
            ["one pass, ms", *(figure(ms) for ms in self.latency_ms)],
        ]
        title = f"Pruned: {self.speedup:.2f} times fewer FLOPs"
        layers: list[list[Cell | str]] = [
            [name, *(figure(count, digits=0) for count in pair)] for name, pair in self.widths.items()
        ]
        sheets = [
            Sheet(title, ["figure", "before", "after"], rows),
            Sheet("Channels of each layer", ["layer", "before", "after"], layers),
        ]
        if self.held:
            sheets.append(Sheet("Held", ["layer", "why"], [[name, why] for name, why in self.held.items()]))
        if self.instead:
            sheets.append(Sheet("Ranked otherwise", ["layer", "how"], [[n, how] for n, how in self.instead.items()]))
        return fragment(sheets)

    def figures(self) -> dict[str, Any]:
        """All numbers as plain values, for JSON and tables; ``jumps`` if there were any."""
        names = ("flops", "params", "latency_ms")
        pairs = {f"{n}{end}": getattr(self, n)[i] for n in names for i, end in enumerate(("_before", ""))}
        rest = ("metric", "accuracy_before", "accuracy_untuned", "accuracy", "val")
        spent = dict(zip(("cpu_seconds_cut", "cpu_seconds_fine_tune"), self.cpu_seconds, strict=True))
        jumps = {"jumps": [landing._asdict() for landing in self.jumps]} if self.jumps else {}
        return {"speedup": self.speedup, **pairs, **{name: getattr(self, name) for name in rest}, **spent, **jumps}


Reconstruct = bool | Mapping[str, Any] | None
_LEAST_SQUARES = frozenset(inspect.signature(least_squares).parameters) - {"graph", "keep", "task", "inputs"}


@dataclass(frozen=True)
class Selection:
    """How channels are chosen.

    Args:
        criterion: a name of `graphsparse.metanet.CRITERIA`, or "module:function" of your own.
        distribution: "uniform": each group loses the same fraction; "global": importances are compared across groups.
        min_keep: the fraction of every group that stays.
        round_to: widths become multiples of this.
        seed: of random choices.
        keep_layers: names of layers whose channels all stay; the name of a part holds all layers in it.
        reconstruct: refit the weights that stay by least squares (`graphsparse.metanet.reconstruct`), with options of
            that function where it is a dict, such as ``{"rescale": True}``; None does so exactly where a metanetwork
            of mode "repair" or "nowcast" goes on from there.

    Raises:
        ValueError: an option is unknown or out of range.
    """

    criterion: str = "group-l2"
    distribution: Distribution = "uniform"
    min_keep: Keep = 0.2
    round_to: int = 1
    seed: int = 0
    reconstruct: Reconstruct = None
    keep_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        CRITERIA.find(self.criterion)
        check_options(self.distribution, self.min_keep, self.round_to)
        strange = set(self.least_squares or {}) - _LEAST_SQUARES
        if strange:
            raise ValueError(
                f"least squares have no option {sorted(strange)[0]!r}; they have {', '.join(sorted(_LEAST_SQUARES))}"
            )

    @property
    def least_squares(self) -> dict[str, Any] | None:
        """Options of least squares, None where there are to be none (or where the mode says)."""
        if isinstance(self.reconstruct, Mapping):
            return dict(self.reconstruct)
        return {} if self.reconstruct else None


def prune(
    net: nn.Module,
    metanet: MetaNetwork | None,
    task: Task,
    *,
    speedup: float | None = None,
    flops: float | None = None,
    params: float | None = None,
    criterion: str = "group-l2",
    distribution: Distribution = "uniform",
    min_keep: Keep = 0.2,
    round_to: int = 1,
    keep_layers: Sequence[str] = (),
    measure: str = "flops",
    reconstruct: Reconstruct = None,
    fine_tune: FineTune | None = None,
    prepare: FineTune | None = None,
    example_inputs: Any = None,
    seed: int = 0,
    progress: bool | Report | None = None,
    tensorboard: str | Path | None = None,
) -> PruneResult:
    """Prune a network to a budget, in the order of the metanetwork's mode; the network that is given is not changed.

    ``mode="repair"``: choose channels by ``criterion``, reconstruct, pass with the mask, shrink, recalibrate batch
    norms, fine-tune. ``mode="change"``: pass, recalibrate, fine-tune (``prepare``), choose, shrink, recalibrate,
    fine-tune. Without a metanetwork: choose, shrink, recalibrate, fine-tune: the baseline, to which
    ``reconstruct=True`` adds least squares after the choice (`graphsparse.metanet.reconstruct`). ``mode="nowcast"``:
    the baseline with least squares, and a `Jump` in fine-tuning (``FineTune(jump=)`` says when). Of all networks that
    the order of removal goes through, the least pruned one that reaches the budget is taken. Channels that the
    network's structure or code holds stay (``held`` of the result says why), and a warning says so: the others make up
    for them.

    Args:
        net: any network that can be traced.
        metanet: a trained metanetwork, or None.
        task: trains, validates and tests; the test part is read for the reported figures only.
        speedup, flops, params: the budget, see `Budget`.
        measure: what ``speedup`` is of: "flops", or "latency", the time of one pass by a table of layer times that is
            measured first, on this machine (``round_to=8`` suits most kernels).
        criterion: "group-l2", "bn-scale", "taylor", "random", "sparse-learning" (train with a group-norm penalty,
            ``prepare``, first, then group-l2), a name registered in ``CRITERIA``, or "module:function" of your own.
        distribution, min_keep, round_to, keep_layers, reconstruct: see `Selection`.
        fine_tune: the training at the end; None is what won for least squares (see docs/metanet.md): 4 epochs from a
            rate of 0.02 with at most 32 examples a step, distilling ``net`` where outputs are classes; a loader keeps
            its batches, and a rate of 0.05.
        prepare: the training before channels are chosen (``mode="change"`` and "sparse-learning").
        example_inputs: as for `NetworkGraph.from_module`; None takes one example of the training part.
        seed: of random choices and of fine-tuning.
        progress: as for `graphsparse.fit.fit`.
        tensorboard: a folder for TensorBoard's logs of both trainings; None writes none.

    Raises:
        ValueError: the budget is out of reach with ``min_keep``, or an argument is out of range.
        TraceError: an operation of the network is not covered.
        ShrinkError: none of its channels can be cut.

    Example:
        >>> x, y = torch.randn(64, 4), torch.arange(64) % 2
        >>> net = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> task = Task((x, y), (x, y), (x, y))
        >>> prune(net, None, task, speedup=4, fine_tune=FineTune(epochs=1)).speedup
        4.0
    """
    kinds: dict[str, type[Budget]] = {"flops": Budget, "latency": LatencyBudget}
    budget = kinds[one_of(measure, "measure", list(kinds))](speedup, flops, params)
    selection = Selection(criterion, distribution, min_keep, round_to, seed, reconstruct, _names_of(keep_layers))
    fine_tune = standard(task) if fine_tune is None else fine_tune
    fine_tune = fine_tune.with_metanetwork(metanet, task)
    inputs = example_of(task, device_of(net)) if example_inputs is None else arguments(example_inputs)
    device = device_of(net)
    _check_ready(net, inputs, trained=fine_tune.epochs > 0)
    with rng.preserved(device):
        rng.seed_all(seed, device)  # a loader that shuffles draws from torch's generator
        logs = None if tensorboard is None else Path(tensorboard)
        first, start = None if logs is None else logs / "prepare", time.process_time()
        module, kept, held, instead = _carved(
            net, metanet, task, budget, selection, inputs, prepare or FineTune(), progress, first
        )
        cut = time.process_time() - start
        recalibrate(module, task)
        untuned = task.score(module, "test", device)
        last, start = None if logs is None else logs / "fine-tune", time.process_time()
        landings: list[Landing] = []
        tuned = fine_tune.run(
            module,
            task,
            teacher=net,
            seed=seed,
            progress=progress,
            tensorboard=last,
            example_inputs=inputs,
            landings=landings,
        )
        tuning = time.process_time() - start
        batch: Any = inputs
        if example_inputs is None:
            whole = next(task.batches("train", device)).inputs
            batch = pytree.tree_map(lambda part: part[:_LATENCY_EXAMPLES], whole)
        before = task.score(net, "test", device)
        val = task.score(module, "val", device) if tuned is None else tuned.val
    module.eval()
    left = layer_widths(module)
    return PruneResult(
        module=module,
        kept=kept,
        flops=(count_flops(net, inputs), count_flops(module, inputs)),
        params=(count_parameters(net), count_parameters(module)),
        latency_ms=_latency(net, module, tuple(batch) if type(batch) is list else arguments(batch)),
        metric=task.metric.name,
        accuracy_before=before,
        accuracy_untuned=untuned,
        accuracy=untuned if tuned is None else tuned.test,
        val=val,
        cpu_seconds=(cut, tuning),
        example_inputs=inputs,
        widths={name: (wide, left[name]) for name, wide in layer_widths(net).items() if name in left},
        jumps=tuple(landings),
        held=held,
        instead=instead,
    )


def carve(
    net: nn.Module,
    metanet: MetaNetwork | None,
    task: Task,
    budget: Budget,
    selection: Selection,
    inputs: tuple[Any, ...],
    prepare: FineTune,
    progress: bool | Report | None = None,
    tensorboard: str | Path | None = None,
) -> tuple[nn.Module, KeptChannels]:
    """The part of `prune` before the last fine-tuning: the shrunk network and the channels that it kept."""
    return _carved(net, metanet, task, budget, selection, inputs, prepare, progress, tensorboard)[:2]


def _carved(
    net: nn.Module,
    metanet: MetaNetwork | None,
    task: Task,
    budget: Budget,
    selection: Selection,
    inputs: tuple[Any, ...],
    prepare: FineTune,
    progress: bool | Report | None,
    tensorboard: str | Path | None,
) -> tuple[nn.Module, KeptChannels, dict[str, str], dict[str, str]]:
    """As `carve`, with the layers that had to stay and why, and those that were ranked otherwise and how."""
    limit = budget.limit(net, inputs)
    graph, penalty = NetworkGraph.from_module(net, inputs), getattr(CRITERIA.find(selection.criterion), "penalty", None)
    _check_finite(net)
    if metanet is not None:
        metanet.check(graph)  # before anything is trained
    if penalty is not None or (metanet is not None and metanet.mode == "change"):
        module = graph.to_module()
        if metanet is not None and metanet.mode == "change":
            with torch.no_grad():
                module = metanet(graph).to_module()
        callbacks = () if penalty is None else (penalty(module, inputs),)
        prepare.run(
            module,
            task,
            teacher=net,
            seed=selection.seed,
            progress=progress,
            callbacks=callbacks,
            tensorboard=tensorboard,
        )
        graph = NetworkGraph.from_module(module, inputs)
    evidence = Evidence(graph, selection.seed, functools.partial(_training_loss, graph.to_module(), task), task)
    order = functools.partial(
        removal_order,
        importance=importance(evidence, selection.criterion),
        distribution=selection.distribution,
        min_keep=selection.min_keep,
        round_to=selection.round_to,
    )
    cost = budget.spread(graph, graph.to_module(), inputs)
    units = keep_whole(graph, selection.keep_layers)
    keep, found, units = least_pruned(
        graph, order, cost, lambda small: budget.exact(small, inputs), limit, inputs, units
    )
    held = held_layers(graph, units)
    warn_of_held(graph, units, cost, held)
    repairs = metanet is not None and metanet.mode == "repair"
    goes_on = metanet is not None and metanet.mode in ("repair", "nowcast")
    options = {} if selection.reconstruct is None and goes_on else selection.least_squares
    if options is not None:
        graph = least_squares(graph, keep, task, **options)
    elif not repairs:
        return *found, held, evidence.instead
    if metanet is not None and repairs:
        with torch.no_grad():
            graph = metanet(graph, keep)
    return *shrink(graph, keep, inputs), held, evidence.instead


def _names_of(layers: Sequence[str]) -> tuple[str, ...]:
    return (layers,) if isinstance(layers, str) else tuple(layers)


def _check_ready(net: nn.Module, inputs: tuple[Any, ...], *, trained: bool) -> None:
    """Tell what cannot be pruned before anything is trained; lazy layers get their widths, as by any first call."""
    held = [name for name, _ in net.named_buffers() if name.endswith("_mask") and f"{name[:-5]}_orig" in _names(net)]
    if held:
        where, _, what = held[0].removesuffix("_mask").rpartition(".")
        raise ValueError(
            f"the network has masks of torch.nn.utils.prune, the first on '{what}' of '{where}': make them permanent "
            f"with torch.nn.utils.prune.remove(module, '{what}') first"
        )
    initialise(net, inputs)
    if trained and not any(parameter.requires_grad for parameter in net.parameters()):
        raise ValueError(
            "every parameter of the network is frozen, so it cannot be fine-tuned: let some learn (requires_grad_()), "
            "or give fine_tune=FineTune(epochs=0)"
        )


def _names(net: nn.Module) -> set[str]:
    return {name for name, _ in net.named_parameters()}


def _check_finite(net: nn.Module) -> None:
    for name, parameter in net.named_parameters():  # a buffer may be a mask of -inf
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"'{name}' of the network holds NaN or infinite values")


def _training_loss(module: nn.Module, task: Task, state: dict[str, Tensor]) -> Tensor:
    module.eval()
    batches = islice(task.batches("train", device_of(module)), _LOSS_BATCHES)
    outputs = ((task.forward(with_state(module, state), batch.inputs), batch.targets) for batch in batches)
    return torch.stack([task.loss(found, targets) for found, targets in outputs]).mean()


def _latency(before: nn.Module, after: nn.Module, inputs: tuple[Any, ...]) -> tuple[float, float]:
    with torch.no_grad(), evaluating(before), evaluating(after):
        first, second = inference_ms([lambda: before(*inputs), lambda: after(*inputs)])
    return first, second
