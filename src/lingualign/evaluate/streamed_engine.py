"""Greedy generation with a streamed model: all prompts gain a token in one pass over the blocks, so that a pass over
the disk serves them all. For the few reply tokens that an edit is fitted on; an audit of long replies wants the model
in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lingualign.evaluate.engine import TransformersEngine
from lingualign.features.block_major import OnePass
from lingualign.features.carry import stood_in
from lingualign.features.collect import Site, batches_by_length, collect_rows
from lingualign.features.positions import Positions
from lingualign.models.chat import EncodedChat
from lingualign.models.stages import streamed_weights

#: Padded tokens per forward pass, and rows of logits at a time.
_BATCH_TOKENS, _HEAD_ROWS = 2048, 256


class StreamedEngine(TransformersEngine):
    """Answers as `TransformersEngine` does, up to rounding. No states are kept from token to token: n tokens cost n
    passes over the prompts.

    Args:
        model, tokenizer: a streamed model; `edit.applied(model)` changes what it says.
        max_new_tokens: length limit of a reply.
        system: optional system line.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_new_tokens: int = 24,
        system: str | None = None,
    ) -> None:
        super().__init__(model, tokenizer, max_new_tokens=max_new_tokens, system=system)
        streamed = streamed_weights(model)
        assert streamed is not None
        self._device = streamed.device
        self._blocks = model.get_submodule(streamed.blocks)
        self._last = Site(f"{streamed.blocks}.{len(self._blocks) - 1}", "output")

    def _answered(self, chats: Sequence[EncodedChat]) -> Iterator[dict[int, list[int]]]:
        stops = self._stop_ids()
        replies: list[list[int]] = [[] for _ in chats]
        for _ in range(self.max_new_tokens):
            open_ones = [index for index, reply in enumerate(replies) if not reply or reply[-1] not in stops]
            if not open_ones:
                break
            for index, token in zip(
                open_ones, self._next([(*chats[index].ids, *replies[index]) for index in open_ones]), strict=True
            ):
                replies[index].append(token)
        yield dict(enumerate(replies))

    def _next(self, sequences: Sequence[tuple[int, ...]]) -> list[int]:
        """The likeliest next token of each sequence."""
        chats = [EncodedChat(ids, (0, len(ids)), len(ids)) for ids in sequences]
        batches = [tuple(chats[index] for index in batch) for batch in batches_by_length(chats, _BATCH_TOKENS)]
        rows = collect_rows(
            self.model,
            chats,
            [self._last],
            Positions(template_tokens=1),
            pad_id=self.tokenizer.pad_token_id,
            batch_tokens=_BATCH_TOKENS,
            states=OnePass(self.model, batches),
        )[self._last]
        found: list[int] = []
        last_ids = torch.tensor([ids[-1:] for ids in sequences])
        for start in range(0, len(rows), _HEAD_ROWS):
            part = slice(start, start + _HEAD_ROWS)
            found += self._logits(rows[part], last_ids[part]).argmax(-1).tolist()
        return found

    def _logits(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """What the model makes of the last block's output (B, 1, hidden): (B, vocabulary)."""
        weights = next(self.model.parameters())
        output = hidden.to(self._device, weights.dtype)
        with torch.inference_mode(), stood_in(self._blocks, len(self._blocks), output):
            logits: Tensor = self.model(input_ids=ids.to(self._device), use_cache=False).logits
        return logits[:, -1]
