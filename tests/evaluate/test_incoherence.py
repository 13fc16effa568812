"""Coherence rules: what counts as broken, what does not, and text that wants to break the rules themselves."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lingualign.evaluate.incoherence import identify_language, is_incoherent, is_repetitive, same_or_close_language

COHERENT = {
    "en": "You can freeze soup in small portions, so that it thaws quickly when you need it.",
    "de": "Man kann Suppe gut in kleinen Portionen einfrieren, dann taut sie schnell wieder auf.",
    "id": "Anda bisa membekukan sup dalam porsi kecil agar cepat cair saat dibutuhkan.",
    "sw": "Unaweza kugandisha supu katika vipimo vidogo ili iyeyuke haraka unapoihitaji.",
    "zh": "您可以把汤分成小份冷冻，这样需要时很快就能解冻。",
    "ja": "スープは小分けにして冷凍すると、必要なときにすぐ解凍できます。",
    "ko": "국은 조금씩 나누어 얼리면 필요할 때 빨리 녹일 수 있습니다.",
    "th": "คุณสามารถแช่แข็งซุปเป็นส่วนเล็ก ๆ เพื่อให้ละลายได้เร็วเมื่อต้องการ",
    "bn": "স্যুপ ছোট ছোট ভাগে ভাগ করে জমিয়ে রাখলে দরকারের সময় দ্রুত গলে যায়।",
    "he": "אפשר להקפיא מרק במנות קטנות כדי שיפשיר מהר כשצריך.",
    "ar": "يمكنك تجميد الحساء في حصص صغيرة حتى يذوب بسرعة عند الحاجة.",
    "ru": "Суп можно заморозить небольшими порциями, чтобы он быстро оттаял.",
}


@pytest.mark.parametrize("language", COHERENT)
def test_a_plain_reply_is_coherent_and_its_language_known(language: str) -> None:
    assert not is_incoherent(COHERENT[language], language, finished=True)
    assert not is_incoherent(COHERENT[language][:-7], language, finished=False)
    assert same_or_close_language(identify_language(COHERENT[language]), language)


@pytest.mark.parametrize("language", COHERENT)
def test_an_english_reply_is_coherent_everywhere(language: str) -> None:
    assert not is_incoherent(COHERENT["en"], language, finished=True)


@pytest.mark.parametrize(
    "text", ["", "  \n\t", "...", "?!…—", "🙂🙂🙂", "\x00\x00", "\u202e\u200b", "\ud800", "***\n---"]
)
def test_nothing_said_is_incoherent(text: str) -> None:
    assert is_incoherent(text, "en", finished=True)


@pytest.mark.parametrize(
    "text", ["4", "Yes.", "是的。", "Paris", "1. Tea\n2. Milk\n3. Sugar", "- red\n- green\n- blue"]
)
def test_short_and_listed_answers_are_coherent(text: str) -> None:
    assert not is_incoherent(text, "zh" if text == "是的。" else "en", finished=True)


@pytest.mark.parametrize("language", COHERENT)
def test_loops_are_incoherent_in_every_script(language: str) -> None:
    loop = COHERENT[language][:12] * 12
    assert is_repetitive(loop, finished=False)
    assert is_incoherent(loop, language, finished=True)
    assert is_repetitive(COHERENT[language][0] * 40, finished=True)


def test_a_few_words_in_any_order_are_a_loop() -> None:
    generator = random.Random(0)
    assert is_repetitive(" ".join(generator.choices(["the", "of", "and"], k=150)), finished=True)


def test_saying_it_twice_is_no_loop() -> None:
    assert not is_repetitive(COHERENT["en"] + " " + COHERENT["en"], finished=True)


@pytest.mark.parametrize(
    ("prompt", "reply"),
    [("th", "ru"), ("en", "zh"), ("ja", "ko"), ("zh", "th"), ("ar", "he"), ("ru", "ar"), ("de", "bn")],
)
def test_another_script_is_incoherent(prompt: str, reply: str) -> None:
    assert is_incoherent(COHERENT[reply], prompt, finished=True)


@pytest.mark.parametrize(("prompt", "reply"), [("en", "sw"), ("th", "id"), ("de", "sw"), ("sw", "de"), ("ko", "de")])
def test_another_language_in_latin_letters_is_incoherent(prompt: str, reply: str) -> None:
    assert is_incoherent(COHERENT[reply], prompt, finished=True)


def test_languages_that_are_mixed_up_are_not_accused() -> None:
    assert same_or_close_language("id", "ms")
    assert not same_or_close_language("id", "en")
    malay = "Anda boleh membekukan sup dalam bahagian kecil supaya ia cair dengan cepat apabila diperlukan."
    assert not is_incoherent(malay, "id", finished=True)


def test_too_little_text_has_no_language() -> None:
    assert identify_language("Oh no!") == ""
    assert identify_language("12345 67890 !!!") == ""
    assert identify_language("抱歉，我无法帮忙。") == "zh"


# No deadline: the first example loads the model.
@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=300), st.sampled_from(sorted(COHERENT)), st.booleans())
def test_any_text_gets_a_verdict(text: str, language: str, finished: bool) -> None:
    assert is_incoherent(text, language, finished) in (True, False)
    assert isinstance(identify_language(text), str)


def test_a_megabyte_is_judged_by_its_head() -> None:
    assert is_incoherent("ab" * 500_000, "en", finished=False)
    assert not is_incoherent(
        COHERENT["en"] + " " + "".join(chr(97 + place % 26) for place in range(40)), "en", finished=False
    )
