"""Diversity and repetition of stored replies, per language. No model is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lingualign.errors import DataError
from lingualign.evaluate.incoherence import is_repetitive
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.statistics import Interval, paired_difference_interval, wilson_interval
from lingualign.evaluate.utility.seeds import by_language


@dataclass(frozen=True, slots=True)
class Generation:
    """What a language's replies look like.

    Attributes:
        n: replies.
        distinct_1, distinct_2: different tokens (pairs of neighbouring tokens) over all of them, in all replies of the
            language together. Source: Li et al. 2016, NAACL, with the model's own tokens in place of words, which many
            languages do not delimit. Falls as text gets longer, so read it beside `mean_tokens`.
        repetitive: share of replies that mostly repeat themselves, with its Wilson interval.
        finished: share of replies that the model ended itself, with its Wilson interval.
        mean_tokens: mean number of generated tokens.
    """

    language: str
    n: int
    distinct_1: float
    distinct_2: float
    repetitive: float
    repetitive_interval: Interval
    finished: float
    finished_interval: Interval
    mean_tokens: float


@dataclass(frozen=True, slots=True)
class GenerationChange:
    """What became of a language's replies, paired by prompt.

    Attributes:
        before, after: of the same prompts.
        repetitive_interval, finished_interval: 95% intervals (Newcombe's method 10) of the differences after - before.
    """

    language: str
    before: Generation
    after: Generation
    repetitive_interval: Interval
    finished_interval: Interval


def generation_figures(replies: Sequence[Reply], tokenizer: Any) -> list[Generation]:
    """One for each language, in order of first appearance.

    Args:
        replies: any kind, at least one.
        tokenizer: the model's.
    """
    return [_figures(language, rows, tokenizer) for language, rows in by_language(replies).items()]


def generation_changes(before: Sequence[Reply], after: Sequence[Reply], tokenizer: Any) -> list[GenerationChange]:
    """What became of each language's replies.

    Raises:
        DataError: the two sides hold replies to different prompts.
    """
    if [reply.key for reply in before] != [reply.key for reply in after]:
        raise DataError("the replies before and after are to different prompts; audit the same prompts on both sides")
    later = by_language(after)
    return [
        GenerationChange(
            language,
            _figures(language, was, tokenizer),
            _figures(language, now := later[language], tokenizer),
            paired_difference_interval(_repetitive(was), _repetitive(now)),
            paired_difference_interval([reply.finished for reply in was], [reply.finished for reply in now]),
        )
        for language, was in by_language(before).items()
    ]


def distinct(sequences: Sequence[Sequence[int]], length: int) -> float:
    """Different n-grams of `length` tokens over all n-grams in the sequences; 0 where there is none."""
    grams = [
        tuple(sequence[start : start + length]) for sequence in sequences for start in range(len(sequence) - length + 1)
    ]
    return len(set(grams)) / len(grams) if grams else 0.0


def _figures(language: str, replies: Sequence[Reply], tokenizer: Any) -> Generation:
    n = len(replies)
    # A server's JSON can spell half a character, which no tokenizer takes.
    texts = [reply.text.encode("utf-8", errors="replace").decode("utf-8") for reply in replies]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    repetitive = sum(_repetitive(replies))
    finished = sum(reply.finished for reply in replies)
    return Generation(
        language=language,
        n=n,
        distinct_1=distinct(ids, 1),
        distinct_2=distinct(ids, 2),
        repetitive=repetitive / n,
        repetitive_interval=wilson_interval(repetitive, n),
        finished=finished / n,
        finished_interval=wilson_interval(finished, n),
        mean_tokens=sum(reply.tokens for reply in replies) / n,
    )


def _repetitive(replies: Sequence[Reply]) -> list[bool]:
    return [is_repetitive(reply.text, reply.finished) for reply in replies]
