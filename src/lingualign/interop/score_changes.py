"""Right and wrong answers of two models on the same samples: what lm-eval's own comparison treats as unpaired."""

from __future__ import annotations

from dataclasses import dataclass

from lingualign.errors import DataError
from lingualign.evaluate.statistics import Interval, holm, mcnemar_exact, paired_difference_interval
from lingualign.interop.check import SampleScores, Side


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """A score of 0 or 1 before and after, on the same samples of one task in one language.

    Attributes:
        n: pairs.
        before, after: shares of the samples that scored 1.
        difference: after - before, with its 95% interval (Newcombe's method 10).
        gained, lost: samples that went from 0 to 1, and from 1 to 0.
        p_value: exact McNemar, two-sided.
        p_adjusted: after Holm over the languages of the task and metric.
    """

    task: str
    metric: str
    language: str
    n: int
    before: float
    after: float
    difference: float
    interval: Interval
    gained: int
    lost: int
    p_value: float
    p_adjusted: float


def score_changes(before: Side, after: Side) -> list[ScoreChange]:
    """Paired changes of every metric that is 0 or 1 on both sides; metrics of other values are left out.

    Raises:
        DataError: a sample is on one side only.
    """
    shared = [key for key in after.sample_scores if key in before.sample_scores]
    binary = [
        key for key in shared if {*before.sample_scores[key].values(), *after.sample_scores[key].values()} <= {0.0, 1.0}
    ]
    found: list[ScoreChange] = []
    for family in dict.fromkeys((task, metric) for task, metric, _ in binary):
        found += _family([key for key in binary if key[:2] == family], before.sample_scores, after.sample_scores)
    return found


def _family(keys: list[tuple[str, str, str]], before: SampleScores, after: SampleScores) -> list[ScoreChange]:
    """The languages of one task and metric, adjusted together."""
    pairs = {}
    for key in keys:
        if lonely := before[key].keys() ^ after[key].keys():
            raise DataError(
                f"{len(lonely)} of the samples in {key[2] or 'an unknown language'} are on one side only; "
                "give files of the same samples"
            )
        pairs[key] = [(before[key][sample] == 1.0, value == 1.0) for sample, value in after[key].items()]
    discordant = {
        key: (sum(now and not was for was, now in rows), sum(was and not now for was, now in rows))
        for key, rows in pairs.items()
    }
    p_values = [mcnemar_exact(gained, lost) for gained, lost in discordant.values()]
    changes = []
    for (key, rows), p_value, p_adjusted in zip(pairs.items(), p_values, holm(p_values), strict=True):
        was, now = [pair[0] for pair in rows], [pair[1] for pair in rows]
        n = len(rows)
        gained, lost = discordant[key]
        changes.append(
            ScoreChange(
                *key,
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
        )
    return changes
