"""Treatments of one model side by side, each paired with the unedited model."""

from __future__ import annotations

from collections.abc import Sequence

from lingualign.evaluate.schema import Reply
from lingualign.evaluate.verdict import Comparison, compare
from lingualign.report.data import Arm


def compare_arm(
    before: Sequence[Reply], arm: Arm, *, reference: str, anchor_languages: Sequence[str] = ()
) -> Comparison:
    """Compares an arm with the unedited model on the prompts that the arm was given: controls are often run on fewer.

    Raises:
        DataError: the arm has a prompt that the unedited model was not given, or no harmful one.
    """
    given = {reply.key for reply in arm.replies}
    return compare(
        [reply for reply in before if reply.key in given],
        arm.replies,
        reference=reference,
        anchor_languages=anchor_languages,
    )
