"""PyG's kinds beyond a plain ``Data``: batches, relations, and edges that lie in a matrix."""

from __future__ import annotations

import warnings

import networkx as nx
import pytest
import torch
from torch_geometric import EdgeIndex, transforms
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader
from torch_geometric.utils import from_networkx, to_edge_index

import graphsparse as gs


def ring(size, start=0.0, **more):
    ids = torch.arange(size)
    edge_index = torch.cat([torch.stack([ids, ids.roll(-1)]), torch.stack([ids.roll(-1), ids])], 1)
    return Data(
        x=torch.arange(size * 2.0).view(size, 2) + start,
        edge_index=edge_index,
        edge_attr=torch.arange(2.0 * size).view(-1, 1) + start,
        y=torch.tensor([start]),
        **more,
    )


GRAPHS = [ring(5), ring(4, 10.0), Data(x=torch.ones(2, 2), edge_index=torch.empty(2, 0, dtype=torch.int64)), ring(9)]
GRAPHS[2].edge_attr, GRAPHS[2].y = torch.empty(0, 1), torch.tensor([7.0])


class TestBatch:
    """Each graph by itself."""

    @pytest.mark.parametrize("method", ["teddy", "random", "effective_resistance", "rank_degree", "cosine"])
    def test_a_batch_is_its_graphs_one_by_one(self, method):
        batch = Batch.from_data_list(GRAPHS)
        small = gs.sparsify(batch, method, keep=0.6, seed=3)
        alone = gs.sparsify(GRAPHS, method, keep=0.6, seed=3)
        assert isinstance(alone, list)
        assert type(small) is type(batch)
        again = small.to_data_list()
        assert len(again) == len(GRAPHS)
        for one, other, whole in zip(again, alone, GRAPHS, strict=True):
            for key in ("x", "edge_index", "edge_attr", "y"):
                assert torch.equal(one[key], other[key]), key
            assert one.num_nodes == whole.num_nodes
        assert [graph.num_edges for graph in alone] == [6, 6, 0, 12]  # 3 of 5, 3 of 4, 6 of 9 pairs
        assert batch.num_edges == sum(graph.num_edges for graph in GRAPHS)

    def test_what_was_added_to_the_batch_stays(self):
        batch = Batch.from_data_list(GRAPHS)
        batch.note, batch.per_graph = "mine", torch.arange(4)
        small = gs.sparsify(batch, keep=0.5)
        assert small.note == "mine"
        assert small.per_graph is batch.per_graph
        assert torch.equal(small.ptr, batch.ptr)
        assert small[3].num_nodes == 9

    def test_scores_and_weights(self):
        batch = Batch.from_data_list([ring(5), ring(4)])
        scores = gs.edges.score(batch, "random")
        assert scores.shape == (18,)
        assert torch.equal(scores[:10], gs.edges.score(ring(5), "random"))
        assert torch.equal(
            gs.sparsify(batch, scores, keep=0.5).edge_index, gs.sparsify(batch, "random", keep=0.5).edge_index
        )
        with pytest.raises(ValueError, match="each of 18 edges, got 3"):
            gs.sparsify(batch, scores[:3], keep=0.5)
        drawn = gs.edges.sample(batch, "dspar", keep=0.5)
        assert drawn.edge_weight.shape == (drawn.num_edges,)

    def test_weights_of_from_networkx(self):
        """It calls them ``weight``; so do our readers of files."""
        graph = nx.Graph()
        graph.add_weighted_edges_from([(0, 1, 9.0), (1, 2, 1.0), (0, 2, 1.0), (2, 3, 1.0), (3, 4, 1.0), (4, 0, 2.0)])
        data = from_networkx(graph)
        expected = gs.edges.score(Data(edge_index=data.edge_index, edge_weight=data.weight), "effective_resistance")
        assert torch.equal(gs.edges.score(data, "effective_resistance"), expected)
        assert "edge_weight" not in gs.edges.sample(data, "dspar", keep=0.5)
        both = Data(edge_index=data.edge_index, edge_weight=data.weight, weight=torch.ones(12))
        assert torch.equal(gs.edges.score(both, "effective_resistance"), expected)
        of_nodes = Data(edge_index=data.edge_index, weight=torch.rand(5))
        plain = Data(edge_index=data.edge_index)
        scores = [gs.edges.score(one, "effective_resistance") for one in (of_nodes, plain)]
        assert torch.equal(*scores)
        hetero = HeteroData()
        hetero["a"].num_nodes = 5
        hetero["a", "to", "a"].edge_index, hetero["a", "to", "a"].weight = data.edge_index, data.weight
        assert torch.equal(gs.edges.score(hetero, "effective_resistance")["a", "to", "a"], expected)

    def test_loaders_and_transforms(self):
        loader = DataLoader([ring(5), ring(4)], batch_size=2)
        transform = gs.SparsifyEdges("teddy", keep=0.5)
        assert [transform(batch).num_edges for batch in loader] == [6 + 4]

    def test_a_batch_that_is_no_row_of_graphs(self):
        batch = Batch.from_data_list([ring(5), ring(4)])
        batch.edge_index[1, 0] = 8
        with pytest.raises(ValueError, match="join two"):
            gs.sparsify(batch, keep=0.5)
        del batch.batch
        with pytest.raises(ValueError, match="which graph a node belongs to"):
            gs.sparsify(batch, keep=0.5)

    def test_errors_name_the_graph(self):
        bad = ring(4)
        bad.edge_index = bad.edge_index + 4
        with pytest.raises(ValueError, match=r"graph 1: edge_index names node"):
            gs.sparsify([ring(5), bad], keep=0.5)
        with pytest.raises(ValueError, match=r"graph 1: .*keep"):
            gs.sparsify([ring(3), ring(9)], keep=0.67, forest=True)

    def test_a_batch_with_adj_t(self):
        rings = [transforms.ToSparseTensor()(ring(5)), transforms.ToSparseTensor()(ring(4))]
        small = gs.sparsify(Batch.from_data_list(rings), "random", keep=0.5)
        alone = [gs.sparsify(one, "random", keep=0.5) for one in rings]
        assert torch.equal(small.edge_attr, torch.cat([one.edge_attr for one in alone]))
        whole = small.adj_t.to_dense()
        assert torch.equal(whole[:5, :5], alone[0].adj_t.to_dense())
        assert torch.equal(whole[5:, 5:], alone[1].adj_t.to_dense())


