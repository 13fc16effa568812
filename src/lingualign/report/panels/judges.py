"""What the judge's error makes of the rates, what a second judge says, and what no judge could be read on."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from lingualign.data.schema import KINDS
from lingualign.report.panels.panel import (
    NOT_MEASURED,
    Group,
    Panel,
    difference_cells,
    harmful_rows,
    reference_first,
    side_groups,
    sides_of,
)
from lingualign.report.wording import interval, label, rate

#: What a cell shows where the judge's error is unknown or too large.
NOT_VALID = "not valid"


def unparsed_panel(figures: Mapping[str, Any]) -> Panel | None:
    """How many replies the judge could not be read on; None where it could be read on all."""
    summary = unparsed_summary(figures)
    if not summary:
        return None
    sides = {side: cells for side, cells in _cells(figures).items() if cells}
    found = {side: {(cell["language"], cell["kind"]): cell for cell in cells} for side, cells in sides.items()}
    kinds = [kind for kind in KINDS if any(cell["kind"] == kind for cell in sides["before"])]
    tags = (cell["language"] for cells in sides.values() for cell in cells if _unparsed(cell))
    rows = [
        (
            label(tag),
            *(
                f"{_unparsed(cell)} of {cell['n']}" if (cell := found[side].get((tag, kind))) else NOT_MEASURED
                for side in sides
                for kind in kinds
            ),
        )
        for tag in reference_first(tags, figures["reference"])
    ]
    return Panel(
        "unparsed",
        "judge",
        "Unparsed verdicts",
        "Replies on which the judge's own output could not be read. They stay in n and count neither as refused nor as "
        "answered, so refusal rates are too low rather than too high; the attack success rate takes them as successes.",
        "Language",
        side_groups(list(sides), *kinds),
        tuple(rows),
        note="Languages without any are not listed.",
        summary=summary,
    )


def unparsed_summary(figures: Mapping[str, Any]) -> str:
    """How many verdicts are unparsed, in one line; "" where none is."""
    sides = {side: cells for side, cells in _cells(figures).items() if cells}
    counts = {side: sum(map(_unparsed, cells)) for side, cells in sides.items()}
    if not any(counts.values()):
        return ""
    return ", ".join(
        f"{counts[side]:,} of {sum(cell['n'] for cell in cells):,} replies" + (f" {side}" if len(sides) > 1 else "")
        for side, cells in sides.items()
    )


def corrected_panel(figures: Mapping[str, Any]) -> Panel | None:
    """Refusal of harmful prompts, observed and corrected for the judge's error."""
    section = figures.get("corrected")
    if not section:
        return None
    sides = sides_of(section)
    compared = len(sides) > 1
    by_side = {side: harmful_rows(section[side]) for side in sides}
    changes = {change["languages"][0]: change for change in section["changes"]}
    rows = []
    for tag in reference_first(by_side["before"], figures["reference"]):
        row = [label(tag), str(by_side["before"][tag]["n"])]
        for side in sides:
            cell = by_side[side][tag]
            valid = cell["rate"] is not None
            row += [
                rate(cell["observed"]),
                rate(cell["rate"]) if valid else NOT_VALID,
                interval(cell["interval"]) if valid else NOT_MEASURED,
            ]
        if compared:
            row += _change(changes.get(tag))
        rows.append(tuple(row))
    totals: tuple[tuple[str, ...], ...] = ()
    scope = ""
    if mean := _mean(section):
        name = f"Mean of {len(mean['languages'])}"
        figures_of_mean = (
            ("", rate(mean["before"]), "", "", rate(mean["after"]), "", *_change(mean))
            if compared
            else ("", rate(mean["rate"]), interval(mean["interval"]))
        )
        totals = ((name, "", *figures_of_mean),)
        scope = " The mean is over the languages other than the reference"
        scope += f", without {', '.join(map(label, mean['left_out']))}." if mean["left_out"] else "."
    return Panel(
        "corrected",
        "judge",
        "Corrected for the judge's error",
        "What the refusal rates of harmful prompts become when the judge's own error is taken out, with intervals that "
        "carry how well that error is known.",
        "Language",
        (
            Group("", ("n",)),
            *side_groups(sides, "observed", "corrected", "95%"),
            *((Group("Change, corrected", ("change", "95%")),) if compared else ()),
        ),
        tuple(rows),
        totals,
        "Rogan-Gladen estimates; intervals of Lang and Reiczigel"
        + (", of changes by bootstrap over prompts and labels" if compared else "")
        + ". Not valid: the judge's error in that language is unknown or too large (table at the end of the page). It "
        "is of other replies than these"
        + (" and taken to be the same before and after" if compared else "")
        + "; where it was measured on replies written to be hard, the corrected rate is rather too high "
        f"(docs/judge.md).{scope}",
        corrected_summary(figures),
    )


