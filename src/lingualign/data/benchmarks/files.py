"""Files of benchmarks, found by pattern and read into rows of text, with the errors of a wrong or cut download."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from lingualign.data.tables import read_csv, read_json_lines, read_parquet_objects
from lingualign.errors import DataError

Cells = dict[str, str]


def find(root: Path, *patterns: str) -> Path:
    """The first file below `root` that matches the first pattern with a match.

    Raises:
        DataError: none matches.
    """
    for pattern in patterns:
        if found := sorted(path for path in root.glob(pattern) if path.is_file()):
            return found[0]
    wanted = " or ".join(patterns)
    raise DataError(f"{root / wanted}: no such file; download the set again")


def read_rows(path: Path) -> list[Cells]:
    """The rows of a CSV, JSON, JSONL or Parquet file as text; lists become "a, b", null an empty cell.

    Raises:
        DataError: the file cannot be read.
        MissingDependency: a Parquet file without pyarrow.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".csv":
            return [row.cells for row in read_csv(path).rows]
        if suffix == ".parquet":
            objects: Iterable[object] = read_parquet_objects(path)
        elif suffix == ".jsonl":
            objects = [row for _, row in read_json_lines(path)]
        else:
            objects = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError:
        raise DataError(f"{path}: broken JSON; download the file again") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; download the file again") from None
    if not isinstance(objects, list) or not all(isinstance(row, dict) for row in objects):
        raise DataError(f"{path}: not a list of objects; download the file again")
    columns = dict.fromkeys((str(name) for row in objects for name in row), "")
    return [columns | {str(name): _text(value) for name, value in row.items()} for row in objects]


def _text(value: object) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def label(text: str) -> str:
    """A category as people write it: a list in Python's spelling, as several sets store it, becomes "a, b"."""
    if not text.startswith("["):
        return text
    try:
        return ", ".join(map(str, ast.literal_eval(text)))
    except (ValueError, SyntaxError, TypeError):
        return text


def column(path: Path, rows: Sequence[Cells], *names: str) -> str:
    """The first of the names that is a column.

    Raises:
        DataError: none is; the file is not in the published format.
    """
    columns = list(rows[0]) if rows else []
    for name in names:
        if name in columns:
            return name
    raise DataError(
        f"{path}: no column {' or '.join(names)} among {', '.join(columns) or 'none'}; "
        "give the file in its published format (`lingualign data show NAME`)"
    )


def check_count(path: Path, rows: Sequence[object], expected: int | None) -> None:
    """Refuses a file with another number of rows than its publication says.

    Raises:
        DataError: the numbers differ. Nothing is refused where none is known.
    """
    if expected is not None and len(rows) != expected:
        raise DataError(f"{path}: {len(rows)} rows instead of {expected}; download the file again")
