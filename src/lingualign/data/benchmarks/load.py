"""Benchmarks as prompts, from a folder the user downloaded or from the hub; nothing of them ships with lingualign.

Rows whose text is missing in a language that is asked for are left out, so that what comes back is parallel; the rows
of every file are counted, so a cut download is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lingualign.data.benchmarks.hub import download
from lingualign.data.benchmarks.registry import benchmark_named
from lingualign.data.benchmarks.spec import Benchmark, Entry, Part
from lingualign.data.schema import Prompt, PromptSet
from lingualign.errors import DataError
from lingualign.languages import check_languages


def load_benchmark(
    name: str, folder: str | Path | None, *, part: str | None = None, languages: Sequence[str] | None = None
) -> PromptSet:
    """The prompts of a benchmark; seed ids start with the part's name.

    Args:
        name: a key of `BENCHMARKS`.
        folder: the root that holds a folder of this name; None for the hub.
        part: one part; all parts if None.
        languages: the languages to read; all of each part if None. Rows that lack one of them are left out. With `part`
            None a language that only some parts have is read from those.

    Raises:
        DataError: unknown benchmark, part or language, a missing file, or a file with too few or too many rows.
        MissingDependency: a Parquet file without pyarrow, a spreadsheet without openpyxl.
    """
    benchmark = benchmark_named(name, part)
    root = benchmark_folder(benchmark, folder)
    parts = {part: benchmark.parts[part]} if part is not None else benchmark.parts
    available = tuple(
        tag for tag in offered(benchmark, folder) if any(tag in found.languages for found in parts.values())
    )
    asked = available if languages is None else check_languages(tuple(languages))
    if missing := [tag for tag in asked if tag not in available]:
        raise DataError(f"{name} has no prompts in {', '.join(missing)}; it has {', '.join(available)}")
    prompts: list[Prompt] = []
    for part_name, described in parts.items():
        if wanted := tuple(tag for tag in asked if tag in described.languages):
            try:
                entries = benchmark.reader(root, part_name, described, wanted)
            except DataError as error:
                if part is not None or len(parts) == 1:
                    raise
                # A copy may lack a part: the others can be read by name.
                raise DataError(f"{error} (for {name}/{part_name}; a part can be named alone)") from None
            prompts += _prompts(benchmark, part_name, described, wanted, entries)
    return PromptSet(prompts)


def benchmark_folder(benchmark: Benchmark, folder: str | Path | None) -> Path:
    """The folder of a benchmark below a root, or of its download where there is no root.

    Raises:
        DataError: there is none.
    """
    if folder is None:
        return download(benchmark)
    root = Path(folder) / benchmark.name
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; give the folder that holds {benchmark.name}/ as downloaded "
            f"from {benchmark.homepage}"
        )
    return root


def offered(benchmark: Benchmark, folder: str | Path | None) -> tuple[str, ...]:
    """The languages of a copy: the hub's may be fewer."""
    from_hub = benchmark.hub.languages if folder is None and benchmark.hub else None
    return from_hub or benchmark.languages


def _prompts(
    benchmark: Benchmark, part_name: str, part: Part, languages: tuple[str, ...], entries: Sequence[Entry]
) -> list[Prompt]:
    """The prompts of one part, language after language; of a parallel part without the entries that lack a language."""
    kept = [entry for entry in entries if not part.parallel or not gaps(entry, languages)]
    return [
        Prompt(
            seed_id=f"{part_name}:{entry.seed_id}",
            language=tag,
            kind=part.kind,
            text=entry.texts[tag],
            category=entry.category,
            source=benchmark.name,
            licence=benchmark.licence,
            split=part.split,
        )
        for tag in languages
        for entry in kept
        if entry.texts.get(tag, "").strip()
    ]


def gaps(entry: Entry, languages: Sequence[str]) -> list[str]:
    """The languages in which an entry has no text."""
    return [tag for tag in languages if not entry.texts.get(tag, "").strip()]
