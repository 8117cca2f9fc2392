"""Weights that are computed from parameters: masks of torch's own pruning, norms, parametrizations."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.utils.prune as torch_prune
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from graphsparse.keep_rule import kept_count
from graphsparse.params import (
    L0,
    Cubic,
    Fixed,
    Groups,
    L0Projection,
    NofM,
    Projection,
    project_groups_,
    project_l0_,
    project_mask,
    project_nm_,
    prunable,
    weights_kept,
)  # fmt: skip
from graphsparse.params.reparametrized import check_unpruned


def half_pruned() -> nn.Sequential:
    """Of the first layer's 32 weights the smaller half is masked by torch, of the second's 4 rows one."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    torch_prune.l1_unstructured(net[0], "weight", amount=0.5)
    torch_prune.ln_structured(net[2], "weight", amount=0.25, n=2, dim=0)
    return net


def total(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_what_torch_has_masked_is_not_kept() -> None:
    net = half_pruned()
    assert total(net) == 32 + 8 + 32 + 4
    assert weights_kept(net) == {"weights_kept": (16 + 8 + 24 + 4) / 76, "weights_kept_matrices": 40 / 64}
    masks = {"0.weight_orig": torch.ones(8, 4, dtype=torch.bool)}
    assert weights_kept(net, masks)["weights_kept_matrices"] == 40 / 64
    masks["0.weight_orig"][0] = False
    left = 16 - int((net[0].weight_mask[0] != 0).sum())
    assert weights_kept(net, masks)["weights_kept_matrices"] == (left + 24) / 64
    torch_prune.remove(net[0], "weight")
    torch_prune.remove(net[2], "weight")
    assert weights_kept(net)["weights_kept_matrices"] == 40 / 64


def test_the_parameters_keep_their_names_and_plain_ones_are_named_as_close() -> None:
    net = half_pruned()
    assert sorted(prunable(net)) == ["0.bias", "0.weight_orig", "2.bias", "2.weight_orig"]
    assert list(prunable(net, ["*.weight_orig"])) == ["0.weight_orig", "2.weight_orig"]
    with pytest.raises(ValueError, match=r"did you mean '0\.weight_orig'"):
        prunable(net, ["0.weight"])


@pytest.mark.parametrize("keep", [0.1, 0.4, 0.9])
@pytest.mark.parametrize("distribution", ["global", "uniform", "erk"])
def test_a_projection_keeps_the_largest_of_what_torch_has_left(keep: float, distribution: str) -> None:
    net = half_pruned()
    effective = {name: p.detach().clone() for name, p in prunable(net).items()}
    alive = {name: torch.ones_like(p, dtype=torch.bool) for name, p in effective.items()}
    for layer in (0, 2):
        alive[f"{layer}.weight_orig"] = net[layer].weight_mask != 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masks = project_l0_(net, keep, distribution)
    assert all(bool((alive[name] | ~mask).all()) for name, mask in masks.items())
    left = sum(int(a.sum()) for a in alive.values())
    assert sum(int(m.sum()) for m in masks.values()) == min(kept_count(keep, total(net)), left)
    if distribution == "global" and keep < 0.5:
        flat = torch.cat([effective[n].abs().masked_fill(~alive[n], -1).view(-1) for n in masks])
        chosen = torch.cat([m.view(-1) for m in masks.values()])
        assert flat[chosen].min() >= flat[~chosen].max()
    assert weights_kept(net)["weights_kept"] == sum(int(m.sum()) for m in masks.values()) / total(net)


@pytest.mark.parametrize("revive", [True, False])
def test_training_never_brings_back_what_torch_has_masked(revive: bool) -> None:
    net = half_pruned()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    projection = L0Projection(net, 0.6, schedule=Cubic(end=4), revive=revive).attach(optimizer)
    for _ in range(6):
        optimizer.zero_grad()
        net(torch.randn(16, 4)).square().sum().backward()
        optimizer.step()
        for layer in (0, 2):
            mask = projection.masks[f"{layer}.weight_orig"]
            assert not bool(mask[net[layer].weight_mask == 0].any())
            assert not bool(net[layer].weight_orig[~mask].any())
    assert sum(int(m.sum()) for m in projection.masks.values()) == kept_count(0.4, total(net))
    torch_prune.random_unstructured(net[0], "weight", amount=0.5)  # torch puts another mask there; it is read anew
    projection.apply()
    assert not bool(projection.masks["0.weight_orig"][net[0].weight_mask == 0].any())


def test_groups_and_runs_within_torchs_masks() -> None:
    net = half_pruned()
    gone = net[2].weight_mask == 0
    layer = nn.Linear(8, 4)
    torch_prune.custom_from_mask(layer, "weight", (~gone).float())
    torch_prune.custom_from_mask(layer, "bias", torch.ones(4))
    layer.bias_orig.requires_grad_(False)
    runs = project_nm_(layer, 2, 4)["weight_orig"]
    assert torch.equal(runs.view(4, 2, 4).sum(2), 2 * (~gone).view(4, 2, 4)[:, :, 0].long())
    rows = project_groups_(layer, 0.5)["weight_orig"]
    assert int(rows.any(1).sum()) == 2
    assert not bool((rows & gone).any())
    assert int(project_groups_(layer, 1.0)["weight_orig"].any(1).sum()) == 3  # the masked row is no group to keep


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def spectral(layer: nn.Linear) -> nn.Module:
    return nn.utils.spectral_norm(layer)


REPARAMETRIZED = {
    "weight_norm": nn.utils.weight_norm,
    "spectral_norm": spectral,
    "parametrized weight_norm": parametrizations.weight_norm,
    "parametrized spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "one's own": lambda layer: (parametrize.register_parametrization(layer, "weight", Doubled()), layer)[1],
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("kind", REPARAMETRIZED)
def test_a_zero_in_a_parameter_that_a_weight_is_computed_from_is_none_of_the_weight(kind: str) -> None:
    net = nn.Sequential(nn.Linear(3, 3), REPARAMETRIZED[kind](nn.Linear(3, 3)))
    for call in (
        lambda: L0Projection(net, 0.5),
        lambda: Projection(net, Groups(0.5), which="matrices"),
        lambda: project_l0_(net, 0.5),
        lambda: project_mask(net, 0.5),
    ):
        with pytest.raises(ValueError, match=r"'1\.weight' is computed from '1\..*and a zero there is no zero of the"):
            call()
    L0Projection(net, 0.5, which=["0.*", "1.bias"]).apply()
    assert set(weights_kept(net)) == {"weights_kept", "weights_kept_matrices"}


def test_a_model_for_plain_weights_only() -> None:
    with pytest.raises(
        ValueError, match=r"'0\.weight' is masked by torch\.nn\.utils\.prune.*prune\.remove\(module, 'w"
    ):
        check_unpruned(half_pruned())
    check_unpruned(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.zeros(2, 2, device="meta"), "a meta tensor"),
        (torch.eye(2).to_sparse(), "torch.sparse_coo"),
        (torch.eye(2).to_sparse_csr(), "torch.sparse_csr"),
        (torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8), "torch.qint8"),
        (torch.eye(2, dtype=torch.complex64), "torch.complex64"),
        (torch.eye(2).to(torch.float8_e4m3fn), "float8"),
        (torch.eye(2, dtype=torch.int64), "torch.int64"),
    ],
)  # fmt: skip
def test_tensors_that_cannot_be_projected_are_told_what_they_are(tensor: Tensor, kind: str) -> None:
    for pattern in (L0(0.5), Groups(0.5), NofM(1, 2), Fixed({})):
        with pytest.raises(TypeError, match=f"w must be a dense floating-point tensor, got .*{kind}"):
            pattern.mask({"w": tensor})


def test_what_has_no_values_is_not_counted_as_kept() -> None:
    with pytest.raises(TypeError, match="weight must be a dense tensor to be counted, got one on the meta device"):
        weights_kept(nn.Linear(2, 2, device="meta"))
    for tensor in (torch.eye(2).to_sparse(), torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8), [1.0]):
        with pytest.raises(TypeError, match="w must be a dense tensor"):
            weights_kept({"w": tensor})


def test_models_without_a_weight_to_project() -> None:
    for net in (nn.ReLU(), nn.Linear(2, 2).requires_grad_(False)):
        assert project_l0_(net, 0.5) == {}
        with pytest.raises(ValueError, match="no trainable weight to project"):
            L0Projection(net, 0.5)
