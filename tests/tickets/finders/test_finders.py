"""Every finder through find_ticket: exact counts, pairs, theta0, what it ignores, and what it refuses."""

import copy
import dataclasses
import math

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

import graphsparse as gs
from graphsparse.errors import TicketError
from graphsparse.fit import NodeTask
from graphsparse.tickets import (
    FINDERS,
    IMP,
    UGS,
    WDGLT,
    Magnitude,
    OneShot,
    Problem,
    RandomWeights,
    Training,
    finders,
    level_keeps,
    sparsest_within,
    train_dense,
)
from graphsparse.tickets.compare.plan import trials_of
from graphsparse.tickets.finders.table import finder_of

FAST = {"epochs": 4}
SIZED = ["ugs", "wd-glt", "imp", "magnitude", "random-weights", "mixture", "denoise"]
CONTROLS = ["no-edges", "all-edges", "dense-student"]


def pairs(data) -> int:
    return int((data.edge_index[0] < data.edge_index[1]).sum())


def problem_of(blocks, model, epochs=4, distill=1.0, seed=0, protocol="transductive", folder=None, **edge_options):
    task = NodeTask(blocks, protocol=protocol)
    training = Training(epochs=epochs, distill=distill)
    return Problem(model, blocks, task, training, seed=seed, folder=folder, edge_options=edge_options)


@pytest.fixture
def ticket_of(blocks, make_plain):
    """Finds a ticket by a finder of one's own, half of the edges and half of the weights."""

    def find(finder, **options):
        gs.tickets.register("own", finder)
        try:
            options = {"edge_keep": 0.5, "weight_keep": 0.5, **FAST, **options}
            return gs.find_ticket(make_plain(blocks), blocks, method="own", **options)
        finally:
            del FINDERS["own"]

    return find


def test_finders_are_listed_with_every_edge_score():
    assert {*SIZED, *CONTROLS, "teddy", "reliance", "reliance-blind", "random", *gs.edges.SCORES} == set(finders())
    assert all(
        finder.__doc__ and "Source:" in finder.__doc__ for name, finder in FINDERS.items() if name != "all-edges"
    )


def test_edges_are_scored_once_for_all_levels(blocks, make_plain):
    calls = []

    def counted(edges):
        calls.append(edges)
        return gs.edges.SCORES["teddy"](edges)

    problem, finder = problem_of(blocks, make_plain(blocks), epochs=1), OneShot(counted)
    finder.check(problem)
    dense = train_dense(problem)
    found = [finder(problem, dense, *level_keeps(level)) for level in (1, 5)]
    assert len(calls) == 1
    for level, ticket in zip((1, 5), found, strict=True):
        assert torch.equal(ticket.edge_mask, gs.edges.keep_mask(
            gs.edges.score(blocks, "teddy"), blocks.edge_index, keep=level_keeps(level)[0], num_nodes=blocks.num_nodes
        ))  # fmt: skip
    other = dataclasses.replace(problem, seed=1)  # another problem scores anew
    finder.check(other)
    assert len(calls) == 2


OWN = """
from graphsparse.tickets import OneShot

def by_degree(edges):
    tails, heads = edges.edge_index
    return -(tails.bincount(minlength=edges.num_nodes)[tails] + tails.bincount(minlength=edges.num_nodes)[heads])

class Own:
    trials = ({"distill": 2.0},)
    def __call__(self, problem, dense, edge_keep, weight_keep):
        return OneShot(by_degree)(problem, dense, edge_keep, weight_keep)

class Sized:
    def __init__(self, size):
        pass

low_degree = OneShot(by_degree)
number = 3

def two(one, another):
    return one
"""


