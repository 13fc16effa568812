"""A quick, seeded run of benchmarks/coverage.py: the intervals cover, and an edit that changes nothing is called so."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "coverage.py"


@pytest.fixture(scope="module")
def benchmark() -> dict[str, Any]:
    return runpy.run_path(str(BENCHMARK))


@pytest.mark.parametrize(("rates", "seeds"), [("low", 20), ("mid", 20), ("mid", 42), ("high", 42)])
def test_intervals_cover_what_they_promise(benchmark: dict[str, Any], rates: str, seeds: int) -> None:
    with threadpool_limits(1):
        table = benchmark["coverage"](benchmark["Scenario"](rates, seeds), 250)
    for name, row in table.items():
        # Where rates are near 0 or 1 and seeds are few, Newcombe's interval is wider than it need be.
        assert 0.93 - row["margin"] <= row["coverage"] <= (0.99 if "Newcombe" in name else 0.97 + row["margin"]), name


def test_an_edit_that_changes_nothing_is_seldom_called_significant(benchmark: dict[str, Any]) -> None:
    with threadpool_limits(1):
        found = benchmark["verdicts"](200, 42, 0.0)
    assert found["either"] <= 0.05


def test_a_true_change_is_found(benchmark: dict[str, Any]) -> None:
    with threadpool_limits(1):
        found = benchmark["verdicts"](20, 42, 0.2)
    assert found["mean"] >= 0.95


def test_the_page_quotes_the_evidence() -> None:
    figures = json.loads((BENCHMARK.parents[1] / "evidence" / "coverage.json").read_text(encoding="utf-8"))
    rows = [
        [
            row["rates"],
            str(row["seeds"]),
            row["labels"],
            *(f"{cell['coverage']:.3f}" for cell in row["intervals"].values()),
        ]
        for row in figures["coverage"]
    ]
    rows += [
        [f"{row['gain']:.1f}", str(row["seeds"])]
        + [f"{row[name]:.3f}" for name in ("language", "mean", "either", "languages")]
        for row in figures["verdicts"]
    ]
    page = (BENCHMARK.parents[1] / "docs" / "measurement.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if f"| {' | '.join(row)} |" not in page] == []
