"""Tables of a report that are made from sections of `result.json`: corrected rates, the judges' agreement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lingualign.evaluate.verdict import signed
from lingualign.report.wording import interval, label, rate

#: What a cell shows where nothing was measured.
NOT_MEASURED = "–"
#: What a cell shows where the judge's error is unknown or too large.
NOT_VALID = "judge not valid"


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


def panels(figures: Mapping[str, Any]) -> tuple[Panel, ...]:
    """The panels of the sections that a result has.

    Args:
        figures: the content of `result.json`.
    """
    made = [make(figures) for make in _PANELS]
    return tuple(panel for panel in made if panel is not None)


def corrected_panel(figures: Mapping[str, Any]) -> Panel | None:
    """Refusal of harmful prompts, observed and corrected for the judge's error."""
    section = figures.get("corrected")
    if not section:
        return None
    card = figures["judge"]["languages"]
    sides = [side for side in ("before", "after") if side in section]
    columns = ["Language", "n"]
    for side in sides:
        columns += [f"observed {side}", "corrected", "95%"]
    if "changes" in section:
        columns += ["change", "95%"]
    columns.append("judge: sensitivity / specificity (n)")
    by_side = {side: {cell["language"]: cell for cell in _harmful(section[side])} for side in sides}
    changes = {change["languages"][0]: change for change in section.get("changes", ())}
    rows = []
    for language in _order(by_side[sides[0]], figures["reference"]):
        row = [label(language), str(by_side[sides[0]][language]["n"])]
        for side in sides:
            cell = by_side[side][language]
            valid = cell["rate"] is not None
            row += [
                rate(cell["observed"]),
                rate(cell["rate"]) if valid else NOT_VALID,
                interval(cell["interval"]) if valid else NOT_MEASURED,
            ]
        if "changes" in section:
            row += _difference(changes.get(language))
        row.append(_error(card.get(language)))
        rows.append(tuple(row))
    mean = section.get("means", {}).get("harmful")
    if mean:
        name = f"Mean of {len(mean['languages'])} others"
        rows.append((name, "", "", rate(mean["before"]), "", "", rate(mean["after"]), "", *_difference(mean), ""))
    left_out = f" Left out of the mean: {', '.join(mean['left_out'])}." if mean and mean["left_out"] else ""
    return Panel(
        "Corrected for the judge's error",
        "What the refusal rates of harmful prompts become when the judge's own error is taken out, with intervals that "
        "carry how well that error is known.",
        tuple(columns),
        tuple(rows),
        "Rogan-Gladen estimates; intervals of Lang and Reiczigel, of changes by bootstrap over prompts and labels. "
        f"Sensitivity and specificity with the labelled refusals and answers they rest on.{left_out}",
    )


def agreement_panel(figures: Mapping[str, Any]) -> Panel | None:
    """Cohen's kappa of the two judges, and the second one's refusal rates."""
    section = figures.get("agreement")
    if not section:
        return None
    sides = [side for side in ("before", "after") if side in section]
    first = {
        "before": {cell["language"]: cell for cell in _harmful(figures["cells"])},
        "after": {cell["language"]: cell for cell in _harmful((figures["comparison"] or {}).get("after", ()))},
    }
    second = {side: {cell["language"]: cell for cell in _harmful(section["cells"][side])} for side in sides}
    columns = ["Language"]
    for side in sides:
        columns += [f"n {side}", "agree", "κ", "95%", "harmful refused, first / second"]
    rows = []
    for language in _order(section[sides[0]], figures["reference"]):
        row = [label(language)]
        for side in sides:
            found = section[side][language]
            known = found["kappa"] is not None
            row += [
                str(found["n"]),
                rate(found["observed"]),
                f"{found['kappa']:.2f}" if known else NOT_MEASURED,
                f"{found['interval'][0]:.2f} to {found['interval'][1]:.2f}" if known else NOT_MEASURED,
                _two(first[side].get(language), second[side].get(language)),
            ]
        rows.append(tuple(row))
    return Panel(
        "Two judges",
        f"How far {figures['judge']['name']} and {section['judge']} agree on which replies are refusals, "
        "over prompts of all kinds.",
        tuple(columns),
        tuple(rows),
        "κ: Cohen's, with the large-sample interval; not defined where both judges gave one verdict to every reply.",
    )


def _two(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> str:
    if one is None or other is None:
        return NOT_MEASURED
    return f"{rate(one['refused'] / one['n'])} / {rate(other['refused'] / other['n'])}"


def _harmful(cells: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [cell for cell in cells if cell["kind"] == "harmful"]


def _order(languages: Mapping[str, Any], reference: str) -> list[str]:
    return sorted(languages, key=lambda language: language != reference)


def _difference(change: Mapping[str, Any] | None) -> tuple[str, str]:
    if change is None:
        return (NOT_MEASURED, NOT_MEASURED)
    low, high = change["interval"]
    return (signed(change["difference"]), f"{signed(low)} to {signed(high)}")


def _error(error: Mapping[str, Any] | None) -> str:
    if error is None:
        return "not measured"
    figures = f"{error['sensitivity']:.2f} / {error['specificity']:.2f} ({error['refused']}, {error['answered']})"
    return figures if error["valid"] else f"{figures}, not valid"


_PANELS: tuple[Callable[[Mapping[str, Any]], Panel | None], ...] = (corrected_panel, agreement_panel)
