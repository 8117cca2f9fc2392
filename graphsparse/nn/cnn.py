"""Convolutional networks for small images: ResNet, VGG and MobileNet with batch normalisation, of any width."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsparse.registry import Registry


class ResNet(nn.Module):
    """A residual network for small images: three stages of basic blocks with ``width``, 2 and 4 times as many channels.

    Where a block changes the shape, its shortcut is a 1x1 convolution with batch normalisation (option B of the paper).
    Images of any size pass, ``[N, in_channels, H, W]`` to ``[N, num_classes]``.

    Args:
        depth: 6 n + 2 with n basic blocks a stage: 8, 14, 20, 32, 44, 56, 110 ...
        width: channels of the first stage; 16 is the published one.
        in_channels: channels of the images.
        num_classes: outputs.

    Raises:
        ValueError: the depth is not 6 n + 2, or a size is below 1.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.

    Example:
        >>> ResNet(8, 4)(torch.zeros(2, 3, 14, 14)).shape
        torch.Size([2, 10])
    """

    def __init__(self, depth: int = 8, width: int = 8, in_channels: int = 3, num_classes: int = 10) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"the depth of a ResNet is 6 n + 2 (8, 14, 20, ..., 56, 110), got {depth}")
        _check_sizes(width, in_channels, num_classes)
        self.depth, self.width, self.in_channels, self.num_classes = depth, width, in_channels, num_classes
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = _three_stages(BasicBlock, (depth - 2) // 6, width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4 * width, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.conv(x)))
        out: Tensor = self.head(self.pool(self.blocks(x)).flatten(1))
        return out


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them.

    Args:
        in_channels, out_channels: before and after.
        stride: of the first convolution and the shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return functional.relu(out + self.shortcut(x))


# Convolutions in each of the five stages. The depth counts them and, as in the paper, three linear layers, of which
# the networks for small images have one.
_VGG_STAGES = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(nn.Module):
    """A plain network for small images: five stages of 3x3 convolutions, max pools between them, one linear layer.

    The stages have 1, 2, 4, 8 and 8 times ``width`` channels; an average over the image precedes the linear layer.
    Images of any size pass, ``[N, in_channels, H, W]`` to ``[N, num_classes]``.

    Args:
        depth: 8, 11, 13, 16 or 19.
        width: channels of the first stage; 64 is the published one.
        in_channels: channels of the images.
        num_classes: outputs.

    Raises:
        ValueError: there is no such depth, or a size is below 1.

    Source: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
        table 1 (A, B, D, E), with batch normalisation.

    Example:
        >>> VGG(8, 4, in_channels=1)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, depth: int = 8, width: int = 8, in_channels: int = 3, num_classes: int = 10) -> None:
        super().__init__()
        if depth not in _VGG_STAGES:
            raise ValueError(f"the depth of a VGG is one of {', '.join(map(str, _VGG_STAGES))}, got {depth}")
        _check_sizes(width, in_channels, num_classes)
        self.depth, self.width, self.in_channels, self.num_classes = depth, width, in_channels, num_classes
        layers: list[nn.Module] = []
        channels = in_channels
        for stage, (convolutions, factor) in enumerate(zip(_VGG_STAGES[depth], (1, 2, 4, 8, 8), strict=True)):
            if stage:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))  # an image of one pixel stays one
            for _ in range(convolutions):
                layers += [
                    nn.Conv2d(channels, factor * width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(factor * width),
                    nn.ReLU(inplace=True),
                ]
                channels = factor * width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.pool(self.features(x)).flatten(1))
        return out


