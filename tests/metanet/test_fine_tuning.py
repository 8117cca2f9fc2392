"""The recipe of fine-tuning: batches, distillation from the unpruned network, and how it is chosen."""

import copy

import pytest
import torch
from metanet_networks import same_bits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from graphsparse.fit import Distill, Metric, Task, fit
from graphsparse.metanet import TRIALS, FineTune, prune, tune


def net_of(seed=0, outputs=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, outputs))


def parts(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(96, 4, generator=generator)
    y = x[:, :3].argmax(1)
    return (x[:64], y[:64]), (x[64:80], y[64:80]), (x[80:], y[80:])


def task_of(**options):
    return Task(*parts(), batch_size=16, **options)


class Steps:
    """Counts the optimizer's steps."""

    def __init__(self):
        self.count = 0

    def attach(self, optimizer):
        self.handle = optimizer.register_step_post_hook(lambda *_: setattr(self, "count", self.count + 1))

    def detach(self):
        self.handle.remove()

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize(("batch_size", "steps"), [(None, 8), (16, 8), (64, 2), (8, 16)])
def test_the_recipe_says_how_many_examples_a_step_takes(batch_size, steps):
    counted, task = Steps(), task_of()
    FineTune(2, batch_size=batch_size).run(net_of(), task, callbacks=(counted,))
    assert counted.count == steps
    assert task.batch_size == 16


def test_distillation_is_one_term_of_the_loss_by_hand():
    """One step of one batch: the gradient of cross-entropy plus lambda T^2 KL(teacher || student)."""
    net, teacher, task = net_of(), net_of(5), task_of()
    x, y = task.parts["train"]
    by_hand = copy.deepcopy(net).train()
    weight, T = 0.7, 2.0
    with torch.no_grad():
        soft = functional.softmax(teacher.eval()(x) / T, 1)
    out = by_hand(x)
    kl = (soft * (soft.log() - functional.log_softmax(out / T, 1))).sum(1).mean()
    (functional.cross_entropy(out, y) + weight * T * T * kl).backward()
    seen = {}

    class Look(Steps):
        def attach(self, optimizer):
            def look(optimizer, *_):
                for name, p in net.named_parameters():
                    seen[name] = p.grad.clone()

            self.handle = optimizer.register_step_pre_hook(look)

    recipe = FineTune(1, 1e-9, batch_size=64, distill=weight, temperature=T)
    recipe.run(net, task, teacher=teacher, callbacks=(Look(),))
    for name, parameter in by_hand.named_parameters():
        torch.testing.assert_close(seen[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_a_teacher_that_is_asked_by_batches_says_the_same_as_its_outputs():
    """A loader knows no rows and augmented inputs have none: the teacher itself is asked, and gradients flow."""
    teacher, task = net_of(5), task_of()
    found = []
    for distill in (
        Distill(task.predict(teacher, "train"), 2.0),
        Distill(None, 2.0, teacher=teacher),
        None,
    ):
        net = net_of()
        fit(net, task, epochs=2, distill=distill)
        found.append(net.state_dict())
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])
    assert not torch.allclose(found[0]["3.weight"], found[2]["3.weight"], atol=1e-4)


def test_distillation_with_a_loader_and_with_augmentation():
    train, val, test = parts()
    loader = DataLoader(TensorDataset(*train), batch_size=16)
    moved = task_of(augment=lambda x: x + 0.1 * torch.randn_like(x))
    for task in (Task(loader, val, test), moved):
        net, teacher = net_of(), net_of(5).train()
        before = copy.deepcopy(teacher.state_dict())
        plain = copy.deepcopy(net)
        FineTune(1, distill=1.0).run(net, task, teacher=teacher)
        FineTune(1).run(plain, task)
        assert not same_bits(net.state_dict(), plain.state_dict())
        assert same_bits(before, teacher.state_dict())
        assert teacher.training
    with pytest.raises(ValueError, match="is a loader, which makes its own batches: leave batch_size out"):
        FineTune(1, batch_size=8).run(net_of(), Task(loader, val, test))


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (nn.functional.mse_loss, torch.float32),
        (nn.BCEWithLogitsLoss(), torch.float32),
        (nn.CrossEntropyLoss(label_smoothing=0.1), torch.int64),
    ],
)
def test_distillation_fits_the_outputs_that_the_loss_stands_for(loss, targets):
    (x, y), *_ = parts()
    y = y if targets is torch.int64 else functional.one_hot(y, 3).to(targets)
    task = Task((x, y), (x, y), (x, y), batch_size=16, loss=loss, metric=never_better())
    apart = []
    for weight in (0.0, 10.0):
        student, teacher = net_of(1), net_of(0)
        FineTune(10, 0.02, distill=weight, weight_decay=0.0).run(student, task, teacher=teacher)
        apart.append(float((task.predict(student, "train") - task.predict(teacher, "train")).abs().mean()))
    assert apart[1] < 0.7 * apart[0]


def never_better():
    """A metric by which the last epoch is the best."""
    return Metric("constant", lambda outputs, targets: 0.0, True)


