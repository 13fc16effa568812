"""The least-squares problem of MEMIT and AlphaEdit in their own units: sums over keys instead of means.

For row-stacked keys K (n × d), residuals R (n × m) and past keys K_p (p × d)

    min ‖K ΔWᵀ − R‖² + ‖K_p ΔWᵀ‖² + L₂ ‖ΔW‖²        ⇒        ΔW = Rᵀ K (KᵀK + K_pᵀK_p + L₂ I)⁻¹

is ridge regression with a keep penalty (`solvers/low_rank.py`) under other weights: γ = p/n and μ = L₂/n.
"""

from __future__ import annotations

from torch import Tensor

from lingualign.solvers.low_rank import Solution, solve_dual, solve_primal


def solve_keys(keys: Tensor, residuals: Tensor, past_keys: Tensor, penalty: float) -> Solution:
    """The minimiser, factored exactly: its rank is at most the number of keys.

    Args:
        keys: K, (n, d).
        residuals: R, (n, m).
        past_keys: K_p, (p, d); p may be 0.
        penalty: L₂ > 0.

    Raises:
        NumericalError: the features are not finite, or the system is singular.
    """
    keys, residuals, past_keys = keys.double(), residuals.double(), past_keys.double()
    count, past_count = keys.shape[0], past_keys.shape[0]
    energy = float(keys.square().sum() + past_keys.square().sum())
    ridge = penalty * keys.shape[1] / energy
    if count + past_count < keys.shape[1]:
        return solve_dual(keys, residuals, past_keys, keep_weight=past_count / count, ridge=ridge, rank=None)
    return solve_primal(
        keys.T @ keys / count,
        keys.T @ residuals / count,
        float(residuals.square().sum()) / count,
        past_keys.T @ past_keys / count,
        keep_weight=1.0,
        ridge=ridge,
        rank=None,
    )


def solve_with_covariance(
    keys: Tensor, residuals: Tensor, past_keys: Tensor, keep_gram: Tensor, weight: float, ridge: float
) -> Solution:
    """MEMIT's ΔW = Rᵀ K (KᵀK + K_pᵀK_p + w C)⁻¹ with C the mean second moment of what is to be kept.

    Args:
        keys, residuals, past_keys: as in `solve_keys`.
        keep_gram: C, (d, d).
        weight: w, how many keys the covariance stands for.
        ridge: added to the diagonal, relative to its mean; MEMIT's covariance has full rank and needs none.

    Raises:
        NumericalError: the system is singular, or not finite.
    """
    keys, residuals, past_keys = keys.double(), residuals.double(), past_keys.double()
    count = keys.shape[0]
    return solve_primal(
        keys.T @ keys / count,
        keys.T @ residuals / count,
        float(residuals.square().sum()) / count,
        (weight * keep_gram.double() + past_keys.T @ past_keys) / count,
        keep_weight=1.0,
        ridge=ridge,
        rank=None,
    )


def in_subspace(keys: Tensor, residuals: Tensor, past_keys: Tensor, basis: Tensor, penalty: float) -> Solution:
    """AlphaEdit's ΔW = Rᵀ K P (K_pᵀK_p P + KᵀK P + L₂ I)⁻¹ with P = U₀U₀ᵀ, for the basis U₀ (d × k₀).

    Since U₀ᵀ(CP + L₂I)⁻¹ = (U₀ᵀCU₀ + L₂I)⁻¹U₀ᵀ, it is `solve_keys` in the coordinates of U₀: symmetric, and smaller.
    """
    solution = solve_keys(keys.double() @ basis, residuals, past_keys.double() @ basis, penalty)
    return Solution(
        basis @ solution.in_factor,
        solution.out_factor,
        solution.singular_values,
        solution.target_square,
        solution.ridge,
    )
