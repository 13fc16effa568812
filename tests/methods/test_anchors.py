"""Which prompts an edit is fitted on."""

from __future__ import annotations

from collections import Counter

import pytest

from lingualign.data.schema import KINDS, Prompt, PromptSet
from lingualign.errors import DataError
from lingualign.methods.anchors import build_anchors

LANGUAGES = ("en", "th", "he", "it", "bn")
PROMPTS = PromptSet(
    Prompt(f"{kind[:4]}{number}", tag, kind, f"{kind} {number} {tag}")
    for tag in LANGUAGES
    for kind in KINDS
    for number in range(20)
)


def test_all_languages_of_every_seed_are_used_unless_told_otherwise() -> None:
    anchors = build_anchors(PROMPTS, "en", LANGUAGES)
    assert len(anchors.pairs) == 20 * 4
    assert len(anchors.keep) == 20 * (1 + 2 * 5)


def test_in_turns_every_seed_and_language_counts_equally_often() -> None:
    anchors = build_anchors(PROMPTS, "en", LANGUAGES, languages_per_seed=2)
    assert set(Counter(low.seed_id for _, low in anchors.pairs).values()) == {2}
    assert set(Counter(low.language for _, low in anchors.pairs).values()) == {10}
    others = [prompt for prompt in anchors.keep if prompt.kind != "harmful"]
    assert set(Counter(prompt.seed_id for prompt in others).values()) == {2}
    assert set(Counter(prompt.language for prompt in others).values()) == {16}
    # The reference's refusals are never left out.
    assert len(anchors.keep) - len(others) == 20
    assert len(anchors.reference_harmful) == 20


def test_more_languages_than_there_are_take_them_all() -> None:
    assert build_anchors(PROMPTS, "en", LANGUAGES, languages_per_seed=9) == build_anchors(PROMPTS, "en", LANGUAGES)


def test_without_pairs_the_line_says_what_to_give() -> None:
    with pytest.raises(DataError, match="both languages"):
        build_anchors(PROMPTS, "en", ["en"])
