"""Rounds: nested, remembered, resumed, always from theta0, and with no memory of a score that was changed."""

import dataclasses
import itertools
import math
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch_geometric.data import Data

import graphsparse as gs
from graphsparse.fit import NodeTask
from graphsparse.tickets import IMP, UGS, WDGLT, Problem, Training, level_keeps, train_dense
from graphsparse.tickets.finders.pairs import RemainingPairs
from graphsparse.tickets.finders.soft import SoftMasks

FINDERS = [UGS(), WDGLT(points=20), IMP()]


def problem_of(blocks, model, epochs=3, protocol="transductive", folder=None, **edge_options):
    task = NodeTask(blocks, protocol=protocol)
    return Problem(model, blocks, task, Training(epochs=epochs), folder=folder, edge_options=edge_options)


@pytest.fixture
def runs(monkeypatch):
    """Every training run of a test: its name, the model, and the weights that it started from."""
    seen = []
    train = Problem.train

    def watched(self, model, task, name, **options):
        seen.append((name, model, {key: value.detach().clone() for key, value in model.named_parameters()}))
        return train(self, model, task, name, **options)

    monkeypatch.setattr(Problem, "train", watched)
    return seen


@pytest.mark.parametrize("finder", FINDERS, ids=lambda finder: type(finder).__name__)
def test_rounds_are_nested_and_made_once_for_all_levels(blocks, make_plain, finder, runs):
    problem = problem_of(blocks, make_plain(blocks))
    dense = train_dense(problem)
    found = [finder(problem, dense, *level_keeps(level)) for level in (1, 2, 3, 4)]
    for more, fewer in pairwise(found):
        assert not (fewer.edge_mask & ~more.edge_mask).any()
        assert all(not (fewer.weight_masks[k] & ~more.weight_masks[k]).any() for k in more.weight_masks)
    learning = sum(isinstance(model, SoftMasks) for _, model, _ in runs)
    assert learning == (0 if isinstance(finder, IMP) else 4)
    assert len(runs) == 1 + (5 if isinstance(finder, IMP) else 8)  # IMP's last run is the next round's first half


