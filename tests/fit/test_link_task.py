"""Link tasks: what is trained on, what is judged, how negatives are drawn, who decodes, bad input."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import SAGEConv
from torch_geometric.utils import to_undirected

from graphsparse.fit import DivergedError, LinkTask, fit
from graphsparse.fit.negatives import NegativePairs
from graphsparse.nn import GCN, LinkNet, NodeEmbedding


class Embedder(nn.Module):
    """A PyG model with learned nodes as a user writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(40, 8)
        self.conv = SAGEConv(8, 8)

    def forward(self, x: Tensor | None, edge_index: Tensor) -> Tensor:
        return self.conv(self.rows.weight if x is None else self.rows.weight + x, edge_index)


@pytest.fixture
def links() -> Data:
    """40 nodes in two halves with links within them; each link is in one part."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.combinations(torch.arange(40)).t()
    same = pairs[0] % 2 == pairs[1] % 2
    within, between = pairs[:, same], pairs[:, ~same]
    within = within[:, torch.randperm(within.size(1), generator=generator)]
    between = between[:, torch.randperm(between.size(1), generator=generator)]
    train = within[:, :150]
    return Data(
        edge_index=to_undirected(train),
        num_nodes=40,
        train_pos_edge_index=train,
        val_pos_edge_index=within[:, 150:190],
        val_neg_edge_index=between[:, :60],
        test_pos_edge_index=within[:, 190:230],
        test_neg_edge_index=between[:, 60:120],
        metric="hits@20",
    )


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Embedder()


def test_it_learns_links(links: Data, model: nn.Module) -> None:
    result = fit(model, LinkTask(links, batch_size=50), epochs=40)
    assert result.val > 0.6
    assert result.test > 0.6


def test_outputs_are_the_judged_pairs_in_order(links: Data, model: nn.Module) -> None:
    task = LinkTask(links)
    outputs = task.predict(model)
    with torch.no_grad():
        z = model.eval()(None, links.edge_index)
    names = [f"{part}_{kind}_edge_index" for part in ("val", "test") for kind in ("pos", "neg")]
    expected = [(z[links[name][0]] * z[links[name][1]]).sum(dim=1) for name in names]
    torch.testing.assert_close(outputs, torch.cat(expected))
    kth = expected[3].sort(descending=True).values[19]
    assert task.score(outputs, "test") == pytest.approx(float((expected[2] > kth).double().mean()))


def test_taking_messages_away_takes_no_example_away(links: Data, model: nn.Module) -> None:
    task = LinkTask(links)
    none = task.with_edges(torch.empty(2, 0, dtype=torch.long))
    assert torch.equal(none.training_links, links.train_pos_edge_index)
    assert all(torch.equal(none.judged[name], task.judged[name]) for name in task.judged)
    assert none.predict(model).shape == task.predict(model).shape
    assert torch.equal(none.negatives.known, task.negatives.known)  # a dropped link is no negative


def test_dropped_links_may_leave_training(links: Data) -> None:
    task = LinkTask(links, positives="kept")
    kept = task.with_edges(to_undirected(links.train_pos_edge_index[:, ::3]))
    assert torch.equal(kept.training_links, links.train_pos_edge_index[:, ::3])
    with pytest.raises(ValueError, match="no training link is left"):
        fit(Embedder(), task.with_edges(torch.empty(2, 0, dtype=torch.long)), epochs=1)


def test_judged_pairs_never_reach_the_model(links: Data, model: nn.Module) -> None:
    """Training and validation do not depend on which pairs are tested."""
    other = copy.copy(links)
    other.test_pos_edge_index = links.test_neg_edge_index
    runs = [fit(copy.deepcopy(model), LinkTask(data), epochs=3) for data in (links, other)]
    assert runs[0].history == runs[1].history
    assert runs[0].test != runs[1].test


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 12), st.data())
def test_negatives_are_pairs_that_are_no_links(num_nodes: int, data: st.DataObject) -> None:
    ends = st.integers(0, num_nodes - 1)
    known = data.draw(st.lists(st.tuples(ends, ends), max_size=num_nodes * 2))
    if len({pair for pair in known if pair[0] != pair[1]}) == num_nodes * (num_nodes - 1):
        return
    drawn = NegativePairs(torch.tensor(known, dtype=torch.long).view(-1, 2).t(), num_nodes).draw(200)
    pairs = set(map(tuple, drawn.t().tolist()))
    assert drawn.shape == (2, 200)
    assert not pairs & set(known)
    assert all(u != v and 0 <= min(u, v) <= max(u, v) < num_nodes for u, v in pairs)


def test_negatives_are_uniform() -> None:
    drawn = NegativePairs(torch.tensor([[0, 1], [1, 0]]), 4).draw(30_000)
    _, counts = torch.unique(drawn[0] * 4 + drawn[1], return_counts=True)
    assert len(counts) == 10
    assert float((counts / 3000 - 1).abs().max()) < 0.1


def test_a_complete_graph_has_no_negatives(links: Data) -> None:
    links.edge_index = torch.cartesian_prod(torch.arange(40), torch.arange(40)).t()
    with pytest.raises(ValueError, match="every pair of nodes is a link"):
        LinkTask(links)


@pytest.mark.parametrize("batch_size", [None, 32])
def test_equal_seeds_draw_equal_negatives(links: Data, model: nn.Module, batch_size: int | None) -> None:
    task = LinkTask(links, batch_size=batch_size)
    runs = [fit(copy.deepcopy(model), task, epochs=3, seed=seed) for seed in (0, 0, 1)]
    assert runs[0].history == runs[1].history != runs[2].history
    steps = list(task.start(model, torch.device("cpu")).losses())
    assert len(steps) == (1 if batch_size is None else 5)


def test_the_loss_is_that_of_ogbs_examples(links: Data, model: nn.Module) -> None:
    task = LinkTask(links, batch_size=None)
    torch.manual_seed(3)
    (loss,) = task.start(model, torch.device("cpu")).losses()
    torch.manual_seed(3)
    torch.randperm(150)
    negative = task.negatives.draw(150)
    z = model.train()(None, links.edge_index)
    positive_out, negative_out = (
        torch.sigmoid((z[u] * z[v]).sum(dim=1)) for u, v in (links.train_pos_edge_index, negative)
    )
    expected = -torch.log(positive_out).mean() - torch.log(1 - negative_out).mean()
    torch.testing.assert_close(loss, expected)


def test_a_model_may_decode_itself(links: Data) -> None:
    net = LinkNet(NodeEmbedding(GCN(8, 8, 8), 40, 8), 8, num_layers=2, dropout=0.5)
    task = LinkTask(links)
    result = fit(net, task, epochs=2)
    with torch.no_grad():
        z = net.eval()(None, links.edge_index)
        expected = net.decode(z, links.val_pos_edge_index)
    torch.testing.assert_close(result.logits[:40], expected)
    distance = LinkTask(links, decoder=lambda u, v: -(u - v).abs().sum(dim=1))
    assert distance.predict(Embedder())[0] < 0


def test_the_teacher_scores_the_pairs_of_the_step(links: Data, model: nn.Module) -> None:
    task = LinkTask(links)
    term = task.teach(copy.deepcopy(model), task.predict(model), weight=1.0)
    torch.manual_seed(0)
    (alone,) = task.start(model, torch.device("cpu")).losses()
    torch.manual_seed(0)
    (taught,) = task.start(model, torch.device("cpu"), term).losses()
    torch.testing.assert_close(alone, taught)  # a student that equals its teacher has nothing to learn from it
    torch.manual_seed(0)
    (other,) = task.start(Embedder(), torch.device("cpu"), term).losses()
    assert other > 0
    with pytest.raises(ValueError, match=r"make it with LinkTask\.teach"):
        fit(model, task, epochs=1, distill=task.teach(model, task.predict(model), 1.0).__class__(torch.ones(4, 1)))


def test_features_are_used_where_there_are_some(links: Data, model: nn.Module) -> None:
    links.x = torch.randn(40, 8)
    with torch.no_grad():
        z = model.eval()(links.x, links.edge_index)
    u, v = links.val_pos_edge_index
    torch.testing.assert_close(LinkTask(links).predict(model)[:40], (z[u] * z[v]).sum(dim=1))


def test_mrr_has_negatives_of_each_positive(links: Data, model: nn.Module) -> None:
    for part in ("val", "test"):
        negative = torch.randint(40, (2, 40, 5), generator=torch.Generator().manual_seed(1))
        links[f"{part}_neg_edge_index"] = negative
    task = LinkTask(links, metric="mrr")
    result = fit(model, task, epochs=2)
    assert result.logits.shape == (2 * (40 + 200),)
    assert result.val == task.score(result.logits, "val")


def test_an_interrupted_run_resumes_to_the_same_result(links: Data, model: nn.Module, tmp_path: Any) -> None:
    task = LinkTask(links, batch_size=50)
    whole = fit(copy.deepcopy(model), task, epochs=6)

    class Stop:
        def __call__(self, done: int, total: int, figures: Any) -> None:
            if done == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(copy.deepcopy(model), task, epochs=6, checkpoint=tmp_path / "a", checkpoint_every=2, progress=Stop())
    again = fit(copy.deepcopy(model), task, epochs=6, checkpoint=tmp_path / "a", checkpoint_every=2)
    assert again.history == whole.history
    assert torch.equal(again.logits, whole.logits)


def test_diverging_says_so(links: Data, model: nn.Module) -> None:
    with torch.no_grad():
        model.rows.weight[3] = float("inf")
    with pytest.raises(DivergedError, match="epoch 0"):
        fit(model, LinkTask(links), epochs=1)


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("val_pos_edge_index", None, ValueError, "the data has no val_pos_edge_index"),
        ("test_neg_edge_index", torch.zeros(2, 0, dtype=torch.long), ValueError, "holds no pair"),
        ("test_neg_edge_index", torch.zeros(2, 19, dtype=torch.long), ValueError, "hits@20 needs more than 19 pairs"),
        ("train_pos_edge_index", torch.tensor([[0], [40]]), ValueError, "names node 40, but there are 40"),
        ("train_pos_edge_index", torch.tensor([[-1], [4]]), ValueError, "names node -1"),
        ("train_pos_edge_index", torch.zeros(2, 3), TypeError, "must hold integers"),
        ("val_pos_edge_index", torch.zeros(3, 2, dtype=torch.long), ValueError, r"shape \[2, E\]"),
        ("val_neg_edge_index", torch.zeros(2, 40, 3, dtype=torch.long), ValueError, "of shape"),
        ("edge_index", torch.tensor([[0], [41]]), ValueError, "names node 41"),
        ("x", torch.full((40, 2), float("nan")), ValueError, "nan at node 0, feature 0"),
        ("metric", "accuracy", ValueError, "hits@K"),
        ("metric", None, ValueError, "say how links are judged"),
        ("metric", "mrr", ValueError, "mrr needs negatives of each positive"),
    ],
)
def test_bad_data_gets_one_clear_sentence(
    links: Data, name: str, value: Any, error: type[Exception], said: str
) -> None:
    links[name] = value
    with pytest.raises(error, match=said):
        LinkTask(links)


def test_bad_options_and_models_get_one_clear_sentence(links: Data) -> None:
    for options in ({"batch_size": 0}, {"positives": "some"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            LinkTask(links, **options)
    for options in ({"protocol": "inductive"}, {"split": 1}):
        with pytest.raises(ValueError, match=r"transductive|split"):
            LinkTask.of(links, **options)
    with pytest.raises(ValueError, match="val"):
        LinkTask(links).score(torch.zeros(200), "train")
    with pytest.raises(ValueError, match="one embedding for each of the 40 nodes"):
        LinkTask(links).predict(NodeEmbedding(GCN(4, 4, 4), 41, 4))
    with pytest.raises(ValueError, match="one score for each of"):
        LinkTask(links, decoder=lambda u, v: u).predict(Embedder())
    del links.num_nodes
    with pytest.raises(ValueError, match=r"set data\.num_nodes"):
        LinkTask(links)
