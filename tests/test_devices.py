"""Every door with tensors on another device: one that only claims to be elsewhere, and a GPU where there is one.

``pytest -m cuda`` runs these on the GPU alone.
"""

import copy
import itertools

import pytest
import torch
from elsewhere import CPU, ELSEWHERE, Elsewhere, moved
from torch import nn
from torch_geometric.data import Data

import graphsparse as gs

SIZES = {"edge_keep": 0.7, "weight_keep": 0.6, "epochs": 2}
FINDERS = [
    *("teddy", "ugs", "wd-glt", "reliance", "reliance-blind", "imp", "random-weights", "no-edges"),
    *("mixture", "denoise", "dense-student"),
]


@pytest.fixture(params=["elsewhere", pytest.param("cuda", marks=pytest.mark.cuda)])
def place(request):
    """Another device than the CPU."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")
        yield torch.device("cuda", torch.cuda.current_device())
        return
    gs.metanet.clear_cache()  # what an earlier test has left elsewhere is not known there any more
    with Elsewhere():
        yield ELSEWHERE
    gs.metanet.clear_cache()


def to(place, data):
    """A copy of a graph, or of a list of them, whose tensors lie there (the pretended device knows no `Data.to`)."""
    if isinstance(data, list):
        return [to(place, item) for item in data]
    other = copy.copy(data)
    for name, value in data.to_dict().items():
        if isinstance(value, torch.Tensor):
            other[name] = value.to(place)
    return other


@pytest.fixture(scope="module")
def blocks():
    """Four blocks of 40 nodes with more edges within, noisy features, a loop, and weights on the arcs."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(160) // 40
    pairs = torch.randint(160, (2, 2000), generator=generator)
    pairs = pairs[:, (pairs[0] < pairs[1]) & ((y[pairs[0]] == y[pairs[1]]) | (torch.arange(2000) % 8 == 0))]
    edge_index = torch.cat([pairs, pairs.flip(0), torch.tensor([[1], [1]])], dim=1)
    x = torch.nn.functional.one_hot(y, 4).float() + torch.randn(160, 4, generator=generator)
    part = torch.randperm(160, generator=generator)
    masks = {name: torch.zeros(160, dtype=torch.bool) for name in ("train_mask", "val_mask", "test_mask")}
    for mask, (low, high) in zip(masks.values(), ((0, 40), (40, 80), (80, 160)), strict=True):
        mask[part[low:high]] = True
    return Data(x=x, edge_index=edge_index, y=y, num_classes=4, **masks)


def gcn():
    torch.manual_seed(0)
    return gs.nn.make("gcn", 4, 4, 16, dropout=0.0)  # every device draws its own


def same(one, other):
    return torch.equal(one.cpu(), other.cpu())


class TestEdges:
    @pytest.mark.parametrize("method", sorted(gs.edges.SCORES))
    def test_every_score_chooses_the_same_edges_and_answers_there(self, blocks, place, method):
        there = to(place, blocks)
        small = gs.sparsify(there, method, keep=0.5)
        assert small.edge_index.device == small.x.device == place
        assert same(small.edge_index, gs.sparsify(blocks, method, keep=0.5).edge_index)
        scores = gs.edges.score(there, method)
        assert scores.device == place
        assert torch.allclose(scores.cpu(), gs.edges.score(blocks, method), rtol=1e-9)

    @pytest.mark.parametrize("rules", [{"guard": "cover"}, {"guard": "isolated"}, {"forest": True}, {}, {"seed": 4}])
    def test_every_guard(self, blocks, place, rules):
        scores = gs.edges.score(blocks, "teddy")
        for at in (place, CPU):  # scores there, arcs there or here
            mask = gs.edges.keep_mask(scores.to(place), blocks.edge_index.to(at), keep=0.6, **rules)
            assert mask.device == at
            assert same(mask, gs.edges.keep_mask(scores, blocks.edge_index, keep=0.6, **rules))

    def test_samples_and_edges_of_each_node(self, blocks, place):
        drawn, here = (gs.edges.sample(graph, keep=0.3, seed=2) for graph in (to(place, blocks), blocks))
        assert drawn.edge_weight.device == place
        assert same(drawn.edge_index, here.edge_index)
        assert same(drawn.edge_weight, here.edge_weight)
        few, here = (gs.sparsify(graph, "jaccard", per_node=2).edge_index for graph in (to(place, blocks), blocks))
        assert few.device == place
        assert same(few, here)


