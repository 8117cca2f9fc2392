"""The allow-list unpickler: it reads what data sets hold, and runs nothing."""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphsparse.data.pickle_reader import SparseParts
from graphsparse.data.unpickle import load_pickle, load_torch, to_csr
from graphsparse.errors import DataError


class _Runs:
    """Pickles to a call of any function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def _dump(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_arrays_containers_and_matrices_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    matrix = scipy.sparse.random(5, 7, density=0.4, format="csr", random_state=0, dtype=np.float32)
    graph = collections.defaultdict(list, {0: [1, 2], 1: [0]})
    content = {"a": np.arange(6).reshape(2, 3), "g": graph, "m": matrix, "s": np.float32(2.5), "t": ("é", b"\xff")}
    back = load_pickle(_dump(tmp_path / "p", content, protocol))
    assert np.array_equal(back["a"], content["a"])
    assert back["g"] == graph
    assert back["s"] == np.float32(2.5)
    assert back["t"] == ("é", b"\xff")
    assert (to_csr(back["m"], "p") != matrix).nnz == 0


def test_reads_python_2_text_as_latin1(tmp_path: Path) -> None:
    # What Python 2 writes for the one-byte string "\xe9": SHORT_BINSTRING.
    path = tmp_path / "py2"
    path.write_bytes(b"\x80\x02U\x01\xe9.")
    assert load_pickle(path) == "é"


@pytest.mark.parametrize("reader", [load_pickle, load_torch])
@pytest.mark.parametrize(
    ("function", "args"),
    [(os.system, ("touch {marker}",)), (eval, ("open({marker!r}, 'w')",)), (open, ("{marker}", "w"))],
)
def test_a_malicious_pickle_is_refused_and_never_runs(tmp_path: Path, reader: Any, function: Any, args: Any) -> None:
    marker = tmp_path / "marker"
    filled = [arg.format(marker=str(marker)) for arg in args]
    path = _dump(tmp_path / "evil", _Runs(function, *filled))
    with pytest.raises(DataError, match="evil"):
        reader(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["eval", "exec", "getattr", "__import__", "open", "type", "object", "compile"])
def test_the_refused_global_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "evil"
    path.write_bytes(f"cbuiltins\n{name}\n.".encode())
    with pytest.raises(DataError, match=f"evil asks for builtins.{name}"):
        load_pickle(path)


def test_a_dotted_name_does_not_reach_through_an_allowed_module(tmp_path: Path) -> None:
    # Protocol 4 may name "a.b": whatever lies behind an allowed name must stay out of reach.
    path = tmp_path / "dotted"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.")
    with pytest.raises(DataError, match=r"numpy\.ndarray\.__class__"):
        load_pickle(path)


def test_a_malicious_torch_archive_is_refused_and_never_runs(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "evil.pt"
    torch.save({"x": torch.zeros(2), "evil": _Runs(os.mkdir, str(marker))}, path)
    with pytest.raises(DataError, match=r"evil\.pt asks for \w+\.mkdir"):
        load_torch(path)
    assert not marker.exists()


def test_building_state_into_a_shared_object_changes_nothing_outside(tmp_path: Path) -> None:
    # BUILD with slot state calls setattr on whatever a global gave: here on the class that stands for csr_matrix.
    path = tmp_path / "build"
    state = pickle.dumps((None, {"poison": 1}), protocol=2)[2:-1]
    path.write_bytes(b"\x80\x02cscipy.sparse._csr\ncsr_matrix\n" + state + b"b.")
    with pytest.raises(DataError, match="gives a state to what takes none"):
        load_pickle(path)
    assert not hasattr(SparseParts, "poison")
    assert not hasattr(scipy.sparse.csr_matrix, "poison")


def test_codecs_other_than_latin1_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "codec"
    path.write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.")
    with pytest.raises(DataError, match="rot13"):
        load_pickle(path)


@pytest.mark.parametrize("reader", [load_pickle, load_torch])
def test_missing_and_empty_files_are_named(tmp_path: Path, reader: Any) -> None:
    with pytest.raises(DataError, match="nowhere"):
        reader(tmp_path / "nowhere")
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match="empty"):
        reader(tmp_path / "empty")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_a_data_error(tmp_path: Path, cut: float) -> None:
    whole = pickle.dumps({"a": np.arange(50), "g": {1: [2, 3]}}, protocol=2)
    path = tmp_path / "cut"
    path.write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(DataError, match="cut"):
        load_pickle(path)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_no_bytes_raise_anything_but_data_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "noise"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        load_pickle(path)
    with contextlib.suppress(DataError):
        load_torch(path)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("indices", np.array([99, 0, 1], dtype=np.int32)),  # would be written out of bounds by toarray()
        ("indices", np.array([-1, 0, 1], dtype=np.int32)),
        ("indptr", np.array([0, 2, 99], dtype=np.int32)),
        ("indptr", np.array([0, 3, 1], dtype=np.int32)),
        ("data", np.array(["a", "b", "c"])),
        ("data", [1, 2, 3]),
        ("_shape", (5, 5)),
        ("_shape", "wide"),
    ],
)
def test_a_damaged_matrix_is_an_error_not_a_crash(tmp_path: Path, change: str, value: Any) -> None:
    matrix = scipy.sparse.csr_matrix(np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]]))
    matrix.__dict__[change] = value
    path = _dump(tmp_path / "m", matrix)
    with pytest.raises(DataError, match=r"/m holds a damaged CSR matrix"):
        to_csr(load_pickle(path), path)


def test_to_csr_refuses_other_things() -> None:
    with pytest.raises(DataError, match="holds a list"):
        to_csr([1, 2], "file")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float64]
)
def test_torch_archives_agree_with_torch_load(tmp_path: Path, dtype: torch.dtype, protocol: int) -> None:
    tensor = torch.arange(12).reshape(3, 4).to(dtype)
    content = {"whole": tensor, "part": tensor.t()[1:3], "none": tensor[:0], "n": {"list": [1, None]}}
    path = tmp_path / "t.pt"
    torch.save(content, path, pickle_protocol=protocol)
    back = load_torch(path)
    assert back["n"] == {"list": [1, None]}
    for key in ("whole", "part", "none"):
        assert back[key].dtype == dtype
        assert torch.equal(back[key], content[key])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_numpy_arrays_in_old_torch_files_are_read(tmp_path: Path) -> None:
    # torch before 1.6 with protocol 4: the format of OGB's split files, which torch.load refuses.
    path = tmp_path / "old.pt"
    torch.save({"edge": np.arange(4).reshape(2, 2)}, path, pickle_protocol=4, _use_new_zipfile_serialization=False)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    assert np.array_equal(load_torch(path)["edge"], [[0, 1], [2, 3]])


def test_old_torch_files_with_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save(torch.ones(2), path, _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match=r"old\.pt"):
        load_torch(path)


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path: Path) -> None:
    path, forged = tmp_path / "t.pt", tmp_path / "forged.pt"
    torch.save(torch.arange(77, dtype=torch.int64), path, pickle_protocol=2)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(forged, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data/0"):
                content = struct.pack("<q", 1)
            target.writestr(name, content)
    with pytest.raises(DataError, match="forged"):
        load_torch(forged)


def test_a_zip_without_a_pickle_and_a_script_archive_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "z.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(DataError, match=r"z\.pt"):
        load_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("z/data.pkl", b"c__torch__\nNet\n.")
        archive.writestr("z/constants.pkl", pickle.dumps(()))
    with pytest.raises(DataError, match=r"z\.pt asks for __torch__\.Net"):
        load_torch(path)


def _written(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"\x80\x04" + b"".join(parts) + b".")
    return path


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _bytes(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def _array(dtype: bytes, content: bytes, shape: bytes, order: bytes = b"\x89") -> bytes:
    """What NumPy writes for an array: _reconstruct(ndarray, (0,), b"b"), then its state."""
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    return made + b"(K\x01" + shape + dtype + order + content + b"tb"


def _dtype(text: str, state: bytes = b"") -> bytes:
    return b"cnumpy\ndtype\n" + _text(text) + b"\x89\x88\x87R" + state


LYING = {
    "objects over bytes": (_array(_dtype("O8"), _bytes(b"\x41" * 16), b"K\x02\x85"), "arrays of type 'O8'"),
    "objects in bytes": (_array(_dtype("|O"), _bytes(b"\x41" * 16), b"K\x02\x85"), "arrays of type"),
    "fields": (_array(_dtype("V8"), _bytes(b"\x41" * 16), b"K\x02\x85"), "arrays of type"),
    "fields by state": (
        _array(_dtype("f8", b"(K\x03C\x01<N" + _text("x") + b"NK\x00K\x00K\x00tb"), _bytes(b"\x41" * 8), b"K\x01\x85"),
        "type with fields",
    ),
    "a shape that is too large": (_array(_dtype("f8"), _bytes(b"\x41" * 16), b"J\xff\xff\xff\x7f\x85"), "do not fill"),
    "a negative shape": (_array(_dtype("f8"), _bytes(b""), b"J\xff\xff\xff\xff\x85"), "has the shape"),
    "an overflowing shape": (
        _array(_dtype("f8"), _bytes(b""), b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01" * 2 + b"\x86"),
        "do not fill",
    ),
    "an array made directly": (b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85\x85R", "damaged"),
    "an array of no dtype": (_array(b"N", _bytes(b""), b"K\x00\x85"), "plain type"),
    "a dtype of the user's": (_array(_text("f8"), _bytes(b"\x41" * 8), b"K\x01\x85"), "plain type"),
    "three gigabytes of zeros": (b"cbuiltins\nbytearray\n\x8a\x05\x00\x5e\xd0\xb2\x00\x85R", "bytes are made of a int"),
    "a list of a range": (b"cbuiltins\nlist\nK\x05\x85R", "asks for builtins.list"),
    "a number of a text": (b"cbuiltins\nint\n" + _text("9" * 100) + b"\x85R", "asks for builtins.int"),
    "a factory of its own": (b"ccollections\ndefaultdict\ncnumpy\ndtype\n\x85R", "a defaultdict of"),
    "a list that holds itself": (b"]q\x00h\x00a", "holds itself"),
    "a global as a value": (b"]cnumpy\nndarray\na", "as a value"),
    "an unhashable key": (b"}]K\x01s", "key is neither"),
    "a state twice": (_array(_dtype("f8"), _bytes(b"\x41" * 8), b"K\x01\x85") + b"N" + b"b", "takes none"),
    "a memo that is not there": (b"h\x07", "damaged"),
    "an empty stack": (b"0", "damaged"),
    "an extension": (b"\x82\x01", "the instruction EXT1"),
    "a class with keywords": (b"cnumpy\ndtype\n)}\x92", "the instruction NEWOBJ_EX"),
    "an old instance": (b"(cnumpy\ndtype\no", "the instruction OBJ"),
    "data outside": (b"N" + b"Q", "outside the file"),
}


@pytest.mark.parametrize("case", LYING)
def test_what_a_pickle_claims_is_held_against_its_bytes(tmp_path: Path, case: str) -> None:
    """Each of these crashed the process, filled the memory, or reached a constructor of others."""
    body, said = LYING[case]
    with pytest.raises(DataError, match=said) as caught:
        load_pickle(_written(tmp_path / "lying", body))
    assert "lying" in str(caught.value)


def test_shared_tuples_as_keys_take_no_time(tmp_path: Path) -> None:
    """Hashing a tuple of two of a tuple of two ... of them 60 deep takes 2^60 steps."""
    nest = b")q\x000" + b"".join(b"h%ch%c\x86q%c0" % (i, i, i + 1) for i in range(60)) + b"h\x3c"
    for body in (b"}" + nest + b"K\x01s", b"\x8f(" + nest + b"\x90", b"(" + nest + b"\x91"):
        with pytest.raises(DataError, match="key is neither"):
            load_pickle(_written(tmp_path / "keys", body))


@pytest.mark.parametrize("kind", ["lists", "tuples", "arrays", "texts"])
def test_what_is_shared_may_not_grow_beyond_the_file(tmp_path: Path, kind: str) -> None:
    if kind in ("lists", "tuples"):
        wrap = b"](" if kind == "lists" else b"("
        end = b"e" if kind == "lists" else b"t"
        body = b"K\x00q\x00" + b"".join(wrap + b"h%c" % i * 10 + end + b"q%c" % (i + 1) for i in range(20))
    elif kind == "arrays":
        array = _array(_dtype("u1"), b"h\x01", b"J\x40\x42\x0f\x00\x85")
        body = _bytes(b"0" * 1_000_000) + b"q\x01](" + array * 20 + b"e"
    else:
        body = b"c_codecs\nencode\nq\x02" + _text("0" * 1_000_000) + b"q\x01](" + b"h\x02h\x01\x85R" * 50 + b"e"
    with pytest.raises(DataError, match="than the file"):
        load_pickle(_written(tmp_path / "shared", body))


def test_nesting_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nested more than"):
        load_pickle(_written(tmp_path / "deep", b"]" * 5000 + b"a" * 4999))


def test_a_shared_array_stays_one_array(tmp_path: Path) -> None:
    array = np.arange(3)
    back = load_pickle(_dump(tmp_path / "p", [array, array, (array,)]))
    assert back[0] is back[1] is back[2][0]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_plain_type_order_and_container_comes_back(tmp_path: Path, protocol: int) -> None:
    arrays = [np.arange(6).astype(kind).reshape(2, 3) for kind in ("i1", "u2", ">i4", "i8", ">f4", "f8", "c16", "bool")]
    arrays += [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(["a", "bcd"]), np.array(3.5), np.zeros((0, 4))]
    rest = {
        "set": {1, "a"},
        "frozen": frozenset([2]),
        "slice": slice(1, None, 2),
        "complex": 1 + 2j,
        "b": bytearray(b"x"),
    }
    rest["ordered"] = collections.OrderedDict(b=1, a=2)
    back, plain = load_pickle(_dump(tmp_path / "p", (arrays, rest), protocol))
    assert plain == rest
    for one, other in zip(back, arrays, strict=True):
        assert one.dtype == other.dtype
        assert one.flags.f_contiguous == other.flags.f_contiguous
        assert np.array_equal(one, other)
        one[...] = one  # its own memory


def test_a_byte_that_is_no_bool_becomes_one(tmp_path: Path) -> None:
    path = _written(tmp_path / "bools", _array(_dtype("b1"), _bytes(b"\x00\x07"), b"K\x02\x85"))
    assert load_pickle(path).view(np.uint8).tolist() == [0, 1]


@pytest.mark.parametrize("reader", [load_pickle, load_torch])
def test_a_device_and_a_folder_are_no_files(tmp_path: Path, reader: Any) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path / "link", tmp_path):
        with pytest.raises(DataError, match="no file"):
            reader(path)


def test_a_torch_file_whose_parts_unpack_to_more_than_it_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t/data.pkl", b"\x80\x02N.")
        archive.writestr("t/data/0", b"\x00" * 10_000_000)
    with pytest.raises(DataError, match="claim more bytes"):
        load_torch(path)


def test_many_copies_of_one_storage_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "copies.pt"
    whole = torch.zeros(200_000)
    torch.save([whole[i:] for i in range(50)], path)
    with pytest.raises(DataError, match="more bytes than the file"):
        load_torch(path)
    torch.save({"wide": torch.zeros(1).expand(10**9)}, path)
    with pytest.raises(DataError, match="more bytes than the file"):
        load_torch(path)
