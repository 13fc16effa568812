"""Whether a model answers, and refuses, in the language it was asked in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lingualign.evaluate.metrics import language_fidelity
from lingualign.evaluate.schema import Outcome, Reply
from lingualign.evaluate.statistics import Interval, wilson_interval


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The languages of the replies with one outcome to prompts in one language, with 95% Wilson intervals.

    Attributes:
        n: replies whose language was identified.
        own: share in the prompt's language, or in one that the identifier mixes up with it.
        english: share in English.
    """

    language: str
    outcome: Outcome
    n: int
    own: float
    own_interval: Interval
    english: float
    english_interval: Interval


#: Incoherent replies have no language worth naming.
OUTCOMES: tuple[Outcome, ...] = ("answered", "refused")


def fidelity_figures(replies: Sequence[Reply]) -> list[Fidelity]:
    """For answers and refusals and each prompt language with an identified reply, over prompts of all kinds.

    An edit changes which prompts are refused, so figures before and after are of different replies and are not paired.
    """
    return [
        Fidelity(
            language=language,
            outcome=outcome,
            n=n,
            own=own,
            own_interval=wilson_interval(round(own * n), n),
            english=english,
            english_interval=wilson_interval(round(english * n), n),
        )
        for outcome in OUTCOMES
        for language, (own, english, n) in language_fidelity(replies, outcome).items()
    ]
