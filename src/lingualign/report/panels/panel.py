"""A table of a report with what it means, and cells that several panels have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lingualign.evaluate.statistics import wilson_interval
from lingualign.evaluate.verdict import signed
from lingualign.report.wording import interval, rate

#: What a cell shows where nothing was measured.
NOT_MEASURED = "–"


@dataclass(frozen=True, slots=True)
class Panel:
    """A table with what it means.

    Attributes:
        title: heading.
        text: one or two sentences above the table.
        columns: names, the first of the row headings.
        rows: as many texts each.
        note: small print below.
    """

    title: str
    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def sides_of(section: Mapping[str, Any]) -> list[str]:
    return [side for side in ("before", "after") if section.get(side)]


def share_cells(share: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """Count of n, rate and Wilson interval."""
    if share is None:
        return (NOT_MEASURED,) * 3
    count, n = share["count"], share["n"]
    return (f"{count} of {n}", rate(count / n), interval(wilson_interval(count, n)))


def difference_cell(value: float | None, bounds: Sequence[float] | None) -> str:
    if value is None or bounds is None:
        return NOT_MEASURED
    return f"{signed(value)} ({signed(bounds[0])} to {signed(bounds[1])})"


def harmful_rows(cells: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [cell for cell in cells if cell["kind"] == "harmful"]


def reference_first(languages: Mapping[str, Any], reference: str) -> list[str]:
    return sorted(languages, key=lambda language: language != reference)
