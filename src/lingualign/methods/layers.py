"""Which blocks to edit when the user does not say.

LASA's rule (arXiv 2604.12710) needs no labels and no generation: the block whose residual states group prompts by
what they ask rather than by the language they are in, argmax of silhouette by query minus silhouette by language. An
edit there reaches every language at once. The paper's distance and token position are not known to us; here it is the
cosine at the last prompt token, on the anchors' harmful prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lingualign.data.schema import Prompt
from lingualign.errors import ConfigError, DataError
from lingualign.features.collect import Site
from lingualign.features.positions import Positions
from lingualign.features.store import FeatureSource
from lingualign.models.chat import EncodedChat
from lingualign.models.matrices import MlpMatrices


@dataclass(frozen=True)
class LayerScore:
    """How one block groups prompts: mean silhouettes, -1 to 1, cosine distance.

    Attributes:
        query: of the grouping by what is asked.
        language: of the grouping by language.
    """

    query: float
    language: float

    @property
    def semantic(self) -> float:
        """LASA's score."""
        return self.query - self.language


def layer_scores(states: Sequence[Tensor], queries: Sequence[str], languages: Sequence[str]) -> list[LayerScore]:
    """The silhouettes of each block.

    Args:
        states: per block, residual states (prompts, width).
        queries: seed id of each prompt.
        languages: language of each prompt.

    Raises:
        DataError: there are not two queries, each in two languages: nothing to group.
    """
    from sklearn.metrics import silhouette_score

    if min(len(set(queries)), len(set(languages))) < 2:
        raise DataError(
            "layers are chosen by how they group prompts, which takes two harmful seeds in two languages at least; "
            "add prompts, or name the layers"
        )
    scores = []
    for block in states:
        values = torch.nn.functional.normalize(block.float(), dim=1).numpy().astype(np.float64)
        by_query, by_language = (
            float(silhouette_score(values, list(labels), metric="cosine")) for labels in (queries, languages)
        )
        scores.append(LayerScore(by_query, by_language))
    return scores


@dataclass(frozen=True)
class ChosenLayers:
    """Blocks to change, shallow to deep.

    Attributes:
        layers: their indices.
        scores: of every block, where the rule chose; None where the user did.
    """

    layers: list[int]
    scores: list[LayerScore] | None = None

    def record(self) -> dict[str, Any]:
        """What a manifest says about the choice."""
        scores = self.scores
        return {
            "layers": self.layers,
            "layer_scores": None if scores is None else [score.semantic for score in scores],
            "layer_silhouettes": None
            if scores is None
            else {"query": [score.query for score in scores], "language": [score.language for score in scores]},
        }


def choose_layers(
    wanted: Sequence[int] | Literal["auto"],
    count: int,
    source: FeatureSource,
    mlps: Sequence[MlpMatrices],
    prompts: Sequence[Prompt],
    chats: Sequence[EncodedChat],
) -> ChosenLayers:
    """The wanted blocks, or `count` of them around the one with the best score on the residual stream behind it.

    Args:
        wanted: block indices, or `auto` for the rule.
        count: number of blocks for `auto`.
        source: where features come from.
        mlps: one per block.
        prompts: harmful prompts of all languages, for `auto`.
        chats: the same, encoded.

    Raises:
        ConfigError: a wanted block does not exist.
        DataError: there are too few prompts to choose by.
    """
    if wanted != "auto":
        if not wanted or not all(0 <= layer < len(mlps) for layer in wanted):
            raise ConfigError(f"layers {list(wanted)} are not blocks of this model; it has blocks 0 to {len(mlps) - 1}")
        return ChosenLayers(sorted(set(wanted)))
    sites = [Site(mlp.block, "output") for mlp in mlps]
    rows = source.rows(chats, sites, Positions(template_tokens=1), "choosing layers")
    scores = layer_scores(
        [rows[site][:, 0] for site in sites],
        [prompt.seed_id for prompt in prompts],
        [prompt.language for prompt in prompts],
    )
    best = max(range(len(sites)), key=lambda index: scores[index].semantic)
    return ChosenLayers(window(best, count, len(sites)), scores)


def window(best: int, count: int, blocks: int) -> list[int]:
    """`count` consecutive blocks around `best`, inside 0 … blocks - 1."""
    count = min(count, blocks)
    start = min(max(0, best - count // 2), blocks - count)
    return list(range(start, start + count))
