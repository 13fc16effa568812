"""`docs/benchmarks.md` says what the registry says."""

from __future__ import annotations

import re
from pathlib import Path

from lingualign.data.benchmarks import BENCHMARKS, Benchmark, Part
from lingualign.data.benchmarks.overlaps import OVERLAPS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def rows_of(part: Part) -> str:
    if part.rows_by_language and not part.parallel:
        return ", ".join(f"{tag} {count}" for tag, count in part.rows_by_language.items())
    return "?" if part.rows is None else f"{part.rows:,}"


def row(benchmark: Benchmark) -> str:
    """The line of the page's table."""
    cells = (
        benchmark.name,
        "; ".join(f"{name} {rows_of(part)}" for name, part in benchmark.parts.items()),
        ", ".join(benchmark.kinds),
        " ".join(benchmark.languages),
        benchmark.licence,
        benchmark.hub.repository if benchmark.hub else "-",
        "no" if benchmark.unverified else "yes",
    )
    return f"| {' | '.join(cells)} |"


def test_tables_agree_with_the_registry() -> None:
    lines = PAGE.read_text(encoding="utf-8").split("\n")
    tables = [line for line in lines if line.startswith("| ") and not re.match(r"\| (name|sets) \|", line)]
    expected = [row(benchmark) for benchmark in BENCHMARKS.values()]
    assert tables == expected + [f"| {overlap.first}, {overlap.second} | {overlap.what} |" for overlap in OVERLAPS]
