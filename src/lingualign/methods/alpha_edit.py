"""AlphaEdit (Fang et al., ICLR 2025, arXiv 2410.02355) and MEMIT (Meng et al., ICLR 2023, arXiv 2210.07229), two model
editors made for facts, on refusals.

    MEMIT      Δ = R K₁ᵀ (K_p K_pᵀ + K₁ K₁ᵀ + K₀ K₀ᵀ)⁻¹
    AlphaEdit  Δ = R K₁ᵀ P (K_p K_pᵀ P + K₁ K₁ᵀ P + L₂ I)⁻¹

with column-stacked keys as published: K₁ to be edited, K_p edited before, K₀ to be kept, and P the projector on the
directions that K₀ hardly uses. What stands for them here is in `key_values.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from torch import Tensor

from lingualign.errors import ConfigError
from lingualign.features.positions import Positions
from lingualign.methods.key_values import Batches, KeyValueEdit, LayerSolver
from lingualign.solvers.key_value import in_subspace, solve_with_covariance
from lingualign.solvers.low_rank import Solution
from lingualign.solvers.null_space import eigenvalue_basis

_SHARED: Final = (
    "equal: down_proj is edited, layers in order, residuals read anew and divided by the layers left, past keys kept",
    "differs: a key is the input of down_proj at a template token, not at the last token of a fact's subject",
    "differs: the value is the layer's own output for the reference prompt, not a residual state behind the last "
    "edited layer that gradient steps made; there is no gradient",
    "differs: what is kept is the keep set of the fit split in all languages, not 100,000 texts of English Wikipedia",
)


class AlphaEdit(KeyValueEdit):
    """The edit confined to the null space of what is to be kept.

    Args:
        nullspace_threshold: largest eigenvalue of the keep set's mean second moment that counts as null. 2e-2 in the
            authors' code, 1e-2 in the paper; the number depends on the features' scale.
        threshold: `absolute` as published, or `relative` to the mean eigenvalue.
        L2: weight of ‖ΔP‖²; 10 in the authors' code, 1 in the paper's equation and in EasyEdit.
        layers, layer_count, split, batches, positions: see `KeyValueEdit`. The authors edit blocks 4 to 8 of
            Llama-3-8B.
    """

    method = "alpha-edit"
    citation = "arXiv 2410.02355"
    faithfulness = (
        "equal: the closed form, P from eigenvectors of a mean second moment below a threshold, L2",
        *_SHARED,
    )

    def __init__(
        self,
        *,
        nullspace_threshold: float = 2e-2,
        threshold: Literal["absolute", "relative"] = "absolute",
        L2: float = 10.0,
        layers: Sequence[int] | Literal["auto"] = "auto",
        layer_count: int = 5,
        split: bool = True,
        batches: Batches = "all",
        positions: Positions | None = None,
    ) -> None:
        super().__init__(layers=layers, layer_count=layer_count, split=split, batches=batches, positions=positions)
        self.nullspace_threshold = nullspace_threshold
        self.threshold = threshold
        self.L2 = L2
        if L2 <= 0:
            raise ConfigError(f"L2 is {L2}; it must be positive, such as 10")

    def prepare(self, keep_gram: Tensor) -> tuple[LayerSolver, dict[str, Any]]:
        basis = eigenvalue_basis(keep_gram, self.nullspace_threshold, relative=self.threshold == "relative")
        if basis.shape[1] == 0:
            raise ConfigError(
                f"no direction of the keep set lies below nullspace_threshold {self.nullspace_threshold:g}; raise it, "
                "or give threshold='relative'"
            )

        def solve(keys: Tensor, residuals: Tensor, past_keys: Tensor) -> Solution:
            return in_subspace(keys, residuals, past_keys, basis, self.L2)

        return solve, {"null_directions": basis.shape[1]}


class Memit(KeyValueEdit):
    """The edit that pays for changes of what is to be kept.

    Args:
        mom2_update_weight: how many keys the keep set's mean second moment stands for: K₀K₀ᵀ is that many times it.
            15,000 in MEMIT's settings for GPT-J.
        ridge: added to the diagonal, relative to its mean. MEMIT has none: its covariance has full rank. That of a keep
            set of few rows has not, and is only as exact as sums in float32 are.
        layers, layer_count, split, batches, positions: see `KeyValueEdit`.
    """

    method = "memit"
    citation = "arXiv 2210.07229"
    faithfulness = (
        "equal: the closed form, with a mean second moment times mom2_update_weight for what is kept",
        "differs: a small ridge, since the keep set may have fewer rows than the matrix has columns",
        *_SHARED,
    )

    def __init__(
        self,
        *,
        mom2_update_weight: float = 15_000.0,
        ridge: float = 1e-3,
        layers: Sequence[int] | Literal["auto"] = "auto",
        layer_count: int = 5,
        split: bool = True,
        batches: Batches = "all",
        positions: Positions | None = None,
    ) -> None:
        super().__init__(layers=layers, layer_count=layer_count, split=split, batches=batches, positions=positions)
        self.mom2_update_weight = mom2_update_weight
        self.ridge = ridge

    def prepare(self, keep_gram: Tensor) -> tuple[LayerSolver, dict[str, Any]]:
        def solve(keys: Tensor, residuals: Tensor, past_keys: Tensor) -> Solution:
            return solve_with_covariance(keys, residuals, past_keys, keep_gram, self.mom2_update_weight, self.ridge)

        return solve, {}
