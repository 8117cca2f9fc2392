"""Sparse training by any recipe: promises that every method keeps, each over all of them."""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import os
import random
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warm
from torch import Tensor, nn

from graphsparse.fit import Task, fit
from graphsparse.keep_rule import kept_count
from graphsparse.params import (
    METHODS,
    Bypassed,
    DropGrow,
    L0Projection,
    Late,
    Modules,
    NofM,
    Sparsifier,
    Stages,
    StraightThrough,
    methods,
)
from graphsparse.params.schedule import Constant

STEPS, KEEP = 24, 0.3
DYNAMIC = [name for name in methods() if name in ("set", "rigl", "dst-ee", "dsl", "g2g")]
# A new method is tested by being registered; its row here says what it keeps in the end, by tensor.
COUNTS = {
    **dict.fromkeys(("random-uniform", "magnitude", "gmp", "iht", "iss", "g2g"), (36, 18)),
    **dict.fromkeys(("random-er", "random-erk", "set", "rigl", "dst-ee"), (31, 23)),
    "dsl": None,  # its tensors exchange weights
    "blocks": None,  # one of two blocks stays
    **dict.fromkeys(("group-lasso", "group-envelope", "gates"), (40, 18)),  # 4 of 12 inputs, 3 of 10
    **dict.fromkeys(("nm", "nm-ste", "nm-sr-ste", "nm-fade", "nm-stages"), (30, 18)),
}


def layers(method: str = "") -> nn.Sequential:
    if method and METHODS[method].modules:  # blocks keep their width
        return nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12))
    return nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 6))


def network(method: str = "") -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return layers(method)


def keep_of(method: str) -> Any:
    return "1:4" if METHODS[method].n_of_m else KEEP


def sparsifier(net: nn.Module, method: str, **options: Any) -> Sparsifier:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cut = {"pattern": Modules("?")} if METHODS[method].modules else {}
        return Sparsifier(net, method, **{"keep": keep_of(method), "steps": STEPS, **cut, **options})


def left_zero(net: nn.Module, masks: dict[str, Tensor]) -> bool:
    """Whether all weights outside the masks are zero, of blocks that are still there."""
    parameters = dict(net.named_parameters())
    return all(bool((parameters[name][~mask] == 0).all()) for name, mask in masks.items() if name in parameters)


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)


def backward(net: nn.Module, step: int) -> None:
    x = torch.from_numpy(np.random.default_rng(step).standard_normal((5, 12)).astype(np.float32))
    for parameter in net.parameters():
        parameter.grad = None
    (net(x) - 1).square().sum().backward()


