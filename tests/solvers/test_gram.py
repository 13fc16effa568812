"""Gram matrices by their lower triangles: what the whole product gives, in any number of strips and parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lingualign.solvers import gram
from lingualign.solvers.gram import add_gram, mean_gram, mean_product, whole


def rows(count: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count + width), dtype=dtype) + 1


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_strips_and_parts_add_up_to_the_product(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(gram, "_STRIP", size)
    monkeypatch.setattr(gram, "ROWS_AT_ONCE", size)
    left, right = rows(11, 7), rows(11, 4)
    torch.testing.assert_close(whole(mean_gram(left)), left.T @ left / 11)
    torch.testing.assert_close(mean_product(left, right), left.T @ right / 11)


def test_a_gram_is_added_to_what_is_there_and_above_the_diagonal_means_nothing() -> None:
    first, second = rows(5, 6), rows(9, 6)
    lower = torch.full((6, 6), torch.nan, dtype=torch.float64).triu(1)
    lower[torch.tril_indices(6, 6).unbind()] = (first.T @ first)[torch.tril_indices(6, 6).unbind()]
    add_gram(lower, second)
    torch.testing.assert_close(whole(lower), first.T @ first + second.T @ second)


def test_products_of_float32_are_summed_in_float64() -> None:
    """A hundred thousand rows with a large mean: a float32 sum would be off by 1e-5 and more."""
    values = rows(100_000, 3, torch.float32) + 100
    exact = values.double().T @ values.double() / len(values)
    for found in (whole(mean_gram(values)), mean_product(values, values)):
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=0)
    off = (values.T @ values).double() / len(values) / exact - 1
    assert float(off.abs().max()) > 1e-6, "the test shows nothing"
