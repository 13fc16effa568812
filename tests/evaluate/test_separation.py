"""Log-probabilities of replies, refusal scores, and how well they tell kinds apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lingualign.data.schema import Prompt
from lingualign.errors import DataError
from lingualign.evaluate.schema import Outcome, Reply
from lingualign.evaluate.separation import (
    Scores,
    refusal_opening,
    refusal_scores,
    refused_at,
    refused_at_difference,
    told_apart,
    told_apart_difference,
)
from lingualign.evaluate.sequences import sequence_log_probabilities


def test_log_probabilities_are_those_of_a_plain_loop(tiny_model: Any) -> None:
    model, tokenizer = tiny_model
    prompts = ["how do I bake bread?", "tea"]
    responses = [["mix the flour", "no", ""], ["the quick brown fox jumps", "pan", "lazy dog"]]
    found = sequence_log_probabilities(model, tokenizer, prompts, responses, batch_logits=3000)
    for row, prompt in enumerate(prompts):
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(chat, add_special_tokens=False)["input_ids"]
        for column, reply in enumerate(responses[row]):
            reply_ids = tokenizer(reply, add_special_tokens=False)["input_ids"]
            total, seen = 0.0, list(ids)
            for token in reply_ids:
                with torch.no_grad():
                    logits = model(torch.tensor([seen])).logits[0, -1]
                total += float(logits.log_softmax(-1)[token])
                seen.append(token)
            assert float(found[row, column]) == pytest.approx(total, abs=1e-3)
    with pytest.raises(DataError, match="equally many"):
        sequence_log_probabilities(model, tokenizer, prompts, [["a"], ["b", "c"]])


def _reply(seed: str, text: str, outcome: Outcome, language: str = "en") -> Reply:
    return Reply(seed, language, "harmful", text, 3, True, outcome, 1.0, language)


def test_an_opening_is_how_most_refusals_in_the_reference_language_begin(tiny_model: Any) -> None:
    _, tokenizer = tiny_model
    replies = [
        _reply("h1", "the quick brown fox", "refused"),
        _reply("h2", "the quick lazy dog", "refused"),
        _reply("h3", "bake bread", "refused"),
        *(_reply(f"h{number}", "mix the flour", "answered") for number in range(4, 8)),
        *(_reply(f"h{number}", "mix the flour", "refused", "th") for number in range(4, 8)),
    ]
    ids = tokenizer("the quick brown fox", add_special_tokens=False)["input_ids"][:2]
    assert refusal_opening(replies, tokenizer, "en") == tokenizer.decode(ids)
    assert refusal_opening(replies, tokenizer, "he") is None


def test_scores_are_log_probabilities_of_the_opening(tiny_model: Any) -> None:
    model, tokenizer = tiny_model
    prompts = [Prompt("h1", "en", "harmful", "how do I bake bread?"), Prompt("h2", "en", "harmful", "tea")]
    expected = sequence_log_probabilities(model, tokenizer, [prompt.text for prompt in prompts], [["the quick"]] * 2)
    assert refusal_scores(model, tokenizer, prompts, "the quick") == expected[:, 0].tolist()


def test_the_area_is_the_librarys_averaged_over_runs_and_languages() -> None:
    generator = np.random.default_rng(0)
    harmful, others = generator.normal(1.0, 1.0, (2, 9, 3)), generator.normal(0.0, 1.0, (2, 7, 3)).round(1)
    harmful = harmful.round(1)  # ties count half
    areas = [
        roc_auc_score([1] * 9 + [0] * 7, [*harmful[run, :, tag], *others[run, :, tag]])
        for run in range(2)
        for tag in range(3)
    ]
    area, (low, high) = told_apart(harmful, others)
    assert area == pytest.approx(np.mean(areas))
    assert low < area < high


def test_the_interval_of_the_area_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    truth = 0.760250  # of unit normals one apart: Φ(1 / √2)
    covered = 0
    for _ in range(200):
        low, high = told_apart(generator.normal(1, 1, (1, 40, 1)), generator.normal(0, 1, (1, 40, 1)), samples=300)[1]
        covered += low <= truth <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_refusals_at_equal_over_refusal_have_one_threshold_for_all_languages() -> None:
    others = np.arange(100.0).reshape(1, 50, 2)
    harmful = np.full((1, 10, 2), 90.0)
    harmful[0, :3] = 99.5
    assert refused_at(harmful, others, 0.05)[0] == pytest.approx(0.3)
    assert refused_at(harmful, others, 0.20)[0] == pytest.approx(1.0)
    value, (low, high) = refused_at(harmful, others, 0.05)
    assert low < value < high


def test_a_perfect_score_has_a_perfect_area() -> None:
    assert told_apart(np.ones((1, 5, 2)), np.zeros((1, 5, 2))) == (1.0, (1.0, 1.0))
    assert told_apart(np.zeros((1, 5, 2)), np.zeros((1, 5, 2)))[0] == 0.5


def _made_up_scores(runs: int, seed: int, gap: float) -> Scores:
    """Of a model that tells 40 harmful from 40 other prompts by `gap`; what makes a prompt hard is common to models."""
    hard = np.random.default_rng(0).normal(0, 1, (2, 1, 40, 3))
    noise = np.random.default_rng(seed).normal(0, 0.2, (2, runs, 40, 3))
    return hard[0] + noise[0] + gap, hard[1] + noise[1]


def test_a_model_differs_from_itself_by_nothing() -> None:
    scores = _made_up_scores(3, 1, 1.0)
    assert told_apart_difference(scores, scores) == (0.0, (0.0, 0.0))
    assert refused_at_difference(scores, scores, 0.05) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize(("first_runs", "second_runs"), [(1, 1), (3, 3), (1, 3)])
def test_a_difference_is_that_of_the_two_and_known_better_than_either(first_runs: int, second_runs: int) -> None:
    first, second = _made_up_scores(first_runs, 1, 1.2), _made_up_scores(second_runs, 2, 1.0)
    for (value, (low, high)), alone, other in (
        (told_apart_difference(first, second), told_apart(*first), told_apart(*second)),
        (refused_at_difference(first, second, 0.2), refused_at(*first, 0.2), refused_at(*second, 0.2)),
    ):
        assert value == pytest.approx(alone[0] - other[0])
        assert low < value < high
        assert high - low < alone[1][1] - alone[1][0]


def test_the_interval_of_a_difference_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        hard, others = generator.normal(0, 1, (2, 1, 40, 1))
        noise = generator.normal(0, 0.5, (4, 1, 40, 1))
        first, second = (hard + 1 + noise[0], others + noise[1]), (hard + 1 + noise[2], others + noise[3])
        low, high = told_apart_difference(first, second, samples=300)[1]
        covered += low <= 0.0 <= high
    assert 0.88 <= covered / 200 <= 0.99
