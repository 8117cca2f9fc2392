"""The sparse weights of a two-layer ReLU network from its inputs and outputs, by iterative hard thresholding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from graphsparse.keep_rule import Keep, check_seed, kept_count, mix64, top_mask, whole_number
from graphsparse.params.joint import check_finite
from graphsparse.params.tensors import check_tensor

_BLOCK = 1 << 24  # elements of the activations, or of the slopes, that are made at a time
_MET = 1e-10  # of the outputs: then they are met
_SLOPE = 1e-4  # Armijo's share of the expected decrease


@dataclass(frozen=True)
class Recovered:
    """A sparse network.

    Attributes:
        neurons: int64 ``[s]``, the neuron of each weight that is kept.
        inputs: int64 ``[s]``, its input.
        values: float64 ``[s]``.
        signs: float64 ``[p]``, the weight of each neuron in the output.
        gates: ``[p, d]`` if they were given, else None.
        losses: half the mean squared error before every step, and at the end.
    """

    neurons: Tensor
    inputs: Tensor
    values: Tensor
    signs: Tensor = field(repr=False)
    gates: Tensor | None = field(repr=False)
    losses: list[float] = field(repr=False)
    features: int

    def weights(self) -> Tensor:
        """All weights of the hidden layer, dense, ``[p, d]``."""
        found = torch.zeros(len(self.signs), self.features, dtype=self.values.dtype)
        found[self.neurons, self.inputs] = self.values
        return found

    def predict(self, x: Tensor) -> Tensor:
        """The outputs ``[n]`` of inputs ``[n, d]``."""
        hidden = x.to(self.values) @ self.weights().T
        open_ = hidden if self.gates is None else x.to(self.values) @ self.gates.to(self.values).T
        return torch.where(open_ >= 0, hidden, 0) @ self.signs

    def network(self) -> nn.Sequential:
        """The network as torch's layers.

        Raises:
            ValueError: for gates that were given: such a network is no ReLU network.
        """
        if self.gates is not None:
            raise ValueError("neurons with gates of their own are no ReLU network; predict(x) computes their outputs")
        net = nn.Sequential(
            nn.Linear(self.features, len(self.signs), bias=False), nn.ReLU(), nn.Linear(len(self.signs), 1, bias=False)
        )
        net[0].weight = nn.Parameter(self.weights())
        net[2].weight = nn.Parameter(self.signs[None])
        return net


@torch.no_grad()
def recover(
    x: Tensor,
    y: Tensor,
    keep: Keep,
    *,
    neurons: int = 16,
    gates: Tensor | None = None,
    signs: Tensor | None = None,
    steps: int = 50,
    polish: int = 3,
    seed: int = 0,
) -> Recovered:
    r"""Fit a two-layer ReLU network with few weights, by adaptive iterative hard thresholding.

    With gates :math:`D_j = \operatorname{diag}(1[X h_j \ge 0])` the network is linear in its weights, and its columns
    :math:`A = [\sigma_j D_j X]_j` are made block by block:

    .. math:: w \leftarrow H_s\big(w - \mu A^\top (A w - y)\big), \qquad \mu = \|g_S\|^2 / \|A g_S\|^2

    with g the gradient, S its present support, and :math:`H_s` the s largest; then some gradient steps on the support
    with Armijo's rule. Without ``gates`` :math:`h_j` is the present :math:`w_j`, so that
    :math:`D_j X w_j = \max(0, X w_j)`; the gate of a neuron without weights is drawn at random in every step. A step
    takes memory for x, for one block of activations and slopes, and for 2 s weights.

    Args:
        x: inputs ``[n, d]``.
        y: outputs ``[n]``.
        keep: the kept fraction of all :math:`p \cdot d` weights; s = max(1, ceil(keep p d)).
        neurons: p, if ``gates`` does not say it.
        gates: h ``[p, d]``, of neurons that open by vectors of their own; None: a ReLU network.
        signs: :math:`\sigma` ``[p]``, of each neuron in the output; None: 1.
        steps: at most; it ends early once the outputs are met to 1e-10.
        polish: gradient steps on the support after each.
        seed: of the first gates.

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, or numbers out of range.
        TypeError: for tensors that are no floating-point ones.

    Source: adaptive iterative hard thresholding for sparse neural networks (the convex form: Pilanci & Ergen, ICML
    2020); Blumensath & Davies 2010 for the step size.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x, gates = (torch.randn(n, 8, generator=generator).double() for n in (400, 4))
        >>> planted = torch.zeros(4, 8).double()
        >>> planted[[0, 1, 3], [2, 5, 7]] = torch.tensor([1.0, -2.0, 3.0]).double()
        >>> y = torch.where(x @ gates.T >= 0, x @ planted.T, 0).sum(1)
        >>> found = recover(x, y, keep="3/32", gates=gates)
        >>> found.neurons.tolist(), found.inputs.tolist(), bool(torch.allclose(found.weights(), planted))
        ([0, 1, 3], [2, 5, 7], True)
    """
    net = _Net(x, y, neurons, gates, signs, check_seed(seed))
    s = kept_count(keep, net.neurons * net.features)
    steps, polish = whole_number(steps, "steps", least=1), whole_number(polish, "polish", least=0)
    weights = _Weights(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64))
    losses = []
    for step in range(steps):
        net.step = step
        residual = net.outputs(weights) - net.y
        losses.append(float(residual.square().mean()) / 2)
        if float(residual.abs().max()) <= _MET * float(net.y.abs().max()):
            break
        weights = net.stepped(weights, residual, s)
        for _ in range(polish):
            weights = net.polished(weights)
    else:
        net.step = steps
        losses.append(float((net.outputs(weights) - net.y).square().mean()) / 2)
    order, d = weights.places.argsort(), net.features
    places = weights.places[order]
    return Recovered(places // d, places % d, weights.values[order], net.signs, gates, losses, d)


@dataclass(frozen=True)
class _Weights:
    """Weights that are not zero: their places in the flattened matrix ``[p d]``, and their values."""

    places: Tensor
    values: Tensor

    def rows(self, neurons: Tensor, d: int) -> Tensor:
        """Those of some neurons (ascending), dense ``[B, d]``."""
        found = torch.zeros(len(neurons), d, dtype=self.values.dtype)
        row = torch.searchsorted(neurons, self.places // d).clamp(max=len(neurons) - 1)
        own = neurons[row] == self.places // d
        found[row[own], self.places[own] % d] = self.values[own]
        return found

    def plus(self, change: Tensor, factor: float) -> _Weights:
        return _Weights(self.places, self.values + factor * change)


class _Net:
    """The convex form, block by block."""

    def __init__(
        self, x: Tensor, y: Tensor, neurons: int, gates: Tensor | None, signs: Tensor | None, seed: int
    ) -> None:
        for name, tensor in (("x", x), ("y", y), ("gates", gates), ("signs", signs)):
            if tensor is not None:
                check_tensor(name, tensor)
                check_finite(tensor, name)
        if x.dim() != 2 or y.shape != x.shape[:1] or not x.numel():
            raise ValueError(f"x is [n, d] and y [n], got {[*x.shape]} and {[*y.shape]}")
        if gates is not None and (gates.dim() != 2 or gates.shape[1] != x.shape[1] or not len(gates)):
            raise ValueError(f"gates are [p, {x.shape[1]}], got {[*gates.shape]}")
        self.x, self.y, self.seed, self.step = x.detach().cpu().double(), y.detach().cpu().double(), seed, 0
        self.gates = None if gates is None else gates.detach().cpu().double()
        self.neurons = whole_number(neurons, "neurons", least=1) if gates is None else len(gates)
        self.features = x.shape[1]
        if signs is not None and signs.shape != (self.neurons,):
            raise ValueError(f"signs are [{self.neurons}], one a neuron, got {[*signs.shape]}")
        self.signs = torch.ones(self.neurons).double() if signs is None else signs.detach().cpu().double()

    def outputs(self, at: _Weights, of: _Weights | None = None) -> Tensor:
        """A times some weights, with the gates that are open at others."""
        total = torch.zeros_like(self.y)
        for neurons in self._blocks(at.places if of is None else of.places):
            rows = (at if of is None else of).rows(neurons, self.features)
            total += torch.where(self._open(neurons, at), self.x @ rows.T, 0) @ self.signs[neurons]
        return total

    def stepped(self, at: _Weights, residual: Tensor, s: int) -> _Weights:
        """A gradient step, of which the largest stay."""
        start = at if len(at.places) else self._largest(at, residual, s, rate=None)
        slope = self.gradient(start.places, at, residual)
        along = self.outputs(at, _Weights(start.places, slope)).square().sum()
        rate = float(slope.square().sum() / along) * len(self.y) if along > 0 else 1.0
        return self._largest(at, residual, s, rate)

    def polished(self, at: _Weights) -> _Weights:
        """A gradient step on the support, halved until the loss falls as it should."""
        residual = self.outputs(at) - self.y
        slope = self.gradient(at.places, at, residual)
        size, loss = float(slope.square().sum()), float(residual.square().sum()) / 2 / len(self.y)
        along = float(self.outputs(at, _Weights(at.places, slope)).square().sum())
        rate = size / along * len(self.y) if along > 0 else 0.0
        for _ in range(30):
            new = at.plus(slope, -rate)
            if float((self.outputs(new) - self.y).square().sum()) / 2 / len(self.y) <= loss - _SLOPE * rate * size:
                return new
            rate /= 2
        return at

    def gradient(self, places: Tensor, at: _Weights, residual: Tensor) -> Tensor:
        """The slope of half the mean squared error at some places."""
        found = torch.zeros(len(places), dtype=torch.float64)
        for neurons in self._blocks(places):
            slopes = self._slopes(neurons, at, residual)
            row = torch.searchsorted(neurons, places // self.features).clamp(max=len(neurons) - 1)
            own = neurons[row] == places // self.features
            found[own] = slopes[row[own], places[own] % self.features]
        return found

    def _largest(self, at: _Weights, residual: Tensor, s: int, rate: float | None) -> _Weights:
        """The s largest of all weights after a step (without a rate: of the slopes), block by block."""
        best = _Weights(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64))
        for neurons in self._blocks(None):
            slopes = self._slopes(neurons, at, residual)
            values = (slopes if rate is None else at.rows(neurons, self.features) - rate * slopes).reshape(-1)
            kept = top_mask(values.abs(), min(s, len(values)))
            places = (neurons[:, None] * self.features + torch.arange(self.features)).reshape(-1)
            joined = torch.cat([best.values, values[kept]])
            top = top_mask(joined.abs(), min(s, len(joined)))
            best = _Weights(torch.cat([best.places, places[kept]])[top], joined[top])
        return best

    def _slopes(self, neurons: Tensor, at: _Weights, residual: Tensor) -> Tensor:
        weighted = residual[:, None] * self.signs[neurons] / len(self.y)
        return torch.where(self._open(neurons, at), weighted, 0).T @ self.x

    def _open(self, neurons: Tensor, at: _Weights) -> Tensor:
        """Which examples pass each neuron's gate, bool ``[n, B]``."""
        if self.gates is not None:
            return self.x @ self.gates[neurons].T >= 0
        gates = at.rows(neurons, self.features)
        empty = ~gates.any(1)
        if bool(empty.any()):
            positions = neurons[empty, None] * self.features + torch.arange(self.features)
            drawn = mix64(self.seed, positions.reshape(-1).numpy() + self.step * self.neurons * self.features)
            gates[empty] = torch.from_numpy(drawn >> np.uint64(11)).double().view(-1, self.features) * 2.0**-53 - 0.5
        return self.x @ gates.T >= 0

    def _blocks(self, places: Tensor | None) -> Iterator[Tensor]:
        """Neurons that have weights at some places, or all, a few at a time."""
        neurons = torch.arange(self.neurons) if places is None else torch.unique(places // self.features)
        yield from neurons.split(max(1, _BLOCK // max(len(self.y), self.features)))
