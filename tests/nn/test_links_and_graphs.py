"""Networks for links and molecules: learned rows, decoders, OGB's encoders, bad input."""

from __future__ import annotations

import pytest
import torch

from graphsparse.nn import GCN, LinkNet, MoleculeNet, NodeEmbedding, make_link_net, make_molecule_net

PAIR = torch.tensor([[0, 1], [1, 0]])


def molecules() -> tuple[torch.Tensor, ...]:
    """Three molecules: two atoms and their bond, one atom, three atoms in a row."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (6, 9), generator=generator)
    edge_index = torch.tensor([[0, 1, 3, 4, 4, 5], [1, 0, 4, 3, 5, 4]])
    bonds = torch.randint(0, 2, (3, 3), generator=generator).repeat_interleave(2, dim=0)
    return x, edge_index, bonds, torch.tensor([0, 0, 1, 2, 2, 2])


def test_learned_rows_stand_alone_or_beside_features() -> None:
    net = NodeEmbedding(GCN(5, 4, 4), num_nodes=3, channels=5)
    assert net(None, PAIR).shape == (3, 4)
    both = NodeEmbedding(GCN(7, 4, 4), num_nodes=3, channels=5)
    x = torch.randn(3, 2)
    expected = both.encoder.eval()(torch.cat([x, both.weight], dim=1), PAIR)
    torch.testing.assert_close(both.eval()(x, PAIR), expected)
    with pytest.raises(ValueError, match="3 learned rows, but x has 2"):
        both(x[:2], PAIR)


def test_every_row_is_trained() -> None:
    net = NodeEmbedding(GCN(5, 4, 4, num_layers=1), num_nodes=3, channels=5)
    net(None, PAIR).sum().backward()
    assert net.weight.grad is not None
    assert bool((net.weight.grad != 0).any(dim=1).all())


def test_the_decoder_is_symmetric_and_by_hand() -> None:
    net = LinkNet(torch.nn.Identity(), 2, num_layers=1)
    z = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    weight, bias = net.layers[0].weight[0], net.layers[0].bias
    torch.testing.assert_close(net.decode(z, PAIR), ((weight * torch.tensor([3.0, -2.0])).sum() + bias).expand(2))


@pytest.mark.parametrize("conv", ["gin", "gcn"])
def test_a_molecule_is_answered_alone_as_in_a_batch(conv: str) -> None:
    net = make_molecule_net(conv, 2, 8, seed=0).eval()
    x, edge_index, bonds, batch = molecules()
    together = net(x, edge_index, bonds, batch)
    assert together.shape == (3, 2)
    alone = net(x[3:], edge_index[:, 2:] - 3, bonds[2:], torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(together[2:], alone)
    atom = net(x[2:3], edge_index[:, :0], bonds[:0], torch.zeros(1, dtype=torch.long))
    torch.testing.assert_close(together[1:2], atom)


@pytest.mark.parametrize("conv", ["gin", "gcn"])
def test_a_dropped_bond_is_absent(conv: str) -> None:
    """Without the bonds between 3 and 4, what atom 3 is has no say in the rest of its molecule but its own mean."""
    net = make_molecule_net(conv, 1, 8, seed=0).eval()
    x, edge_index, bonds, _ = molecules()
    apart = torch.tensor([0, 0, 1, 2, 3, 3])
    keep = torch.tensor([True, True, False, False, True, True])
    other = x.clone()
    other[3] = 1 - other[3]
    outputs = [net(nodes, edge_index[:, keep], bonds[keep], apart) for nodes in (x, other)]
    assert torch.equal(outputs[0][3], outputs[1][3])
    assert not torch.equal(outputs[0][2], outputs[1][2])


def test_bonds_matter() -> None:
    for conv in ("gin", "gcn"):
        net = make_molecule_net(conv, 1, 8, seed=0).eval()
        x, edge_index, bonds, batch = molecules()
        assert not torch.allclose(net(x, edge_index, bonds, batch)[0], net(x, edge_index, 1 - bonds, batch)[0])


def test_seeds_give_weights_and_leave_the_generator() -> None:
    before = torch.get_rng_state()
    for make in (
        lambda seed: make_link_net("sage", 5, 0, 8, seed=seed),
        lambda seed: make_molecule_net("gcn", 1, 8, seed=seed),
    ):
        one, same, other = (dict(make(seed).named_parameters()) for seed in (0, 0, 1))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert any(not torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(make_link_net("gcn", 5, 3, 8).encoder, GCN)


def test_bad_input_gets_one_clear_sentence() -> None:
    x, edge_index, bonds, batch = molecules()
    net = MoleculeNet(8, 1)
    with pytest.raises(IndexError, match="an atom has a feature that is not in OGB's tables"):
        net(x + 500, edge_index, bonds, batch)
    with pytest.raises(IndexError, match="a bond has a feature"):
        net(x, edge_index, bonds + 50, batch)
    with pytest.raises(ValueError, match="must be 'gin' or 'gcn', got 'gat'"):
        MoleculeNet(8, 1, conv="gat")
    for options in ({"num_layers": 0}, {"dropout": 1.5}):
        with pytest.raises(ValueError, match=next(iter(options))):
            MoleculeNet(8, 1, **options)
        with pytest.raises(ValueError, match=next(iter(options))):
            LinkNet(net, 8, **options)
    with pytest.raises(ValueError, match="at least 1"):
        NodeEmbedding(net, 0, 4)
