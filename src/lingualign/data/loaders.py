"""Prompts from the user's own files, and the short text that names any source of prompts on the command line.

Two layouts. *Wide*: one column per language tag, one row per request. *Long*: columns `language` and `text`, one row
per prompt. A file with a `text` column alone is long with the one language that is asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lingualign.data.benchmarks import BENCHMARKS, load_benchmark
from lingualign.data.builtin import builtin_prompts
from lingualign.data.schema import KINDS, SPLITS, Kind, Prompt, PromptSet
from lingualign.data.tables import Row, Table, read_table
from lingualign.errors import DataError
from lingualign.languages import LANGUAGES, check_languages

#: Columns that hold a row's own id, the first present one counts.
_ID_COLUMNS = ("seed_id", "row", "id")


def load_prompts(
    path: str | Path, *, languages: Sequence[str] | None = None, kind: str | None = None, source: str | None = None
) -> PromptSet:
    """The prompts of a CSV, JSONL or Parquet file.

    Optional columns: `seed_id` (or `row`, `id`; the row's position otherwise), `kind`, `category`, `split`, `licence`.
    A wide column `id` is Indonesian where another id column is present or a value holds a space, else the row's id.

    Args:
        languages: the languages to read, in this order; all in the file if None.
        kind: harmful, harmless or look-alike, for a file without a `kind` column.
        source: name of the set; the file's name without extension if None.

    Raises:
        DataError: the file, a column, a language, a kind or a pairing is wrong; the message names row and fix.
        MissingDependency: a Parquet file without pyarrow.
    """
    path = Path(path)
    table = read_table(path)
    asked = None if languages is None else check_languages(tuple(languages))
    if "kind" in table.columns and kind is not None:
        raise DataError(f"{path}: has a `kind` column already; leave out the kind {kind!r}")
    if "kind" not in table.columns and kind is None:
        raise DataError(f"{path}: no `kind` column; add one or say which kind the prompts are: {', '.join(KINDS)}")
    cells = list(_long(path, table, asked) if "text" in table.columns else _wide(path, table, asked))
    name = source or path.stem
    prompts = [_prompt(path, cell, name, kind) for cell in cells]
    _check(path, cells, prompts)
    order = asked or tuple(dict.fromkeys(prompt.language for prompt in prompts))
    return PromptSet(sorted(prompts, key=lambda prompt: order.index(prompt.language)))


@dataclass(frozen=True, slots=True)
class Source:
    """What the short text of a source names.

    Attributes:
        name: `builtin`, NAME or NAME/PART of a benchmark, or a file's path.
        benchmark: name of the benchmark, "" for another source.
        part: its part, None for all.
        folder: the folder that holds the benchmark's; None for the hub.
        kind: kind of the prompts of a file without a `kind` column.
    """

    name: str
    benchmark: str = ""
    part: str | None = None
    folder: str | None = None
    kind: str | None = None


def read_source(spec: str) -> Source:
    """The source that a short text names; nothing is opened.

    `builtin`; `prompts.csv` or `prompts.csv:harmful` (also .jsonl, .parquet); `polyrefuse:FOLDER` or
    `polyrefuse/harmful_test:FOLDER`, where FOLDER holds the downloaded benchmarks, each in a folder of its name; or
    `multijail@hub`, which downloads it.

    Raises:
        DataError: the text names none of these.
    """
    if spec == "builtin":
        return Source("builtin")
    public = re.fullmatch(r"([\w-]+)(?:/([\w-]+))?(?:@hub|:(.+))", spec)
    if public and public[1] in BENCHMARKS:
        name = f"{public[1]}/{public[2]}" if public[2] else public[1]
        return Source(name, public[1], public[2], public[3])
    file = re.fullmatch(r"(.+\.(?:csv|jsonl|parquet))(?::([^:/\\]*))?", spec, flags=re.IGNORECASE)
    if file:
        return Source(file[1], kind=file[2])
    raise DataError(
        f"unknown prompt source {spec!r}; give builtin, a .csv, .jsonl or .parquet file with or without :KIND, "
        f"or NAME:FOLDER or NAME@hub with NAME one of {', '.join(BENCHMARKS)}"
    )


def parse_source(spec: str, languages: Sequence[str] | None = None) -> PromptSet:
    """The prompts that a short text names, as `read_source` understands it.

    Raises:
        DataError: the text names no source, or what it names cannot be loaded.
    """
    source = read_source(spec)
    if source.benchmark:
        return load_benchmark(source.benchmark, source.folder, part=source.part, languages=languages)
    if source.name == "builtin":
        return builtin_prompts(languages)
    return load_prompts(source.name, kind=source.kind, languages=languages)


def mix(sets: Sequence[PromptSet]) -> PromptSet:
    """All prompts of several sets; a set that shares a seed id with another gets its source's name before each id.

    A shared id counts in any language and kind: two sources that number their rows would be paired by accident.
    """
    uses = Counter(seed for prompts in sets for seed in {prompt.seed_id for prompt in prompts})
    names: set[str] = set()
    mixed: list[Prompt] = []
    for place, prompts in enumerate(sets, start=1):
        if any(uses[prompt.seed_id] > 1 for prompt in prompts):
            name = prompts[0].source or "set"
            name = f"{name}-{place}" if name in names else name
            names.add(name)
            prompts = PromptSet(replace(prompt, seed_id=f"{name}:{prompt.seed_id}") for prompt in prompts)
        mixed.extend(prompts)
    return PromptSet(mixed)


@dataclass(frozen=True, slots=True)
class _Cell:
    """One text of the file with the row it stands in."""

    row: Row
    seed_id: str
    language: str
    text: str


def _wide(path: Path, table: Table, asked: tuple[str, ...] | None) -> Iterator[_Cell]:
    """One cell per row and asked language."""
    id_column = _id_column(table)
    available = tuple(name for name in table.columns if name in LANGUAGES and name != id_column)
    if not available:
        raise DataError(
            f"{path}: no language column among {', '.join(table.columns)}; "
            "name columns by language tag (en, th, ...), or use columns `language` and `text`"
        )
    tags = _chosen(path, asked, available)
    for place, row in enumerate(table.rows, start=1):
        empty = [tag for tag in tags if not row.cells[tag].strip()]
        if len(empty) == len(tags):
            raise DataError(f"{path}, row {row.number}: empty prompt; fill it in or remove the row")
        if empty:
            raise DataError(
                f"{path}, row {row.number}: not paired, no text in {', '.join(empty)}; fill it in or remove the row"
            )
        for tag in tags:
            yield _Cell(row, _seed_id(row, id_column, place), tag, row.cells[tag])


def _long(path: Path, table: Table, asked: tuple[str, ...] | None) -> Iterator[_Cell]:
    """One cell per row whose language is asked for."""
    id_column = next((name for name in _ID_COLUMNS if name in table.columns), None)
    if "language" in table.columns:
        for row in table.rows:
            tag = row.cells["language"]
            if tag not in LANGUAGES:
                known = ", ".join(LANGUAGES)
                raise DataError(f"{path}, row {row.number}: unknown language tag {tag!r}; use one of {known}")
        available = tuple(dict.fromkeys(row.cells["language"] for row in table.rows))
    elif asked is not None and len(asked) == 1:
        available = asked
    else:
        raise DataError(
            f"{path}: a `text` column without `language`; add a `language` column or ask for exactly one language"
        )
    tags = _chosen(path, asked, available)
    if len(tags) > 1 and id_column is None:
        raise DataError(
            f"{path}: {len(tags)} languages without a `seed_id` column; add one, equal for translations of one request"
        )
    for place, row in enumerate(table.rows, start=1):
        tag = row.cells.get("language", tags[0])
        if tag not in tags:
            continue
        if not row.cells["text"].strip():
            raise DataError(f"{path}, row {row.number}: empty prompt; fill it in or remove the row")
        yield _Cell(row, _seed_id(row, id_column, place), tag, row.cells["text"])


def _chosen(path: Path, asked: tuple[str, ...] | None, available: tuple[str, ...]) -> tuple[str, ...]:
    missing = [tag for tag in asked or () if tag not in available]
    if missing:
        raise DataError(
            f"{path}: no prompts in {', '.join(missing)}, only in {', '.join(available)}; "
            "add the language or do not ask for it"
        )
    return asked or available


def _id_column(table: Table) -> str | None:
    """The id column of a wide table; `id` is also the tag of Indonesian, whose prompts hold spaces."""
    if "seed_id" in table.columns or "row" in table.columns:
        return "seed_id" if "seed_id" in table.columns else "row"
    if "id" in table.columns and not any(" " in row.cells["id"].strip() for row in table.rows):
        return "id"
    return None


def _seed_id(row: Row, id_column: str | None, place: int) -> str:
    return str(place) if id_column is None else row.cells[id_column].strip() or str(place)


def _prompt(path: Path, cell: _Cell, source: str, kind: str | None) -> Prompt:
    """The checked prompt of a cell."""
    cells = cell.row.cells
    split = cells.get("split", "").strip() or None
    if split is not None and split not in SPLITS:
        raise DataError(
            f"{path}, row {cell.row.number}: unknown split {split!r}; use {', '.join(SPLITS)} or leave it empty"
        )
    return Prompt(
        seed_id=cell.seed_id,
        language=cell.language,
        kind=_kind(
            f"{path}, row {cell.row.number}" if kind is None else str(path), cells["kind"] if kind is None else kind
        ),
        text=cell.text,
        category=cells.get("category", "").strip(),
        source=source,
        licence=cells.get("licence", cells.get("license", "")).strip(),
        split=split,
    )


def _kind(where: str, name: str) -> Kind:
    found = name.strip().lower()
    found = "look-alike" if found == "lookalike" else found
    if found not in KINDS:
        raise DataError(f"{where}: unknown kind {name!r}; use {', '.join(KINDS)}")
    return found


def _check(path: Path, cells: Sequence[_Cell], prompts: Sequence[Prompt]) -> None:
    """Ids and texts occur once in a kind and language, and every seed of a kind has all the languages of that kind."""
    ids: dict[tuple[str, str, str], int] = {}
    texts: dict[tuple[str, str, str], int] = {}
    seeds: dict[str, dict[str, set[str]]] = {}
    for cell, prompt in zip(cells, prompts, strict=True):
        number = cell.row.number
        first = ids.setdefault(prompt.key, number)
        if first != number:
            raise DataError(
                f"{path}, rows {first} and {number}: both have seed_id {prompt.seed_id!r}; give each its own"
            )
        first = texts.setdefault((prompt.kind, prompt.language, prompt.text.strip()), number)
        if first != number:
            raise DataError(f"{path}, rows {first} and {number}: the same {prompt.language} text twice; remove one row")
        seeds.setdefault(prompt.kind, {}).setdefault(prompt.language, set()).add(prompt.seed_id)
    for kind, by_language in seeds.items():
        every = set().union(*by_language.values())
        for tag, found in by_language.items():
            if found != every:
                raise DataError(
                    f"{path}: {len(every - found)} {kind} seeds are not paired, they have no {tag} row "
                    f"(first: {min(every - found)}); add the rows or remove the seeds"
                )
