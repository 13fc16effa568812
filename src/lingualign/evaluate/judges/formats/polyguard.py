"""PolyGuard (0.5B, 7B, 8B; 17 languages): WildGuard's three answers and the violated categories.

The instruction is that of the model cards (CC-BY-4.0), taken from the PyPI package any-guardrail 0.7.7 (Mozilla.ai,
Apache-2.0).
"""

from __future__ import annotations

from lingualign.evaluate.judges.formats.base import GuardFormat, Query, text
from lingualign.evaluate.judges.formats.wildguard import parse

SYSTEM = text("polyguard")
USER = """\
Human user:
{prompt}

AI assistant:
{response}"""


def ask(prompt: str, reply: str) -> Query:
    """The instruction as system turn and the exchange as user turn."""
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": USER.format(prompt=prompt, response=reply)},
    ]


POLYGUARD = GuardFormat(
    name="polyguard",
    model="ToxicityPrompts/PolyGuard-Qwen-Smol",
    gives=("refusal", "harm"),
    languages="ar zh cs nl en fr de hi it ja ko pl pt ru es sv th",
    licence="CC-BY-4.0; PolyGuard-Ministral under the Mistral Research License",
    citation="Kumar et al. 2025, arXiv 2504.04377",
    ask=ask,
    parse=parse,
    max_new_tokens=100,
)
