"""PLND, parallel detection by what a neuron's removal does (Zhao et al., arXiv 2402.18815; SN-Tune, ICLR 2025).

Removing neuron k of the MLP changes its output by ‖(h ∗ mask_k) W_down‖₂ = ‖h_k‖ · ‖W_down[:, k]‖, where ‖h_k‖ is taken
over the tokens: all neurons at once, without a second forward pass. A neuron counts if it is among the strongest of
*every* prompt.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lingualign.errors import ConfigError
from lingualign.methods.neuron_scores.base import top


def worst_rank(importance: Tensor) -> Tensor:
    """The lowest place, 1 the best, that each neuron takes in any prompt.

    The neurons with a worst rank of at most k are exactly those among the k strongest of every prompt.

    Args:
        importance: (prompts, neurons).

    Returns:
        (neurons,) int64.
    """
    order = importance.argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks.scatter_(1, order, torch.arange(1, order.shape[1] + 1, device=order.device).expand_as(order))
    return ranks.amax(0)


class Plnd:
    """Intersection over harmful prompts of the neurons whose removal changes the MLP's output most.

    Args:
        top_number: neurons per prompt; 12,000 in the detector's release and 2,000 in the safety release, of 14,336 in
            Llama-3-8B.
        column_norms: (neurons,) ‖W_down[:, k]‖. With it the score is the paper's, on activations that enter
            `down_proj`. Without it, it is what the released code computes, on outputs of `up_proj`: no gate, no
            down-projection.
    """

    name: Final = "PLND"
    citation: Final = "arXiv 2402.18815; SN-Tune, ICLR 2025"
    paired: Final = False

    def __init__(self, top_number: int = 2000, column_norms: Tensor | None = None) -> None:
        self.top_number = top_number
        self.column_norms = column_norms

    def importance(self, activations: Tensor) -> Tensor:
        """‖δ‖ of each neuron's removal, (prompts, neurons).

        Args:
            activations: (prompts, neurons), or (prompts, tokens, neurons) for a norm over the tokens (the paper) or a
                sum of magnitudes over them (the release).
        """
        values = activations if activations.dim() == 3 else activations[:, None]
        if self.column_norms is None:
            return values.abs().sum(1)
        norms: Tensor = torch.linalg.vector_norm(values, dim=1)
        return norms * self.column_norms

    def score(self, harmful: Tensor, _harmless: Tensor, /) -> Tensor:
        """Minus the worst rank. Harmless prompts play no part; RSN-Tune subtracts a second set found on them."""
        return -worst_rank(self.importance(harmful)).float()

    def select(self, harmful: Tensor, harmless: Tensor, /, count: int | None = None) -> Tensor:
        """The intersection of every prompt's `top_number` strongest, or the `count` highest scores.

        Raises:
            ConfigError: `top_number` takes every neuron.
        """
        scores = self.score(harmful, harmless)
        if count is not None:
            return top(scores, count)
        if self.top_number >= len(scores):
            raise ConfigError(
                f"top_number = {self.top_number} selects all {len(scores)} neurons of this layer; give a smaller one"
            )
        return (scores >= -self.top_number).nonzero().flatten()
