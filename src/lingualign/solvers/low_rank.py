"""Rank-constrained ridge regression with a keep penalty, exactly, in primal and dual form.

For row-stacked inputs X (n × d), targets D (n × m) and keep inputs K (k × d) both solvers minimise over ΔWᵀ (d × m)

    ‖X ΔWᵀ − D‖²/n + γ ‖K ΔWᵀ‖²/k + μ ‖ΔW‖²      subject to rank(ΔW) ≤ r,      μ = λ · tr(XᵀX/n + γ KᵀK/k)/d

(arXiv 2602.22554, the edit; the row counts and the trace make γ and λ independent of sample size and scale). With
Q = XᵀX/n + γ KᵀK/k + μI = RᵀR the whitened solution is M̃ = R⁻ᵀXᵀD/n = UΣVᵀ, and by Eckart–Young the optimum is
ΔWᵀ = R⁻¹UᵣΣᵣVᵣᵀ with value ‖D‖²/n − Σ_{i≤r} σᵢ². Since R⁻¹M̃ is the unconstrained solution M, also ΔWᵀ = M Vᵣ Vᵣᵀ:
the rank constraint only projects the outputs, which is why the dual needs no d × d matrix at all.

All arithmetic here is float64: Gram matrices square the condition number. Those given may be sums of float32 products.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lingualign.errors import NumericalError
from lingualign.solvers.gram import add_gram


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
    """Upper factor R with matrix = RᵀR, of which the upper triangle is read.

    Raises:
        NumericalError: the matrix holds NaN or infinity, or is not positive definite.
    """
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(matrix, upper=True)
    # Whatever is not finite in the matrix ends up in the factor's diagonal, or as a pivot that is not positive.
    if int(info) != 0 or not bool(torch.isfinite(factor.diagonal()).all()):
        _check_finite(matrix)
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


def _leading(whitened: Tensor, rank: int | None) -> tuple[Tensor, Tensor]:
    """Leading right singular vectors Vᵣ of M̃ (any × m), (m, r), and all its singular values."""
    if whitened.shape[0] > whitened.shape[1]:
        # Of a tall matrix from M̃ᵀM̃, in a third of the time. What rounding hides of σᵢ² is as little beside the value.
        square = whitened.new_zeros(whitened.shape[1], whitened.shape[1])
        add_gram(square, whitened)
        values, vectors = torch.linalg.eigh(square)
        sigma, right = _above_rounding(values, sum(whitened.shape)).sqrt().flip(0), vectors.flip(1)
    else:
        _, sigma, rows = torch.linalg.svd(whitened, full_matrices=False)
        right = rows.T
    numerical_rank = int((sigma > sigma.max() * 1e-12).sum()) if sigma.numel() else 0
    return right[:, : numerical_rank if rank is None else min(rank, numerical_rank)], sigma


def _above_rounding(values: Tensor, size: int) -> Tensor:
    """Eigenvalues of a Gram matrix; those at the rounding level of sums over `size` terms are zero, since their square
    roots would pass for rank."""
    return torch.where(values > values.max() * size * torch.finfo(values.dtype).eps, values, 0.0)


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
        gram: XᵀX/n, (d, d), of which only the lower triangle is read.
        cross: XᵀD/n, (d, m).
        target_square: ‖D‖²/n.
        keep_gram: KᵀK/k, likewise.
        keep_weight: γ ≥ 0.
        ridge: λ > 0, relative to the mean diagonal of XᵀX/n + γ KᵀK/k, so that it grows with γ.
        rank: r, or None for no constraint.

    Raises:
        NumericalError: the system is not positive definite or not finite.
    """
    gram, cross, keep_gram = gram.double(), cross.double(), keep_gram.double()
    _check_finite(cross)
    system = torch.add(gram, keep_gram, alpha=keep_weight)
    absolute_ridge = ridge * float(system.diagonal().mean())
    system.diagonal().add_(absolute_ridge)
    # A lower triangle by rows is an upper one by columns, which is LAPACK's order: nothing is transposed in memory.
    upper = cholesky(system.T)
    whitened = torch.linalg.solve_triangular(upper.T, cross, upper=False)
    right, sigma = _leading(whitened, rank)
    in_factor = torch.linalg.solve_triangular(upper, whitened @ right, upper=True)
    return Solution(in_factor, right, sigma, target_square, absolute_ridge)


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
    targets = targets / count**0.5
    kernel = stacked.new_zeros(len(stacked), len(stacked))
    add_gram(kernel, stacked.T)
    absolute_ridge = ridge * float(kernel.trace()) / inputs.shape[1]
    _check_finite(kernel, targets)
    values, vectors = torch.linalg.eigh(kernel)
    values = _above_rounding(values, len(values))
    shifted = values + absolute_ridge
    if float(shifted.min()) <= 0.0:
        raise NumericalError("the kernel is singular and `ridge` is zero; raise `ridge`")
    rotated = vectors[: len(targets)].T @ targets
    right, sigma = _leading((values / shifted).sqrt()[:, None] * rotated, rank)
    in_factor = stacked.T @ (vectors @ ((rotated @ right) / shifted[:, None]))
    return Solution(in_factor, right, sigma, float(targets.square().sum()), absolute_ridge)
