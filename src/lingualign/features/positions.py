"""Which token positions of a chat become feature rows.

A chat yields `Positions.rows` rows: the last template tokens before the reply, the mean over the user's text if asked
for, and the first reply tokens (teacher-forced) if asked for. Reply rows sit where the model has read i reply tokens,
i = 1 … g.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lingualign.errors import ConfigError
from lingualign.models.chat import EncodedChat


@dataclass(frozen=True)
class Positions:
    """Declared token positions.

    Attributes:
        template_tokens: number of last tokens of the rendered prompt, the reply's starting point included.
        prompt_mean: whether to add one row, the mean over the user's tokens.
        reply_tokens: number of first reply tokens; a shorter reply repeats its last.
    """

    template_tokens: int = 4
    prompt_mean: bool = False
    reply_tokens: int = 0

    def __post_init__(self) -> None:
        if self.template_tokens < 0 or self.reply_tokens < 0 or self.rows == 0:
            raise ConfigError(
                "positions are empty; ask for at least one template token, the prompt mean or one reply token"
            )

    @property
    def rows(self) -> int:
        """Feature rows per chat."""
        return self.template_tokens + int(self.prompt_mean) + self.reply_tokens

    def weights(self, chats: Sequence[EncodedChat], offsets: Sequence[int], width: int) -> Tensor:
        """Selection matrix (B, rows, width) float32: row p of chat b is the weighted sum over its positions.

        Args:
            chats: the batch.
            offsets: index of each chat's first token in the padded batch (its padding on the left).
            width: padded length.

        Raises:
            ConfigError: a chat is too short for the declared positions.
        """
        selection = torch.zeros(len(chats), self.rows, width)
        for batch_index, (chat, offset) in enumerate(zip(chats, offsets, strict=True)):
            if self.template_tokens > chat.prompt_length:
                raise ConfigError(
                    f"a chat of {chat.prompt_length} prompt tokens is too short for {self.template_tokens} template "
                    "positions; ask for fewer"
                )
            row = 0
            first = chat.prompt_length - self.template_tokens
            for position in range(first, chat.prompt_length):
                selection[batch_index, row, offset + position] = 1.0
                row += 1
            if self.prompt_mean:
                start, stop = chat.content
                selection[batch_index, row, offset + start : offset + stop] = 1.0 / max(1, stop - start)
                row += 1
            for position in range(chat.prompt_length, chat.prompt_length + self.reply_tokens):
                # A reply that ends earlier gives its last token again, so that every chat has the same rows.
                selection[batch_index, row, offset + min(position, len(chat.ids) - 1)] = 1.0
                row += 1
        return selection
