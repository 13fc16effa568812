"""Second moments of feature rows, additive over batches, languages and ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """Count, sum and sum of outer products of rows; batches in float32, running sums in float64.

    Attributes:
        count: number of rows n.
        total: (d,) sum of rows.
        outer: (d, d) sum of outer products.
    """

    count: int
    total: Tensor
    outer: Tensor

    @classmethod
    def empty(cls, width: int) -> Moments:
        return cls(0, torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64))

    def add(self, rows: Tensor) -> None:
        """Adds rows (n, d)."""
        values = rows.reshape(-1, rows.shape[-1]).float()
        self.count += values.shape[0]
        self.total += values.sum(0, dtype=torch.float64)
        # A batch has a few hundred rows: its product is exact enough in float32, and four times faster; the running
        # sum is float64.
        self.outer += values.T @ values

    def merged(self, other: Moments) -> Moments:
        """Moments of both sets of rows together."""
        return Moments(self.count + other.count, self.total + other.total, self.outer + other.outer)

    def without(self, part: Moments) -> Moments:
        """Moments of these rows less those of `part`, which must be some of them."""
        return Moments(self.count - part.count, self.total - part.total, self.outer - part.outer)

    def weighted(self, weight: float) -> Moments:
        """Moments of the same rows, each counted `weight` times (the count is rounded)."""
        return Moments(round(weight * self.count), weight * self.total, weight * self.outer)

    @property
    def mean(self) -> Tensor:
        return self.total / max(1, self.count)

    @property
    def gram(self) -> Tensor:
        """Mean second moment, rowsᵀ rows / n."""
        return self.outer / max(1, self.count)
