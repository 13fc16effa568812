"""Accuracy of a model on a task, and what became of it, paired by document."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lingualign.errors import DataError
from lingualign.evaluate.statistics import (
    Interval,
    holm,
    mcnemar_exact,
    paired_difference_interval,
    wilson_interval,
)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task on one model.

    Attributes:
        name: the task's or group's name; the documents of a group's tasks are pooled.
        metric: name of the metric in the harness, with its answer filter where there is one.
        version: of the task.
        few_shot: examples in each prompt.
        harness: version of lm-evaluation-harness.
        prompts: hash of all prompts as the model got them.
        correct: 1 or 0 by document, `TASK:NUMBER`.
    """

    name: str
    metric: str
    version: str
    few_shot: int
    harness: str
    prompts: str
    correct: Mapping[str, int]

    @property
    def n(self) -> int:
        return len(self.correct)

    @property
    def value(self) -> float:
        """Share of documents that are right."""
        return sum(self.correct.values()) / self.n

    @property
    def stderr(self) -> float:
        """Standard error as the harness gives it: the sample's standard deviation over √n."""
        return math.sqrt(self.value * (1 - self.value) / (self.n - 1)) if self.n > 1 else math.nan

    @property
    def interval(self) -> Interval:
        """95% Wilson interval of the value."""
        return wilson_interval(sum(self.correct.values()), self.n)


@dataclass(frozen=True, slots=True)
class TaskChange:
    """One task before and after, paired by document.

    Attributes:
        n: documents.
        before, after: shares that are right, with their standard errors.
        difference: after - before, with its 95% interval (Newcombe's method 10).
        gained, lost: documents that became right, and that became wrong.
        p_value: exact McNemar, two-sided.
        p_adjusted: after Holm over the tasks compared together.
    """

    name: str
    metric: str
    version: str
    few_shot: int
    n: int
    before: float
    before_stderr: float
    after: float
    after_stderr: float
    difference: float
    interval: Interval
    gained: int
    lost: int
    p_value: float
    p_adjusted: float


def task_changes(before: Mapping[str, TaskResult], after: Mapping[str, TaskResult]) -> list[TaskChange]:
    """What became of each task; the p values are adjusted over all of them.

    Raises:
        DataError: a task was run on one side only, or with other documents or prompts.
    """
    if lonely := before.keys() ^ after.keys():
        raise DataError(f"task {min(lonely)} was run on one side only; run the same tasks before and after")
    pairs = [(was, after[name]) for name, was in before.items()]
    for was, now in pairs:
        if (was.prompts, was.metric) != (now.prompts, now.metric):
            raise DataError(
                f"task {was.name} had other prompts before than after (version {was.version} and {now.version}); "
                "run it again on both sides with the same data, limit and lm-eval"
            )
    counts = [
        (
            sum(now.correct[key] > was.correct[key] for key in was.correct),
            sum(now.correct[key] < was.correct[key] for key in was.correct),
        )
        for was, now in pairs
    ]
    p_values = [mcnemar_exact(gained, lost) for gained, lost in counts]
    return [
        TaskChange(
            name=was.name,
            metric=was.metric,
            version=was.version,
            few_shot=was.few_shot,
            n=was.n,
            before=was.value,
            before_stderr=was.stderr,
            after=now.value,
            after_stderr=now.stderr,
            difference=(gained - lost) / was.n,
            interval=paired_difference_interval(
                [bool(right) for right in was.correct.values()], [bool(now.correct[key]) for key in was.correct]
            ),
            gained=gained,
            lost=lost,
            p_value=p_value,
            p_adjusted=p_adjusted,
        )
        for (was, now), (gained, lost), p_value, p_adjusted in zip(pairs, counts, p_values, holm(p_values), strict=True)
    ]
