"""Jumps in fine-tuning: when, where to, taken or not, and the same after an interruption."""

import pytest
import torch
from metanet_networks import same_bits
from torch import nn

from graphsparse.fit import Task
from graphsparse.metanet import (
    Extrapolation,
    FineTune,
    Jump,
    MetaNetwork,
    NetworkGraph,
    NotTakenWarning,
    Stay,
    prune,
)
from graphsparse.metanet.foresight import combined


def network(seed=0, width=6):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3)).eval()


def task(count=64):
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    y = x[:, :3].argmax(1)
    return Task((x, y), (x, y), (x, y), batch_size=8)


class Spy:
    """Remembers what it was asked, and answers by a rule of (now, before)."""

    def __init__(self, rule=lambda now, then: now):
        self.asked, self.rule = [], rule

    def __call__(self, graph, *, past):
        self.asked.append((graph, past))
        return combined(graph, past.earlier[0], lambda key, now, then: self.rule(now, then))


def run(jump, net=None, seed=0, epochs=1, **options):
    net = network() if net is None else net
    landings = []
    tune = FineTune(epochs=epochs, lr=0.02, jump=jump)
    result = tune.run(net, task(), seed=seed, landings=landings, **options)
    return net, result, landings


def test_it_is_asked_after_its_steps_with_the_states_in_between():
    spy = Spy()
    states = []

    class Watch:
        """Every state of the weights."""

        def attach(self, optimizer):
            self.handle = optimizer.register_step_post_hook(lambda *_: states.append(net[0].weight.detach().clone()))
            states.append(net[0].weight.detach().clone())

        def detach(self):
            self.handle.remove()

        def state_dict(self):
            return {}

    net = network()
    run(Jump(spy, after=(4,), epochs=2.0), net, callbacks=(Watch(),))
    ((graph, past),) = spy.asked
    assert (past.steps, past.ahead) == (4, 16)  # an epoch has 8 steps
    seen = [each.to_module()[0].weight for each in (*past.earlier, graph)]
    assert all(torch.equal(found, states[step]) for step, found in enumerate(seen))
    assert not torch.equal(seen[0], seen[4])


def test_steps_are_counted_from_the_jump_before():
    spy = Spy()
    _, _, landings = run(Jump(spy, after=(0, 2, 4)))
    assert [each.step for each in landings] == [0, 2, 6]
    assert [past.steps for _, past in spy.asked] == [0, 2, 4]


def test_without_a_change_nothing_but_momentum_is_different():
    """Momentum starts anew after a jump, so a jump before the first step leaves the very same run."""
    plain, first, _ = run(None)
    stayed, second, landings = run(Jump(Stay(), after=(0,)))
    assert landings[0].taken
    assert landings[0].loss_before == landings[0].loss_after
    assert same_bits(plain.state_dict(), stayed.state_dict())
    assert first.history == second.history


def test_a_good_jump_is_taken_and_the_norms_are_recalibrated():
    jumped = {}

    def rule(now, then):
        return now + 0.5 * (now - then)

    class After:
        """The module just after the jump's step."""

        def attach(self, optimizer):
            def look(*_):
                self.steps += 1
                if self.steps == 4:
                    jumped.update({name: tensor.clone() for name, tensor in net.state_dict().items()})
                    jumped["momentum"] = len(optimizer.state)

            self.steps = 0
            self.handle = optimizer.register_step_post_hook(look)

        def detach(self):
            self.handle.remove()

        def state_dict(self):
            return {}

    net, spy = network(), Spy(rule)
    jump = Jump(spy, after=(4,))
    inputs = (torch.zeros(1, 4),)
    _, _, landings = _with_last(jump, net, After(), inputs)
    assert landings[0].taken
    assert landings[0].loss_after < landings[0].loss_before
    graph, past = spy.asked[0]
    now, then = (each.to_module()[0].weight for each in (graph, past.earlier[0]))
    torch.testing.assert_close(jumped["0.weight"], now + 0.5 * (now - then))
    assert jumped["momentum"] == 0
    with torch.no_grad():
        hidden = nn.functional.linear(task().parts["train"][0], jumped["0.weight"], jumped["0.bias"])
    torch.testing.assert_close(jumped["1.running_mean"], hidden.mean(0), rtol=1e-4, atol=1e-5)


def _with_last(jump, net, watch, inputs):
    """Fine-tune with a callback that acts after the jump."""
    from graphsparse.fit import fit

    jumping = jump.callback(net, task(), inputs)
    result = fit(net, task(), epochs=1, lr=0.02, optimizer=torch.optim.SGD, callbacks=[jumping, watch])
    return net, result, jumping.landings


@pytest.mark.parametrize(
    "rule", [lambda now, then: -3 * now, lambda now, then: now * torch.nan], ids=["worse", "not finite"]
)
def test_a_bad_jump_is_not_taken_and_that_is_said(rule):
    plain, _, _ = run(None)
    with pytest.warns(NotTakenWarning, match="after step 4 would bring the training loss from"):
        net, _, landings = run(Jump(Spy(rule), after=(4,)))
    assert [each.taken for each in landings] == [False]
    assert same_bits(net.state_dict(), plain.state_dict())


