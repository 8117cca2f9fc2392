"""The zoo: what is trained once stays, comes back bit for bit, and is refused when it is damaged or of another kind."""

import json
import os
import shutil

import pytest
import torch
from metanet_networks import same_bits
from torch import nn

from graphsparse.errors import DataError
from graphsparse.fit import Task
from graphsparse.metanet import (
    FineTune,
    Images,
    Recipe,
    ShrinkError,
    load_zoo,
    prune,
    restore,
    save_pruned,
    train_zoo,
)
from graphsparse.metanet.learn import zoo as zoo_files
from graphsparse.metanet.learn.zoo import HEADER, WEIGHTS, load_network, read_header
from graphsparse.nn.cnn import make_cnn

IMAGES = Images(train=200)
RECIPES = [Recipe("resnet8", 4, 0, 1), Recipe("vgg8", 2, 1, 1), Recipe("resnet8", 4, 2, 1, speedup=1.5)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    return folder, train_zoo(folder, RECIPES, IMAGES)


@pytest.fixture
def copied(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "zoo")
    return tmp_path / "zoo"


def states(networks):
    return [each.module.state_dict() for each in networks]


def test_each_recipe_becomes_a_folder_of_plain_files(made):
    folder, zoo = made
    assert sorted(path.name for path in folder.iterdir()) == sorted(recipe.name for recipe in RECIPES)
    assert [each.recipe for each in zoo] == RECIPES
    for each in zoo:
        assert sorted(path.name for path in (folder / each.recipe.name).iterdir()) == [HEADER, WEIGHTS]
        assert each.images == IMAGES
        assert not each.module.training
        assert 0 < each.figures["val"] <= 1
        for name in (HEADER, WEIGHTS):  # no pickle: it starts with a protocol mark, or is a zip of such
            content = (folder / each.recipe.name / name).read_bytes()
            assert not content.startswith((b"\x80", b"PK"))
            assert b"torch.nn" not in content
            assert b"_rebuild_tensor" not in content


def test_mild_pruning_is_restored_with_its_widths(made):
    _, zoo = made
    pruned, whole = zoo[2], zoo[0]
    assert pruned.figures["speedup"] >= 1.5
    count = [sum(p.numel() for p in each.module.parameters()) for each in (pruned, whole)]
    assert count[0] < count[1]
    assert IMAGES.task().score(pruned.module, "val") == pytest.approx(pruned.figures["val"])


def test_figures_are_those_of_the_network_that_comes_back(made):
    _, zoo = made
    task = IMAGES.task()
    for each in zoo:
        assert task.score(each.module, "val") == pytest.approx(each.figures["val"])
        assert task.score(each.module, "test") == pytest.approx(each.figures["test"])


def test_only_what_is_missing_is_trained(copied, made):
    weights = [copied / recipe.name / WEIGHTS for recipe in RECIPES]
    (copied / RECIPES[1].name / HEADER).unlink()  # killed between the two files
    before = [path.stat().st_mtime_ns for path in weights]
    said = []
    again = train_zoo(copied, RECIPES, IMAGES, report=lambda done, total, text: said.append((done, total)))
    assert said == [(2, 3), (3, 3)]
    assert [path.stat().st_mtime_ns == old for path, old in zip(weights, before, strict=True)] == [True, False, True]
    assert all(same_bits(a, b) for a, b in zip(states(again), states(made[1]), strict=True))
    more = train_zoo(copied, [*RECIPES, RECIPES[0]], IMAGES)
    assert more[3].recipe == RECIPES[0]


@pytest.mark.usefixtures("warm_workers")
def test_two_processes_train_the_same_bits(tmp_path, made):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = train_zoo(tmp_path / "alone", RECIPES[:2], IMAGES)
    finally:
        torch.set_num_threads(threads)
    together = train_zoo(tmp_path / "together", RECIPES[:2], IMAGES, jobs=2)
    assert all(same_bits(a, b) for a, b in zip(states(alone), states(together), strict=True))
    assert [each.figures for each in alone] == [each.figures for each in together]


def test_the_seed_decides_and_the_global_generator_does_not(tmp_path, made):
    torch.manual_seed(123)
    again = train_zoo(tmp_path, [RECIPES[0], Recipe("resnet8", 4, 7, 1)], IMAGES)
    assert same_bits(again[0].module.state_dict(), made[1][0].module.state_dict())
    assert not same_bits(again[1].module.state_dict(), again[0].module.state_dict())


def test_a_zoo_is_loaded_by_name(made):
    folder, zoo = made
    loaded = load_zoo(folder)
    assert [each.recipe.name for each in loaded] == sorted(recipe.name for recipe in RECIPES)
    ours = {each.recipe: each for each in zoo}
    for each in loaded:
        assert same_bits(each.module.state_dict(), ours[each.recipe].module.state_dict())


def test_an_empty_folder_says_how_to_fill_it(tmp_path):
    with pytest.raises(DataError, match="graphsparse meta zoo"):
        load_zoo(tmp_path)


def test_other_images_are_refused_before_anything_is_trained(copied):
    more = [*RECIPES, Recipe("resnet8", 4, 9, 1)]
    with pytest.raises(DataError, match=r"trained on .*train=200.*, not on .*train=300"):
        train_zoo(copied, more, Images(train=300))
    with pytest.raises(DataError, match="not on"):
        load_network(copied / RECIPES[0].name, Images(train=200, seed=1))
    assert not (copied / more[-1].name).exists()


def test_another_recipe_of_the_same_name_is_refused(copied, tmp_path):
    other = Recipe("resnet8", 4, 0, 1, lr=0.01)
    assert other.name == RECIPES[0].name
    with pytest.raises(DataError, match=r"lr=0\.1.*not by .*lr=0\.01"):
        train_zoo(copied, [other], IMAGES)
    with pytest.raises(ValueError, match="two recipes"):
        train_zoo(tmp_path / "new", [RECIPES[0], other], IMAGES)


@pytest.mark.parametrize("what", ["cut", "flipped", "empty", "missing", "exchanged"])
def test_damaged_weights_are_refused(copied, what):
    path = copied / RECIPES[0].name / WEIGHTS
    content = path.read_bytes()
    if what == "missing":
        path.unlink()
    elif what == "exchanged":
        shutil.copy(copied / RECIPES[1].name / WEIGHTS, path)
    else:
        flipped = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
        path.write_bytes({"cut": content[:-9], "flipped": flipped, "empty": b""}[what])
    with pytest.raises(DataError, match=RECIPES[0].name):
        load_network(copied / RECIPES[0].name)
    with pytest.raises(DataError, match=RECIPES[0].name):
        train_zoo(copied, RECIPES, IMAGES)


@pytest.mark.parametrize(
    "change",
    [
        "",
        "{",
        "[]",
        {"format": "other"},
        {"recipe": None},
        {"recipe": {"arch": "resnet8", "colour": 1}},
        {"recipe": {"arch": "resnet9"}},
        {"recipe": {"epochs": 0}},
        {"inputs": []},
        {"inputs": [{"shape": [1, -1, 8, 8], "dtype": "float32"}]},
        {"inputs": [{"shape": [1, 1, 8, 8], "dtype": "load"}]},
        {"outputs": "ten"},
        {"outputs": 11},
        {"kept": {"conv": "all"}},
        {"kept": 3},
        {"figures": {}},
        {"sha256": "0"},
    ],
    ids=str,
)
def test_a_damaged_header_is_refused(copied, change):
    path = copied / RECIPES[0].name / HEADER
    text = change if isinstance(change, str) else json.dumps({**json.loads(path.read_text()), **change})
    path.write_text(text)
    with pytest.raises(DataError, match=RECIPES[0].name):
        load_network(path.parent)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"lr": 0.0}, {"lr": float("nan")}, {"speedup": 0.5}])
