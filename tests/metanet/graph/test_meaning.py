"""Slots and ids mean what they say: derivatives, cuts and permutations agree with the graph."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from metanet_networks import SHALLOW, VGG, Block, graph_of, make, some_inputs
from torch import nn
from torch.utils import _pytree as pytree

from graphsparse.metanet import COUPLING, NetworkGraph


@pytest.mark.parametrize("name", SHALLOW)
def test_one_element_changes_exactly_its_slots(name):
    module, inputs, graph = graph_of(name)
    generator = torch.Generator().manual_seed(0)
    names = [key for key, tensor in module.state_dict().items() if tensor.is_floating_point() and graph.slots(key)]
    for pick in torch.randperm(len(names), generator=generator)[:5].tolist():
        changed, _ = make(name)
        tensor = changed.state_dict()[names[pick]]
        element = int(torch.randint(tensor.numel(), (), generator=generator))
        tensor.view(-1)[element] += 7
        after = NetworkGraph.from_module(changed, inputs)
        expected = {
            (slot.group, int(row), int(column))
            for slot in graph.slots(names[pick])
            for row, column in zip(slot.row[slot.element == element], slot.column[slot.element == element], strict=True)
        }
        found = {
            (group, *place)
            for before_all, after_all in ((graph.edges, after.edges), (graph.banks, after.banks))
            for group in before_all
            for place in torch.nonzero(before_all[group].values != after_all[group].values).tolist()
        }
        assert found == expected != set()


def channels_of(value, axis):
    return value.movedim(axis, 0).flatten(1).sum(1)


class Heads(nn.Module):
    """A matrix for each head, through a batched product or an einsum."""

    def __init__(self, einsum):
        super().__init__()
        self.weight, self.einsum = nn.Parameter(torch.rand(2, 3, 4)), einsum

    def forward(self, x):
        x = x.view(5, 2, 3)
        y = (
            torch.einsum("nhc,hco->nho", x, self.weight)
            if self.einsum
            else torch.bmm(x.transpose(0, 1), self.weight).transpose(0, 1)
        )
        return y.reshape(5, 8)


class Left(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 6))

    def forward(self, x):
        return (self.weight @ x.t()).t()


LAYERS = {
    "linear": (lambda: nn.Linear(5, 4), (2, 5), -1),
    "linear of a sequence": (lambda: nn.Linear(5, 4), (2, 3, 5), -1),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, groups=2), (2, 4, 7), 1),
    "conv2d": (lambda: nn.Conv2d(3, 4, (3, 1), padding="same"), (2, 3, 5, 5), 1),
    "conv2d grouped": (lambda: nn.Conv2d(4, 6, 3, 2, 1, groups=2), (2, 4, 5, 5), 1),
    "conv2d depthwise with two outputs each": (lambda: nn.Conv2d(3, 6, 3, groups=3), (2, 3, 5, 5), 1),
    "conv2d of one image": (lambda: nn.Conv2d(3, 4, 3), (3, 5, 5), 0),
    "conv3d": (lambda: nn.Conv3d(2, 4, 2), (1, 2, 3, 3, 3), 1),
    "transposed 1d": (lambda: nn.ConvTranspose1d(3, 4, 3, 2), (2, 3, 5), 1),
    "transposed 2d grouped": (lambda: nn.ConvTranspose2d(4, 6, 2, 2, groups=2), (2, 4, 3, 3), 1),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 3, 2), (1, 2, 3, 3, 3), 1),
    "heads by bmm": (lambda: Heads(False), (5, 6), -1),
    "heads by einsum": (lambda: Heads(True), (5, 6), -1),
    "matrix from the left": (Left, (5, 6), -1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_ends_of_every_edge_by_derivatives(name):
    """A weight element moves the output channel at its edge's end alone, and only through the channel at its start."""
    layer_of, shape, axis = LAYERS[name]
    layer, x = layer_of(), torch.rand(shape) + 0.5
    graph = NetworkGraph.from_module(layer, torch.zeros(shape))
    (slot,) = graph.slots("weight")
    edges = graph.edges[slot.group]
    for pick in torch.randperm(len(slot.element), generator=torch.Generator().manual_seed(0))[:12].tolist():
        src, dst = int(edges.src[slot.row[pick]]), int(edges.dst[slot.row[pick]])
        source, target = graph.inputs[0].tolist().index(src), graph.outputs[0].tolist().index(dst)

        def moved(x, element=int(slot.element[pick])):
            tangent = torch.zeros_like(layer.weight)
            tangent.view(-1)[element] = 1
            state = dict(layer.named_parameters())

            def call(weight):
                return channels_of(torch.func.functional_call(layer, {**state, "weight": weight}, (x,)), axis)

            return torch.func.jvp(call, (layer.weight.detach(),), (tangent,))[1]

        others = torch.nonzero(torch.arange(len(graph.outputs[0])) != target).view(-1)
        assert torch.all(moved(x)[others] == 0)
        assert moved(x)[target] != 0
        without = x.movedim(axis, 0).clone()
        without[source] = 0
        assert moved(without.movedim(0, axis))[target] == 0


