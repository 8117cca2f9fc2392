"""Least squares for single weights: each row's own least squares, found independently, and nothing else is touched."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from graphsparse.data import load_images
from graphsparse.fit import Task
from graphsparse.metanet import FineTune, prune_weights, refit_weights
from graphsparse.metanet.channels import kept_weights
from graphsparse.nn import make_cnn

TINY = 1e-7


def task_of(x):
    y = torch.arange(len(x)) % 2
    return Task((x, y), (x, y), (x, y), batch_size=32)


def pruned(net, masks):
    small = copy.deepcopy(net)
    with torch.no_grad():
        for name, mask in masks.items():
            dict(small.named_parameters())[name].mul_(mask)
    return small


def random_masks(net, share=0.5, names=None, seed=1):
    generator = torch.Generator().manual_seed(seed)
    chosen = [n for n, p in net.named_parameters() if p.dim() > 1] if names is None else names
    parameters = dict(net.named_parameters())
    return {name: torch.rand(parameters[name].shape, generator=generator) < share for name in chosen}


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_each_row_is_the_least_squares_solution_of_its_own_places(direct, bias, monkeypatch):
    monkeypatch.setattr(kept_weights, "_DIRECT", 512 if direct else 1)
    torch.manual_seed(0)
    net, x = nn.Linear(12, 5, bias=bias).double(), torch.randn(100, 12).double() @ torch.randn(12, 12).double()
    masks = random_masks(net)
    small = pruned(net, masks)
    refit_weights(net, small, masks, task_of(x), ridge=TINY)
    for row in range(5):
        places = torch.nonzero(masks["weight"][row])[:, 0].tolist()
        design = np.c_[x[:, places].numpy(), np.ones((100, 1))] if bias else x[:, places].numpy()
        found, *_ = np.linalg.lstsq(design, net(x)[:, row].detach().numpy(), rcond=None)
        np.testing.assert_allclose(small.weight[row, places].detach().numpy(), found[: len(places)], atol=1e-4)
        assert not bool(small.weight[row, ~masks["weight"][row]].any())
        if bias:
            assert float(small.bias[row]) == pytest.approx(found[-1], abs=1e-4)


def test_the_penalty_is_part_of_it():
    torch.manual_seed(0)
    net, x, ridge = nn.Linear(6, 2, bias=False).double(), torch.randn(40, 6).double(), 0.5
    masks = random_masks(net)
    small = pruned(net, masks)
    refit_weights(net, small, masks, task_of(x), ridge=ridge)
    strength = ridge * float(x.square().sum(0).mean())
    for row in range(2):
        places = torch.nonzero(masks["weight"][row])[:, 0].tolist()
        w = net.weight[row].detach().numpy()
        design = np.vstack([x[:, places].numpy(), np.sqrt(strength) * np.eye(len(places))])
        wanted = np.r_[x.numpy() @ w - x[:, places].numpy() @ w[places], np.zeros(len(places))]
        change, *_ = np.linalg.lstsq(design, wanted, rcond=None)
        np.testing.assert_allclose(small.weight[row, places].detach().numpy(), w[places] + change, atol=1e-6)


@pytest.mark.parametrize("rows", [200, 9])
def test_conjugate_gradients_agree_with_the_direct_solution(rows, monkeypatch):
    """Also with fewer rows than inputs, where the matrix is never made."""
    torch.manual_seed(0)
    net, x = nn.Linear(20, 4), torch.randn(rows, 20)
    masks, found = random_masks(net), []
    for direct in (512, 1):
        monkeypatch.setattr(kept_weights, "_DIRECT", direct)
        small = pruned(net, masks)
        refit_weights(net, small, masks, task_of(x))
        found.append(small.state_dict())
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])


def test_convolutions_of_every_kind_lose_less():
    """Grouped, transposed and depthwise kernels, through batch norms: nearer to the whole network's outputs."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 2, stride=2), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Conv2d(6, 3, 1),
    ).eval()  # fmt: skip
    x = torch.randn(64, 2, 8, 8)
    masks = random_masks(net, 0.6)
    plain = pruned(net, masks)
    small = copy.deepcopy(plain)
    before = copy.deepcopy(net.state_dict())
    refit_weights(net, small, masks, task_of(x))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.training
    for name, mask in masks.items():
        weight = dict(small.named_parameters())[name]
        assert not bool(weight[~mask].any()), name
    assert torch.equal(small[1].running_mean, plain[1].running_mean)
    lost = [(module(x) - net(x)).detach().square().mean() for module in (plain, small)]
    assert lost[1] < 0.5 * lost[0]


def test_a_weight_that_something_else_reads_stays():
    """An embedding that is also the classifier: a refit of one would change the other."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.inner = nn.Embedding(7, 6), nn.Linear(6, 6)

        def forward(self, x):
            return nn.functional.linear(self.inner(self.words(x)), self.words.weight)

    torch.manual_seed(0)
    net, x = Tied(), torch.randint(7, (64,))
    masks = random_masks(net, names=["words.weight", "inner.weight"])
    small = pruned(net, masks)
    plain = copy.deepcopy(small)
    refit_weights(net, small, masks, task_of(x))
    assert torch.equal(small.words.weight, plain.words.weight)
    assert not torch.equal(small.inner.weight, plain.inner.weight)


@pytest.mark.parametrize("how", [{"sparsity": 0.8}, {"pattern": "1:4"}], ids=str)
def test_prune_weights_keeps_the_same_weights_and_more_accuracy(how):
    task, net = digits()
    plain, refitted = (
        prune_weights(net, None, task, **how, reconstruct=flag, fine_tune=FineTune(epochs=0)) for flag in (False, True)
    )
    assert all(torch.equal(plain.masks[name], refitted.masks[name]) for name in plain.masks)
    assert plain.weights_kept == refitted.weights_kept
    assert refitted.accuracy > plain.accuracy


_DIGITS = []


def digits():
    """A trained network on real images, once for this file."""
    if not _DIGITS:
        images = load_images("digits")
        task = Task(images.train, images.val, images.test, batch_size=64)
        net = make_cnn("resnet8", in_channels=1, num_classes=10, width=4, seed=0)
        FineTune(epochs=3, lr=0.1).run(net, task)
        _DIGITS.append((task, net))
    return _DIGITS[0]
