"""XCOPA as two continuations of one sentence, after lm-evaluation-harness's `xcopa_*`.

Its prompt: the premise without its full stop, then "because" or "therefore"; the likelier of the two continuations is
the model's choice. Two things differ here. Cause and effect are read from the Estonian file, for they are wrong in five
others. Only a full stop is taken off: the harness takes off the last character, which in Thai and Tamil is a letter.
"""

from __future__ import annotations

from typing import Any

from lingualign.data.benchmarks.utility import xcopa_items

#: "because" and "therefore", from lm-evaluation-harness (MIT licence), lm_eval/tasks/xcopa/utils.py.
CONNECTORS: dict[str, dict[str, str]] = {
    "et": {"cause": "sest", "effect": "seetõttu"},
    "ht": {"cause": "poukisa", "effect": "donk sa"},
    "id": {"cause": "karena", "effect": "maka"},
    "it": {"cause": "perché", "effect": "quindi"},
    "qu": {"cause": "imataq", "effect": "chaymi"},
    "sw": {"cause": "kwa sababu", "effect": "kwa hiyo"},
    "ta": {"cause": "காரணமாக", "effect": "எனவே"},
    "th": {"cause": "เพราะ", "effect": "ดังนั้น"},
    "tr": {"cause": "çünkü", "effect": "bu yüzden"},
    "vi": {"cause": "bởi vì", "effect": "vì vậy"},
    "zh": {"cause": "因为", "effect": "所以"},
}


def xcopa_documents(data: str, language: str) -> list[dict[str, Any]]:
    """Query, two choices and the label of each of the 500 test items.

    Raises:
        DataError: a file is missing or damaged.
    """
    return [
        {
            "query": f"{item.premise.strip().rstrip('.。')} {CONNECTORS[language][item.question]}",
            "choices": [choice[0].lower() + choice[1:] for choice in item.choices],
            "label": item.label,
        }
        for item in xcopa_items(data, "test", language)
    ]
