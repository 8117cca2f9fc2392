"""The objective "nowcast": trajectories that can be resumed, a loss worked by hand, a jump learned on real digits."""

import math

import pytest
import torch
from metanet_networks import same_bits
from torch import nn

from graphsparse.errors import DataError
from graphsparse.fit import Task
from graphsparse.metanet import (
    FineTune,
    Images,
    Jump,
    MetaNetwork,
    NetworkGraph,
    Nowcast,
    Recipe,
    Stay,
    Trajectories,
    Validation,
    meta_train,
    prune,
    train_zoo,
)
from graphsparse.metanet.foresight import combined
from graphsparse.metanet.learn.objectives import unexplained


def network(seed=0, width=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3)).eval()


def task(test=None):
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    part = (x, x[:, :3].argmax(1))
    return Task(part, part, part if test is None else test, batch_size=8)


INPUTS = (torch.zeros(1, 4),)
SMALL = {"count": 4, "after": (0, 4), "fine_tune": FineTune(epochs=2, lr=0.02), "speedups": (1.2, 2.0)}


def same_states(left, right):
    return all(
        same_bits(a.states[step].to_state_dict(), b.states[step].to_state_dict())
        for a, b in zip(left, right, strict=True)
        for step in a.states
    )


def test_a_trajectory_is_fine_tuning_itself():
    """Its states are those of the same fine-tuning without anybody who watches."""
    (found,) = Trajectories(**{**SMALL, "count": 1}).collect([network()], task(), INPUTS)
    assert sorted(found.states) == [0, 1, 2, 3, 4, 8, 16]
    assert found.epoch == 8
    module = found.graph.to_module()
    assert module[0].out_features < 8
    whole = []
    SMALL["fine_tune"].run(module, task(), seed=0, callbacks=(Weights(module, whole),))
    for step, state in found.states.items():
        assert torch.equal(state.to_module()[0].weight, whole[step])


class Weights:
    """A callback that remembers the first layer's weights after every step."""

    def __init__(self, module, into):
        self.module, self.into = module, into

    def attach(self, optimizer):
        def look(*_):
            self.into.append(self.module[0].weight.detach().clone())

        look()
        self.handle = optimizer.register_step_post_hook(look)

    def detach(self):
        self.handle.remove()

    def state_dict(self):
        return {}


def test_an_interrupted_collection_goes_on_to_the_same_trajectories(tmp_path):
    nets = [network(0), network(1)]
    whole = Trajectories(**SMALL).collect(nets, task(), INPUTS)
    torch.manual_seed(5)
    drawn = torch.rand(1)

    def kill(done, total):
        assert total == 4
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trajectories(**SMALL, folder=tmp_path, report=kill).collect(nets, task(), INPUTS)
    assert len(list(tmp_path.iterdir())) == 2
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    torch.manual_seed(5)
    found = Trajectories(**SMALL, folder=tmp_path).collect(nets, task(), INPUTS)
    assert torch.rand(1) == drawn
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert same_states(found, whole)
    assert len({len(each.module[0].weight) for each in whole}) > 1  # masks differ
    assert b"pickle" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    more = Trajectories(**{**SMALL, "count": 5}, folder=tmp_path).collect(nets, task(), INPUTS)
    assert same_states(more[:4], whole)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_epochs_are_those_of_the_recipes_batches():
    recipe = FineTune(epochs=2, lr=0.02, batch_size=16, distill=0.5)
    (found,) = Trajectories(**{**SMALL, "count": 1, "fine_tune": recipe, "after": (0,)}).collect(
        [network()], task(), INPUTS
    )
    assert found.epoch == 4
    assert sorted(found.states) == [0, 4, 8]


def test_files_of_other_networks_settings_or_data_are_refused(tmp_path):
    few = {**SMALL, "count": 1}
    Trajectories(**few, folder=tmp_path).collect([network()], task(), INPUTS)
    with pytest.raises(DataError, match="network"):
        Trajectories(**few, folder=tmp_path).collect([network(1)], task(), INPUTS)
    with pytest.raises(DataError, match="settings"):
        Trajectories(**{**few, "after": (0, 2)}, folder=tmp_path).collect([network()], task(), INPUTS)
    x, y = task().parts["train"]
    other = Task((x, y.flip(0)), (x, y), (x, y), batch_size=8)
    with pytest.raises(DataError, match="task"):
        Trajectories(**few, folder=tmp_path).collect([network()], other, INPUTS)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-3] + b"abc")
    with pytest.raises(DataError, match="damaged"):
        Trajectories(**few, folder=tmp_path).collect([network()], task(), INPUTS)


def test_what_is_not_foreseen_by_hand():
    """One weight moves by 4 and is foreseen by 3; another moves by 2 and is foreseen by 0: (1/16 + 1) / 2."""

    def graph(linear, conv):
        net = nn.Sequential(nn.Conv1d(1, 1, 2, bias=False), nn.Flatten(), nn.Linear(1, 1, bias=False))
        net[0].weight.data.fill_(conv)
        net[2].weight.data.fill_(linear)
        return NetworkGraph.from_module(net, torch.zeros(1, 1, 2))

    now, later = graph(1.0, 5.0), graph(5.0, 7.0)
    assert float(unexplained(now, graph(4.0, 5.0), later)) == pytest.approx((1 / 16 + 1) / 2)
    assert float(unexplained(now, now, later)) == 1
    assert float(unexplained(now, later, later)) == 0
    oldest = graph(1.0, 2.0)  # one has come no way so far, the other 3
    assert float(unexplained(now, graph(4.0, 5.0), later, oldest)) == pytest.approx((1 / 16 + 4 / 13) / 2)


