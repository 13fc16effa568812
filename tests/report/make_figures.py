"""The sections of `result.json` that panels show, computed by the real functions from synthetic replies."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lingualign.data.schema import Prompt
from lingualign.evaluate.controls import length_controls, translation_controls
from lingualign.evaluate.correction import JudgeError
from lingualign.evaluate.judges.card import JudgeCard
from lingualign.evaluate.metrics import cells
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.utility.accuracy import TaskResult
from lingualign.evaluate.utility.divergence import PromptDivergence
from lingualign.evaluate.utility.measure import Utility
from lingualign.evaluate.utility.perplexity import TextScore
from lingualign.evaluate.verdict import compare
from lingualign.measures import (
    PromptControls,
    SecondOpinion,
    agreement_figures,
    behaviour,
    corrected_figures,
    utility_figures,
)
from lingualign.results import _plain

#: Languages in which the sample's judge is not valid, and one in which it was never measured.
NOT_VALID, UNKNOWN = "th", "he"
TASKS = ("global_mmlu_full_en", "lingualign_xcopa_th")


class Words:
    """A tokenizer whose tokens are words."""

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[str]]]:
        return {"input_ids": [text.split() for text in texts]}


def judge_card_of(languages: Sequence[str]) -> JudgeCard:
    """Errors of a good judge, too few labels in one language, none in another."""
    errors = {tag: JudgeError(80, 74, 120, 117) for tag in languages if tag != UNKNOWN}
    if NOT_VALID in errors:
        errors[NOT_VALID] = JudgeError(12, 7, 30, 21)
    return JudgeCard("ngram-2", errors, {tag: "all" if tag == NOT_VALID else "read" for tag in errors})


def second_opinion(replies: Sequence[Reply], seed: int) -> tuple[Reply, ...]:
    """The replies as another judge sees them: every twentieth verdict is turned round."""
    draw = random.Random(seed)
    turned = {"refused": "answered", "answered": "refused"}
    return tuple(
        replace(reply, outcome=turned.get(reply.outcome, reply.outcome)) if draw.random() < 0.05 else reply
        for reply in replies
    )


def measured_utility(
    replies: Sequence[Reply], *, edited: bool, tasks: Sequence[str] = TASKS, documents: int = 200
) -> Utility:
    """Scores of the harmless prompts of some replies."""
    draw = random.Random(7)
    perplexity: dict[str, list[TextScore]] = {}
    divergence: dict[str, list[PromptDivergence]] = {}
    for reply in replies:
        if reply.kind == "harmless":
            tokens, nll = draw.randint(10, 40), draw.uniform(2.0, 3.5)
            damage, drift = draw.uniform(0.0, 0.06), draw.uniform(0.0, 0.05)
            perplexity.setdefault(reply.language, []).append(
                TextScore(reply.seed_id, reply.language, tokens, 4 * tokens, tokens * nll * (1 + damage * edited))
            )
            divergence.setdefault(reply.language, []).append(
                PromptDivergence(reply.seed_id, reply.language, 16, drift, drift / 2, 1 - drift)
            )
    results = {
        name: TaskResult(
            name,
            "acc,none",
            "1.0",
            0,
            "0.4.9",
            "same",
            {
                f"{name}:{number}": int((number * 7 + 3 * edited * (number % 11 == 0)) % 20 < 9)
                for number in range(documents)
            },
        )
        for name in tasks
    }
    return Utility(
        results,
        {tag: tuple(rows) for tag, rows in perplexity.items()},
        {tag: tuple(rows) for tag, rows in divergence.items()} if edited else {},
    )


def prompts_of(replies: Sequence[Reply], texts: Mapping[tuple[str, str, str], str]) -> list[Prompt]:
    return [Prompt(reply.seed_id, reply.language, reply.kind, texts[reply.key]) for reply in replies]


def make_figures(
    before: Sequence[Reply],
    after: Sequence[Reply] | None,
    texts: Mapping[tuple[str, str, str], str],
    *,
    reference: str = "en",
    card: JudgeCard | None = None,
    second: bool = True,
    tasks: Sequence[str] = TASKS,
    documents: int = 200,
) -> dict[str, Any]:
    """The sections as `result.json` has them."""
    languages = list(dict.fromkeys(reply.language for reply in before))
    card = card or judge_card_of(languages)
    harmful = [reply for reply in before if reply.kind == "harmful"]
    draw = random.Random(3)
    lengths = {reply.key: draw.randint(8, 20) + 2 * languages.index(reply.language) for reply in harmful}
    opinion = SecondOpinion("e5-1", second_opinion(before, 1), second_opinion(after, 2) if after is not None else None)
    sides = [measured_utility(before, edited=edited, tasks=tasks, documents=documents) for edited in (False, True)]
    plain: dict[str, Any] = _plain(
        {
            "reference": reference,
            "judge": {"name": card.name, "languages": card.as_table()},
            "cells": cells(before),
            "comparison": compare(before, after, reference=reference) if after is not None else None,
            "corrected": corrected_figures(before, after, card.errors, reference),
            "second_judge": agreement_figures(before, after, opinion) if second else None,
            "behaviour": {
                "before": behaviour(before, reference),
                "after": behaviour(after, reference) if after is not None else None,
            },
            "prompt_controls": PromptControls(
                tuple(length_controls(before, lengths, reference=reference)),
                tuple(translation_controls(before, prompts_of(harmful, texts), reference=reference)),
            ),
            "utility": utility_figures(sides[0], sides[1] if after is not None else None, before, after, Words()),
        }
    )
    return plain
