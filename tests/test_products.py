"""Products with sparse matrices agree with scipy and with torch's dense ones, forwards and backwards."""

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch_geometric.nn import GAT, GCN

from graphsparse import products
from graphsparse.fit.features import features_for
from graphsparse.products import multiply, quick_linear, remember_transpose


def csr(rows, columns, density=0.1, dtype=torch.float32, seed=0, index=torch.int64):
    matrix = scipy.sparse.random(rows, columns, density=density, format="csr", random_state=seed)
    kind = np.float32 if dtype == torch.float32 else np.float64
    arrays = (torch.from_numpy(part).to(index) for part in (matrix.indptr, matrix.indices))
    return torch.sparse_csr_tensor(*arrays, torch.from_numpy(matrix.data.astype(kind)), (rows, columns))


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def made(request, monkeypatch):
    """Products of any size by our own loops, on so many threads; the names of those that were made."""
    monkeypatch.setattr(products, "_COMPILE_FROM", 0)
    monkeypatch.setattr(products, "_SERIAL_BELOW", 0)
    names = []
    for name in ("_gathered", "_scattered"):
        monkeypatch.setattr(products, name, noting(names, name, getattr(products, name)))
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield names
    torch.set_num_threads(before)


def noting(names, name, function):
    def noted(*args):
        names.append(name)
        return function(*args)

    return noted


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    width=st.integers(1, 9),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    double=st.booleans(),
    narrow=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_products_are_those_of_scipy(made, rows, columns, width, density, double, narrow, seed):
    made.clear()
    dtype = torch.float64 if double else torch.float32
    matrix = remember_transpose(csr(rows, columns, density, dtype, seed, torch.int32 if narrow else torch.int64))
    x = torch.randn(columns, width, dtype=dtype).requires_grad_()
    out = multiply(matrix, x)
    grad = torch.randn_like(out)
    out.backward(grad)
    dense = matrix.to_dense().double()
    torch.testing.assert_close(out.detach().double(), dense @ x.detach().double(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), dense.T @ grad.double(), rtol=1e-5, atol=1e-6)
    assert made == ["_gathered", "_gathered"]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    width=st.integers(1, 9),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_linear_map_of_sparse_features_is_that_of_dense_ones(made, rows, columns, width, bias, seed):
    made.clear()
    x = csr(rows, columns, 0.3, seed=seed)
    torch.manual_seed(seed)
    layer = nn.Linear(columns, width, bias=bias)
    with quick_linear(x) as quick:
        out = layer(x)
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, list(layer.parameters()), grad)
    assert quick.served
    assert made == ["_gathered", "_scattered"]
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


@pytest.mark.usefixtures("made")
def test_a_gradient_of_a_gradient_is_right():
    matrix = remember_transpose(csr(12, 10, 0.4, torch.float64))
    x = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: multiply(matrix, x).square(), (x,))
    weight = torch.randn(4, 10, dtype=torch.float64, requires_grad=True)

    def linear(weight):
        with quick_linear(matrix):
            return functional.linear(matrix, weight).square()

    assert torch.autograd.gradgradcheck(linear, (weight,))


def test_a_derivative_that_the_loops_do_not_know_is_not_lost(made):
    matrix = csr(8, 8, 0.5).detach().requires_grad_()
    assert products.product(matrix, torch.ones(8, 2)).requires_grad
    weight = torch.ones(3, 8)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError):
        products.product(remember_transpose(csr(8, 8, 0.5)), forward_ad.make_dual(weight.T, weight.T))
    assert made == []


@pytest.mark.usefixtures("made")
def test_features_that_change_before_the_backward_pass_are_noticed():
    x, weight = csr(8, 8, 0.5), torch.ones(3, 8, requires_grad=True)
    with quick_linear(x):
        out = functional.linear(x, weight)
    x.values().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.usefixtures("made")
def test_the_default_device_has_no_say():
    matrix, x = remember_transpose(csr(8, 8, 0.5)), torch.ones(8, 2)
    with torch.device("meta"):
        assert multiply(matrix, x).device.type == "cpu"


@pytest.mark.parametrize("kind", [GCN, GAT])
def test_models_of_pyg_run_the_same(made, kind):
    x, edge_index = csr(30, 20), torch.randint(0, 30, (2, 90))
    model = kind(20, 16, 2, 4).eval()
    parameters = list(model.parameters())
    expected = model(x.to_dense(), edge_index)
    with quick_linear(x):
        found = model(x, edge_index)
    torch.testing.assert_close(found, expected)
    grads = (torch.autograd.grad(out.square().sum(), parameters) for out in (found, expected))
    torch.testing.assert_close(*grads)
    assert made == ["_gathered", "_scattered"]


class ByProduct(nn.Module):
    """A first layer that is no linear map in torch's words."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(50, 4))

    def forward(self, x, edge_index):
        return x @ self.weight


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(("fill", "layouts"), [(0.04, ("csr", "csr")), (0.1, ("csr", "dense")), (0.3, ("dense",) * 2)])
def test_how_full_features_may_be_to_be_sparse_depends_on_who_multiplies(fill, layouts):
    x, edge_index = csr(100, 50, fill).to_dense(), torch.randint(0, 100, (2, 90))
    for model, layout in zip((GCN(50, 4, 1), ByProduct()), layouts, strict=True):
        found = features_for(model, x, edge_index)
        assert (found.layout == torch.sparse_csr) == (layout == "csr")


@pytest.mark.usefixtures("made")
def test_what_the_loops_do_not_know_is_left_to_torch():
    x = csr(6, 5, 0.5)
    with quick_linear(x):
        assert functional.linear(x, torch.ones(3, 5)).shape == (6, 3)
        assert functional.linear(torch.ones(2, 5), torch.ones(3, 5)).shape == (2, 3)
        for wrong in (
            {"weight": torch.ones(3, 4)},
            {"weight": torch.ones(3, 5), "bias": torch.ones(3).double()},
            {"weight": torch.ones(3, 5), "bias": torch.ones(2, 1, 3)},
            {"weight": torch.ones(3, 5), "bias": torch.ones(4)},
        ):
            with pytest.raises(RuntimeError):
                functional.linear(x, **wrong)
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


@pytest.mark.usefixtures("made")
def test_wrong_values_stay_wrong():
    matrix = remember_transpose(csr(6, 6, 1.0))
    x = torch.ones(6, 2)
    x[3, 1] = float("nan")
    assert multiply(matrix, x)[:, 1].isnan().all()
    assert not multiply(matrix, x)[:, 0].isnan().any()
