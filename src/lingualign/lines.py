"""Append-only files of JSON lines that a kill at any moment leaves usable."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lingualign.disk import writing
from lingualign.errors import DataError


def load_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file, one a line; none where there is no file.

    A last line cut by a kill is removed from the file, so that appending stays safe.

    Raises:
        DataError: a line before the last is damaged.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
    rows = []
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise damaged(path, number)
        rows.append(row)
    return rows


def append_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Adds objects and returns once they are on the disk. ASCII only: text of models may hold lone surrogates.

    Raises:
        NotEnoughMemory: the disk is full; `load_lines` puts a line that was cut right.
        UserError: the file cannot be written for another reason.
    """
    lines = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(lines.encode("ascii"))
            file.flush()
            os.fsync(file.fileno())


def damaged(path: Path, number: int) -> DataError:
    """The error of a line that cannot be what was written."""
    return DataError(f"line {number} of {path} is damaged; delete the file to have its work done again")
