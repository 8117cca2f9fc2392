"""Nodes with several labels: loss over what is known, the figures of OGB and of PPI, tickets, reliance."""

from __future__ import annotations

import copy
import math
import sys
from typing import Any

import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor, nn
from torch_geometric.data import Data

import graphsparse as gs
from graphsparse.errors import TicketError
from graphsparse.fit import DivergedError, Metric, NodeTask, fit
from graphsparse.fit.labels import binary_loss, micro_f1
from graphsparse.tickets import Problem, Training, train_dense
from graphsparse.tickets.finders.reliance import Reliance


@pytest.fixture
def labelled(data: Data) -> Data:
    """Four labels a node: its class is 0, 1 or 2, and nothing in particular; every tenth is not known."""
    generator = torch.Generator().manual_seed(2)
    y = torch.cat([nn.functional.one_hot(data.y, 3), (torch.rand(60, 1, generator=generator) < 0.5).long()], dim=1)
    other = copy.copy(data)
    other.y = y.float().masked_fill(torch.rand(60, 4, generator=generator) < 0.1, torch.nan)
    other.metric = "rocauc"
    return other


def net(columns: int = 4) -> nn.Module:
    return gs.nn.make("gcn", 40, columns, 8, seed=0)


def test_the_loss_is_that_of_the_known_labels() -> None:
    outputs, targets = torch.randn(5, 3), torch.randint(2, (5, 3)).float()
    targets[0] = targets[3, 1] = torch.nan
    by_hand = [
        math.log1p(math.exp(-float(z) if t == 1 else float(z)))
        for z, t in zip(outputs.view(-1), targets.view(-1), strict=True)
        if not math.isnan(t)
    ]
    assert len(by_hand) == 11
    assert float(binary_loss(outputs, targets)) == pytest.approx(sum(by_hand) / 11, rel=1e-5)
    assert float(binary_loss(outputs, torch.full((5, 3), torch.nan))) == 0


def test_figures_are_those_of_scikit_learn(labelled: Data) -> None:
    outputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    y, mask = labelled.y, labelled.test_mask
    known = ~y.isnan() & mask[:, None]
    areas = [roc_auc_score(y[known[:, c], c].numpy(), outputs[known[:, c], c].numpy()) for c in range(4)]
    assert NodeTask(labelled).score(outputs, "test") == pytest.approx(sum(areas) / 4)
    expected = f1_score(y[known].numpy(), (outputs[known] > 0).numpy())
    assert NodeTask(labelled, metric="micro-f1").score(outputs, "test") == pytest.approx(expected)
    rows = ~y.isnan().any(dim=1)
    several = f1_score(y[rows].numpy(), (outputs[rows] > 0).numpy(), average="micro")
    assert micro_f1(outputs[rows], y[rows]) == pytest.approx(several)
    assert micro_f1(-torch.ones(3, 2), torch.zeros(3, 2)) == 0


@pytest.mark.parametrize("metric", ["rocauc", "ap", "micro-f1"])
def test_it_learns(labelled: Data, metric: str) -> None:
    task = NodeTask(labelled, metric=metric)
    result = fit(net(), task, epochs=60, lr=0.05)
    assert result.test == task.score(result.logits, "test") > 0.4
    assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]
    assert result.logits.shape == (60, 4)


def test_which_targets_are_labels(data: Data) -> None:
    def outputs(y: Tensor) -> str:
        other = copy.copy(data)
        other.y = y
        return NodeTask(other, metric=Metric("any", lambda z, t: 0.0)).outputs

    assert outputs(data.y) == outputs(data.y[:, None]) == "classes"
    assert outputs((data.y == 1)[:, None].float()) == "labels"
    assert outputs(nn.functional.one_hot(data.y)) == outputs(nn.functional.one_hot(data.y).bool()) == "labels"


def test_the_students_term_is_that_of_each_label(labelled: Data) -> None:
    task, teacher = NodeTask(labelled), torch.randn(60, 4)
    term = task.teach(net(), teacher, 2.0)
    student = torch.randn(60, 4)
    p, q = teacher.sigmoid().double(), student.sigmoid().double()
    expected = 2 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert float(term.term(student, teacher)) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("method", ["teddy", "reliance", "reliance-blind", "ugs", "imp", "no-edges"])
