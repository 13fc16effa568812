"""Sparse Weight Editing's rule: neurons that stand out by size or by consistency (arXiv 2602.22554, appendix B)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lingualign.errors import ConfigError
from lingualign.methods.neuron_scores.base import standardised, top


def magnitude_score(harmful: Tensor, harmless: Tensor) -> Tensor:
    """z of each neuron's mean difference among all neurons of the layer (population standard deviation). Shape
    (neurons,)."""
    return standardised(harmful.mean(0) - harmless.mean(0))


def effect_size(harmful: Tensor, harmless: Tensor) -> Tensor:
    """Cohen's d of each neuron with the pooled sample standard deviation. Shape (neurons,)."""
    first, second = harmful.shape[0], harmless.shape[0]
    if min(first, second) < 2:
        raise ConfigError(
            "neuron selection needs at least two harmful and two harmless prompts in the reference language"
        )
    pooled = ((first - 1) * harmful.var(0) + (second - 1) * harmless.var(0)) / (first + second - 2)
    return (harmful.mean(0) - harmless.mean(0)) / pooled.sqrt().clamp_min(1e-12)


class MagnitudeOrEffect:
    """Union of the magnitude set z > τ_mag and the effect-size set d > τ_stat, one-sided.

    The paper gives a set and no order. Ours: by how far a neuron exceeds a threshold, max(z - τ_mag, d - τ_stat), which
    is positive exactly in the union.

    Args:
        magnitude_threshold: τ_mag.
        effect_threshold: τ_stat.
    """

    name: Final = "z or d"
    citation: Final = "arXiv 2602.22554, appendix B"
    paired: Final = False

    def __init__(self, magnitude_threshold: float = 2.0, effect_threshold: float = 1.0) -> None:
        self.magnitude_threshold = magnitude_threshold
        self.effect_threshold = effect_threshold

    def score(self, harmful: Tensor, harmless: Tensor, /) -> Tensor:
        """By how far z or d exceeds its threshold."""
        return torch.maximum(
            magnitude_score(harmful, harmless) - self.magnitude_threshold,
            effect_size(harmful, harmless) - self.effect_threshold,
        )

    def select(self, harmful: Tensor, harmless: Tensor, /, count: int | None = None) -> Tensor:
        """The union, or the `count` highest scores."""
        scores = self.score(harmful, harmless)
        return (scores > 0).nonzero().flatten() if count is None else top(scores, count)