@pytest.mark.parametrize("folder", [False, True], ids=["in memory", "in a folder"])
@pytest.mark.parametrize("finder", FINDERS, ids=lambda finder: type(finder).__name__)
def test_a_level_takes_the_time_of_all_its_rounds_whoever_made_them(
    blocks, make_plain, tmp_path, monkeypatch, finder, folder
):
    clock = itertools.count()  # an epoch of the loop takes one second
    monkeypatch.setattr("graphsparse.fit.loop.time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    problem = problem_of(blocks, make_plain(blocks), epochs=5, folder=tmp_path if folder else None)
    dense = train_dense(problem)
    for level in (1, 3, 2, 3):
        assert finder(problem, dense, *level_keeps(level)).seconds == 5 * (level + 1)
    if isinstance(finder, IMP):
        rewound = dataclasses.replace(finder, rewind=3)
        assert [rewound(problem, dense, *level_keeps(level)).seconds for level in (1, 3)] == [3 + 5 * 2, 3 + 5 * 4]


@pytest.mark.parametrize("finder", FINDERS, ids=lambda finder: type(finder).__name__)
def test_a_level_does_not_depend_on_the_levels_before(blocks, make_plain, finder):
    """A score tensor that an earlier round had changed in place would show here."""
    problem = problem_of(blocks, make_plain(blocks))
    dense = train_dense(problem)
    for level in (4, 1, 2):
        finder(problem, dense, *level_keeps(level))
    late = finder(problem, dense, *level_keeps(3))
    alone = problem_of(blocks, make_plain(blocks))
    first = finder(alone, train_dense(alone), *level_keeps(3))
    assert torch.equal(late.edge_mask, first.edge_mask)
    assert all(torch.equal(late.weight_masks[k], first.weight_masks[k]) for k in first.weight_masks)
    assert torch.equal(late.result.logits, first.result.logits)


@pytest.mark.parametrize("finder", FINDERS, ids=lambda finder: type(finder).__name__)
def test_every_round_starts_from_theta0(blocks, make_plain, finder, runs):
    model = make_plain(blocks)
    problem = problem_of(blocks, model)
    finder(problem, train_dense(problem), *level_keeps(3))
    theta0 = dict(model.named_parameters())
    assert len(runs) == 5
    for _, trained, start in runs[1:]:
        if isinstance(trained, SoftMasks):
            originals = {
                key.removeprefix("model.").replace("parametrizations.", "").removesuffix(".original"): value
                for key, value in start.items()
                if key.endswith(".original")
            }
            assert originals.keys() == theta0.keys()
            assert all(torch.equal(originals[key], theta0[key]) for key in theta0)
        else:
            assert all(((start[key] == theta0[key]) | (start[key] == 0)).all() for key in theta0)


def test_masks_start_at_one_with_a_little_noise_and_removed_weights_at_zero(blocks, make_plain, runs):
    problem = problem_of(blocks, make_plain(blocks))
    UGS()(problem, train_dense(problem), *level_keeps(2))
    first, second = [start for _, model, start in runs if isinstance(model, SoftMasks)]
    for start, removed in ((first, 0), (second, 0.1)):
        masks = torch.cat([value.reshape(-1) for key, value in start.items() if key.endswith(".mask")])
        assert float((masks == 0).float().mean()) == pytest.approx(removed, abs=0.01)
        for values in (masks[masks != 0], start["edges"]):
            assert 1 <= float(values.min()) < float(values.max()) <= 1 + 2e-5
    assert len(second["edges"]) == math.ceil(len(first["edges"]) * 95 / 100)


def test_steps_are_obeyed_and_the_last_round_is_cut_to_the_count():
    half = UGS(edge_step="0.5", weight_step=0.2)
    targets = list(half.targets(Fraction(3, 10), Fraction(7, 10)))
    assert [(float(e), float(w)) for e, w in targets] == [(0.5, 0.8), (0.3, 0.7)]
    assert list(UGS().targets(Fraction(1), Fraction(1))) == []
    assert list(UGS().targets(*level_keeps(20))) == [level_keeps(level) for level in range(1, 21)]


@pytest.mark.parametrize("finder", FINDERS, ids=lambda finder: type(finder).__name__)
def test_a_killed_run_resumes_to_the_same_ticket(blocks, make_plain, tmp_path, monkeypatch, finder):
    model = make_plain(blocks)
    whole = problem_of(blocks, model, epochs=6)
    expected = finder(whole, train_dense(whole), *level_keeps(3))
    calls, forward = {"count": 0}, type(model).forward

    def failing(self, x, edge_index):
        calls["count"] += self.training  # the looks at a model before each run take the same few passes every time
        if self.training and calls["count"] % 9 == 0:
            raise KeyboardInterrupt
        return forward(self, x, edge_index)

    monkeypatch.setattr(type(model), "forward", failing)
    monkeypatch.setattr("graphsparse.fit.loop.fit.__kwdefaults__", {**gs.fit.fit.__kwdefaults__, "checkpoint_every": 2})
    kills, found = 0, None
    while found is None:
        assert kills < 60
        try:
            problem = problem_of(blocks, model, epochs=6, folder=tmp_path)  # a new process remembers nothing
            found = finder(problem, train_dense(problem), *level_keeps(3))
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 2
    assert torch.equal(found.edge_mask, expected.edge_mask)
    assert all(torch.equal(found.weight_masks[k], expected.weight_masks[k]) for k in found.weight_masks)
    assert torch.equal(found.result.logits, expected.result.logits)


def test_a_finished_round_leaves_masks_and_no_optimizer_state(blocks, make_plain, tmp_path, runs):
    problem = problem_of(blocks, make_plain(blocks), folder=tmp_path)
    UGS()(problem, train_dense(problem), *level_keeps(2))
    files = sorted(path.name for path in tmp_path.iterdir())
    assert sum(name.endswith(".masks") for name in files) == 2
    assert len(files) == 4  # and the dense run, and the ticket's own
    again = problem_of(blocks, make_plain(blocks), folder=tmp_path)
    before = len(runs)
    UGS()(again, train_dense(again), *level_keeps(3))
    assert sum(isinstance(model, SoftMasks) for _, model, _ in runs[before:]) == 1


def test_other_settings_never_meet_in_a_folder_or_in_memory(blocks, make_plain, tmp_path):
    def find(finder, **options):
        problem = problem_of(blocks, make_plain(blocks), folder=tmp_path)
        problem = dataclasses.replace(problem, **options)
        return finder(problem, train_dense(problem), *level_keeps(2))

    plain = find(UGS())
    assert not torch.equal(plain.edge_mask, find(UGS(edge_penalty=0.5)).edge_mask)
    other = find(UGS(), training=Training(epochs=3, distill=0.0))
    assert not torch.equal(plain.result.logits, other.result.logits)
    problem = problem_of(blocks, make_plain(blocks))
    problem.memory["x"] = 1
    assert not dataclasses.replace(problem, seed=1).memory


def test_the_terms_of_wd_glt_matter(blocks, make_plain):
    problem = problem_of(blocks, make_plain(blocks), epochs=6)
    dense = train_dense(problem)
    found = [
        WDGLT(distance=distance, attack=attack, points=20)(problem, dense, *level_keeps(3))
        for distance, attack in ((0.1, 0.1), (20.0, 0.1), (0.1, 0.9))
    ]
    assert not torch.equal(found[0].edge_mask, found[1].edge_mask)
    assert any(not torch.equal(found[0].weight_masks[k], found[2].weight_masks[k]) for k in found[0].weight_masks)


def test_imp_drops_the_weights_that_ended_smallest(blocks, make_plain):
    problem = problem_of(blocks, make_plain(blocks))
    dense = train_dense(problem)
    whole = IMP(edges="teddy")(problem, dense, Fraction(1), Fraction(1))
    found = IMP(edges="teddy")(problem, dense, Fraction(1), Fraction(9, 10))
    sizes = torch.cat([whole.result.state[name].abs().reshape(-1) for name in found.weight_masks])
    masks = torch.cat([mask.reshape(-1) for mask in found.weight_masks.values()])
    assert sizes[masks].min() >= sizes[~masks].max()
    assert found.metrics == {"edges_by": "teddy", "rewind_epoch": 0}


def test_imp_can_rewind_to_an_early_epoch_of_the_dense_run(blocks, make_plain, runs, tmp_path):
    for folder in (None, tmp_path, tmp_path):
        problem = problem_of(blocks, make_plain(blocks), epochs=6, folder=folder)
        found = IMP(rewind=2)(problem, train_dense(problem), *level_keeps(1))
        assert found.metrics["rewind_epoch"] == 2
    starts = [start for name, _, start in runs if name.startswith("imp-") and not name.endswith("rewind")]
    theta0 = dict(make_plain(blocks).named_parameters())
    short = problem_of(blocks, make_plain(blocks), epochs=2)
    by_hand = short.fresh_model()
    last = {}
    hook = torch.optim.Optimizer.register_step_post_hook
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=0.01, weight_decay=5e-4, fused=True)
    hook(optimizer, lambda *_: last.update({k: v.detach().clone() for k, v in by_hand.named_parameters()}))
    short.train(by_hand, short.task, "by-hand", optimizer=lambda parameters, **_: optimizer)
    for start in starts:
        for key, value in start.items():
            assert ((value == last[key]) | (value == 0)).all()
            assert not torch.equal(value, theta0[key])


