"""Convolutional networks: shapes, published sizes, seeds, and the way to graphs and through pruning."""

from __future__ import annotations

import pytest
import torch
import torch_pruning as tp
from torch import nn

from graphsparse.metanet import NetworkGraph
from graphsparse.nn import CNNS, VGG, Family, ResNet, make_cnn

SMALL = ["resnet8", "resnet14", "vgg8", "vgg11", "mobilenet11"]


def size_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def same_state(one: nn.Module, two: nn.Module) -> bool:
    left, right = one.state_dict(), two.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("name", [*SMALL, "resnet20", "vgg13", "vgg16", "vgg19", "mobilenet20"])
@pytest.mark.parametrize("image", [(3, 32, 32), (1, 14, 14), (1, 8, 8), (3, 7, 9), (1, 1, 1)])
def test_images_of_any_size_pass(name: str, image: tuple[int, int, int]) -> None:
    module = make_cnn(name, width=2, in_channels=image[0], num_classes=7, seed=0)
    assert module(torch.randn(3, *image)).shape == (3, 7)


# The published sizes (He et al. 2016, table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million) are those of networks whose
# shortcuts have no parameters: 269,722, 464,154, 658,586, 853,018 and 1,727,962. The two projections add
# 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64 = 2,752.
@pytest.mark.parametrize(
    ("depth", "count"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_resnets_have_the_published_size(depth: int, count: int) -> None:
    assert size_of(make_cnn(f"resnet{depth}")) == count + 2_752


# By hand: 9 times the products of neighbouring widths, 2 per channel for the norms, and 513 per class.
@pytest.mark.parametrize(("depth", "count"), [(11, 9_228_362), (13, 9_413_066), (16, 14_724_042), (19, 20_035_018)])
def test_vggs_have_the_published_size(depth: int, count: int) -> None:
    channels = {
        11: [64, 128, 256, 256] + [512] * 4,
        13: [64, 64, 128, 128, 256, 256] + [512] * 4,
        16: [64, 64, 128, 128] + [256] * 3 + [512] * 6,
        19: [64, 64, 128, 128] + [256] * 4 + [512] * 8,
    }[depth]
    by_hand = sum(9 * a * b + 2 * b for a, b in zip([3, *channels[:-1]], channels, strict=True)) + 10 * 513
    assert size_of(make_cnn(f"vgg{depth}")) == by_hand == count


def test_resnet8_by_hand() -> None:
    convolutions = 9 * (1 * 4 + 2 * 4 * 4 + 4 * 8 + 8 * 8 + 8 * 16 + 16 * 16) + 4 * 8 + 8 * 16
    norms = 2 * (3 * 4 + 3 * 8 + 3 * 16)
    assert size_of(ResNet(8, 4, in_channels=1, num_classes=5)) == convolutions + norms + 5 * 17


def test_mobilenet11_by_hand() -> None:
    blocks = sum(
        a * 6 * a + 9 * 6 * a + 6 * a * b + 4 * 6 * a + 2 * b  # expand, depthwise, project, and their norms
        for a, b in ((4, 4), (4, 8), (8, 16))
    )
    module = make_cnn("mobilenet11", width=4, in_channels=1, num_classes=5, seed=0)
    assert size_of(module) == 9 * 4 + 2 * 4 + blocks + 5 * 17
    assert [block.shortcut for block in module.blocks] == [True, False, False]


@pytest.mark.parametrize("name", SMALL)
def test_the_attributes_rebuild_it(name: str) -> None:
    module = make_cnn(name, width=5, in_channels=2, num_classes=3, seed=0)
    sizes = {key: getattr(module, key) for key in ("depth", "width", "in_channels", "num_classes")}
    assert sizes["width"] == 5
    again = type(module)(**sizes)
    again.load_state_dict(module.state_dict())
    assert same_state(module, again)


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_gives_the_same_weights_and_touches_nothing(name: str) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = (make_cnn(name, width=4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same_state(one, two)
    assert not same_state(one, other)
    assert not same_state(make_cnn(name, width=4), make_cnn(name, width=4))


@pytest.mark.parametrize("name", ["resnet20", "vgg16"])
def test_convolutions_start_as_he_et_al_say(name: str) -> None:
    for layer in make_cnn(name, width=16, seed=0).modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * layer.kernel_size[0] ** 2
            expected = (2 / fan_out) ** 0.5
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=4 / layer.weight.numel() ** 0.5)


@pytest.mark.parametrize("image", [(3, 16, 16), (1, 14, 14), (1, 8, 8)])
@pytest.mark.parametrize("name", ["resnet8", "vgg8"])
def test_to_a_graph_and_back_bit_for_bit(name: str, image: tuple[int, int, int]) -> None:
    module = make_cnn(name, width=4, in_channels=image[0], seed=0)
    graph = NetworkGraph.from_module(module, torch.zeros(1, *image))
    again = graph.to_module()
    assert type(again) is type(module)
    assert same_state(again, module)
    x = torch.randn(2, *image)
    assert torch.equal(again.eval()(x), module.eval()(x))


@pytest.mark.parametrize("image", [(3, 16, 16), (1, 14, 14), (1, 8, 8)])
@pytest.mark.parametrize("name", SMALL)
def test_it_can_be_pruned_and_still_becomes_a_graph(name: str, image: tuple[int, int, int]) -> None:
    module = make_cnn(name, width=8, in_channels=image[0], seed=0).eval()
    inputs, before = torch.randn(2, *image), size_of(module)
    assert isinstance(module.head, nn.Linear)
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    tp.pruner.BasePruner(module, inputs, importance=importance, pruning_ratio=0.5, ignored_layers=[module.head]).step()
    assert size_of(module) < 0.35 * before
    assert module(inputs).shape == (2, 10)
    assert same_state(NetworkGraph.from_module(module, inputs).to_module(), module)


def test_names_are_forgiving() -> None:
    assert isinstance(make_cnn("ResNet-8", width=2), ResNet)
    assert isinstance(make_cnn("VGG11", width=2), VGG)
    assert set(CNNS) == {"resnet", "vgg", "mobilenet"}
    assert make_cnn("resnet8").width == 16
    assert make_cnn("vgg8").width == 64


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("resnet9", {}, r"6 n \+ 2 .* got 9"),
        ("resnet2", {}, "got 2"),
        ("vgg12", {}, "8, 11, 13, 16, 19, got 12"),
        ("mobilenet8", {}, r"9 n \+ 2 .* got 8"),
        ("densenet8", {}, "no network named 'densenet8'"),
        ("resnet", {}, "no network named 'resnet'"),
        ("8resnet", {}, "no network named"),
        ("resnet8", {"width": 0}, "width must be at least 1, got 0"),
        ("vgg8", {"width": -1}, "width must be at least 1"),
        ("resnet8", {"in_channels": 0}, "in_channels must be at least 1"),
        ("vgg8", {"num_classes": 0}, "num_classes must be at least 1"),
    ],
)
def test_bad_input_is_named(name: str, options: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_cnn(name, **options)


def test_a_name_is_a_text() -> None:
    with pytest.raises(TypeError, match="not int"):
        make_cnn(56)  # type: ignore[arg-type]


def test_a_family_of_ones_own_is_made_by_name_and_depth():
    def plain(depth, width, in_channels, num_classes):
        return torch.nn.Sequential(*[torch.nn.Conv2d(in_channels, width, 1) for _ in range(depth)], torch.nn.Flatten())

    CNNS.register("plain", Family(plain, 7))
    try:
        net = make_cnn("plain3", seed=0)
        assert (len(net), net[0].out_channels) == (4, 7)
    finally:
        del CNNS["plain"]
    with pytest.raises(TypeError, match="is no family of networks"):
        CNNS.register("plain", plain)
