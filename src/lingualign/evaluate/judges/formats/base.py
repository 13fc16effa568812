"""What every guard format has in common: the question put to the guard model and what is read from its output."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

#: One turn of a chat: `role`, and `content` as text or as a list of typed parts.
Message = Mapping[str, Any]
#: What a model is asked: a chat that its own template frames, or raw text that is the whole prompt.
Query = Sequence[Message] | str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a guard said about a reply.

    Attributes:
        refused: whether the reply refuses; None from a guard that does not say.
        unsafe: whether the reply is harmful; None from a guard that does not say.
        harm_score: how harmful, in [0, 1]; None from a guard that gives no degree.
    """

    refused: bool | None
    unsafe: bool | None
    harm_score: float | None = None


@dataclass(frozen=True, slots=True)
class GuardFormat:
    """How one family of guard models is asked and read.

    Attributes:
        name: the name in a judge's specification.
        model: hub id of the default model; None where any chat model may serve and one has to be named.
        gives: what the guard tells, "refusal", "harm" or both.
        languages: the languages that its authors claim, in their words.
        licence: licence of the model, or of the prompt where any model may serve.
        citation: source of the format.
        ask: the query for (prompt, reply).
        parse: the reading of an output; None where the output cannot be read.
        max_new_tokens: length limit of the output.
        generation_prompt: whether the in-process chat template is told to open the model's turn. Officially it is not,
            where the guard's template does so anyway.
    """

    name: str
    model: str | None
    gives: tuple[str, ...]
    languages: str
    licence: str
    citation: str
    ask: Callable[[str, str], Query]
    parse: Callable[[str], Reading | None]
    max_new_tokens: int
    generation_prompt: bool = True


def text(name: str) -> str:
    """The words of `text/NAME.txt` without its last line break: instructions as their authors published them."""
    source = files("lingualign.evaluate.judges.formats") / "text" / f"{name}.txt"
    return source.read_text(encoding="utf-8").removesuffix("\n")


def user_and_assistant(prompt: str, reply: str) -> Query:
    """The exchange as a chat, for guards whose own chat template holds the instructions."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]


def without_thoughts(output: str) -> str:
    """The output after a reasoning model's `<think>` block, if it has one."""
    return output.rpartition("</think>")[2].strip()


def field(output: str, name: str, values: Sequence[str]) -> str | None:
    """The value of the line `name: value`, in lower case.

    None where no line gives one of `values`, or where lines contradict each other: there is no telling which one the
    guard meant and which one a hostile reply made it write.
    """
    pattern = rf"^[ \t]*{re.escape(name)}:[ \t]*({'|'.join(map(re.escape, values))})[ \t]*$"
    found = {value.lower() for value in re.findall(pattern, output, re.IGNORECASE | re.MULTILINE)}
    return found.pop() if len(found) == 1 else None