def test_learned_masks_obey_the_guard_in_every_round(blocks, make_plain):
    plain, covered = (problem_of(blocks, make_plain(blocks), guard=guard) for guard in (None, "cover"))
    sparse = [UGS()(p, train_dense(p), *level_keeps(16)).edge_mask for p in (plain, covered)]
    touched = [len(blocks.edge_index[:, mask].unique()) for mask in sparse]
    assert touched[1] > touched[0]


def test_edges_of_test_nodes_are_dropped_in_proportion_and_test_nodes_unseen(blocks, make_plain):
    problem = problem_of(blocks, make_plain(blocks), protocol="inductive")
    found = UGS()(problem, train_dense(problem), *level_keeps(6))
    arcs = blocks.edge_index
    unseen = (blocks.test_mask[arcs[0]] | blocks.test_mask[arcs[1]]) & (arcs[0] != arcs[1])
    seen = ~unseen & (arcs[0] != arcs[1])
    for part in (seen, unseen):
        assert float(found.edge_mask[part].float().mean()) == pytest.approx(0.95**6, abs=0.02)
    moved = blocks.clone()
    moved.x[blocks.test_mask] += 50.0
    other = problem_of(moved, make_plain(blocks), protocol="inductive")
    again = UGS()(other, train_dense(other), *level_keeps(6))
    assert torch.equal(found.edge_mask, again.edge_mask)
    assert all(torch.equal(found.weight_masks[k], again.weight_masks[k]) for k in found.weight_masks)


def test_pairs_of_directed_graphs_are_arcs_and_copies_count_one_by_one():
    """Worked by hand: 0-1 in both directions among single arcs of a directed graph are two elements, not one."""
    arcs = torch.tensor([[0, 1, 1, 2, 0, 0, 3], [1, 0, 2, 3, 3, 3, 3]])
    masks = {part: torch.arange(4) == node for node, part in enumerate(("train_mask", "val_mask", "test_mask"))}
    data = Data(x=torch.eye(4), edge_index=arcs, y=torch.tensor([0, 1, 0, 1]), **masks)
    problem = problem_of(data, gs.nn.GCN(4, 4, 2))
    left = RemainingPairs(problem, torch.ones(7, dtype=torch.bool))
    assert left.edge_index[:, -1].tolist() == [3, 3]  # the loop has gone to the end
    assert len(left.start(1e-5)) == 6
    units = left.graphs()[0].unit
    assert sorted(units.tolist()) == [-1, 0, 1, 2, 3, 4, 5]
    scores = torch.zeros(6)
    scores[units[:2]] = torch.tensor([2.0, 1.0])  # 0 -> 1 and 1 -> 0
    before = scores.clone()
    kept = left.cut(scores, Fraction(1, 6))
    assert kept.tolist() == [True, False, False, False, False, False, True]
    assert torch.equal(scores, before)
    once_more = RemainingPairs(problem, left.cut(scores, Fraction(2, 6)))  # 0 -> 1 and 1 -> 0: all mirrored by now
    assert len(once_more.start(1e-5)) == 2