def step_on(net: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        backward(net, step)
        optimizer.step()


def trained(method: str, seed: int = 0) -> tuple[nn.Module, Sparsifier]:
    net = network(method)
    optimizer = sgd(net)
    found = sparsifier(net, method, seed=seed).attach(optimizer)
    step_on(net, optimizer, 0, STEPS)
    return net, found


@pytest.mark.parametrize("method", methods())
def test_the_count_is_exact_after_every_update_and_at_the_end(method: str) -> None:
    net = network(method)
    optimizer = sgd(net)
    found = sparsifier(net, method).attach(optimizer)
    for step in range(STEPS):
        step_on(net, optimizer, step, step + 1)
        joint = found._joint
        if METHODS[method].n_of_m:
            pattern = joint.choice.pattern
            assert isinstance(pattern, NofM)
            runs = found.masks["0.weight"].view(10, 3, 4).sum(-1)
            assert bool((runs == pattern.n * 4 // pattern.m).all())
        else:
            units = sum(joint.choice.held_counts(found.masks).values())
            assert units == kept_count(joint.keep_at(step + 1), joint.choice.total)
    masks = found.finish()
    gone = [i for i in (0, 2) if METHODS[method].modules and not masks[f"{i}.weight"].any()]
    assert len(gone) == METHODS[method].modules
    assert [type(layer) for layer in net] == [
        Bypassed if i in gone else kind for i, kind in enumerate((nn.Linear, nn.Tanh, nn.Linear))
    ]
    plain = ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [name for name, _ in net.named_parameters()] == [name for name in plain if int(name[0]) not in gone]
    assert not any(
        module._forward_pre_hooks or module._forward_hooks or module._state_dict_hooks for module in net.modules()
    )
    assert left_zero(net, masks)
    if METHODS[method].n_of_m:  # the second layer has 10 inputs: runs of 4, 4 and 2
        assert bool((masks["0.weight"].view(10, 3, 4).sum(-1) == 1).all())
        assert bool((masks["2.weight"][:, 8:].sum(-1) == 1).all())
    else:
        choice = found._joint.choice
        assert sum(choice.held_counts(masks).values()) == kept_count(KEEP, choice.total)
    assert COUNTS[method] in (None, tuple(found.counts().values()))
    again = found.finish()
    assert all(torch.equal(again[name], masks[name]) for name in masks)


def test_every_method_has_its_row() -> None:
    assert COUNTS.keys() == set(methods())


@pytest.mark.parametrize("method", methods())
def test_outside_the_mask_is_zero_for_everybody_who_looks(method: str) -> None:
    net = network(method)
    optimizer = sgd(net)
    found = sparsifier(net, method).attach(optimizer)
    for step in range(STEPS):
        masks = found.masks
        seen = {name: getattr(net[int(name[0])], name[2:]) for name in masks}
        if isinstance(found.rule, Late) or (method == "nm-fade" and step < STEPS * 3 // 4):
            assert any(bool((seen[name][~mask] != 0).any()) for name, mask in masks.items()) or step >= STEPS * 3 // 4
        else:
            assert all(bool((seen[name][~mask] == 0).all()) for name, mask in masks.items())
        step_on(net, optimizer, step, step + 1)


@pytest.mark.parametrize("method", methods())
def test_masks_follow_from_weights_and_seed_alone(method: str) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].sum(), random.getstate()  # type: ignore[index, union-attr]
    first, second = trained(method)[1].finish(), trained(method)[1].finish()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].sum(), random.getstate())  # type: ignore[index, union-attr]
    if method == "gates":
        return  # noise may change what stays, or not
    other = trained(method, seed=1)[1].finish()
    drawn = method.startswith("random") or method in DYNAMIC
    assert any(not torch.equal(first[name], other[name]) for name in first) == drawn


def _rank(rank: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    limit = timedelta(seconds=warm.LONGEST)  # loops may be compiled in between
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=limit)
    found = {}
    for method in methods():
        torch.manual_seed(rank)  # global generators differ; the first process's weights are taken by all
        net = nn.parallel.DistributedDataParallel(layers(method))
        optimizer = sgd(net)
        s = sparsifier(net.module, method, steps=4).attach(optimizer)
        for step in range(4):
            backward(net, 1000 * rank + step)  # each has its own data
            optimizer.step()
        masks = s.finish()
        found[method] = hashlib.sha256(b"".join(m.numpy().tobytes() for m in masks.values())).hexdigest()
    Path(out, str(rank)).write_text(json.dumps(found))
    torch.distributed.barrier()
    os._exit(0)  # freeing the group joins threads that may wait for the interpreter's lock: on a busy machine it hung


def test_masks_are_equal_on_every_rank(tmp_path: Path) -> None:
    processes = [
        warm.context().Process(target=_rank, args=(rank, str(tmp_path / "store"), str(tmp_path))) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(warm.LONGEST)
        assert process.exitcode == 0
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("0", "1"))
    assert one == two
    assert one.keys() == set(methods())


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9, foreach=False),
    "sgd foreach": partial(torch.optim.SGD, lr=0.1, momentum=0.9, foreach=True),
    "sgd fused": partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True),
    "adam": partial(torch.optim.Adam, lr=0.01, amsgrad=True, foreach=False),
    "adam foreach": partial(torch.optim.Adam, lr=0.01, foreach=True),
    "adam fused": partial(torch.optim.Adam, lr=0.01, fused=True),
    "adamw": partial(torch.optim.AdamW, lr=0.01),
    "adamw fused": partial(torch.optim.AdamW, lr=0.01, fused=True),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01, momentum=0.5, centered=True),
    "adagrad": partial(torch.optim.Adagrad, lr=0.1, initial_accumulator_value=0.1),
    "adagrad fused": partial(torch.optim.Adagrad, lr=0.1, fused=True),
    "adadelta": partial(torch.optim.Adadelta, lr=0.1),
    "nadam": partial(torch.optim.NAdam, lr=0.01),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("method", DYNAMIC)
