"""How well a model predicts given texts, per language.

A text is scored as the user's turn of a chat: the template's opening is context, and every token of the text itself is
scored. That is where a chat model sees such text in use, and where an edit acts; outside its template a chat model's
perplexity tells more about the missing template than about the text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lingualign.data.schema import Prompt
from lingualign.errors import DataError, NumericalError
from lingualign.evaluate.utility.seeds import Estimate, SeedTable, by_language
from lingualign.features.collect import batches_by_length, pad
from lingualign.models.chat import encode_chats

#: Values of the logits that one batch may have; the vocabulary is what makes a batch large here.
LOGITS_PER_BATCH = 2**27
#: Rows of logits that are in float32 at a time.
ROWS_AT_A_TIME = 64


@dataclass(frozen=True, slots=True)
class TextScore:
    """One text under a model.

    Attributes:
        seed_id, language: the text's identity.
        tokens: tokens scored.
        bytes: UTF-8 bytes of the text.
        nll: negative log-likelihood of the text in nats.
    """

    seed_id: str
    language: str
    tokens: int
    bytes: int
    nll: float


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Perplexity of a language's texts.

    Attributes:
        n: texts.
        per_token: exp of the mean negative log-likelihood of a token; depends on the tokenizer.
        bits_per_byte: compares across tokenizers and languages.
    """

    language: str
    n: int
    per_token: float
    bits_per_byte: float


@dataclass(frozen=True, slots=True)
class PerplexityChange:
    """What became of a language's perplexity.

    Attributes:
        before, after: of the same texts.
        ratio: after / before, the same for any unit of text; 1 is no change.
    """

    language: str
    before: Perplexity
    after: Perplexity
    ratio: Estimate


def score_texts(
    model: Any,
    tokenizer: Any,
    texts: Sequence[Prompt],
    *,
    batch_logits: int = LOGITS_PER_BATCH,
    on_batch: Callable[[int], None] | None = None,
) -> list[TextScore]:
    """The negative log-likelihood of each text, in the texts' order.

    Args:
        model, tokenizer: a causal LM with a chat template.
        texts: what is scored.
        batch_logits: logits in memory at a time; results do not change beyond rounding.
        on_batch: called with the number of texts done, for progress.

    Raises:
        NumericalError: the model's output is NaN or infinite.
    """
    chats = [
        replace(chat, ids=chat.ids[: chat.content[1]])
        for chat in encode_chats(tokenizer, [text.text for text in texts])
    ]
    device = next(model.parameters()).device
    nll = [0.0] * len(chats)
    done = 0
    for batch in batches_by_length(chats, max(1, batch_logits // model.config.get_text_config().vocab_size)):
        group = [chats[index] for index in batch]
        ids, mask, _ = pad(group, tokenizer.pad_token_id, "right")
        ids, mask = ids.to(device), mask.to(device)
        with torch.inference_mode():
            logits = logits_from(model, ids, mask, chats[0].content[0] - 1)
            for row, (index, chat) in enumerate(zip(batch, group, strict=True)):
                start, stop = chat.content
                nll[index] = _nll(logits[row, : stop - start], ids[row, start:stop])
        done += len(batch)
        if on_batch is not None:
            on_batch(done)
    if not all(map(math.isfinite, nll)):
        raise NumericalError("the model gives NaN or infinite probabilities; load it in float32 and check its weights")
    return [
        TextScore(
            text.seed_id,
            text.language,
            chat.content[1] - chat.content[0],
            len(text.text.strip().encode("utf-8", errors="replace")),
            value,
        )
        for text, chat, value in zip(texts, chats, nll, strict=True)
    ]


def logits_from(model: Any, ids: Tensor, mask: Tensor, first: int) -> Tensor:
    """Logits at the positions from `first` on, (B, T - first, vocabulary) in the model's dtype.

    A large vocabulary makes the output matrix the dearest part of a small model; what is not read is not computed.
    """
    keep = ids.shape[1] - first
    logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=keep).logits
    return logits


def perplexities(scores: Iterable[TextScore]) -> list[Perplexity]:
    """One for each language, in order of first appearance."""
    return [
        Perplexity(
            language,
            n=len(rows),
            per_token=math.exp(sum(row.nll for row in rows) / sum(row.tokens for row in rows)),
            bits_per_byte=sum(row.nll for row in rows) / sum(row.bytes for row in rows) / math.log(2),
        )
        for language, rows in by_language(scores).items()
    ]


def perplexity_changes(before: Sequence[TextScore], after: Sequence[TextScore]) -> list[PerplexityChange]:
    """What became of each language's perplexity, paired by text; see `mean_perplexity_ratio`.

    Raises:
        DataError: the two sides hold different texts.
    """
    ratios = _log_ratios(before, after).by_language()
    return [
        PerplexityChange(was.language, was, now, ratios[was.language].mapped(math.exp))
        for was, now in zip(perplexities(before), perplexities(after), strict=True)
    ]


def mean_perplexity_ratio(before: Sequence[TextScore], after: Sequence[TextScore]) -> Estimate:
    """Geometric mean over languages of the ratios of perplexity per token, after / before.

    The logarithm of a language's ratio is the change of the texts' nll over their number of tokens. The bootstrap draws
    texts (whole seeds) and takes the number of tokens as fixed.

    Raises:
        DataError: the two sides hold different texts.
    """
    return _log_ratios(before, after).mean().mapped(math.exp)


def _log_ratios(before: Sequence[TextScore], after: Sequence[TextScore]) -> SeedTable:
    """Per text its share of the log ratio, scaled so that the mean over a language's texts is the log ratio."""
    if [_identity(score) for score in before] != [_identity(score) for score in after]:
        raise DataError(
            "the perplexities before and after are of different texts; measure the same texts on both sides"
        )
    tokens_per_text = {
        language: sum(row.tokens for row in rows) / len(rows) for language, rows in by_language(before).items()
    }
    return SeedTable(
        {
            (was.language, was.seed_id): (now.nll - was.nll) / tokens_per_text[was.language]
            for was, now in zip(before, after, strict=True)
        }
    )


def _identity(score: TextScore) -> tuple[str, str, int, int]:
    return (score.language, score.seed_id, score.tokens, score.bytes)


def _nll(logits: Tensor, targets: Tensor) -> float:
    """Summed negative log-likelihood of `targets` (N,) under `logits` (N, vocabulary), in nats."""
    parts = zip(torch.split(logits, ROWS_AT_A_TIME), torch.split(targets, ROWS_AT_A_TIME), strict=True)
    return sum((cross_entropy(rows.float(), ids, reduction="sum").item() for rows, ids in parts), 0.0)
