"""Rank-constrained ridge regression with a keep penalty, exactly, in primal and dual form.

For row-stacked inputs X (n × d), targets D (n × m) and keep inputs K (k × d) both solvers minimise over ΔWᵀ (d × m)

    ‖X ΔWᵀ − D‖²/n + γ ‖K ΔWᵀ‖²/k + μ ‖ΔW‖²      subject to rank(ΔW) ≤ r,      μ = λ · tr(XᵀX/n + γ KᵀK/k)/d

(arXiv 2602.22554, the edit; the row counts and the trace make γ and λ independent of sample size and scale). With
Q = XᵀX/n + γ KᵀK/k + μI = RᵀR the whitened solution is M̃ = R⁻ᵀXᵀD/n = UΣVᵀ, and by Eckart–Young the optimum is
ΔWᵀ = R⁻¹UᵣΣᵣVᵣᵀ with value ‖D‖²/n − Σ_{i≤r} σᵢ². Since R⁻¹M̃ is the unconstrained solution M, also ΔWᵀ = M Vᵣ Vᵣᵀ:
the rank constraint only projects the outputs, which is why the dual needs no d × d matrix at all.

All arithmetic is float64: d is a hidden width, so this costs seconds, and Gram matrices square the condition number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lingualign.errors import NumericalError


@dataclass(frozen=True)
class Solution:
    """The minimiser in factored form, ΔW = out_factor · in_factorᵀ.

    The first r' columns of both factors are the minimiser of rank r' ≤ r: one solve serves all ranks.

    Attributes:
        in_factor: (d, r).
        out_factor: (m, r), orthonormal columns.
        singular_values: (min(n, d, m),) or fewer, all singular values of M̃, descending; σᵢ² is what rank i buys.
        target_square: ‖D‖²/n, the objective of ΔW = 0.
        ridge: the absolute μ that λ stood for.
    """

    in_factor: Tensor
    out_factor: Tensor
    singular_values: Tensor
    target_square: float
    ridge: float

    @property
    def rank(self) -> int:
        return self.in_factor.shape[1]

    @property
    def objective(self) -> float:
        """Optimal value ‖D‖²/n − Σ_{i≤r} σᵢ²."""
        return self.target_square - float(self.singular_values[: self.rank].square().sum())

    @property
    def explained(self) -> float:
        """Share of the target's energy that the edit removes from the objective, 0 to 1."""
        return 1.0 - self.objective / self.target_square if self.target_square > 0 else 0.0


def cholesky(matrix: Tensor) -> Tensor:
    """Upper factor R with matrix = RᵀR.

    Raises:
        NumericalError: the matrix holds NaN or infinity, or is not positive definite.
    """
    _check_finite(matrix)
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(matrix, upper=True)
    if int(info) != 0:
        raise NumericalError(
            f"the system of size {matrix.shape[0]} is not positive definite (pivot {int(info)}); "
            "raise `ridge` or add anchors"
        )
    return factor


def _check_finite(*values: Tensor) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in values):
        raise NumericalError(
            "the features hold NaN or infinite values; load the model in float32 and check its weights"
        )


def _truncate(
    whitened: Tensor, unconstrained: Tensor, rank: int | None, target_square: float, ridge: float
) -> Solution:
    """Keeps the leading right singular vectors of M̃ (whitened, any × m) and projects M (d × m) on them."""
    _, sigma, right = torch.linalg.svd(whitened, full_matrices=False)
    numerical_rank = int((sigma > sigma.max() * 1e-12).sum()) if sigma.numel() else 0
    kept = numerical_rank if rank is None else min(rank, numerical_rank)
    out_factor = right[:kept].T
    return Solution(unconstrained @ out_factor, out_factor, sigma, target_square, ridge)


def solve_primal(
    gram: Tensor,
    cross: Tensor,
    target_square: float,
    keep_gram: Tensor,
    *,
    keep_weight: float,
    ridge: float,
    rank: int | None,
) -> Solution:
    """Solves from second moments; cost O(d³ + d²m), independent of the number of rows.

    Args:
        gram: XᵀX/n, (d, d).
        cross: XᵀD/n, (d, m).
        target_square: ‖D‖²/n.
        keep_gram: KᵀK/k, (d, d).
        keep_weight: γ ≥ 0.
        ridge: λ > 0, relative to the mean diagonal of XᵀX/n + γ KᵀK/k, so that it grows with γ.
        rank: r, or None for no constraint.

    Raises:
        NumericalError: the system is not positive definite or not finite.
    """
    gram, cross, keep_gram = gram.double(), cross.double(), keep_gram.double()
    _check_finite(gram, cross, keep_gram)
    system = gram + keep_weight * keep_gram
    absolute_ridge = ridge * float(system.diagonal().mean())
    system.diagonal().add_(absolute_ridge)
    upper = cholesky(system)
    whitened = torch.linalg.solve_triangular(upper.T, cross, upper=False)
    unconstrained = torch.linalg.solve_triangular(upper, whitened, upper=True)
    return _truncate(whitened, unconstrained, rank, target_square, absolute_ridge)


def solve_dual(
    inputs: Tensor,
    targets: Tensor,
    keep_inputs: Tensor,
    *,
    keep_weight: float,
    ridge: float,
    rank: int | None,
) -> Solution:
    """Solves from rows through the (n+k) × (n+k) kernel; cost O((n+k)³ + (n+k)²d), the cheaper form when n + k < d.

    With Z = [X/√n; √(γ/k) K] and T = [D/√n; 0] the solution is M = Zᵀ(ZZᵀ + μI)⁻¹T, and
    M̃ᵀM̃ = Tᵀ ZZᵀ (ZZᵀ + μI)⁻¹ T gives the same singular values as the primal form.

    Args:
        inputs: X, (n, d).
        targets: D, (n, m).
        keep_inputs: K, (k, d).
        keep_weight, ridge, rank: as in `solve_primal`.

    Raises:
        NumericalError: the features are not finite, or λ is zero while the kernel is singular.
    """
    inputs, targets, keep_inputs = inputs.double(), targets.double(), keep_inputs.double()
    count, keep_count = max(1, inputs.shape[0]), max(1, keep_inputs.shape[0])
    stacked = torch.cat([inputs / count**0.5, keep_inputs * (keep_weight / keep_count) ** 0.5])
    right_side = torch.cat([targets / count**0.5, targets.new_zeros(keep_inputs.shape[0], targets.shape[1])])
    kernel = stacked @ stacked.T
    absolute_ridge = ridge * float(kernel.trace()) / inputs.shape[1]
    _check_finite(kernel, right_side)
    values, vectors = torch.linalg.eigh(kernel)
    # Eigenvalues at rounding level are zero: their square roots below would pass for rank.
    values = torch.where(values > values.max() * len(values) * torch.finfo(values.dtype).eps, values, 0.0)
    shifted = values + absolute_ridge
    if float(shifted.min()) <= 0.0:
        raise NumericalError("the kernel is singular and `ridge` is zero; raise `ridge`")
    rotated = vectors.T @ right_side
    whitened = (values / shifted).sqrt()[:, None] * rotated
    unconstrained = stacked.T @ (vectors @ (rotated / shifted[:, None]))
    return _truncate(whitened, unconstrained, rank, float(right_side.square().sum()), absolute_ridge)
