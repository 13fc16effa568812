"""Prompt sets: unique keys, filters, pairing, prefixes."""

from __future__ import annotations

import pytest

from lingualign.data.schema import Kind, Prompt, PromptSet
from lingualign.errors import DataError


def prompt(seed: str, language: str = "en", kind: Kind = "harmful", text: str = "") -> Prompt:
    return Prompt(seed_id=seed, language=language, kind=kind, text=text or f"{kind} {seed} {language}")


@pytest.fixture
def prompts() -> PromptSet:
    return PromptSet(
        prompt(seed, language, kind)
        for language in ("th", "en")
        for kind in ("harmless", "harmful")
        for seed in ("b", "a", "c")
    )


def test_index_gives_a_prompt_and_slice_a_set(prompts: PromptSet) -> None:
    assert prompts[0] == prompt("b", "th", "harmless")
    assert prompts[-1] == prompt("c", "en", "harmful")
    part = prompts[3:6]
    assert isinstance(part, PromptSet)
    assert list(part) == list(prompts)[3:6]


def test_where_joins_conditions_and_keeps_order(prompts: PromptSet) -> None:
    found = prompts.where(kinds=["harmful"], languages=["en"], keep=lambda prompt: prompt.seed_id != "a")
    assert [prompt.key for prompt in found] == [("harmful", "b", "en"), ("harmful", "c", "en")]
    assert len(prompts.where(splits=["fit"])) == 0


def test_languages_and_seeds_in_order_of_appearance(prompts: PromptSet) -> None:
    assert prompts.languages == ("th", "en")
    assert prompts.seeds("harmful") == ("b", "a", "c")
    assert prompts.seeds("look-alike") == ()


def test_limited_takes_the_first_seeds_in_every_language(prompts: PromptSet) -> None:
    few = prompts.limited(2)
    assert few.seeds("harmful") == few.seeds("harmless") == ("b", "a")
    assert len(few) == 8
    assert prompts.limited(None) is prompts


def test_every_second_seed_is_that_in_every_language(prompts: PromptSet) -> None:
    some = prompts.every(2)
    assert some.seeds("harmful") == some.seeds("harmless") == ("b", "c")
    assert len(some) == 8
    assert list(prompts.every(1)) == list(prompts)


def test_pairs_follow_the_reference_order(prompts: PromptSet) -> None:
    pairs = prompts.paired("harmful", "en", "th")
    assert [(left.key, right.key) for left, right in pairs] == [
        (("harmful", seed, "en"), ("harmful", seed, "th")) for seed in ("b", "a", "c")
    ]


def test_a_seed_without_partner_is_named(prompts: PromptSet) -> None:
    with pytest.raises(DataError, match=r"1 harmful rows have no partner between en and th \(first: d\)"):
        (prompts + PromptSet([prompt("d")])).paired("harmful", "en", "th")


def test_same_key_twice_is_refused(prompts: PromptSet) -> None:
    with pytest.raises(DataError, match=r"prompt a \(en, harmful\) of the prompt set occurs twice"):
        PromptSet([*prompts, prompt("a", text="other")])


@pytest.mark.parametrize("text", [" ", "\n\t", "\u3000"])
def test_blank_text_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"prompt a \(en, harmful\) .* is empty; fill it in"):
        PromptSet([prompt("a", text=text)])


def test_with_source_prefixes_ids(prompts: PromptSet) -> None:
    renamed = prompts.with_source("mine")
    assert {prompt.source for prompt in renamed} == {"mine"}
    assert renamed.seeds("harmful") == ("mine:b", "mine:a", "mine:c")
    assert len(prompts + renamed) == 2 * len(prompts)
