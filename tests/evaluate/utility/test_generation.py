"""Diversity, repetition and language of stored replies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lingualign.errors import DataError
from lingualign.evaluate.schema import Outcome, Reply
from lingualign.evaluate.utility.fidelity import fidelity_figures
from lingualign.evaluate.utility.generation import distinct, generation_changes, generation_figures


def reply(seed: int, text: str, outcome: Outcome = "answered", spoken: str = "en", language: str = "en") -> Reply:
    return Reply(str(seed), language, "harmless", text, len(text), True, outcome, 0.0, spoken)


def test_distinct_by_hand() -> None:
    assert distinct([[1, 2, 1], [2, 1]], 1) == pytest.approx(2 / 5)
    assert distinct([[1, 2, 1], [2, 1]], 2) == pytest.approx(2 / 3)
    assert distinct([[1], []], 2) == 0


def test_repetition_is_seen(tiny_model: tuple[Any, Any]) -> None:
    tokenizer = tiny_model[1]
    sound = [reply(1, "bread is baked at home in an oven"), reply(2, "the quick brown fox jumps over a dog")]
    looping = [replace(sound[0], text="bread bread " * 30, finished=False), sound[1]]
    (before,) = generation_figures(sound, tokenizer)
    (change,) = generation_changes(sound, looping, tokenizer)
    assert change.before == before
    assert (before.n, before.repetitive, before.finished) == (2, 0, 1)
    assert (change.after.repetitive, change.after.finished) == (0.5, 0.5)
    assert change.after.distinct_2 < before.distinct_2
    assert change.repetitive_interval[0] <= 0.5 <= change.repetitive_interval[1]


def test_half_a_character_is_no_trouble(tiny_model: tuple[Any, Any]) -> None:
    (figures,) = generation_figures([reply(1, "bread \ud800")], tiny_model[1])
    assert figures.distinct_1 > 0


def test_other_prompts_are_refused(tiny_model: tuple[Any, Any]) -> None:
    with pytest.raises(DataError, match="different prompts"):
        generation_changes([reply(1, "bread")], [reply(2, "bread")], tiny_model[1])


def test_the_language_of_answers_and_of_refusals() -> None:
    figures = fidelity_figures(
        [
            *(reply(seed, "", "refused", "en", "th") for seed in range(3)),
            reply(3, "", "refused", "th", "th"),
            reply(4, "", "answered", "th", "th"),
            reply(5, "", "answered", "", "th"),
            reply(6, "", "incoherent", "th", "th"),
        ]
    )
    answered, refused = figures
    assert (answered.outcome, answered.n, answered.own, answered.english) == ("answered", 1, 1, 0)
    assert (refused.language, refused.n, refused.own, refused.english) == ("th", 4, 0.25, 0.75)
    assert refused.english_interval[0] < 0.75 < refused.english_interval[1] < 1
