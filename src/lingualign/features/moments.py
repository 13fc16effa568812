"""Second moments of feature rows, additive over batches, languages and ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lingualign.solvers.gram import add_gram, whole


@dataclass
class Moments:
    """Count, sum and sum of outer products of rows; products in float32, sums over them in float64.

    Attributes:
        count: number of rows n.
        total: (d,) sum of rows.
        outer: (d, d) sum of outer products, by its lower triangle (`solvers.gram`).
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
        add_gram(self.outer, values)

    def without(self, part: Moments) -> Moments:
        """Moments of these rows less those of `part`, which must be some of them."""
        return Moments(self.count - part.count, self.total - part.total, self.outer - part.outer)

    @property
    def mean(self) -> Tensor:
        return self.total / max(1, self.count)

    @property
    def gram(self) -> Tensor:
        """Mean second moment, rowsᵀ rows / n."""
        return whole(self.outer / max(1, self.count))
