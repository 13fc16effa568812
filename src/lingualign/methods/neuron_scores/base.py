"""The interface of all neuron scores."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class NeuronScore(Protocol):
    """Scores the neurons of one layer from two groups of rows, and selects some.

    Attributes:
        name: short, as tables show it.
        citation: where the score is from.
        paired: whether row i of both groups belongs together, so that resampling must draw them as one.
    """

    @property
    def name(self) -> str: ...

    @property
    def citation(self) -> str: ...

    @property
    def paired(self) -> bool: ...

    def score(self, first: Tensor, second: Tensor, /) -> Tensor:
        """(neurons,) scores, the higher the more a neuron counts as a safety neuron.

        Args:
            first, second: rows of features, (rows, neurons): harmful and harmless prompts, or two models.
        """
        ...

    def select(self, first: Tensor, second: Tensor, /, count: int | None = None) -> Tensor:
        """Indices of the selected neurons, ascending: the `count` highest, or those of the published rule."""
        ...


def top(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest scores, ascending."""
    return scores.topk(count).indices.sort().values


def standardised(values: Tensor) -> Tensor:
    """z of each value among all of them, population standard deviation."""
    return (values - values.mean()) / values.std(correction=0).clamp_min(1e-12)
