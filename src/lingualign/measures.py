"""The figures that stand beside rates and differences: what the judge's error makes of them, and a second opinion.

Each function gives a section of `result.json` as plain values; `report.panels` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lingualign.data.schema import KINDS
from lingualign.evaluate.corrected import CorrectedChange, corrected_cells, corrected_change
from lingualign.evaluate.correction import JudgeError
from lingualign.evaluate.metrics import cells
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.second import judges_agreement


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """The verdicts of a second judge on the replies of both audits; `after` is None for an audit alone."""

    judge: str
    before: tuple[Reply, ...]
    after: tuple[Reply, ...] | None


def corrected_section(
    before: Sequence[Reply], after: Sequence[Reply] | None, errors: Mapping[str, JudgeError], reference: str
) -> dict[str, Any]:
    """Refusal corrected for the judge's error: cells of both audits, changes by language, means over the others."""
    section: dict[str, Any] = {"before": corrected_cells(cells(before), errors)}
    if after is None:
        return section
    section["after"] = corrected_cells(cells(after), errors)
    kinds = [kind for kind in KINDS if any(reply.kind == kind for reply in before)]
    languages = list(dict.fromkeys(reply.language for reply in before if reply.kind == "harmful"))
    others = [language for language in languages if language != reference]
    section["changes"] = [
        change
        for language in languages
        if (change := corrected_change(before, after, "harmful", errors, [language])) is not None
    ]
    means: dict[str, CorrectedChange | None] = {
        kind: corrected_change(before, after, kind, errors, others) if others else None for kind in kinds
    }
    section["means"] = means
    return section


def agreement_section(
    before: Sequence[Reply], after: Sequence[Reply] | None, second: SecondOpinion | None
) -> dict[str, Any] | None:
    """Agreement of the two judges by language, and what the second one makes of the headline."""
    if second is None:
        return None
    section: dict[str, Any] = {
        "judge": second.judge,
        "before": judges_agreement(before, second.before),
        "cells": {"before": cells(second.before)},
    }
    if after is not None and second.after is not None:
        section["after"] = judges_agreement(after, second.after)
        section["cells"]["after"] = cells(second.after)
    return section
