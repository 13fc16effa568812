"""Few-shot tasks of one-word questions and answers, and the prompts made of them.

The word pairs were written for this project in the languages of the built-in prompts (Apache-2.0): capitals of
countries, antonyms, numerals. They are parallel: row i of a task asks the same in every language.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from lingualign.errors import DataError


@dataclass(frozen=True)
class Task:
    """A task in one language.

    Attributes:
        name: such as `antonym`.
        language: BCP-47 tag.
        pairs: (question, answer).
    """

    name: str
    language: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FewShotPrompt:
    """A few-shot prompt, and the token whose probability is measured behind it.

    Attributes:
        ids: token ids, up to where the answer begins.
        answer: id of the answer's first token that is more than white space.
    """

    ids: tuple[int, ...]
    answer: int


def builtin_tasks(language: str) -> list[Task]:
    """The shipped tasks in a language.

    Raises:
        DataError: they are not there in this language.
    """
    rows = _rows()
    if language not in rows[0]["words"]:
        raise DataError(
            f"the built-in word pairs have no {language}; they have {', '.join(rows[0]['words'])}: give your own tasks"
        )
    names = dict.fromkeys(row["task"] for row in rows)
    return [
        Task(name, language, tuple((*row["words"][language],) for row in rows if row["task"] == name)) for name in names
    ]


@cache
def _rows() -> list[dict[str, Any]]:
    text = files("lingualign.methods.soteria").joinpath("word_pairs.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def few_shot_prompts(
    tokenizer: Any, task: Task, *, shots: int, count: int, shuffled: bool, generator: np.random.Generator
) -> list[FewShotPrompt]:
    """`count` prompts of `shots` solved examples and an open question, all drawn from the task without repetition.

    Args:
        tokenizer: the model's; prompts are plain text, without a chat template.
        task: where the pairs come from.
        shots: solved examples per prompt.
        count: number of prompts.
        shuffled: whether the examples' answers are put in random order, so that they no longer show the task.
        generator: of the draws.

    Raises:
        DataError: the task has too few pairs.
    """
    if len(task.pairs) <= shots:
        raise DataError(
            f"task {task.name} ({task.language}) has {len(task.pairs)} pairs, too few for {shots} examples and a "
            "question; add pairs or ask for fewer shots"
        )
    prompts = []
    for _ in range(count):
        *examples, (question, answer) = (task.pairs[i] for i in generator.permutation(len(task.pairs))[: shots + 1])
        answers = [example[1] for example in examples]
        if shuffled:
            answers = [answers[i] for i in generator.permutation(shots)]
        solved = [f"Q: {example[0]}\nA: {label}\n\n" for example, label in zip(examples, answers, strict=True)]
        prompts.append(_encoded(tokenizer, "".join(solved) + f"Q: {question}\nA:", answer))
    return prompts


def _encoded(tokenizer: Any, text: str, answer: str) -> FewShotPrompt:
    ids = list(tokenizer(text)["input_ids"])
    answer_ids: Sequence[int] = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    # Some tokenizers give the space a token of its own, which would stand for every answer alike.
    blank = next(i for i, token in enumerate(answer_ids) if tokenizer.decode([token]).strip())
    return FewShotPrompt((*ids, *answer_ids[:blank]), answer_ids[blank])