def shop(reverse=True):
    graph = HeteroData()
    graph["user"].x, graph["item"].x = torch.rand(4, 2), torch.rand(3, 5)
    graph["user", "buys", "item"].edge_index = torch.tensor([[0, 0, 1, 2, 3, 3], [0, 1, 1, 2, 0, 2]])
    graph["user", "buys", "item"].edge_attr = torch.arange(6.0)
    graph["user", "knows", "user"].edge_index = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    return transforms.ToUndirected()(graph) if reverse else graph


BUYS, BOUGHT, KNOWS = ("user", "buys", "item"), ("item", "rev_buys", "user"), ("user", "knows", "user")


class TestHetero:
    """Each relation by itself, its reverse with it."""

    def test_the_two_sides_are_different_nodes(self):
        graph = shop()
        small = gs.sparsify(graph, "dspar", keep=0.5)
        assert (small[BUYS].num_edges, small[BOUGHT].num_edges, small[KNOWS].num_edges) == (3, 3, 4)
        union = graph[BUYS].edge_index + torch.tensor([[0], [4]])
        expected = gs.sparsify(union, "dspar", keep=0.5, undirected=True) - torch.tensor([[0], [4]])
        assert torch.equal(small[BUYS].edge_index, expected)
        assert graph[BUYS].num_edges == 6

    def test_the_reverse_goes_with_it(self):
        graph = shop()
        order = torch.tensor([3, 1, 5, 0, 4, 2])
        graph[BOUGHT].edge_index = graph[BOUGHT].edge_index[:, order]
        graph[BOUGHT].edge_attr = graph[BOUGHT].edge_attr[order]
        small = gs.sparsify(graph, "random", keep=0.4)
        pairs = set(zip(*small[BUYS].edge_index.tolist(), small[BUYS].edge_attr.tolist(), strict=True))
        turned = small[BOUGHT].edge_index.flip(0).tolist()
        assert pairs == set(zip(*turned, small[BOUGHT].edge_attr.tolist(), strict=True))
        assert len(pairs) == 3

    def test_without_a_reverse_a_relation_is_directed(self):
        graph = shop(reverse=False)
        union = graph[BUYS].edge_index + torch.tensor([[0], [4]])
        for undirected, read_as in ((None, False), (True, True)):
            small = gs.sparsify(graph, "local_degree", keep=0.5, undirected=undirected)
            expected = gs.sparsify(union, "local_degree", keep=0.5, undirected=read_as) - torch.tensor([[0], [4]])
            assert torch.equal(small[BUYS].edge_index, expected)

    def test_a_reverse_of_other_edges_is_told(self):
        graph = shop()
        graph[BOUGHT].edge_index = graph[BOUGHT].edge_index[:, :4]
        graph[BOUGHT].edge_attr = graph[BOUGHT].edge_attr[:4]
        with pytest.warns(UserWarning, match="rev_buys.*does not hold the edges of"):
            small = gs.sparsify(graph, keep=0.5)
        assert (small[BUYS].num_edges, small[BOUGHT].num_edges) == (3, 2)

    def test_a_reverse_of_another_name_is_found(self):
        graph = shop(reverse=False)
        graph["item", "bought_by", "user"].edge_index = graph[BUYS].edge_index.flip(0)
        graph["user", "follows", "user"].edge_index = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        graph["user", "followed_by", "user"].edge_index = torch.tensor([[1, 2, 3, 0], [0, 1, 2, 3]])
        small = gs.sparsify(graph, "random", keep=0.5)
        assert torch.equal(small["item", "bought_by", "user"].edge_index.flip(0), small[BUYS].edge_index)
        forth, back = small["user", "follows", "user"].edge_index, small["user", "followed_by", "user"].edge_index
        assert sorted(forth.t().tolist()) == sorted(back.flip(0).t().tolist())

    def test_equal_symmetric_relations_are_two(self):
        graph = shop(reverse=False)
        graph["user", "likes", "user"].edge_index = graph[KNOWS].edge_index.clone()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert set(gs.edges.score(graph)) == {BUYS, KNOWS, ("user", "likes", "user")}

    def test_everything_else_stays(self):
        graph = shop()
        graph["user"].train_mask = torch.ones(6, dtype=torch.bool)[:4]
        graph.owner, graph["item"].name = "me", list("abc")
        small = gs.sparsify(graph, keep=0.5)
        assert small["user"].x is graph["user"].x
        assert (small.owner, small["item"].name) == ("me", list("abc"))
        assert small.metadata() == graph.metadata()
        assert [small[kind].num_nodes for kind in ("user", "item")] == [4, 3]

    def test_nodes_that_are_known_from_edges_stay(self):
        graph = HeteroData()
        graph["a", "to", "b"].edge_index = torch.tensor([[0, 1, 5], [0, 0, 2]])
        small = gs.sparsify(graph, torch_scores := {("a", "to", "b"): torch.tensor([3.0, 2.0, 1.0])}, keep=0.5)
        assert torch_scores
        assert (small["a"].num_nodes, small["b"].num_nodes, small["a", "to", "b"].num_edges) == (6, 3, 2)

    def test_scores_are_a_dict(self):
        graph = shop()
        scores = gs.edges.score(graph, "random")
        assert {relation: len(values) for relation, values in scores.items()} == {BUYS: 6, BOUGHT: 6, KNOWS: 6}
        small, same = gs.sparsify(graph, scores, keep=0.5), gs.sparsify(graph, "random", keep=0.5)
        assert torch.equal(small[KNOWS].edge_index, same[KNOWS].edge_index)
        assert torch.equal(small[BUYS].edge_index, same[BUYS].edge_index)
        with pytest.raises(TypeError, match="dict of scores by relation"):
            gs.sparsify(graph, scores[BUYS], keep=0.5)
        with pytest.raises(ValueError, match="no scores of the relation"):
            gs.sparsify(graph, {BUYS: scores[BUYS]}, keep=0.5)

    def test_errors_name_the_relation(self):
        graph = shop(reverse=False)
        graph[BUYS].edge_index[1, 0] = 3
        with pytest.raises(ValueError, match=r"\('user', 'buys', 'item'\): edge_index names node 3 in row 1.*3 nodes"):
            gs.sparsify(graph, keep=0.5)
        with pytest.raises(TypeError, match="no relation"):
            gs.sparsify(HeteroData(), keep=0.5)
        graph = shop(reverse=False)
        graph[KNOWS].edge_weight = torch.tensor([1.0, 1, torch.nan, 1, 1, 1])
        with pytest.raises(ValueError, match=r"relation \('user', 'knows', 'user'\): the weight of edge 2 is nan"):
            gs.sparsify(graph, "effective_resistance", keep=0.5)

    def test_weights_are_sampled_in_both_relations(self):
        small = gs.edges.sample(shop(), "dspar", keep=0.5)
        assert sorted(small[BUYS].edge_weight.tolist()) == sorted(small[BOUGHT].edge_weight.tolist())

    def test_a_relation_in_adj_t(self):
        plain = shop()
        matrices = transforms.ToSparseTensor(attr=None)(shop())
        small = gs.sparsify(matrices, "dspar", keep=0.5)
        expected = gs.sparsify(plain, "dspar", keep=0.5)[BUYS].edge_index
        heads, tails = to_edge_index(small[BUYS].adj_t)[0]
        assert sorted(zip(tails.tolist(), heads.tolist(), strict=True)) == sorted(map(tuple, expected.t().tolist()))
        assert small[BUYS].adj_t.shape == (3, 4)


