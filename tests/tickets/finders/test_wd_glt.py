"""The terms of WD-GLT: the distance between classes, and the hostile edge mask."""

import pytest
import torch
from torch_geometric.data import Data

from graphsparse.fit import NodeTask
from graphsparse.nn import GCN
from graphsparse.tickets import Problem, Training
from graphsparse.tickets.finders.soft import MaskTask
from graphsparse.tickets.finders.ugs import L1Penalty
from graphsparse.tickets.finders.wd_glt import WDGLT, MinMax, class_distance


def distance(outputs, points=1000, seed=0, **options):
    return class_distance(outputs, points, torch.Generator().manual_seed(seed), **options)


def exact(outputs):
    """The unregularised distance by POT's linear program, for each class and summed."""
    import ot

    p, total = outputs.double().softmax(1), 0.0
    for label in range(p.size(1)):
        one = p.argmax(1) == label
        if one.any() and not one.all():
            total += float(ot.emd2([], [], torch.cdist(p[one], p[~one]).square().numpy()))
    return total


@pytest.mark.parametrize("seed", range(3))
def test_the_distance_is_close_to_the_exact_one(seed):
    outputs = 2 * torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))
    assert float(distance(outputs, regularisation=0.005, iterations=5000)) == pytest.approx(exact(outputs), rel=0.02)


