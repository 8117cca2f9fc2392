"""Matrix Market and npz: lines and members that stay, rules for weights, and files that lie."""

import io
import zipfile

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from torch_geometric.data import Data

import graphsparse as gs
from graphsparse.errors import DataError
from graphsparse.graphs.formats import open_file

HEAD = b"%%MatrixMarket matrix coordinate "


def read(folder, content, name="in.mtx", **options):
    (folder / name).write_bytes(content)
    return open_file(folder / name, **options)


def after(file, keep, folder, name="out.mtx"):
    file.write(np.array(keep, bool), folder / name)
    return (folder / name).read_bytes()


def test_lines_of_a_matrix_stay(tmp_path):
    body = b"% made by hand\r\n%\r\n\r\n  3 3   4  \r\n1 2 0.50\r\n% within\n1 2 1e0\r\n 3   1 -2d1\n2 3 7"
    content = HEAD + b"real general\r\n" + body
    file = read(tmp_path, content)
    assert file.edges.edge_index.tolist() == [[0, 0, 2, 1], [1, 1, 0, 2]]  # copies stay copies
    assert file.edges.weight.tolist() == [0.5, 1.0, -20.0, 7.0]
    assert file.place(2) == "line 9"
    assert after(file, [1, 1, 1, 1], tmp_path) == content
    expected = content.replace(b"3   4  ", b"3   2  ").replace(b"1 2 0.50\r\n", b"").replace(b" 3   1 -2d1\n", b"")
    assert after(file, [0, 1, 0, 1], tmp_path) == expected


def test_symmetric_and_pattern_files_are_undirected_and_stay_so(tmp_path):
    content = HEAD + b"pattern symmetric\n4 4 4\n2 1\n3 2\n4 3\n4 4\n"
    file = read(tmp_path, content)
    assert (file.edges.undirected, file.edges.num_countable, file.edges.survey.loops) == (True, 3, 1)
    assert file.edges.weight is None
    assert file.weights == ""
    assert after(file, [1, 0, 0, 1], tmp_path) == HEAD + b"pattern symmetric\n4 4 2\n2 1\n4 4\n"
    with pytest.raises(DataError, match="cannot be read as directed"):
        read(tmp_path, content, undirected=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1 must read"),
        (b"no matrix", "line 1 must read"),
        (HEAD + b"real general\n2 2 1\n1 2 0.5junk\n", "line 3 is no entry of a real matrix"),
        (HEAD + b"real general\n2 2 1\n1 2 0.5 7\n", "line 3 is no entry"),
        (HEAD + b"pattern general\n2 2 1\n1 2 1\n", "line 3 is no entry"),
        (HEAD + b"real general\n2 2 2\n1 2 0.5\n", "promises 2 entries, and 1 lines"),
        (HEAD + b"real general\n2 2 1\n1 2 0.5\n2 1 0.5\n", "promises 1 entries, and 2 lines"),
        (HEAD + b"real general\n2 2 1\n1 3 0.5\n", "line 3 names the entry"),
        (HEAD + b"real general\n2 2 1\n0 1 0.5\n", "ids go from 1 to 2"),
        (HEAD + b"real general\n2 3 1\n1 2 0.5\n", "square"),
        (HEAD + b"real general\n", "size line"),
        (HEAD + b"real general\n2 2\n", "line 2 must be the size line"),
        (HEAD + b"real general\n1000000000000 1000000000000 1\n1 2 0.5\n", "relabel"),
        (HEAD + b"real general\n2147483648 2147483648 1\n1 2 0.5\n", "relabel"),
        (HEAD + b"real skew-symmetric\n2 2 1\n2 1 0.5\n", "not read as graphs"),
        (b"%%MatrixMarket matrix array real general\n1 1\n1\n", "in array form"),
        (b"%%MatrixMarket vector coordinate real general\n1 1\n1\n", "vector"),
    ],
)
def test_what_is_no_matrix_is_told_with_its_line(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "in.mtx") in str(caught.value)