class TestMatricesInData:
    """``adj_t`` holds the transpose."""

    @pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo, torch.sparse_csc])
    def test_adj_t(self, layout):
        edge_index = torch.tensor([[0, 0, 1, 2, 3], [1, 2, 2, 3, 3]])
        data = Data(x=torch.rand(4, 1), edge_index=edge_index, edge_attr=torch.arange(5.0))
        held = transforms.ToSparseTensor()(data.clone())
        held.adj_t = held.adj_t.to_sparse(layout=layout) if layout != torch.sparse_csr else held.adj_t
        scores = gs.edges.score(held, "dspar")
        small = gs.sparsify(held, "dspar", keep=0.5)
        expected = gs.sparsify(data, "dspar", keep=0.5).edge_index
        assert small.adj_t.layout == layout
        heads, tails = small.adj_t.to_dense().nonzero().t()
        assert sorted(zip(tails.tolist(), heads.tolist(), strict=True)) == sorted(map(tuple, expected.t().tolist()))
        assert len(scores) == 5
        assert small.num_nodes == 4
        if layout == torch.sparse_csr:  # ToSparseTensor sorts what edges carry in this order
            plain = gs.sparsify(data, "dspar", keep=0.5)
            assert sorted(small.edge_attr.tolist()) == sorted(plain.edge_attr.tolist())

    def test_adj_t_is_directed_as_the_edges_are(self):
        star = torch.tensor([[0, 0, 0, 1], [1, 2, 3, 2]])
        held = transforms.ToSparseTensor()(Data(edge_index=star, num_nodes=4))
        assert sorted(gs.edges.score(held, "dspar").tolist()) == sorted(gs.edges.score(star, "dspar").tolist())

    def test_new_weights_go_into_the_matrix(self):
        held = transforms.ToSparseTensor()(ring(5, edge_weight=torch.full((10,), 2.0)))
        small = gs.edges.sample(held, "dspar", keep=0.4)
        assert "edge_weight" not in small
        plain = gs.edges.sample(ring(5, edge_weight=torch.full((10,), 2.0)), "dspar", keep=0.4)
        assert small.adj_t.values().tolist() == plain.edge_weight.tolist()


