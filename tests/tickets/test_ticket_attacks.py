"""A ticket is a stranger's file: whatever is in it, only a TicketError comes out, with the file's name, and at once."""

import copy
import dataclasses
import hashlib
import json
import os
import resource
import shutil
import struct
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

import graphsparse as gs
from graphsparse.errors import TicketError
from graphsparse.tickets.ticket_files import checksum


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A ticket of a tiny task: its folder, the graph, a model."""
    x = torch.eye(12)
    ring = torch.arange(12)
    arcs = torch.stack([ring, (ring + 1) % 12])
    data = gs.data.load("digits-knn").__class__(x=x, edge_index=torch.cat([arcs, arcs.flip(0)], dim=1), y=ring % 2)
    for start, part in enumerate(("train_mask", "val_mask", "test_mask")):
        data[part] = ring // 4 == start
    net = gs.nn.make("gcn", 12, 2, 4, seed=0)
    folder = tmp_path_factory.mktemp("ticket")
    gs.find_ticket(net, data, method="random", edge_keep=0.5, weight_keep=0.5, epochs=2).save(folder)
    return folder, data, net


def parts(folder):
    about = json.loads((folder / "ticket.json").read_text())
    return about, (folder / about["tensors"]["file"]).read_bytes()


def write(folder, about, blob):
    """A forger's ticket: every checksum and the hash of the tensors are right."""
    about = copy.deepcopy(about)
    if isinstance(about.get("tensors"), dict):
        about["tensors"]["sha256"] = hashlib.sha256(blob).hexdigest()
    about["sha256"] = checksum(about)
    (folder / "ticket.json").write_text(json.dumps(about))
    (folder / "tensors-forged.safetensors").write_bytes(blob)


def refused(folder, data, net=None):
    """Whether load or verify refuse it, at once; any other error goes through."""
    start = time.process_time()
    try:
        gs.Ticket.load(folder).verify(data, model=net)
        found = False
    except TicketError:
        found = True
    assert time.process_time() - start < 5
    return found


NASTY = [
    None, True, False, -1, 0, 3, 2_000_000_000, 10**18, 0.5, -1.5, "", "x", "1e-9999999", "0.5", "1/0", "\ud800",
    "../x", "\x00", [], [1], [[]], {}, {"a": 1}, [0, 10**18], [2**62, 2**62], "node", "graph", "link", "rmse",
]  # fmt: skip


def paths(value, at=()):
    yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, (*at, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from paths(item, (*at, number))


def changed(about, path, value):
    about = copy.deepcopy(about)
    if not path:
        return value
    here = about
    for step in path[:-1]:
        here = here[step]
    if value is ...:
        del here[path[-1]]
    else:
        here[path[-1]] = value
    return about


def same_numbers(one, other):
    return one is not None and one.shape == other.shape and torch.equal(one.double(), other.double())


FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
    database=None,
)


@FUZZ
@given(choice=st.data())
def test_any_value_of_the_json_may_be_exchanged(made, tmp_path, choice):
    folder, data, _ = made
    about, blob = parts(folder)
    about["tensors"]["file"] = "tensors-forged.safetensors"
    path = choice.draw(st.sampled_from([path for path in paths(about) if path and path[0] != "sha256"]))
    forged = changed(about, path, choice.draw(st.sampled_from([..., *NASTY])))
    write(tmp_path, forged, blob)
    refused(tmp_path, data)


@FUZZ
@given(choice=st.data())
def test_any_byte_may_be_another(made, tmp_path, choice):
    folder, data, _ = made
    target = tmp_path / "t"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    file = choice.draw(st.sampled_from(sorted(target.iterdir())))
    content = bytearray(file.read_bytes())
    if choice.draw(st.booleans()):
        content = content[: choice.draw(st.integers(0, len(content) - 1))]
    else:
        position = choice.draw(st.integers(0, len(content) - 1))
        content[position : position + 1] = choice.draw(st.binary(min_size=0, max_size=8))
    same = bytes(content) == file.read_bytes()
    file.write_bytes(content)
    assert refused(target, data) or same or file.suffix == ".json"


