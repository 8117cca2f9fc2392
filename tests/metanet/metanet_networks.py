"""Networks of many architectures, small, written as anyone would write them: no network here knows of graphs."""

import functools
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv

from graphsparse.metanet import NetworkGraph


class MLP(nn.Sequential):
    def __init__(self, *widths):
        layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        super().__init__(nn.Flatten(), *layers[:-1])


def conv_bn(a, b, kernel=3, stride=1, groups=1):
    return nn.Sequential(nn.Conv2d(a, b, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(b))


class Block(nn.Module):
    """Basic block with the parameter-free shortcut (option A) or a convolution (option B)."""

    def __init__(self, a, b, stride, option):
        super().__init__()
        self.first, self.second = conv_bn(a, b, 3, stride), conv_bn(b, b)
        self.stride, self.grow = stride, b - a
        self.shortcut = conv_bn(a, b, 1, stride) if option == "B" and (stride > 1 or a != b) else None

    def forward(self, x):
        out = self.second(F.relu(self.first(x), inplace=True))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.stride > 1 or self.grow:
            before = self.grow // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.grow - before))
        out += x
        return F.relu(out)


class Bottleneck(nn.Module):
    def __init__(self, a, b, stride, option="B"):
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(a, b, 1),
            nn.ReLU(inplace=True),
            conv_bn(b, b, 3, stride),
            nn.ReLU(inplace=True),
            conv_bn(b, 4 * b, 1),
        )
        self.shortcut = conv_bn(a, 4 * b, 1, stride) if stride > 1 or a != 4 * b else nn.Identity()

    def forward(self, x):
        return F.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, depth, widths=(4, 8, 12), option="A", block=Block, classes=10):
        super().__init__()
        expansion = 4 if block is Bottleneck else 1
        self.stem = conv_bn(3, widths[0])
        width, stages = widths[0], []
        for stage, out in enumerate(widths):
            for position in range((depth - 2) // 6):
                stages.append(block(width, out, 2 if stage and not position else 1, option))
                width = out * expansion
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.stages(F.relu(self.stem(x)))
        return self.head(F.avg_pool2d(x, x.shape[-1]).view(x.shape[0], -1))


class VGG(nn.Module):
    """VGG-19 with batch norm; its classifier reads the flattened 2x2 maps."""

    def __init__(self, width=4, classes=10, equal=False):
        super().__init__()
        layers, before = [], 3
        for stage, count in enumerate((2, 2, 4, 4, 4)):
            out = width if equal else width * min(2**stage, 4)
            for _ in range(count):
                layers += [nn.Conv2d(before, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
                before = out
            layers += [nn.MaxPool2d(2)] if stage < 3 else []
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(before * 4, 12), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(12, classes)
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class DenseNet(nn.Module):
    def __init__(self, growth=3, layers=3):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        widths = [4 + growth * i for i in range(layers + 1)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.convs = nn.ModuleList(nn.Conv2d(width, growth, 3, padding=1, bias=False) for width in widths[:-1])
        self.head = nn.Linear(widths[-1], 5)

    def forward(self, x):
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=False):
            features.append(conv(F.relu(norm(torch.cat(features, 1)))))
        return self.head(F.relu(self.norms[-1](torch.cat(features, 1))).mean((2, 3)))


class Inception(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.one, self.three = (
            conv_bn(3, width, 1),
            nn.Sequential(conv_bn(3, width, 1), nn.ReLU(), conv_bn(width, width)),
        )
        self.wide = nn.Sequential(
            nn.Conv2d(3, width, (1, 7), padding=(0, 3)), nn.Conv2d(width, width, (7, 1), padding=(3, 0))
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(3, width, 1))
        self.head = nn.Linear(4 * width, 5)

    def forward(self, x):
        x = F.relu(torch.cat([self.one(x), self.three(x), self.wide(x), self.pool(x)], dim=1))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Inverted(nn.Module):
    def __init__(self, a, b, stride, expand=2):
        super().__init__()
        hidden = a * expand
        self.body = nn.Sequential(
            conv_bn(a, hidden, 1),
            nn.ReLU6(inplace=True),
            conv_bn(hidden, hidden, 3, stride, hidden),
            nn.ReLU6(inplace=True),
            conv_bn(hidden, b, 1),
        )
        self.residual = stride == 1 and a == b

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


class MobileNet(nn.Sequential):
    def __init__(self, a=4, b=6):
        super().__init__(
            conv_bn(3, a), nn.ReLU6(), Inverted(a, a, 1), Inverted(a, b, 2), Inverted(b, b, 1), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(b, 5),
        )  # fmt: skip


class Shuffle(nn.Module):
    """Grouped convolutions with a channel shuffle, and a unit that splits, works on a half, and shuffles."""

    def __init__(self, width=8, groups=2):
        super().__init__()
        self.groups = groups
        self.stem = conv_bn(3, width)
        self.first, self.second = conv_bn(width, width, 1, groups=groups), conv_bn(width, width, 1, groups=groups)
        half = width // 2
        self.branch = nn.Sequential(conv_bn(half, half, 1), nn.ReLU(), conv_bn(half, half, 3, groups=half))
        self.norm, self.head = nn.GroupNorm(2, width), nn.Linear(width, 5)

    def shuffle(self, x):
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = self.second(self.shuffle(F.relu(self.first(x))))
        left, right = x.chunk(2, dim=1)
        x = self.shuffle(torch.cat([left, self.branch(right)], dim=1))
        return self.head(self.norm(x).mean((2, 3)))


class ResNeXt(nn.Module):
    """Grouped convolutions in a residual block."""

    def __init__(self, width=6, groups=2):
        super().__init__()
        self.stem, self.head = conv_bn(3, width), nn.Linear(width, 5)
        self.body = nn.Sequential(
            conv_bn(width, width, 1),
            nn.ReLU(),
            conv_bn(width, width, groups=groups),
            nn.ReLU(),
            conv_bn(width, width, 1),
        )

    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.head((x + self.body(x)).mean((2, 3)))


class UNet(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.down, self.deep = conv_bn(3, width), conv_bn(width, 2 * width, 3, 2)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.merge, self.out = conv_bn(2 * width, width), nn.Conv2d(width, 2, 1)

    def forward(self, x):
        skip = F.relu(self.down(x))
        x = self.up(F.relu(self.deep(skip)))
        return self.out(F.relu(self.merge(torch.cat([x, skip], dim=1))))


class Attention(nn.Module):
    """Attention written out, or through the built-in product."""

    def __init__(self, dim, heads, fused):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q @ k.transpose(-2, -1)) * (d // self.heads) ** -0.5).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(b, t, d))


class Layer(nn.Module):
    def __init__(self, dim, heads, kind):
        super().__init__()
        self.kind = kind
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = (
            nn.MultiheadAttention(dim, heads, batch_first=True)
            if kind == "torch"
            else Attention(dim, heads, kind == "fused")
        )
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x):
        y = self.norm1(x)
        y = self.attention(y, y, y, need_weights=False)[0] if self.kind == "torch" else self.attention(y)
        x = x + y
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, dim=8, heads=2, kind="written"):
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 4, 4)
        self.cls, self.position = nn.Parameter(torch.zeros(1, 1, dim)), nn.Parameter(torch.zeros(1, 17, dim))
        self.layers = nn.Sequential(*(Layer(dim, heads, kind) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        return self.head(self.norm(self.layers(x))[:, 0])


class TiedAutoencoder(nn.Module):
    """The decoder's weight is the encoder's, transposed; a layer in the middle is applied twice."""

    def __init__(self):
        super().__init__()
        self.encoder, self.middle = nn.Linear(6, 4), nn.Linear(4, 4)
        self.bias = nn.Parameter(torch.zeros(6))

    def forward(self, x):
        x = self.middle(F.relu(self.middle(F.relu(self.encoder(x)))))
        return F.linear(x, self.encoder.weight.t(), self.bias)


class GNN(nn.Module):
    def __init__(self, kind, hidden=8):
        super().__init__()
        make = {
            "gcn": GCNConv,
            "gat": lambda a, b: GATConv(a, b // 2, heads=2),
            "sage": SAGEConv,
            "gin": lambda a, b: GINConv(MLP(a, b, b), train_eps=True),
        }[kind]
        self.first, self.second = make(5, hidden), make(hidden, 4)

    def forward(self, x, edge_index):
        return self.second(F.relu(self.first(x, edge_index)), edge_index)


class Mixed(nn.Module):
    """Embedding, 1-D and 3-D convolutions, gates, several inputs and outputs, parameters shared and unused."""

    def __init__(self):
        super().__init__()
        self.table, self.position = nn.Embedding(11, 6), nn.Embedding(7, 6)
        self.conv = nn.Conv1d(6, 6, 3, padding=1)
        self.volume, self.slopes = nn.Conv3d(2, 6, (1, 3, 3)), nn.PReLU(6)
        self.gate, self.scale = nn.Linear(6, 6), nn.Parameter(torch.ones(6))
        self.first, self.second, self.unused = nn.Linear(6, 3), nn.Linear(6, 2), nn.Linear(3, 3)
        self.first.weight = nn.Parameter(self.table.weight.detach()[:3].clone())

    def forward(self, tokens, volume):
        x = self.table(tokens) + self.position(torch.arange(tokens.shape[1]))
        x = self.conv(x.transpose(1, 2)).mean(-1)
        y = self.slopes(self.volume(volume)).amax((2, 3, 4))
        z = self.scale * x * torch.sigmoid(self.gate(y))
        return {"first": self.first(z), "second": self.second(y)}


def images(size=16):
    return (torch.zeros(2, 3, size, size),)


def graph_inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.zeros(9, 5), torch.randint(0, 9, (2, 20), generator=generator)


NETWORKS = {  # name -> (network, its arguments)
    "mlp": lambda: (MLP(12, 6, 6, 3), (torch.zeros(2, 3, 4),)),
    "resnet20": lambda: (ResNet(20), images()),
    "resnet20-equal": lambda: (ResNet(20, (6, 6, 6)), images()),
    "resnet20-downsampled": lambda: (ResNet(20, option="B"), images()),
    "resnet56": lambda: (ResNet(56, (4, 4, 4)), images()),
    "resnet110": lambda: (ResNet(110, (4, 4, 4)), images()),
    "bottleneck": lambda: (ResNet(14, (4, 4, 4), block=Bottleneck), images()),
    "vgg19": lambda: (VGG(), images()),
    "vgg19-equal": lambda: (VGG(6, equal=True), images()),
    "densenet": lambda: (DenseNet(), images(8)),
    "inception": lambda: (Inception(), images(8)),
    "mobilenet": lambda: (MobileNet(), images(8)),
    "mobilenet-equal": lambda: (MobileNet(4, 4), images(8)),
    "resnext": lambda: (ResNeXt(), images(8)),
    "shuffle": lambda: (Shuffle(), images(8)),
    "unet": lambda: (UNet(), images(8)),
    "vit": lambda: (ViT(), images()),
    "vit-fused": lambda: (ViT(kind="fused"), images()),
    "vit-torch": lambda: (ViT(kind="torch"), images()),
    "autoencoder": lambda: (TiedAutoencoder(), (torch.zeros(2, 6),)),
    "gcn": lambda: (GNN("gcn"), graph_inputs()),
    "gat": lambda: (GNN("gat"), graph_inputs()),
    "sage": lambda: (GNN("sage"), graph_inputs()),
    "gin": lambda: (GNN("gin"), graph_inputs()),
    "mixed": lambda: (Mixed(), (torch.zeros(2, 7, dtype=torch.int64), torch.zeros(2, 2, 2, 4, 4))),
}

SHALLOW = [name for name in NETWORKS if name not in {"resnet56", "resnet110"}]  # those two: resnet20's layers again


def randomised(module, seed=0):
    """Every parameter and floating buffer random, each element different; the module in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(0.2 + 0.6 * torch.rand(tensor.shape, generator=generator))
    return module.eval()


def make(name, seed=0):
    """A network with random weights and its arguments."""
    module, inputs = NETWORKS[name]()
    return randomised(module, seed), inputs


@functools.cache
def graph_of(name):
    """A network, its arguments and its graph."""
    module, inputs = make(name)
    return module, inputs, NetworkGraph.from_module(module, inputs)


def some_inputs(inputs, seed=1):
    """Random values in the place of the real inputs."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(x.shape, generator=generator) if x.is_floating_point() else x for x in inputs)


def same_bits(left, right):
    """Two state dicts with the same keys, types and bits."""
    return list(left) == list(right) and all(
        left[k].dtype == right[k].dtype
        and left[k].shape == right[k].shape
        and left[k].contiguous().view(-1).view(torch.uint8).equal(right[k].contiguous().view(-1).view(torch.uint8))
        for k in left
    )


# Torch-Pruning can cut all groups of these at once (and PyG's own Linear, with our help).
CUT_WHOLE = [
    "mlp",
    "resnet20-equal",
    "resnet20-downsampled",
    "bottleneck",
    "vgg19",
    "vgg19-equal",
    "densenet",
    "inception",
    "mobilenet",
    "mobilenet-equal",
    "resnext",
    "unet",
    "vit-torch",
    "gcn",
    "gin",
    "sage",
]
