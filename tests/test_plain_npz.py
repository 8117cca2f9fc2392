"""Arrays of npz files: what they claim is held against what is there."""

from __future__ import annotations

import io
import time
import zipfile

import numpy as np
import pytest

from graphsparse.errors import DataError
from graphsparse.plain_npz import read_npz


def _member(header: str, content: bytes = b"", magic: bytes = b"\x93NUMPY\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return magic + len(text).to_bytes(2, "little") + text + content


def _packed(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_saves_comes_back(tmp_path, save):
    arrays = {
        "a": np.arange(6).reshape(2, 3),
        "b": np.zeros((0, 4), np.float32),
        "c": np.array("text"),
        "d": np.array(2),
    }
    arrays["f"] = np.asfortranarray(np.ones((2, 3)))
    save(tmp_path / "a.npz", **arrays)
    back = read_npz(tmp_path / "a.npz")
    assert list(back) == list(arrays)
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())
    assert list(read_npz(tmp_path / "a.npz", ["b"])) == ["b"]


@pytest.mark.parametrize(
    ("shape", "content"),
    [("(1000000000000,)", b""), ("(10,)", b"\0" * 8), ("(1,)", b"\0" * 16), ("(-1,)", b"\0" * 8), ("(2, -4)", b"")],
)
def test_a_claimed_shape_is_held_against_the_bytes(tmp_path, shape, content):
    member = _member(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}", content)
    begun = time.process_time()
    with pytest.raises(DataError, match=r"x\.npz .*(claims|damaged)"):
        read_npz(_packed(tmp_path / "x.npz", a=member))
    assert time.process_time() - begun < 1


def test_a_large_array_that_is_packed_too_tightly_is_refused(tmp_path):
    path, size = tmp_path / "x.npz", (1 << 30) + 8
    header = _member(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},)}}")
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w", force_zip64=True) as member,
    ):
        member.write(header)
        zeros = bytes(1 << 24)
        for start in range(0, size, len(zeros)):
            member.write(zeros[: size - start])
    with pytest.raises(DataError, match=r"unpacks .* bytes into 1,073,741,832"):
        read_npz(path)


def test_objects_other_files_and_missing_arrays_are_told(tmp_path):
    np.savez(tmp_path / "o.npz", a=np.array([{}], dtype=object))
    with pytest.raises(DataError, match=r"o\.npz .*holds objects"):
        read_npz(tmp_path / "o.npz")
    np.savez(tmp_path / "a.npz", a=np.arange(2))
    with pytest.raises(DataError, match="lacks the arrays b; it has a"):
        read_npz(tmp_path / "a.npz", ["a", "b"])
    for content in (b"", b"not a zip", (tmp_path / "a.npz").read_bytes()[:-30]):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.npz is damaged"):
            read_npz(tmp_path / "bad.npz")
    with pytest.raises(DataError, match=r"none\.npz"):
        read_npz(tmp_path / "none.npz")
    (tmp_path / "device.npz").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="no file"):
        read_npz(tmp_path / "device.npz")
    stream = io.BytesIO()
    np.save(stream, np.arange(2))
    with pytest.raises(DataError, match="format"):
        read_npz(_packed(tmp_path / "v.npz", a=b"\x93NUMPY\x07\x00" + stream.getvalue()[8:]))
