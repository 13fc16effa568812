"""Counts floating-point operations of what a method does, by watching PyTorch's functions.

Matrix products, attention and `torch.linalg` factorisations are counted; element-wise work is not, nor is anything that
runs in numpy or scipy. A product whose result needs a gradient is taken to be differentiated once: each operand that
needs a gradient costs as much again as the product itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class FlopCounter(TorchFunctionMode):
    """Counts within a `with` block, in this thread.

    Attributes:
        products: operations of matrix products and attention, forward.
        backward: of their gradients.
        factorisations: of `torch.linalg`, after the leading terms in Golub and Van Loan, Matrix Computations (2013).
    """

    def __init__(self) -> None:
        super().__init__()
        self.products = 0
        self.backward = 0
        self.factorisations = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if rule := _PRODUCTS.get(name):
            operands, flops = rule(args, kwargs or {}, result)
            self.products += flops
            if result.requires_grad:
                self.backward += flops * sum(operand.requires_grad for operand in operands)
        elif factorisation := _FACTORISATIONS.get(name):
            self.factorisations += factorisation(args, kwargs or {})
        return result


_Product = Callable[[Sequence[Any], Mapping[str, Any], Tensor], tuple[list[Tensor], int]]


def _linear(args: Sequence[Any], kwargs: Mapping[str, Any], _result: Tensor) -> tuple[list[Tensor], int]:
    inputs, weight = (
        args[place] if place < len(args) else kwargs[name] for place, name in ((0, "input"), (1, "weight"))
    )
    return [inputs, weight], 2 * inputs.numel() * weight.shape[0]


def _matmul(args: Sequence[Any], kwargs: Mapping[str, Any], result: Tensor) -> tuple[list[Tensor], int]:
    left, right = [*args, *(kwargs[name] for name in ("other", "mat2", "vec2", "vec") if name in kwargs)][:2]
    return [left, right], 2 * result.numel() * left.shape[-1]


def _addmm(args: Sequence[Any], _kwargs: Mapping[str, Any], result: Tensor) -> tuple[list[Tensor], int]:
    return [args[1], args[2]], 2 * result.numel() * args[1].shape[-1]


def _einsum(args: Sequence[Any], _kwargs: Mapping[str, Any], _result: Tensor) -> tuple[list[Tensor], int]:
    """Exact for two operands without an ellipsis; those are all that the methods use."""
    operands = list(args[1]) if isinstance(args[1], list | tuple) else list(args[1:])
    sizes: dict[str, int] = {}
    for letters, operand in zip(args[0].replace(" ", "").partition("->")[0].split(","), operands, strict=True):
        sizes |= dict(zip(letters, operand.shape, strict=True))
    return operands, 2 * math.prod(sizes.values())


def _attention(args: Sequence[Any], kwargs: Mapping[str, Any], _result: Tensor) -> tuple[list[Tensor], int]:
    """Both products, of every query with every key, masked or not."""
    query, key, value = [*args, *(kwargs[name] for name in ("query", "key", "value") if name in kwargs)][:3]
    return [query, value], 2 * math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


_PRODUCTS: dict[str, _Product] = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "__matmul__", "mm", "bmm", "mv", "dot"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm"), _addmm),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
}


def _batch(matrix: Tensor) -> int:
    """Number of matrices."""
    return math.prod(matrix.shape[:-2])


def _per_size(thirds: int) -> Callable[[Sequence[Any], Mapping[str, Any]], int]:
    """`thirds` / 3 · n³ a matrix."""

    def count(args: Sequence[Any], _kwargs: Mapping[str, Any]) -> int:
        return _batch(args[0]) * thirds * int(args[0].shape[-1]) ** 3 // 3

    return count


def _svd(args: Sequence[Any], _kwargs: Mapping[str, Any]) -> int:
    short, long = sorted(map(int, args[0].shape[-2:]))
    return _batch(args[0]) * (6 * long * short**2 + 20 * short**3)


def _qr(args: Sequence[Any], _kwargs: Mapping[str, Any]) -> int:
    short, long = sorted(map(int, args[0].shape[-2:]))
    return _batch(args[0]) * (4 * long * short**2 - 4 * short**3 // 3)


def _solve(args: Sequence[Any], _kwargs: Mapping[str, Any]) -> int:
    size = int(args[0].shape[-1])
    return _batch(args[0]) * (2 * size**3 // 3) + 2 * size * int(args[1].numel())


def _triangular(args: Sequence[Any], _kwargs: Mapping[str, Any]) -> int:
    return int(args[0].shape[-1] * args[1].numel())


def _least_squares(args: Sequence[Any], _kwargs: Mapping[str, Any]) -> int:
    rows, columns = map(int, args[0].shape[-2:])
    return _batch(args[0]) * 2 * rows * columns**2


_FACTORISATIONS: dict[str, Callable[[Sequence[Any], Mapping[str, Any]], int]] = {
    **dict.fromkeys(("linalg_cholesky", "linalg_cholesky_ex", "cholesky"), _per_size(1)),
    **dict.fromkeys(("linalg_inv", "inverse", "linalg_inv_ex"), _per_size(6)),
    "linalg_eigh": _per_size(27),
    "linalg_eigvalsh": _per_size(4),
    "linalg_pinv": lambda args, kwargs: 2 * _svd(args, kwargs),
    "linalg_svd": _svd,
    "linalg_svdvals": _svd,
    "linalg_qr": _qr,
    "linalg_solve": _solve,
    "linalg_solve_triangular": _triangular,
    "linalg_lstsq": _least_squares,
}
