"""Moments: the same numbers as numpy over all rows, in any split and order."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lingualign.features.moments import Moments


def random_rows(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 3 + 1


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 40),
    width=st.integers(1, 8),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    seed=st.integers(0, 99),
)
def test_any_split_adds_up_to_what_numpy_computes(count: int, width: int, cuts: list[int], seed: int) -> None:
    rows = random_rows(count, width, seed)
    parted, whole = Moments.empty(width), Moments.empty(width)
    for part in torch.tensor_split(rows, sorted(cut for cut in cuts if cut <= count)):
        parted.add(part)
    whole.add(rows)
    values = rows.numpy().astype(np.float64)
    for moments in (parted, whole):
        assert moments.count == count
        np.testing.assert_allclose(moments.mean.numpy(), values.mean(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(moments.gram.numpy(), values.T @ values / count, rtol=1e-5, atol=1e-5)
        assert moments.outer.dtype == moments.total.dtype == torch.float64


def test_what_is_taken_out_leaves_the_moments_of_the_rest() -> None:
    rows = random_rows(30, 5, 1)
    whole, part, rest = Moments.empty(5), Moments.empty(5), Moments.empty(5)
    whole.add(rows)
    part.add(rows[:12])
    rest.add(rows[12:])
    left = whole.without(part)
    assert left.count == 18
    torch.testing.assert_close(left.gram, rest.gram, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(left.mean, rest.mean, rtol=1e-5, atol=1e-5)


def test_positions_are_rows_too() -> None:
    rows = random_rows(24, 5, 0)
    flat, stacked = Moments.empty(5), Moments.empty(5)
    flat.add(rows)
    stacked.add(rows.reshape(6, 4, 5))
    assert stacked.count == 24
    assert torch.equal(stacked.outer, flat.outer)


def test_nothing_added_is_zero() -> None:
    assert Moments.empty(3).gram.abs().sum() == 0


def test_many_batches_do_not_lose_precision() -> None:
    """A million rows with a large mean: float32 running sums would be off by more than 1e-4."""
    rows = random_rows(1000, 2, 3) + 100
    moments = Moments.empty(2)
    for _ in range(1000):
        moments.add(rows)
    values = rows.numpy().astype(np.float64)
    np.testing.assert_allclose(moments.gram.numpy(), values.T @ values / 1000, rtol=1e-6)
