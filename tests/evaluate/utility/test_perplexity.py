"""Perplexity: the same numbers as one text at a time, whatever the batches; paired ratios."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from lingualign.data.schema import PromptSet
from lingualign.errors import DataError, NumericalError
from lingualign.evaluate.utility.perplexity import (
    TextScore,
    mean_perplexity_ratio,
    perplexities,
    perplexity_changes,
    score_texts,
)


def plain_nll(model: Any, tokenizer: Any, text: str) -> tuple[float, int]:
    """One text, token by token, in float64."""
    opening = tokenizer("<bos><turn>user\n", add_special_tokens=False)["input_ids"]
    content = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = opening + content
    with torch.no_grad():
        log_probabilities = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    places = range(len(opening), len(ids))
    return -sum(float(log_probabilities[place - 1, ids[place]]) for place in places), len(content)


def test_scores_equal_a_plain_loop(tiny_model: tuple[Any, Any], texts: PromptSet) -> None:
    scores = score_texts(*tiny_model, texts)
    assert [(score.seed_id, score.language) for score in scores] == [(text.seed_id, text.language) for text in texts]
    for score, text in zip(scores, texts, strict=True):
        nll, tokens = plain_nll(*tiny_model, text.text)
        assert score.nll == pytest.approx(nll, rel=1e-5)
        assert (score.tokens, score.bytes) == (tokens, len(text.text.encode()))


def test_batches_do_not_matter(tiny_model: tuple[Any, Any], texts: PromptSet, monkeypatch: pytest.MonkeyPatch) -> None:
    together = score_texts(*tiny_model, texts)
    monkeypatch.setattr("lingualign.evaluate.utility.perplexity.ROWS_AT_A_TIME", 3)
    seen: list[int] = []
    alone = score_texts(*tiny_model, texts, batch_logits=1, on_batch=seen.append)
    assert seen == list(range(1, len(texts) + 1))
    for first, second in zip(together, alone, strict=True):
        assert first.nll == pytest.approx(second.nll, rel=1e-5)


def test_a_broken_model_is_named(tiny_model: tuple[Any, Any], texts: PromptSet) -> None:
    model, tokenizer = tiny_model
    with torch.no_grad():
        model.lm_head.weight[0] = math.nan
    with pytest.raises(NumericalError, match="float32"):
        score_texts(model, tokenizer, texts)


SCORES = [
    TextScore("1", "en", tokens=2, bytes=8, nll=2.0),
    TextScore("2", "en", tokens=6, bytes=8, nll=10.0),
    TextScore("1", "th", tokens=4, bytes=32, nll=16.0),
]


def test_figures_by_hand() -> None:
    english, thai = perplexities(SCORES)
    assert english.n == 2
    assert english.per_token == pytest.approx(math.exp(12 / 8))
    assert english.bits_per_byte == pytest.approx(12 / 16 / math.log(2))
    assert thai.per_token == pytest.approx(math.exp(4))


def test_no_change_is_a_ratio_of_one() -> None:
    for change in perplexity_changes(SCORES, SCORES):
        assert change.ratio.value == 1
        assert change.ratio.interval == (1, 1)


def test_ratio_is_that_of_the_perplexities() -> None:
    later = [replace(score, nll=score.nll + extra) for score, extra in zip(SCORES, (1.0, 0.0, -2.0), strict=True)]
    english, thai = perplexity_changes(SCORES, later)
    assert english.ratio.value == pytest.approx(english.after.per_token / english.before.per_token)
    low, high = english.ratio.interval
    # Each bootstrap sample holds the first text zero, one or two times.
    assert (low, high) == pytest.approx((1.0, math.exp(2 / 8)))
    assert thai.ratio.value == pytest.approx(math.exp(-0.5))
    assert mean_perplexity_ratio(SCORES, later).value == pytest.approx(math.exp((1 / 8 - 0.5) / 2))


def test_other_texts_are_refused() -> None:
    with pytest.raises(DataError, match="different texts"):
        perplexity_changes(SCORES, SCORES[:2])