def hidden_sets(graph):
    """Coupled sets without inputs and outputs."""
    sets = graph.coupled()
    ends = torch.cat([*graph.inputs, *graph.outputs])
    return [torch.nonzero(sets == s).view(-1) for s in sorted(set(sets.tolist()) - set(sets[ends].tolist()))]


CUTTABLE = [
    "mlp", "resnet20", "resnet20-equal", "resnet20-downsampled", "bottleneck", "vgg19", "vgg19-equal", "densenet",
    "inception", "mobilenet", "mobilenet-equal", "resnext", "unet", "gcn", "sage",
]  # fmt: skip


@pytest.mark.parametrize("name", CUTTABLE)
def test_output_forgets_a_channel_whose_outgoing_edges_are_zero(name):
    module, inputs, graph = graph_of(name)
    given = some_inputs(inputs)
    sets = hidden_sets(graph)
    generator = torch.Generator().manual_seed(1)
    assert sets
    for pick in torch.randperm(len(sets), generator=generator)[:4].tolist():
        inside = torch.zeros(graph.num_nodes, dtype=torch.bool)
        inside[sets[pick]] = True
        noise, cut = {}, {}
        for kernel, edges in graph.edges.items():
            into, out = inside[edges.dst], inside[edges.src] & ~inside[edges.dst]
            cut[kernel] = torch.where(out[:, None], 0.0, edges.values)
            noise[kernel] = torch.where(into[:, None], 3 * edges.values + 1, cut[kernel])
        banks = {n: torch.where(inside[b.nodes][:, None], 2 * b.values + 1, b.values) for n, b in graph.banks.items()}
        without = graph.with_values(cut).to_module()(*given)
        assert torch.equal(without, graph.with_values(noise, banks).to_module()(*given))
        assert not torch.equal(without, module(*given))


def swapped(graph, left, right):
    """The graph's values after two sets of nodes have changed places."""
    order = torch.arange(graph.num_nodes)
    order[left], order[right] = right, left
    edges = {}
    for kernel, e in graph.edges.items():
        count = {}
        keys = [(int(s), int(d)) for s, d in zip(e.src, e.dst, strict=True)]
        ranks = [count.update({key: count.get(key, -1) + 1}) or count[key] for key in keys]  # parallel edges in order
        row = {(*key, rank): i for i, (key, rank) in enumerate(zip(keys, ranks, strict=True))}
        moved = [row[int(order[s]), int(order[d]), rank] for (s, d), rank in zip(keys, ranks, strict=True)]
        edges[kernel] = torch.empty_like(e.values).index_copy(0, torch.tensor(moved), e.values)
    banks = {}
    for bank, b in graph.banks.items():
        moved = torch.searchsorted(b.nodes, order[b.nodes])
        assert torch.equal(b.nodes[moved], order[b.nodes])
        banks[bank] = torch.empty_like(b.values).index_copy(0, moved, b.values)
    return order, graph.with_values(edges, banks)


@pytest.mark.parametrize("name", [*CUTTABLE, "vit", "vit-fused", "vit-torch", "gin", "gat", "autoencoder", "mixed"])
def test_permuted_channels_give_the_same_function(name):
    module, inputs, graph = graph_of(name)
    sets = hidden_sets(graph)
    pairs = [
        (a, b)
        for i, a in enumerate(sets)
        for b in sets[i + 1 :]
        if len(a) == len(b) and torch.equal(graph.layer[a], graph.layer[b]) and (name != "gat" or abs(a[0] - b[0]) == 1)
    ]
    assert pairs
    generator, done = torch.Generator().manual_seed(2), 0
    for pick in torch.randperm(len(pairs), generator=generator).tolist():
        left, right = pairs[pick]
        order = torch.arange(graph.num_nodes)
        order[left], order[right] = right, left
        if not symmetric(graph, order):
            continue
        _, other = swapped(graph, left, right)
        assert not torch.equal(torch.cat([t.view(-1) for t in other.to_state_dict().values()]),
                               torch.cat([t.view(-1) for t in graph.to_state_dict().values()]))  # fmt: skip
        given = some_inputs(inputs)
        results = zip(pytree.tree_leaves(module(*given)), pytree.tree_leaves(other.to_module()(*given)), strict=True)
        assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in results)
        done += 1
        if done == 4:
            return
    assert done


def symmetric(graph, order):
    """Whether relations look the same after the permutation (heads and gates own certain channels)."""
    return all(
        {tuple(p) for p in order[pairs].T.tolist()} == {tuple(p) for p in pairs.T.tolist()}
        for pairs in graph.relations.values()
    )


