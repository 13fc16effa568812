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

    def select(self, chats: Sequence[EncodedChat], offsets: Sequence[int], width: int) -> Selection:
        """Where the rows of a batch are.

        Args:
            chats: the batch.
            offsets: index of each chat's first token in the padded batch (its padding on the left).
            width: padded length.

        Raises:
            ConfigError: a chat is too short for the declared positions.
        """
        index = torch.zeros(len(chats), self.rows, dtype=torch.long)
        content = torch.zeros(len(chats), width) if self.prompt_mean else None
        for batch_index, (chat, offset) in enumerate(zip(chats, offsets, strict=True)):
            if self.template_tokens > chat.prompt_length:
                raise ConfigError(
                    f"a chat of {chat.prompt_length} prompt tokens is too short for {self.template_tokens} template "
                    "positions; ask for fewer"
                )
            template = range(chat.prompt_length - self.template_tokens, chat.prompt_length)
            # A reply that ends earlier gives its last token again, so that every chat has the same rows.
            reply = (
                min(position, len(chat.ids) - 1)
                for position in range(chat.prompt_length, chat.prompt_length + self.reply_tokens)
            )
            # The mean's place is filled with any token here.
            index[batch_index] = offset + torch.tensor([*template, *[0] * self.prompt_mean, *reply])
            if content is not None:
                start, stop = chat.content
                content[batch_index, offset + start : offset + stop] = 1.0 / max(1, stop - start)
        return Selection(index, content, self.template_tokens)


@dataclass(frozen=True)
class Selection:
    """The rows of one padded batch.

    Attributes:
        index: (B, rows) the token of each row.
        content: (B, width) float32 weights of the tokens whose mean is one of the rows, or None.
        mean_row: which row that is.
    """

    index: Tensor
    content: Tensor | None
    mean_row: int

    def of(self, values: Tensor) -> Tensor:
        """The rows, (B, rows, d) float32, of values (B, width, d)."""
        index = self.index.to(values.device)
        # Only what is read is turned into float32: it is a few tokens of each chat.
        rows = values[torch.arange(len(index), device=values.device)[:, None], index].float()
        if self.content is not None:
            rows[:, self.mean_row] = (self.content.to(values.device)[:, None] @ values.float())[:, 0]
        return rows
