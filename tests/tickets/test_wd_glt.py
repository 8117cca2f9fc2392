"""The terms of WD-GLT: the distance between classes, and the hostile edge mask."""

import pytest
import torch

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
