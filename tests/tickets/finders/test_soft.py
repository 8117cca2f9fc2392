"""Soft masks: they reach every message and weight of untouched models, never a self-loop, and agree on both paths."""

import copy

import pytest
import torch
from torch_geometric.nn import (
    APPNP,
    ChebConv,
    EGConv,
    GATv2Conv,
    GCN2Conv,
    GCNConv,
    GraphUNet,
    RGCNConv,
    SAGEConv,
    SGConv,
    SSGConv,
)

import graphsparse as gs
from graphsparse.fit import NodeTask
from graphsparse.tickets import UGS, WDGLT
from graphsparse.tickets.finders.soft import MaskAdam, MaskedGraph, MaskTask, SoftMasks
from graphsparse.tickets.finders.ugs import L1Penalty

BACKBONES = ["gcn", "gin", "sage", "gat", "transformer"]


class Two(torch.nn.Module):
    """Two layers of PyG, as a user would write them."""

    def __init__(self, layer, **options):
        super().__init__()
        self.first, self.second = layer(4, 8, **options), layer(8, 3, **options)

    def forward(self, x, edge_index):
        return self.second(self.first(x, edge_index).tanh(), edge_index)


def models():
    torch.manual_seed(0)
    yield from ((name, gs.nn.make(name, 4, 3, 8, seed=0)) for name in BACKBONES)
    yield from ((layer.__name__, Two(layer)) for layer in (GCNConv, SAGEConv, GATv2Conv))
    yield "cached", Two(GCNConv, cached=True)


@pytest.fixture
def ring():
    """A directed and an undirected part, parallel arcs, and a self-loop at each node, last: arcs, units, features."""
    pairs = torch.tensor([[0, 1, 2, 3, 0, 0], [1, 2, 3, 4, 4, 1]])
    single = torch.tensor([[5, 5], [0, 4]])
    loops = torch.arange(6).expand(2, -1)
    arcs = torch.cat([pairs, pairs.flip(0), single, loops], dim=1)
    unit = torch.cat([torch.arange(6), torch.arange(6), torch.tensor([6, 7]), torch.full((6,), -1)])
    return arcs, unit, torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


def soften(model, ring, edges=None, which=()):
    arcs, unit, _ = ring
    edges = torch.rand(8, generator=torch.Generator().manual_seed(2)) + 0.5 if edges is None else edges
    weights = {name: torch.ones_like(model.get_parameter(name)) * 0.5 for name in which}
    return SoftMasks(copy.deepcopy(model), weights, edges, [MaskedGraph(arcs, unit)]).eval()


@pytest.mark.parametrize(("name", "model"), list(models()))
def test_masks_of_one_change_nothing_and_every_mask_reaches_the_outputs(name, model, ring):
    arcs, _, x = ring
    assert torch.allclose(soften(model, ring, torch.ones(8))(x, arcs), model.eval()(x, arcs), atol=1e-6)
    soft = soften(model, ring)
    soft(x, arcs).square().sum().backward()
    assert soft.edges.grad.abs().min() > 0


@pytest.mark.parametrize("name", BACKBONES)
def test_a_matrix_with_masks_gives_the_numbers_of_masked_messages(name, ring):
    arcs, _, x = ring
    model = gs.nn.make(name, 4, 3, 8, seed=0)
    names = [name for name, _ in model.named_parameters()]
    results = []
    for fast in (True, False):
        model.fast = model.fast and fast
        soft = soften(model, ring, which=names)
        outputs = soft(x, arcs)
        outputs.square().sum().backward()
        results.append([outputs, soft.edges.grad, *(mask.grad for mask in soft.weight_masks.values())])
    for fast, slow in zip(*results, strict=True):
        assert torch.allclose(fast, slow, rtol=1e-4, atol=1e-6)


def test_a_mask_scales_its_messages_after_normalisation(ring):
    arcs, unit, x = ring
    soft = soften(Two(SAGEConv, root_weight=False, aggr="sum"), ring)
    layer = soft.model.first
    mask = torch.cat([soft.edges.detach(), torch.ones(1)])[unit]
    by_hand = torch.zeros(6, 4).index_add(0, arcs[1], mask[:, None] * x[arcs[0]]) @ layer.lin_l.weight.t()
    by_hand = by_hand + layer.lin_l.bias
    seen = {}
    layer.register_forward_hook(lambda module, inputs, output: seen.update(output=output))
    soft(x, arcs)
    assert torch.allclose(seen["output"], by_hand, atol=1e-6)


def test_loops_that_do_not_come_last_are_refused():
    """As many loops added as removed: PyG would not notice that the masks are in another order than the messages."""
    arcs = torch.tensor([[0, 0, 1], [0, 1, 0]])
    with pytest.raises(ValueError, match="self-loops must come last"):
        SoftMasks(Two(GCNConv), {}, torch.ones(1), [MaskedGraph(arcs, torch.tensor([-1, 0, 0]))])


def test_another_graph_is_refused(ring):
    arcs, _, x = ring
    with pytest.raises(ValueError, match="not the one to be sparsified"):
        soften(Two(GCNConv), ring)(x, arcs[:, 1:])


def test_weights_are_masked_under_every_name_of_a_tied_one(ring):
    arcs, _, x = ring
    model = Two(SAGEConv)
    model.second = SAGEConv(8, 8)
    model.third = SAGEConv(8, 8)
    model.third.lin_l.weight = model.second.lin_l.weight
    model.forward = lambda x, e: model.third(model.second(model.first(x, e), e), e)
    soft = SoftMasks(model, {"second.lin_l.weight": torch.zeros(8, 8)}, torch.ones(8), [MaskedGraph(*ring[:2])]).eval()
    assert not soft.model.second.lin_l.weight.any()
    assert not soft.model.third.lin_l.weight.any()
    assert soft(x, arcs).isfinite().all()