def corrected_summary(figures: Mapping[str, Any]) -> str:
    """The corrected mean over the languages in one line; "" where there is none."""
    mean = _mean(figures.get("corrected") or {})
    if not mean:
        return ""
    if "rate" in mean:
        values = f"{rate(mean['rate'])} ({interval(mean['interval'])})"
    else:
        difference, bounds = _change(mean)
        values = f"{rate(mean['before'])} to {rate(mean['after'])}, {difference} ({bounds})"
    without = f"; judge not valid in {', '.join(mean['left_out'])}" if mean["left_out"] else ""
    noun = "language" if len(mean["languages"]) == 1 else "languages"
    return f"harmful refused {values}, mean of {len(mean['languages'])} {noun}{without}"


def second_judge_panel(figures: Mapping[str, Any]) -> Panel | None:
    """Cohen's kappa of the two judges, and the second one's refusal rates."""
    section = figures.get("second_judge")
    if not section:
        return None
    sides = sides_of(section)
    first = {side: harmful_rows(cells) for side, cells in _cells(figures).items()}
    second = {side: harmful_rows(section[f"cells_{side}"]) for side in sides}
    rows = []
    for tag in reference_first(section["before"], figures["reference"]):
        row = [label(tag), str(section["before"][tag]["n"])]
        for side in sides:
            found = section[side][tag]
            known = found["kappa"] is not None
            row += [
                rate(found["observed"]),
                _kappa(found["kappa"]) if known else NOT_MEASURED,
                " to ".join(map(_kappa, found["interval"])) if known else NOT_MEASURED,
                *(_refused(judged[side].get(tag)) for judged in (first, second)),
            ]
        rows.append(tuple(row))
    return Panel(
        "second-judge",
        "judge",
        "Second judge",
        f"How far {figures['judge']['name']} (first) and {section['judge']} (second) agree on which replies are "
        "refusals, over prompts of all kinds, and the share of harmful prompts that each finds refused.",
        "Language",
        (Group("", ("n",)), *side_groups(sides, "agree", "κ", "95%", "first: refused", "second: refused")),
        tuple(rows),
        note="κ: Cohen's, with the large-sample interval; a dash where both judges gave one verdict to every reply.",
        summary=second_judge_summary(figures),
    )


def second_judge_summary(figures: Mapping[str, Any]) -> str:
    """The second judge and its κ in one line; "" where there was none."""
    section = figures.get("second_judge")
    if not section:
        return ""
    side = sides_of(section)[-1]
    known = {tag: found["kappa"] for tag, found in section[side].items() if found["kappa"] is not None}
    if not known:
        return f"{section['judge']}, κ not defined in any language"
    worst = min(known, key=lambda tag: known[tag])
    noun = "language" if len(known) == 1 else "languages"
    where = f" {side} the edit" if section["after"] else ""
    return (
        f"{section['judge']}, κ {_kappa(median(known.values()))}{where} (median of {len(known)} {noun}), "
        f"lowest {worst} {_kappa(known[worst])}"
    )


def _cells(figures: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    return {"before": figures["cells"], "after": (figures["comparison"] or {}).get("after", [])}


def _unparsed(cell: Mapping[str, Any]) -> int:
    # Results from before guard judges lack the count.
    return int(cell.get("unparsed", 0))


def _mean(section: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The mean change of refusal of harmful prompts, or the mean of an audit alone."""
    mean: Mapping[str, Any] | None = section["means"].get("harmful") if section.get("after") else section.get("mean")
    return mean


def _kappa(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _refused(cell: Mapping[str, Any] | None) -> str:
    return NOT_MEASURED if cell is None else rate(cell["refused"] / cell["n"])


def _change(change: Mapping[str, Any] | None) -> tuple[str, str]:
    return difference_cells(change["difference"], change["interval"]) if change else (NOT_MEASURED,) * 2
