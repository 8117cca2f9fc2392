"""Which parameters count, and which share of them is kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphsparse.params import count, prunable, weights_kept


class Tied(nn.Module):
    """An autoencoder whose decoder shares the encoder's matrix, with one frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight
        self.frozen = nn.Linear(4, 2).requires_grad_(False)


def test_all_takes_every_trainable_parameter_once_in_order() -> None:
    model = Tied()
    chosen = prunable(model)
    assert list(chosen) == ["encoder.weight", "encoder.bias", "decoder.bias"]
    assert chosen["encoder.weight"] is model.encoder.weight


def test_parameters_that_share_memory_without_being_one_object_count_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = nn.Parameter(model[0].weight.data)
    assert list(prunable(model)) == ["0.weight"]


def test_matrices_leave_out_tensors_with_one_dimension_above_one() -> None:
    model = nn.ParameterDict(
        {
            "matrix": nn.Parameter(torch.zeros(2, 3)),
            "row": nn.Parameter(torch.zeros(1, 5)),
            "attention": nn.Parameter(torch.zeros(1, 8, 4)),
            "scalar": nn.Parameter(torch.tensor(1.0)),
            "filter": nn.Parameter(torch.zeros(1, 3, 1, 1)),
            "bias": nn.Parameter(torch.zeros(3)),
        }
    )
    assert sorted(prunable(model, "matrices")) == ["attention", "matrix"]
    assert (count(model), count(model, "matrices")) == (6 + 5 + 32 + 1 + 3 + 3, 6 + 32)


def test_names_and_patterns_select_in_the_order_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert list(prunable(model, ["1.bias", "0.weight"])) == ["0.weight", "1.bias"]
    assert list(prunable(model, "*.weight")) == ["0.weight", "1.weight"]
    assert list(prunable(model, iter(["0.*"]))) == ["0.weight", "0.bias"]


def test_either_name_of_a_tied_parameter_will_do() -> None:
    assert list(prunable(Tied(), ["decoder.weight"])) == ["encoder.weight"]


def test_an_unknown_name_is_answered_with_close_ones() -> None:
    with pytest.raises(ValueError, match=r"'encoder.weigth' matches no .* did you mean 'encoder.weight'"):
        prunable(Tied(), ["encoder.weigth"])
    with pytest.raises(ValueError, match=r"'matrix' matches no .* did you mean 'matrices'"):
        prunable(Tied(), "matrix")
    with pytest.raises(ValueError, match="there are"):
        prunable(Tied(), ["zzz"])
    with pytest.raises(ValueError, match="no parameter was asked for"):
        prunable(Tied(), [])


def test_a_frozen_parameter_is_an_error_by_name_and_passed_over_by_pattern() -> None:
    with pytest.raises(ValueError, match=r"'frozen.weight' is frozen"):
        prunable(Tied(), ["frozen.weight"])
    assert "frozen.weight" not in prunable(Tied(), "*.weight")
    with pytest.raises(ValueError, match="matches no trainable parameter"):
        prunable(Tied(), "frozen.*")


def test_wrong_kinds_of_input() -> None:
    with pytest.raises(TypeError, match="model must be"):
        prunable({"a": torch.zeros(3)})
    with pytest.raises(TypeError, match="names of parameters"):
        prunable(Tied(), [3])
    with pytest.raises(ValueError, match="lazy"):
        prunable(nn.LazyLinear(3))


def test_a_model_on_the_meta_device_can_be_counted() -> None:
    model = nn.Sequential(nn.Linear(3, 4, device="meta"), nn.Linear(3, 4, device="meta"))
    assert count(model) == 32


def test_weights_kept_states_both_definitions() -> None:
    """Trap 6: methods that divide by different totals cannot be compared; both figures are always given."""
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 0]]))
        model.bias.copy_(torch.tensor([1.0, 2.0]))
    assert weights_kept(model) == {"weights_kept": 3 / 8, "weights_kept_matrices": 1 / 6}
    assert weights_kept(dict(model.named_parameters())) == weights_kept(model)


def test_a_kept_zero_counts_by_the_mask_and_a_tensor_without_mask_is_kept() -> None:
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight)
    masks = {"weight": torch.tensor([[True, True, True], [False, False, False]])}
    assert weights_kept(model, masks) == {"weights_kept": 5 / 8, "weights_kept_matrices": 1 / 2}
    assert weights_kept(masks) == {"weights_kept": 1 / 2, "weights_kept_matrices": 1 / 2}


def test_weights_kept_counts_tied_ones_once_and_leaves_frozen_ones_out() -> None:
    model = Tied()
    masks = {"decoder.weight": torch.zeros(4, 4, dtype=torch.bool)}
    assert weights_kept(model, masks) == {"weights_kept": 8 / 24, "weights_kept_matrices": 0.0}


def test_weights_kept_of_nothing_is_all() -> None:
    assert weights_kept(nn.ReLU()) == {"weights_kept": 1.0, "weights_kept_matrices": 1.0}


def test_masks_that_do_not_fit_are_refused() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"'wieght', .* did you mean 'weight'"):
        weights_kept(model, {"wieght": torch.ones(2, 3, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"shape \[3, 2\], its tensor \[2, 3\]"):
        weights_kept(model, {"weight": torch.ones(3, 2, dtype=torch.bool)})
    with pytest.raises(TypeError, match="must be bool"):
        weights_kept(model, {"weight": torch.ones(2, 3)})
