"""A budget of time by a table of layer times."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from graphsparse.fit import Task
from graphsparse.metanet import FineTune, NetworkGraph, prune
from graphsparse.metanet.channels import Evidence, LatencyBudget, LayerTimes, importance, least_pruned, removal_order

X = (torch.randn(2, 3, 16, 16),)


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=32), nn.Conv2d(32, 64, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4),
    )  # fmt: skip


def test_the_table_by_hand(monkeypatch):
    """Times that are products of both widths are found again between the widths that were timed."""

    def pretended(runs, **_):
        if len(runs) == 1:
            return [30.0]  # of the whole network
        return [i * j / 25 for i in (1, 2, 4, 6, 8) for j in (1, 2, 4, 6, 8)]

    monkeypatch.setattr("graphsparse.metanet.channels.latency.least_ms", pretended)
    whole = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    times = LayerTimes.measured(whole, (torch.zeros(1, 8),))
    assert times.tables["0"] is times.tables["1"]  # layers of one form are timed once
    assert times.calls == pytest.approx(30 - 2 * 64 / 25)  # there are no other operations
    assert times.of(whole) == pytest.approx(30)
    small = nn.Sequential(nn.Linear(8, 3), nn.Linear(3, 8))
    assert times.of(small) == pytest.approx(2 * 24 / 25 + times.calls)


class Numbers(TorchDispatchMode):
    """Pretended time: a ms for each operation, and a thousandth of it for each number that it gives."""

    ms = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.ms += 0.0 if func.is_view else 1 + 1e-3 * out.numel()
        return out


def by_numbers(runs, **_):
    found = []
    for run in runs:
        with Numbers() as seen:
            run()
        found.append(seen.ms)
    return found


def test_other_operations_take_time_for_their_calls_and_for_their_numbers(monkeypatch):
    monkeypatch.setattr("graphsparse.metanet.channels.latency.least_ms", by_numbers)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))
    times = LayerTimes.measured(net, (torch.zeros(4, 8),))
    assert times.rest == pytest.approx(1e-3 * (4 * 32 - 1))
    small = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    layers = 2 + 1e-3 * (4 * 8 + 4 * 8)
    assert times.calls == pytest.approx(1.001)
    assert times.of(small) == pytest.approx(layers + times.calls + times.rest * 16 / 40)


def test_layers_are_timed_on_numbers_laid_out_like_theirs(monkeypatch):
    seen = []

    def look(runs, **_):
        for run in runs:
            with Layouts() as mode:
                run()
            seen.extend(mode.found)
        return [1.0] * len(runs)

    class Layouts(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.found = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.convolution.default:
                last = [t.is_contiguous(memory_format=torch.channels_last) for t in args[:2]]
                self.found.append((*last, args[0].dtype))
            return func(*args, **(kwargs or {}))

    monkeypatch.setattr("graphsparse.metanet.channels.latency.least_ms", look)
    layer = nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last).bfloat16()
    x = torch.randn(2, 8, 5, 5, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    LayerTimes.measured(layer, (x,))
    assert len(seen) >= 25
    assert set(seen) == {(True, True, torch.bfloat16)}


def counted(runs, **_):
    """Times that do not hang on the machine: a part for every call and one for its FLOPs."""
    found = []
    for run in runs:
        with FlopCounterMode(display=False) as counter:
            run()
        found.append(0.01 + 1e-6 * counter.get_total_flops())
    return found


@pytest.fixture
def _counted(monkeypatch):
    monkeypatch.setattr("graphsparse.metanet.channels.latency.least_ms", counted)


@pytest.mark.usefixtures("_counted")
def test_the_least_pruned_network_within_a_time():
    module = net()
    graph, budget = NetworkGraph.from_module(module, X), LatencyBudget(speedup=1.5)
    limit = budget.limit(module, X)
    score = importance(Evidence(graph), "group-l2")
    cost = budget.spread(graph, module, X)
    assert cost.left(graph) == pytest.approx(budget.exact(module, X))
    _, (small, kept), _ = least_pruned(
        graph, lambda units: removal_order(units, score), cost, lambda found: budget.exact(found, X), limit, X
    )
    assert kept
    assert 0.5 * limit < budget.exact(small, X) <= limit


@pytest.mark.usefixtures("_counted")
def test_prune_to_a_time():
    x, y = torch.randn(16, 3, 16, 16), torch.arange(16) % 4
    task = Task((x, y), (x, y), (x, y), batch_size=8)
    result = prune(net(), None, task, speedup=1.5, measure="latency", round_to=4, fine_tune=FineTune(epochs=0))
    assert result.kept
    assert all(len(stay) % 4 == 0 for stay in result.kept.values())
    with pytest.raises(ValueError, match="takes a speedup"):
        prune(net(), None, task, params=0.5, measure="latency")
    with pytest.raises(ValueError, match="latency"):
        prune(net(), None, task, speedup=2, measure="latencies of it")
