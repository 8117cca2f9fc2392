"""The metanetwork as an importance of Torch-Pruning."""

import pytest
import torch
import torch_pruning as tp
from metanet_networks import VGG, ResNet, images, same_bits
from torch import nn

from graphsparse.metanet import MetaImportance, MetaNetwork, NetworkGraph

PRUNERS = [tp.pruner.BasePruner, tp.pruner.GroupNormPruner]  # MetaPruner and MagnitudePruner are BasePruner
X = images(8)[0]


def resnet(seed=0):
    torch.manual_seed(seed)
    return ResNet(8, (8, 8, 12), option="B").eval()


def metanet_for(net, change=0.5, mode="change", x=X):
    """A metanetwork that does change weights: its decoders are random."""
    torch.manual_seed(1)
    metanet = MetaNetwork.for_graph(NetworkGraph.from_module(net, x), mode=mode, hidden=8, layers=1)
    with torch.no_grad():
        for decoder in metanet.edge_decoders.values():
            decoder.weight.normal_(0, change)
    return metanet


def test_scores_are_those_of_the_changed_weights_and_the_module_keeps_its_own():
    net = resnet()
    metanet = metanet_for(net)
    before, places = net.state_dict(), [p.data_ptr() for p in net.parameters()]
    before = {name: tensor.clone() for name, tensor in before.items()}
    importance = MetaImportance(metanet, net, X)
    plain = tp.importance.GroupMagnitudeImportance(p=2)
    with torch.no_grad():
        changed = metanet(NetworkGraph.from_module(net, X)).to_module()
    ours = tp.DependencyGraph().build_dependency(net, example_inputs=X)
    theirs = tp.DependencyGraph().build_dependency(changed.requires_grad_(True), example_inputs=X)
    groups = list(zip(ours.get_all_groups(), theirs.get_all_groups(), strict=True))
    for mine, other in groups:
        torch.testing.assert_close(importance(mine), plain(other))
    assert any(not torch.allclose(plain(mine), plain(other), rtol=1e-2) for mine, other in groups)
    assert same_bits(before, net.state_dict())
    assert places == [p.data_ptr() for p in net.parameters()]
    assert all(p.grad is None for p in net.parameters())


def test_an_untrained_metanetwork_scores_as_group_magnitude():
    net = resnet()
    importance = MetaImportance(metanet_for(net, change=0.0), net, X, group_reduction="sum", normalizer=None)
    plain = tp.importance.GroupMagnitudeImportance(p=2, group_reduction="sum", normalizer=None)
    for group in tp.DependencyGraph().build_dependency(net, example_inputs=X).get_all_groups():
        torch.testing.assert_close(importance(group), plain(group))


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("everywhere", [True, False])
def test_plugs_into_pruners_and_passes_once_a_step(pruner, everywhere):
    net = resnet()
    metanet = metanet_for(net)
    passes = []
    metanet.register_forward_hook(lambda module, args, output: passes.append(args[0].num_nodes))
    kept = {name: p.detach().clone() for name, p in net.named_parameters()}
    run = pruner(
        net,
        X,
        importance=MetaImportance(metanet, net, X),
        pruning_ratio=0.5,
        iterative_steps=3,
        global_pruning=everywhere,
        max_pruning_ratio=0.8,
        ignored_layers=[net.head],
    )
    sizes = []
    for _ in range(3):
        run.step()
        sizes.append(sum(p.numel() for p in net.parameters()))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    assert len(passes) == 3
    assert passes[0] > passes[1] > passes[2]
    assert net(X).shape == (2, 10)
    values = set(kept["stages.0.first.0.weight"].flatten().tolist())
    assert set(net.stages[0].first[0].weight.flatten().tolist()) <= values  # its own weights, fewer of them


def test_the_choice_is_the_metanetworks():
    """A metanetwork that changes weights chooses other channels than their magnitude."""
    chosen, large = [], images(16)[0]
    for change in (0.0, 3.0):
        torch.manual_seed(0)
        net = VGG().eval()
        importance = MetaImportance(metanet_for(net, change, x=large), net, large)
        tp.pruner.BasePruner(net, large, importance, pruning_ratio=0.5, ignored_layers=[net.classifier[-1]]).step()
        chosen.append(net.features[0].weight.detach().clone())
    assert chosen[0].shape == chosen[1].shape == (2, 3, 3, 3)
    assert not torch.equal(*chosen)


def test_training_between_steps_is_seen():
    net = resnet()
    metanet = metanet_for(net)
    passes = []
    metanet.register_forward_hook(lambda *_: passes.append(1))
    importance = MetaImportance(metanet, net, X)
    dependency = tp.DependencyGraph().build_dependency(net, example_inputs=X)
    group = dependency.get_pruning_group(net.stem[0], tp.prune_conv_out_channels, list(range(8)))
    first = importance(group)
    importance(group)
    assert len(passes) == 1
    with torch.no_grad():
        net.stem[0].weight[0] *= 10
    assert not torch.allclose(importance(group), first)
    assert len(passes) == 2


def test_weights_come_back_when_scoring_fails():
    net = resnet()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    importance = MetaImportance(metanet_for(net), net, X, normalizer="no such thing")
    group = next(iter(tp.DependencyGraph().build_dependency(net, example_inputs=X).get_all_groups()))
    with pytest.raises(NotImplementedError):
        importance(group)
    assert same_bits(before, net.state_dict())


def test_repair_is_refused_and_so_is_a_network_with_other_kernels():
    net = resnet()
    with pytest.raises(ValueError, match="needs a metanetwork of mode 'change', not 'repair'"):
        MetaImportance(metanet_for(net, mode="repair"), net, X)
    other = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(64, 2)).eval()
    group = next(iter(tp.DependencyGraph().build_dependency(other, example_inputs=X).get_all_groups()))
    with pytest.raises(ValueError, match="kernels of size 5"):
        MetaImportance(metanet_for(net), other, X)(group)
