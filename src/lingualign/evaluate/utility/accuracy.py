"""Accuracy of a model on a task, and what became of it, paired by document."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lingualign.errors import DataError
from lingualign.evaluate.paired import PairedChange, paired_changes
from lingualign.evaluate.statistics import Interval, wilson_interval


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskChange(PairedChange):
    """One task before and after, paired by document; the p values are adjusted over the tasks compared together.

    Attributes:
        before_stderr, after_stderr: standard errors of the shares that are right.
    """

    name: str
    metric: str
    version: str
    few_shot: int
    before_stderr: float
    after_stderr: float


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
    changed = paired_changes(
        {was.name: [(bool(right), bool(now.correct[key])) for key, right in was.correct.items()] for was, now in pairs}
    )
    return [
        TaskChange(
            name=was.name,
            metric=was.metric,
            version=was.version,
            few_shot=was.few_shot,
            before_stderr=was.stderr,
            after_stderr=now.stderr,
            **asdict(changed[was.name]),
        )
        for was, now in pairs
    ]
