"""Tables of text from disk: CSV, JSONL and Parquet read into rows of strings with the row numbers a person sees."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lingualign.errors import DataError, MissingDependency


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its number as an editor or spreadsheet shows it, its cells by column name ("" where one is missing)."""

    number: int
    cells: dict[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """The columns in order of appearance and the rows of a file."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(path: Path) -> Table:
    """The table in a `.csv`, `.jsonl` or `.parquet` file; text must be UTF-8, with or without byte order mark.

    Raises:
        DataError: the file is missing, has another extension, is not UTF-8, or is malformed (the row is named).
        MissingDependency: a Parquet file without pyarrow.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: cannot read {path.suffix or 'a file without extension'}; use {', '.join(readers)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    try:
        table = reader(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    if not table.rows:
        raise DataError(f"{path}: no rows; add prompts below the column names")
    return table


def read_csv(path: Path, delimiter: str = ",", quoted: bool = True) -> Table:
    """A delimited file with a header line; `quoted=False` takes quotation marks as plain text.

    Raises:
        DataError: a row has more or fewer cells than the header, or a column name occurs twice.
    """
    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.reader(
            stream, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
        )
        rows = []
        try:
            header = tuple(name.strip() for name in next(lines, []))
            twice = [name for name in header if header.count(name) > 1]
            if twice:
                raise DataError(f"{path}: column {twice[0]!r} occurs twice; rename one of them")
            for number, cells in enumerate(lines, start=2):
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    found = f"{len(cells)} cells for {len(header)} columns"
                    raise DataError(f"{path}, row {number}: {found}; quote cells that hold commas")
                rows.append(Row(number, dict(zip(header, cells, strict=True))))
        except csv.Error as error:
            raise DataError(f"{path}, line {lines.line_num}: broken CSV ({error}); check its quotation marks") from None
    return Table(header, tuple(rows))


def read_json_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers; blank lines are passed over.

    Raises:
        DataError: a line is not a JSON object.
    """
    rows = []
    # Not str.splitlines: it also breaks at U+2028, which is legal inside a JSON string.
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: invalid JSON ({error.msg}); write one object a line") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: not a JSON object; write one object a line")
        rows.append((number, row))
    return rows


def read_parquet_objects(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file.

    Raises:
        DataError: it cannot be read.
        MissingDependency: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingDependency("pyarrow", "eval") from None
    try:
        return list(pyarrow.parquet.read_table(path).to_pylist())
    except (pyarrow.ArrowException, OSError):
        raise DataError(f"{path}: not a readable Parquet file; write it again") from None


def _read_csv(path: Path) -> Table:
    return read_csv(path)


def _read_jsonl(path: Path) -> Table:
    return _from_objects(path, read_json_lines(path))


def _read_parquet(path: Path) -> Table:
    return _from_objects(path, list(enumerate(read_parquet_objects(path), start=1)))


def _from_objects(path: Path, objects: list[tuple[int, dict[str, Any]]]) -> Table:
    """Rows of strings from parsed objects: numbers become text, null an empty cell, anything else is refused."""
    columns = tuple(dict.fromkeys(name for _, row in objects for name in row))
    rows = []
    for number, row in objects:
        cells = dict.fromkeys(columns, "")
        for name, value in row.items():
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise DataError(f"{path}, row {number}: column {name!r} is not text; give a string")
            cells[name] = str(value)
            if not _encodable(cells[name]):
                raise DataError(
                    f"{path}, row {number}: column {name!r} holds half a character; write the text again as UTF-8"
                )
        rows.append(Row(number, cells))
    return Table(columns, tuple(rows))


def _encodable(text: str) -> bool:
    """False for a lone surrogate, which JSON can spell (`\\ud83d`) and no file or tokenizer can hold."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
