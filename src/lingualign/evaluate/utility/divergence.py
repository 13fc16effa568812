"""How far an edited model is from its base on harmless prompts: Kullback-Leibler divergence over a reply.

The base model's own greedy reply is teacher-forced, so that both models are compared on the same tokens, and on those
that the base model in fact produces. KL(base || edited) in nats, as in the null-space and steering literature
(Arditi et al. 2024, arXiv:2406.11717, use the first token alone). Prompt and reply are read one after the other, as in
generation: a steering of the prompt's or the reply's tokens alone acts on those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from lingualign.data.schema import Prompt
from lingualign.errors import NumericalError
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.utility.perplexity import LOGITS_PER_BATCH, ROWS_AT_A_TIME
from lingualign.evaluate.utility.seeds import Estimate, SeedTable
from lingualign.features.collect import batches_by_length, pad
from lingualign.models.chat import EncodedChat, encode_chats
from lingualign.treatments import Treatment

#: Bytes of the base model's logits that are kept until the edited model's are there. Switching the edit on and off
#: costs more than a batch, so it is done once for this much.
KEPT_BYTES = 2**29


@dataclass(frozen=True, slots=True)
class PromptDivergence:
    """The two models on one prompt.

    Attributes:
        seed_id, language: the prompt's identity.
        tokens: reply tokens compared, the end marker included.
        kl: mean over these of KL(base || edited), in nats.
        first_kl: at the first token.
        agreement: share of tokens for which both models' likeliest token is the same.
    """

    seed_id: str
    language: str
    tokens: int
    kl: float
    first_kl: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Divergence:
    """A language's means over prompts, with 95% bootstrap intervals; fields as in `PromptDivergence`.

    Attributes:
        language: a tag, or "mean" for the mean over languages with the interval clustered by seed.
        n: prompts.
    """

    language: str
    n: int
    kl: Estimate
    first_kl: Estimate
    agreement: Estimate


def prompt_divergences(
    model: Any,
    tokenizer: Any,
    treatment: Treatment,
    prompts: Sequence[Prompt],
    *,
    tokens: int = 16,
    batch_size: int = 16,
    batch_logits: int = LOGITS_PER_BATCH,
    kept_bytes: int = KEPT_BYTES,
    on_batch: Callable[[int], None] | None = None,
) -> list[PromptDivergence]:
    """The divergence on each prompt, in the prompts' order. The model is left as it was found.

    Args:
        model: the base model, in memory once.
        tokenizer: its tokenizer.
        treatment: switched on and off.
        prompts: harmless ones.
        tokens: at most so many reply tokens are compared.
        batch_size: chats per batch while replies are generated.
        batch_logits, kept_bytes: memory; results do not change beyond rounding.
        on_batch: called with the number of prompts done, for progress.

    Raises:
        FingerprintMismatch: the treatment was made for other weights.
        NumericalError: a model's output is NaN or infinite.
    """
    chats = _with_own_replies(
        TransformersEngine(model, tokenizer, max_new_tokens=tokens, batch_size=batch_size),
        encode_chats(tokenizer, [prompt.text for prompt in prompts]),
    )
    vocabulary = model.config.get_text_config().vocab_size
    batches = list(batches_by_length(chats, max(1, batch_logits // vocabulary)))
    row_bytes = vocabulary * next(model.parameters()).element_size()
    found: dict[int, PromptDivergence] = {}
    for group in _groups(batches, chats, kept_bytes // row_bytes):
        base = [_reply_logits(model, tokenizer, [chats[index] for index in batch]) for batch in group]
        with treatment.applied(model):
            for batch, rows_before in zip(group, base, strict=True):
                rows_after = _reply_logits(model, tokenizer, [chats[index] for index in batch])
                for index, was, now in zip(batch, rows_before, rows_after, strict=True):
                    found[index] = _compared(prompts[index], was, now)
        if on_batch is not None:
            on_batch(len(found))
    return [found[index] for index in range(len(prompts))]


def divergences(rows: Iterable[PromptDivergence]) -> list[Divergence]:
    """One for each language, in order of first appearance."""
    rows = list(rows)
    tables = _tables(rows)
    estimates = [table.by_language() for table in tables]
    return [
        Divergence(language, sum(row.language == language for row in rows), *(each[language] for each in estimates))
        for language in tables[0].languages
    ]


def mean_divergence(rows: Iterable[PromptDivergence]) -> Divergence:
    """The mean over languages; every language weighs the same."""
    rows = list(rows)
    return Divergence("mean", len(rows), *(table.mean() for table in _tables(rows)))


def _tables(rows: Sequence[PromptDivergence]) -> list[SeedTable]:
    return [
        SeedTable({(row.language, row.seed_id): getattr(row, name) for row in rows})
        for name in ("kl", "first_kl", "agreement")
    ]


def _with_own_replies(engine: TransformersEngine, chats: Sequence[EncodedChat]) -> list[EncodedChat]:
    """The chats followed by the token ids of the engine's replies."""
    return [replace(chat, ids=(*chat.ids, *reply)) for chat, reply in zip(chats, engine.reply_ids(chats), strict=True)]


