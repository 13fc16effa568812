"""Words and numbers as reports show them: language labels, rates, p values, and hostile text made harmless."""

from __future__ import annotations

import unicodedata

from lingualign.evaluate.statistics import Interval
from lingualign.evaluate.verdict import signed
from lingualign.languages import LANGUAGES

#: Characters of a prompt or reply that a report shows.
LONGEST_TEXT = 400


def label(tag: str) -> str:
    """`Thai (th)`; the tag alone where the language is not in our table."""
    return f"{LANGUAGES[tag].name} ({tag})" if tag in LANGUAGES else clean(tag)


def rate(value: float) -> str:
    """A share with two digits."""
    return f"{value:.2f}"


def interval(bounds: Interval) -> str:
    """An interval of a share, `0.12–0.31`."""
    return f"{bounds[0]:.2f}–{bounds[1]:.2f}"


def difference(value: float) -> str:
    """A difference with its sign and two digits; the minus sign is as wide as the plus sign."""
    return signed(value).replace("-", "−")


def difference_interval(bounds: Interval) -> str:
    """An interval of a difference, `+0.12 to +0.31`."""
    return f"{difference(bounds[0])} to {difference(bounds[1])}"


def p_value(value: float) -> str:
    """A p value with three digits, `<0.001` where it is smaller."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def clean(text: str) -> str:
    """The text without what could disturb a page or a terminal; it still has to be escaped.

    Control characters (NUL, escape), bidirectional controls and lone surrogates become U+FFFD, so that a reader sees
    that something was there; newlines and tabs stay. Zero-width joiners stay too: Persian and Bengali need them.
    """
    return "".join("\ufffd" if _is_disturbing(character) else character for character in text)


def shortened(text: str, longest: int = LONGEST_TEXT) -> tuple[str, int]:
    """The cleaned head of a text, and the number of characters left out."""
    return clean(text[:longest]), max(len(text) - longest, 0)


def _is_disturbing(character: str) -> bool:
    if character in "\n\t":
        return False
    # Cc: controls; Cs: surrogates. Bidirectional marks, embeddings, overrides and isolates are part of Cf.
    return unicodedata.category(character) in {"Cc", "Cs"} or character in _BIDIRECTIONAL_CONTROLS


_BIDIRECTIONAL_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
