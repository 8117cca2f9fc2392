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

from graphsparse.data.unpickle import SparseParts, load_pickle, load_torch, to_csr
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
