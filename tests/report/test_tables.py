"""Terminal tables as plain text: content, width, hostile names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table
from syrupy.assertion import SnapshotAssertion

from lingualign.evaluate.corrected import CorrectedCell, corrected_cells
from lingualign.evaluate.metrics import cells
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.verdict import compare
from lingualign.report.data import Arm, ReportData
from lingualign.report.html import EDIT_ARM
from lingualign.report.tables import arms_table, audit_table, comparison_table

from .make_figures import judge_card_of
from .make_sample import ANCHORS, make_replies, rates


def as_text(table: Table) -> str:
    console = Console(width=100, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def corrected(replies: Sequence[Reply]) -> list[CorrectedCell]:
    found = cells(replies)
    return corrected_cells(found, judge_card_of([cell.language for cell in found]).errors)


def test_audit_table(data: ReportData, snapshot: SnapshotAssertion) -> None:
    assert as_text(audit_table(cells(data.before), corrected(data.before))) == snapshot


def test_audit_table_of_uncorrected_rates_does_not_speak_of_correction(data: ReportData) -> None:
    text = as_text(audit_table(cells(data.before)))
    assert "orrected" not in text
    assert "not valid" not in text


def test_comparison_table(data: ReportData, snapshot: SnapshotAssertion) -> None:
    assert data.after is not None
    assert as_text(comparison_table(compare(data.before, data.after, anchor_languages=ANCHORS))) == snapshot


def test_arms_table(data: ReportData, snapshot: SnapshotAssertion) -> None:
    arms = [Arm(EDIT_ARM, "", data.after or ()), *data.controls]
    assert as_text(arms_table(data.before, arms)) == snapshot


def test_widest_contents_fit_100_columns_uncut() -> None:
    before = make_replies(rates({"en": 1.0, "ht": 1.0, "id": 0.0}), n=100)
    after = make_replies(rates({"en": 0.0, "ht": 0.0, "id": 1.0}, harmless=1.0, look_alike=1.0), n=100)
    comparison = compare(before, after, anchor_languages=["ht"])
    arms = [Arm("a treatment with a very long name indeed, longer than any table", "", after)]
    for table in (
        audit_table(cells(before), corrected(before)),
        comparison_table(comparison),
        arms_table(before, arms),
    ):
        text = as_text(table)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= 100
    assert "Haitian Creole (ht) *" in as_text(comparison_table(comparison))


def test_reference_comes_first_wherever_it_was_audited() -> None:
    replies = make_replies(rates({"th": 0.5, "en": 0.9}), n=20)
    for table in (audit_table(cells(replies), corrected(replies)), comparison_table(compare(replies, replies))):
        text = as_text(table)
        assert text.index("English (en)") < text.index("Thai (th)")


def test_kinds_that_were_not_audited_are_dashes() -> None:
    replies = make_replies(rates({"en": 0.5, "th": 0.5}), n=5, kinds=["harmful"])
    (row,) = [line for line in as_text(audit_table(cells(replies), corrected(replies))).splitlines() if "Thai" in line]
    assert row.split()[-3:-1] == ["-", "-"]
    (row,) = [line for line in as_text(comparison_table(compare(replies, replies))).splitlines() if "Thai" in line]
    assert row.split()[-3:-1] == ["-", "-"]


def test_a_control_on_fewer_prompts_is_paired_with_those(data: ReportData) -> None:
    few = tuple(reply for reply in data.controls[0].replies if reply.seed_id < "h010" and reply.kind == "harmful")
    text = as_text(arms_table(data.before, [Arm("few", "", few)]))
    (row,) = [line for line in text.splitlines() if line.strip().startswith("few")]
    assert row.split()[1] == str(9 * 13)


@pytest.mark.parametrize("name", ["[bold red]x[/]", "[/]", "a\x1b[31mb", "\u202ereversed"])
def test_hostile_names_are_shown_not_interpreted(data: ReportData, name: str) -> None:
    text = as_text(arms_table(data.before, [replace(data.controls[0], name=name)]))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert name.replace("\x1b", "\ufffd").replace("\u202e", "\ufffd") in text
