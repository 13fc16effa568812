"""LASA's rule: silhouette by query minus silhouette by language, per block."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from plain_anchors import plain_anchors

from lingualign.errors import DataError
from lingualign.features.positions import Positions
from lingualign.methods.layers import layer_scores, window
from lingualign.methods.sparse_weight_edit import SparseWeightEdit

QUERIES, LANGUAGES = ("1", "2", "3"), ("en", "it")
LABELS = [(query, language) for query in QUERIES for language in LANGUAGES]


def states(by_query: float, by_language: float) -> torch.Tensor:
    """One row for each query and language: its query's axis, its language's axis, and some noise."""
    noise = torch.randn(len(LABELS), 5, generator=torch.Generator().manual_seed(0)) * 0.1
    rows = []
    for query, language in LABELS:
        row = torch.zeros(5)
        row[QUERIES.index(query)] = by_query
        row[3 + LANGUAGES.index(language)] = by_language
        rows.append(row)
    return torch.stack(rows) + noise


def silhouette(rows: torch.Tensor, labels: list[str]) -> float:
    """Mean of (b - a) / max(a, b) with cosine distances, by the definition."""
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    distances = (1 - unit @ unit.T).numpy()
    values = []
    for index, label in enumerate(labels):
        mean = {
            other: np.mean([distances[index, j] for j, found in enumerate(labels) if found == other and j != index])
            for other in set(labels)
        }
        own, nearest = mean.pop(label), min(mean.values())
        values.append((nearest - own) / max(own, nearest))
    return float(np.mean(values))


def test_scores_are_the_definition_and_the_block_that_groups_by_query_wins() -> None:
    blocks = [states(0.1, 1.0), states(1.0, 0.1), states(1.0, 1.0)]
    queries, languages = [query for query, _ in LABELS], [language for _, language in LABELS]
    scores = layer_scores(blocks, queries, languages)
    for block, score in zip(blocks, scores, strict=True):
        assert score.query == pytest.approx(silhouette(block, queries), abs=1e-6)
        assert score.language == pytest.approx(silhouette(block, languages), abs=1e-6)
        assert score.semantic == score.query - score.language
    best = max(range(3), key=lambda index: scores[index].semantic)
    assert best == 1
    assert scores[0].semantic < 0 < scores[1].semantic


@pytest.mark.parametrize(
    ("best", "count", "blocks", "expected"),
    [(4, 3, 8, [3, 4, 5]), (0, 3, 8, [0, 1, 2]), (7, 4, 8, [4, 5, 6, 7]), (1, 9, 4, [0, 1, 2, 3])],
)
def test_the_window_stays_inside_the_model(best: int, count: int, blocks: int, expected: list[int]) -> None:
    assert window(best, count, blocks) == expected


def test_all_scores_are_recorded(tiny_model: Any) -> None:
    method = SparseWeightEdit(layer_count=1, positions=Positions(template_tokens=1))
    edit = method.fit(*tiny_model, plain_anchors())
    found = edit.manifest["layer_silhouettes"]
    semantic = [query - language for query, language in zip(found["query"], found["language"], strict=True)]
    assert edit.manifest["layer_scores"] == semantic
    assert edit.manifest["layers"] == [max(range(4), key=lambda index: semantic[index])]


def test_one_seed_is_nothing_to_group(tiny_model: Any) -> None:
    method = SparseWeightEdit(positions=Positions(template_tokens=1))
    with pytest.raises(DataError, match="two harmful seeds in two languages"):
        method.fit(*tiny_model, plain_anchors(count=1))