def test_pixels_are_distilled_place_by_place():
    """Outputs [N, C, H, W]: each pixel is a row."""
    torch.manual_seed(0)
    x = torch.randn(8, 2, 4, 4)
    student, teacher = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1)
    s, t = student(x), teacher(x)
    rows = [o.permute(0, 2, 3, 1).reshape(-1, 3) for o in (s, t)]
    torch.testing.assert_close(Distill(None, teacher=teacher).term(s, t), Distill(rows[1].detach()).term(*rows))
    part = x, torch.zeros(8, 4, 4, dtype=torch.int64)
    task = Task(part, part, part, metric=never_better())
    FineTune(1, distill=1.0).run(student, task, teacher=teacher)


@pytest.mark.parametrize(
    "wrong",
    [{"distill": -1.0}, {"distill": float("nan")}, {"temperature": 0.0}, {"batch_size": 0}, {"epochs": -1}, {"lr": 0}],
)
def test_recipes_out_of_range(wrong):
    with pytest.raises(ValueError):  # noqa: PT011
        FineTune(**wrong)


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match="needs the unpruned network: give teacher="):
        FineTune(1, distill=1.0).run(net_of(), task_of())
    with pytest.raises(ValueError, match="exactly one of teacher_logits and teacher"):
        Distill(None)


def test_prune_teaches_with_the_network_that_was_given():
    net, task = net_of(), task_of()
    FineTune(10, 0.1).run(net, task)
    plain, taught = (
        prune(net, None, task, speedup=2, fine_tune=FineTune(2, batch_size=16, distill=weight)) for weight in (0.0, 4.0)
    )
    assert not same_bits(plain.module.state_dict(), taught.module.state_dict())
    assert min(taught.cpu_seconds) > 0
    assert taught.figures()["cpu_seconds_fine_tune"] == taught.cpu_seconds[1]


def test_tuning_takes_the_best_on_validation_data_and_reads_no_test_part():
    net, task = net_of(), task_of()
    recipes = [FineTune(3, lr, batch_size=16) for lr in (1e-6, 0.1, 1e-5)]
    before = copy.deepcopy(net.state_dict())
    found = tune([net, net_of(1)], task, recipes)
    assert [trial.recipe for trial in found.trials] == recipes
    assert found.best == recipes[1]
    assert same_bits(before, net.state_dict())
    for trial in found.trials:
        assert trial.val == sum(trial.each) / 2
        assert trial.cpu_seconds > 0
    alone = copy.deepcopy(net)
    assert recipes[1].run(alone, task).val == found.trials[1].each[0]
    (x, y), val, test = parts()
    shifted = Task((x, y), val, (test[0], (test[1] + 1) % 3), batch_size=16)
    assert [t.each for t in tune([net, net_of(1)], shifted, recipes).trials] == [t.each for t in found.trials]


def test_a_metric_that_falls_is_minimised():
    (x, y), *_ = parts()
    task = Task((x, y), (x, y), (x, y), batch_size=16)
    task.metric = Metric("loss", lambda outputs, targets: float(functional.cross_entropy(outputs, targets)), False)
    found = tune([net_of()], task, [FineTune(3, lr) for lr in (1e-6, 0.1)])
    assert found.best.lr == 0.1


def test_a_method_that_trains_before_it_cuts_is_tuned_as_a_function_of_the_recipe():
    task, seen = task_of(), []

    def cut(recipe):
        seen.append(recipe)
        return net_of()

    recipes = [FineTune(1, 0.1), FineTune(1, 0.01)]
    assert tune([cut], task, recipes).trials[0].each == tune([net_of()], task, recipes).trials[0].each
    assert seen == recipes


def test_trials_see_equally_many_images():
    with pytest.raises(ValueError, match="equally many images"):
        tune([net_of()], task_of(), [FineTune(1), FineTune(2)])
    with pytest.raises(ValueError, match="at least one"):
        tune([], task_of())
    with pytest.raises(ValueError, match="one teacher for each of the 1 networks, got 2"):
        tune([net_of()], task_of(), teachers=[net_of()] * 2)
    assert len({trial.epochs for trial in TRIALS}) == 1


def test_without_a_recipe_prune_takes_the_one_that_won():
    """At most 32 examples a step, fewer where the task has fewer; a loader's own batches; classes are distilled."""
    train, val, test = parts()
    loader = DataLoader(TensorDataset(*train), batch_size=16)
    values = [(x, functional.one_hot(y, 3).float()) for x, y in (train, val, test)]
    cases = [
        (task_of(), FineTune(4, 0.02, batch_size=16, distill=1.0)),
        (Task(train, val, test, batch_size=64), FineTune(4, 0.02, batch_size=32, distill=1.0)),
        (Task(loader, val, test), FineTune(distill=1.0)),
        (Task(*values, loss=functional.mse_loss, metric=never_better()), FineTune(4, 0.02, batch_size=32)),
    ]
    for task, recipe in cases:
        asked, given = (prune(net_of(), None, task, speedup=2, fine_tune=how) for how in (None, recipe))
        assert same_bits(asked.module.state_dict(), given.module.state_dict()), recipe
