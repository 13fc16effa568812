"""Harmless stand-ins for anchors, for tests of methods."""

from __future__ import annotations

from lingualign.data.schema import KINDS, Prompt, PromptSet
from lingualign.methods.anchors import Anchors, build_anchors

WORDS = ("tea", "bread", "river", "stone", "cloud", "music", "garden", "winter")


def plain_anchors(languages: tuple[str, ...] = ("it",), count: int = len(WORDS)) -> Anchors:
    """`count` seeds of every kind in English and the languages."""
    prompts = [
        Prompt(str(number), language, kind, f"{kind} {language} {word} {WORDS[number - 1]} {number}")
        for language in ("en", *languages)
        for kind in KINDS
        for number, word in enumerate(WORDS[:count])
    ]
    return build_anchors(PromptSet(prompts), "en", languages)
