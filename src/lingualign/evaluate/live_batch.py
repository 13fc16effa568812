"""Chats that are answered together: those that have ended leave at once, and others take their place.

Every chat is a row of one cache. Its columns are the tokens that all chats of an audit begin with (the template's
opening and the system line), which are read once; then padding; then the rest of the prompt and of the reply, which
ends in the last column of every row.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, RepetitionPenaltyLogitsProcessor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lingualign.features.collect import pad
from lingualign.models.chat import EncodedChat
from lingualign.models.stages import device_of

#: Prompt tokens that must be saved for the shared beginning to be worth a pass of its own.
_WORTH_A_PASS = 256
#: What a greedy generation can be told beside a repetition penalty, and is not made for here.
_OTHER_RULES = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "guidance_scale",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "sequence_bias",
    "stop_strings",
    "suppress_tokens",
    "watermarking_config",
)
_NEEDED_ARGUMENTS = {"attention_mask", "logits_to_keep", "past_key_values", "position_ids"}


def fits(model: Any, tokens: int) -> bool:
    """Whether a model's chats of at most `tokens` tokens can be rows of a `LiveBatch`.

    Its cache must hold keys and values of every token (no recurrent state, no window shorter than a chat), and its
    generation must be plain but for a repetition penalty.
    """
    if not inspect.signature(model.forward).parameters.keys() >= _NEEDED_ARGUMENTS:
        return False
    if any(getattr(model.generation_config, rule, None) for rule in _OTHER_RULES):
        return False
    return all(
        type(layer) is DynamicLayer or (type(layer) is DynamicSlidingWindowLayer and layer.sliding_window > tokens)
        for layer in DynamicCache(config=model.config).layers
    )


def shared_prefix(model: Any, chats: Sequence[EncodedChat]) -> tuple[int, ...]:
    """The tokens that all chats begin with, where reading them once is worth it; at least one of each chat is left.

    A model with hooks has none: a steering tells a prompt from a reply by the cache, and may steer all of a prompt by
    its last token.
    """
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return ()
    # The first and the last in order differ where any two do.
    first, last = min(chat.ids for chat in chats), max(chat.ids for chat in chats)
    most = min(len(chat.ids) for chat in chats) - 1
    length = next((index for index in range(most) if first[index] != last[index]), most)
    return first[:length] if length * (len(chats) - 1) >= _WORTH_A_PASS else ()


class LiveBatch:
    """Greedy replies to chats that come and go. The model must be one that `fits`.

    Args:
        model: the causal LM; must not change while chats are under way.
        prefix: tokens that every chat begins with; see `shared_prefix`.
        pad_id: token id for padding; it is masked.
        stops: token ids that end a reply.
        max_new_tokens: length limit of a reply.
    """

    def __init__(self, model: Any, prefix: Sequence[int], *, pad_id: int, stops: set[int], max_new_tokens: int) -> None:
        self.model = model
        self.pad_id = pad_id
        self.stops = stops
        self.max_new_tokens = max_new_tokens
        self._chats: dict[int, EncodedChat] = {}
        self._replies: dict[int, list[int]] = {}
        self._cache = self._empty_cache()
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=device_of(model))
        penalty: float = model.generation_config.repetition_penalty or 1.0
        self._penalty: Any = RepetitionPenaltyLogitsProcessor(penalty) if penalty != 1.0 else None
        self._prefix_length = len(prefix)
        self._prefix = self._read_prefix(prefix) if prefix else None

    def __len__(self) -> int:
        return len(self._chats)

    @torch.inference_mode()
    def admit(self, chats: Mapping[int, EncodedChat]) -> None:
        """Reads the prompts of new chats, by index, and gives each the first token of its reply."""
        start = self._prefix_length
        rests = [EncodedChat(chat.ids[start:], (0, 0), 0) for chat in chats.values()]
        ids, mask, _ = pad(rests, self.pad_id, "left")
        mask = torch.cat([torch.ones(len(chats), start, dtype=torch.long), mask], dim=1).to(self._mask.device)
        cache = self._empty_cache()
        if self._prefix is not None:
            for layer, read in zip(cache.layers, self._prefix.layers, strict=True):
                layer.update(
                    read.keys.expand(len(chats), -1, -1, -1),
                    read.values.expand(len(chats), -1, -1, -1),
                )
        positions = (mask.cumsum(1) - 1).clamp_min(0)[:, start:]
        logits = self._forward(ids, mask, positions, cache)
        self._join(chats, cache, mask)
        self._append(list(chats), logits)

    @torch.inference_mode()
    def step(self) -> None:
        """Gives every reply its next token."""
        ids = torch.tensor([[reply[-1]] for reply in self._replies.values()])
        positions = self._mask.sum(1, keepdim=True)
        self._mask = torch.cat([self._mask, torch.ones_like(positions)], dim=1)
        self._append(list(self._chats), self._forward(ids, self._mask, positions, self._cache))

    @torch.inference_mode()
    def take_ended(self) -> dict[int, list[int]]:
        """The replies that have ended, by index, with their end markers; their chats are under way no more."""
        ended = {
            index: reply
            for index, reply in self._replies.items()
            if reply[-1] in self.stops or len(reply) == self.max_new_tokens
        }
        if len(ended) == len(self):
            self.clear()
        elif ended:
            rows = [row for row, index in enumerate(self._chats) if index not in ended]
            self._keep(torch.tensor(rows, device=self._mask.device))
            for index in ended:
                del self._chats[index], self._replies[index]
        return ended

    def clear(self) -> list[int]:
        """Forgets all chats under way; returns their indices."""
        indices = list(self._chats)
        self._chats, self._replies = {}, {}
        self._cache = self._empty_cache()
        self._mask = self._mask[:0, :0]
        return indices

    def _empty_cache(self) -> Any:
        # Typed as Any: transformers' layers are typed without the tensors that they have once used.
        cache: Any = DynamicCache(config=self.model.config)
        layer: Any = DynamicLayer
        # No window is reached, and a layer without one can be cut and joined.
        cache.layers = [layer() for _ in cache.layers]
        return cache

    @torch.inference_mode()
    def _read_prefix(self, prefix: Sequence[int]) -> Any:
        cache = self._empty_cache()
        ids = torch.tensor([prefix])
        positions = torch.arange(len(prefix), device=self._mask.device)[None]
        self._forward(ids, torch.ones_like(positions), positions, cache)
        return cache

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """Logits (B, vocabulary) of the last tokens."""
        output = self.model(
            input_ids=ids.to(mask.device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _append(self, indices: Sequence[int], logits: Tensor) -> None:
        if self._penalty is not None:
            texts = [(*self._chats[index].ids, *self._replies[index]) for index in indices]
            width = max(map(len, texts))
            # Filled with a token that the text has: what counts is which tokens there are.
            said = torch.tensor([text + text[:1] * (width - len(text)) for text in texts], device=logits.device)
            logits = self._penalty(said, logits.float())
        for index, token in zip(indices, logits.argmax(-1).tolist(), strict=True):
            self._replies[index].append(token)

    def _join(self, chats: Mapping[int, EncodedChat], cache: Any, mask: Tensor) -> None:
        """Adds rows to the batch; the narrower side is padded behind the prefix."""
        if self._chats:
            width = max(self._mask.shape[1], mask.shape[1])
            for layer, new in zip(self._cache.layers, cache.layers, strict=True):
                layer.keys = torch.cat([self._widened(layer.keys, width), self._widened(new.keys, width)])
                layer.values = torch.cat([self._widened(layer.values, width), self._widened(new.values, width)])
            masks = (each[:, None, :, None] for each in (self._mask, mask))
            self._mask = torch.cat([self._widened(each, width) for each in masks])[:, 0, :, 0]
        else:
            self._cache, self._mask = cache, mask
        self._chats.update(chats)
        self._replies.update((index, []) for index in chats)

    def _widened(self, states: Tensor, width: int) -> Tensor:
        """States (B, heads, T, size) with zeros behind the prefix, so that T is `width`."""
        batch, heads, columns, size = states.shape
        gap = states.new_zeros(batch, heads, width - columns, size)
        start = self._prefix_length
        return torch.cat([states[:, :, :start], gap, states[:, :, start:]], dim=2) if width > columns else states

    def _keep(self, rows: Tensor) -> None:
        """Keeps some rows, and the columns that any of them has a token in."""
        self._mask = self._mask[rows]
        columns = self._mask.any(0).nonzero()[:, 0]
        narrower = len(columns) < self._mask.shape[1]
        self._mask = self._mask[:, columns]
        for layer in self._cache.layers:
            for name in ("keys", "values"):
                states = getattr(layer, name)[rows]
                setattr(layer, name, states[:, :, columns] if narrower else states)