def test_outputs_that_agree_have_no_distance_and_a_gradient_drives_classes_apart():
    assert float(distance(torch.ones(5, 3))) == 0
    outputs = torch.randn(30, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = distance(outputs)
    (gradient,) = torch.autograd.grad(before, outputs)
    assert float(distance((outputs + gradient / gradient.norm()).detach())) > float(before.detach())


def test_one_column_stands_for_two_classes():
    column = torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(distance(column), distance(torch.cat([torch.zeros(20, 1), column], dim=1)))


def test_points_are_a_seeded_sample():
    outputs = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(distance(outputs, points=20), distance(outputs, points=20))
    assert not torch.equal(distance(outputs, points=20), distance(outputs, points=20, seed=1))
    assert float(distance(outputs, points=100)) == pytest.approx(float(distance(outputs)), rel=0.2)


def test_the_adversary_only_weakens_edges_and_most_where_the_loss_rises():
    objective = MinMax(L1Penalty(0.0, 0.0), distance=0.0, attack=0.1, points=5)
    mask, gradient = torch.tensor([1.0, 1.0, 0.5, 0.02]), torch.tensor([3.0, -3.0, -1.0, -3.0])
    hostile = objective.hostile(mask, gradient)
    assert hostile[0] == 1  # the loss rises with the edge, which cannot grow beyond a whole edge
    assert hostile[1] < hostile[0]
    assert 0.4 < hostile[2] < 0.5
    assert hostile[3] == 0
    assert torch.equal(objective.hostile(mask, torch.zeros(4)), mask)


def test_a_task_of_several_steps_an_epoch_is_refused():
    class Steps:
        metric = None

        def start(self, model, device, distill=None):
            return self

        def losses(self):
            yield from (model.weight.sum(), model.weight.sum())

    class Plain:
        full_batch = True

        def __call__(self, soft, loss, again, generator):
            return loss

    model = torch.nn.Linear(2, 2)
    model.edges = torch.nn.Parameter(torch.empty(0))
    with pytest.raises(ValueError, match="whole graph in every step"):
        list(MaskTask(Steps(), model, Plain()).start(model, torch.device("cpu")).losses())
    assert WDGLT().objective.full_batch


class Toy(torch.nn.Module):
    """Outputs that are linear in two edge masks and a weight, so that every gradient can be had by hand."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.edges = torch.nn.Parameter(torch.tensor([0.9, 0.4]))
        self.weight = torch.nn.Parameter(torch.tensor(1.5))
        self.mask = torch.nn.Parameter(torch.tensor([0.5, -2.0]))
        self.parts = torch.randn(2, 12, 3, generator=generator)
        self.outputs = self.forced = None

    @property
    def weight_masks(self):
        return {"w": self.mask}

    def loss(self):
        edges = self.edges if self.forced is None else self.forced
        self.outputs = self.weight * (edges[:, None, None] * self.parts).sum(0)
        return self.outputs.square().mean() + (self.outputs * torch.arange(3)).mean()


def test_the_edge_mask_descends_on_the_loss_minus_the_distance_and_the_weights_on_the_worst_loss():
    objective, toy = MinMax(L1Penalty(0.25, 0.125), distance=0.7, attack=0.1, points=100), Toy()
    loss = toy.loss()
    (of_loss,) = torch.autograd.grad(loss, toy.edges, retain_graph=True)
    (of_distance,) = torch.autograd.grad(distance(toy.outputs, points=100), toy.edges, retain_graph=True)
    assert of_distance.abs().min() > 1e-3
    hostile = toy.edges.detach() + 0.1 * of_loss / of_loss.square().mean().sqrt()
    whole = objective(toy, loss, toy.loss, torch.Generator().manual_seed(0))
    whole.backward()
    assert torch.allclose(toy.edges.grad, of_loss - 0.7 * of_distance + 0.25 * toy.edges.detach().sign(), atol=1e-6)
    assert torch.allclose(toy.mask.grad, 0.125 * toy.mask.detach().sign())
    assert toy.forced is None
    other = Toy()
    other.forced = hostile.clamp(0, 1)
    worst = other.loss()
    worst.backward()
    assert torch.allclose(toy.weight.grad, other.weight.grad, atol=1e-6)
    assert float(worst.detach()) > float(loss.detach())  # the adversary climbs
    penalty = 0.25 * 1.3 + 0.125 * 2.5
    assert float(whole.detach()) == pytest.approx(float(worst.detach()) + penalty, rel=1e-5)


def test_outputs_of_one_class_have_no_distance_and_the_loss_goes_on():
    toy = Toy()
    toy.parts = toy.parts.abs() * torch.tensor([1.0, 0.0, 0.0])
    objective = MinMax(L1Penalty(0.0, 0.0), distance=1.0, attack=0.0, points=10)
    loss = toy.loss()
    (of_loss,) = torch.autograd.grad(loss, toy.edges, retain_graph=True)
    objective(toy, loss, toy.loss, torch.Generator()).backward()
    assert torch.allclose(toy.edges.grad, of_loss)


def test_an_adversary_that_fails_leaves_no_mask_behind():
    toy = Toy()

    def again():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        MinMax(L1Penalty(0.0, 0.0), 0.1, 0.1, 10)(toy, toy.loss(), again, torch.Generator())
    assert toy.forced is None


def test_the_adversarys_step_has_the_length_that_was_asked_for():
    objective = MinMax(L1Penalty(0.0, 0.0), distance=0.0, attack=0.2, points=5)
    gradient = torch.tensor([3.0, -1.0, 2.0, -4.0])
    step = objective.hostile(torch.full((4,), 0.5), gradient) - 0.5
    assert float(step.square().mean().sqrt()) == pytest.approx(0.2, rel=1e-5)
    assert torch.equal(step.sign(), gradient.sign())


def test_the_settings_reach_the_objective():
    finder = WDGLT(edge_penalty=0.5, weight_penalty=0.25, distance=0.75, attack=0.125, points=9)
    assert finder.objective == MinMax(L1Penalty(0.5, 0.25), 0.75, 0.125, 9)
    assert WDGLT().objective == MinMax(L1Penalty(1e-4, 1e-4), 0.1, 0.1, 256)
    assert WDGLT(points=1).points == 1


def test_few_points_are_drawn_of_each_side():
    apart = torch.cat([torch.tensor([[9.0, -9.0]]).repeat(50, 1), torch.tensor([[-9.0, 9.0]]).repeat(50, 1)])
    for points in (1, 3, 200):
        assert float(distance(apart, points=points)) == pytest.approx(4.0, rel=1e-3)
    mixed = torch.randn(100, 2, generator=torch.Generator().manual_seed(1))
    values = {round(float(distance(mixed, points=1, seed=seed)), 5) for seed in range(8)}
    assert len(values) > 4


def test_the_regularisation_is_a_twentieth_of_the_largest_cost():
    outputs = 2 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(distance(outputs), distance(outputs, regularisation=0.05, iterations=100))
    assert float(distance(outputs)) == pytest.approx(exact(outputs), rel=0.2)
    assert float(distance(outputs, regularisation=1.0)) > 1.2 * exact(outputs)  # a plan that is spread out


@pytest.mark.parametrize("term", ["distance", "attack"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_terms_that_are_no_weights_are_refused(term, value):
    with pytest.raises(ValueError, match=term):
        WDGLT(**{term: value})


def test_a_task_without_classes_of_nodes_is_refused_before_anything_is_trained(monkeypatch):
    def problem(y, **how):
        data = Data(x=torch.eye(12), edge_index=torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]), y=y)
        data.train_mask, data.val_mask, data.test_mask = (torch.arange(12) % 3 == part for part in range(3))
        task = NodeTask(data, **how)
        return Problem(GCN(12, 4, 2), data, task, Training(epochs=1), about={"task": "node"})

    monkeypatch.setattr("graphsparse.tickets.problem.fit", None)
    classes = torch.arange(12) // 3 % 2
    WDGLT().check(problem(classes))
    with pytest.raises(ValueError, match="of several labels a node"):
        WDGLT().check(problem(torch.stack([classes, 1 - classes], 1).float()))
    with pytest.raises(ValueError, match="with a loss of its own"):
        WDGLT().check(problem(classes, loss=lambda outputs, y: outputs.sum()))
