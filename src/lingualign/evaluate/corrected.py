"""Refusal corrected for the judge's error: per language and kind, and the change over languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lingualign.data.schema import Kind
from lingualign.evaluate.correction import (
    JudgeError,
    corrected_interval,
    corrected_mean_interval,
    corrected_rate,
    rogan_gladen,
)
from lingualign.evaluate.metrics import Array, Cell, refusal_by_seed
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.statistics import Interval


@dataclass(frozen=True, slots=True)
class CorrectedCell:
    """The refusal rate of one language and kind behind an imperfect judge.

    Attributes:
        n: replies.
        observed: share that the judge called refused.
        rate: Rogan-Gladen estimate of the true share; None where the judge is not valid for the language.
        interval: 95% interval of the true share, with the uncertainty of the judge's error; None with the rate.
    """

    language: str
    kind: Kind
    n: int
    observed: float
    rate: float | None
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class CorrectedMean:
    """The mean over languages of true refusal in one audit.

    Attributes:
        languages: those whose judge is valid; the mean is over them.
        left_out: languages where the judge is not valid.
        rate: mean of the corrected rates, with its 95% interval. The mean is cut to [0, 1], not each language: cutting
            those near 0 or 1 would draw the mean away from there, out of its interval.
    """

    kind: Kind
    languages: tuple[str, ...]
    left_out: tuple[str, ...]
    rate: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class CorrectedChange:
    """The change of true refusal between two audits, over one language or the mean of several.

    Attributes:
        languages: those whose judge is valid; an interval of the mean is over them.
        left_out: languages where the judge is not valid.
        before, after: means over the languages of the corrected rates, cut to [0, 1] as in `CorrectedMean`.
        difference: after - before, not cut to what is possible, with its 95% interval.
    """

    kind: Kind
    languages: tuple[str, ...]
    left_out: tuple[str, ...]
    before: float
    after: float
    difference: float
    interval: Interval


def corrected_cells(cells: Sequence[Cell], errors: Mapping[str, JudgeError]) -> list[CorrectedCell]:
    """The cells' refusal rates, corrected where the judge's error is known and small enough."""
    found = []
    for cell in cells:
        error = errors.get(cell.language)
        valid = error is not None and error.is_valid
        found.append(
            CorrectedCell(
                cell.language,
                cell.kind,
                cell.n,
                cell.refusal_rate,
                corrected_rate(cell.refusal_rate, error) if valid and error else None,
                corrected_interval(cell.refused, cell.n, error) if valid and error else None,
            )
        )
    return found


def corrected_mean(
    replies: Sequence[Reply], kind: Kind, errors: Mapping[str, JudgeError], languages: Sequence[str]
) -> CorrectedMean | None:
    """The mean of refusal over languages, every language weighing the same; None where the judge is valid in none."""
    valid = _valid(languages, errors)
    if not valid:
        return None
    values, _ = refusal_by_seed(replies, replies, kind, valid)
    chosen = [errors[language] for language in valid]
    return CorrectedMean(
        kind=kind,
        languages=valid,
        left_out=tuple(language for language in languages if language not in valid),
        rate=_mean_rate(values, chosen),
        interval=corrected_mean_interval(values, chosen, is_difference=False),
    )


def corrected_change(
    before: Sequence[Reply],
    after: Sequence[Reply],
    kind: Kind,
    errors: Mapping[str, JudgeError],
    languages: Sequence[str],
) -> CorrectedChange | None:
    """The change of refusal over languages, every language weighing the same; None where the judge is valid in none.

    Args:
        before, after: replies to the same prompts.
        kind: kind of the prompts.
        errors: the judge's error by language.
        languages: the languages of the mean; a single one for its own change.

    Raises:
        DataError: a prompt has a reply on one side only.
    """
    valid = _valid(languages, errors)
    if not valid:
        return None
    was, now = refusal_by_seed(before, after, kind, valid)
    chosen = [errors[language] for language in valid]
    raw = np.nanmean(now - was, axis=0)
    return CorrectedChange(
        kind=kind,
        languages=valid,
        left_out=tuple(language for language in languages if language not in valid),
        before=_mean_rate(was, chosen),
        after=_mean_rate(now, chosen),
        difference=float(np.mean([value / error.youden for value, error in zip(raw, chosen, strict=True)])),
        interval=corrected_mean_interval(now - was, chosen, is_difference=True),
    )


def _valid(languages: Sequence[str], errors: Mapping[str, JudgeError]) -> tuple[str, ...]:
    return tuple(language for language in languages if language in errors and errors[language].is_valid)


def _mean_rate(values: Array, errors: Sequence[JudgeError]) -> float:
    """Mean of the corrected rates of the columns of (seeds, languages) values, cut to [0, 1] as its interval is."""
    rates = np.nanmean(values, axis=0).tolist()
    mean = np.mean([rogan_gladen(rate, error) for rate, error in zip(rates, errors, strict=True)])
    return float(np.clip(mean, 0.0, 1.0))
