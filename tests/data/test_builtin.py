"""The shipped prompts: complete, in the right language and script, split by seed, twins kept together."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import combinations

import pytest

from lingualign.data.builtin import BUILTIN_LANGUAGES, LICENCE, SOURCE, Seed, builtin_prompts, builtin_seeds
from lingualign.data.schema import KINDS, PromptSet
from lingualign.errors import DataError

SIZES = {
    ("harmful", "fit"): 406, ("harmful", "select"): 28, ("harmful", "report"): 42,
    ("look-alike", "fit"): 406, ("look-alike", "select"): 28, ("look-alike", "report"): 42,
    ("harmless", "fit"): 140, ("harmless", "select"): 40, ("harmless", "report"): 60,
}  # fmt: skip
#: Languages the identifier takes short texts of a close relative for.
RELATIVES = {"en": {"pcm"}, "zh": {"wuu", "yue"}, "id": {"ms", "jv", "su"}, "ar": {"ary", "arz"}, "es": {"gl", "ext"}}
SCRIPTS = {
    "zh": {"CJK"}, "ja": {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}, "th": {"THAI"}, "bn": {"BENGALI"},
    "he": {"HEBREW"}, "ar": {"ARABIC"}, "ko": {"HANGUL"},
}  # fmt: skip


@pytest.fixture(scope="module")
def prompts() -> PromptSet:
    return builtin_prompts()


def test_every_seed_in_every_language(prompts: PromptSet) -> None:
    assert prompts.languages == BUILTIN_LANGUAGES
    assert len(BUILTIN_LANGUAGES) == 14
    for language in BUILTIN_LANGUAGES:
        mine = prompts.where(languages=[language])
        assert Counter((prompt.kind, prompt.split) for prompt in mine) == SIZES
        assert [prompt.seed_id for prompt in mine] == [seed["seed_id"] for seed in builtin_seeds()]
    assert {(prompt.source, prompt.licence) for prompt in prompts} == {(SOURCE, LICENCE)}


def test_splits_of_the_first_style_are_stratified() -> None:
    first = [seed for seed in builtin_seeds() if _style(seed) == 1]
    for kind in KINDS:
        seeds = [seed for seed in first if seed["kind"] == kind]
        for field in ("form", "register"):
            whole = Counter(seed[field] for seed in seeds)
            for split in ("fit", "select", "report"):
                part = [seed for seed in seeds if seed["split"] == split]
                found = Counter(seed[field] for seed in part)
                for value, count in whole.items():
                    assert abs(found[value] - count * len(part) / len(seeds)) <= 2, (kind, split, value)
    harmful = Counter((seed["category"], seed["split"]) for seed in first if seed["kind"] == "harmful")
    assert {(split, count) for (_, split), count in harmful.items()} == {("fit", 5), ("select", 2), ("report", 3)}


def test_the_later_styles_only_fit() -> None:
    for kind in ("harmful", "look-alike"):
        seeds = [seed for seed in builtin_seeds() if seed["kind"] == kind]
        second, third = ([seed for seed in seeds if _style(seed) == style] for style in (2, 3))
        assert {seed["split"] for seed in second + third} == {"fit"}
        assert Counter(seed["category"] for seed in second) == dict.fromkeys({seed["category"] for seed in seeds}, 8)
        assert Counter(seed["category"] for seed in third) == dict.fromkeys({seed["category"] for seed in seeds}, 16)
        assert Counter(seed["form"] for seed in second) == {"imperative": 70, "context": 28, "question": 14}
        assert Counter(seed["form"] for seed in third) == {"imperative": 168, "question": 38, "context": 18}


def test_styles_follow_each_other_each_through_the_categories_in_turn() -> None:
    for kind in ("harmful", "look-alike"):
        fit = [seed for seed in builtin_seeds() if seed["kind"] == kind and seed["split"] == "fit"]
        assert [_style(seed) for seed in fit] == [1] * 70 + [2] * 112 + [3] * 224
        for start in range(0, len(fit), 14):
            assert len({seed["category"] for seed in fit[start : start + 14]}) == 14


def test_categories_and_spread_of_a_prefix() -> None:
    for kind in KINDS:
        for split in ("fit", "select", "report"):
            seeds = [seed for seed in builtin_seeds() if seed["kind"] == kind and seed["split"] == split]
            assert len({seed["category"] for seed in seeds}) >= 12
            for length in (4, 8, 12):
                assert len({seed["category"] for seed in seeds[:length]}) == length
            assert len({seed["form"] for seed in seeds[:12]}) == 3


def test_twins_share_category_and_split_and_differ_in_text(prompts: PromptSet) -> None:
    seeds = {seed["seed_id"]: seed for seed in builtin_seeds()}
    texts = {(prompt.language, prompt.seed_id): prompt.text for prompt in prompts}
    for seed in seeds.values():
        if seed["kind"] == "harmless":
            assert "twin" not in seed
            continue
        twin = seeds[seed["twin"]]
        assert twin["twin"] == seed["seed_id"]
        assert {seed["kind"], twin["kind"]} == {"harmful", "look-alike"}
        for field in ("category", "form", "register", "split"):
            assert seed[field] == twin[field], (seed["seed_id"], field)
        for language in BUILTIN_LANGUAGES:
            assert _letters(texts[language, seed["seed_id"]]) != _letters(texts[language, twin["seed_id"]])


def test_limited_keeps_twins_together(prompts: PromptSet) -> None:
    few = prompts.where(splits=["report"], languages=["en", "th"]).limited(10)
    assert {seed[1:] for seed in few.seeds("harmful")} == {seed[1:] for seed in few.seeds("look-alike")}


@pytest.mark.parametrize("language", BUILTIN_LANGUAGES)
def test_texts_are_in_their_language(prompts: PromptSet, language: str) -> None:
    import py3langid

    texts = [prompt.text for prompt in prompts.where(languages=[language]) if len(_letters(prompt.text)) >= 25]
    accepted = {language} | RELATIVES.get(language, set())
    right = sum(py3langid.classify(text)[0] in accepted for text in texts)
    assert len(texts) >= 150
    assert right >= 0.97 * len(texts), f"{language}: {right} of {len(texts)}"


@pytest.mark.parametrize("language", BUILTIN_LANGUAGES)
def test_texts_are_in_their_script(prompts: PromptSet, language: str) -> None:
    expected = SCRIPTS.get(language, {"LATIN"})
    mine = prompts.where(languages=[language])
    mostly = 0
    for prompt in mine:
        letters = [character for character in prompt.text if character.isalpha()]
        right = sum(unicodedata.name(character).split(" ")[0] in expected for character in letters)
        # Names such as Python outweigh the rest of a short text; none may be without its script.
        assert right > 0, prompt.key
        mostly += right > len(letters) / 2
    assert mostly >= 0.99 * len(mine)


def test_no_text_occurs_twice(prompts: PromptSet) -> None:
    for language in BUILTIN_LANGUAGES:
        texts = [_letters(prompt.text) for prompt in prompts.where(languages=[language])]
        assert len(set(texts)) == len(texts), language
    by_language = {
        tag: {_letters(prompt.text) for prompt in prompts.where(languages=[tag])} for tag in BUILTIN_LANGUAGES
    }
    for one, other in combinations(BUILTIN_LANGUAGES, 2):
        assert len(by_language[one] & by_language[other]) <= 2, (one, other)


def test_no_text_is_nearly_one_of_another_split() -> None:
    splits = {seed["seed_id"]: seed["split"] for seed in builtin_seeds()}
    words = {prompt.seed_id: set(re.findall(r"[\w']+", prompt.text.lower())) for prompt in builtin_prompts(["en"])}
    for (one, ones), (other, others) in combinations(words.items(), 2):
        if splits[one] != splits[other]:
            assert len(ones & others) <= 0.6 * len(ones | others), (one, other)


def test_texts_are_clean(prompts: PromptSet) -> None:
    for prompt in prompts:
        assert prompt.text == prompt.text.strip()
        assert not any(unicodedata.category(character) in {"Cc", "Co", "Cs"} for character in prompt.text), prompt.key


def test_languages_are_chosen_in_the_order_asked() -> None:
    assert builtin_prompts(["th", "en", "th"]).languages == ("th", "en")


def test_a_language_without_prompts_is_named() -> None:
    with pytest.raises(DataError, match=r"no fr, xx; they have en, zh.*choose among these"):
        builtin_prompts(["en", "fr", "xx"])


def _style(seed: Seed) -> int:
    return 1 if seed["kind"] == "harmless" else 1 + (int(seed["seed_id"][1:]) > 200) + (int(seed["seed_id"][1:]) > 400)


def _letters(text: str) -> str:
    """The text's letters and marks in lower case, so that punctuation does not make two texts different."""
    return "".join(character for character in text.casefold() if unicodedata.category(character)[0] in "LMN")
