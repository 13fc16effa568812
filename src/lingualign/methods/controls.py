"""Placebos: what an edit of the same size does when it carries no information about safety."""

from __future__ import annotations

from dataclasses import replace

import torch

from lingualign.edit import Edit


def sham_edit(edit: Edit, seed: int) -> Edit:
    """An edit in a random direction: same tensors, rows, columns, rank and Frobenius norm of every change.

    Random Gaussian factors are scaled so that ‖ΔW‖ of each tensor equals the original's.
    """
    generator = torch.Generator().manual_seed(seed)
    deltas = {}
    for name, delta in edit.deltas.items():
        out_factor = torch.randn(delta.out_factor.shape, generator=generator)
        in_factor = torch.randn(delta.in_factor.shape, generator=generator)
        # A change of rank 0 has no norm to match.
        scale = frobenius(delta.out_factor, delta.in_factor) / frobenius(out_factor, in_factor) if delta.rank else 0.0
        deltas[name] = replace(delta, out_factor=out_factor * scale, in_factor=in_factor)
    return Edit(deltas, dict(edit.base), {"method": "sham", "seed": seed, "norm_of": dict(edit.manifest)})


def frobenius(out_factor: torch.Tensor, in_factor: torch.Tensor) -> float:
    """‖out · inᵀ‖ without forming the product: tr((outᵀout)(inᵀin)) under the root."""
    square = ((out_factor.double().T @ out_factor.double()) * (in_factor.double().T @ in_factor.double())).sum()
    return float(square.clamp_min(0).sqrt())
