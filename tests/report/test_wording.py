"""Cleaning of hostile text, labels and numbers."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from lingualign.report.wording import LONGEST_TEXT, clean, label, p_value, shortened


@given(st.text(alphabet=st.characters()))
def test_clean_text_can_be_written_and_keeps_its_length(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned) == len(text)
    cleaned.encode("utf-8")
    assert not [
        character for character in cleaned if unicodedata.category(character) == "Cc" and character not in "\n\t"
    ]


def test_what_goes_and_what_stays() -> None:
    assert clean("a\x00b\x1b[0m\u202ec\u2066d\ud800") == "a\ufffdb\ufffd[0m\ufffdc\ufffdd\ufffd"
    for text in ("می\u200cخواهم", "ক্\u200dষ", "line\n\ttab", "👩\u200d👧", "שלום", "日本語"):
        assert clean(text) == text


def test_shortened_counts_what_it_leaves_out() -> None:
    assert shortened("ab") == ("ab", 0)
    assert shortened("x" * 1_000_000) == ("x" * LONGEST_TEXT, 1_000_000 - LONGEST_TEXT)


def test_labels_and_p_values() -> None:
    assert label("th") == "Thai (th)"
    assert label("x\x00") == "x\ufffd"
    assert [p_value(value) for value in (0.0001, 0.001, 0.0496, 1.0)] == ["<0.001", "0.001", "0.050", "1.000"]
