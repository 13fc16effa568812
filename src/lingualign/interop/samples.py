"""What the readers of result files give: replies still to be judged, replies judged already, figures as stated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lingualign.data.schema import Kind
from lingualign.evaluate.schema import Reply


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt and its reply, as a harness recorded them. Hostile text throughout.

    Attributes:
        task: name of the task, from which the language is often to be had.
        sample_id: identity within the task; samples of parallel tasks in two languages should share it.
        prompt, reply: texts; `reply` is None where the task generates none (multiple choice).
        finished: whether the model ended the reply itself; True where the file does not tell.
        fields: further fields of the sample, such as the row of the data set.
        scores: numbers that the harness gave this sample, by metric.
        kind: kind of the prompt where the file tells.
    """

    task: str
    sample_id: str
    prompt: str
    reply: str | None
    finished: bool
    fields: Mapping[str, Any]
    scores: Mapping[str, float] = field(default_factory=dict)
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class StatedFigure:
    """A figure of a whole task, as a file states it; nothing of it is computed here.

    Attributes:
        value: the metric.
        stderr: its standard error, or None where none is stated.
        n: samples behind it, or None.
    """

    task: str
    metric: str
    value: float
    stderr: float | None
    n: int | None


@dataclass(frozen=True, slots=True)
class ResultFile:
    """The content of one result file.

    Attributes:
        path: the file, or the run folder.
        format: `lm-eval`, `inspect`, `harmbench` or `lingualign`.
        model: name of the model as the file states it, or "".
        samples: replies without a judgement of ours.
        replies: replies that `judge` judged.
        figures: stated figures of whole tasks.
        failed: samples that the harness could not finish; they have no reply.
    """

    path: Path
    format: str
    model: str = ""
    samples: tuple[Sample, ...] = ()
    replies: tuple[Reply, ...] = ()
    judge: str = ""
    figures: tuple[StatedFigure, ...] = ()
    failed: int = 0
