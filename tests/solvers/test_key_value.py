"""MEMIT's and AlphaEdit's closed forms, as published, and that they are optima of their objectives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lingualign.solvers.key_value import in_subspace, solve_keys, solve_with_covariance
from lingualign.solvers.low_rank import Solution
from lingualign.solvers.null_space import eigenvalue_basis


def rows(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def change(solution: Solution) -> torch.Tensor:
    return solution.out_factor @ solution.in_factor.T


@settings(max_examples=40)
@given(n=st.integers(1, 9), p=st.integers(0, 9), d=st.integers(1, 9), L2=st.sampled_from([0.1, 1.0, 10.0]))
def test_sums_over_keys_whichever_solver_is_cheaper(n: int, p: int, d: int, L2: float) -> None:
    keys, residuals, past = rows(n, d, 1), rows(n, 4, 2), rows(p, d, 3)
    system = keys.T @ keys + past.T @ past + L2 * torch.eye(d, dtype=torch.float64)
    expected = residuals.T @ keys @ torch.linalg.inv(system)
    solution = solve_keys(keys, residuals, past, L2)
    torch.testing.assert_close(change(solution), expected, rtol=1e-8, atol=1e-10)
    assert solution.rank <= n


@pytest.mark.parametrize("n", [5, 40], ids=["few keys", "many keys"])
def test_alpha_edit_is_the_published_formula_and_the_optimum(n: int) -> None:
    d, L2 = 20, 3.0
    keys, residuals, past, keep = rows(n, d, 0), rows(n, 6, 1), rows(4, d, 2), rows(11, d, 3)
    basis = eigenvalue_basis(keep.T @ keep / 11, 0.5)
    assert 9 < basis.shape[1] < d
    found = change(in_subspace(keys, residuals, past, basis, L2))
    K1, Kp, R, P = keys.T, past.T, residuals.T, basis @ basis.T
    eye = torch.eye(d, dtype=torch.float64)
    published = R @ K1.T @ P @ torch.linalg.inv(Kp @ Kp.T @ P + K1 @ K1.T @ P + L2 * eye)
    torch.testing.assert_close(found, published, rtol=1e-8, atol=1e-10)
    # The change is ΔP already, and a stationary point of the convex objective in Δ.
    torch.testing.assert_close(found @ P, found, rtol=0, atol=1e-12)
    free = found.clone().requires_grad_()
    moved = free @ P
    objective = (moved @ K1 - R).square().sum() + L2 * moved.square().sum() + (moved @ Kp).square().sum()
    objective.backward()
    assert free.grad is not None
    assert float(free.grad.abs().max()) < 1e-10


def test_memit_is_the_published_formula() -> None:
    n, d = 7, 12
    keys, residuals, past, keep = rows(n, d, 0), rows(n, 5, 1), rows(3, d, 2), rows(50, d, 3)
    gram = keep.T @ keep / 50
    found = change(solve_with_covariance(keys, residuals, past, gram, weight=20.0, ridge=0.0))
    system = past.T @ past + keys.T @ keys + 20.0 * gram
    torch.testing.assert_close(found, residuals.T @ keys @ torch.linalg.inv(system), rtol=1e-8, atol=1e-10)