class TestWeights:
    @pytest.mark.parametrize("distribution", ["global", "uniform", "erk"])
    def test_projections_in_training(self, place, distribution):
        def trained(device):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 4)).to(device)
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            projection = gs.params.L0Projection(net, sparsity=0.7, distribution=distribution).attach(optimizer)
            inputs = torch.arange(36.0).view(4, 9).to(device) / 36
            for _ in range(3):
                optimizer.zero_grad()
                net(inputs).square().sum().backward()
                optimizer.step()
            return net, projection

        (net, _), (plain, _) = trained(place), trained(CPU)
        assert net[0].weight.device == place
        assert gs.params.weights_kept(net) == gs.params.weights_kept(plain)
        for one, other in zip(net.parameters(), plain.parameters(), strict=True):
            assert same(one != 0, other != 0)

    @pytest.mark.parametrize(
        "project",
        [
            lambda tensors: gs.params.project_l0_(tensors, keep=0.3),
            lambda tensors: gs.params.project_groups_(tensors, keep=0.5),
            lambda tensors: gs.params.project_nm_(tensors, 2, 4),
        ],
        ids=["l0", "groups", "2:4"],
    )
    def test_every_pattern(self, place, project):
        here = [torch.randn(8, 16, generator=torch.Generator().manual_seed(n)) for n in range(2)]
        there = [tensor.clone().to(place) for tensor in here]
        masks, expected = project(there), project(here)
        assert all(mask.device == place for mask in masks)
        assert all(same(mask, other) for mask, other in zip(masks, expected, strict=True))
        assert all(same(tensor, other) for tensor, other in zip(there, here, strict=True))


class TestTickets:
    @pytest.mark.parametrize(
        ("method", "moved_part"),
        [*((method, "model") for method in FINDERS), *itertools.product(["teddy", "reliance"], ["device", "data"])],
    )
    def test_model_and_data_may_lie_in_two_places(self, blocks, place, method, moved_part):
        """``net.cuda()`` with data on the CPU, ``device="cuda"``, and data on the GPU with a model on the CPU."""
        plain = gs.find_ticket(gcn(), blocks, method=method, **SIZES)
        model = moved(gcn(), place) if moved_part == "model" else gcn()
        data = to(place, blocks) if moved_part == "data" else blocks
        options = {"device": place} if moved_part == "device" else {}
        ticket = gs.find_ticket(model, data, method=method, **SIZES, **options)
        assert ticket.edge_mask.device == ticket.logits.device == CPU
        ticket.verify(blocks, model=moved(gcn(), place))
        ticket.verify(data, model=gcn())
        assert ticket.metrics["macs"] == plain.metrics["macs"]
        if place == ELSEWHERE:  # the same sums in truth
            assert torch.equal(plain.edge_mask, ticket.edge_mask)
            assert torch.allclose(plain.logits, ticket.logits, atol=1e-4)

    @pytest.mark.parametrize("backbone", sorted(gs.nn.BACKBONES))
    def test_every_backbone(self, blocks, place, backbone):
        torch.manual_seed(0)
        net = gs.nn.make(backbone, 4, 4, 8)
        ticket = gs.find_ticket(net, blocks, device=place, **SIZES)
        small = ticket.apply_to(moved(net, place))
        assert next(small.parameters()).device == place
        ticket.verify(blocks, model=net)

    @pytest.mark.parametrize(
        "options",
        [{"batch_size": 32, "neighbors": (5, 5)}, {"pattern": "units"}, {"weight_distribution": "erk"}],
        ids=["batches", "units", "erk"],
    )
    def test_batches_units_and_distributions(self, blocks, place, options):
        ticket = gs.find_ticket(moved(gcn(), place), blocks, method="teddy", **SIZES, **options)
        assert ticket.logits.device == CPU
        ticket.verify(blocks, model=gcn())
        assert next(ticket.apply_to(moved(gcn(), place)).parameters()).device == place


