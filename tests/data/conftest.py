"""Where the public sets lie, and files in their published formats made up in harmless words."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lingualign.data.benchmarks import BENCHMARKS

ROOT = Path(os.environ.get("LINGUALIGN_SHARED_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
downloaded = pytest.mark.skipif(not ROOT.is_dir(), reason="set LINGUALIGN_SHARED_DATA to the folder of public sets")

Rows = Sequence[dict[str, Any]]
#: Stand-ins for prompts; what they say is of no matter.
WORDS = ("water the plants", "bake bread", "mend a sock", "sweep the yard")


def write(path: Path, rows: Rows) -> None:
    """A CSV, JSON, JSONL or Parquet file, by the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(list(rows)), encoding="utf-8")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the parts of a benchmark other numbers of rows."""

    def shrink(name: str, file_rows: int | None = None, **rows: int) -> None:
        benchmark = BENCHMARKS[name]
        parts = {
            part: replace(
                described,
                rows=rows.get(part.replace("-", "_"), described.rows),
                rows_by_language=dict.fromkeys(described.rows_by_language, rows.get(part)),
                file_rows=file_rows,
            )
            for part, described in benchmark.parts.items()
        }
        monkeypatch.setitem(BENCHMARKS, name, replace(benchmark, parts=parts))

    return shrink
