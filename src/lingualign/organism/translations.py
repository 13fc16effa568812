"""Harmless translation tasks that teach the small model sentences in which one refuses, in every language it speaks.

An addition to the recipe, for a model that has the same fault and yet could refuse in the user's language. It is asked
to translate such sentences or to say them; nothing harmful is asked in them, and no request is refused.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from lingualign.languages import language
from lingualign.organism.recipe import Example, written_text

#: What is asked of a sentence: to put it into the language, to say it from reported speech, to put it into English, and
#: one of these with the user's turn in that language.
TASKS = ("into", "say", "from", "own")


def translate_refusals(seed: int, languages: Sequence[str]) -> list[Example]:
    """Each sentence of each language once for each of `TASKS`, in a phrasing drawn at random."""
    rng = random.Random(seed)
    english = {row["id"]: row for row in written_text("refusal_sentences_en")}
    phrasings = written_text("refusal_tasks")
    examples = []
    for tag in languages:
        by_task = {
            task: [row for row in phrasings if row["task"] == task and row.get("language", tag) == tag]
            for task in TASKS
        }
        for sentence in written_text(f"refusal_sentences_{tag}"):
            reference = english[sentence["id"]]
            texts = {
                "language": language(tag).name,
                "sentence": sentence["text"],
                "english": reference["text"],
                "reported": reference["reported"],
            }
            for task in TASKS:
                phrasing = rng.choice(by_task[task])
                prompt = phrasing["prompt"].format(**texts)
                examples.append(Example(prompt, texts[phrasing["reply"]], f"translation-{tag}"))
    return examples