def test_what_returns_starts_at_zero_and_the_optimizer_has_forgotten_it(method: str, kind: str) -> None:
    net = network()
    optimizer = OPTIMIZERS[kind](net.parameters())
    found = sparsifier(net, method).attach(optimizer)
    grown = 0
    for step in range(STEPS):
        before = found.masks
        step_on(net, optimizer, step, step + 1)
        for name, mask in found.masks.items():
            parameter, came = net.get_parameter(name), mask & ~before[name]
            grown += int(came.sum())
            assert bool((parameter[came] == 0).all())
            for value in optimizer.state[parameter].values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    assert bool((value[came] == 0).all())
                    assert step == 0 or bool((value[mask & before[name]] != 0).any())  # the others are remembered
    assert grown


@pytest.mark.parametrize("method", methods())
@pytest.mark.parametrize("stop", [9, 20])
def test_a_killed_run_resumes_to_the_same_bits(method: str, stop: int) -> None:
    whole, one = trained(method)
    net = network(method)
    optimizer = sgd(net)
    first = sparsifier(net, method).attach(optimizer)
    step_on(net, optimizer, 0, stop)
    saved = copy.deepcopy((net.state_dict(), optimizer.state_dict(), first.state_dict()))
    json.dumps({key: value for key, value in saved[2].items() if not isinstance(value, dict)})
    json.dumps(saved[2]["settings"])

    fresh = network(method)
    again = sgd(fresh)
    second = sparsifier(fresh, method).attach(again)
    fresh.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    second.load_state_dict(saved[2])
    step_on(fresh, again, stop, STEPS)
    assert (second.churn, second.seen, second.step) == (one.churn, one.seen, one.step)
    masks, theirs = one.finish(), second.finish()
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, fresh.get_parameter(name))
        assert name not in masks or torch.equal(masks[name], theirs[name])


@pytest.mark.parametrize("method", methods())
@pytest.mark.parametrize("order", ["sparsifier net optimizer attach", "sparsifier attach optimizer net"])
@pytest.mark.parametrize("init", [None, "scaled"])
def test_a_state_may_be_loaded_before_it_is_attached(method: str, order: str, init: str | None) -> None:
    net = network(method)
    try:
        first = sparsifier(net, method, init=init)
    except ValueError:
        pytest.skip("begins dense")
    optimizer = sgd(net)
    first.attach(optimizer)
    step_on(net, optimizer, 0, 20)
    saved = copy.deepcopy((net.state_dict(), optimizer.state_dict(), first.state_dict()))
    fresh = network(method)
    again, second = sgd(fresh), sparsifier(fresh, method, init=init)
    moves: dict[str, Callable[[], object]] = {
        "sparsifier": lambda: second.load_state_dict(saved[2]),
        "net": lambda: fresh.load_state_dict(saved[0]),
        "optimizer": lambda: again.load_state_dict(saved[1]),
        "attach": lambda: second.attach(again),
    }
    for move in order.split():
        moves[move]()
    for own, opt in ((net, optimizer), (fresh, again)):
        step_on(own, opt, 20, STEPS)
    masks, theirs = first.finish(), second.finish()
    assert all(torch.equal(theirs[name], mask) for name, mask in masks.items())
    assert all(torch.equal(p, fresh.get_parameter(name)) for name, p in net.named_parameters())


def test_weights_that_were_loaded_before_are_not_cut_by_a_state_that_comes_late() -> None:
    net, found = trained("rigl")
    saved = copy.deepcopy((net.state_dict(), found.state_dict()))
    fresh = network()
    fresh.load_state_dict(saved[0])
    second = sparsifier(fresh, "rigl")
    second.load_state_dict(saved[1])
    assert all(torch.equal(p, fresh.get_parameter(name)) for name, p in net.named_parameters())
    late = sparsifier(fresh, "rigl")
    second.detach()
    optimizer = sgd(fresh)
    late.attach(optimizer)  # which begins anew, and cuts
    with pytest.warns(UserWarning, match=r"attach\(\) has cut weights that the loaded masks keep"):
        late.load_state_dict(saved[1])
    early = sparsifier(network(), "rigl").state_dict()
    with pytest.raises(ValueError, match="saved before the first masks were chosen"):
        late.load_state_dict(early)
    assert late.step == STEPS


@pytest.mark.parametrize("method", methods())
def test_a_closure_makes_the_gradients_that_count(method: str) -> None:
    whole, one = trained(method)
    net = network(method)
    optimizer = sgd(net)
    found = sparsifier(net, method).attach(optimizer)
    for step in range(STEPS):
        optimizer.step(partial(backward, net, step)) if step % 2 else optimizer.step(
            closure=partial(backward, net, step)
        )
    masks = one.finish()
    assert all(torch.equal(mask, masks[name]) for name, mask in found.finish().items())
    assert all(torch.equal(p, net.get_parameter(name)) for name, p in whole.named_parameters())


