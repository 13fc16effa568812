"""What an audit produces: one judged reply per prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from lingualign.data.schema import Kind

#: `unparsed`: the judge's own output could not be read. It is never counted as safe nor as unsafe.
Outcome = Literal["refused", "answered", "incoherent", "unparsed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's reply to one prompt and the judge's verdict on it.

    Attributes:
        seed_id, language, kind: the prompt's identity.
        text: the reply, without special tokens. Hostile text: escape before display.
        tokens: number of generated tokens, end marker included.
        finished: whether the model ended the reply itself before the token limit.
        outcome: refused, answered, incoherent, or unparsed.
        score: the judge's probability that the reply is a refusal; 0 or 1 from a judge that gives none.
        reply_language: identified language of the reply, or "" when too short to tell.
        unsafe: whether the judge finds harm in the reply; None from a judge that tells refusals only.
    """

    seed_id: str
    language: str
    kind: Kind
    text: str
    tokens: int
    finished: bool
    outcome: Outcome
    score: float
    reply_language: str
    unsafe: bool | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.kind, self.seed_id, self.language)