class TestEdgeIndex:
    """What an ``EdgeIndex`` knows of itself stays."""

    def test_size_order_and_direction(self):
        both = EdgeIndex(
            [[0, 1, 1, 2, 2, 4], [1, 0, 2, 1, 4, 2]], sparse_size=(6, 6), sort_order="row", is_undirected=True
        )
        small = gs.sparsify(both, "random", keep=0.5)
        assert isinstance(small, EdgeIndex)
        assert (small.sparse_size(), small.sort_order, small.is_undirected) == ((6, 6), "row", True)
        small.validate()
        assert small.size(1) == 4
        assert gs.edges.score(both).shape == (6,)

    def test_as_directed_it_may_lose_one_arc_of_a_pair(self):
        both = EdgeIndex([[0, 1, 1, 2], [1, 0, 2, 1]], is_undirected=True, sort_order="row")
        small = gs.sparsify(both, torch.tensor([4.0, 1.0, 3.0, 2.0]), keep=0.5, undirected=False)
        assert not small.is_undirected
        small.validate()

    def test_two_sides(self):
        with pytest.raises(ValueError, match=r"square.*undirected=True"):
            gs.sparsify(EdgeIndex([[0, 1], [2, 0]], sparse_size=(2, 3)), keep=0.5)

    def test_within_data(self):
        data = ring(5)
        data.edge_index = EdgeIndex(data.edge_index, sparse_size=(5, 5))
        small = gs.sparsify(data, "random", keep=0.5)
        assert isinstance(small.edge_index, EdgeIndex)
        assert torch.equal(small.edge_index.as_tensor(), gs.sparsify(ring(5), "random", keep=0.5).edge_index)


def test_a_pair_of_edges_and_weights():
    data = ring(5)
    edge_index, nothing = gs.sparsify((data.edge_index, None), "random", keep=0.5)
    assert nothing is None
    pair = gs.sparsify((data.edge_index, data.edge_attr), "random", keep=0.5)
    assert torch.equal(pair[0], edge_index)
    assert pair[1].shape == (6, 1)
    again, weights = gs.edges.sample(pair, "dspar", keep=0.5)
    assert (again.shape, weights.shape) == ((2, 4), (4,))
    with pytest.raises(ValueError, match="each of 10 edges"):
        gs.sparsify((data.edge_index, torch.ones(3)), keep=0.5)
