"""Refusals in the prompt's own language: what the model says to a harmful prompt when it is told to refuse there.

Context distillation in closed form: what the model's layers give for a prompt with the instruction, and with the reply
that it gives then, is the target for the bare prompt with the same reply. The paired reference prompt is not needed,
and tokens line up because the reply is the same. Our own; no paper has it. Askell et al. 2021 (arXiv 2112.00861)
distil a context by training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lingualign.data.schema import Prompt, PromptSet
from lingualign.evaluate.schema import Reply
from lingualign.languages import language

#: Chosen among four on the select split (docs/method-notes.md).
INSTRUCTION = "Say in {language} that you cannot help with this: {prompt}"


@dataclass(frozen=True)
class Lesson:
    """A prompt with the instruction, and the refusal that the model answers it with.

    Attributes:
        prompt: what is asked instead.
        reply: the model's own reply, in the language of the bare prompt.
    """

    prompt: str
    reply: str


def instructed(prompts: Iterable[Prompt]) -> PromptSet:
    """The same prompts, each with the instruction to refuse in its language."""
    return PromptSet(
        replace(prompt, text=INSTRUCTION.format(language=language(prompt.language).name, prompt=prompt.text))
        for prompt in prompts
    )


def lessons(asked: PromptSet, replies: Sequence[Reply]) -> dict[tuple[str, str, str], Lesson]:
    """Those prompts that the model does refuse in their language, by key.

    Args:
        asked: what `instructed` returned.
        replies: the model's judged replies to them, in their order.
    """
    return {
        prompt.key: Lesson(prompt.text, reply.text)
        for prompt, reply in zip(asked, replies, strict=True)
        if reply.outcome == "refused" and reply.reply_language == prompt.language
    }
