"""Rules that foresee weights: small cases worked by hand."""

import pytest
import torch
from torch import nn

from graphsparse.metanet import Extrapolation, MovingAverage, NetworkGraph, Past, Stay, StepSizes
from graphsparse.metanet.foresight import learned_step_sizes, looked_at


def filled(value):
    """Two layers and a norm, all numbers equal."""
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1)).eval()
    for parameter in net.parameters():
        parameter.data.fill_(value)
    return net


def graph_of(value, layers=None):
    net = filled(value)
    for name, other in (layers or {}).items():
        net.get_parameter(name).data.fill_(other)
    return NetworkGraph.from_module(net, torch.zeros(1, 2))


def numbers(graph):
    return {name: sorted(set(p.flatten().tolist())) for name, p in graph.to_module().named_parameters()}


def past(*values, steps=8, ahead=40):
    return Past(tuple(graph_of(value) for value in values), steps, ahead)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Stay(), 6.0),
        (Extrapolation(0.5), 8.0),  # 6 + (6 - 2) / 2
        (Extrapolation(), 26.0),  # at the same speed: 5 times the way of 4
        (MovingAverage(), 4.5),  # of 3, 4, 5 and 6
    ],
    ids=["stay", "half", "speed", "mean"],
)
def test_rules_by_hand(rule, expected):
    graph = graph_of(6.0)
    found = rule(graph, past=past(2.0, 3.0, 4.0, 5.0))
    assert all(values == [expected] for values in numbers(found).values())
    for name in ("running_mean", "running_var"):
        assert torch.equal(found.banks[name].values, graph.banks[name].values)
    assert all(values == [6.0] for values in numbers(graph).values())


def test_step_sizes_are_learned_per_layer_and_kind():
    """The first layer's weights went on three times as far, the second's went back, biases stayed."""
    now = graph_of(2.0)
    later = graph_of(2.0, {"0.weight": 5.0, "3.weight": 1.5, "1.weight": 4.0})
    rule = learned_step_sizes(iter([(now, past(1.0, 1.0, 1.0, 1.0), later)]))
    found = numbers(rule(now, past=past(1.0, 1.0, 1.0, 1.0)))
    expected = {"0.weight": 5.0, "3.weight": 1.5, "1.weight": 4.0, "0.bias": 2.0, "3.bias": 2.0, "1.bias": 2.0}
    assert {name: round(values[0], 5) for name, values in found.items()} == expected
    assert all(len(values) == 1 for values in found.values())


def test_an_unknown_layer_takes_the_size_of_its_kind_and_an_unknown_kind_stays():
    rule = StepSizes({(8, 40): {("", "linear"): 2.0, ("0", "linear"): 1.0}})
    found = numbers(rule(graph_of(2.0), past=past(1.0, 1.0, 1.0, 1.0)))
    assert (found["0.weight"], found["3.weight"], found["1.weight"]) == ([3.0], [4.0], [2.0])


def test_the_nearest_numbers_of_steps_are_taken():
    rule = StepSizes({(8, 40): {("", "linear"): 1.0}, (32, 400): {("", "linear"): 5.0}})
    near, far = (
        numbers(rule(graph_of(2.0), past=past(1.0, 1.0, 1.0, 1.0, steps=s, ahead=a)))["0.weight"]
        for s, a in ((10, 50), (30, 200))
    )
    assert (near, far) == ([3.0], [7.0])


def test_weights_that_did_not_move_are_nowhere_foreseen():
    same = past(2.0, 2.0, 2.0, 2.0, steps=0)
    assert learned_step_sizes(iter([(graph_of(2.0), same, graph_of(3.0))])).sizes == {(0, 40): {}}
    for rule in (Extrapolation(), MovingAverage(), StepSizes({(8, 40): {("", "linear"): 1.0}})):
        assert all(values == [2.0] for values in numbers(rule(graph_of(2.0), past=same)).values())


def test_what_is_remembered():
    assert looked_at(32) == (0, 8, 16, 24, 32)
    assert looked_at(3) == (0, 0, 1, 2, 3)