@pytest.mark.parametrize("name", BACKBONES)
def test_the_state_of_a_masked_model_can_be_loaded_again(name, ring):
    """PyG's Linear lists its parametrized weight as one of its own and then refuses it."""
    model = gs.nn.make(name, 4, 3, 8, seed=0)
    soft = soften(model, ring, which=[name for name, _ in model.named_parameters()])
    arcs, _, x = ring
    before, state = soft(x, arcs), {key: value.clone() for key, value in soft.state_dict().items()}
    with torch.no_grad():
        for parameter in soft.parameters():
            parameter.zero_()
    soft.load_state_dict(state)
    assert torch.equal(soft(x, arcs), before)


def test_the_penalty_adds_its_sign_to_the_gradient_and_nothing_at_zero(ring):
    arcs, _, x = ring
    model = gs.nn.make("gcn", 4, 3, 8, seed=0)
    edges = torch.tensor([1.0, -0.5, 0.0, 0.3, 0.2, 0.1, -0.1, 0.7])
    plain, pressed = (soften(model, ring, edges.clone(), ["convs.0.lin.weight"]) for _ in range(2))
    plain(x, arcs).sum().backward()
    L1Penalty(0.25, 0.125)(pressed, pressed(x, arcs).sum(), None, None).backward()
    assert torch.allclose(pressed.edges.grad - plain.edges.grad, 0.25 * edges.sign(), atol=1e-5)
    (mask,), (other,) = pressed.weight_masks.values(), plain.weight_masks.values()
    assert torch.allclose(mask.grad - other.grad, torch.full_like(mask, 0.125), atol=1e-5)


def test_weight_decay_is_the_weights_alone(ring):
    soft = soften(gs.nn.make("gcn", 4, 3, 8, seed=0), ring, which=["convs.0.bias"])
    optimizer = MaskAdam(soft)(list(soft.parameters()), lr=0.1, weight_decay=0.5)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(soft.edges)] == decay[id(soft.weight_masks["convs.0.bias"])] == 0
    assert len(decay) == len(list(soft.parameters())) == list(decay.values()).count(0.5) + 2


class Reached(torch.nn.Module):
    """A linear map, then one layer that may cache what it made of the graph, of the features, or of both."""

    def __init__(self, layer):
        super().__init__()
        self.lin, self.layer = torch.nn.Linear(4, 4), layer

    def forward(self, x, edge_index):
        if isinstance(self.layer, GCN2Conv):
            return self.layer(self.lin(x), self.lin(x), edge_index)
        return self.layer(x if isinstance(self.layer, (SGConv, SSGConv)) else self.lin(x), edge_index)


CACHING = {
    "gcn": lambda: GCNConv(4, 4, cached=True),
    "sgc": lambda: SGConv(4, 4, K=2, cached=True),
    "ssgc": lambda: SSGConv(4, 4, alpha=0.1, K=2, cached=True),
    "cheb": lambda: ChebConv(4, 4, K=3),
    "appnp": lambda: APPNP(3, 0.1, cached=True),
    "gcn2": lambda: GCN2Conv(4, 0.1, cached=True),
    "eg": lambda: EGConv(4, 4, num_heads=2, num_bases=2, cached=True),
}


@pytest.mark.parametrize("name", CACHING)
@pytest.mark.parametrize("objective", [UGS().objective, WDGLT().objective], ids=["ugs", "wd-glt"])
def test_layers_that_cache_have_edge_gradients_in_every_step(blocks, name, objective):
    """SGConv(cached=True) keeps masked features: from the second step on no edge mask had a gradient."""
    torch.manual_seed(0)
    task = NodeTask(blocks)
    loops = blocks.edge_index[0] == blocks.edge_index[1]
    arcs = torch.cat([blocks.edge_index[:, ~loops], blocks.edge_index[:, loops]], dim=1)
    unit = torch.where(arcs[0] == arcs[1], -1, torch.arange(arcs.size(1)))
    soft = SoftMasks(Reached(CACHING[name]()), {}, torch.ones(int((~loops).sum())), [MaskedGraph(arcs, unit)])
    session = MaskTask(task.with_edges(arcs), soft, objective).start(soft, torch.device("cpu"))
    for _ in range(3):
        soft.zero_grad()
        next(iter(session.losses())).backward()
        penalty = objective.penalty.edges if hasattr(objective, "penalty") else objective.edges
        learned = soft.edges.grad - penalty * soft.edges.detach().sign()
        assert float((learned.abs() > 1e-9).float().mean()) > 0.2
        with torch.no_grad():
            soft.edges -= 0.1 * soft.edges.grad.sign()


class ByRelation(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = RGCNConv(4, 4, 2)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index, edge_index.sum(0) % 2)


@pytest.mark.parametrize("method", ["ugs", "wd-glt"])
@pytest.mark.parametrize(
    ("model", "layer"), [(ByRelation, "RGCNConv"), (lambda: GraphUNet(4, 8, 4, depth=2), "GCNConv")]
)
def test_layers_whose_messages_have_no_mask_each_are_told_before_training(blocks, method, model, layer, monkeypatch):
    monkeypatch.setattr("graphsparse.tickets.find.train_dense", lambda problem: pytest.fail("it was trained"))
    with pytest.raises(ValueError, match=rf"sends messages along other edges than the graph's, in {layer}: "):
        gs.find_ticket(model(), blocks, method=method, edge_keep=0.8, epochs=2)