@FUZZ
@given(choice=st.data())
def test_any_byte_of_signed_tensors_may_be_another(made, tmp_path, choice):
    """The header most of all: lengths, offsets, types and shapes that lie."""
    folder, data, net = made
    about, blob = parts(folder)
    about["tensors"]["file"] = "tensors-forged.safetensors"
    content = bytearray(blob)
    header = struct.unpack("<Q", blob[:8])[0]
    position = choice.draw(st.integers(0, min(header + 7, len(content) - 1)))
    content[position] = choice.draw(st.sampled_from([*b'0123456789"{}[],:BFIU\x00\xff']))
    write(tmp_path, about, bytes(content))
    refused(tmp_path, data, net)


@FUZZ
@given(choice=st.data())
def test_any_tensor_may_be_of_another_shape_or_type(made, tmp_path, choice):
    folder, data, net = made
    about, blob = parts(folder)
    about["tensors"]["file"] = "tensors-forged.safetensors"
    tensors = load(blob)
    name = choice.draw(st.sampled_from(sorted(tensors)))
    value = tensors.pop(name)
    how = choice.draw(st.sampled_from(["gone", "short", "empty", "flat", "double", "int", "nan", "renamed", "more"]))
    new = {
        "short": value.reshape(-1)[:-1].clone,
        "empty": lambda: value.new_zeros(0),
        "flat": value[None].clone,
        "double": value.double,
        "int": lambda: torch.zeros_like(value, dtype=torch.int64),
        "nan": lambda: torch.full_like(value.float(), float("nan")),
        "more": lambda: torch.cat([value.reshape(-1), value.reshape(-1)]),
    }.get(how)
    if how == "renamed":
        tensors["x" + name] = value
    elif new is not None:
        tensors[name] = new()
    blob = save(tensors)
    write(tmp_path, about, blob)
    try:  # the best forger also gives the contents' own hash
        ticket = gs.Ticket.load(tmp_path)
    except TicketError as error:
        if "hashes to " in str(error):
            about["hash"] = str(error).split("hashes to ")[1].split(",")[0]
            write(tmp_path, about, blob)
    else:
        assert ticket.hash == about["hash"]
    assert refused(tmp_path, data, net) or same_numbers(tensors.get(name), value)


def test_a_size_that_no_bytes_fill_costs_neither_time_nor_memory(made, tmp_path):
    about, blob = parts(made[0])
    about["tensors"]["file"] = "tensors-forged.safetensors"
    name = next(iter(about["shapes"]))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for path, value, said in [
        (("num_edges",), 2_000_000_000, "edge_mask must hold 2000000000 bits in 250000000 bytes"),
        (("num_edges",), 23.0, "num_edges must hold whole numbers"),
        (("shapes", name), [10**9, 10**9], f"mask/{name} must hold"),
        (("shapes", name), [-1], f"the shape of '{name}' must hold whole numbers"),
        (("config", "edge_keep"), "1e-99999999", "keep must"),
        (("config", "edge_keep"), 0.5, "edge_keep must be a string"),
        (("config", "split"), "0", "split must hold whole numbers"),
        (("config", "kind"), ["node"], "there are tickets for node, link, graph"),
        (("metrics",), [], "'metrics' must be an object"),
        (("hash",), 3, "'hash' must be a string"),
        (("format",), 10**18, "has ticket format 1000000000000000000"),
    ]:
        write(tmp_path, changed(about, path, value), blob)
        with pytest.raises(TicketError, match=said) as caught:
            gs.Ticket.load(tmp_path)
        assert str(tmp_path) in str(caught.value)
    assert time.process_time() - start < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_tensors_that_are_no_file_of_the_folder_are_not_opened(made, tmp_path):
    folder, _, _ = made
    about, blob = parts(folder)
    about["tensors"]["file"] = "tensors-forged.safetensors"
    write(tmp_path, about, blob)
    file = tmp_path / "tensors-forged.safetensors"
    outside = tmp_path.parent / f"{tmp_path.name}.outside"
    outside.write_bytes(blob)
    for make, said in [
        (lambda: file.symlink_to("/dev/zero"), "leaves its folder"),
        (lambda: file.symlink_to(outside), "leaves its folder"),
        (lambda: os.mkfifo(file), "no regular file"),
        (file.mkdir, "no regular file"),
    ]:
        file.unlink()
        make()
        with pytest.raises(TicketError, match=said):
            gs.Ticket.load(tmp_path)
        if file.is_dir():
            file.rmdir()
            file.touch()
    about_file = tmp_path / "ticket.json"
    about_file.unlink()
    os.mkfifo(about_file)
    with pytest.raises(TicketError, match="no regular file"):
        gs.Ticket.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        ('{"format": 2, "format": 2}', "the key 'format' stands twice"),
        ('{"format": NaN}', "NaN is no JSON number"),
        ('{"format": 1e999}', "too large"),
        ('{"format": ' + "9" * 5000 + "}", "too long"),
        ("{}", "'format' is missing"),
        ('{"format": 2}', "'hash' is missing"),
        ('{"format": [2]}', "has ticket format"),
        ("[]", "holds no JSON object"),
        ("", "not a readable ticket"),
    ],
)
def test_json_that_plays_tricks(tmp_path, text, said):
    (tmp_path / "ticket.json").write_text(text)
    with pytest.raises(TicketError, match=said):
        gs.Ticket.load(tmp_path)


