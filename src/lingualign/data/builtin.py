"""The prompt set that ships with lingualign: parallel, original, split for fitting, selecting and reporting.

How it was made and what it is not: docs/data.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TypedDict, cast

from lingualign.data.schema import Kind, Prompt, PromptSet, Split
from lingualign.errors import DataError

SOURCE = "lingualign-builtin"
LICENCE = "Apache-2.0"
BUILTIN_LANGUAGES: tuple[str, ...] = (
    "en", "zh", "vi", "ja", "th", "id", "bn", "he", "ar", "ko", "sw", "it", "es", "de",
)  # fmt: skip


class Seed(TypedDict):
    """One row of `prompts/seeds.jsonl`: everything about a request but its wording.

    `form` is question, imperative or context (a sentence of background, then the request); `register` is plain, casual,
    formal or narrative. `twin` joins a harmful seed to its look-alike and is absent from harmless seeds. Harmful and
    look-alike seeds numbered from 201 are in the second style, from 401 in the third; both are in the fit split alone.
    """

    seed_id: str
    kind: Kind
    category: str
    form: str
    register: str
    split: Split
    twin: str


@cache
def builtin_seeds() -> tuple[Seed, ...]:
    """The seeds in shipped order: kind, split, style, then round-robin over categories, so that a prefix is spread."""
    return tuple(cast("Seed", row) for row in _rows("seeds"))


def builtin_prompts(languages: Sequence[str] | None = None) -> PromptSet:
    """The shipped prompts in the given languages, or in all of `BUILTIN_LANGUAGES`.

    Raises:
        DataError: the set does not hold one of the languages.
    """
    wanted = BUILTIN_LANGUAGES if languages is None else tuple(dict.fromkeys(languages))
    missing = [tag for tag in wanted if tag not in BUILTIN_LANGUAGES]
    if missing:
        raise DataError(
            f"the built-in prompts have no {', '.join(missing)}; they have {', '.join(BUILTIN_LANGUAGES)}: "
            "choose among these or give your own prompt file"
        )
    return PromptSet(prompt for tag in wanted for prompt in _language_prompts(tag))


@cache
def _language_prompts(tag: str) -> tuple[Prompt, ...]:
    texts = {row["seed_id"]: row["text"] for row in _rows(tag)}
    return tuple(
        Prompt(
            seed_id=seed["seed_id"],
            language=tag,
            kind=seed["kind"],
            text=texts[seed["seed_id"]],
            category=seed["category"],
            source=SOURCE,
            licence=LICENCE,
            split=seed["split"],
        )
        for seed in builtin_seeds()
    )


def _rows(name: str) -> list[dict[str, str]]:
    text = files("lingualign.data").joinpath("prompts", f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]
