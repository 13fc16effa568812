"""Which blocks to edit when the user does not say.

LASA's rule (arXiv 2604.12710) needs no labels and no generation: the block whose residual states group prompts by
what they ask rather than by the language they are in, argmax of silhouette by query minus silhouette by language. An
edit there reaches every language at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def semantic_scores(states: Sequence[Tensor], queries: Sequence[str], languages: Sequence[str]) -> list[float]:
    """Silhouette by query minus silhouette by language, cosine distance, for each block.

    Args:
        states: per block, residual states (prompts, width).
        queries: seed id of each prompt.
        languages: language of each prompt.
    """
    from sklearn.metrics import silhouette_score

    scores = []
    for block in states:
        values = torch.nn.functional.normalize(block.float(), dim=1).numpy().astype(np.float64)
        by_query = silhouette_score(values, list(queries), metric="cosine")
        by_language = silhouette_score(values, list(languages), metric="cosine")
        scores.append(float(by_query - by_language))
    return scores


def window(best: int, count: int, blocks: int) -> list[int]:
    """`count` consecutive blocks around `best`, inside 0 … blocks - 1."""
    count = min(count, blocks)
    start = min(max(0, best - count // 2), blocks - count)
    return list(range(start, start + count))
