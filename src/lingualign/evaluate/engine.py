"""In-process generation: greedy, independent of what else is in the batch up to rounding.

Longest prompts come first, so that neighbours are of a length and trouble with memory shows at once. A chat that has
ended leaves the batch, and the next ones take its place (`LiveBatch`). transformers' own continuous batching
(`generate_batch`) puts its paged attention into the model while it runs and reads prompts without padding in one row;
steering, which finds prompts and their last tokens by past and mask, does not work there. `benchmarks/generation.py`
times it beside this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from lingualign.models.chat import EncodedChat, encode_chats

#: Share of the batch that must be free for others to be read: a pass over a few prompts costs as much as over many.
REFILL = 0.25


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
        batch_size: most chats at once, or `auto` for what the free memory has room for. Halved, for this engine from
            then on, when the device runs out of memory.
        system: optional system line (the SafePrompt baseline).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_new_tokens: int = 24,
        batch_size: int | Literal["auto"] = 64,
        system: str | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.system = system

    def generate(self, texts: Sequence[str]) -> Iterator[tuple[list[int], list[RawReply]]]:
        """Yields (indices into `texts`, their replies) in groups as they end.

        Raises:
            torch.OutOfMemoryError, MemoryError: the device has no room for a single chat.
        """
        return self.generate_encoded(encode_chats(self.tokenizer, texts, system=self.system))

    def generate_encoded(self, chats: Sequence[EncodedChat]) -> Iterator[tuple[list[int], list[RawReply]]]:
        """The same for prompts that are token ids already."""
        stops = self._stop_ids()
        for group in self._answered(chats):
            yield (
                list(group),
                [
                    RawReply(self.tokenizer.decode(ids, skip_special_tokens=True).strip(), len(ids), ids[-1] in stops)
                    for ids in group.values()
                ],
            )

    def reply_ids(self, chats: Sequence[EncodedChat]) -> list[list[int]]:
        """The token ids of the replies, the end marker included where the model gave one."""
        found = {index: ids for group in self._answered(chats) for index, ids in group.items()}
        return [found[index] for index in range(len(chats))]

    def _answered(self, chats: Sequence[EncodedChat]) -> Iterator[dict[int, list[int]]]:
        """Token ids of the replies by index into `chats`, in groups as they end."""
        from lingualign.evaluate.batch_size import fitting_batch
        from lingualign.evaluate.live_batch import fits

        if not chats:
            return
        tokens = max(len(chat.ids) for chat in chats) + self.max_new_tokens
        if self.batch_size == "auto":
            self.batch_size = fitting_batch(self.model, tokens)
        # The next ones are taken from the end.
        waiting = sorted(range(len(chats)), key=lambda index: len(chats[index].ids))
        yield from (self._live if fits(self.model, tokens) else self._by_batches)(chats, waiting)

    def _live(self, chats: Sequence[EncodedChat], waiting: list[int]) -> Iterator[dict[int, list[int]]]:
        import torch

        from lingualign.evaluate.live_batch import LiveBatch, shared_prefix

        batch = LiveBatch(
            self.model,
            shared_prefix(self.model, chats),
            pad_id=self.tokenizer.pad_token_id,
            stops=self._stop_ids(),
            max_new_tokens=self.max_new_tokens,
        )
        ended: dict[int, list[int]] = {}
        while waiting or len(batch):
            free = self._most() - len(batch)
            next_ones: list[int] = []
            if waiting and (free >= REFILL * self._most() or not len(batch)):
                if ended:
                    yield ended
                    ended = {}
                next_ones = [waiting.pop() for _ in range(min(free, len(waiting)))]
            try:
                if next_ones:
                    batch.admit({index: chats[index] for index in next_ones})
                else:
                    batch.step()
                ended |= batch.take_ended()
            except (torch.OutOfMemoryError, MemoryError):
                # The cache may be half written: those under way begin anew.
                again = {*next_ones, *batch.clear()}
                if len(again) == 1:
                    raise
                self.batch_size = len(again) // 2
                waiting += sorted(again, key=lambda index: len(chats[index].ids))
        if ended:
            yield ended

    def _by_batches(self, chats: Sequence[EncodedChat], waiting: list[int]) -> Iterator[dict[int, list[int]]]:
        """For models that `LiveBatch` does not fit: transformers' `generate`, until the last of a batch has ended."""
        import torch

        while waiting:
            part = waiting[-self._most() :]
            try:
                replies = self._generate_batch([chats[index] for index in part])
            except (torch.OutOfMemoryError, MemoryError):
                if len(part) == 1:
                    raise
                self.batch_size = len(part) // 2
                continue
            del waiting[-len(part) :]
            yield dict(zip(part, replies, strict=True))

    def _generate_batch(self, chats: Sequence[EncodedChat]) -> list[list[int]]:
        import torch

        from lingualign.features.collect import pad
        from lingualign.models.stages import device_of

        pad_id = self.tokenizer.pad_token_id
        ids, mask, _ = pad(chats, pad_id, "left")
        device = device_of(self.model)
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

    def _most(self) -> int:
        assert isinstance(self.batch_size, int)
        return self.batch_size

    def _stop_ids(self) -> set[int]:
        eos = self.model.generation_config.eos_token_id
        return set(eos if isinstance(eos, list) else [eos])
