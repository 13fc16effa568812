"""Whether a selection can be trusted: the same neurons from other prompts, and the same neurons in other languages."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from statistics import fmean

import torch
from torch import Tensor

from lingualign.errors import ConfigError
from lingualign.methods.neuron_scores.base import NeuronScore


def jaccard(first: Tensor, second: Tensor) -> float:
    """|A ∩ B| / |A ∪ B| of two sets of indices; 1 for two empty sets, which are the same."""
    one, other = set(first.tolist()), set(second.tolist())
    return len(one & other) / len(one | other) if one | other else 1.0


def chance_overlap(count: int, width: int) -> float:
    """Jaccard index to expect of two independent random sets of `count` among `width` neurons (ratio of the means)."""
    share = count / width
    return share / (2 - share)


def stability(
    score: NeuronScore, first: Tensor, second: Tensor, *, count: int, resamples: int = 20, seed: int = 0
) -> float:
    """Mean Jaccard index of the `count` best neurons between bootstrap resamples of the rows.

    Compare with `chance_overlap`: a score that follows noise comes close to it. A score that does not look at the
    features (random neurons with one seed) has 1.

    Args:
        score: the rule.
        first, second: its features, rows resampled with replacement within each group; together where rows are paired.
        count: neurons that are taken.
        resamples: two or more; all pairs are compared.
        seed: of the resampling.

    Raises:
        ConfigError: fewer than two resamples.
    """
    if resamples < 2:
        raise ConfigError("stability compares resamples with each other; give at least two")
    generator = torch.Generator().manual_seed(seed)

    def drawn(rows: int) -> Tensor:
        return torch.randint(rows, (rows,), generator=generator)

    chosen = []
    for _ in range(resamples):
        one = drawn(len(first))
        other = one if score.paired else drawn(len(second))
        chosen.append(score.select(first[one], second[other], count))
    return fmean(jaccard(one, other) for one, other in combinations(chosen, 2))


def overlap(sets: Mapping[str, Tensor]) -> Tensor:
    """Jaccard indices between all pairs of languages' neuron sets, (languages, languages), in the mapping's order."""
    return torch.tensor([[jaccard(one, other) for other in sets.values()] for one in sets.values()])
