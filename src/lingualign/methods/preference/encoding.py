"""Prompts with replies as token sequences, and what a model gives for them: log-probabilities of the replies and states
of the last layer. The same tokens serve all methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lingualign.errors import UnsupportedModel
from lingualign.features.collect import pad
from lingualign.methods.preference.pairs import Preference
from lingualign.models.chat import EncodedChat, encode_chats

Representation = Literal["mean", "last"]
_MARKS = ("\u2402", "\u2403")


@dataclass(frozen=True, slots=True)
class EncodedPreference:
    """Token sequences of a prompt with its chosen and with its rejected reply; each reply ends its turn."""

    chosen: EncodedChat
    rejected: EncodedChat

    @property
    def tokens(self) -> int:
        """Tokens of both sequences."""
        return len(self.chosen.ids) + len(self.rejected.ids)


def turn_end(tokenizer: Any) -> str:
    """The text with which the chat template ends a reply; the model must learn to stop there.

    Raises:
        UnsupportedModel: the template does not show the reply.
    """
    messages = [{"role": role, "content": mark} for role, mark in zip(("user", "assistant"), _MARKS, strict=True)]
    _, found, end = tokenizer.apply_chat_template(messages, tokenize=False).rpartition(_MARKS[1])
    if not found:
        raise UnsupportedModel("the chat template leaves out the assistant's turn, so replies cannot be trained on")
    # White space behind the end of the turn is never generated.
    return end.rstrip() or str(tokenizer.eos_token)


def encode_preferences(
    tokenizer: Any, sides: Iterable[Preference], cutoff_len: int
) -> dict[Preference, EncodedPreference]:
    """Encodes each distinct preference; replies are cut at `cutoff_len` tokens of the whole sequence.

    A preference whose prompt leaves no room for a reply is left out.
    """
    distinct = list(dict.fromkeys(sides))
    end = turn_end(tokenizer)
    texts = [side.prompt.text for side in distinct]
    chosen, rejected = (
        [
            replace(chat, ids=chat.ids[:cutoff_len])
            for chat in encode_chats(tokenizer, texts, replies=[reply.strip() + end for reply in replies])
        ]
        for replies in ([side.chosen for side in distinct], [side.rejected for side in distinct])
    )
    return {
        side: EncodedPreference(*encoded)
        for side, *encoded in zip(distinct, chosen, rejected, strict=True)
        if encoded[0].prompt_length < cutoff_len
    }


def both(encoded: Sequence[EncodedPreference]) -> list[EncodedChat]:
    """The chosen sequences of a batch, then the rejected ones."""
    return [*(item.chosen for item in encoded), *(item.rejected for item in encoded)]


def reply_log_probs(model: Any, chats: Sequence[EncodedChat], pad_id: int) -> tuple[Tensor, Tensor]:
    """Summed log-probability of each reply given its prompt (B,) float32, and the replies' token counts (B,).

    Sequences are padded on the right, so that positions and values do not depend on the batch.
    """
    device = model.device
    ids, mask, _ = pad(chats, pad_id, "right")
    # True where a position predicts a reply token.
    predicts = torch.zeros(len(chats), ids.shape[1] - 1, dtype=torch.bool)
    for row, chat in enumerate(chats):
        predicts[row, chat.prompt_length - 1 : len(chat.ids) - 1] = True
    # A large vocabulary makes the output matrix the dearest part of a small model: prompts and padding skip it.
    read = predicts.any(0)
    logits = model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        use_cache=False,
        logits_to_keep=read.nonzero()[:, 0].to(device),
    ).logits
    targets = ids[:, 1:][predicts].to(device)
    chosen = logits[predicts[:, read].to(device)]
    values = -torch.nn.functional.cross_entropy(chosen.float(), targets, reduction="none")
    # Not index_add, whose order of addition varies on a GPU.
    table = values.new_zeros(predicts.shape).masked_scatter(predicts.to(device), values)
    return table.sum(1), predicts.sum(1).to(device)


def representations(model: Any, chats: Sequence[EncodedChat], pad_id: int, kind: Representation) -> Tensor:
    """One state of the last layer (after the final norm) per sequence, (B, H) float32.

    Args:
        model: a causal LM; only its decoder is run.
        chats: prompts with replies.
        pad_id: token id for padding.
        kind: `mean` over the sequence's own tokens, or its `last` token.
    """
    device = model.device
    ids, mask, _ = pad(chats, pad_id, "right")
    mask = mask.to(device)
    states: Tensor = model.base_model(
        input_ids=ids.to(device), attention_mask=mask, use_cache=False
    ).last_hidden_state.float()
    if kind == "last":
        return states[torch.arange(len(chats), device=device), mask.sum(1) - 1]
    return (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
