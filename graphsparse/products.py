"""Products of a sparse and a dense matrix: loops of our own on the CPU, torch's elsewhere.

On one core torch's take two to ten times as long (it converts, copies, and in the backward pass sorts the matrix into
its transpose at every call): PubMed's features times 500 x 512 weights 77 ms against 27, the gradient of those weights
287 ms against 29, a GCN matrix times 512 columns 57 ms against 32.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from graphsparse.parallel import over_slices

# Multiplications: fewer are not worth the import of numba, or are done before another thread has started.
_COMPILE_FROM, _SERIAL_BELOW = 1 << 18, 1 << 23


@contextmanager
def quietly() -> Iterator[None]:
    """While it lasts, torch does not say that its CSR tensors are in beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        yield


def remember_transpose(matrix: Tensor) -> Tensor:
    """The CSR matrix itself, now carrying its transpose (itself, where it is symmetric)."""
    transposed = matrix.t().to_sparse_csr()
    pairs = (
        (matrix.crow_indices(), transposed.crow_indices()),
        (matrix.col_indices(), transposed.col_indices()),
        (matrix.values(), transposed.values()),
    )
    symmetric = all(torch.equal(one, other) for one, other in pairs)
    matrix.transposed = matrix if symmetric else transposed  # type: ignore[attr-defined]
    return matrix


class Multiplier(Protocol):
    """A matrix [n, m] that knows its own product, such as one whose values have a gradient."""

    def times(self, x: Tensor) -> Tensor:
        """The product with x [m, w], differentiable."""


def multiply(matrix: Tensor | Multiplier, x: Tensor) -> Tensor:
    """The product of a matrix [n, m] and x [m, w], dense or CSR, differentiable in x.

    Args:
        matrix: one of `remember_transpose`, or one that knows its own product.
        x: what it is multiplied with.
    """
    if not isinstance(matrix, Tensor):
        return matrix.times(x)
    if not x.requires_grad:
        return product(matrix, x)
    out: Tensor = _Product.apply(matrix, x)  # type: ignore[no-untyped-call]
    return out


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, x: Tensor) -> Tensor:
        ctx.transposed = matrix.transposed  # type: ignore[attr-defined]
        return product(matrix, x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return None, product(ctx.transposed, grads[0])


def product(matrix: Tensor, x: Tensor) -> Tensor:
    """The product of a CSR matrix [n, m] and x [m, w], dense or CSR; no derivatives."""
    if x.layout == torch.sparse_csr and x.device.type == "cpu":
        return _multiply_sparse(matrix, x)
    if x.dim() == 2 and matrix.size(1) == x.size(0) and _ours(matrix, x, x.size(1)):
        return _gathered(matrix, x)
    out: Tensor = torch.sparse.mm(matrix, x)
    return out


def _multiply_sparse(matrix: Tensor, x: Tensor) -> Tensor:
    """A sparse product by scipy: torch's own leaks its result on the CPU (a megabyte a call on Cora)."""
    one, other = (csr_array(_arrays(m)[::-1], shape=(m.size(0), m.size(1))) for m in (matrix, x))
    out = one @ other
    rows, columns, values = map(torch.from_numpy, (out.indptr, out.indices, out.data))
    return torch.sparse_csr_tensor(rows, columns, values, out.shape, check_invariants=False)


def quick_linear(x: Any) -> AbstractContextManager[Any]:
    """While it lasts, linear maps of sparse CSR features on the CPU, any module's, are done by loops of our own.

    Nothing changes if `x` is anything else, nor while torch compiles. What is computed again in the backward pass
    (``torch.utils.checkpoint``) is torch's. ``served`` of what ``with`` gives says whether a map was done.
    """
    sparse = isinstance(x, Tensor) and x.layout == torch.sparse_csr and x.device.type == "cpu"
    return _QuickLinear() if sparse and not torch.compiler.is_compiling() else nullcontext()


class _QuickLinear(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.served = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is functional.linear and _fits(*args, **(kwargs or {})):
            self.served = True
            return _linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _fits(input: Tensor, weight: Tensor, bias: Tensor | None = None, **other: Any) -> bool:
    """Whether this is a map that the loops know; all that torch would refuse is left to it."""
    if other or input.layout != torch.sparse_csr or input.requires_grad or input.dim() != 2 or weight.dim() != 2:
        return False
    with_bias = bias is None or (bias.dim() == 1 and bias.dtype == input.dtype and len(bias) == len(weight))
    return with_bias and input.size(1) == weight.size(1) and _ours(input, weight.detach(), len(weight))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out: Tensor = _Linear.apply(input, weight)  # type: ignore[no-untyped-call]
    return out if bias is None else out + bias


class _Linear(torch.autograd.Function):
    """x weight^T of CSR features x [n, m] and weight [w, m], differentiable in weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _gathered(x, weight.t())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,), grad = ctx.saved_tensors, grads[0]
        return None, (_scattered(x, grad) if _ours(x, grad, grad.size(1)) else torch.sparse.mm(x.t(), grad)).t()


def _ours(matrix: Tensor, x: Tensor, width: int) -> bool:
    """Whether the loops know these types, `width` columns are worth it, and torch asks for no derivative of them."""
    same = matrix.dtype == x.dtype and x.dtype in (torch.float32, torch.float64)
    on_cpu = matrix.device.type == "cpu" == x.device.type
    differentiated = torch.is_grad_enabled() and (x.requires_grad or matrix.requires_grad)
    differentiated |= forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]
    layouts = matrix.layout == torch.sparse_csr and x.layout == torch.strided
    return same and on_cpu and layouts and not differentiated and matrix.values().numel() * width >= _COMPILE_FROM


def _gathered(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix x, each thread some of the rows."""
    from graphsparse.product_loops import gather_rows

    return _by_loop(gather_rows, matrix, x, rows=matrix.size(0), shared=matrix.size(0))


def _scattered(matrix: Tensor, x: Tensor) -> Tensor:
    """The transpose of matrix, times x, each thread some of the columns."""
    from graphsparse.product_loops import scatter_rows

    return _by_loop(scatter_rows, matrix, x, rows=matrix.size(1), shared=x.size(1))


def _by_loop(loop: Callable[..., None], matrix: Tensor, x: Tensor, *, rows: int, shared: int) -> Tensor:
    """The ``rows`` of a product, by a loop whose threads share out ``range(shared)``."""
    x = x.detach().contiguous()
    out = x.new_empty(rows, x.size(1))
    arrays = (*_arrays(matrix), x.numpy(), out.numpy())
    threads = 1 if matrix.values().numel() * x.size(1) < _SERIAL_BELOW else torch.get_num_threads()
    over_slices(lambda start, stop: loop(*arrays, start, stop), shared, threads)
    return out


def _arrays(matrix: Tensor) -> tuple[Any, ...]:
    """Starts of rows, columns and values of a CSR matrix."""
    return matrix.crow_indices().numpy(), matrix.col_indices().numpy(), matrix.values().detach().numpy()