class TestRuns:
    def test_a_run_goes_on_on_another_device(self, blocks, place, tmp_path):
        task = gs.fit.NodeTask(blocks)
        path = tmp_path / "run.safetensors"
        gs.fit.fit(moved(gcn(), place), task, epochs=4, checkpoint=path, checkpoint_every=2)
        whole = gs.fit.fit(gcn(), gs.fit.NodeTask(blocks), epochs=4)
        here = gs.fit.fit(gcn(), gs.fit.NodeTask(blocks), epochs=4, checkpoint=path, checkpoint_every=2)
        assert here.logits.device == CPU
        assert torch.allclose(here.logits, whole.logits.cpu(), atol=1e-3)


def images(device):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(48, 3, 8, 8, generator=generator).to(device), (torch.arange(48) % 3).to(device)
    return gs.Task((x[:32], y[:32]), (x[32:40], y[32:40]), (x[40:], y[40:]), batch_size=16)


def cnn():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )


class TestNetworks:
    @pytest.mark.parametrize("mode", [None, "repair", "change"])
    @pytest.mark.parametrize("images_at", ["there", "here"])
    def test_a_network_is_pruned_where_it_lies(self, place, mode, images_at):
        net, task = moved(cnn(), place), images(place if images_at == "there" else CPU)
        graph = gs.metanet.NetworkGraph.from_module(net, torch.zeros(1, 3, 8, 8, device=place))
        assert all(parameter.device == place for parameter in graph.to_module().parameters())
        metanet = None
        if mode is not None:
            torch.manual_seed(1)
            metanet = moved(gs.metanet.MetaNetwork.for_graph(graph, mode=mode, hidden=8, layers=1), place)
        recipe = gs.metanet.FineTune(epochs=1)
        result = gs.metanet.prune(net, metanet, task, speedup=1.5, fine_tune=recipe, prepare=recipe)
        assert all(parameter.device == place for parameter in result.module.parameters())
        assert result.speedup >= 1.5

    def test_least_squares_and_their_criteria_work_where_the_network_lies(self, place):
        net, task, recipe = moved(cnn(), place), images(place), gs.metanet.FineTune(epochs=1, distill=1.0)
        parts = {"residual": True, "rescale": True}
        result = gs.metanet.prune(
            net, None, task, speedup=1.5, criterion="obs-fisher", reconstruct=parts, fine_tune=recipe
        )
        assert all(parameter.device == place for parameter in result.module.parameters())
        fewer = gs.metanet.prune_weights(net, None, task, pattern="2:4", reconstruct=True, fine_tune=recipe)
        assert all(parameter.device == place for parameter in fewer.module.parameters())

    @pytest.mark.parametrize("objective", sorted(gs.metanet.OBJECTIVES))
    def test_a_metanetwork_learns_there(self, place, objective):
        net, task = moved(cnn(), place), images(place)
        graph = gs.metanet.NetworkGraph.from_module(net, torch.zeros(1, 3, 8, 8, device=place))
        learns = gs.metanet.OBJECTIVES[objective]()
        if objective == "nowcast":
            few = gs.metanet.Trajectories(count=2, after=(0, 1), fine_tune=gs.metanet.FineTune(epochs=1))
            learns = gs.metanet.Nowcast(few, epochs=(1,), data=0.5)
        torch.manual_seed(1)
        metanet = moved(gs.metanet.MetaNetwork.for_graph(graph, mode=learns.mode, hidden=8, layers=1), place)
        before = [parameter.detach().clone() for parameter in metanet.parameters()]
        gs.metanet.meta_train(metanet, [net], task, objective=learns, val_networks=[net], epochs=1, steps=2)
        assert any(not same(one, other) for one, other in zip(before, metanet.parameters(), strict=True))


def test_the_mode_tells_places_apart():
    with Elsewhere():
        here, there = torch.ones(3), torch.ones(3).to(ELSEWHERE)
        assert there.device == ELSEWHERE
        assert here.device == (there + 1).cpu().device == CPU
        assert (there * 2 + there.sum()).device == torch.zeros(2, device=ELSEWHERE).device == ELSEWHERE
        with pytest.raises(RuntimeError, match="same device"):
            here + there
        layer = nn.Linear(3, 2).to(ELSEWHERE)
        layer(there).sum().backward()
        assert layer.weight.device == layer.weight.grad.device == ELSEWHERE
        with pytest.raises(RuntimeError, match="same device"):
            layer(here)