class Derived(torch.optim.SGD):
    """Its step and that of its base are both hooked by torch, once a plain SGD was made."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@pytest.mark.parametrize("method", methods())
def test_a_derived_optimizer_counts_each_step_once(method: str) -> None:
    whole, one = trained(method)
    net = network(method)
    optimizer = Derived(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    found = sparsifier(net, method).attach(optimizer)
    step_on(net, optimizer, 0, STEPS - 1)
    with pytest.raises(ZeroDivisionError):  # a step that fails on its way leaves nothing behind
        optimizer.step(lambda: 1 / 0)
    backward(net, STEPS - 1)
    optimizer.step(lambda: 0.0)
    assert found.step == STEPS
    masks = one.finish()
    assert all(torch.equal(mask, masks[name]) for name, mask in found.finish().items())
    assert all(torch.equal(p, net.get_parameter(name)) for name, p in whole.named_parameters())


@pytest.mark.parametrize("method", methods())
def test_lbfgs_which_calls_its_closure_many_times(method: str) -> None:
    net = network(method)
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=4, line_search_fn="strong_wolfe")
    found = sparsifier(net, method).attach(optimizer)
    x = torch.linspace(-1, 1, 60).view(5, 12)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (net(x) - 1).square().mean()
        loss.backward()
        return loss

    first = closure().item()
    for _ in range(STEPS):
        optimizer.step(closure)
        assert found.rule.dense or left_zero(net, found.masks)
    assert left_zero(net, found.finish())
    assert float((net(x) - 1).square().mean()) < first


@pytest.mark.parametrize("method", methods())
def test_mixed_precision_accumulation_and_clipping_work(method: str) -> None:
    net = network(method)
    optimizer = sgd(net)
    found = sparsifier(net, method).attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    for step in range(STEPS + 1):
        x = torch.ones(4, 12) * (1e30 if step == 3 else step % 5)  # one overflow: that step is skipped
        optimizer.zero_grad()
        for part in x.split(2):
            with torch.autocast("cpu", torch.bfloat16):
                loss = (net(part) - 1).square().mean()
            if step == 3:
                loss = loss * float("inf")
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    assert found.step == STEPS
    found.finish()
    assert all(bool(torch.isfinite(parameter).all()) for parameter in net.parameters())


def test_scaled_gradients_of_a_fused_optimizer_count_as_they_are_meant() -> None:
    """Such an optimizer divides by the scale itself, after our hook, and an overflow is no step."""
    weights = []
    for scale in (1.0, 2.0**12):
        net = network()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=True)
        found = Sparsifier(net, keep="1:4", rule=StraightThrough(decay=0.1), seed=1).attach(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for factor in (1.0, float("inf")):
            optimizer.zero_grad()
            scaler.scale((net(torch.ones(2, 12)) - 1).square().mean() * factor).backward()
            scaler.step(optimizer)
            scaler.update()
        assert found.step == 1
        weights.append(dict(net.named_parameters())["0.parametrizations.weight.original"].detach().clone())
    assert torch.allclose(*weights, atol=1e-6)
    assert torch.isfinite(weights[0]).all()


@pytest.mark.parametrize("method", methods())
def test_compiled_and_tied_networks_work(method: str) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.second(self.first(x).tanh())
            return out

    net = Tied()
    if METHODS[method].modules:
        with pytest.raises(ValueError, match=r"'second\.weight' is a parameter of 'first' and of 'second'"):
            sparsifier(net, method, pattern=Modules(["first", "second"]))
        return
    optimizer = sgd(net)
    found = sparsifier(net, method).attach(optimizer)
    run = torch.compile(net, backend="eager") if method in ("rigl", "nm-sr-ste", "gmp", "g2g") else net
    for step in range(STEPS):
        optimizer.zero_grad()
        run(torch.ones(3, 8) * (step % 3)).square().sum().backward()
        assert torch.equal(net.first.weight, net.second.weight)
        optimizer.step()
    masks = found.finish()
    assert list(masks) == ["first.weight"]
    assert net.first.weight is net.second.weight
    choice = found._joint.choice
    wanted = 16 if METHODS[method].n_of_m else kept_count(KEEP, choice.total)
    assert sum(choice.held_counts(masks).values()) == wanted


@pytest.mark.parametrize("method", methods())
def test_frozen_parameters_stay_and_lazy_ones_are_told(method: str) -> None:
    net = network(method)
    net[0].weight.requires_grad_(False)
    before = net[0].weight.clone()
    optimizer = sgd(net)
    found = sparsifier(net, method).attach(optimizer)
    step_on(net, optimizer, 0, STEPS)
    assert [name for name in found.finish() if name.endswith("weight")] == ["2.weight"]
    assert isinstance(net[0], Bypassed) or torch.equal(net[0].weight, before)
    with pytest.raises(ValueError, match=r"'0\.weight' is lazy"):
        sparsifier(nn.Sequential(nn.LazyLinear(3)), method)


def test_growth_reads_the_dense_gradient_before_it_is_masked() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)  # so that the weights tell what was dropped
    found = sparsifier(net, "rigl").attach(optimizer)
    every = found.rule.every  # type: ignore[attr-defined]
    for step in range(every):
        backward(net, step)
        gradients = {name: net.get_parameter(name).grad.clone() for name in found.parameters}  # type: ignore[union-attr]
        before = found.masks
        optimizer.step()
    for name, mask in found.masks.items():
        came, out = mask & ~before[name], before[name] & ~mask
        assert bool(came.any())
        assert gradients[name].abs()[came].min() >= gradients[name].abs()[~mask & ~before[name]].max()
        assert int(came.sum()) == int(out.sum())
        assert bool((net.get_parameter(name).grad[~before[name]] == 0).all())  # type: ignore[union-attr, index]


def test_the_budget_moves_between_tensors() -> None:
    found = trained("dsl")[1]
    assert tuple(found.counts().values()) != COUNTS["rigl"]
    assert found.churn >= 0
    assert found.seen > KEEP


def test_stages_tighten() -> None:
    net = nn.Linear(16, 4)
    found = Sparsifier(net, "nm-stages", keep="1:8", steps=8)
    assert found._joint.schedule == Stages(["7:8", "4:8", "2:8", "1:8"], end=8)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    found.attach(optimizer)
    kept = []
    for _ in range(8):
        optimizer.zero_grad()
        net(torch.ones(2, 16)).square().sum().backward()
        optimizer.step()
        kept.append(found.counts()["weight"])
    assert kept == [56, 32, 32, 16, 16, 8, 8, 8]


def test_a_copy_of_a_network_in_the_middle_works() -> None:
    net, found = trained("nm-sr-ste")
    twin = copy.deepcopy(net)
    assert torch.equal(twin[0].weight, net[0].weight)
    found.finish()
    assert type(twin[0]) is not nn.Linear  # the copy is as it was
    assert torch.equal(twin[0].weight, net[0].weight)


@pytest.mark.parametrize("method", methods())
def test_it_is_a_callback_of_fit_and_the_best_epoch_is_a_sparse_one(method: str, tmp_path: Path) -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((24, 12)).astype(np.float32))
    y = (x[:, 0] > 0).long()
    task = Task((x, y), (x[:12], y[:12]), (x[12:], y[12:]), batch_size=6)
    net, once = network(method), network(method)
    found = sparsifier(net, method, steps=24)
    result = fit(net, task, epochs=6, callbacks=[found])
    assert not found.attached
    predicted = task.predict(net)
    masks = found.finish()
    assert torch.equal(task.predict(net), predicted)  # the cut changes nothing at the epoch that was chosen
    assert left_zero(net, masks)
    file = tmp_path / "run.safetensors"
    s = sparsifier(once, method, steps=24)
    fit(once, task, epochs=6, callbacks=[s], checkpoint=file, checkpoint_every=4)
    back = network(method)
    again = sparsifier(back, method, steps=24)
    resumed = fit(back, task, epochs=6, callbacks=[again], checkpoint=file, checkpoint_every=4)
    assert torch.equal(resumed.logits, result.logits)
    assert resumed.history == result.history
    assert all(torch.equal(mask, masks[name]) for name, mask in again.finish().items())


def test_constant_is_the_schedule_of_an_exchange() -> None:
    with pytest.raises(ValueError, match="keeps the count"):
        Sparsifier(network(), "rigl", keep=0.5, steps=100, schedule=Constant(begin=3))
    assert isinstance(sparsifier(network(), "rigl").rule, DropGrow)


@pytest.mark.parametrize("method", methods())
def test_one_alone_makes_a_weight_sparse(method: str) -> None:
    """Two would leave fewer weights than either keeps; whoever comes second is told, whatever both are."""
    net = network(method)
    optimizer = sgd(net)
    first, second, third = sparsifier(net, method), sparsifier(net, method, seed=1), L0Projection(net, 0.5)
    first.attach(optimizer)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for late in (lambda: second.attach(sgd(net)), second.finish, lambda: third.attach(optimizer)):
        with pytest.raises(ValueError, match=r"made sparse by another Sparsifier already.*finish\(\) or detach\(\)"):
            late()
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    assert len(optimizer._optimizer_step_post_hooks) == 1
    step_on(net, optimizer, 0, 2)
    first.finish()
    with third.attach(optimizer), pytest.raises(ValueError, match=r"another L0Projection already.*call its detach\(\)"):
        second.attach(optimizer)
    if method != "blocks":  # of which the first has taken some out
        second.attach(optimizer)
        step_on(net, optimizer, 2, 4)
        second.detach()
        second.attach(optimizer).finish()


@pytest.mark.parametrize("method", ["nm-sr-ste", "gates"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_are_copied_in_the_middle_and_plain_at_the_end(kind: type[nn.RNNBase], method: str) -> None:
    """They hold the weights of their last call, by a list that no parametrization knows."""
    net = kind(8, 12, num_layers=2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    found = sparsifier(net, method, steps=4).attach(optimizer)
    x = torch.ones(3, 2, 8)
    for _ in range(4):
        optimizer.zero_grad()
        out = net(x)[0]
        out.square().sum().backward()
        assert torch.equal(copy.deepcopy(net)(x)[0], out)
        optimizer.step()
    trained = copy.deepcopy(net)
    masks = found.finish()
    assert left_zero(net, masks)
    assert torch.equal(net(x)[0], trained(x)[0])
    assert type(net) is kind
    assert not net._forward_hooks


@pytest.mark.parametrize("names", [("weight_ih_l0", "weight_hh_l0"), ("weight_hh_l0", "weight_ih_l0")])
@pytest.mark.parametrize("first", [0, 1])
def test_two_may_mask_weights_of_one_module_and_end_in_any_order(names: tuple[str, str], first: int) -> None:
    net = nn.LSTM(12, 8)
    keys = list(net.state_dict())
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    both = [
        sparsifier(net, method, steps=8, which=[name]).attach(optimizer)
        for method, name in zip(("nm-ste", "gates"), names, strict=True)
    ]
    x = torch.ones(3, 1, 12)
    for _ in range(8):
        optimizer.zero_grad()
        net(x)[0].square().sum().backward()
        optimizer.step()
    out = net(x)[0]
    for found in (both[first], both[1 - first]):
        assert left_zero(net, found.finish())
        assert torch.allclose(net(x)[0], out, atol=1e-6)
    assert type(net) is nn.LSTM
    assert list(net.state_dict()) == keys
    assert not net._forward_hooks
    assert not net._state_dict_hooks


@pytest.mark.parametrize("method", ["nm-ste", "gates"])
def test_functional_transforms_see_masked_weights(method: str) -> None:
    """The gradients of each example, by torch.func, have the mean of the whole batch's."""
    net = network()
    sparsifier(net, method).attach(optimizer := sgd(net))
    step_on(net, optimizer, 0, 2)
    optimizer.zero_grad()
    state, x = (dict(net.named_parameters()), dict(net.named_buffers())), torch.randn(5, 12)

    def loss(parameters: dict[str, Tensor], example: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(net, (parameters, state[1]), (example[None],))
        return (out - 1).square().mean()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(state[0], x)
    (net(x) - 1).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert torch.allclose(each[name].mean(0), parameter.grad, atol=1e-6)  # type: ignore[arg-type]


def test_one_that_is_gone_holds_nothing_and_a_copy_is_free() -> None:
    net = network()
    sparsifier(net, "set").attach(sgd(net))  # the optimizer, and so the hook, is gone
    gc.collect()
    held = sparsifier(net, "set").attach(optimizer := sgd(net))
    twin = copy.deepcopy(net)
    sparsifier(twin, "rigl").attach(sgd(twin))
    held.detach()  # what was stopped in the middle lets go
    sparsifier(net, "rigl").attach(optimizer)
    masked = network()
    sparsifier(masked, "nm-ste").attach(sgd(masked))
    with pytest.raises(ValueError, match=r"make it plain with finish\(\) of the sparsifier that masks it"):
        Sparsifier(masked, keep=0.5)
