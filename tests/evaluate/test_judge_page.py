"""docs/judge.md shows the error tables that ship in the package."""

from __future__ import annotations

from pathlib import Path

from lingualign.evaluate.judge import OfflineJudge
from lingualign.evaluate.judges.tables import JUDGES, error_table, page

PAGE = Path(__file__).parents[2] / "docs" / "judge.md"


def test_the_page_shows_the_shipped_error_tables() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for table in page():
        assert f"\n\n{table}\n\n" in text
    assert all(f"`{name}`" in text for name in JUDGES)


def test_the_tables_are_those_of_the_judges() -> None:
    assert JUDGES[0] == OfflineJudge().name
    for name in JUDGES:
        table = error_table(name)
        assert table["judge"] == name
        assert len(table["languages"]) >= 24


def test_a_language_where_a_judge_is_not_valid_gets_no_number() -> None:
    yoruba = error_table("ngram-2")["languages"]["yo"]["all"]
    assert yoruba["sensitivity"] + yoruba["specificity"] - 1 < 0.3
    rows = [line for table in page() for line in table.splitlines() if line.startswith("| yo |")]
    assert len(rows) >= 2
    assert all(line.startswith("| yo | not valid |") for line in rows)