def test_what_the_config_claims_is_held_against_what_is_kept(made, tmp_path):
    folder, data, _ = made
    about, blob = parts(folder)
    about["tensors"]["file"] = "tensors-forged.safetensors"
    for name, value, said in [
        ("edge_keep", "1/100", "the ticket kept 6 edges, but 1 were asked for"),
        ("weight_keep", "1/100", "weights, but 1 were asked for"),
    ]:
        forged = changed(about, ("config", name), value)
        write(tmp_path, forged, blob)
        with pytest.raises(TicketError) as caught:
            gs.Ticket.load(tmp_path)
        forged["hash"] = str(caught.value).split("hashes to ")[1].split(",")[0]
        write(tmp_path, forged, blob)
        with pytest.raises(TicketError, match=said):
            gs.Ticket.load(tmp_path).verify(data)
        write(tmp_path, changed(forged, ("metrics", "ignores"), name), blob)
        with pytest.raises(TicketError, match=f"ignores '{name}', which is not what random may"):
            gs.Ticket.load(tmp_path).verify(data)


def test_what_is_verified_must_be_a_graph_and_a_model(made):
    folder, data, _ = made
    ticket = gs.Ticket.load(folder)
    with pytest.raises(TypeError, match="data must be a PyG Data, got dict"):
        ticket.verify({})
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        ticket.verify(data, model="gcn")


def test_figures_that_json_cannot_say_are_told_at_saving(made, tmp_path):
    ticket = gs.Ticket.load(made[0])
    odd = dataclasses.replace(ticket, config={**ticket.config, "power": torch.ones(1)})
    with pytest.raises(TicketError, match="cannot be written as JSON"):
        odd.save(tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("tensors", "file"), 3, "the file of its tensors must be a string"),
        (("config", "units"), {"first": [1]}, "units must hold two numbers for each layer, those kept and all"),
        (("config", "units"), {"first": [-1, 8]}, "units must hold whole numbers, at least 0, got -1"),
        (("config", "kind"), "edge", "there are tickets for node, link, graph, not for 'edge'"),
    ],
)
def test_what_the_json_says_of_units_files_and_kinds_is_checked(made, tmp_path, path, value, said):
    about, blob = parts(made[0])
    write(tmp_path, changed(about, path, value), blob)
    with pytest.raises(TicketError, match=said):
        gs.Ticket.load(tmp_path)


@pytest.mark.parametrize("name", ["first", "x/first", "1,0/first", "0,0/first", "0/first"])
def test_what_is_cut_is_named_by_ascending_axes(made, tmp_path, name):
    """The last one is named rightly, and holds no bools."""
    about, blob = parts(made[0])
    tensors = {**load(blob), f"cut/{name}": torch.ones(1, dtype=torch.uint8)}
    about["format"], about["tensors"]["file"] = 3, "tensors-forged.safetensors"
    write(tmp_path, about, save(tensors))
    with pytest.raises(TicketError, match="must be a bool along ascending axes, named as in 'cut/0,1/name'"):
        gs.Ticket.load(tmp_path)
