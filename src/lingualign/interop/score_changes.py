"""Right and wrong answers of two models on the same samples: what lm-eval's own comparison treats as unpaired."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lingualign.errors import DataError
from lingualign.evaluate.paired import PairedChange, paired_changes
from lingualign.interop.check import SampleScores, Side


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreChange(PairedChange):
    """A score of 0 or 1 before and after, on the same samples of one task in one language.

    The p values are adjusted over the languages of the task and metric.
    """

    task: str
    metric: str
    language: str


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
    return [
        ScoreChange(task=task, metric=metric, language=language, **asdict(change))
        for (task, metric, language), change in paired_changes(pairs).items()
    ]
