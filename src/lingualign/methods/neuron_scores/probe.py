"""NeuroStrike's linear probe (Wu et al., NDSS 2026, arXiv 2509.11864), its identification step only."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lingualign.methods.neuron_scores.base import standardised, top


class Probe:
    """Weights of a logistic regression that tells harmful from harmless rows, z-scored over the neurons.

    As in their code: full batch, Adam, learning rate 1e-3, weight decay 1e-3, 5,000 epochs. Their features are maxima
    over all tokens, padding included; here they are whatever is given.

    Args:
        threshold: z that `select` takes without a count.
        epochs: steps of the optimiser.
        seed: of the initial weights.
    """

    name: Final = "probe"
    citation: Final = "NeuroStrike, arXiv 2509.11864"
    paired: Final = False

    def __init__(self, threshold: float = 3.0, epochs: int = 5000, seed: int = 1234) -> None:
        self.threshold = threshold
        self.epochs = epochs
        self.seed = seed

    def score(self, harmful: Tensor, harmless: Tensor, /) -> Tensor:
        """z of each neuron's weight."""
        return standardised(self._weights(harmful, harmless))

    def select(self, harmful: Tensor, harmless: Tensor, /, count: int | None = None) -> Tensor:
        """z above the threshold with a positive weight, or the `count` highest."""
        weights = self._weights(harmful, harmless)
        scores = standardised(weights)
        if count is not None:
            return top(scores, count)
        return ((scores > self.threshold) & (weights > 0)).nonzero().flatten()

    def _weights(self, harmful: Tensor, harmless: Tensor) -> Tensor:
        features = torch.cat([harmful, harmless])
        labels = torch.cat([torch.ones(len(harmful)), torch.zeros(len(harmless))])
        generator = torch.Generator().manual_seed(self.seed)
        bound = features.shape[1] ** -0.5
        weight = ((torch.rand(features.shape[1], generator=generator) * 2 - 1) * bound).requires_grad_()
        bias = torch.zeros(1, requires_grad=True)
        optimiser = torch.optim.Adam([weight, bias], lr=1e-3, weight_decay=1e-3)
        for _ in range(self.epochs):
            optimiser.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(features @ weight + bias, labels)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
            optimiser.step()
        learned: Tensor = weight.detach()
        return learned
