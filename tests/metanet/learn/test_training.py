"""Meta-training: one backward pass, the right gradients, a fair choice of weights, and runs that can be resumed."""

import copy
import dataclasses
from dataclasses import dataclass, field
from itertools import cycle, islice

import pytest
import torch
from metanet_networks import ResNet, same_bits
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from graphsparse.errors import DataError
from graphsparse.fit import DivergedError, Task
from graphsparse.metanet import (
    OBJECTIVES,
    Channels,
    FineTune,
    GroupNorm,
    Images,
    MetaNetwork,
    NetworkGraph,
    Nowcast,
    Recipe,
    Repair,
    Trajectories,
    Validation,
    meta_train,
    prune,
    train_zoo,
)
from graphsparse.metanet.channels import batch_statistics
from graphsparse.metanet.channels.penalties import group_norm
from graphsparse.metanet.learn.member import Member
from graphsparse.metanet.learn.objectives import through
from graphsparse.metanet.pruning import Selection

QUICK = Validation(speedups=(1.5, 2.0), fine_tune=FineTune(epochs=0))
FEW = Nowcast(Trajectories(count=3, after=(0, 2), fine_tune=FineTune(epochs=1)), epochs=(1,), data=0.5)


def small_net(seed=0, width=5, dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width + 1, 3, padding=1, bias=False), nn.BatchNorm2d(width + 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width + 1, 3),
        )  # fmt: skip
        for part in net:
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias)
        return net.to(dtype).eval()


