"""Products with sparse matrices agree with scipy and with torch's dense ones, forwards and backwards."""

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch_geometric.nn import GCN, GraphSAGE

from graphsparse import products
from graphsparse.products import multiply, quick_linear, remember_transpose


def csr(rows, columns, density=0.1, dtype=torch.float32, seed=0):
    matrix = scipy.sparse.random_array((rows, columns), density=density, format="csr", rng=seed)
    kind = np.float32 if dtype == torch.float32 else np.float64
    arrays = (torch.from_numpy(part) for part in (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64)))
    return torch.sparse_csr_tensor(*arrays, torch.from_numpy(matrix.data.astype(kind)), (rows, columns))


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def threads(request, monkeypatch):
    """Products of any size by our own loops, on so many threads."""
    monkeypatch.setattr(products, "_COMPILE_FROM", 0)
    monkeypatch.setattr(products, "_SERIAL_BELOW", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def no_torch_product(*_):
    raise AssertionError("this product was to be made by our own loops")


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    width=st.integers(1, 9),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    double=st.booleans(),
    seed=st.integers(0, 1000),
)
@pytest.mark.usefixtures("threads")
def test_products_are_those_of_scipy(rows, columns, width, density, double, seed):
    dtype = torch.float64 if double else torch.float32
    matrix = remember_transpose(csr(rows, columns, density, dtype, seed))
    x = torch.randn(columns, width, dtype=dtype).requires_grad_()
    out = multiply(matrix, x)
    grad = torch.randn_like(out)
    out.backward(grad)
    dense = matrix.to_dense().double()
    torch.testing.assert_close(out.detach().double(), dense @ x.detach().double(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), dense.T @ grad.double(), rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    width=st.integers(1, 9),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
@pytest.mark.usefixtures("threads")
def test_a_linear_map_of_sparse_features_is_that_of_dense_ones(rows, columns, width, bias, seed):
    x = csr(rows, columns, 0.3, seed=seed)
    torch.manual_seed(seed)
    layer = nn.Linear(columns, width, bias=bias)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.sparse, "mm", no_torch_product)
        with quick_linear(x):
            out = layer(x)
        grad = torch.randn_like(out)
        found = torch.autograd.grad(out, list(layer.parameters()), grad)
    expected = layer(x.to_dense())
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, list(layer.parameters()), grad))


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    monkeypatch.setattr(products, "_COMPILE_FROM", 0)
    monkeypatch.setattr(products, "_SERIAL_BELOW", 0)
    matrix, x = remember_transpose(csr(200, 100)), torch.randn(100, 33)
    weight = torch.randn(9, 100).requires_grad_()
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        with quick_linear(matrix):
            out = functional.linear(matrix, weight)
        found.append((multiply(matrix, x), *torch.autograd.grad(out.square().sum(), [weight])))
    torch.set_num_threads(before)
    assert all(torch.equal(one, other) for each in found[1:] for one, other in zip(found[0], each, strict=True))


@pytest.mark.usefixtures("threads")
def test_a_gradient_of_a_gradient_is_right():
    matrix = remember_transpose(csr(12, 10, 0.4, torch.float64))
    x = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: multiply(matrix, x).square(), (x,))
    weight = torch.randn(4, 10, dtype=torch.float64, requires_grad=True)

    def linear(weight):
        with quick_linear(matrix):
            return functional.linear(matrix, weight).square()

    assert torch.autograd.gradgradcheck(linear, (weight,))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", [GCN, GraphSAGE])
def test_models_of_pyg_run_the_same(kind):
    x, edge_index = csr(30, 20), torch.randint(0, 30, (2, 90))
    model = kind(20, 16, 2, 4).eval()
    expected = model(x.to_dense(), edge_index)
    if kind is GraphSAGE:
        x = x.to_dense()  # its messages are rows of the features
    with quick_linear(x):
        torch.testing.assert_close(model(x, edge_index), expected)


@pytest.mark.usefixtures("threads")
def test_what_the_loops_do_not_know_is_left_to_torch():
    x = csr(6, 5, 0.5)
    with quick_linear(x):
        assert functional.linear(x, torch.ones(3, 5)).shape == (6, 3)
        assert functional.linear(torch.ones(2, 5), torch.ones(3, 5)).shape == (2, 3)
        with pytest.raises(RuntimeError):
            functional.linear(x, torch.ones(3, 4))
        with pytest.raises(RuntimeError):
            functional.linear(x, torch.ones(3, 5, dtype=torch.float64))
    half = remember_transpose(csr(6, 6, 0.5))
    with pytest.raises(RuntimeError):
        multiply(half, torch.ones(6, 2, dtype=torch.float64))
    with pytest.raises(RuntimeError):
        multiply(half, torch.ones(5, 2))
    for nothing in (None, torch.ones(2, 2)):
        with quick_linear(nothing):
            assert functional.linear(torch.ones(1, 2), torch.ones(3, 2)).tolist() == [[2.0, 2.0, 2.0]]


@pytest.mark.usefixtures("threads")
def test_wrong_values_stay_wrong():
    matrix = remember_transpose(csr(6, 6, 1.0))
    x = torch.ones(6, 2)
    x[3, 1] = float("nan")
    assert multiply(matrix, x)[:, 1].isnan().all()
    assert not multiply(matrix, x)[:, 0].isnan().any()
