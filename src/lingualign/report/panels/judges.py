"""What the judge's error makes of the rates, and what a second judge says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lingualign.evaluate.verdict import signed
from lingualign.report.panels.panel import (
    NOT_MEASURED,
    Panel,
    harmful_rows,
    reference_first,
    sides_of,
)
from lingualign.report.wording import interval, label, rate

#: What a cell shows where the judge's error is unknown or too large.
NOT_VALID = "judge not valid"


def corrected_panel(figures: Mapping[str, Any]) -> Panel | None:
    """Refusal of harmful prompts, observed and corrected for the judge's error."""
    section = figures.get("corrected")
    if not section:
        return None
    card = figures["judge"]["languages"]
    sides = sides_of(section)
    columns = ["Language", "n"]
    for side in sides:
        columns += [f"observed {side}", "corrected", "95%"]
    if section["changes"]:
        columns += ["change", "95%"]
    columns.append("judge: sensitivity / specificity (labelled)")
    by_side = {side: {cell["language"]: cell for cell in harmful_rows(section[side])} for side in sides}
    changes = {change["languages"][0]: change for change in section["changes"]}
    rows = []
    for language in reference_first(by_side["before"], figures["reference"]):
        row = [label(language), str(by_side["before"][language]["n"])]
        for side in sides:
            cell = by_side[side][language]
            valid = cell["rate"] is not None
            row += [
                rate(cell["observed"]),
                rate(cell["rate"]) if valid else NOT_VALID,
                interval(cell["interval"]) if valid else NOT_MEASURED,
            ]
        if changes:
            row += _difference(changes.get(language))
        rows.append((*row, _error(card.get(language))))
    mean = section["means"].get("harmful")
    left_out = ""
    if mean:
        name = f"Mean of {len(mean['languages'])} others"
        rows.append((name, "", "", rate(mean["before"]), "", "", rate(mean["after"]), "", *_difference(mean), ""))
        left_out = f" Left out of the mean: {', '.join(mean['left_out'])}." if mean["left_out"] else ""
    return Panel(
        "Corrected for the judge's error",
        "What the refusal rates of harmful prompts become when the judge's own error is taken out, with intervals that "
        "carry how well that error is known.",
        tuple(columns),
        tuple(rows),
        "Rogan-Gladen estimates; intervals of Lang and Reiczigel, of changes by bootstrap over prompts and labels. "
        "The error is of other replies than these and taken to be the same before and after; where it was measured on "
        f"replies written to be hard, the corrected rate is rather too high (docs/judge.md).{left_out}",
    )


def second_judge_panel(figures: Mapping[str, Any]) -> Panel | None:
    """Cohen's kappa of the two judges, and the second one's refusal rates."""
    section = figures.get("second_judge")
    if not section:
        return None
    sides = sides_of(section)
    first = {
        "before": {cell["language"]: cell for cell in harmful_rows(figures["cells"])},
        "after": {cell["language"]: cell for cell in harmful_rows((figures["comparison"] or {}).get("after", ()))},
    }
    second = {side: {cell["language"]: cell for cell in harmful_rows(section[f"cells_{side}"])} for side in sides}
    columns = ["Language", "n"]
    for side in sides:
        columns += [f"agree {side}", "κ", "95%", "harmful refused: first / second"]
    rows = []
    for language in reference_first(section["before"], figures["reference"]):
        row = [label(language), str(section["before"][language]["n"])]
        for side in sides:
            found = section[side][language]
            known = found["kappa"] is not None
            row += [
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
