"""The five axes one by one: grains, scores, schedules, rules, recipes of one's own, and what they refuse."""

from __future__ import annotations

import pickle
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphsparse.keep_rule import kept_count
from graphsparse.params import (
    METHODS,
    SCORES,
    Blocks,
    Bypass,
    Constant,
    Cosine,
    Cubic,
    DropGrow,
    Elements,
    Ensembles,
    Evidence,
    Explore,
    Gates,
    Hold,
    L0Projection,
    NofM,
    Project,
    Proximal,
    Recipe,
    Rows,
    Shrink,
    Sparsifier,
    Stages,
    StraightThrough,
    methods,
    project_groups_,
    register,
)


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 6))


def step(net: nn.Module, optimizer: torch.optim.Optimizer, times: int = 1) -> None:
    for i in range(times):
        optimizer.zero_grad()
        (
            net(torch.from_numpy(np.random.default_rng(i).standard_normal((5, 12)).astype(np.float32))) - 1
        ).square().sum().backward()
        optimizer.step()


def masks_at_once(net: nn.Module, **axes: Any) -> dict[str, Tensor]:
    return Sparsifier(net, **{"rule": Hold(), "distribution": "global", **axes}).finish()


def test_rows_are_those_of_the_projection() -> None:
    net, twin = network(), network()
    masks = masks_at_once(net, keep=0.4, pattern="rows")
    theirs = project_groups_([twin[0].weight, twin[2].weight], keep=0.4)
    assert all(torch.equal(a, b) for a, b in zip(masks.values(), theirs, strict=True))


@pytest.mark.parametrize("grain", [Rows(), Rows(1), Blocks(2, 2), Blocks(3, 5), Elements()])
@pytest.mark.parametrize("distribution", ["global", "uniform", "erk"])
def test_units_stay_whole_and_their_count_is_exact(grain: Any, distribution: str) -> None:
    net = network()
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    masks = masks_at_once(net, keep="1/3", pattern=grain, distribution=distribution)
    kept = 0
    for name, mask in masks.items():
        units = grain.pool(mask.float()) > 0
        assert torch.equal(grain.spread(units, mask.shape), mask)
        kept += int(units.sum())
        assert torch.equal(net.get_parameter(name), weights[name] * mask)
    assert kept == kept_count("1/3", sum(grain.units(mask.shape) for mask in masks.values()))


def test_blocks_of_a_kernel_run_over_its_columns() -> None:
    net = nn.Conv2d(3, 4, 2)
    mask = masks_at_once(net, keep=0.25, pattern=Blocks(2, 4))["weight"]
    assert mask.view(2, 2, 3, 4).all(dim=(1, 3)).sum() == 2
    assert int(mask.sum()) == 16


@pytest.mark.parametrize("grain", [Rows(), Blocks(2, 2)])
@pytest.mark.parametrize("rule", [DropGrow(every=2), DropGrow("random", every=2, budget="moving"), Project(), Shrink()])
def test_rules_take_any_grain(grain: Any, rule: Any) -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    s = Sparsifier(net, keep=0.5, pattern=grain, rule=rule, steps=12).attach(optimizer)
    wanted = kept_count(0.5, sum(grain.units(p.shape) for p in s.parameters.values()))
    for _ in range(12):
        step(net, optimizer)
        assert sum(int((grain.pool(mask.float()) > 0).sum()) for mask in s.masks.values()) == wanted
    s.finish()


def test_a_dict_of_keeps_says_what_each_tensor_keeps() -> None:
    shares = {"0.*": 0.5, "2.weight": "10%"}
    assert [int(m.sum()) for m in masks_at_once(network(), distribution=shares).values()] == [60, 6]
    assert [int(m.sum()) for m in masks_at_once(network(), keep="66/180", distribution=shares).values()] == [60, 6]


def evidence(**more: Any) -> Evidence:
    weight = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
    return Evidence("w", weight, torch.ones(2, 2, dtype=torch.bool), 7, 0, **more)


