"""What a benchmark is: its parts, terms, where it is published, and what is known to be wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lingualign.data.schema import KINDS, Kind, Split


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a benchmark.

    Attributes:
        kind: what the prompts of the part are.
        rows: requests in the part, in each language; None where we could not verify it.
        languages: the languages of the part that lingualign knows, the reference language first.
        split: what its publishers meant it for; None if they did not say.
        rows_by_language: rows of the languages that have another number.
        parallel: the languages hold translations of the same requests. Where they do not, languages cannot be paired.
        file_rows: rows of the file, where several parts or languages share one; None if that is not so or not verified.
    """

    kind: Kind
    rows: int | None
    languages: tuple[str, ...]
    split: Split | None = None
    rows_by_language: Mapping[str, int] = field(default_factory=dict)
    parallel: bool = True
    file_rows: int | None = None

    def expected(self, language: str) -> int | None:
        """Rows of a language, None if not verified."""
        return self.rows_by_language.get(language, self.rows)


@dataclass(frozen=True, slots=True)
class Hub:
    """Where a benchmark lies on the Hugging Face hub.

    Attributes:
        repository: id of the data set.
        files: glob patterns of the files that the reader needs.
        gated: reported to want a login and accepted terms.
        languages: languages that the hub's copy has, where fewer than the benchmark's.
    """

    repository: str
    files: tuple[str, ...]
    gated: bool = False
    languages: tuple[str, ...] | None = None

    @property
    def url(self) -> str:
        return f"https://huggingface.co/datasets/{self.repository}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A request in the languages it was read in; a missing or blank text is a gap."""

    seed_id: str
    category: str
    texts: Mapping[str, str]


#: Folder of the set, name of the part, its description, languages to read -> entries.
Reader = Callable[[Path, str, Part, tuple[str, ...]], list[Entry]]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A public set of prompts.

    Attributes:
        name: how it is called in lingualign, and the name of its folder.
        title: what it is, in a line.
        parts: parts by name.
        reader: reads a part from the folder.
        layout: the files that the reader wants below the folder, for people.
        licence: SPDX identifier or a short statement, with that of the upstream source.
        citation: paper.
        homepage: where it is published.
        hub: its place on the hub, if it has one in a format we read.
        non_commercial: some text derives from a source whose licence excludes commercial use.
        unverified: what of this entry could not be checked against the publication; empty if all was.
        pitfalls: what a person who reads figures on it should know.
    """

    name: str
    title: str
    parts: Mapping[str, Part]
    reader: Reader
    layout: str
    licence: str
    citation: str
    homepage: str
    hub: Hub | None = None
    non_commercial: bool = False
    unverified: str = ""
    pitfalls: tuple[str, ...] = ()

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of any part."""
        return tuple(dict.fromkeys(tag for part in self.parts.values() for tag in part.languages))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of any part."""
        found = {part.kind for part in self.parts.values()}
        return tuple(kind for kind in KINDS if kind in found)

    @property
    def rows(self) -> str:
        """Requests of all parts for a table: "315", "1,974+" where some are not verified, "?" where none is."""
        known = [found for part in self.parts.values() if (found := _rows(part)) is not None]
        if not known:
            return "?"
        return f"{sum(known):,}{'' if len(known) == len(self.parts) else '+'}"


def _rows(part: Part) -> int | None:
    """Requests of a part; of one that is not parallel, in all its languages together."""
    if part.parallel or not part.rows_by_language:
        return part.rows
    return sum(part.rows_by_language.values())
