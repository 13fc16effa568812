"""Cohen's d alone: how many pooled standard deviations lie between harmful and harmless prompts."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from lingualign.methods.neuron_scores.base import top
from lingualign.methods.neuron_scores.magnitude_or_effect import effect_size


class CohensD:
    """d of each neuron, one-sided: neurons that fire more on harmful prompts.

    Args:
        threshold: what `select` takes without a count. 1 in arXiv 2602.22554; its sibling SafeNeuron (arXiv 2602.12158)
            has 3 for Qwen and 2 for Llama.
    """

    name: Final = "Cohen's d"
    citation: Final = "Cohen 1988; arXiv 2602.22554, appendix B"
    paired: Final = False

    def __init__(self, threshold: float = 1.0) -> None:
        self.threshold = threshold

    def score(self, harmful: Tensor, harmless: Tensor, /) -> Tensor:
        """d."""
        return effect_size(harmful, harmless)

    def select(self, harmful: Tensor, harmless: Tensor, /, count: int | None = None) -> Tensor:
        """d above the threshold, or the `count` highest."""
        scores = self.score(harmful, harmless)
        return (scores > self.threshold).nonzero().flatten() if count is None else top(scores, count)
