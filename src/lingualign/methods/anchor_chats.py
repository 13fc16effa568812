"""Anchors as token ids, cut behind the last position that is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from lingualign.data.schema import Prompt
from lingualign.errors import ConfigError
from lingualign.features.positions import Positions
from lingualign.methods.anchors import Anchors
from lingualign.methods.own_language import Lesson
from lingualign.models.chat import EncodedChat, encode_chats


@dataclass(frozen=True)
class AnchorChats:
    """Encoded anchors.

    Attributes:
        references: the reference language's harmful prompts, each once.
        reference: the same, encoded.
        reference_of: for each pair, the index of its reference prompt.
        taught: for each pair with a lesson its index among the pairs, in order.
        teachers: the lessons of those pairs, encoded.
        low: each pair's prompt in the other language, encoded; with reply positions the lesson's reply follows it, or
            the reference's where there is no lesson.
        keep: the keep set, encoded, in its order.
    """

    references: list[Prompt]
    reference: list[EncodedChat]
    reference_of: list[int]
    taught: list[int]
    teachers: list[EncodedChat]
    low: list[EncodedChat]
    keep: list[EncodedChat]


def encode_anchors(
    tokenizer: Any,
    anchors: Anchors,
    positions: Positions,
    replies: Mapping[tuple[str, str, str], str],
    lessons: Mapping[tuple[str, str, str], Lesson] = MappingProxyType({}),
) -> AnchorChats:
    """Encodes pairs and keep set for the declared positions.

    Args:
        tokenizer: with a chat template.
        anchors: pairs and keep set.
        positions: what will be read.
        replies: the base model's own replies by prompt key, for reply positions.
        lessons: what stands in for the reference of a pair, by the key of its prompt in the other language.

    Raises:
        ConfigError: a reply that the positions need is missing.
    """
    read = positions.reply_tokens

    def encode(texts: Sequence[str], forced: Sequence[str]) -> list[EncodedChat]:
        chats = encode_chats(tokenizer, texts, replies=forced if read else None)
        # What follows the last position read cannot change it.
        return [replace(chat, ids=chat.ids[: chat.prompt_length + read]) for chat in chats]

    def own(prompts: Sequence[Prompt]) -> list[str]:
        return [_reply(replies, prompt) for prompt in prompts] if read else []

    references = list(anchors.reference_harmful)
    taught = [index for index, (_, low) in enumerate(anchors.pairs) if low.key in lessons]
    teachers = [lessons[anchors.pairs[index][1].key] for index in taught]
    forced = own([reference for reference, _ in anchors.pairs])
    if read:
        for index, lesson in zip(taught, teachers, strict=True):
            forced[index] = lesson.reply
    return AnchorChats(
        references,
        encode([prompt.text for prompt in references], own(references)),
        [references.index(reference) for reference, _ in anchors.pairs],
        taught,
        encode([lesson.prompt for lesson in teachers], [lesson.reply for lesson in teachers]),
        encode([low.text for _, low in anchors.pairs], forced),
        encode([prompt.text for prompt in anchors.keep], own(anchors.keep)),
    )


def _reply(replies: Mapping[tuple[str, str, str], str], prompt: Prompt) -> str:
    try:
        return replies[prompt.key]
    except KeyError:
        raise ConfigError(
            f"reply positions need the model's own reply to {prompt.kind} prompt {prompt.seed_id} ({prompt.language}); "
            "generate it first, or set reply_tokens to 0"
        ) from None