def test_frozen_parameters_stay():
    net = network()
    net[3].weight.requires_grad_(False)
    before = net[3].weight.clone()
    _, _, landings = run(Jump(Spy(lambda now, then: now + 0.5 * (now - then) + 1e-4), after=(4,)), net)
    assert landings[0].taken
    assert torch.equal(net[3].weight, before)


@pytest.mark.parametrize("after", [(3,), (11,), (3, 8)], ids=["before", "after", "both"])
def test_an_interrupted_run_jumps_as_one_that_was_not(tmp_path, after):
    """Stopped after the second epoch of three, with the first jump behind it, or in the middle of a jump's steps."""
    jump = Jump(Extrapolation(0.3), after=after)
    whole, expected, there = run(jump, epochs=3)

    def kill(done, total, figures):
        if done == 2:
            raise KeyboardInterrupt

    path = tmp_path / "run.checkpoint"
    from graphsparse.fit import loop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.fit, "__kwdefaults__", {**loop.fit.__kwdefaults__, "checkpoint_every": 1})
        with pytest.raises(KeyboardInterrupt):
            run(jump, epochs=3, checkpoint=path, progress=kill)
        again, found, landings = run(jump, epochs=3, checkpoint=path)
    assert same_bits(again.state_dict(), whole.state_dict())
    assert found.history == expected.history
    assert landings == there


def test_prune_says_what_became_of_the_jump():
    net = network(width=16)
    graph = NetworkGraph.from_module(net, torch.zeros(1, 4))
    metanet = MetaNetwork.for_graph(graph, mode="nowcast", hidden=4, layers=1)
    options = {"speedup": 2.0, "seed": 3}
    untrained = prune(net, metanet, task(), fine_tune=FineTune(epochs=2), **options)
    assert [(each.step, each.taken) for each in untrained.jumps] == [(8, True)]
    assert untrained.figures()["jumps"][0]["step"] == 8
    short = prune(net, metanet, task(), fine_tune=FineTune(epochs=1), **options)
    assert [each.step for each in short.jumps] == [4]  # half of the 8 steps there are
    # an untrained metanetwork foresees no change: what is left is least squares and a jump that stays
    fine_tune = FineTune(epochs=2, jump=Jump(Stay()))
    plain = prune(net, None, task(), reconstruct=True, fine_tune=fine_tune, **options)
    assert same_bits(untrained.module.state_dict(), plain.module.state_dict())
    assert prune(net, None, task(), fine_tune=FineTune(epochs=1), **options).jumps == ()


def test_what_holds_weights_at_zero_holds_them_after_a_jump():
    class Zeros:
        """Holds the first row at zero."""

        def attach(self, optimizer):
            self.handle = optimizer.register_step_post_hook(lambda *_: net[0].weight.data[0].zero_())

        def detach(self):
            self.handle.remove()

        def state_dict(self):
            return {}

    net = network()
    rule = Spy(lambda now, then: now + 0.5 * (now - then) + 1e-4)
    _, _, landings = run(Jump(rule, after=(8,)), net, callbacks=(Zeros(),))
    assert landings[0].step == 8  # the last step
    assert landings[0].taken
    assert not net[0].weight[0].any()


@pytest.mark.parametrize(
    "options",
    [{"after": ()}, {"after": (-1,)}, {"after": (1.5,)}, {"epochs": 0}, {"epochs": float("nan")}],
    ids=str,
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match="jump"):
        Jump(Stay(), **options)


def test_a_metanetwork_of_another_mode_is_refused():
    with pytest.raises(ValueError, match="'nowcast', and this one is of mode 'repair'"):
        Jump(MetaNetwork([()], mode="repair", hidden=4, layers=1))


def test_a_metanetwork_that_cannot_read_the_network_is_refused_before_training():
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    conv = MetaNetwork([(3, 3)], mode="nowcast", hidden=4, layers=1)
    with pytest.raises(ValueError, match="kernels of size linear, and this metanetwork knows 3x3"):
        FineTune(epochs=1, jump=Jump(conv)).run(net, task())
    assert all(torch.equal(before[name], p) for name, p in net.named_parameters())


def test_a_jump_that_never_comes_does_nothing_and_that_is_said():
    with pytest.warns(NotTakenWarning, match="ended after 8 steps, before 1 of the jumps after 2, 100 steps"):
        _, _, landings = run(Jump(Spy(), after=(2, 100)))
    assert [each.step for each in landings] == [2]
    with pytest.warns(NotTakenWarning):
        net, _, landings = run(Jump(Spy(), after=(100,)))
    assert landings == []
    assert same_bits(net.state_dict(), run(None)[0].state_dict())
