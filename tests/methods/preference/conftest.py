"""Harmless preference pairs for all tests of preference training."""

from __future__ import annotations

import pytest

from lingualign.data.schema import Prompt
from lingualign.methods.preference.pairs import Preference, PreferencePair

WORDS = ("tea", "bread", "river", "stone", "cloud", "music")


def _pair(number: int, word: str) -> PreferencePair:
    return PreferencePair(
        Preference(Prompt(str(number), "it", "harmful", f"dimmi {word}"), f"no, niente {word}", f"ecco {word} per te"),
        Preference(Prompt(str(number), "en", "harmful", f"tell me {word}"), f"no, not {word}", f"here is some {word}"),
    )


@pytest.fixture
def pairs() -> list[PreferencePair]:
    """Six pairs whose replies differ in length."""
    return [_pair(number, word) for number, word in enumerate(WORDS)]
