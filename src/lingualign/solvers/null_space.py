"""The hard null space of the keep set (AlphaEdit, arXiv 2410.02355, equation 3), as a basis rather than a projector.

Writing ΔWᵀ = U₀Z turns the constrained problem into the same problem in fewer dimensions, so either solver is reused
unchanged and the edit's input factor stays inside the null space exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor


def null_space_basis(keep_gram: Tensor, energy: float) -> Tensor:
    """Orthonormal basis U₀ (d × k₀) of the directions that carry at most `energy` of the keep set's second moment.

    Args:
        keep_gram: KᵀK/k, (d, d), positive semi-definite.
        energy: share of the trace that may remain in the null space, 0 ≤ energy < 1. AlphaEdit thresholds eigenvalues
            instead (2e-2 of a mean second moment), a number that changes meaning with the model's scale.
    """
    values, vectors = torch.linalg.eigh(keep_gram.double())
    values = values.clamp_min(0.0)
    # Eigenvalues ascend: take the longest prefix whose sum stays within the allowed energy.
    allowed = torch.cumsum(values, 0) <= energy * values.sum() + 1e-12 * values.sum()
    basis: Tensor = vectors[:, allowed]
    return basis


def eigenvalue_basis(keep_gram: Tensor, threshold: float, *, relative: bool = False) -> Tensor:
    """Orthonormal basis (d × k₀) of the eigenvectors whose eigenvalue is at most the threshold: AlphaEdit's own rule.

    Args:
        keep_gram: KᵀK/k, (d, d), positive semi-definite.
        threshold: largest eigenvalue kept. Its meaning depends on the features' scale.
        relative: whether the threshold is in units of the mean eigenvalue, which makes it independent of scale.
    """
    values, vectors = torch.linalg.eigh(keep_gram.double())
    limit = threshold * float(values.mean()) if relative else threshold
    basis: Tensor = vectors[:, values <= limit]
    return basis


def smallest_basis(keep_gram: Tensor, ratio: float) -> Tensor:
    """Orthonormal basis (d × k₀) of the share `ratio` of the eigenvectors with the smallest eigenvalues (AlphaSteer,
    arXiv 2506.07022: at least one)."""
    _, vectors = torch.linalg.eigh(keep_gram.double())
    basis: Tensor = vectors[:, : max(1, round(ratio * keep_gram.shape[0]))]
    return basis