@pytest.mark.parametrize(
    ("name", "more", "scores"),
    [
        ("magnitude", {}, [1.0, 2.0, 3.0, 0.0]),
        ("gradient", {"grad": torch.tensor([[-1.0, 2.0], [0.5, -4.0]])}, [1.0, 2.0, 0.5, 4.0]),
        ("taylor", {"grad": torch.tensor([[-1.0, 2.0], [0.5, -4.0]])}, [1.0, 4.0, 1.5, 0.0]),
        ("movement", {"start": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}, [0.0, 2.0, 3.0, 1.0]),
        ("hebbian", {"correlation": torch.tensor([[-1.0, 0.5], [0.0, 0.25]])}, [1.0, 0.5, 0.0, 0.25]),
        ("explore", {"grad": torch.zeros(2, 2), "alive": torch.tensor([[0, 1], [3, 0]])}, None),
        ("random", {}, None),
    ],
)
def test_scores_are_what_their_formulas_say(name: str, more: dict[str, Any], scores: list[float] | None) -> None:
    found = SCORES.find(name)(evidence(**more))
    if scores is not None:
        assert found.flatten().tolist() == scores
    elif name == "explore":
        assert torch.allclose(found, 1e-3 * np.log(7) / torch.tensor([[1.0, 2.0], [4.0, 1.0]]))
    else:
        again = SCORES.find(name)(evidence())
        assert torch.equal(found, again)
        assert bool((found >= 0).all())
        assert bool((found < 1).all())
        assert found.unique().numel() == 4


def test_every_score_has_its_row() -> None:
    assert set(SCORES) == {"magnitude", "gradient", "taylor", "movement", "explore", "random", "hebbian"}


def test_first_masks_by_gradients_come_in_the_first_step() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    s = Sparsifier(net, keep=0.2, score="taylor", rule=Hold(), distribution="global").attach(optimizer)
    assert sum(s.counts().values()) == 180
    with pytest.raises(ValueError, match="make a step"):
        Sparsifier(network(), keep=0.2, score="taylor", rule=Hold()).finish()
    step(net, optimizer)
    first = s.masks
    step(net, optimizer, 3)
    assert sum(s.counts().values()) == 36
    assert all(torch.equal(mask, first[name]) for name, mask in s.finish().items())


