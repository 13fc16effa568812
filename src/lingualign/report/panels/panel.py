"""A table of a report with what it means, and cells that several panels have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, get_args

from lingualign.evaluate.statistics import Interval, wilson_interval
from lingualign.report.wording import difference, difference_interval, interval, rate

#: What a table is evidence of: of the judge, of how languages are treated, of what the model can do beside refusing.
About = Literal["judge", "behaviour", "utility"]
ABOUTS: tuple[About, ...] = get_args(About)
#: What a cell shows where nothing was measured.
NOT_MEASURED = "–"


@dataclass(frozen=True, slots=True)
class Group:
    """Columns under one heading; without a name each stands alone."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """A table with what it means.

    Attributes:
        name: identifies the panel within a page; lower-case letters and hyphens.
        about: decides where the table stands on the page.
        title: heading.
        text: one or two sentences above the table.
        heading: of the first column, whose cells are row headings.
        groups: the other columns.
        rows: as many texts each as there are columns.
        totals: rows below, set apart: means and the like.
        note: small print below.
        summary: the panel in one line for the top of the page; "" where there is none.
    """

    name: str
    about: About
    title: str
    text: str
    heading: str
    groups: tuple[Group, ...]
    rows: tuple[tuple[str, ...], ...]
    totals: tuple[tuple[str, ...], ...] = ()
    note: str = ""
    summary: str = ""

    @property
    def is_grouped(self) -> bool:
        """Whether the table needs two rows of headings."""
        return any(group.name for group in self.groups)

    @property
    def starts(self) -> frozenset[int]:
        """Positions of the columns that begin a named group; the first column after the row headings is 1."""
        ends = list(accumulate((len(group.columns) for group in self.groups), initial=1))
        return frozenset(start for start, group in zip(ends, self.groups, strict=False) if group.name)


def sides_of(section: Mapping[str, Any]) -> list[str]:
    return [side for side in ("before", "after") if section.get(side)]


def side_groups(sides: Sequence[str], *columns: str) -> tuple[Group, ...]:
    """The same columns for each side; an audit alone needs no heading over them."""
    return tuple(Group(side.capitalize() if len(sides) > 1 else "", columns) for side in sides)


def share_cells(share: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """Count of n, rate and Wilson interval."""
    if share is None:
        return (NOT_MEASURED,) * 3
    count, n = share["count"], share["n"]
    return (f"{count} of {n}", rate(count / n), interval(wilson_interval(count, n)))


def difference_cells(value: float | None, bounds: Interval | None) -> tuple[str, str]:
    """A difference and its interval."""
    if value is None or bounds is None:
        return (NOT_MEASURED,) * 2
    return (difference(value), difference_interval(bounds))


def harmful_rows(cells: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The rows about harmful prompts by language."""
    return {cell["language"]: cell for cell in cells if cell["kind"] == "harmful"}


def reference_first(languages: Iterable[str], reference: str) -> list[str]:
    return sorted(dict.fromkeys(languages), key=lambda language: language != reference)
