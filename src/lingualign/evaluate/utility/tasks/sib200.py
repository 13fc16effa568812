"""SIB-200 as a choice among seven topics, with AfroBench's first prompt (lm-evaluation-harness, `sib_*_prompt_1`).

The question and the topics are English, the sentence is in the language under test.
"""

from __future__ import annotations

import random
from typing import Any

from lingualign.data.benchmarks import load_benchmark

#: Of the order of the sentences.
ORDER_SEED = 0
TOPICS = ("science/technology", "travel", "politics", "sports", "health", "entertainment", "geography")


def sib200_documents(data: str, language: str) -> list[dict[str, Any]]:
    """Query, topics and the label of each of the 204 test sentences, in one mixed order for all languages.

    The files are sorted by topic, so the first 50 sentences would be all of one.

    Raises:
        DataError: a file is missing or damaged.
    """
    prompts = list(load_benchmark("sib200", data, part="test", languages=[language]))
    random.Random(ORDER_SEED).shuffle(prompts)
    return [
        {
            "query": (
                f"Given the categories {', '.join(TOPICS[:-1])}, or {TOPICS[-1]}; "
                f"what category does the text: '{prompt.text}' belong to: \n\n"
            ),
            "choices": list(TOPICS),
            "label": TOPICS.index(prompt.category),
        }
        for prompt in prompts
    ]
