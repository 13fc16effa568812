"""Which neurons count as safety neurons.

- `paper`: the union of the magnitude set z > 2.0 and the effect-size set d > 1.0 (arXiv 2602.22554, appendix B).
- `probe`: NeuroStrike's linear probe (arXiv 2509.11864): per projection a logistic regression on features, weights
  z-scored, z > 3.
- `random`: as many neurons as `paper` would choose, drawn uniformly: the control.
- `all`: every neuron.

Activations are (prompts, neurons); harmful and harmless prompts are those of the reference language.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lingualign.errors import ConfigError

Selection = Literal["paper", "probe", "random", "all"]


def magnitude_score(harmful: Tensor, harmless: Tensor) -> Tensor:
    """z of each neuron's mean difference among all neurons of the layer (population standard deviation). Shape
    (neurons,)."""
    difference = harmful.mean(0) - harmless.mean(0)
    return (difference - difference.mean()) / difference.std(correction=0).clamp_min(1e-12)


def effect_size(harmful: Tensor, harmless: Tensor) -> Tensor:
    """Cohen's d of each neuron with the pooled sample standard deviation. Shape (neurons,)."""
    first, second = harmful.shape[0], harmless.shape[0]
    if min(first, second) < 2:
        raise ConfigError(
            "neuron selection needs at least two harmful and two harmless prompts in the reference language"
        )
    pooled = ((first - 1) * harmful.var(0) + (second - 1) * harmless.var(0)) / (first + second - 2)
    return (harmful.mean(0) - harmless.mean(0)) / pooled.sqrt().clamp_min(1e-12)


def paper_neurons(
    harmful: Tensor, harmless: Tensor, magnitude_threshold: float = 2.0, effect_threshold: float = 1.0
) -> Tensor:
    """Indices of the union of both sets, ascending. One-sided: neurons that fire more on harmful prompts."""
    chosen = (magnitude_score(harmful, harmless) > magnitude_threshold) | (
        effect_size(harmful, harmless) > effect_threshold
    )
    return chosen.nonzero().flatten()


def probe_neurons(
    harmful: Tensor, harmless: Tensor, threshold: float = 3.0, epochs: int = 5000, seed: int = 1234
) -> Tensor:
    """Indices of neurons whose probe weight has z > `threshold`, ascending.

    Logistic regression as in NeuroStrike's code: full batch, Adam, learning rate 1e-3, weight decay 1e-3, 5,000 epochs.
    Features here are means over the declared positions; theirs are maxima over all tokens, padding included.
    """
    features = torch.cat([harmful, harmless])
    labels = torch.cat([torch.ones(len(harmful)), torch.zeros(len(harmless))])
    generator = torch.Generator().manual_seed(seed)
    bound = features.shape[1] ** -0.5
    weight = ((torch.rand(features.shape[1], generator=generator) * 2 - 1) * bound).requires_grad_()
    bias = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=1e-3, weight_decay=1e-3)
    for _ in range(epochs):
        optimiser.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(features @ weight + bias, labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
        optimiser.step()
    learned: Tensor = weight.detach()
    z = (learned - learned.mean()) / learned.std(correction=0).clamp_min(1e-12)
    chosen: Tensor = (z > threshold) & (learned > 0)
    return chosen.nonzero().flatten()


def random_neurons(count: int, width: int, seed: int) -> Tensor:
    """`count` of `width` indices, ascending, reproducible from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(width, generator=generator)[:count].sort().values


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
    width = harmful.shape[1]
    if selection == "all":
        return None
    if selection == "probe":
        return probe_neurons(harmful, harmless)
    if fraction is not None:
        count = max(1, round(fraction * width))
        if selection == "random":
            return random_neurons(count, width, seed)
        return effect_size(harmful, harmless).topk(count).indices.sort().values
    chosen = paper_neurons(harmful, harmless, magnitude_threshold, effect_threshold)
    return random_neurons(len(chosen), width, seed) if selection == "random" else chosen
