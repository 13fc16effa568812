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
