"""Gram matrices by their lower triangles, which is half of the work.

A lower triangle stands for a symmetric matrix: what lies above its diagonal means nothing. LAPACK's routines for
symmetric matrices, and so torch's, read one triangle only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Rows of the result that one product gives: with what it is added to it fits a core's cache.
_STRIP = 256
#: Rows that one product sums, in float32 where they are float32. Its error is at most 1024 · 2⁻²⁴ = 6e-5 of √(Gᵢᵢ Gⱼⱼ)
#: and about 2e-7 as rounding goes; sums over products are float64, so that it does not grow with the number of rows.
ROWS_AT_ONCE = 1024


def _parts(rows: Tensor) -> Sequence[Tensor]:
    """Rows by as many as one product sums, at most."""
    return rows.tensor_split(max(1, -(-len(rows) // ROWS_AT_ONCE)))


def add_gram(lower: Tensor, rows: Tensor, factor: float = 1.0) -> None:
    """Adds factor · rowsᵀ rows to a lower triangle in place.

    Args:
        lower: (d, d) float64.
        rows: (n, d), in the dtype that products are taken in.
        factor: any number.
    """
    for part in _parts(rows):
        for start in range(0, rows.shape[1], _STRIP):
            stop = start + _STRIP
            lower[start:stop, :stop].add_(part[:, start:stop].T @ part[:, :stop], alpha=factor)


def mean_gram(rows: Tensor) -> Tensor:
    """Lower triangle of rowsᵀ rows / n, (d, d) float64; rows as for `add_gram`."""
    lower = rows.new_zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    add_gram(lower, rows, 1 / max(1, rows.shape[0]))
    return lower


def mean_product(rows: Tensor, others: Tensor) -> Tensor:
    """rowsᵀ others / n, (d, m) float64, for rows (n, d) and others (n, m); dtypes as for `add_gram`."""
    total = rows.new_zeros(rows.shape[1], others.shape[1], dtype=torch.float64)
    for part, other in zip(_parts(rows), _parts(others), strict=True):
        total += part.T @ other
    return total.div_(max(1, rows.shape[0]))


def whole(lower: Tensor) -> Tensor:
    """The symmetric matrix that a lower triangle stands for."""
    return lower.tril() + lower.tril(-1).T