def test_bad_recipes_are_refused(options):
    with pytest.raises(ValueError, match=r"data model|mild pruning"):
        Recipe(**options)


@pytest.mark.parametrize(("recipe", "message"), [(Recipe("resnet9"), "6 n"), (Recipe("lenet5"), "no network named")])
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_unknown_architecture_is_refused_before_anything_is_trained(tmp_path, recipe, message, jobs):
    with pytest.raises(ValueError, match=message):
        train_zoo(tmp_path, [RECIPES[0], recipe], IMAGES, jobs=jobs)
    assert not list(tmp_path.iterdir())


class Custom(nn.Module):
    """A network of one's own."""

    def __init__(self, width=12, classes=2):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, classes)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.first(x))))


def test_a_pruned_network_of_any_class_is_restored_on_that_class(tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(64, 4), torch.arange(64) % 2
    task = Task((x, y), (x, y), (x, y))
    result = prune(Custom(), None, task, speedup=2, fine_tune=FineTune(epochs=1))
    save_pruned(tmp_path / "deep" / "net", result, {"asked": 1})
    again = restore(tmp_path / "deep" / "net", Custom())
    assert same_bits(again.state_dict(), result.module.state_dict())
    torch.testing.assert_close(again.eval()(x), result.module(x), rtol=0, atol=0)
    header = read_header(tmp_path / "deep" / "net")
    assert header["figures"] == result.figures()
    assert header["asked"] == 1
    with pytest.raises(ShrinkError):
        restore(tmp_path / "deep" / "net", Custom(4))
    with pytest.raises(DataError, match="do not fit"):
        restore(tmp_path / "deep" / "net", Custom(classes=3))
    with pytest.raises(DataError, match="not a network of a zoo"):
        load_network(tmp_path / "deep" / "net")


def test_restoring_changes_no_other_network(made):
    folder, zoo = made
    fresh = make_cnn("resnet8", width=4, in_channels=1, num_classes=10, seed=2)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    load_network(folder / RECIPES[2].name)
    assert same_bits(fresh.state_dict(), before)
    assert same_bits(restore(folder / RECIPES[2].name, fresh).state_dict(), zoo[2].module.state_dict())


def forged(folder, **changes):
    """A header that somebody changed and signed again."""
    path = folder / HEADER
    header = {**json.loads(path.read_text()), **changes}
    header["checksum"] = zoo_files._checksum(header)
    path.write_text(json.dumps(header))


BIG = {"shape": [1, 1, 8, 8], "dtype": "float32"}


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {"arch": "resnet8", "width": 3000}},
        {"recipe": {"arch": "resnet8", "width": 3000, "speedup": 2.0}},
        {"recipe": {"arch": "resnet8", "width": 10**12}},
        {"recipe": {"arch": "resnet8", "width": -4}},
        {"recipe": {"arch": "resnet8", "width": 4.0}},
        {"recipe": {"arch": "resnet8", "width": "4"}},
        {"recipe": {"arch": "resnet8", "width": True}},
        {"recipe": {"arch": "resnet600000002", "width": 4}},
        {"recipe": {"arch": ["resnet8"], "width": 4}},
        {"recipe": {"arch": "resnet8", "width": 4, "epochs": 1, "seed": [0]}},
        {"recipe": []},
        {"images": {"name": "digits", "train": "all"}},
        {"images": [1, 2]},
        {"figures": {"val": 0.5}},
        {"figures": {"val": [0.5], "test": 0.5}},
        {"outputs": 10**9},
        {"outputs": None},
        {"inputs": [{**BIG, "shape": [1, 10**9, 8, 8]}]},
        {"inputs": {}},
        {"kept": {"conv": [0.5]}, "inputs": [BIG]},
        {"kept": {"conv": [0, 0]}, "inputs": [BIG]},
        {"kept": {"nowhere": [0]}, "inputs": [BIG]},
        {"kept": {"conv": [0]}, "inputs": [{**BIG, "shape": [1, 1, 10**5, 10**5]}]},
        {"kept": {"conv": [0]}, "inputs": [{**BIG, "shape": [1, 1, True, 8]}]},
        {"kept": {"conv": [0]}, "inputs": [{**BIG, "dtype": "nn"}]},
        {"kept": {"conv": [0]}, "inputs": [3]},
    ],
    ids=str,
)
def test_a_forged_header_is_refused_before_anything_of_its_size_is_made(copied, changes, monkeypatch):
    made = []
    real = zoo_files.make_cnn

    def watched(*args, **options):
        net = real(*args, **options)
        made.append(sum(p.numel() for p in net.parameters() if p.device.type != "meta"))
        return net

    monkeypatch.setattr(zoo_files, "make_cnn", watched)
    folder = copied / RECIPES[0].name
    forged(folder, **changes)
    with pytest.raises(DataError, match=RECIPES[0].name):
        load_network(folder)
    assert max(made, default=0) < 100_000


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"format": 1e999}', '{"n": 1' + "0" * 5000 + "}"])
def test_a_header_of_deep_or_huge_json_is_refused(copied, text):
    (copied / RECIPES[0].name / HEADER).write_text(text)
    with pytest.raises(DataError, match=RECIPES[0].name):
        load_zoo(copied)


def test_the_header_is_guarded_by_a_checksum(copied):
    folder = copied / RECIPES[0].name
    path = folder / HEADER
    path.write_text(path.read_text().replace('"epochs": 1', '"epochs": 2'))
    with pytest.raises(DataError, match="its checksum differs"):
        read_header(folder)


def test_a_network_of_the_format_before_is_still_read(copied):
    path = copied / RECIPES[0].name / HEADER
    header = json.loads(path.read_text())
    del header["checksum"]
    path.write_text(json.dumps({**header, "format": "graphsparse.metanet.network/1"}))
    assert load_network(path.parent).recipe == RECIPES[0]
    path.write_text(json.dumps(header))
    with pytest.raises(DataError, match="checksum"):
        load_network(path.parent)


@pytest.mark.parametrize("name", [HEADER, WEIGHTS])
@pytest.mark.parametrize("to", ["device", "pipe", "outside", "folder"])
def test_links_and_devices_are_not_followed(copied, tmp_path, name, to):
    path = copied / RECIPES[0].name / name
    shutil.copy(path, tmp_path / "elsewhere")
    path.unlink()
    if to == "pipe":
        os.mkfifo(path)
    elif to == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if to == "device" else tmp_path / "elsewhere")
    with pytest.raises(DataError, match=RECIPES[0].name):
        load_network(path.parent)
