"""docs/judge.md shows the error table that ships in the package."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "judge.md"


def _cells(error: dict[str, float | int | None] | None) -> list[str]:
    if error is None:
        return ["–"] * 3
    shares = [error["sensitivity"], error["specificity"]]
    return [*("–" if s is None else f"{s:.3f}" for s in shares), f"{error['refused']} / {error['answered']}"]


def _small(error: dict[str, float | int | None] | None) -> list[str]:
    return ["–", "–"] if error is None else [f"{error['specificity']:.3f}", str(error["answered"])]


def test_the_page_shows_the_shipped_error_table() -> None:
    shipped = json.loads((files("lingualign.evaluate.judges") / "ngram_error.json").read_text(encoding="utf-8"))
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    languages = {
        tag: sources for tag, sources in shipped["languages"].items() if "test" in sources or "written" in sources
    }
    assert len(languages) >= 24
    for tag, sources in languages.items():
        cells = [tag, *_cells(sources.get("test")), *_cells(sources.get("written")), *_small(sources.get("small"))]
        assert f"| {' | '.join(cells)} |" in lines
    assert f"`{shipped['judge']}`" in PAGE.read_text(encoding="utf-8")