def test_permuting_a_network_by_hand_gives_an_isomorphic_graph():
    module, inputs, graph = graph_of("mlp")
    other, _ = make("mlp")
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        other[1].weight.copy_(module[1].weight[order])
        other[1].bias.copy_(module[1].bias[order])
        other[3].weight.copy_(module[3].weight[:, order])
    theirs = NetworkGraph.from_module(other, inputs)
    hidden = torch.nonzero(graph.layer == graph.layer_names.index("1")).view(-1)
    back = torch.arange(graph.num_nodes)
    back[hidden] = hidden[order]  # node of theirs -> node of ours
    ours = {(s, d): v for s, d, v in zip(*(t.tolist() for t in _flat(graph)), strict=True)}
    mapped = zip(
        back[theirs.edges[()].src].tolist(),
        back[theirs.edges[()].dst].tolist(),
        theirs.edges[()].values[:, 0].tolist(),
        strict=True,
    )
    assert {(s, d): v for s, d, v in mapped} == ours
    bias = dict(zip(graph.banks["bias"].nodes.tolist(), graph.banks["bias"].values[:, 0].tolist(), strict=True))
    assert {
        int(back[n]): v
        for n, v in zip(theirs.banks["bias"].nodes.tolist(), theirs.banks["bias"].values[:, 0].tolist(), strict=True)
    } == bias


def _flat(graph):
    return graph.edges[()].src, graph.edges[()].dst, graph.edges[()].values[:, 0]


def test_flattened_classifier_keeps_its_channels():
    """Trap: a released conversion permutes the weights of a classifier that reads flattened maps."""
    module, inputs = make("vgg19")
    graph = NetworkGraph.from_module(module, inputs)
    last = [n for n in graph.layer_names if n.startswith("features")][-1]
    maps = torch.nonzero(graph.layer == graph.layer_names.index(last)).view(-1)
    (slot,) = graph.slots("classifier.0.weight")
    column = slot.element % module.classifier[0].in_features
    assert torch.equal(graph.edges[()].src[slot.row], maps[column // 4])  # 2x2 places of each channel


def test_equal_widths_do_not_confuse_layers():
    """Trap: told apart by width alone, layers on both sides of a stage swap their tensors."""
    module, _, graph = graph_of("resnet20-equal")
    modules = dict(module.named_modules())
    for path, layer in modules.items():
        if isinstance(layer, nn.Conv2d):
            (slot,) = graph.slots(f"{path}.weight")
            assert {graph.layer_names[i] for i in graph.layer[graph.edges[3, 3].dst[slot.row]].tolist()} == {path}
        if isinstance(layer, nn.BatchNorm2d):
            (slot,) = graph.slots(f"{path}.running_mean")
            assert {graph.layer_names[i] for i in graph.layer[slot.nodes].tolist()} == {path[:-1] + "0"}


def test_second_norm_on_the_same_node_opens_a_bank():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            x = self.conv(x)
            return self.a(x) + self.b(F.relu(x))

    graph = NetworkGraph.from_module(Twice(), torch.zeros(1, 2, 4, 4))
    assert graph.slots("a.weight")[0].group == "gamma"
    assert graph.slots("b.weight")[0].group == "gamma.1"
    assert torch.equal(graph.slots("a.weight")[0].nodes, graph.slots("b.weight")[0].nodes)
    assert {name for name, bank in graph.banks.items() if bank.input_only} == {
        "running_mean", "running_mean.1", "running_var", "running_var.1",
    }  # fmt: skip


def test_option_a_shortcut_ties_the_channels_that_meet():
    graph = NetworkGraph.from_module(Block(2, 4, 2, "A"), torch.zeros(1, 2, 4, 4))
    assert [graph.inputs[0].tolist(), graph.outputs[0][1:3].tolist()] == graph.relations["add"].tolist()


def test_vit_relations_and_tokens():
    _, _, graph = graph_of("vit")
    assert set(graph.relations) == {"add", "q-k", "k-v", "score", "grouped", "broadcast"}
    patch = torch.nonzero(graph.layer == graph.layer_names.index("patch")).view(-1)
    assert torch.equal(graph.slots("cls")[0].nodes, patch)
    position = graph.slots("position")[0]
    assert torch.equal(position.nodes, patch[position.element % 8])
    assert torch.equal(position.column, position.element // 8)  # one column for each of the 17 places
    assert "score" not in COUPLING
    query, key = graph.relations["q-k"]
    assert torch.equal(key - query, torch.full_like(key, 8))


def test_outputs_are_the_classifier_whatever_its_width():
    module = VGG(width=10, classes=10, equal=True).eval()
    graph = NetworkGraph.from_module(module, torch.zeros(2, 3, 16, 16))
    (outputs,) = graph.outputs
    assert {graph.layer_names[i] for i in graph.layer[outputs].tolist()} == {"classifier.3"}


def test_several_inputs_and_outputs():
    _, _, graph = graph_of("mixed")
    assert [len(nodes) for nodes in graph.inputs] == [11, 2]  # rows of the embedding, channels of the volume
    assert [len(nodes) for nodes in graph.outputs] == [3, 2]
    assert graph.slots("unused.weight") == ()
    assert (1, 3, 3) in graph.edges


def test_class_token_is_its_sequences_channel_before_a_mean():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.embed, self.head = nn.Parameter(torch.rand(1, 1, 4)), nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1).mean(1))

    graph = NetworkGraph.from_module(Mean(), torch.zeros(2, 5, 3))
    assert graph.relations == {}
    assert graph.num_nodes == 9
    (slot,) = graph.slots("token")
    assert {graph.layer_names[i] for i in graph.layer[slot.nodes].tolist()} == {"embed"}