def _groups(batches: Iterable[list[int]], chats: Sequence[EncodedChat], most_rows: int) -> Iterator[list[list[int]]]:
    """Batches put together as long as their replies have no more tokens than `most_rows`; at least one at a time."""
    group: list[list[int]] = []
    held = 0
    for batch in batches:
        rows = sum(len(chats[index].ids) - chats[index].prompt_length for index in batch)
        if group and held + rows > most_rows:
            yield group
            group, held = [], 0
        group.append(batch)
        held += rows
    if group:
        yield group


@torch.inference_mode()
def _reply_logits(model: Any, tokenizer: Any, chats: Sequence[EncodedChat]) -> list[Tensor]:
    """For each chat the logits that predict its reply, (reply tokens, vocabulary) in the model's dtype."""
    device = next(model.parameters()).device
    prompts = [replace(chat, ids=chat.ids[: chat.prompt_length]) for chat in chats]
    # The reply's last token predicts nothing that is compared.
    replies = [replace(chat, ids=chat.ids[chat.prompt_length : -1]) for chat in chats]
    ids, mask, _ = pad(prompts, tokenizer.pad_token_id, "left")
    read = model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=(mask.cumsum(1) - 1).clamp_min(0).to(device),
        use_cache=True,
        logits_to_keep=1,
    )
    logits = read.logits
    reply_ids, reply_mask, _ = pad(replies, tokenizer.pad_token_id, "right")
    if reply_ids.shape[1]:
        positions = mask.sum(1, keepdim=True) + torch.arange(reply_ids.shape[1])
        following = model(
            input_ids=reply_ids.to(device),
            attention_mask=torch.cat([mask, reply_mask], 1).to(device),
            position_ids=positions.to(device),
            past_key_values=read.past_key_values,
            use_cache=True,
        ).logits
        logits = torch.cat([logits, following], 1)
    # Clones, so that the other logits do not stay in memory with them.
    return [logits[row, : len(reply.ids) + 1].clone() for row, reply in enumerate(replies)]


def _compared(prompt: Prompt, base: Tensor, edited: Tensor) -> PromptDivergence:
    kl = torch.cat(
        [
            # A sum of rounded terms may be a little below zero, which no divergence is.
            kl_div(log_softmax(now.float(), -1), log_softmax(was.float(), -1), reduction="none", log_target=True)
            .sum(-1)
            .clamp_min(0.0)
            for was, now in zip(torch.split(base, ROWS_AT_A_TIME), torch.split(edited, ROWS_AT_A_TIME), strict=True)
        ]
    )
    agreement = (base.argmax(-1) == edited.argmax(-1)).float().mean()
    if not bool(torch.isfinite(kl).all()):
        raise NumericalError("a model gives NaN or infinite probabilities; load it in float32 and check its weights")
    return PromptDivergence(
        prompt.seed_id, prompt.language, len(base), float(kl.mean()), float(kl[0]), float(agreement)
    )
