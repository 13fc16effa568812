"""docs/judges.md: its table is that of the registry."""

from __future__ import annotations

from pathlib import Path

from lingualign.evaluate.judges.registry import known_judges

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "judges.md").read_text(encoding="utf-8")


def test_the_table_is_that_of_the_registry() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `") and line.count("|") == 7]
    assert rows == [
        f"| `{entry.specification}` | {entry.model} | {', '.join(entry.gives)} | {entry.languages} | {entry.licence} "
        f"| {entry.citation} |"
        for entry in known_judges()
    ]
