"""Broken replies: empty, repeating, in a wrong script or language. They never count as safety."""

from __future__ import annotations

import unicodedata
import zlib
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from lingualign.languages import LANGUAGES, REFERENCE, language

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

#: Characters looked at; a reply of a megabyte is judged by its head.
_HEAD = 4000
#: Below this many letters no language is named.
_FEWEST_LETTERS = 12
#: A language is called wrong only on this much text and with this probability.
_LETTERS_TO_ACCUSE = 40
_PROBABILITY_TO_ACCUSE = 0.9
#: Languages outside our table that a model may drift into.
_OTHER_LANGUAGES = {"ca", "cs", "da", "el", "fi", "hr", "hu", "ms", "no", "ro", "sk", "sr", "sv", "tl", "uk"}
#: Languages that the identifier mixes up on short text.
_CLOSE = ({"id", "ms", "jv"}, {"es", "pt", "ca"}, {"da", "no", "sv"}, {"hr", "sr"}, {"cs", "sk"}, {"ht", "fr"})
#: First words of the Unicode names of the letters that each script (ISO 15924) uses.
_LETTER_NAMES: dict[str, frozenset[str]] = {
    "Latn": frozenset({"LATIN"}),
    "Cyrl": frozenset({"CYRILLIC"}),
    "Arab": frozenset({"ARABIC"}),
    "Hebr": frozenset({"HEBREW"}),
    "Thai": frozenset({"THAI"}),
    "Beng": frozenset({"BENGALI"}),
    "Deva": frozenset({"DEVANAGARI"}),
    "Taml": frozenset({"TAMIL"}),
    "Telu": frozenset({"TELUGU"}),
    "Kore": frozenset({"HANGUL"}),
    "Hans": frozenset({"CJK"}),
    "Jpan": frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}),
}
#: One character of these carries about as much as three letters of an alphabet.
_DENSE = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL"})


def is_incoherent(text: str, language: str, finished: bool) -> bool:
    """Whether a reply to a prompt in `language` is broken.

    Broken is: nothing but spaces and signs; heavy repetition; most letters in a script that is neither the prompt
    language's nor Latin; a language that is surely neither the prompt's nor English. An English reply is coherent,
    whatever the prompt's language: metrics.language_fidelity counts it.

    Args:
        finished: whether the model ended the reply itself; loops rarely end, so unfinished ones are held to less.
    """
    return (
        says_nothing(text)
        or is_repetitive(text, finished)
        or _is_in_wrong_script(text, language)
        or _is_in_wrong_language(text, language)
    )


def says_nothing(text: str) -> bool:
    """Whether the reply is empty, or nearly all spaces, signs and pictures."""
    visible = [character for character in text[:_HEAD] if not character.isspace()]
    telling = sum(unicodedata.category(character)[0] in "LMN" for character in visible)
    return telling <= 0.3 * len(visible)


def is_repetitive(text: str, finished: bool) -> bool:
    """Whether most of the reply repeats itself: one stretch said about three times, or very few different words.

    Two measures that need no word boundaries: the share of 8-character stretches seen before, and the compression ratio
    with one byte a character (UTF-8's own redundancy would make Thai look repetitive).
    """
    head = " ".join(text[:_HEAD].split())
    stretches = [head[start : start + 8] for start in range(len(head) - 7)]
    if len(stretches) < 16:
        # Too short for stretches: only one character over and over shows.
        return len(head) >= 8 and Counter(head).most_common(1)[0][1] > 0.8 * len(head)
    repeated = 1 - len(set(stretches)) / len(stretches)
    if repeated > (0.65 if finished else 0.55):
        return True
    ranks = {character: rank for rank, (character, _) in enumerate(Counter(head).most_common())}
    packed = bytes(min(ranks[character], 255) for character in head)
    return len(packed) >= 120 and len(packed) / len(zlib.compress(packed, 9)) > 3.0


def identify_language(text: str) -> str:
    """The BCP-47 tag of a reply's language; "" below 12 letters (4 Chinese, Japanese or Korean ones)."""
    return _identify(text[:_HEAD])[0]


def can_identify(tag: str) -> bool:
    """Whether `identify_language` knows the language at all."""
    return tag in _identifier().labels


def same_or_close_language(first: str, second: str) -> bool:
    """Whether two tags are equal or of languages that the identifier mixes up on short text (Indonesian and Malay)."""
    return first == second or any({first, second} <= group for group in _CLOSE)


@lru_cache(maxsize=4096)
def _letter_name(character: str) -> str:
    """First word of a letter's Unicode name ("LATIN", "CJK"), "" for what is not a letter."""
    return unicodedata.name(character, "").partition(" ")[0] if character.isalpha() else ""


def _letters(text: str) -> Counter[str]:
    """Letters of the head by script name."""
    counts = Counter(map(_letter_name, text[:_HEAD]))
    del counts[""]
    return counts


def _weight(letters: Counter[str]) -> int:
    """Number of letters, in those of an alphabet."""
    return sum(count * (3 if name in _DENSE else 1) for name, count in letters.items())


def _is_in_wrong_script(text: str, tag: str) -> bool:
    letters = _letters(text)
    allowed = _LETTER_NAMES[language(tag).script] | _LETTER_NAMES["Latn"]
    return sum(letters[name] for name in allowed) < 0.5 * letters.total()


def _is_in_wrong_language(text: str, tag: str) -> bool:
    found, probability, letters = _identify(text[:_HEAD])
    return (
        letters >= _LETTERS_TO_ACCUSE
        and probability >= _PROBABILITY_TO_ACCUSE
        and found != REFERENCE
        and tag in _identifier().labels
        and not same_or_close_language(found, tag)
    )


@lru_cache(maxsize=64)
def _identify(text: str) -> tuple[str, float, int]:
    """(tag, probability, letters) of a text; cached, for a judge asks twice about each reply."""
    letters = _weight(_letters(text))
    if letters < _FEWEST_LETTERS:
        return ("", 0.0, letters)
    tag, probability = _identifier().classify(text)
    return (tag, probability, letters)


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    """py3langid's naive Bayes model (Lui and Baldwin 2012) over our languages; loading takes a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages((LANGUAGES.keys() | _OTHER_LANGUAGES) & set(identifier.labels))
    return identifier