def test_scaled_weights_keep_the_size_of_signals() -> None:
    net, plain = network(), network()
    masks = masks_at_once(net, keep=0.3, score="random", init="scaled")
    masks_at_once(plain, keep=0.3, score="random")
    for name, mask in masks.items():
        factor = (mask.shape[1] / mask.sum(1).clamp(min=1)).sqrt()
        assert torch.allclose(net.get_parameter(name), plain.get_parameter(name) * factor[:, None])


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_scaled_kernels_keep_the_variance_of_each_output(kind: type[nn.Module], groups: int) -> None:
    """For inputs of variance 1 an output's variance is the sum of its squared weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = kind(8, 6, 3, groups=groups, bias=False)  # type: ignore[call-arg]
    assert isinstance(layer.weight, Tensor)
    nn.init.constant_(layer.weight, 0.5)
    masks_at_once(layer, keep=0.3, score="random", init="scaled")
    weight = layer.weight.detach()
    if kind is nn.ConvTranspose2d:
        weight = torch.cat([part.transpose(0, 1) for part in weight.chunk(groups)])
    assert torch.allclose(weight.flatten(1).square().sum(1), torch.tensor(0.25 * 9 * 8 / groups))


def test_a_method_of_ones_own_is_one_row() -> None:
    register("mine", {"score": lambda e: e.weight.abs() + 1, "rule": Hold(), "distribution": "er"})
    try:
        assert "mine" in methods()
        assert sum(int(m.sum()) for m in Sparsifier(network(), "mine", keep=0.1).finish().values()) == 18
        with pytest.raises(ValueError, match="there is already a method 'mine'"):
            register("mine", {})
    finally:
        del METHODS["mine"]
    with pytest.raises(ValueError, match=r"chooses \['scores'\]; the axes are"):
        register("other", {"scores": "random"})
    with pytest.raises(TypeError, match="a Recipe, or the values"):
        register("other", 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"chooses \['rules'\]"):
        Recipe("", lambda steps, pattern: {"rules": 1}).axes("x", None, None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "rigle", "keep": 0.1}, "unknown method 'rigle' .did you mean 'rigl'"),
        ({"keep": 0.1, "score": "magnitud"}, "unknown weight score 'magnitud' .did you mean 'magnitude'"),
        ({"keep": 0.1, "pattern": "row"}, "unknown grain 'row' .did you mean 'rows'"),
        ({"keep": 0.1, "distribution": "erq"}, "unknown weight distribution 'erq'"),
        ({"keep": 0.1, "init": "scale"}, "init must be None or 'scaled', got 'scale' .did you mean"),
        ({}, "keep is missing"),
        ({"keep": 0.0}, r"keep must lie in \(0, 1\]"),
        ({"keep": 1.5}, r"keep must lie in \(0, 1\]"),
        ({"keep": "3:2"}, "1 <= N <= M"),
        ({"keep": "2:4", "pattern": Rows()}, "is a pattern itself"),
        ({"keep": 0.3, "pattern": NofM(2, 4)}, "keeps 2 of every 4"),
        (
            {"keep": "2:4", "distribution": "erk"},
            "distribution='erk' has no say in N:M.*; methods for it are nm, nm-fade",
        ),
        ({"keep": "2:4", "rule": DropGrow(), "steps": 900}, "N:M forbids"),
        ({"keep": 0.1, "distribution": {"9.weight": 0.1}}, "'9.weight', which names none of"),
        ({"keep": 0.1, "distribution": {"0.weight": 0.1}}, "no keep for '2.weight'"),
        ({"keep": 0.5, "distribution": {"*": 0.1}}, "keeps 18 of 180, keep=0.5 90"),
        ({"keep": 0.1, "distribution": {"*": 2}}, r"keep must lie in \(0, 1\]"),
        ({"method": "nm", "keep": 0.5}, "keep is a pattern such as '2:4'"),
        ({"method": "rigl", "keep": 0.5}, "'rigl' needs steps="),
        ({"method": "rigl", "keep": 0.5, "steps": 1}, "shorter than one update"),
        ({"keep": 0.5, "rule": DropGrow(every=100), "steps": 50}, "steps=50 is shorter than one update"),
        ({"keep": 0.5, "rule": Shrink()}, "Shrink needs steps="),
        ({"keep": 0.5, "rule": Shrink(), "steps": 1}, "too short for Shrink"),
        ({"keep": "1:4", "rule": StraightThrough(fade="linear"), "steps": 1}, "too short to fade"),
        ({"keep": 0.5, "rule": StraightThrough(), "score": "gradient"}, "by a score without gradients"),
        ({"keep": 0.5, "rule": Shrink(), "steps": 9, "score": "taylor"}, "by a score without gradients"),
        ({"keep": 0.5, "rule": DropGrow(), "steps": 900, "score": "gradient"}, "by a score without gradients"),
        ({"keep": 0.5, "schedule": Stages(["2:4"], 3)}, "Stages are N:M patterns"),
        ({"keep": "1:4", "schedule": Stages(["3:4", "2:4"], 3)}, "the last of the stages is '2:4'"),
        ({"keep": 0.5, "rule": StraightThrough(), "init": "scaled"}, "begins with a dense network"),
        ({"keep": 0.5, "steps": 0}, "steps must be at least 1"),
        ({"keep": 0.5, "seed": 0.5}, "seed must be a whole number"),
        ({"keep": 0.5, "pattern": "modules"}, r"must say which: pattern=Modules\(names\)"),
        ({"keep": 0.5, "which": ["7.*"]}, "matches no trainable parameter"),
        ({"keep": 0.5, "which": ["0.bias"], "pattern": Blocks()}, "no blocks"),
        ({"keep": 0.9, "schedule": Cubic(end=3, initial=0.5)}, "above its end"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_changed(options: dict[str, Any], said: str) -> None:
    net = network()
    with pytest.raises(ValueError, match=said):
        Sparsifier(net, **options)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), network().parameters(), strict=True))


def number_takers(wrong: Any) -> list[Any]:
    """Every option of the axes that is a number, given what is none."""
    taken = [
        (Shrink, "factor"), (Shrink, "until"), (StraightThrough, "decay"), (DropGrow, "fraction"), (DropGrow, "until"),
        (Proximal, "strength"), (Gates, "strength"), (Gates, "lr"), (Bypass, "gates"), (Bypass, "chosen"),
        (Explore, "c"), (Ensembles, "share"), (partial(Cosine, end=4), "share"),
    ]  # fmt: skip
    return [partial(kind, **{name: wrong}) for kind, name in taken]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DropGrow("gradiant"), "unknown weight score 'gradiant' .did you mean 'gradient'"),
        (lambda: DropGrow(fraction=0), r"in \(0, 1\]; got 0"),
        (lambda: DropGrow(until=1.5), r"in \(0, 1\], got 1.5"),
        (lambda: DropGrow(every=0), "every must be at least 1"),
        (lambda: DropGrow(budget="move"), "budget must be 'fixed' or 'moving'"),
        (lambda: DropGrow(first="gradient"), "before there are gradients"),
        (lambda: Shrink(1.0), r"in \[0, 1\), got 1.0"),
        (lambda: StraightThrough(decay=-1), "from 0 on, got -1"),
        (lambda: StraightThrough(fade="slow"), "fade must be None, 'linear' or 'exponential'"),
        (lambda: Explore(-1), "from 0 on, got -1"),
        (lambda: Cosine(2, 3), r"in \(0, 1\], got 2"),
        (lambda: Stages(["2:4", "1:4"], 1), "2 stages need at least as many steps"),
        (lambda: Blocks(0, 2), "height must be at least 1"),
        (lambda: Project(every=0), "every must be at least 1"),
        *((make, f"got {wrong!r}") for wrong in ("x", True, None) for make in number_takers(wrong)),
        (lambda: Stages("2:4", 3), r"a list of patterns, such as \['3:4', '2:4'\]"),
        (lambda: Stages(["3:4", "2:x"], 3), "such as '2:4', not '2:x'"),
        (lambda: Stages([3], 3), "such as '2:4', not 3"),  # type: ignore[list-item]
    ],
)
def test_values_out_of_range_are_told(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("axis", ["rule", "score", "schedule", "pattern"])
def test_things_of_another_kind_are_told(axis: str) -> None:
    with pytest.raises(TypeError, match=axis):
        Sparsifier(network(), keep=0.5, **{axis: 3})  # type: ignore[arg-type]
    for make, said in (
        (lambda: DropGrow(3), "a score is a name or a function"),  # type: ignore[arg-type]
        (lambda: DropGrow(first=3), "a score is a name or a function"),  # type: ignore[arg-type]
        (lambda: Proximal(3), "penalty is a name or a function"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match=said):
            make()


@pytest.mark.parametrize(("axis", "kind"), [("rule", Hold), ("score", Explore), ("pattern", Rows)])
def test_a_class_that_was_not_called_is_told(axis: str, kind: type) -> None:
    with pytest.raises(TypeError, match=f"{axis}.* the class {kind.__name__}.* call it"):
        Sparsifier(network(), keep=0.5, **{axis: kind})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the class Explore; call it"):
        DropGrow(Explore)


def test_masked_and_computed_weights_are_named() -> None:
    net = nn.utils.prune.l1_unstructured(nn.Linear(4, 4), "weight", amount=0.5)
    with pytest.raises(ValueError, match=r"'weight' is masked by torch\.nn\.utils\.prune"):
        Sparsifier(net, keep=0.5)
    with pytest.raises(ValueError, match="is computed from"):
        Sparsifier(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), keep=0.5)
    net = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    first = Sparsifier(net, "nm-ste", keep="2:4").attach(optimizer)
    with pytest.raises(ValueError, match="is computed from"):  # ours, half-way
        Sparsifier(net, keep=0.5)
    with pytest.raises(RuntimeError, match="only supported through state_dict"):
        pickle.dumps(net)
    first.finish()
    pickle.dumps(net)


def test_optimizers_that_do_not_fit_are_told() -> None:
    net = network()
    s = Sparsifier(net, "rigl", keep=0.5, steps=40)
    with pytest.raises(TypeError, match=r"must be a torch\.optim\.Optimizer"):
        s.attach(net)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps none of the selected"):
        s.attach(torch.optim.SGD(network().parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"never steps '2.weight'"):
        s.attach(torch.optim.SGD(net[0].parameters(), lr=0.1))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), network().parameters(), strict=True))
    for some in (Sparsifier(net, keep=0.5), L0Projection(net, 0.5)):
        with pytest.warns(UserWarning, match="never steps '2.*'; if another one does.*one for the parameters of each"):
            some.attach(torch.optim.SGD(net[0].parameters(), lr=0.1)).detach()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    s = Sparsifier(net, "rigl", keep=0.5, steps=40).attach(optimizer)
    with pytest.raises(ValueError, match="attached already"):
        s.attach(optimizer)
    s.finish()
    assert not optimizer._optimizer_step_pre_hooks
    with pytest.raises(ValueError, match="has finished"):
        s.attach(optimizer)


@pytest.mark.parametrize("method", methods())
def test_one_sparsifier_for_each_of_several_optimizers(method: str) -> None:
    """As with Muon for matrices and another one for the rest: outside the masks weights are zero after each step."""
    if METHODS[method].modules:
        return
    net = network()
    keep: Any = "2:4" if METHODS[method].n_of_m else 0.5
    optimizers = [
        torch.optim.Muon([net[0].weight], lr=0.01),
        torch.optim.AdamW([*net[2].parameters(), net[0].bias], lr=0.01, fused=True),
    ]
    both = [
        Sparsifier(net, method, keep=keep, steps=20, which=[name]).attach(optimizer)
        for name, optimizer in zip(("0.weight", "2.weight"), optimizers, strict=True)
    ]
    for step in range(20):
        net.zero_grad()
        net(torch.full((2, 12), step / 20)).square().sum().backward()
        for optimizer, s in zip(optimizers, both, strict=True):
            optimizer.step()
            if not s.rule.dense or s.ready:
                assert all(bool((net.get_submodule(n[0]).weight[~m] == 0).all()) for n, m in s.masks.items())
    for s, weight in zip(both, (net[0].weight, net[2].weight), strict=True):
        (mask,) = s.finish().values()
        assert 0 < int(mask.sum()) < weight.numel()
    assert all(bool((net[i].weight[~s.masks[f"{i}.weight"]] == 0).all()) for i, s in zip((0, 2), both, strict=True))


def test_steps_without_the_gradients_that_are_read_are_told() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    s = Sparsifier(net, "rigl", keep=0.5, steps=20).attach(optimizer)
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(ValueError, match=r"'0.weight' has no gradient at step 1"):
        optimizer.step()
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)
    step_count = s.step
    net(torch.ones(2, 12)).sum().backward()
    net[2].weight.grad[1, 2] = float("nan")  # type: ignore[index]
    with pytest.raises(ValueError, match=r"score of '2.weight' is nan at position \(1, 2\)"):
        optimizer.step()
    net[2].weight.grad = net[2].weight.grad.to_sparse()  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"gradient of '2.weight' is a sparse tensor"):
        optimizer.step()
    assert s.step == step_count == 0
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))


@pytest.mark.parametrize("method", ["gates", "nm-sr-ste", "rigl", "gmp"])
def test_sparse_gradients_of_embeddings(method: str) -> None:
    """Methods that read whole gradients say so, the others do without."""
    net = nn.Sequential(nn.Embedding(12, 8, sparse=True), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    keep: Any = "2:4" if method == "nm-sr-ste" else 0.5
    s = Sparsifier(net, method, keep=keep, steps=2 if method != "rigl" else 3).attach(optimizer)
    net(torch.tensor([[1, 2], [3, 4]])).square().sum().backward()
    if method == "gmp":
        optimizer.step()
        assert sum(int(mask.sum()) for mask in s.finish().values()) == 64
        return
    with pytest.raises(ValueError, match=r"gradient of '0.weight' is a sparse tensor.*use sparse=False"):
        optimizer.step()


@pytest.mark.parametrize("method", methods())
def test_tensors_without_elements_and_single_numbers_are_kept_as_they_are(method: str) -> None:
    net: Any = network()
    net = nn.ModuleDict({"0": net[0], "2": net[2]})
    net.register_parameter("none", nn.Parameter(torch.zeros(0, 12)))
    net.register_parameter("one", nn.Parameter(torch.ones(())))
    single = METHODS[method].n_of_m or method in ("gates", "group-lasso", "group-envelope")  # which have a dimension 1
    if METHODS[method].modules:
        return
    which = ["0.weight", "2.weight", "none"] if single or method == "g2g" else "all"
    if method == "g2g":
        which = ["0.weight", "2.weight"]
    keep: Any = "2:4" if METHODS[method].n_of_m else 0.25
    s = Sparsifier(net, method, keep=keep, steps=20, which=which)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    s.attach(optimizer)
    for i in range(20):
        optimizer.zero_grad()
        x = torch.from_numpy(np.random.default_rng(i).standard_normal((5, 12)).astype(np.float32))
        out = net["2"](net["0"](x).tanh())
        ((out * net.one).square().sum() + net.none.sum()).backward()
        optimizer.step()
    masks = s.finish()
    if not METHODS[method].n_of_m and "group" not in method and method != "gates":
        assert sum(int(mask.sum()) for mask in masks.values()) == kept_count(
            0.25, sum(m.numel() for m in masks.values())
        )


@pytest.mark.parametrize("method", ["nm-ste", "gates"])
def test_parameters_of_a_sequential_itself_cannot_be_masked_in_passing(method: str) -> None:
    net = network()
    net.register_parameter("own", nn.Parameter(torch.ones(4, 4)))
    keep: Any = "2:4" if method == "nm-ste" else 0.5
    s = Sparsifier(net, method, keep=keep, steps=20)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    with pytest.raises(ValueError, match=r"'own' is a parameter of a Sequential itself.*leave it out by which="):
        s.attach(torch.optim.SGD(net.parameters(), lr=0.1))
    assert {name: p.tolist() for name, p in net.named_parameters()} == {n: p.tolist() for n, p in before.items()}


@pytest.mark.parametrize("penalty", ["group-lasso", "group-envelope", "l1"])
def test_a_weight_that_is_no_number_stops_a_proximal_step(penalty: str) -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    s = Sparsifier(net, keep=0.5, steps=20, pattern=Rows(1), rule=Proximal(penalty)).attach(optimizer)
    net(torch.full((2, 12), float("inf"))).sum().backward()
    with pytest.raises(ValueError, match=r"the weight '0.weight' is nan at position \(0, 0\)"):
        optimizer.step()
    s.detach()


def test_weights_and_scores_that_are_no_numbers_are_told() -> None:
    net = network()
    with torch.no_grad():
        net[2].weight[1, 3] = float("inf")
    with pytest.raises(ValueError, match=r"the weight '2.weight' is inf at position \(1, 3\)"):
        Sparsifier(net, keep=0.5).attach(torch.optim.SGD(net.parameters(), lr=0.1))
    assert torch.equal(net[0].weight, network()[0].weight)
    for score, said in (
        (lambda e: -e.weight.abs(), "is negative at position"),
        (lambda e: e.weight[0], r"must be a tensor of shape \[10, 12\], got shape \[12\]"),
        (lambda e: e.weight.abs() * float("nan"), r"the score of '0.weight' is nan at position \(0, 0\)"),
    ):
        with pytest.raises(ValueError, match=said):
            Sparsifier(network(), keep=0.5, score=score).finish()  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dense floating-point"):
        Sparsifier(nn.Linear(4, 4, device="meta"), keep=0.5)


def test_states_of_others_are_told_and_nothing_is_loaded() -> None:
    s = Sparsifier(network(), "magnitude", keep=0.5)
    s.finish()
    other = Sparsifier(network(), "magnitude", keep=0.4)
    for state, said in (
        (s.state_dict(), "the state has keep = '1/2', this sparsifier '2/5'"),
        ({}, "has 'settings'"),
        ({"settings": other.state_dict()["settings"]}, "has 'step', too"),
        ({**other.state_dict(), "masks": {}}, "belong to other parameters"),
        ({**other.state_dict(), "masks": None}, "belong to other parameters: None"),
        ({**other.state_dict(), "step": -1}, "step must be at least 0"),
        (None, "has 'settings'"),
        ({**other.state_dict(), "seen": {n: m.int() for n, m in other.masks.items()}}, "is no torch.bool"),
    ):
        with pytest.raises(ValueError, match=said):
            other.load_state_dict(state)
    assert sum(other.counts().values()) == 180
    with pytest.raises(ValueError, match="finished sparsifier"):
        Sparsifier(network(), "magnitude", keep=0.5).load_state_dict(s.state_dict())


def test_runs_may_be_named_as_a_pattern() -> None:
    wanted = Sparsifier(network(), "nm", keep="2:4").finish()
    for given in ({"pattern": "2:4"}, {"pattern": " 2 : 4"}, {"pattern": "2:4", "keep": "2:4"}):
        found = Sparsifier(network(), "nm", **given).finish()  # type: ignore[arg-type]
        assert all(torch.equal(mask, wanted[name]) for name, mask in found.items())
    with pytest.raises(ValueError, match="pattern keeps 2 of every 4, and keep='1:4' says another"):
        Sparsifier(network(), keep="1:4", pattern="2:4")


def test_short_runs_and_starved_layers_are_said_once() -> None:
    with pytest.warns(UserWarning, match=r"runs shorter than 16 keep up to 2 weights: 2 of 12 of '0.weight', 2 of 10"):
        Sparsifier(network(), "nm", keep="2:16")
    net = network()
    with torch.no_grad():
        net[2].weight *= 1e-6
    with pytest.warns(UserWarning, match=r"hardly anything is left of '2.weight'.*distribution="):
        masks_at_once(net, keep=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masks_at_once(net, keep=0.1, distribution="erk")


def test_a_schedule_that_was_stopped_early_is_finished_exactly() -> None:
    for method in ("gmp", "iss"):
        net = network()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        s = Sparsifier(net, method, keep=0.2, steps=100).attach(optimizer)
        step(net, optimizer, 3)
        assert not s.ready
        assert sum(int(mask.sum()) for mask in s.finish().values()) == 36
        assert sum(int(net.get_parameter(n).count_nonzero()) for n in s.parameters) == 36


def test_constant_may_begin_later() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    s = Sparsifier(net, keep=0.2, schedule=Constant(begin=2), rule=Hold()).attach(optimizer)
    counts = []
    for _ in range(3):
        step(net, optimizer)
        counts.append(sum(s.counts().values()))
    assert counts == [180, 36, 36]


@pytest.mark.parametrize("keep", ["0.3", "0.29", "0.11"])
def test_a_ramp_over_many_tensors_keeps_the_count_although_their_shares_round_up_and_down(keep: str) -> None:
    net = nn.Sequential(*(nn.Linear(8, 8) for _ in range(5)), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    sparsifier = Sparsifier(net, "gmp", keep=keep, steps=40, which="all").attach(optimizer)
    for _ in range(40):
        optimizer.zero_grad()
        net(torch.ones(2, 8)).square().sum().backward()
        optimizer.step()
    wanted = kept_count(keep, sum(p.numel() for p in net.parameters()))
    assert sum(sparsifier.counts().values()) == wanted
    assert sum(int(mask.sum()) for mask in sparsifier.finish().values()) == wanted
