"""What is wrong with a source of prompts: counts, gaps, repetitions, texts in another language, overlaps with others.

Findings name rows by their ids and never quote a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from lingualign.data.benchmarks.load import benchmark_folder, gaps, offered
from lingualign.data.benchmarks.overlaps import overlap_warnings
from lingualign.data.benchmarks.registry import benchmark_named
from lingualign.data.benchmarks.spec import Entry, Part
from lingualign.data.loaders import Source, parse_source, read_source
from lingualign.data.schema import Prompt, PromptSet
from lingualign.data.similarity import repeated, similar
from lingualign.errors import DataError
from lingualign.evaluate.incoherence import can_identify, identify_language, same_or_close_language

#: Share of a language's texts that may look like another language: the identifier errs on short texts.
TOLERATED = 0.05
#: Ids that a finding names.
_NAMED = 5

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should know before using the source; an error means it cannot be used as it is."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One part and language of a source.

    Attributes:
        part: part of a benchmark, or kind of the prompts of a file.
        prompts: prompts with a text.
        missing: rows without one.
        repeated: prompts whose text an earlier one has.
        wrong_language: prompts that look like another language; None where the identifier does not know this one.
    """

    part: str
    language: str
    prompts: int
    missing: int
    repeated: int
    wrong_language: int | None


@dataclass(frozen=True, slots=True)
class SourceCheck:
    """A source with what was found in it."""

    spec: str
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...]
    prompts: PromptSet

    @property
    def failed(self) -> bool:
        return any(finding.level == "error" for finding in self.findings)


def check_source(spec: str, languages: Sequence[str] | None = None) -> SourceCheck:
    """Checks one source; a fault that keeps a part from being read is a finding, not an exception.

    Args:
        spec: as `loaders.read_source` understands it.
        languages: languages to check; all of the source if None.

    Raises:
        DataError: the text names no source, or a benchmark has no such part.
    """
    source = read_source(spec)
    findings: list[Finding] = []
    if source.benchmark:
        parts = _benchmark_parts(source, languages, findings)
    else:
        parts = _file_parts(spec, languages, findings)
    cells = [cell for part, prompts, missing in parts for cell in _cells(part, prompts, missing, findings)]
    return SourceCheck(
        spec, tuple(cells), tuple(findings), PromptSet(prompt for _, prompts, _ in parts for prompt in prompts)
    )


def check_overlaps(checks: Sequence[SourceCheck]) -> list[Finding]:
    """Overlaps among sources: the declared ones, and prompts that resemble each other.

    A finding counts the prompts of the second source that the first has too, in one language that both have.
    """
    findings = [
        Finding("warning", text) for text in overlap_warnings([read_source(check.spec).name for check in checks])
    ]
    for first, second in combinations(checks, 2):
        if pairs := similar(first.prompts, second.prompts):
            language = pairs[0][1].language
            total = len(second.prompts.where(languages=[language]))
            ids = _ids([prompt for _, prompt in pairs])
            findings.append(
                Finding(
                    "warning",
                    f"{len(pairs)} of {total} {language} prompts of {second.spec} are in {first.spec}, or nearly so "
                    f"({ids})",
                )
            )
    return findings


#: Name of a part, its prompts, and the rows without text by language.
_Read = tuple[str, list[Prompt], dict[str, list[str]]]


