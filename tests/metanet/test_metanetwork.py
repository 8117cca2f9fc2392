"""The metanetwork: the identity at first, the same for permuted networks, exact on disk, clear about what it lacks."""

import copy
import json

import pytest
import torch
from metanet_networks import MLP, SHALLOW, ResNet, graph_of, images, make, same_bits
from safetensors.torch import load as from_bytes
from safetensors.torch import save
from torch import nn

from graphsparse.errors import DataError
from graphsparse.fit.fingerprint import model_hash
from graphsparse.hashing import named_hash
from graphsparse.metanet import Channels, MetaNetwork, NetworkGraph, Past, masked, metanetwork, pretrained
from graphsparse.metanet.features import KINDS, RELATIONS, group_rank, wiring
from graphsparse.nn import make_cnn


def some_mask(graph, seed=0, share=0.3):
    """A keep mask that drops about a share of the prunable sets, and never a whole group."""
    channels = Channels.of(graph)
    generator = torch.Generator().manual_seed(seed)
    gone = channels.prunable & (torch.rand(len(channels.group_of), generator=generator) < share)
    first = torch.tensor([int((channels.group_of == g).nonzero()[0]) for g in range(len(channels.layers))])
    gone[first] = False
    return channels.of_nodes(~gone)


def random_metanet(*graphs, mode="repair", hidden=8, layers=2, seed=0, dtype=torch.float32):
    """A metanetwork whose decoders are not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        metanet = MetaNetwork.for_graph(*graphs, mode=mode, hidden=hidden, layers=layers)
        for decoder in [*metanet.bank_decoders.values(), *metanet.edge_decoders.values()]:
            nn.init.normal_(decoder.weight, std=0.5)
            nn.init.normal_(decoder.bias, std=0.2)
    return metanet.to(dtype).eval()


def noisy(module, seed):
    """A copy with other weights, near these."""
    generator = torch.Generator().manual_seed(seed)
    again = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return again


def past_of(graph, seed=0, change=lambda module: module):
    """Four earlier states; ``change`` is done to each of them."""
    module = graph.to_module()
    return Past(tuple(graph.with_module(change(noisy(module, seed + number))) for number in range(4)), 8, 64)


def arguments_of(metanet, graph, seed=0):
    if metanet.mode == "nowcast":
        return graph, None, past_of(graph, seed)
    return (graph, some_mask(graph, seed)) if metanet.mode == "repair" else (graph,)


def same_values(left, right):
    return all(torch.equal(left.edges[k].values, right.edges[k].values) for k in right.edges) and all(
        torch.equal(left.banks[n].values, right.banks[n].values) for n in right.banks
    )


@pytest.mark.parametrize("name", SHALLOW)
def test_untrained_changes_nothing(name):
    module, _, graph = graph_of(name)
    change = MetaNetwork.for_graph(graph, mode="change", hidden=4, layers=1)
    repair = MetaNetwork.for_graph(graph, mode="repair", hidden=4, layers=1)
    nowcast = MetaNetwork.for_graph(graph, mode="nowcast", hidden=4, layers=1)
    keep = some_mask(graph)
    with torch.no_grad():
        assert same_bits(nowcast(graph, past=past_of(graph)).to_state_dict(), module.state_dict())
        assert same_bits(change(graph).to_state_dict(), module.state_dict())
        assert same_values(repair(graph, keep), masked(graph, keep))


@pytest.mark.parametrize("mode", ["change", "repair", "nowcast"])
@pytest.mark.parametrize("name", SHALLOW)
def test_a_random_one_changes_weights_and_norms_but_no_running_statistics(name, mode):
    _, _, graph = graph_of(name)
    metanet = random_metanet(graph, mode=mode, hidden=4, layers=1)
    with torch.no_grad():
        changed = metanet(*arguments_of(metanet, graph))
    for kernel, edges in graph.edges.items():
        assert torch.isfinite(changed.edges[kernel].values).all()
        assert not torch.equal(changed.edges[kernel].values, edges.values)
    for bank, before in graph.banks.items():
        assert torch.isfinite(changed.banks[bank].values).all()
        assert torch.equal(changed.banks[bank].values, before.values) == before.input_only


@pytest.mark.parametrize("name", ["mlp", "resnet20-downsampled", "mobilenet", "densenet", "inception"])
def test_dropped_channels_are_zero_and_the_others_are_not(name):
    _, _, graph = graph_of(name)
    metanet, keep = random_metanet(graph), some_mask(graph)
    assert not keep.all()
    with torch.no_grad():
        repaired = metanet(graph, keep)
    for edges in repaired.edges.values():
        stays = keep[edges.src] & keep[edges.dst]
        assert not edges.values[~stays].any()
        assert edges.values[stays].any(1).all()
    for bank in repaired.banks.values():
        if not bank.input_only:
            assert not bank.values[~keep[bank.nodes]].any()


def test_the_repair_of_what_stays_depends_on_what_goes():
    _, _, graph = graph_of("resnet20")
    metanet, masks = random_metanet(graph), [some_mask(graph, seed) for seed in (1, 2)]
    with torch.no_grad():
        first, second = (metanet(graph, keep) for keep in masks)
    both = masks[0] & masks[1]
    for kernel, edges in graph.edges.items():
        stays = both[edges.src] & both[edges.dst]
        gap = (first.edges[kernel].values - second.edges[kernel].values).abs().amax(1)
        assert (gap[stays] > 0).float().mean() > 0.9


def permuted_mlp(net, permutations):
    """The same function with its hidden neurons in another order."""
    linears = [layer for layer in net if isinstance(layer, nn.Linear)]
    again = MLP(linears[0].in_features, *(layer.out_features for layer in linears))
    order = torch.arange(linears[0].in_features)
    for old, new, permutation in zip(
        linears, [layer for layer in again if isinstance(layer, nn.Linear)], permutations, strict=True
    ):
        new.weight.data = old.weight.data[permutation][:, order].clone()
        new.bias.data = old.bias.data[permutation].clone()
        order = permutation
    return again.to(linears[0].weight.dtype).eval()


@pytest.mark.parametrize("mode", ["change", "repair", "nowcast"])
def test_permuting_neurons_permutes_the_result(mode):
    generator = torch.Generator().manual_seed(3)
    net = MLP(5, 7, 6, 4).double()
    permutations = [torch.randperm(7, generator=generator), torch.randperm(6, generator=generator), torch.arange(4)]
    other = permuted_mlp(net, permutations)
    inputs = torch.zeros(2, 5, dtype=torch.float64)
    graph, moved = NetworkGraph.from_module(net, inputs), NetworkGraph.from_module(other, inputs)
    metanet = random_metanet(graph, mode=mode, dtype=torch.float64)
    # nodes of an MLP are numbered layer by layer: inputs, then each layer's neurons
    nodes = torch.cat([torch.arange(5), *(start + p for start, p in zip((5, 12, 18), permutations, strict=True))])
    keep = torch.ones(22, dtype=torch.bool)
    keep[[6, 9, 14]] = False
    masks = ((keep,), (keep[nodes],)) if mode == "repair" else ((), ())
    if mode == "nowcast":
        before = [noisy(net, seed) for seed in range(4)]
        there = [permuted_mlp(each, permutations) for each in before]
        pasts = [Past(tuple(map(g.with_module, nets)), 8, 64) for g, nets in ((graph, before), (moved, there))]
        masks = tuple((None, past) for past in pasts)
    with torch.no_grad():
        expected = permuted_mlp(metanet(graph, *masks[0]).to_module(), permutations).state_dict()
        found = metanet(moved, *masks[1]).to_module().state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-11)


def permuted_resnet(net, seed=0):
    """The channels of each residual stage, and inside each block, in another order; option B, so that stages part."""
    generator = torch.Generator().manual_seed(seed)
    again = ResNet(8, option="B").double()
    again.load_state_dict(net.state_dict())
    order = None

    def reorder(pair, incoming, outgoing):
        pair[0].weight.data = pair[0].weight.data[outgoing]
        if incoming is not None:
            pair[0].weight.data = pair[0].weight.data[:, incoming]
        for tensor in (pair[1].weight, pair[1].bias, pair[1].running_mean, pair[1].running_var):
            tensor.data = tensor.data[outgoing]

    with torch.no_grad():
        stage = torch.randperm(again.stem[0].out_channels, generator=generator)
        reorder(again.stem, None, stage)
        for block in again.stages:
            before, inner = stage, torch.randperm(block.first[0].out_channels, generator=generator)
            if block.shortcut is not None:
                stage = torch.randperm(block.second[0].out_channels, generator=generator)
                reorder(block.shortcut, before, stage)
            reorder(block.first, before, inner)
            reorder(block.second, inner, stage)
            order = stage
        again.head.weight.data = again.head.weight.data[:, order]
    return again.eval()


@pytest.mark.parametrize("mode", ["change", "repair", "nowcast"])
def test_permuting_channels_of_a_residual_network_changes_nothing_of_the_function(mode):
    torch.manual_seed(0)
    net = ResNet(8, option="B").double().eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data.uniform_(0.5, 1.5)
            part.bias.data.normal_()
    other = permuted_resnet(net)
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(other(x), net(x))
    graphs = [NetworkGraph.from_module(each, x[:1]) for each in (net, other)]
    metanet = random_metanet(graphs[0], mode=mode, dtype=torch.float64)
    masks = []
    for graph in graphs:  # drop the least third of every group: sets that correspond
        channels = Channels.of(graph)
        rank = group_rank(graph)
        masks.append(~(channels.of_nodes(channels.prunable) & (rank < -0.2)))
    assert not masks[0].all()
    before = [noisy(net, seed) for seed in range(4)]
    given = {
        "change": [(), ()],
        "repair": [(mask,) for mask in masks],
        "nowcast": [
            (None, Past(tuple(graphs[0].with_module(each) for each in before), 8, 64)),
            (None, Past(tuple(graphs[1].with_module(permuted_resnet(each)) for each in before), 8, 64)),
        ],
    }[mode]
    with torch.no_grad():
        outputs = [metanet(graph, *more).to_module().eval()(x) for graph, more in zip(graphs, given, strict=True)]
    assert not torch.allclose(outputs[0], net(x))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-8, atol=1e-9)


def test_one_metanetwork_works_on_other_widths_and_depths():
    _, _, graph = graph_of("resnet20")
    metanet = random_metanet(graph)
    for depth, widths in ((8, (5, 5, 5)), (26, (3, 4, 10))):
        net = ResNet(depth, widths).eval()
        other = NetworkGraph.from_module(net, images())
        with torch.no_grad():
            changed = metanet(other, some_mask(other)).to_module()
        assert changed(images()[0]).shape == (2, 10)


def test_a_missing_kernel_size_is_named():
    _, _, graph = graph_of("mlp")
    _, _, other = graph_of("resnet20-downsampled")
    metanet = MetaNetwork.for_graph(graph, mode="change", hidden=4, layers=1)
    with pytest.raises(ValueError, match=r"kernels of size 1x1, 3x3.*knows linear"):
        metanet(other)


def test_keep_is_given_exactly_in_repair_mode_and_must_be_a_mask():
    _, _, graph = graph_of("mlp")
    keep = torch.ones(graph.num_nodes, dtype=torch.bool)
    change, repair = (MetaNetwork.for_graph(graph, mode=mode, hidden=4, layers=1) for mode in ("change", "repair"))
    with pytest.raises(ValueError, match="takes no keep"):
        change(graph, keep)
    with pytest.raises(ValueError, match="needs keep"):
        repair(graph)
    for wrong in (keep.float(), keep[1:], ~keep):
        with pytest.raises(ValueError, match="keep"):
            repair(graph, wrong)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("parameter", ["stem.0.weight", "stem.1.weight", "head.bias", "stem.1.running_var"])
def test_weights_that_are_not_finite_are_refused(parameter, bad):
    net, inputs = make("resnet20")
    net.state_dict()[parameter].view(-1)[0] = bad
    graph = NetworkGraph.from_module(net, inputs)
    with pytest.raises(ValueError, match="not finite"):
        MetaNetwork.for_graph(graph, mode="change", hidden=4, layers=1)(graph)


@pytest.mark.parametrize("options", [{"mode": "fix"}, {"hidden": 3}, {"hidden": 0}, {"layers": 0}, {"chunk_edges": 0}])
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match=r"mode|hidden"):
        MetaNetwork([(3, 3)], **options)


@pytest.mark.parametrize("mode", ["change", "repair"])
@pytest.mark.parametrize("name", ["resnet20-downsampled", "mixed"])
def test_edges_in_parts_give_the_same_result_and_gradients(name, mode):
    _, _, graph = graph_of(name)
    metanet = random_metanet(graph, mode=mode, dtype=torch.float64)
    arguments = arguments_of(metanet, graph)

    def outcome(limit):
        metanet.chunk_edges = limit
        metanet.zero_grad()
        changed = metanet(*arguments)
        outputs = torch.cat([t.double().flatten() for t in changed.to_state_dict().values() if t.requires_grad])
        (outputs * torch.linspace(-1, 1, len(outputs))).sum().backward()
        return outputs.detach(), [p.grad.clone() for p in metanet.parameters() if p.grad is not None]

    whole, gradients = outcome(1 << 20)
    assert sum(len(e.src) for e in graph.edges.values()) > 100
    for limit in (100, 7):
        parts, again = outcome(limit)
        torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-7)
        assert len(again) == len(gradients)
        for found, expected in zip(again, gradients, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["change", "repair", "nowcast"])
def test_every_decoder_and_encoder_in_use_gets_a_gradient(mode):
    """Once the decoders are not zero any more, all parts that the network has a use for learn."""
    _, _, graph = graph_of("resnet20-downsampled")
    metanet = random_metanet(graph, mode=mode)
    changed = metanet(*arguments_of(metanet, graph))
    sum(t.square().sum() for t in changed.to_state_dict().values() if t.requires_grad).backward()
    unused = {name for name, p in metanet.named_parameters() if p.grad is None or not p.grad.any()}
    absent = {"scale", "shift", "slope", "token"}
    assert {name.split(".")[1] for name in unused if name.startswith("bank_")} <= absent
    assert all(name.startswith("bank_") for name in unused), unused


@pytest.mark.parametrize("mode", ["change", "repair", "nowcast"])
def test_saved_and_loaded_bit_for_bit(tmp_path, mode):
    _, _, graph = graph_of("mixed")
    metanet = random_metanet(graph, mode=mode)
    metanet.save(tmp_path / "deep" / "m.safetensors", figure=0.5)
    again = MetaNetwork.load(tmp_path / "deep" / "m.safetensors")
    assert same_bits(again.state_dict(), metanet.state_dict())
    assert (again.mode, again.hidden, again.layers, again.kernels) == (mode, 8, 2, metanet.kernels)
    assert again.notes == {"figure": 0.5}
    with torch.no_grad():
        arguments = arguments_of(metanet, graph)
        assert same_values(again.eval()(*arguments), metanet(*arguments))
    assert b"pickle" not in (tmp_path / "deep" / "m.safetensors").read_bytes()


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    good, bad = tmp_path / "m.safetensors", tmp_path / "bad.safetensors"
    MetaNetwork([(3, 3)], hidden=4, layers=1).save(good)
    content = good.read_bytes()
    flipped = bytearray(content)
    flipped[-5] ^= 1
    other_size = content.replace(b'\\"hidden\\": 4', b'\\"hidden\\": 6')
    assert other_size != content
    for damaged in (content[:-8], content[:20], b"", b"nothing of the kind", bytes(flipped), other_size):
        bad.write_bytes(damaged)
        with pytest.raises(DataError, match="bad"):
            MetaNetwork.load(bad)
    save_file({"weight": torch.zeros(2)}, bad)
    with pytest.raises(DataError, match="no metanetwork"):
        MetaNetwork.load(bad)
    for nothing in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError):
            MetaNetwork.load(nothing)


def test_an_unknown_pretrained_name_is_refused():
    with pytest.raises(ValueError, match=r"no pretrained metanetwork 'resnet-huge'; there are:"):
        MetaNetwork.from_pretrained("resnet-huge")


def test_the_size_is_of_the_order_of_the_published_one():
    """The published metanetwork of ResNet-56 (L = 8, H = 64) has 308,625 parameters."""
    ours = MetaNetwork([(3, 3), ()], mode="change", hidden=64, layers=8)
    count = sum(p.numel() for p in ours.parameters())
    assert 0.7 < count / 308_625 < 1.5


def test_the_wiring_lists_every_edge_once():
    _, _, graph = graph_of("mobilenet")
    wires = wiring(graph)
    assert wires.edge_index.shape[1] == sum(
        (*(len(e.src) for e in graph.edges.values()), *(p.shape[1] for p in graph.relations.values()))
    )
    for kernel, edges in graph.edges.items():
        part = wires.edge_index[:, wires.slices[kernel]]
        assert torch.equal(part, torch.stack([edges.src, edges.dst]))
        for number, (start, stop) in enumerate(zip(edges.ptr, edges.ptr[1:], strict=False)):
            assert (wires.tensor_of[kernel][start:stop] == number).all()
    for kind, pairs in graph.relations.items():
        assert torch.equal(wires.edge_index[:, wires.slices[kind]], pairs)


def rewritten(path, **changes):
    """A saved metanetwork whose settings somebody changed and signed again."""
    content = path.read_bytes()
    metadata, tensors = metanetwork._metadata(content), from_bytes(content)
    metadata["config"] = json.dumps({**json.loads(metadata["config"]), **changes})
    metadata["sha256"] = named_hash(metanetwork._hashed(metadata), tensors)
    path.write_bytes(save(tensors, metadata))


def test_what_the_columns_stand_for_lies_in_the_file(tmp_path, monkeypatch):
    """A version that lists its relations and features otherwise gets the same outputs from a saved metanetwork."""
    _, _, graph = graph_of("mobilenet")
    assert len(graph.relations) > 1
    metanet = random_metanet(graph)
    metanet.save(tmp_path / "m.safetensors")
    monkeypatch.setattr(metanetwork, "RELATIONS", ("brand-new", *reversed(RELATIONS)))
    monkeypatch.setattr(metanetwork, "KINDS", ("brand-new", *reversed(KINDS)))
    again = MetaNetwork.load(tmp_path / "m.safetensors").eval()
    assert (again.relations, again.features) == (metanet.relations, metanet.features)
    with torch.no_grad():
        assert same_values(again(graph, some_mask(graph)), metanet(graph, some_mask(graph)))


def test_relations_in_another_order_are_saved_in_it(tmp_path):
    _, _, graph = graph_of("mobilenet")
    metanet = random_metanet(graph)
    order, columns = metanet.relations[::-1], len(metanet.relations)
    turned = MetaNetwork(metanet.kernels, hidden=8, layers=2, relations=order, features=metanet.features).eval()
    state = metanet.state_dict()
    weight = state["relation_encoder.weight"]
    state["relation_encoder.weight"] = torch.cat([weight[:, :columns].flip(1), weight[:, columns:]], dim=1)
    turned.load_state_dict(state)
    turned.save(tmp_path / "m.safetensors")
    again = MetaNetwork.load(tmp_path / "m.safetensors").eval()
    assert again.relations == order
    with torch.no_grad():
        keep = some_mask(graph)
        assert same_values(again(graph, keep), metanet(graph, keep))


def test_relations_and_features_of_another_version_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    MetaNetwork([()], hidden=4, layers=1).save(path)
    rewritten(path, relations=["telepathy", *RELATIONS[1:]])
    with pytest.raises(DataError, match=r"m\.safetensors .*'telepathy' is no relation of this version"):
        MetaNetwork.load(path)
    rewritten(path, relations=list(RELATIONS), features=["mood", *KINDS[1:]])
    with pytest.raises(DataError, match="'mood' is no node feature of this version"):
        MetaNetwork.load(path)
    with pytest.raises(ValueError, match="once each"):
        MetaNetwork([()], relations=["add", "add"])


def test_a_network_of_relations_that_it_was_made_without_is_told():
    _, _, graph = graph_of("mobilenet")
    there = sorted(graph.relations)
    metanet = MetaNetwork(graph.edges, hidden=4, layers=1, relations=there[1:])
    with pytest.raises(ValueError, match=f"relations of type {there[0]}, which this metanetwork does not know"):
        metanet(graph, some_mask(graph))
    metanet = MetaNetwork(graph.edges, hidden=4, layers=1, features=[kind for kind in KINDS if kind != "gamma"])
    with pytest.raises(ValueError, match="node features gamma"):
        metanet(graph, some_mask(graph))


def test_the_size_of_its_parts_is_kept(tmp_path):
    MetaNetwork([()], hidden=4, layers=1, chunk_edges=77).save(tmp_path / "m.safetensors")
    assert MetaNetwork.load(tmp_path / "m.safetensors").chunk_edges == 77


def test_the_pretrained_one_of_the_format_before_is_read():
    metanet = MetaNetwork.from_pretrained("resnet-tiny")
    assert metanet.relations == RELATIONS
    assert metanet.chunk_edges == 1 << 20


@pytest.mark.parametrize("arch", ["resnet8", "vgg8", "mobilenet11"])
def test_one_pretrained_metanetwork_reads_three_kinds_of_networks(arch):
    metanet = MetaNetwork.from_pretrained("cnn-tiny").eval()
    net = make_cnn(arch, width=4, seed=0).eval()
    graph = NetworkGraph.from_module(net, torch.randn(1, 3, 16, 16))
    with torch.no_grad():
        repaired = metanet(graph, torch.ones(graph.num_nodes, dtype=torch.bool))
    changed = [not torch.equal(repaired.edges[k].values, graph.edges[k].values) for k in graph.edges]
    assert all(changed)
    assert all(bool(edges.values.isfinite().all()) for edges in repaired.edges.values())


def test_a_pretrained_metanetwork_names_what_it_has_not_learned():
    metanet = MetaNetwork.from_pretrained("cnn-tiny")
    net = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 12 * 12, 10))
    with pytest.raises(ValueError, match="5x5"):
        metanet.check(NetworkGraph.from_module(net, torch.randn(1, 3, 16, 16)))


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": 10**9},
        {"hidden": 4.0},
        {"hidden": "4"},
        {"layers": 10**9},
        {"layers": True},
        {"chunk_edges": None},
        {"kernels": [[10**9, 10**9]]},
        {"kernels": [[]] * 5},
        {"kernels": 3},
        {"kernels": {"a": 1}},
        {"mode": "destroy"},
        {"relations": "add"},
        {"relations": []},
        {"features": [[]]},
        {"colour": 1},
    ],
    ids=str,
)
def test_settings_that_lie_are_refused(tmp_path, changes):
    path = tmp_path / "m.safetensors"
    MetaNetwork([()], hidden=4, layers=1).save(path)
    rewritten(path, **changes)
    with pytest.raises(DataError, match=r"m\.safetensors"):
        MetaNetwork.load(path)


def test_devices_and_changed_notes_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    MetaNetwork([()], hidden=4, layers=1).save(path, area=0.5)
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.9"))
    with pytest.raises(DataError, match="its hash differs"):
        MetaNetwork.load(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="no regular file"):
        MetaNetwork.load(path)


def test_what_comes_with_the_package_is_listed_with_figures_and_hash():
    listed = pretrained()
    assert listed
    for name, found in listed.items():
        metanet = MetaNetwork.from_pretrained(name)
        assert found["notes"] == metanet.notes
        assert found["notes"]["area"] > found["notes"]["baseline_area"]
        assert found["hash"] == model_hash(metanet)
        with torch.no_grad():
            next(metanet.parameters()).add_(1)
        assert found["hash"] != model_hash(metanet)