def test_tickets_are_found_stored_and_verified(labelled: Data, method: str, tmp_path: Any) -> None:
    options = {"protocol": "inductive"} if method == "reliance-blind" else {}
    ticket = gs.find_ticket(net(), labelled, method=method, edge_keep=0.8, weight_keep=0.8, epochs=3, **options)
    assert ticket.metrics["metric"] == "rocauc"
    assert "test_accuracy" not in ticket.metrics
    ticket.save(tmp_path)
    again = gs.Ticket.load(tmp_path)
    report = again.verify(labelled, model=net())
    assert report["max_output_error"] < 1e-4
    assert report["test"] == ticket.metrics["test"]
    other = copy.copy(labelled)
    other.y = 1 - labelled.y
    with pytest.raises(TicketError, match="not the ticket's graph"):
        again.verify(other)


def test_reliance_is_the_mean_over_the_labels(labelled: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """The need of a node is the KL of each label's two chances, agreement that of two draws being equal."""
    problem = Problem(net(), labelled, NodeTask(labelled), Training(epochs=2))
    dense = train_dense(problem)
    seen = {}

    def chosen(graph: Any, need: Tensor, agreement: Tensor, **rules: Any) -> Tensor:
        seen.update(need=need, agreement=agreement)
        return torch.ones(graph.num_edges, dtype=torch.bool)

    monkeypatch.setattr(sys.modules[Reliance.__module__], "mask_by_need", chosen)
    Reliance(floor=0.0).edge_mask(problem, dense, 1)
    model = problem.trained_model(dense)
    with torch.no_grad():
        p = model(labelled.x, labelled.edge_index).double().sigmoid()
        loops = labelled.edge_index[:, labelled.edge_index[0] == labelled.edge_index[1]]
        q = model(labelled.x, loops).double().sigmoid()
    need = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean(dim=1)
    u, v = labelled.edge_index
    torch.testing.assert_close(seen["need"], need, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(seen["agreement"], (p[u] * p[v] + (1 - p[u]) * (1 - p[v])).mean(dim=1))


def test_wd_glt_needs_one_class_a_node(labelled: Data) -> None:
    with pytest.raises(ValueError, match="not NodeTask of several labels a node"):
        gs.find_ticket(net(), labelled, method="wd-glt", edge_keep=0.8, epochs=1)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda y, m: y.masked_fill(y == 1, 2), ValueError, r"data.y holds 2 at node \d+, label \d; labels are 0, 1"),
        (lambda y, m: y[1:], ValueError, r"data.y must have shape \[60\] or \[60, labels\], got \[59, 4\]"),
        (lambda y, m: y[:, :0], ValueError, r"got \[60, 0\]"),
        (lambda y, m: y.to(torch.complex64), TypeError, "must hold labels"),
        (lambda y, m: y.masked_fill(m[:, None], torch.nan), ValueError, "val_mask selects no node with a known label"),
        (lambda y, m: y.masked_fill(m[:, None], 0), ValueError, "rocauc is undefined: in val_mask every label holds"),
    ],
)
def test_bad_labels_get_one_sentence(labelled: Data, change: Any, kind: type[Exception], said: str) -> None:
    labelled.y = change(labelled.y, labelled.val_mask)
    with pytest.raises(kind, match=said):
        NodeTask(labelled)


def test_bad_figures_and_widths_get_one_sentence(labelled: Data) -> None:
    with pytest.raises(ValueError, match="accuracy"):
        NodeTask(labelled, metric="accuracy")
    with pytest.raises(ValueError, match="each node has 4 labels, but the model has 3 outputs"):
        fit(net(3), NodeTask(labelled), epochs=1)

    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.inner(x, edge_index) * (1.0 if self.training else torch.inf)

    with pytest.raises(DivergedError, match="validation rocauc of epoch 0 is nan"):
        fit(Broken(), NodeTask(labelled), epochs=1)