def _benchmark_parts(source: Source, languages: Sequence[str] | None, findings: list[Finding]) -> list[_Read]:
    """The parts of a benchmark that can be read, with every text they have."""
    benchmark = benchmark_named(source.benchmark, source.part)
    try:
        root = benchmark_folder(benchmark, source.folder)
    except DataError as error:
        findings.append(Finding("error", str(error)))
        return []
    if benchmark.unverified:
        findings.append(Finding("warning", f"{benchmark.name}: not verified: {benchmark.unverified}"))
    if benchmark.non_commercial:
        findings.append(Finding("warning", f"{benchmark.name}: {benchmark.licence}: check the terms before you ship"))
    available = offered(benchmark, source.folder)
    parts: list[_Read] = []
    for name, part in benchmark.parts.items():
        wanted = tuple(tag for tag in part.languages if tag in available and (languages is None or tag in languages))
        if source.part not in {None, name} or not wanted:
            continue
        try:
            entries = benchmark.reader(root, name, part, wanted)
        except DataError as error:
            findings.append(Finding("error", str(error)))
            continue
        if any(part.expected(tag) is None for tag in wanted):
            findings.append(Finding("warning", f"{name}: {len(entries)} rows; no number to compare is verified"))
        parts.append((name, _with_text(source.benchmark, name, part, entries, wanted), _missing(part, entries, wanted)))
    return parts


def _with_text(
    benchmark: str, name: str, part: Part, entries: Sequence[Entry], languages: tuple[str, ...]
) -> list[Prompt]:
    return [
        Prompt(f"{name}:{entry.seed_id}", tag, part.kind, entry.texts[tag], source=benchmark)
        for tag in languages
        for entry in entries
        if entry.texts.get(tag, "").strip()
    ]


def _missing(part: Part, entries: Sequence[Entry], languages: tuple[str, ...]) -> dict[str, list[str]]:
    """Ids of the rows without text by language; where languages hold different requests, a row has one language."""
    missing: dict[str, list[str]] = {tag: [] for tag in languages}
    for entry in entries:
        for tag in gaps(entry, languages if part.parallel else tuple(entry.texts)):
            missing[tag].append(entry.seed_id)
    return missing


def _file_parts(spec: str, languages: Sequence[str] | None, findings: list[Finding]) -> list[_Read]:
    """The kinds of a prompt file or of the built-in set; `load_prompts` refuses gaps itself."""
    try:
        prompts = parse_source(spec, languages)
    except DataError as error:
        findings.append(Finding("error", str(error)))
        return []
    kinds = dict.fromkeys(prompt.kind for prompt in prompts)
    return [
        (kind, list(prompts.where(kinds=[kind])), {tag: [] for tag in prompts.where(kinds=[kind]).languages})
        for kind in kinds
    ]


def _cells(part: str, prompts: Sequence[Prompt], missing: dict[str, list[str]], findings: list[Finding]) -> list[Cell]:
    """A cell per language, and a finding for each kind of fault with its number in each language."""
    faults: dict[str, dict[str, list[str]]] = {"gaps": {}, "repeated": {}, "other": {}}
    cells = []
    for tag, without in missing.items():
        mine = [prompt for prompt in prompts if prompt.language == tag]
        again = [prompt.seed_id for _, prompt in repeated(mine)]
        other = _in_another_language(mine, tag) if can_identify(tag) else None
        cells.append(Cell(part, tag, len(mine), len(without), len(again), None if other is None else len(other)))
        faults["gaps"][tag] = without
        faults["repeated"][tag] = again
        faults["other"][tag] = other if other and len(other) > TOLERATED * len(mine) else []
    messages = {
        "gaps": "rows have no text and are left out where the language is read",
        "repeated": "texts repeat an earlier one",
        "other": "texts look like another language",
    }
    for fault, message in messages.items():
        if found := {tag: ids for tag, ids in faults[fault].items() if ids}:
            counts = ", ".join(f"{tag} {len(ids)}" for tag, ids in found.items())
            first = next(iter(found))
            findings.append(Finding("warning", f"{part}: {message}: {counts} (in {first}: {_listed(found[first])})"))
    return cells


def _in_another_language(prompts: Sequence[Prompt], tag: str) -> list[str]:
    """Ids of prompts that the identifier puts in another language, not merely a close one; short texts pass."""
    return [
        prompt.seed_id
        for prompt in prompts
        if (found := identify_language(prompt.text)) and not same_or_close_language(found, tag)
    ]


def _ids(prompts: Sequence[Prompt]) -> str:
    return _listed([prompt.seed_id for prompt in prompts])


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "")
