"""In-process generation: greedy, batched by length, independent of batch composition up to rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lingualign.models.chat import EncodedChat, encode_chats


@dataclass(frozen=True, slots=True)
class RawReply:
    """A generated reply before judging."""

    text: str
    tokens: int
    finished: bool


class Engine(Protocol):
    """Anything that answers prompts, batch by batch, so that the caller can store each batch at once."""

    def generate(self, texts: Sequence[str]) -> Iterator[tuple[list[int], list[RawReply]]]: ...


class TransformersEngine:
    """Greedy generation with transformers.

    Args:
        model, tokenizer: the model under test; `edit.applied(model)` changes what it says.
        max_new_tokens: length limit of a reply.
        batch_size: chats per batch.
        system: optional system line (the SafePrompt baseline).
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, max_new_tokens: int = 24, batch_size: int = 64, system: str | None = None
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.system = system

    def generate(self, texts: Sequence[str]) -> Iterator[tuple[list[int], list[RawReply]]]:
        """Yields (indices into `texts`, their replies), longest prompts first: trouble with memory shows at once."""
        return self.generate_encoded(encode_chats(self.tokenizer, texts, system=self.system))

    def generate_encoded(self, chats: Sequence[EncodedChat]) -> Iterator[tuple[list[int], list[RawReply]]]:
        """The same for prompts that are token ids already."""
        order = sorted(range(len(chats)), key=lambda index: -len(chats[index].ids))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            yield batch, self._generate_batch([chats[index] for index in batch])

    def _generate_batch(self, chats: Sequence[EncodedChat]) -> list[RawReply]:
        stops = self._stop_ids()
        return [
            RawReply(self.tokenizer.decode(ids, skip_special_tokens=True).strip(), len(ids), ids[-1] in stops)
            for ids in self.reply_ids(chats)
        ]

    def reply_ids(self, chats: Sequence[EncodedChat]) -> list[list[int]]:
        """The token ids of the replies to one batch of chats, the end marker included where the model gave one."""
        import torch

        from lingualign.features.collect import pad

        pad_id = self.tokenizer.pad_token_id
        ids, mask, _ = pad(chats, pad_id, "left")
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            output = self.model.generate(
                ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=pad_id,
            )
        stops = self._stop_ids()
        replies = []
        for row in output[:, ids.shape[1] :].tolist():
            length = next((index + 1 for index, token in enumerate(row) if token in stops), len(row))
            replies.append(row[:length])
        return replies

    def _stop_ids(self) -> set[int]:
        eos = self.model.generation_config.eos_token_id
        return set(eos if isinstance(eos, list) else [eos])
