"""The null space basis: orthonormal, silent on the keep set, and usable by the solver unchanged."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lingualign.solvers.low_rank import solve_dual
from lingualign.solvers.null_space import eigenvalue_basis, null_space_basis, smallest_basis


def rows(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(
    k=st.integers(1, 12), d=st.integers(1, 12), energy=st.sampled_from([0.0, 0.01, 0.2, 0.9]), seed=st.integers(0, 999)
)
def test_basis_is_orthonormal_and_carries_at_most_the_allowed_energy(k: int, d: int, energy: float, seed: int) -> None:
    keep = rows(k, d, seed)
    gram = keep.T @ keep / k
    basis = null_space_basis(gram, energy)
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64), rtol=0, atol=1e-10)
    carried = float((keep @ basis).square().sum() / keep.square().sum())
    assert carried <= energy + 1e-10
    # Maximal: the d − k₀ directions left out would, together with any one more, exceed the allowance.
    if energy == 0.0:
        assert basis.shape[1] == max(0, d - k)
    elif basis.shape[1] < d:
        values = torch.linalg.eigvalsh(gram)
        assert float(values[: basis.shape[1] + 1].sum() / values.sum()) > energy


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_threshold_does_not_depend_on_scale(scale: float) -> None:
    keep = rows(30, 8, 3) * torch.logspace(0, -2, 8, dtype=torch.float64)
    gram = keep.T @ keep / 30
    assert 0 < null_space_basis(gram, 0.01).shape[1] < 8
    assert null_space_basis(gram * scale, 0.01).shape == null_space_basis(gram, 0.01).shape


def test_an_edit_solved_in_the_null_space_leaves_the_keep_set_alone() -> None:
    inputs, targets, keep = rows(20, 10, 0), rows(20, 4, 1), rows(6, 10, 2)
    basis = null_space_basis(keep.T @ keep / 6, 0.0)
    free = torch.zeros(0, basis.shape[1], dtype=torch.float64)
    solution = solve_dual(inputs @ basis, targets, free, keep_weight=0.0, ridge=1e-6, rank=None)
    delta_transposed = basis @ solution.in_factor @ solution.out_factor.T
    assert float((keep @ delta_transposed).abs().max()) < 1e-12
    # It is the constrained optimum: the unconstrained one restricted to the same subspace by least squares.
    expected = basis @ torch.linalg.lstsq(inputs @ basis, targets).solution
    torch.testing.assert_close(delta_transposed, expected, rtol=1e-4, atol=1e-5)
    assert solution.explained > 0.05


def test_an_absolute_threshold_counts_eigenvalues_and_a_relative_one_ignores_scale() -> None:
    rotation, _ = torch.linalg.qr(rows(6, 6, 5))
    values = torch.tensor([1e-4, 1e-3, 0.019, 0.021, 1.0, 5.0], dtype=torch.float64)
    gram = rotation @ torch.diag(values) @ rotation.T
    basis = eigenvalue_basis(gram, 2e-2)
    assert basis.shape == (6, 3)
    torch.testing.assert_close(basis @ basis.T, rotation[:, :3] @ rotation[:, :3].T, rtol=0, atol=1e-10)
    assert eigenvalue_basis(gram * 100, 2e-2).shape == (6, 1)
    for scale in (1.0, 100.0):
        # The mean eigenvalue is about 1.007.
        assert eigenvalue_basis(gram * scale, 2e-2, relative=True).shape == (6, 3)


@pytest.mark.parametrize(("ratio", "count"), [(0.6, 6), (0.01, 1), (1.0, 10)])
def test_the_smallest_share_of_the_directions(ratio: float, count: int) -> None:
    keep = rows(40, 10, 6) * torch.logspace(0, -3, 10, dtype=torch.float64)
    gram = keep.T @ keep / 40
    basis = smallest_basis(gram, ratio)
    assert basis.shape == (10, count)
    carried = torch.linalg.eigvalsh(basis.T @ gram @ basis)
    torch.testing.assert_close(carried, torch.linalg.eigvalsh(gram)[:count], rtol=1e-6, atol=1e-12)
