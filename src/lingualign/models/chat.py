"""Renders prompts with the model's own chat template and finds the template's last tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lingualign.errors import UnsupportedModel


@dataclass(frozen=True, slots=True)
class EncodedChat:
    """Token ids of one chat up to the point where the model replies, and of a reply if one is given.

    Attributes:
        ids: all token ids.
        content: [start, stop) of the user's text.
        prompt_length: number of ids before the reply; the template's closing tokens end there.
    """

    ids: tuple[int, ...]
    content: tuple[int, int]
    prompt_length: int


_MARK = "\u2402"


def check_chat_template(tokenizer: Any) -> None:
    """Raises UnsupportedModel when the tokenizer has no chat template."""
    if not getattr(tokenizer, "chat_template", None):
        raise UnsupportedModel(
            "the tokenizer has no chat template, so this looks like a base model; use its chat or instruct version, "
            "or put a chat_template.jinja beside the weights"
        )


def _wrap(tokenizer: Any, text: str, system: str | None) -> str:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    rendered: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return rendered


def encode_chats(
    tokenizer: Any, texts: Sequence[str], *, system: str | None = None, replies: Sequence[str] | None = None
) -> list[EncodedChat]:
    """Encodes each text as a one-turn chat; `replies` are appended as the beginning of the model's turn.

    The template's closing part is encoded apart from the user's text, so that its tokens are the same for every
    prompt and language and paired positions line up.
    """
    check_chat_template(tokenizer)
    opening, closing = _wrap(tokenizer, _MARK, system).split(_MARK)
    opening_ids = tokenizer(opening, add_special_tokens=False)["input_ids"]
    closing_ids = tokenizer(closing, add_special_tokens=False)["input_ids"]
    contents = tokenizer([text.strip() for text in texts], add_special_tokens=False)["input_ids"] if texts else []
    reply_ids = tokenizer(list(replies), add_special_tokens=False)["input_ids"] if replies else [[]] * len(contents)
    encoded = []
    for content, reply in zip(contents, reply_ids, strict=True):
        start, stop = len(opening_ids), len(opening_ids) + len(content)
        prompt = [*opening_ids, *content, *closing_ids]
        encoded.append(EncodedChat((*prompt, *reply), (start, stop), len(prompt)))
    return encoded


def closing_length(tokenizer: Any) -> int:
    """Number of template tokens between the user's text and the reply."""
    closing = _wrap(tokenizer, _MARK, None).split(_MARK)[1]
    return len(tokenizer(closing, add_special_tokens=False)["input_ids"])
