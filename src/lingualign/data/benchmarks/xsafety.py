"""XSafety as its repository publishes it: a folder per language, 14 files of 200 rows in each, and their oddities.

CSV without header; some files begin with a byte order mark, some have more columns after the prompt; Bengali is in
spreadsheets; names differ between languages (`_n`, `_en`, a missing letter in Russian); Spanish is called sp; Hindi has
its commonsense file twice, of which the one named as in the other languages counts.
"""

from __future__ import annotations

import csv
from pathlib import Path

from lingualign.data.benchmarks.files import check_count
from lingualign.data.benchmarks.readers import wide
from lingualign.data.benchmarks.spec import Entry, Part
from lingualign.errors import DataError, MissingDependency

#: The categories as lingualign and the merged file spell them.
CATEGORIES = (
    "Crimes_And_Illegal_Activities", "Ethics_And_Morality", "Goal_Hijacking", "Inquiry_With_Unsafe_Opinion", "Insult",
    "Mental_Health", "Physical_Harm", "Privacy_And_Property", "Prompt_Leaking", "Reverse_Exposure",
    "Role_Play_Instruction", "Unfairness_And_Discrimination", "Unsafe_Instruction_Topic", "commonsense",
)  # fmt: skip
MERGED = "merged_xsafety.csv"

_read_merged = wide(MERGED, identifier="row", category="category")


def read_xsafety(root: Path, name: str, part: Part, languages: tuple[str, ...]) -> list[Entry]:
    """The merged file where there is one, else the repository's folders. Rows are numbered within a category."""
    if (root / MERGED).is_file():
        entries = _read_merged(root, name, part, languages)
        return [Entry(f"{entry.category}:{entry.seed_id}", entry.category, entry.texts) for entry in entries]
    return read_repository(root, part, languages)


def read_repository(root: Path, part: Part, languages: tuple[str, ...]) -> list[Entry]:
    """The repository's folders.

    Raises:
        DataError: files are missing (all are named), or one has not its share of the rows.
        MissingDependency: Bengali without openpyxl.
    """
    folders = {tag: root / {"es": "sp"}.get(tag, tag) for tag in languages}
    paths = {(tag, category): _path(folders[tag], category) for tag in languages for category in CATEGORIES}
    missing = [f"{folders[tag].name}/{category}" for (tag, category), path in paths.items() if path is None]
    if missing:
        raise DataError(f"{root}: {len(missing)} files are missing ({', '.join(missing)}); download the set again")
    expected = None if part.rows is None else part.rows // len(CATEGORIES)
    texts: dict[tuple[str, str], list[str]] = {}
    for key, path in paths.items():
        if path is not None:
            texts[key] = _prompts(path)
            check_count(path, texts[key], expected)
    return [
        Entry(f"{category}:{row}", category, {tag: texts[tag, category][row] for tag in languages})
        for category in CATEGORIES
        for row in range(len(texts[languages[0], category]))
    ]


def _path(folder: Path, category: str) -> Path | None:
    """The file of a category under the names that the repository gives it, None where there is none."""
    for stem in (category, f"{category}_n", f"{category}_{folder.name}", category[:-1]):
        for suffix in (".csv", ".xlsx"):
            if (path := folder / f"{stem}{suffix}").is_file():
                return path
    return None


def _prompts(path: Path) -> list[str]:
    """The first column; a blank prompt stays, as a gap."""
    if path.suffix == ".csv":
        try:
            with path.open(encoding="utf-8-sig", newline="") as stream:
                return [cells[0] if cells else "" for cells in csv.reader(stream)]
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 at byte {error.start}; download the file again") from None
    try:
        import openpyxl  # type: ignore[import-untyped]  # it ships no types
    except ImportError:
        raise MissingDependency("openpyxl", "data") from None
    try:
        book = openpyxl.load_workbook(path, read_only=True)
    except Exception:  # openpyxl raises whatever zipfile and the XML parser do.
        raise DataError(f"{path}: not a readable spreadsheet; download the file again") from None
    return ["" if value is None else str(value) for (value, *_) in book.worksheets[0].iter_rows(values_only=True)]
