"""What became of yes-or-no outcomes, paired: one family of changes that are tested together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lingualign.evaluate.statistics import Interval, holm, mcnemar_exact, paired_difference_interval

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedChange:
    """How often an outcome occurred before and after, on the same prompts or documents.

    Attributes:
        n: pairs.
        before, after: shares with the outcome.
        difference: after - before, with its 95% interval (Newcombe's method 10).
        gained, lost: pairs that came to have the outcome, and that ceased to.
        p_value: exact McNemar, two-sided.
        p_adjusted: after Holm over the changes tested together.
    """

    n: int
    before: float
    after: float
    difference: float
    interval: Interval
    gained: int
    lost: int
    p_value: float
    p_adjusted: float


def paired_changes(pairs: Mapping[_Key, Sequence[tuple[bool, bool]]]) -> dict[_Key, PairedChange]:
    """The changes of one family, in its order; the p values are adjusted over all of them.

    Args:
        pairs: for each member at least one (before, after).
    """
    discordant = {
        key: (sum(now and not was for was, now in rows), sum(was and not now for was, now in rows))
        for key, rows in pairs.items()
    }
    p_values = [mcnemar_exact(gained, lost) for gained, lost in discordant.values()]
    found = {}
    for (key, rows), p_value, p_adjusted in zip(pairs.items(), p_values, holm(p_values), strict=True):
        was, now = [pair[0] for pair in rows], [pair[1] for pair in rows]
        gained, lost = discordant[key]
        n = len(rows)
        found[key] = PairedChange(
            n=n,
            before=sum(was) / n,
            after=sum(now) / n,
            difference=(gained - lost) / n,
            interval=paired_difference_interval(was, now),
            gained=gained,
            lost=lost,
            p_value=p_value,
            p_adjusted=p_adjusted,
        )
    return found