def test_a_finder_in_a_file_of_ones_own_is_run_by_its_path(blocks, make_plain, tmp_path, monkeypatch):
    (tmp_path / "own_finders.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    sizes = {"edge_keep": 0.5, "weight_keep": 0.5}
    for name in ("own_finders:Own", "own_finders:low_degree"):
        ticket = gs.find_ticket(make_plain(blocks), blocks, method=name, **sizes, **FAST)
        assert ticket.method == name
        assert ticket.metrics["edges_kept"] == math.ceil(pairs(blocks) / 2) / pairs(blocks)
    assert trials_of("own_finders:Own") == ({"distill": 2.0},)
    for name, sentence in [
        ("own_finders:number", "is no finder, called as finder"),
        ("own_finders:two", "is no finder, called as finder"),
        ("own_finders:nothing", "there is no finder 'own_finders:nothing': .*own_finders.py has no 'nothing'"),
        ("own_finders:Sized", "is a class that cannot be made without arguments"),
        ("builtins:print", "is no finder, called as finder"),
        ("math:pi", "is no finder, called as finder"),
        ("no_such_module:Own", "there is no finder 'no_such_module:Own'"),
        (":", "there is no finder ':'"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            gs.find_ticket(make_plain(blocks), blocks, method=name, **sizes, **FAST)


OWN_SCORE = """
def by_degree(edges, *, power=1.0):
    tails, heads = edges.edge_index
    degree = tails.bincount(minlength=edges.num_nodes).double() ** power
    return degree[tails] + degree[heads]
"""


def test_an_edge_score_in_a_file_of_ones_own_is_a_one_shot_finder(blocks, make_plain, tmp_path, monkeypatch):
    (tmp_path / "own_score.py").write_text(OWN_SCORE)
    monkeypatch.syspath_prepend(str(tmp_path))
    how = {"edge_keep": 0.5, "weight_keep": 0.5, "guard": "cover", "score_options": {"power": -1.0}, **FAST}
    ticket = gs.find_ticket(make_plain(blocks), blocks, method="own_score:by_degree", **how)
    scores = gs.edges.score(blocks, "own_score:by_degree", power=-1.0)
    mask = gs.edges.keep_mask(scores, blocks.edge_index, keep=0.5, guard="cover")
    assert ticket.method == "own_score:by_degree"
    assert torch.equal(ticket.sparse_graph(blocks).edge_index, blocks.edge_index[:, mask])
    with pytest.raises(TypeError, match="own_score:by_degree does not take strength; it takes guard, forest, power"):
        gs.find_ticket(
            make_plain(blocks), blocks, method="own_score:by_degree", **how | {"score_options": {"strength": 1}}
        )


def links_without_features(blocks) -> Data:
    some = blocks.edge_index[:, :40]
    judged = {f"{part}_{kind}_edge_index": some for part in ("val", "test") for kind in ("pos", "neg")}
    names = {"task": "link", "metric": "hits@1", "num_nodes": 160}
    return Data(edge_index=blocks.edge_index, train_pos_edge_index=some, **judged, **names)


@pytest.mark.parametrize(
    "finder", [OneShot("cosine"), Magnitude("cosine"), RandomWeights("cosine"), IMP(edges="cosine")]
)
def test_what_a_finder_s_own_score_needs_is_told_before_anything_is_trained(blocks, monkeypatch, finder):
    monkeypatch.setattr("graphsparse.tickets.find.train_dense", lambda problem: pytest.fail("it was trained"))
    links = links_without_features(blocks)
    gs.tickets.register("own", finder)
    try:
        with pytest.raises(ValueError, match="cosine"):
            gs.find_ticket(gs.nn.make_link_net("gcn", 160, 0, 4, seed=0), links, method="own", edge_keep=0.5, **FAST)
    finally:
        del FINDERS["own"]


def test_mixture_needs_features_and_says_so_before_anything_is_trained(blocks, monkeypatch):
    monkeypatch.setattr("graphsparse.tickets.find.train_dense", lambda problem: pytest.fail("it was trained"))
    links = links_without_features(blocks)
    with pytest.raises(ValueError, match="mixture routes nodes by their features, and the data has no x"):
        gs.find_ticket(gs.nn.make_link_net("gcn", 160, 0, 4, seed=0), links, method="mixture", edge_keep=0.5, **FAST)


@pytest.mark.parametrize(
    ("method", "options"), [("teddy", {"normalization": "nonsense"}), ("effective_resistance", {"tolerance": -1.0})]
)
def test_what_a_score_refuses_is_told_before_anything_is_trained(blocks, make_plain, monkeypatch, method, options):
    monkeypatch.setattr("graphsparse.tickets.problem.fit", None)
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        gs.find_ticket(make_plain(blocks), blocks, method=method, edge_keep=0.5, score_options=options, **FAST)


def test_what_a_module_of_ones_own_lacks_is_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "own_broken.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        finder_of("own_broken:Own")


@pytest.mark.parametrize(
    "method", ["reliance", "reliance-blind", "mixture", "denoise", "no-edges", "all-edges", "dense-student"]
)
def test_a_method_without_scores_takes_no_rule_of_scores(blocks, make_plain, method):
    for rule in ({"guard": "cover"}, {"forest": True}, {"score_options": {"power": 0}}):
        with pytest.raises(ValueError, match=f"{method} chooses edges by a rule of its own and takes no"):
            gs.find_ticket(make_plain(blocks), blocks, method=method, edge_keep=0.5, **rule, **FAST)


def test_a_finder_of_ones_own_may_refuse_rules_too(blocks, make_plain):
    @gs.tickets.unguarded
    def own(problem, dense, edge_keep, weight_keep):
        raise AssertionError("nothing runs")

    gs.tickets.register("own", own)
    try:
        with pytest.raises(ValueError, match="own chooses edges by a rule of its own and takes no guard"):
            gs.find_ticket(make_plain(blocks), blocks, method="own", edge_keep=0.5, guard="cover", **FAST)
    finally:
        del gs.tickets.FINDERS["own"]


def test_attributes_of_a_finder_of_ones_own_are_its_own(ticket_of):
    class Own:
        score = "accuracy"

        def __call__(self, problem, dense, edge_keep, weight_keep):
            return OneShot("random")(problem, dense, edge_keep, weight_keep)

    assert ticket_of(Own()).method == "own"


class Taking:
    takes = ("guard", "power")

    def __call__(self, problem, dense, edge_keep, weight_keep):
        self.seen = dict(problem.edge_options)
        return OneShot("random")(dataclasses.replace(problem, edge_options={}), dense, edge_keep, weight_keep)


def test_a_finder_of_ones_own_gets_what_it_takes_and_nothing_else(ticket_of):
    finder = Taking()
    ticket = ticket_of(finder, guard="cover", score_options={"power": 2})
    assert finder.seen == {"guard": "cover", "forest": False, "power": 2}
    assert ticket.config["power"] == 2
    with pytest.raises(TypeError, match="own does not take forest; it takes guard, power"):
        ticket_of(finder, forest=True)
    with pytest.raises(TypeError, match="own does not take bogus; it takes guard, power"):
        ticket_of(finder, score_options={"bogus": None})
    finder.takes = "guard"
    with pytest.raises(ValueError, match="takes of 'own' must list the options"):
        ticket_of(finder)


@pytest.mark.parametrize("method", sorted(FINDERS))
def test_no_finder_takes_what_it_does_not_use(blocks, make_plain, method, monkeypatch):
    monkeypatch.setattr("graphsparse.tickets.find.train_dense", lambda problem: pytest.fail("it was trained"))
    for options in ({"score_options": {"bogus": 1}}, {"score_options": {"bogus": None}}):
        with pytest.raises((TypeError, ValueError), match=f"{method} (does not take bogus; it takes|chooses edges by)"):
            gs.find_ticket(make_plain(blocks), blocks, method=method, edge_keep=0.5, **options, **FAST)


def test_a_method_may_be_written_in_capitals_and_its_ticket_is_the_same(blocks, make_plain):
    sizes = {"edge_keep": 0.5, "weight_keep": 0.5, **FAST}
    small, large = (gs.find_ticket(make_plain(blocks), blocks, method=name, **sizes) for name in ("teddy", "TEDDY"))
    assert large.method == "teddy"
    assert small.hash == large.hash


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ignores": ("edge_keep",)}, "ignores 'edge_keep', which the controls alone may"),
        ({"ignores": ("edge_keep", "weight_keep")}, "ignores 'edge_keep', which the controls alone may"),
        ({"ignores": (), "metrics": {"ignores": "edge_keep"}}, "own metrics cannot be called 'ignores'"),
    ],
)
def test_a_finder_of_ones_own_cannot_leave_the_check_by_a_word(ticket_of, changes, said):
    def own(problem, dense, edge_keep, weight_keep):
        found = FINDERS.find("all-edges")(problem, dense, edge_keep, weight_keep)
        return dataclasses.replace(found, **changes)

    with pytest.raises(TicketError, match=said):
        ticket_of(own)


def test_a_control_under_another_name_is_none(ticket_of):
    with pytest.raises(TicketError, match="the controls alone may"):
        ticket_of(gs.tickets.no_edges)


def test_a_finder_of_ones_own_is_run_by_name(blocks, make_plain):
    gs.tickets.register("own", UGS(weight_step="0.5", edge_step="0.5"))
    try:
        ticket = gs.find_ticket(make_plain(blocks), blocks, method="own", edge_keep=0.5, weight_keep=0.5, **FAST)
        assert ticket.method == "own"
        with pytest.raises(ValueError, match="already a finder 'own'"):
            gs.tickets.register("own", IMP())
        with pytest.raises(ValueError, match="already an edge score 'dspar', which is a finder"):
            gs.tickets.register("dspar", IMP())
    finally:
        del FINDERS["own"]


def _others_arc(mask, data):
    tails, heads = data.edge_index
    first = int((mask & (tails != heads)).nonzero()[0])
    mask[first] = False
    return mask


CHEATS = {
    "all edges": ({"edge_mask": lambda m, d: torch.ones_like(m)}, "kept 687 edges, but 344 were asked for"),
    "half a pair": ({"edge_mask": _others_arc}, "kept one arc of an undirected edge and dropped the other"),
    "no loops": ({"edge_mask": lambda m, d: m & (d.edge_index[0] != d.edge_index[1])}, "dropped self-loops"),
    "positions": ({"edge_mask": lambda m, d: m.nonzero().view(-1)}, "edge mask must be bool"),
    "short": ({"edge_mask": lambda m, d: m[1:]}, "edge mask must be bool"),
    "all weights": (
        {"weight_masks": lambda w, d: {name: torch.ones_like(mask) for name, mask in w.items()}},
        "weights, but .* were asked for",
    ),
    "a name": ({"weight_masks": lambda w, d: {**w, "first.weight": torch.ones(1).bool()}}, "no weight of the model"),
    "a shape": ({"weight_masks": lambda w, d: {name: mask.view(-1) for name, mask in w.items()}}, "must be bool"),
    "no weights": (
        {"weight_masks": lambda w, d: {name: torch.zeros_like(mask) for name, mask in w.items()}},
        "dropped weights of .*, but its trained model has values there",
    ),
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_finder_that_hands_over_what_was_not_asked_for_is_caught(blocks, ticket_of, cheat):
    changes, said = CHEATS[cheat]

    def own(problem, dense, edge_keep, weight_keep):
        found = OneShot("random")(problem, dense, edge_keep, weight_keep)
        given = {name: change(getattr(found, name), blocks) for name, change in changes.items()}
        return dataclasses.replace(found, **given)

    with pytest.raises(TicketError, match=said):
        ticket_of(own)


BOASTS = {
    "outputs": (lambda f, d: {"result": dataclasses.replace(f.result, logits=d.logits)}, "differ from the stored ones"),
    "fewer outputs": (
        lambda f, d: {"result": dataclasses.replace(f.result, logits=f.result.logits[:1])},
        r"give outputs \[160, 4\], those stored are \[1, 4\]",
    ),
    "a figure": (lambda f, d: {"result": dataclasses.replace(f.result, test=1.0)}, "the finder claims 1.0"),
    "no figure": (lambda f, d: {"result": dataclasses.replace(f.result, val=math.nan)}, "the finder claims nan"),
    "a count": (lambda f, d: {"metrics": {"edges_kept": 0.01}}, "own metrics cannot be called 'edges_kept'"),
}


@pytest.mark.parametrize("boast", BOASTS)
def test_a_finder_that_reports_figures_of_others_is_caught(ticket_of, boast):
    changes, said = BOASTS[boast]

    def own(problem, dense, edge_keep, weight_keep):
        found = OneShot("random")(problem, dense, edge_keep, weight_keep)
        return dataclasses.replace(found, **changes(found, dense))

    with pytest.raises(TicketError, match=said):
        ticket_of(own)


def test_an_unknown_finder_is_told_the_closest(blocks, make_plain):
    with pytest.raises(ValueError, match=r"unknown finder 'wd-glp' \(did you mean 'wd-glt'\?\)"):
        gs.find_ticket(make_plain(blocks), blocks, method="wd-glp", edge_keep=0.5)


@pytest.mark.parametrize("method", SIZED)
def test_counts_are_exact_pairs_stay_whole_and_nothing_of_the_callers_changes(blocks, make_plain, method):
    model = make_plain(blocks)
    before, data = copy.deepcopy(model.state_dict()), copy.deepcopy(blocks)
    random_state = torch.get_rng_state()
    ticket = gs.find_ticket(model, blocks, method=method, edge_keep=0.83, weight_keep=0.61, **FAST)
    assert torch.equal(random_state, torch.get_rng_state())
    sparse, m = ticket.sparse_graph(blocks), pairs(blocks)
    weights = sum(p.numel() for p in model.parameters())
    assert pairs(sparse) == math.ceil(m * 83 / 100)
    assert sparse.is_undirected()
    assert [1, 1] in sparse.edge_index.t().tolist()  # the self-loop stays and does not count
    assert ticket.metrics["edges_kept"] == pairs(sparse) / m
    assert ticket.metrics["num_weights_kept"] == math.ceil(weights * 61 / 100)
    trained = ticket.apply_to(model)
    assert sum(int(p.count_nonzero()) for p in trained.parameters()) <= math.ceil(weights * 61 / 100)
    rewound = ticket.apply_to(make_plain(blocks, seed=9), rewind=True)
    for name, value in model.named_parameters():
        mask = ticket.weight_masks[name]
        assert torch.equal(rewound.get_parameter(name)[mask], value[mask])
        assert torch.equal(value, before[name])
    assert all(torch.equal(data[key], blocks[key]) for key in ("x", "edge_index", "y", "train_mask"))
    ticket.verify(blocks, model=model)


@pytest.mark.parametrize("method", SIZED)
def test_equal_runs_give_equal_tickets_and_seeds_differ(blocks, make_plain, method):
    def find(seed):
        options = {"edge_keep": 0.8, "weight_keep": 0.8, "seed": seed, **FAST}
        return gs.find_ticket(make_plain(blocks), blocks, method=method, **options)

    first, again, other = find(0), find(0), find(1)
    assert first.hash == again.hash != other.hash


def test_which_is_obeyed_and_keeping_all_is_the_identity(blocks, make_plain):
    for method in SIZED:
        options = {"edge_keep": 1, "weight_keep": 0.7, "which": "matrices", **FAST}
        ticket = gs.find_ticket(make_plain(blocks), blocks, method=method, **options)
        assert all(bool(mask.all()) for name, mask in ticket.weight_masks.items() if name.endswith("bias"))
        assert ticket.metrics["edges_kept"] == 1.0
        assert ticket.metrics["weights_kept_matrices"] == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize(
    ("method", "edges_kept", "weights_kept", "ignores"),
    [
        ("no-edges", 0, 0.5, "edge_keep"),
        ("all-edges", 1, 0.5, "edge_keep"),
        ("dense-student", 1, 1, "edge_keep, weight_keep"),
    ],
)
def test_controls_say_what_they_ignore_and_what_they_kept(
    blocks, make_plain, method, edges_kept, weights_kept, ignores
):
    ticket = gs.find_ticket(make_plain(blocks), blocks, method=method, edge_keep=0.3, weight_keep=0.5, **FAST)
    assert ticket.metrics["ignores"] == ignores
    assert ticket.metrics["edges_kept"] == edges_kept
    assert ticket.metrics["weights_kept"] == weights_kept
    assert [1, 1] in ticket.sparse_graph(blocks).edge_index.t().tolist()
    ticket.verify(blocks, model=make_plain(blocks))


def test_without_edges_neighbours_have_no_say(blocks, make_plain):
    ticket = gs.find_ticket(make_plain(blocks), blocks, method="no-edges", weight_keep=1, **FAST)
    model, x = ticket.apply_to(make_plain(blocks)).eval(), blocks.x.clone()
    x[2:] += 100.0
    edges = ticket.sparse_graph(blocks).edge_index
    with torch.no_grad():
        assert torch.equal(model(blocks.x, edges)[:2], model(x, edges)[:2])


def test_controls_learn_from_the_teacher(blocks, make_plain):
    for method in CONTROLS:
        taught, alone = (
            gs.find_ticket(make_plain(blocks), blocks, method=method, weight_keep=0.5, distill=weight, **FAST)
            for weight in (5.0, 0.0)
        )
        assert not torch.equal(taught.logits, alone.logits)


def test_magnitude_keeps_the_largest_weights_of_the_dense_model_and_only_them(blocks, make_plain):
    problem = problem_of(blocks, make_plain(blocks))
    dense = train_dense(problem)
    found = Magnitude("teddy")(problem, dense, *level_keeps(12))
    sizes = torch.cat([dense.state[name].abs().reshape(-1) for name in found.weight_masks])
    masks = torch.cat([mask.reshape(-1) for mask in found.weight_masks.values()])
    assert sizes[masks].min() >= sizes[~masks].max()
    assert torch.equal(found.edge_mask, problem.edge_mask("teddy", level_keeps(12)[0]))
    for name, mask in found.weight_masks.items():
        assert not found.result.state[name][~mask].any()
    assert found.metrics == {"edges_by": "teddy"}


def test_random_weights_are_drawn_evenly(blocks, make_plain):
    problem = problem_of(blocks, make_plain(blocks))
    found = RandomWeights()(problem, train_dense(problem), *level_keeps(7))
    share = float(level_keeps(7)[1])
    for mask in found.weight_masks.values():
        assert abs(float(mask.float().mean()) - share) < 4 * math.sqrt(share * (1 - share) / mask.numel())


def test_random_weights_are_not_those_that_the_same_seed_made_large(blocks):
    torch.manual_seed(3)
    net = gs.nn.GCN(4, 64, 4)
    for value in net.parameters():  # as one who draws initial weights from the same seed does
        value.data = torch.rand(value.shape, generator=torch.Generator().manual_seed(3))
    problem = problem_of(blocks, net, epochs=1, seed=3)
    found = RandomWeights()(problem, train_dense(problem), *level_keeps(20))
    for name, mask in found.weight_masks.items():
        if mask.sum() > 20:
            assert abs(float(net.get_parameter(name)[mask].detach().mean()) - 0.5) < 0.2


@pytest.mark.parametrize("method", [*SIZED, *CONTROLS])
def test_a_tolerance_can_be_asked_of_every_finder(blocks, make_plain, method):
    problem = problem_of(blocks, make_plain(blocks), epochs=2)
    ticket = sparsest_within(problem, train_dense(problem), method, tolerance=1.0)
    if method in SIZED:
        assert ticket.metrics["edges_kept"] == math.ceil(pairs(blocks) * 0.95**20) / pairs(blocks)


@pytest.mark.parametrize("method", ["ugs", "wd-glt", "imp", "random-weights"])
def test_dropped_edges_send_nothing_even_through_attention(blocks, method):
    net = gs.nn.make("gat", 4, 4, 16, seed=0)
    ticket = gs.find_ticket(net, blocks, method=method, edge_keep=0.55, weight_keep=0.9, epochs=2)
    sparse = ticket.sparse_graph(blocks)
    model = ticket.apply_to(net).eval()
    here = sparse.edge_index[:, sparse.edge_index[0] != sparse.edge_index[1]]
    node = int(torch.bincount(blocks.edge_index[1]).argmax())
    reach = torch.zeros(160, dtype=torch.bool)  # the node, its neighbours and theirs: two layers
    reach[node] = True
    for _ in range(2):
        reach[here[0][reach[here[1]]]] = True
    changed = blocks.x.clone()
    changed[~reach] += 100.0
    assert (~reach).any()
    with torch.no_grad():
        same = model(blocks.x, sparse.edge_index)[node], model(changed, sparse.edge_index)[node]
    assert torch.equal(*same)


@pytest.mark.parametrize("backbone", ["gcn", "gin", "gat", "sage", "transformer"])
def test_learned_masks_work_with_every_backbone(blocks, backbone):
    net = gs.nn.make(backbone, 4, 4, 16, seed=0)
    ticket = gs.find_ticket(net, blocks, method="wd-glt", edge_keep=0.9, weight_keep=0.8, **FAST)
    assert ticket.verify(blocks, model=gs.nn.make(backbone, 4, 4, 16, seed=5))["max_output_error"] < 1e-4


def test_bad_settings_get_one_clear_sentence(blocks, make_plain):
    with pytest.raises(ValueError, match=r"edge_step must lie in \(0, 1\), got 1"):
        UGS(edge_step=1)
    with pytest.raises(ValueError, match=r"weight_step must lie in \(0, 1\)"):
        IMP(weight_step=0.0)
    with pytest.raises(ValueError, match="rewind must be an epoch"):
        IMP(rewind=-1)
    for finder, options, said in [
        (UGS, {"edge_penalty": -1}, "edge_penalty is the weight of a penalty, at least 0"),
        (UGS, {"weight_penalty": math.nan}, "weight_penalty is the weight of a penalty"),
        (WDGLT, {"distance": math.inf}, "distance is the weight of a term"),
        (WDGLT, {"attack": -0.1}, "attack is the length of a step"),
        (WDGLT, {"points": 0}, "points must be at least 1"),
        (WDGLT, {"points": 1.5}, "points must be a whole number"),
        (IMP, {"rewind": 1.5}, "rewind must be a whole number"),
    ]:
        with pytest.raises(ValueError, match=said):
            finder(**options)
    problem = problem_of(blocks, make_plain(blocks))
    with pytest.raises(ValueError, match="beyond the training of 4 epochs"):
        IMP(rewind=5)(problem, train_dense(problem), *level_keeps(1))


@pytest.mark.parametrize("method", ["ugs", "wd-glt", "mixture", "denoise"])
def test_a_model_that_no_edge_mask_reaches_is_refused_before_it_is_trained(blocks, method, monkeypatch):
    monkeypatch.setattr("graphsparse.tickets.find.train_dense", lambda problem: pytest.fail("it was trained"))

    class Deaf(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = torch.nn.Linear(4, 4)

        def forward(self, x, edge_index):
            return self.lin(x.index_add(0, edge_index[1], x[edge_index[0]]))

    with pytest.raises(ValueError, match="no edge mask reaches the outputs of Deaf"):
        gs.find_ticket(Deaf(), blocks, method=method, edge_keep=0.5, **FAST)


@pytest.mark.parametrize("method", ["reliance", "no-edges"])
def test_a_model_that_cannot_run_without_edges_is_told_before_training(blocks, method, monkeypatch):
    class Steep(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GCNConv(4, 4)

        def forward(self, x, edge_index):
            between = int((edge_index[0] != edge_index[1]).sum())
            return self.conv(x, edge_index) * math.log(between)

    monkeypatch.setattr("graphsparse.tickets.find.train_dense", lambda problem: pytest.fail("it was trained"))
    said = rf"Steep cannot be run without edges, as {method} needs it \(ValueError: math domain error\)"
    with pytest.raises(ValueError, match=said):
        gs.find_ticket(Steep(), blocks, method=method, edge_keep=0.5, **FAST)


def test_wd_glt_needs_classes_of_nodes(blocks, make_plain):
    task = NodeTask(blocks, loss=torch.nn.functional.multi_margin_loss)
    with pytest.raises(ValueError, match="needs a node classification task"):
        gs.find_ticket(make_plain(blocks), blocks, method="wd-glt", edge_keep=0.5, task=task, **FAST)


def test_the_command_runs_a_finder_by_name(tmp_path):
    from typer.testing import CliRunner

    from graphsparse.cli import app

    words = ["ticket", "--method", "ugs", "--edge-keep", "0.9", "--weight-keep", "0.9", "--epochs", "3"]
    done = CliRunner().invoke(app, [*words, "--hidden", "8", "--seeds", "1", "--points", "1", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert gs.Ticket.load(tmp_path).method == "ugs"


def test_cora_ugs_keeps_most_of_the_accuracy(need):
    need("Planetoid/Cora")
    data = gs.data.load("cora")
    net = gs.nn.make("gcn", data.num_features, data.num_classes, 32, seed=0)
    ticket = gs.find_ticket(net, data, method="ugs", edge_keep="0.9025", weight_keep="0.81", epochs=60, distill=0)
    assert pairs(ticket.sparse_graph(data)) == math.ceil(5278 * 9025 / 10000)
    assert ticket.metrics["test_accuracy"] > 0.74


@pytest.fixture
def links(blocks):
    """Links of the planted blocks: two of three send messages, the others are judged."""
    pairs_of = blocks.edge_index[:, blocks.edge_index[0] < blocks.edge_index[1]]
    pairs_of = pairs_of[:, torch.randperm(pairs_of.size(1), generator=torch.Generator().manual_seed(0))]
    known, judged = pairs_of[:, ::3], pairs_of[:, 1::3]
    other = torch.randint(0, 160, (2, 80), generator=torch.Generator().manual_seed(1))
    data = Data(x=blocks.x, edge_index=torch.cat([known, known.flip(0)], dim=1), train_pos_edge_index=known)
    data.val_pos_edge_index, data.test_pos_edge_index = judged[:, :40], judged[:, 40:]
    data.val_neg_edge_index, data.test_neg_edge_index = other[:, :40], other[:, 40:]
    data.metric = "hits@20"
    return data


@pytest.mark.parametrize("method", ["ugs", "imp", "magnitude", "no-edges", "dense-student"])
def test_finders_work_for_links_too(links, method):
    net = gs.nn.GCN(4, 16, 8)
    options = {"edge_keep": 0.8, "weight_keep": 0.8, "task": "link", **FAST}
    ticket = gs.find_ticket(net, links, method=method, **options)
    expected = {"no-edges": 0, "dense-student": 1}.get(method, math.ceil(pairs(links) * 0.8) / pairs(links))
    assert ticket.metrics["edges_kept"] == expected
    ticket.verify(links, model=net)


def test_learned_masks_say_which_tasks_they_cannot_do(links):
    from graphsparse.fit import GraphTask

    with pytest.raises(ValueError, match="needs a node classification task, not LinkTask"):
        gs.find_ticket(gs.nn.GCN(4, 8, 8), links, method="wd-glt", edge_keep=0.9, task="link", **FAST)
    ring = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    many = Data(x=torch.eye(3).repeat(9, 1), edge_index=torch.cat([ring + 3 * i for i in range(9)], dim=1))
    many.batch, many.y = torch.arange(9).repeat_interleave(3), (torch.arange(9) % 2).float()[:, None]
    for start, part in enumerate(("train_mask", "val_mask", "test_mask")):
        many[part] = torch.arange(9) // 3 == start

    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = gs.nn.GCN(3, 4, 1)

        def forward(self, x, edge_index, edge_attr, batch):
            return torch.zeros(int(batch.max()) + 1, 1).index_add(0, batch, self.net(x, edge_index))

    problem = Problem(Pooled(), many, GraphTask(many, metric="rocauc"), Training(epochs=2))
    with pytest.raises(ValueError, match="need a task on one graph"):
        UGS()(problem, train_dense(problem), *level_keeps(1))


@pytest.mark.parametrize("backbone", ["gcn", "gin", "sage"])
def test_learned_masks_meet_sparse_features(blocks, backbone):
    """Sparse features go through another product; a mask must not be lost on the way."""
    data = copy.copy(blocks)
    data.x = torch.zeros(160, 80).scatter_(1, torch.arange(160)[:, None] % 80, 1.0)
    net = gs.nn.make(backbone, 80, 4, 16, seed=0)
    ticket = gs.find_ticket(net, data, method="ugs", edge_keep=0.9, weight_keep=0.9, **FAST)
    assert ticket.metrics["edges_kept"] == math.ceil(pairs(data) * 0.9) / pairs(data)
    ticket.verify(data, model=net)
