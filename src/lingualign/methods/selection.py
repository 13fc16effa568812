"""Which neurons count as safety neurons in Sparse Weight Editing.

- `paper`: the union of the magnitude set z > 2.0 and the effect-size set d > 1.0 (arXiv 2602.22554, appendix B).
- `probe`: NeuroStrike's linear probe (arXiv 2509.11864): per projection a logistic regression on features, weights
  z-scored, z > 3.
- `random`: as many neurons as `paper` would choose, drawn uniformly: the control.
- `all`: every neuron.

Activations are (prompts, neurons); harmful and harmless prompts are those of the reference language. The scores
themselves are in `neuron_scores/`.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lingualign.methods.neuron_scores.cohens_d import CohensD
from lingualign.methods.neuron_scores.magnitude_or_effect import MagnitudeOrEffect, effect_size, magnitude_score
from lingualign.methods.neuron_scores.probe import Probe
from lingualign.methods.neuron_scores.random_neurons import RandomNeurons, random_neurons

__all__ = [
    "Selection",
    "effect_size",
    "magnitude_score",
    "paper_neurons",
    "probe_neurons",
    "random_neurons",
    "select_neurons",
]

Selection = Literal["paper", "probe", "random", "all"]


def paper_neurons(
    harmful: Tensor, harmless: Tensor, magnitude_threshold: float = 2.0, effect_threshold: float = 1.0
) -> Tensor:
    """Indices of the union of both sets, ascending. One-sided: neurons that fire more on harmful prompts."""
    return MagnitudeOrEffect(magnitude_threshold, effect_threshold).select(harmful, harmless)


def probe_neurons(
    harmful: Tensor, harmless: Tensor, threshold: float = 3.0, epochs: int = 5000, seed: int = 1234
) -> Tensor:
    """Indices of neurons whose probe weight has z > `threshold`, ascending.

    Features here are means over the declared positions; NeuroStrike's are maxima over all tokens, padding included.
    """
    return Probe(threshold, epochs, seed).select(harmful, harmless)


def select_neurons(
    selection: Selection,
    harmful: Tensor,
    harmless: Tensor,
    *,
    magnitude_threshold: float,
    effect_threshold: float,
    fraction: float | None,
    seed: int,
) -> Tensor | None:
    """Indices of the selected neurons, ascending, or None for all.

    Args:
        selection: the rule.
        harmful, harmless: activations (prompts, neurons).
        magnitude_threshold, effect_threshold: thresholds of the paper's rule.
        fraction: instead of the thresholds, take this share of the neurons with the largest Cohen's d (or at random).
        seed: for random selection.
    """
    if selection == "all":
        return None
    if selection == "probe":
        return probe_neurons(harmful, harmless)
    rule = MagnitudeOrEffect(magnitude_threshold, effect_threshold)
    count = None if fraction is None else max(1, round(fraction * harmful.shape[1]))
    if selection == "random":
        return RandomNeurons(rule, seed).select(harmful, harmless, count)
    return rule.select(harmful, harmless) if count is None else CohensD().select(harmful, harmless, count)
