"""Neurons drawn at random: the control that every selection is held against.

Training random neurons cuts attack success nearly as much as training chosen ones, at many more refusals of safe
prompts (ACTR, arXiv 2609.37054).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lingualign.methods.neuron_scores.base import NeuronScore


def random_neurons(count: int, width: int, seed: int) -> Tensor:
    """`count` of `width` indices, ascending, reproducible from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(width, generator=generator)[:count].sort().values


class RandomNeurons:
    """A random order of the neurons, whatever the features say.

    Args:
        like: the score whose count `select` takes without one.
        seed: of the order.
    """

    name: Final = "random"
    citation: Final = "control"
    paired: Final = False

    def __init__(self, like: NeuronScore, seed: int = 0) -> None:
        self.like = like
        self.seed = seed

    def score(self, first: Tensor, _second: Tensor, /) -> Tensor:
        """Minus the place in the random order."""
        width = first.shape[-1]
        order = torch.randperm(width, generator=torch.Generator().manual_seed(self.seed))
        scores = torch.empty(width)
        scores[order] = -torch.arange(width, dtype=torch.float32)
        return scores

    def select(self, first: Tensor, second: Tensor, /, count: int | None = None) -> Tensor:
        """`count` neurons, or as many as `like` selects by its own rule."""
        number = len(self.like.select(first, second)) if count is None else count
        return random_neurons(number, first.shape[-1], self.seed)