class Tied(nn.Module):
    """Two layers with one weight, under two names in the state dict."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.weight = self.first.weight
        self.hidden, self.head = nn.Linear(16, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = torch.tanh(self.second(torch.tanh(self.first(x.flatten(1)))))
        return self.head(torch.tanh(self.hidden(x)))


def small_task(dtype=torch.float32, seed=0, test=None, count=48):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 4, 4, generator=generator).to(dtype)
    y = torch.arange(count) % 3
    x[:, 0, 0, 0] += 2.0 * y
    third = count // 4
    parts = [(x[: 2 * third], y[: 2 * third]), (x[2 * third : -third], y[2 * third : -third]), (x[-third:], y[-third:])]
    return Task(parts[0], parts[1], parts[2] if test is None else test, batch_size=8)


def small_metanet(mode="repair", seed=0, dtype=torch.float32, random=False, graph=None):
    if graph is None:
        graph = NetworkGraph.from_module(small_net(), torch.zeros(1, 1, 4, 4))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        metanet = MetaNetwork.for_graph(graph, mode=mode, hidden=8, layers=2)
        for decoder in [*metanet.bank_decoders.values(), *metanet.edge_decoders.values()] if random else []:
            nn.init.normal_(decoder.weight, std=0.3)
    return metanet.to(dtype)


def learn(metanet=None, task=None, nets=None, **options):
    metanet = small_metanet() if metanet is None else metanet
    nets = [small_net(seed, 4 + seed) for seed in range(3)] if nets is None else nets
    options = {"epochs": 3, "steps": 4, "validation": QUICK, **options}
    return metanet, meta_train(metanet, nets, small_task() if task is None else task, **options)


# one backward pass ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norms", ["batch", "running"])
@pytest.mark.parametrize("make", [small_net, Tied], ids=["norms", "tied"])
@pytest.mark.parametrize("count", [1, 3])
def test_value_and_gradient_are_those_of_the_plain_mean(make, batch_norms, count):
    torch.manual_seed(0)
    task = small_task(torch.float64)
    member = Member(make().double().eval(), task, (torch.zeros(1, 1, 4, 4, dtype=torch.float64),))
    metanet = small_metanet("change", dtype=torch.float64, random=True, graph=member.graph)
    batches = list(task.batches("train"))[:count]

    def gradients(loss):
        metanet.zero_grad()
        loss.backward()
        return [p.grad.clone() for p in metanet.parameters() if p.grad is not None]

    def of_batch(outputs, batch):
        return functional.cross_entropy(outputs, batch.targets)

    loss = through(metanet(member.graph), member, batches, of_batch, batch_norms=batch_norms)
    found = gradients(loss)
    state = metanet(member.graph).to_state_dict()
    module = copy.deepcopy(member.module).eval()
    if batch_norms == "batch":
        batch_statistics(module)
    losses = []
    for batch in batches:
        own = {name: t if t.requires_grad else t.clone() for name, t in state.items()}
        losses.append(of_batch(functional_call(module, own, (batch.inputs,)), batch))
    plain = torch.stack(losses).mean()
    torch.testing.assert_close(loss.detach(), plain.detach(), rtol=1e-9, atol=1e-12)
    expected = gradients(plain)
    assert len(found) == len(expected)
    assert any(g.abs().max() > 1e-4 for g in expected)
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_backward_pass_into_the_metanetwork_however_many_batches(name):
    """The released code went back through the metanetwork once for each batch, with retain_graph."""
    task = small_task()
    objective = dataclasses.replace(FEW if name == "nowcast" else OBJECTIVES[name](), batches=4)
    member = objective.members([small_net()], task, (torch.zeros(1, 1, 4, 4),), torch.device("cpu"))[0]
    metanet = small_metanet(objective.mode)
    passes = []
    metanet.register_forward_hook(
        lambda module, args, changed: changed.edges[3, 3].values.register_hook(lambda grad: passes.append(1)) and None
    )
    loss = objective.loss(metanet, member, list(islice(cycle(task.batches("train")), objective.draws)))
    assert not passes
    loss.backward()
    assert len(passes) == 1


def test_no_statistics_and_no_weights_of_the_data_model_move():
    task = small_task()
    net = small_net()
    before = copy.deepcopy(net.state_dict())
    member = Member(net, task, (torch.zeros(1, 1, 4, 4),))
    for objective in (Repair(), GroupNorm()):
        metanet = small_metanet(objective.mode)
        objective.loss(metanet, member, list(task.batches("train"))[:2]).backward()
        assert same_bits(net.state_dict(), before)
        assert same_bits(member.module.state_dict(), before)
        assert not any(part.training for part in member.module.modules())


# the paper's penalty -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [small_net, lambda: ResNet(8, option="B")], ids=["plain", "residual"])
def test_the_gradient_of_group_norm_is_torch_prunings(make):
    tp = pytest.importorskip("torch_pruning")
    torch.manual_seed(1)
    net = make().eval()
    inputs = torch.zeros(1, 1 if isinstance(net, nn.Sequential) else 3, 8, 8)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
    head = net[-1] if isinstance(net, nn.Sequential) else net.head
    pruner = tp.pruner.GroupNormPruner(
        net,
        inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2, group_reduction="sum", normalizer=None),
        reg=1.0,
        ignored_layers=[head],
    )
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    pruner.regularize(net, alpha=2**4)
    graph = NetworkGraph.from_module(net, inputs)
    edges = {k: e.values.requires_grad_() for k, e in graph.edges.items()}
    banks = {n: b.values.requires_grad_() for n, b in graph.banks.items() if n.startswith("gamma")}
    group_norm(graph, alpha=4.0).backward()
    found = graph.with_values(
        {k: v.grad for k, v in edges.items()}, {n: v.grad for n, v in banks.items()}
    ).to_state_dict()
    compared = 0
    for name, parameter in net.named_parameters():
        if name.endswith("weight"):
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-5, msg=name)
            compared += bool(parameter.grad.any())
    assert compared >= 5


# masks and teachers --------------------------------------------------------------------------------------------------


def test_masks_of_repair_are_new_each_step_inside_the_range_and_leave_a_floor():
    task = small_task()
    net = small_net(width=10)
    member = Member(net, task, (torch.zeros(1, 1, 4, 4),))
    metanet = small_metanet()
    masks = []
    metanet.register_forward_pre_hook(lambda module, args: masks.append(args[1]))
    objective = Repair(speedups=(1.5, 4.0))
    torch.manual_seed(0)
    for _ in range(25):
        objective.loss(metanet, member, list(task.batches("train"))[:3])
    assert len({tuple(mask.tolist()) for mask in masks}) > 15
    channels, whole = Channels.of(member.graph), member.cost.left(member.graph)
    for mask in masks:
        speed = whole / member.cost.left(member.graph, mask)
        assert 1.5 <= speed < 4.0 * 1.35  # one channel of ten more than asked for
        for group in torch.unique(channels.group_of[channels.prunable]):
            members = channels.of_nodes(channels.group_of == group)
            assert mask[members].float().mean() >= 0.2


def test_the_teacher_of_a_shuffled_batch_is_the_network_on_that_batch():
    task = small_task()
    member = Member(small_net(), task, (torch.zeros(1, 1, 4, 4),))
    torch.manual_seed(0)
    for batch in task.batches("train", shuffle=True):
        expected = member.module(batch.inputs)
        torch.testing.assert_close(member.teacher(batch), expected)
        torch.testing.assert_close(member.teacher(batch._replace(rows=None)), expected)


# the run -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """A validation that says what it is told, and remembers the weights that it saw."""

    areas: tuple
    seen: list

    def area(self, metanet, networks, task):
        self.seen.append(copy.deepcopy(metanet.state_dict()))
        return self.areas[len(self.seen) - 1]


def test_the_best_epoch_on_held_out_networks_stays():
    told = Told((0.1, 0.7, 0.3, 0.2), [])
    metanet, result = learn(validation=told, epochs=4)
    assert (result.best_epoch, result.val) == (1, 0.7)
    assert same_bits(metanet.state_dict(), told.seen[1])
    assert not same_bits(told.seen[3], told.seen[1])
    assert [each["val"] for each in result.history] == list(told.areas)
    assert not metanet.training


def test_the_last_networks_are_held_out_and_are_not_learned_from():
    nets = [small_net(seed) for seed in range(4)]
    heard = []

    class Listening(Told):
        def area(self, metanet, networks, task):
            heard.append(networks)
            return super().area(metanet, networks, task)

    metanet, _ = learn(nets=nets, epochs=1, validation=Listening((0.5,), []))
    assert [id(net) for net in heard[0]] == [id(nets[3])]
    other, _ = learn(nets=nets[:3], val_networks=[small_net(9)], epochs=1, validation=Told((0.5,), []))
    assert same_bits(metanet.state_dict(), other.state_dict())


class Untouchable(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, item):
        raise AssertionError("the test part was read")


@pytest.mark.parametrize("name", ["repair", "group-lasso"])
def test_the_test_part_decides_nothing_and_is_not_evaluated(name):
    mode = OBJECTIVES[name].mode
    x, y = small_task().parts["test"]
    options = {"objective": name, "validation": Validation((1.5, 2.0), FineTune(epochs=1)), "epochs": 2}
    plain, first = learn(small_metanet(mode), **options)
    shuffled, second = learn(small_metanet(mode), small_task(test=(x.flip(0) * 7, (y + 1) % 3)), **options)
    untouched, third = learn(small_metanet(mode), small_task(test=Untouchable()), **options)
    assert same_bits(plain.state_dict(), shuffled.state_dict())
    assert same_bits(plain.state_dict(), untouched.state_dict())
    assert first.history == second.history == third.history


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, name):
    mode, objective = OBJECTIVES[name].mode, FEW if name == "nowcast" else name
    whole, expected = learn(small_metanet(mode), objective=objective, seed=5)

    def kill(done, total, figures):
        if done == 2:
            raise KeyboardInterrupt

    path = tmp_path / "run.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        learn(small_metanet(mode), objective=objective, seed=5, checkpoint=path, progress=kill)
    again, found = learn(small_metanet(mode), objective=objective, seed=5, checkpoint=path)
    assert same_bits(again.state_dict(), whole.state_dict())
    assert found.history == expected.history
    assert (found.best_epoch, found.val) == (expected.best_epoch, expected.val)
    nets = [small_net(seed + 10) for seed in range(3)]
    with pytest.raises(DataError, match="network"):
        learn(small_metanet(mode), nets=nets, objective=objective, seed=5, checkpoint=path)
    with pytest.raises(DataError, match="seed"):
        learn(small_metanet(mode), objective=objective, seed=6, checkpoint=path)


def test_the_seed_matters_and_the_global_generator_does_not():
    torch.manual_seed(1)
    one, _ = learn(seed=1, epochs=1)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == drawn
    two, _ = learn(seed=1, epochs=1)
    other, _ = learn(seed=2, epochs=1)
    assert same_bits(one.state_dict(), two.state_dict())
    assert not same_bits(one.state_dict(), other.state_dict())


@dataclass(frozen=True)
class Spoilt(Repair):
    """Its loss is NaN from some step on."""

    good: list = field(default_factory=list, repr=False)

    def loss(self, metanet, member, batches):
        found = super().loss(metanet, member, batches)
        return found * (self.good.pop() if self.good else float("nan"))


def test_nan_stops_the_run_with_a_clear_message_and_keeps_the_checkpoint(tmp_path):
    path = tmp_path / "run.checkpoint"
    metanet = small_metanet()
    with pytest.raises(DivergedError, match=r"loss of epoch 1 is nan"):
        learn(metanet, objective=Spoilt(good=[1.0] * 5), checkpoint=path)
    assert all(torch.isfinite(p).all() for p in metanet.parameters())
    again, result = learn(objective=Spoilt(good=[1.0] * 8), checkpoint=path)  # goes on after the first epoch
    expected, _ = learn(objective=Spoilt(good=[1.0] * 12))
    assert len(result.history) == 3
    assert same_bits(again.state_dict(), expected.state_dict())


def test_a_network_that_is_not_finite_is_refused():
    net = small_net()
    net[0].weight.data[0] = float("nan")
    with pytest.raises((ValueError, DivergedError), match=r"finite|nan"):
        learn(nets=[net, small_net(1), small_net(2)], steps=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "group-norm"}, "mode 'change'.*mode 'repair'"),
        ({"objective": "repairs"}, "unknown objective 'repairs' \\(did you mean 'repair'\\?\\)"),
        ({"nets": [small_net()]}, "at least one network to learn from"),
        ({"nets": []}, "at least one network to learn from"),
        ({"val_networks": []}, "at least one network"),
        ({"steps": 0}, "epochs and steps must be at least 1"),
        ({"epochs": 0}, "epochs and steps must be at least 1"),
        ({"clip": 0.0}, "max_norm"),
        ({"objective": Repair(batches=0)}, "at least one batch"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        learn(**options)


@pytest.mark.parametrize("options", [{"speedups": (0.5, 2.0)}, {"speedups": (4.0, 2.0)}, {"teacher": 1.5}])
def test_bad_options_of_repair_are_refused(options):
    with pytest.raises(ValueError, match="repair needs"):
        Repair(**options)


@pytest.mark.parametrize("speedups", [(2.0,), (4.0, 2.0), (2.0, 2.0), (0.5, 2.0)])
def test_a_validation_needs_ascending_speedups(speedups):
    with pytest.raises(ValueError, match="ascending"):
        Validation(speedups=speedups)


def test_the_area_is_the_mean_over_log_speedup():
    task, speeds, tune = small_task(), (1.5, 2.0, 4.0), FineTune(epochs=0)
    nets = [small_net(seed, 12) for seed in range(2)]
    areas = []
    for net in nets:
        scores = [prune(net, None, task, speedup=speed, fine_tune=tune).val for speed in speeds]
        x = torch.tensor(speeds).log()
        areas.append(float(torch.trapezoid(torch.tensor(scores), x) / (x[-1] - x[0])))
    assert areas[0] != areas[1]
    found = Validation(speedups=speeds, fine_tune=tune).area(None, nets, task)
    assert found == pytest.approx(sum(areas) / 2, abs=1e-6)


# real data -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits_zoo(tmp_path_factory):
    recipes = [Recipe("resnet8", 4 + number % 3, number, 3) for number in range(6)]
    return train_zoo(tmp_path_factory.mktemp("zoo"), recipes, Images())


def test_repair_learns_on_real_digits(digits_zoo):
    task = Images().task()
    nets = [each.module for each in digits_zoo]
    graph = NetworkGraph.from_module(nets[0], task.parts["train"][0][:1])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        metanet = MetaNetwork.for_graph(graph, hidden=16, layers=2)
    validation = Validation(speedups=(2.0, 4.0), fine_tune=FineTune(epochs=0))
    baseline = dataclasses.replace(validation, selection=Selection(reconstruct=True)).area(None, nets[-2:], task)
    assert validation.area(metanet, nets[-2:], task) == baseline  # untrained: the plain criterion and least squares
    assert baseline > validation.area(None, nets[-2:], task) + 0.1
    result = meta_train(
        metanet, nets[:-2], task, val_networks=nets[-2:], validation=validation, epochs=2, steps=30, lr=5e-3
    )
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert result.val > baseline - 0.02
    assert validation.area(metanet, nets[-2:], task) == result.val


def test_an_objective_of_ones_own_is_imported_and_must_be_one(tmp_path, monkeypatch):
    (tmp_path / "my_objectives.py").write_text(
        "from graphsparse.metanet import GroupLasso\nclass Mine(GroupLasso):\n    pass\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert OBJECTIVES.find("my_objectives:Mine").mode == "change"
    with pytest.raises(TypeError, match=r"'my_objectives:number' is a subclass of .*Objective, got 3"):
        OBJECTIVES.find("my_objectives:number")


def test_a_network_that_the_metanetwork_cannot_read_is_named_before_anything_is_trained():
    """All that is missing is said: kernel sizes and relations."""
    x, y = torch.randn(16, 1, 6, 6), torch.arange(16) % 2
    task = Task((x, y), (x, y), (x, y))

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(4, 4, 1), nn.Linear(144, 2)

        def forward(self, x):
            x = self.a(x)
            return self.head((x + self.b(x)).flatten(1))

    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    metanet = MetaNetwork([(), (3, 3)], hidden=4, layers=1, relations=["multiply"])
    said = (
        "has relations of type add, which .*; it has kernels of size 1x1, 5x5, and this metanetwork knows linear, 3x3"
    )
    with pytest.raises(ValueError, match=f"network 1 of 2: the network {said}"):
        meta_train(metanet, [plain, Residual()], task, epochs=1, steps=1)
    with pytest.raises(ValueError, match=f"the network {said}"):
        prune(Residual(), metanet, task, speedup=2, criterion="sparse-learning", prepare=FineTune(epochs=10**9))


def test_meta_training_that_diverges_names_the_network():
    x, y = torch.randn(32, 4), torch.arange(32) % 2
    nets = [nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)) for _ in range(3)]
    task = Task((x, y), (x, y), (x, y), batch_size=8, loss=lambda outputs, targets: outputs.sum() * float("nan"))
    metanet = MetaNetwork([()], hidden=4, layers=1)
    with pytest.raises(DivergedError, match=r"the loss of epoch 0 is nan in its step 0 \(network [01] of 2\)"):
        meta_train(metanet, nets, task, epochs=1, steps=2)
