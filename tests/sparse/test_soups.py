"""Soups: one mask, an exact average, recalibrated batch norms, and a greedy choice on validation data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphsparse as gs
from graphsparse.fit import NodeTask, Task, fit
from graphsparse.sparse import soup
from graphsparse.sparse.soups import recalibrated


def task(shift: int = 0) -> Task:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 8, generator=generator)
    y = (x[:, 0] + x[:, 1] > 0).long()
    return Task((x[:40], y[:40]), (x[40:50], y[40:50]), (x[50:], (y[50:] + shift) % 2), batch_size=10)


def mlp(norm: bool = False) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        middle = [nn.BatchNorm1d(12)] if norm else []
        return nn.Sequential(nn.Linear(8, 12), *middle, nn.ReLU(), nn.Linear(12, 2))


def masks(net: nn.Module, share: float = 0.5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(p.shape, generator=generator) < share for name, p in net.named_parameters() if p.dim() > 1}


@pytest.mark.parametrize("norm", [False, True])
def test_the_average_is_that_of_its_members_under_their_mask(norm: bool) -> None:
    net, mask = mlp(norm), masks(mlp(norm))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    result = soup(net, task(), mask, epochs=3)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    members = []
    for seed in range(3):
        member = mlp(norm)
        with torch.no_grad():
            for name, own in mask.items():
                member.get_parameter(name).masked_fill_(~own, 0)
        held = gs.params.Projection(member, gs.params.Fixed(mask), which=list(mask))
        fit(member, task(), epochs=3, seed=seed, callbacks=[held])
        members.append(dict(member.named_parameters()))
    for name, value in result.module.named_parameters():
        assert torch.allclose(value, torch.stack([own[name] for own in members]).mean(0)), name
    for name, own in mask.items():
        assert not bool(result.module.get_parameter(name)[~own].any())
        assert torch.equal(result.masks[name], own)
    assert [member["taken"] for member in result.members] == [True] * 3
    assert [m["val"] for m in result.members] == sorted((m["val"] for m in result.members), reverse=True)
    assert result.metrics["test"] == task().score(result.module, "test")
    if norm:
        x = task().parts["train"][0]
        wanted = result.module[0](x).mean(0)  # type: ignore[index]
        assert torch.allclose(result.module[1].running_mean, wanted, atol=1e-5)  # type: ignore[index]


def test_greedy_takes_a_member_only_if_validation_does_not_fall_and_test_data_have_no_say() -> None:
    seen = []
    for shift in (0, 1):
        found = soup(mlp(), task(shift), masks(mlp(), 0.3), members=4, how="greedy", epochs=1, lr=0.05)
        seen.append([(m["val"], m["taken"]) for m in found.members])
        assert found.members[0]["taken"]
        assert found.metrics["val"] >= found.members[0]["val"]
    assert seen[0] == seen[1]


def test_phases_go_on_from_the_average_and_cut_it_to_the_share_at_last() -> None:
    net, mask = mlp(norm=True), masks(mlp(norm=True))
    result = soup(net, task(), mask, members=2, phases=3, keep=0.1, epochs=1)
    total = sum(own.numel() for own in mask.values())
    assert sum(int(own.sum()) for own in result.masks.values()) == -(-total // 10)
    assert all(not bool((result.masks[name] & ~own).any()) for name, own in mask.items())
    assert len(result.members) == 2
    torch.manual_seed(1234)  # which nothing depends on
    again = soup(net, task(), mask, members=2, phases=3, keep=0.1, epochs=1)
    assert all(torch.equal(v, again.module.state_dict()[k]) for k, v in result.module.state_dict().items())


def test_nodes_of_a_graph_make_a_soup_too() -> None:
    data = gs.data.load("digits-knn")
    net = gs.nn.make("gcn", data.num_features, data.num_classes, 8, seed=0)
    own = gs.sparse.train(net, NodeTask(data), "magnitude", keep=0.3, epochs=2)
    result = soup(own.module, NodeTask(data), own.masks, members=2, epochs=2)
    assert result.metrics["weights_kept_matrices"] == pytest.approx(0.3, abs=0.01)


def test_other_statistics_are_left_alone() -> None:
    norm = mlp(norm=True)
    norm[1].momentum = 0.3
    net = nn.Sequential(norm, nn.Dropout(0.5)).eval()
    recalibrated(task(), net)
    assert (norm[1].momentum, net.training, norm[1].num_batches_tracked.item()) == (0.3, False, 4)


def test_what_is_no_soup_is_told() -> None:
    net = mlp()
    own = masks(net)
    other = {name: mask.clone() for name, mask in own.items()}
    other["2.weight" if "2.weight" in other else list(other)[1]][0, 0] ^= True
    options: Any
    for given, options, message in (
        ([own, own, other], {}, "members 1 and 3 differ in '2.weight'"),
        ([own, {"0.weight": own["0.weight"]}], {}, "members 1 and 2 differ in '2.weight'"),
        ({"nothing": own["0.weight"]}, {}, "no trainable parameter"),
        ({"0.weight": own["0.weight"][:3]}, {}, "has shape"),
        ([], {}, "needs masks by name"),
        (own, {"keep": 0.9}, "more than the masks keep"),
        (own, {"how": "best"}, "how must be"),
        (own, {"members": 0}, "members must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            soup(net, task(), given, **options)
    with pytest.raises(TypeError, match="must be bool"):
        soup(net, task(), {"0.weight": own["0.weight"].float()})