@pytest.mark.parametrize("field", ["real", "integer", "complex", "pattern"])
def test_matrices_of_scipy_are_read(tmp_path, field):
    matrix = scipy.sparse.coo_array(([1, 2, 3], ([0, 1, 2], [1, 2, 0])), (3, 3))
    scipy.io.mmwrite(tmp_path / "in.mtx", matrix, field=field)
    edges = open_file(tmp_path / "in.mtx").edges
    assert sorted(zip(*edges.edge_index.tolist(), strict=True)) == [(0, 1), (1, 2), (2, 0)]


def lying(folder, **changes):
    matrix = scipy.sparse.csr_array(([1.0, 2.0, 3.0], ([0, 1, 2], [1, 2, 0])), (3, 3))
    held = {"format": b"csr", "shape": (3, 3), "data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
    np.savez(folder / "in.npz", **{key: value for key, value in (held | changes).items() if value is not None})
    return folder / "in.npz"


@pytest.mark.parametrize("kind", ["csr", "csc"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indptr": [0, 1, 2, 1 << 40]}, r"in\.npz"),
        ({"indptr": [0, 3, 1, 3]}, r"in\.npz"),
        ({"indptr": [1, 1, 2, 3]}, r"in\.npz"),
        ({"indptr": [0, 1, 2, 2]}, r"in\.npz"),
        ({"indptr": [0, 3]}, r"in\.npz"),
        ({"indptr": [0.0, 1, 2, 3]}, "whole numbers"),
        ({"indptr": [[0, 1, 2, 3]]}, "list of whole"),
        ({"indptr": None}, "indptr of the matrix is missing"),
        ({"indices": [0, 1, 3]}, r"in\.npz"),
        ({"indices": [0, 1, -1]}, r"in\.npz"),
        ({"indices": [0, 1]}, r"in\.npz"),
        ({"data": [1.0, 2.0]}, r"in\.npz"),
        ({"data": ["a", "b", "c"]}, "numbers"),
        ({"shape": (3, 4)}, "square"),
        ({"shape": (10**12, 10**12)}, r"in\.npz"),
        ({"shape": (-3, -3)}, "square"),
        ({"format": b"lil"}, "format 'lil'"),
    ],
)
def test_a_compressed_matrix_that_lies_is_refused(tmp_path, kind, changes, message):
    """scipy reads beyond its arrays when indptr lies: the process used to end in a segmentation fault."""
    with pytest.raises(DataError, match=message):
        open_file(lying(tmp_path, **{"format": kind.encode()} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": b"bsr", "data": np.ones((3, 2, 2))},
        {"format": b"bsr", "data": np.ones((3, 0, 0))},
        {"format": b"bsr", "data": np.ones((3, 1, 1)), "indptr": [0, 5, 2, 3]},
        {"format": b"coo", "row": [0, 5, 1], "col": [0, 1, 2]},
        {"format": b"coo", "row": [0, 1], "col": [0, 1, 2]},
        {"format": b"dia", "data": np.ones((2, 3)), "offsets": [0]},
        {"format": b"dia", "data": np.ones((2, 3)), "offsets": [1, 1]},
        {"format": b"dia", "data": np.ones((1, 3)), "offsets": [1 << 40]},
    ],
)
def test_other_matrices_that_lie_are_refused(tmp_path, changes):
    with pytest.raises(DataError, match=r"in\.npz"):
        open_file(lying(tmp_path, **changes))


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int32", "bool"])
def test_honest_matrices_come_back(tmp_path, kind, dtype):
    matrix = scipy.sparse.coo_array((np.ones(3), ([0, 1, 2], [1, 2, 0])), (3, 3)).asformat(kind).astype(dtype)
    scipy.sparse.save_npz(tmp_path / "in.npz", matrix)
    file = open_file(tmp_path / "in.npz")
    file.write(np.array([True] * 3), tmp_path / "out.npz")
    small = scipy.sparse.load_npz(tmp_path / "out.npz")
    assert (type(small), small.format) == (type(matrix), kind)
    assert np.array_equal(small.toarray(), matrix.toarray())


def test_a_foreign_byte_order(tmp_path):
    edges = open_file(lying(tmp_path, data=np.array([1.0, 2.0, 3.0], ">f8"), indices=np.array([1, 2, 0], ">i4"))).edges
    assert edges.weight.tolist() == [1.0, 2.0, 3.0]
    assert edges.edge_index.tolist() == [[0, 1, 2], [1, 2, 0]]


def test_arrays_are_cut_by_the_rule_of_data(tmp_path):
    """What is edge-level in a ``Data`` is so in a file: edge_label without its index, and columns of any name."""
    ends = np.array([[0, 1, 2, 3], [1, 2, 3, 0]])
    arrays = {
        "edge_label": np.arange(4),
        "when": np.arange(4.0),
        "x": np.ones((6, 2)),
        "y": np.arange(6),
        "pos_edge_label": np.arange(4),
        "pos_edge_label_index": np.zeros((2, 4), int),
        "train_idx": np.arange(3),
    }
    np.savez(tmp_path / "in.npz", edge_index=ends.astype(np.int32), **arrays)
    open_file(tmp_path / "in.npz", False).write(np.array([True, False, True, False]), tmp_path / "out.npz")
    small = np.load(tmp_path / "out.npz")
    data = Data(edge_index=torch.from_numpy(ends), **{key: torch.from_numpy(value) for key, value in arrays.items()})
    memory = gs.sparsify(data, torch.tensor([2.0, 1.0, 2.0, 1.0]), keep=0.5, undirected=False)
    assert small["edge_index"].dtype == np.int32
    for key in ("edge_index", *arrays):
        assert np.array_equal(small[key], memory[key].numpy()), key
    assert small["edge_label"].tolist() == [0, 2]
    assert small["pos_edge_label"].tolist() == [0, 1, 2, 3]


def test_members_that_stay_are_copied(tmp_path):
    """Names, order, kinds and compression: an array in Fortran's order, a structured one, one named file."""
    arrays = {"file": np.arange(5), "z": np.asfortranarray(np.ones((3, 2))), "s": np.zeros(5, [("a", ">i2")])}
    with zipfile.ZipFile(tmp_path / "in.npz", "w") as packed:
        for key, array in (arrays | {"edges": np.array([[0, 1], [1, 2]], ">u2")}).items():
            stream = io.BytesIO()
            np.save(stream, array)
            packed.writestr(f"{key}.npy", stream.getvalue())
    open_file(tmp_path / "in.npz", False).write(np.array([False, True]), tmp_path / "out.npz")
    with zipfile.ZipFile(tmp_path / "in.npz") as before, zipfile.ZipFile(tmp_path / "out.npz") as now:
        assert now.namelist() == before.namelist()
        assert all(now.read(f"{key}.npy") == before.read(f"{key}.npy") for key in arrays)
        assert {info.compress_type for info in now.infolist()} == {zipfile.ZIP_STORED}
    small = np.load(tmp_path / "out.npz")["edges"]
    assert (small.tolist(), small.dtype) == ([[1, 2]], np.dtype(">u2"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"edge_index": [[0, 10**12], [1, 2]]}, "relabel"),
        ({"edge_index": [[0, 1 << 31], [1, 2]]}, "relabel"),
        ({"edge_index": [[0, -1], [1, 2]]}, "names node -1"),
        ({"edge_index": np.array([[0, 2**64 - 1], [1, 2]], np.uint64)}, "relabel"),
        ({"edge_index": [[0, 1], [1, 2]], "num_nodes": 10**12}, "relabel"),
        ({"edge_index": [[0, 1], [1, 2]], "num_nodes": -1}, "num_nodes"),
        ({"edge_index": [[0, 1], [1, 2]], "num_nodes": 2}, "2 nodes"),
        ({"edge_index": [[0, 1], [1, 2]], "num_nodes": [1, 2]}, "num_nodes"),
        ({"edge_index": [[0.0, 1], [1, 2]]}, "integer ids"),
        ({"edge_index": [0, 1]}, "shape"),
        ({"edges": [[0, 1, 2]]}, r"\[E, 2\]"),
        ({"edge_index": [[0, 1], [1, 2]], "weight": [1.0]}, "2 edges"),
        ({"edge_index": [[0, 1], [1, 2]], "weight": [1, 2], "edge_weight": [1, 2]}, "say which"),
        ({"x": [1]}, "no edge_index and no edges"),
        ({"edge_index": np.array([{}], object)}, "objects"),
    ],
)
def test_arrays_that_are_no_graph_are_told(tmp_path, arrays, message):
    np.savez(tmp_path / "in.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_file(tmp_path / "in.npz")
