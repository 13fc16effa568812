"""Readers of the layouts that several benchmarks share. Each function makes the reader of one benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lingualign.data.benchmarks.files import Cells, check_count, column, find, label, read_rows
from lingualign.data.benchmarks.spec import Entry, Part, Reader
from lingualign.errors import DataError
from lingualign.languages import LANGUAGES

#: Whether a row belongs to the part of this name.
Belongs = Callable[[Cells, str], bool]

_TAGS = {language.name.casefold(): tag for tag, language in LANGUAGES.items()}


def wide(*patterns: str, identifier: str | None = None, category: str | None = None) -> Reader:
    """A table with one column per language tag; `{part}` in a pattern is the part's name.

    Args:
        identifier: column of the row's id; its position from 1 if None.
        category: column of the category, where the file has it.
    """

    def read(root: Path, name: str, part: Part, languages: tuple[str, ...]) -> list[Entry]:
        path = find(root, *(pattern.format(part=name) for pattern in patterns))
        rows = read_rows(path)
        for wanted in (*languages, *filter(None, (identifier,))):
            column(path, rows, wanted)
        check_count(path, rows, part.rows)
        return [
            Entry(
                row[identifier] if identifier else str(place),
                label(row.get(category or "", "")),
                {tag: row[tag] for tag in languages},
            )
            for place, row in enumerate(rows, start=1)
        ]

    return read


def one_language(
    *patterns: str,
    text: tuple[str, ...],
    category: tuple[str, ...] = (),
    identifier: str | None = None,
    context: str | None = None,
    needs: tuple[str, ...] = (),
    belongs: Belongs | None = None,
) -> Reader:
    """A table of prompts in the one language of the part.

    Args:
        text: the column of the prompt, under the names that different copies give it.
        category: the same for the category; no category if empty or absent.
        identifier: column of the row's id; its position from 1 if None.
        context: column of a passage that goes before the prompt, as HarmBench joins them.
        belongs: the rows of the part, where several parts share a file; positions count the whole file.
        needs: columns that `belongs` looks at.
    """

    def read(root: Path, name: str, part: Part, languages: tuple[str, ...]) -> list[Entry]:
        path = find(root, *(pattern.format(part=name) for pattern in patterns))
        rows = read_rows(path)
        prompt = column(path, rows, *text)
        for wanted in (*needs, *filter(None, (identifier,))):
            column(path, rows, wanted)
        check_count(path, rows, part.file_rows)
        labels = next((found for found in category if found in rows[0]), None)
        kept = [
            (row[identifier] if identifier else str(place), row)
            for place, row in enumerate(rows, start=1)
            if belongs is None or belongs(row, name)
        ]
        check_count(path, kept, part.rows)
        return [
            Entry(
                seed_id,
                label(row[labels]) if labels else "",
                dict.fromkeys(languages, "\n\n---\n\n".join(filter(None, (row.get(context or "", ""), row[prompt])))),
            )
            for seed_id, row in kept
        ]

    return read


def file_per_language(
    *patterns: str, text: tuple[str, ...], category: str | None = None, names: Mapping[str, str] | None = None
) -> Reader:
    """One file per language, whose rows are joined by their position where the part is parallel.

    Args:
        patterns: `{part}` is the part's name, `{language}` the language as the files name it.
        names: names of the languages in the files, where they are not the tags.
    """

    def read(root: Path, name: str, part: Part, languages: tuple[str, ...]) -> list[Entry]:
        by_language: dict[str, dict[str, tuple[str, str]]] = {}
        for tag in languages:
            written = names[tag] if names else tag
            path = find(root, *(pattern.format(part=name, language=written) for pattern in patterns))
            rows = read_rows(path)
            prompt = column(path, rows, *text)
            check_count(path, rows, part.expected(tag))
            by_language[tag] = {
                str(place): (label(row.get(category or "", "")), row[prompt]) for place, row in enumerate(rows, start=1)
            }
        return joined(by_language) if part.parallel else apart(by_language)

    return read


def long(
    *patterns: str,
    text: str,
    language: str,
    belongs: Belongs,
    needs: tuple[str, ...] = (),
    identifier: str | None = None,
    category: str | None = None,
) -> Reader:
    """One table with a column that names the language of each row, by tag or by English name.

    Args:
        belongs: the rows of the part.
        needs: columns that `belongs` looks at.
        identifier: column that joins translations; the row's position where the part is not parallel.
    """

    def read(root: Path, name: str, part: Part, languages: tuple[str, ...]) -> list[Entry]:
        path = find(root, *patterns)
        rows = read_rows(path)
        for wanted in (text, language, *needs, *filter(None, (identifier, category))):
            column(path, rows, wanted)
        check_count(path, rows, part.file_rows)
        by_language: dict[str, dict[str, tuple[str, str]]] = {tag: {} for tag in languages}
        for place, row in enumerate(rows, start=1):
            tag = language_tag(row[language])
            if tag in by_language and belongs(row, name):
                seed_id = row[identifier] if identifier else str(place)
                by_language[tag][seed_id] = (label(row[category]) if category else "", row[text])
        for tag, found in by_language.items():
            if not found:
                raise DataError(f"{path}: no {name} rows in {tag}; download the file again")
            check_count(path, list(found), part.expected(tag))
        return joined(by_language) if part.parallel else apart(by_language)

    return read


def language_tag(written: str) -> str:
    """The tag of a language that is written as its tag or its English name; "" for one that lingualign lacks."""
    return written if written in LANGUAGES else _TAGS.get(written.strip().casefold(), "")


def joined(by_language: Mapping[str, Mapping[str, tuple[str, str]]]) -> list[Entry]:
    """Entries from (category, text) by id, per language; the first language gives order and category."""
    first = next(iter(by_language.values()), {})
    return [
        Entry(seed_id, category, {tag: rows[seed_id][1] for tag, rows in by_language.items() if seed_id in rows})
        for seed_id, (category, _) in first.items()
    ]


def apart(by_language: Mapping[str, Mapping[str, tuple[str, str]]]) -> list[Entry]:
    """Entries of one language each, for sets whose languages hold different requests."""
    return [
        Entry(f"{tag}-{seed_id}", category, {tag: text})
        for tag, rows in by_language.items()
        for seed_id, (category, text) in rows.items()
    ]
