"""WildGuard (7B, English): harm of the request, refusal and harm of the response.

The template is that of the PyPI package wildguard 1.0.1 (Allen Institute for AI, Apache-2.0); the
tokenizer adds its `<s>`.
"""

from __future__ import annotations

from lingualign.evaluate.judges.formats.base import GuardFormat, Query, Reading, field, text

TEMPLATE = text("wildguard") + "\n"


def ask(prompt: str, reply: str) -> Query:
    """The whole prompt as text."""
    return TEMPLATE.format(prompt=prompt, response=reply)


def parse(output: str) -> Reading | None:
    """Reads the three answers.

    `N/A` is what the guard writes where there is no response. Here there always is one, so it cannot be read.
    """
    answers = [
        field(output, name, ("yes", "no")) for name in ("Harmful request", "Response refusal", "Harmful response")
    ]
    if None in answers:
        return None
    _, refusal, harmful = answers
    return Reading(refused=refusal == "yes", unsafe=harmful == "yes")


WILDGUARD = GuardFormat(
    name="wildguard",
    model="allenai/wildguard",
    gives=("refusal", "harm"),
    languages="en",
    licence="Apache-2.0",
    citation="Han et al. 2024, arXiv 2406.18495",
    ask=ask,
    parse=parse,
    max_new_tokens=128,
)
