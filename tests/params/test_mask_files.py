"""Masks in and out: torch's pruning, files, and the 2:4 kernels of a GPU."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from graphsparse.errors import DataError
from graphsparse.params import Sparsifier, load_masks, masks_of, save_masks, to_semi_structured, to_torch_prune_


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))


def half(net: nn.Module) -> dict[str, Tensor]:
    masks = {name: p.detach().abs() >= p.detach().abs().median() for name, p in net.named_parameters() if p.dim() > 1}
    return masks


def test_masks_of_torch_and_back() -> None:
    net = network()
    masks = half(net)
    weight = net[0].weight.detach().clone()
    assert to_torch_prune_(net, masks) is net
    assert torch.equal(net[0].weight, weight * masks["0.weight"])
    found = masks_of(net)
    assert found.keys() == masks.keys()
    assert all(torch.equal(found[name], masks[name]) for name in masks)
    prune.remove(net[0], "weight")
    assert torch.equal(masks_of(net)["0.weight"], masks["0.weight"])  # now exact zeros
    assert torch.equal(masks_of(net, "all")["0.bias"], net[0].bias != 0)


def test_a_kept_zero_of_torchs_mask_is_kept() -> None:
    net = nn.Linear(2, 2)
    nn.init.zeros_(net.weight)
    prune.custom_from_mask(net, "weight", torch.tensor([[1, 0], [1, 1]]))
    assert masks_of(net)["weight"].tolist() == [[True, False], [True, True]]


def test_masks_of_a_network_half_way_are_those_that_its_layers_see() -> None:
    net = network()
    s = Sparsifier(net, "nm-ste", keep="2:4").attach(torch.optim.SGD(net.parameters(), lr=0.1))
    found = masks_of(net)
    assert list(found) == ["0.weight", "2.weight"]
    assert all(torch.equal(found[name], mask) for name, mask in s.masks.items())
    s.finish()
    assert all(torch.equal(masks_of(net)[name], mask) for name, mask in s.masks.items())


@pytest.mark.parametrize("norm", ["orthogonal", "spectral_norm", "weight_norm", "old weight_norm"])
def test_masks_of_computed_weights_are_those_of_what_the_layer_sees(norm: str) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(4))
    if norm.startswith("old"):
        nn.utils.weight_norm(net[0])
    else:
        getattr(nn.utils.parametrizations, norm)(net[0])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = masks_of(net, "all")
    assert set(found) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert torch.equal(found["0.weight"], torch.eye(4, dtype=torch.bool))
    assert found["1.weight"].all()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())  # nothing is estimated
    assert all(part.training for part in net.modules())
    with pytest.raises(ValueError, match=r"'0.weight', which is computed from '0.*weight.*make it plain with torch"):
        to_torch_prune_(net, found)


def test_tied_weights_are_masked_in_each_module() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    to_torch_prune_(net, {"0.weight": torch.eye(3, dtype=torch.bool)})
    assert torch.equal(net[1].weight, net[0].weight)
    assert int(net[1].weight.count_nonzero()) == 3


@pytest.mark.parametrize(
    ("masks", "error", "said"),
    [
        ({"0.weight": torch.ones(4, 7, dtype=torch.bool)}, ValueError, r"has shape \[4, 7\], its parameter \[4, 8\]"),
        ({"0.weight": torch.ones(4, 8)}, TypeError, "must be a bool tensor, got torch.float32"),
        ({"1.weight": torch.ones(4, 8, dtype=torch.bool)}, ValueError, "is no parameter of the model"),
    ],
)
def test_masks_of_another_model_are_told(
    masks: dict[str, Tensor], error: type[Exception], said: str, tmp_path: Path
) -> None:
    net = network()
    with pytest.raises(error, match=said):
        to_torch_prune_(net, {"2.weight": torch.ones(2, 4, dtype=torch.bool), **masks})
    assert not list(net.buffers())  # nothing was masked
    if error is ValueError:
        save_masks(tmp_path / "m", masks)
        with pytest.raises(ValueError, match=said):
            load_masks(tmp_path / "m", net)
    else:
        with pytest.raises(TypeError, match=said):
            save_masks(tmp_path / "m", masks)
        assert not (tmp_path / "m").exists()


def test_what_is_masked_already_is_told() -> None:
    net = network()
    to_torch_prune_(net, half(net))
    with pytest.raises(ValueError, match=r"'0.weight', which is masked already"):
        to_torch_prune_(net, {"0.weight": torch.ones(4, 8, dtype=torch.bool)})


def test_files_come_back_and_damage_is_told(tmp_path: Path) -> None:
    net, path = network(), tmp_path / "new" / "masks.safetensors"
    masks = half(net)
    save_masks(path, masks)
    found = load_masks(path, net)
    assert all(torch.equal(found[name], masks[name]) for name in masks)
    whole = path.read_bytes()
    save_masks(path, masks)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-1] + bytes([1 - whole[-1]]))
    with pytest.raises(DataError, match="their hash differs"):
        load_masks(path)
    path.write_bytes(whole[:-3])
    with pytest.raises(DataError, match="not a whole file of masks"):
        load_masks(path)
    with pytest.raises(DataError, match="cannot read"):
        load_masks(tmp_path / "none")
    for write in (partial(save_masks, path), partial(to_torch_prune_, net)):
        with pytest.raises(TypeError, match="by the names of parameters, got list"):
            write(list(masks.values()))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got list"):
        masks_of([net])  # type: ignore[arg-type]


def test_the_kernel_for_2_of_4_says_what_it_does_not_take() -> None:
    net = network()
    masks = Sparsifier(net, "nm", keep="2:4").finish()
    with pytest.raises(ValueError, match=r"'0.weight' is on cpu; 2:4 kernels need a CUDA device"):
        to_semi_structured(net, masks)
    with pytest.raises(ValueError, match="is not 2:4"):
        to_semi_structured(net, {"0.weight": torch.ones(4, 8, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"no weight of a torch.nn.Linear"):
        to_semi_structured(nn.Conv1d(4, 4, 1), {"weight": torch.ones(4, 4, 1, dtype=torch.bool)})
    assert type(net[0].weight) is nn.Parameter


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_the_kernel_for_2_of_4_multiplies_as_the_dense_layer() -> None:
    net = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128)).to("cuda", torch.float16)
    masks = Sparsifier(net, "nm", keep="2:4").finish()
    x = torch.randn(128, 128, device="cuda", dtype=torch.float16)
    assert torch.allclose(to_semi_structured(net, masks)(x), net(x), atol=1e-2)