class MobileNet(nn.Module):
    """A network of depthwise convolutions for small images: stages with ``width``, 2 and 4 times as many channels.

    Each has n inverted residual blocks, the first of the second and third stage with stride 2. An average over the
    image precedes the linear layer. Images of any size pass, ``[N, in_channels, H, W]`` to ``[N, num_classes]``.

    Args:
        depth: 9 n + 2 with n blocks a stage: 11, 20, 29 ...
        width: channels of the first stage.
        in_channels: channels of the images.
        num_classes: outputs.

    Raises:
        ValueError: the depth is not 9 n + 2, or a size is below 1.

    Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 1; the three
        stages are those of ResNets for small images.

    Example:
        >>> MobileNet(11, 4)(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 10])
    """

    def __init__(self, depth: int = 11, width: int = 8, in_channels: int = 3, num_classes: int = 10) -> None:
        super().__init__()
        if depth < 11 or (depth - 2) % 9:
            raise ValueError(f"the depth of a MobileNet is 9 n + 2 (11, 20, 29 ...), got {depth}")
        _check_sizes(width, in_channels, num_classes)
        self.depth, self.width, self.in_channels, self.num_classes = depth, width, in_channels, num_classes
        self.stem = _convolution(in_channels, width, 3)
        self.blocks = _three_stages(InvertedResidual, (depth - 2) // 9, width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4 * width, num_classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.pool(self.blocks(self.stem(x))).flatten(1))
        return out


class InvertedResidual(nn.Module):
    """A 1x1 convolution to more channels, a depthwise 3x3 one, a 1x1 one to fewer, and a shortcut where shapes agree.

    Args:
        in_channels, out_channels: before and after.
        stride: of the depthwise convolution.
        expansion: inner channels over ``in_channels``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, expansion: int = 6) -> None:
        super().__init__()
        inner = expansion * in_channels
        self.shortcut = stride == 1 and in_channels == out_channels
        self.expand = _convolution(in_channels, inner, 1)
        self.depthwise = _convolution(inner, inner, 3, stride, groups=inner)
        self.project = nn.Sequential(nn.Conv2d(inner, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.shortcut else out


def _three_stages(block: Callable[[int, int, int], nn.Module], count: int, width: int) -> nn.Sequential:
    """Stages of ``count`` blocks with ``width``, 2 and 4 times as many channels; the later two begin with stride 2."""
    blocks: list[nn.Module] = []
    channels = width
    for stage in range(3):
        for number in range(count):
            blocks.append(block(channels, width << stage, 2 if stage and not number else 1))
            channels = width << stage
    return nn.Sequential(*blocks)


def _convolution(before: int, after: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution, its norm and ReLU6."""
    convolution = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU6(inplace=True))


@dataclass(frozen=True)
class Family:
    """Networks of one kind.

    Attributes:
        make: called with ``depth``, ``width``, ``in_channels`` and ``num_classes``.
        width: the published one.
    """

    make: Callable[..., nn.Module]
    width: int


def _family(name: str, entry: object) -> Family:
    if not isinstance(entry, Family):
        raise TypeError(f"{name!r} is no family of networks: a {type(entry).__name__} is no graphsparse.nn.Family")
    return entry


# Open to users: CNNS.register("mine", Family(make, width)) makes "mine8" and so on known to make_cnn.
CNNS: Registry[Family] = Registry("family of networks", check=_family)
CNNS.register("resnet", Family(ResNet, 16))
CNNS.register("vgg", Family(VGG, 64))
CNNS.register("mobilenet", Family(MobileNet, 32))


def make_cnn(
    name: str, *, width: int | None = None, in_channels: int = 3, num_classes: int = 10, seed: int | None = None
) -> nn.Module:
    """A convolutional network by its name: a family of `CNNS` and a depth, such as ``"resnet56"`` or ``"vgg19"``.

    Args:
        name: upper or lower case; a hyphen before the depth is fine.
        width: channels of the first stage; None takes the published width (ResNet 16, VGG 64, MobileNet 32).
        in_channels: channels of the images.
        num_classes: outputs.
        seed: of the initial weights; the global generator is left as it was. None draws from the latter.

    Raises:
        TypeError: the name is no text.
        ValueError: no network has that name, or a size is out of range.

    Example:
        >>> a, b = (make_cnn("resnet8", width=4, seed=1) for _ in range(2))
        >>> all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
        True
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a network is a text such as 'resnet8', not {type(name).__name__}")
    parts = re.fullmatch(r"([a-z]+)-?([0-9]{1,6})", name.lower())
    if parts is None or parts[1] not in CNNS:
        families = " or ".join(CNNS.names())
        raise ValueError(f"there is no network named {name!r}; it is {families} and a depth, as in resnet20")
    family = CNNS[parts[1]]
    sizes = {"depth": int(parts[2]), "width": family.width if width is None else width}
    if seed is None:
        return family.make(**sizes, in_channels=in_channels, num_classes=num_classes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return family.make(**sizes, in_channels=in_channels, num_classes=num_classes)


def _check_sizes(width: int, in_channels: int, num_classes: int) -> None:
    for what, size in (("width", width), ("in_channels", in_channels), ("num_classes", num_classes)):
        if size < 1:
            raise ValueError(f"{what} must be at least 1, got {size}")


def _initialise(module: nn.Module) -> None:
    """Draw the convolutions as He et al. (ICCV 2015) do for ReLU; the rest keeps torch's own start."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
