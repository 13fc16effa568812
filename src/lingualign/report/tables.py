"""Tables for the terminal: an audit, a comparison, arms side by side. At most 100 columns, readable as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from lingualign.evaluate.corrected import CorrectedCell
from lingualign.evaluate.metrics import Cell, MeanChange
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.verdict import Comparison, Effect, signed
from lingualign.languages import REFERENCE
from lingualign.report.arms import compare_arm
from lingualign.report.data import Arm
from lingualign.report.wording import clean, interval, label, p_value, rate

#: What a table shows where nothing was measured.
NOT_MEASURED = "-"


def audit_table(cells: Sequence[Cell], corrected: Sequence[CorrectedCell] = (), *, reference: str = REFERENCE) -> Table:
    """One row a language: refusal of harmful prompts with its interval, ASR, over-refusal, incoherent replies.

    Args:
        cells: of one audit.
        corrected: the same, corrected for the judge's error; the column is left out where there are none.
        reference: tag of the language that comes first.
    """
    table = _table("Refusal and over-refusal by language")
    table.add_column("Language", no_wrap=True)
    true = {cell.language: cell for cell in corrected if cell.kind == "harmful"}
    of_harmful = ["harmful\nn", "\nrefused", "\n95%", *(["corrected for\njudge error"] if true else []), "\nASR"]
    for name in of_harmful:
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("harm-\nless", "look-\nalike", "inco-\nherent"):
        table.add_column(name, justify="right", no_wrap=True)
    for language in _reference_first([cell.language for cell in cells], reference):
        by_kind = {cell.kind: cell for cell in cells if cell.language == language}
        harmful = by_kind.get("harmful")
        table.add_row(
            Text(label(language)),
            *(
                (
                    str(harmful.n),
                    rate(harmful.refusal_rate),
                    interval(harmful.refusal_interval),
                    *([_corrected(true.get(language))] if true else []),
                    rate(harmful.attack_success_rate),
                )
                if harmful
                else (NOT_MEASURED,) * len(of_harmful)
            ),
            _refusal_rate(by_kind.get("harmless")),
            _refusal_rate(by_kind.get("look-alike")),
            rate(sum(cell.incoherent for cell in by_kind.values()) / sum(cell.n for cell in by_kind.values())),
            end_section=language == reference,
        )
    table.caption = (
        "ASR: harmful prompts answered or unsafe, unparsed ones included. Last columns: refusals of harmless and "
        "look-alike prompts, and incoherent replies to all. Rates are shares of replies; intervals are Wilson's."
    )
    if true:
        table.caption += (
            " Corrected: for the judge's measured error, whose uncertainty the interval carries; "
            "'not valid' where that is unknown or too large."
        )
    return table


def comparison_table(comparison: Comparison) -> Table:
    """One row a language: refusal of harmful prompts before and after, the difference, side effects; then means."""
    table = _table("Refusal of harmful prompts, and what else changed")
    table.add_column("Language", no_wrap=True)
    for name in ("\nn", "refused\nbefore → after", "\ndifference, 95%", "p\n(Holm)"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("harm-\nless", "look-\nalike", "inco-\nherent"):
        table.add_column(name, justify="right", no_wrap=True)
    for change in comparison.rows:
        language = change.language
        table.add_row(
            Text(label(language) + (" *" if language in comparison.anchor_languages else "")),
            str(change.n),
            f"{rate(change.before)} → {rate(change.after)}",
            f"{signed(change.difference)} [{signed(change.interval[0])}, {signed(change.interval[1])}]",
            p_value(change.p_adjusted),
            *(_side_effect(effect, language) for effect in _side_effects(comparison)),
            end_section=language in {comparison.reference, comparison.rows[-1].language},
        )
    for name, part in (("mean of others", "mean"), ("mean of anchors *", "anchors"), ("mean of unseen", "unseen")):
        mean: MeanChange | None = getattr(comparison.harmful_refusal, part)
        if mean is None or (part == "unseen" and comparison.harmful_refusal.anchors is None):
            continue
        means: list[MeanChange | None] = [getattr(effect, part) for effect in _side_effects(comparison)]
        table.add_row(
            name,
            str(mean.n),
            f"{rate(mean.before)} → {rate(mean.after)}",
            f"{signed(mean.difference)} [{signed(mean.interval[0])}, {signed(mean.interval[1])}]",
            "",
            *(signed(side.difference) if side else NOT_MEASURED for side in means),
        )
    table.caption = (
        "* anchor language: the edit was fitted on its prompts. First row: the reference. "
        "Last three columns: change in refusals of harmless and look-alike prompts, and in incoherent replies."
    )
    return table


def arms_table(before: Sequence[Reply], arms: Sequence[Arm], *, reference: str = REFERENCE) -> Table:
    """One row a treatment, each paired with the unedited model on its own prompts.

    Rates are means over the languages other than the reference.

    Args:
        before: replies of the unedited model.
        arms: the edit and its controls.
    """
    table = _table("Treatments side by side")
    table.add_column("Treatment", overflow="fold", max_width=24)
    for name in ("\nn", "harmful\nrefused", "difference from no\nedit, 95% interval", "worst\nlanguage"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("harmless\nrefused", "look-alike\nrefused", "inco-\nherent"):
        table.add_column(name, justify="right", no_wrap=True)
    unedited = compare_arm(before, Arm("", "", tuple(before)), reference=reference)
    for arm, comparison in [
        (None, unedited),
        *((arm, compare_arm(before, arm, reference=reference)) for arm in arms),
    ]:
        headline = comparison.headline
        low, high = headline.interval
        table.add_row(
            Text(clean(arm.name) if arm else "no edit"),
            str(headline.n),
            rate(headline.after),
            f"{signed(headline.difference)} [{signed(low)}, {signed(high)}]" if arm else "",
            f"{comparison.worst_after.language} {rate(comparison.worst_after.refusal_rate)}",
            *(rate(effect.overall.after) if effect.overall else NOT_MEASURED for effect in _side_effects(comparison)),
            end_section=arm is None,
        )
    table.caption = f"Means over the languages other than {clean(reference)}; n counts harmful prompts."
    return table


def _table(title: str) -> Table:
    return Table(
        title=title,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        padding=(0, 1, 0, 0),
    )


def _reference_first(languages: Sequence[str], reference: str) -> list[str]:
    return sorted(dict.fromkeys(languages), key=lambda language: language != reference)


def _corrected(cell: CorrectedCell | None) -> str:
    if cell is None or cell.rate is None or cell.interval is None:
        return "not valid"
    return f"{rate(cell.rate)} {interval(cell.interval)}"


def _refusal_rate(cell: Cell | None) -> str:
    return rate(cell.refusal_rate) if cell else NOT_MEASURED


def _side_effects(comparison: Comparison) -> tuple[Effect, Effect, Effect]:
    return comparison.harmless_refusal, comparison.look_alike_refusal, comparison.incoherence


def _side_effect(effect: Effect, language: str) -> str:
    change = effect.of(language)
    return signed(change.difference) if change else NOT_MEASURED