def test_the_scale_of_a_tensor_plays_no_part():
    (found,) = Trajectories(**{**SMALL, "count": 1}).collect([network()], task(), INPUTS)
    now, _past, later = found.case(4, 2)
    guess = combined(now, later, lambda key, a, b: a + 0.3 * (b - a))
    first = float(unexplained(now, guess, later))
    assert first == pytest.approx(0.49)

    def larger(graph):
        return combined(graph, graph, lambda key, a, b: a * (1 if isinstance(key, str) else 100))

    again = float(unexplained(larger(now), larger(guess), larger(later)))
    assert again == pytest.approx(first, rel=1e-5)


def test_targets_lie_at_the_ends_of_epochs_after_the_steps_seen():
    (found,) = Trajectories(**{**SMALL, "count": 1}).collect([network()], task(), INPUTS)
    assert [(p.steps, p.ahead) for _, p, _ in found.cases((0, 4), (1, 2))] == [(0, 8), (0, 16), (4, 4), (4, 12)]
    now, past, later = found.case(4, 2)
    assert now is found.states[4]
    assert past.earlier[0] is found.states[0]
    assert later is found.states[16]


def test_the_past_must_fit():
    net = network()
    graph = NetworkGraph.from_module(net, INPUTS[0])
    other = NetworkGraph.from_module(network(width=11), INPUTS[0])
    metanet = MetaNetwork.for_graph(graph, mode="nowcast", hidden=4, layers=1)
    (found,) = Trajectories(**{**SMALL, "count": 1}).collect([net], task(), INPUTS)
    now, past, _ = found.case(4, 2)
    with pytest.raises(ValueError, match="needs past"):
        metanet(now)
    with pytest.raises(ValueError, match="takes no keep"):
        metanet(now, torch.ones(now.num_nodes, dtype=torch.bool), past)
    with pytest.raises(ValueError, match="takes no past"):
        MetaNetwork.for_graph(graph, mode="change", hidden=4, layers=1)(now, past=past)
    with pytest.raises(ValueError, match="4 earlier states"):
        metanet(now, past=past._replace(earlier=past.earlier[:2]))
    with pytest.raises(ValueError, match="another architecture"):
        metanet(now, past=past._replace(earlier=(other, *past.earlier[1:])))
    spoilt = combined(now, now, lambda key, a, b: a * math.nan)
    with pytest.raises(ValueError, match="not finite"):
        metanet(now, past=past._replace(earlier=(spoilt, *past.earlier[1:])))


@pytest.mark.parametrize(
    "options",
    [{"count": 0}, {"after": ()}, {"after": (-1,)}, {"fine_tune": FineTune(epochs=0)},
     {"fine_tune": FineTune(jump=Jump(Stay()))}],
    ids=str,
)  # fmt: skip
def test_bad_trajectories_are_refused(options):
    with pytest.raises(ValueError, match=r"numbers of steps|trajectories need"):
        Trajectories(**options)


@pytest.mark.parametrize("options", [{"epochs": ()}, {"epochs": (5,)}, {"data": -1.0}], ids=str)
def test_bad_options_of_nowcast_are_refused(options):
    with pytest.raises(ValueError, match="epochs that are foreseen"):
        Nowcast(**options)


def test_it_learns_to_foresee_real_digits_and_prune_uses_it(tmp_path):
    """On the trajectories that it learned from it explains a good part, and the jump is part of `prune`."""
    images = Images("digits", val=300, batch_size=64)
    recipes = [Recipe("resnet8", 4, seed, epochs=1) for seed in range(2)]
    nets = [each.module for each in train_zoo(tmp_path / "zoo", recipes, images)]
    learning = images.task()
    objective = Nowcast(Trajectories(count=1, after=(4,), fine_tune=FineTune(epochs=1)), epochs=(1,))
    metanet = MetaNetwork.for_graph(
        NetworkGraph.from_module(nets[0], learning.parts["train"][0][:1]), mode="nowcast", hidden=16, layers=1
    )
    validation = Validation((1.5, 2.0), FineTune(epochs=1), examples=256)
    options = {"objective": objective, "val_networks": nets[1:], "validation": validation, "lr": 0.01}
    path = tmp_path / "m.checkpoint"
    meta_train(metanet, nets[:1], learning, epochs=1, steps=40, checkpoint=path, **options)
    assert len(list((tmp_path / "m.trajectories").iterdir())) == 1
    seen = objective.members(nets[:1], learning, (learning.parts["train"][0][:1],), torch.device("cpu"))
    with torch.no_grad():
        now, past, later = seen[0].case(4, 1)
        assert float(unexplained(now, metanet(now, past=past), later)) < 0.95
    metanet.save(tmp_path / "m.safetensors")
    loaded = MetaNetwork.load(tmp_path / "m.safetensors").eval()
    tune = FineTune(epochs=1, jump=Jump(loaded, after=(4,), epochs=1))
    result = prune(nets[1], loaded, learning, speedup=2.0, fine_tune=tune)
    assert [each.step for each in result.jumps] == [4]
