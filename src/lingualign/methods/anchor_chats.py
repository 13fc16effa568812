"""Anchors as token ids, cut behind the last position that is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lingualign.data.schema import Prompt
from lingualign.errors import ConfigError
from lingualign.features.positions import Positions
from lingualign.methods.anchors import Anchors
from lingualign.models.chat import EncodedChat, encode_chats


@dataclass(frozen=True)
class AnchorChats:
    """Encoded anchors.

    Attributes:
        references: the reference language's harmful prompts, each once.
        reference: the same, encoded.
        reference_of: for each pair, the index of its reference prompt.
        low: each pair's prompt in the other language, encoded; with reply positions the reference's reply follows it.
        keep: the keep set, encoded, in its order.
    """

    references: list[Prompt]
    reference: list[EncodedChat]
    reference_of: list[int]
    low: list[EncodedChat]
    keep: list[EncodedChat]


def encode_anchors(
    tokenizer: Any, anchors: Anchors, positions: Positions, replies: Mapping[tuple[str, str, str], str]
) -> AnchorChats:
    """Encodes pairs and keep set for the declared positions.

    Args:
        tokenizer: with a chat template.
        anchors: pairs and keep set.
        positions: what will be read.
        replies: the base model's own replies by prompt key, for reply positions.

    Raises:
        ConfigError: a reply that the positions need is missing.
    """
    read = positions.reply_tokens

    def encode(prompts: Sequence[Prompt], reply_from: Sequence[Prompt]) -> list[EncodedChat]:
        forced = [_reply(replies, prompt) for prompt in reply_from] if read else None
        chats = encode_chats(tokenizer, [prompt.text for prompt in prompts], replies=forced)
        # What follows the last position read cannot change it.
        return [replace(chat, ids=chat.ids[: chat.prompt_length + read]) for chat in chats]

    references = list(anchors.reference_harmful)
    return AnchorChats(
        references,
        encode(references, references),
        [references.index(reference) for reference, _ in anchors.pairs],
        encode([low for _, low in anchors.pairs], [reference for reference, _ in anchors.pairs]),
        encode(anchors.keep, anchors.keep),
    )


def _reply(replies: Mapping[tuple[str, str, str], str], prompt: Prompt) -> str:
    try:
        return replies[prompt.key]
    except KeyError:
        raise ConfigError(
            f"reply positions need the model's own reply to {prompt.kind} prompt {prompt.seed_id} ({prompt.language}); "
            "generate it first, or set reply_tokens to 0"
        ) from None
