"""Evaluation logs of Inspect (UK AI Security Institute), `.eval` and `.json`, read by Inspect itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lingualign.data.schema import KINDS
from lingualign.errors import DataError, MissingDependency
from lingualign.interop.inspect_log import TEXT_SHOWN
from lingualign.interop.samples import ResultFile, Sample, StatedFigure

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

NAME = "inspect"


def is_log(content: Any) -> bool:
    """Whether a JSON document is an Inspect log."""
    return isinstance(content, dict) and {"version", "status", "eval"} <= content.keys()


def read_log(path: Path) -> ResultFile:
    """The samples of a log and the metrics it states.

    Raises:
        MissingDependency: inspect-ai is not installed.
        DataError: lingualign wrote the log, and left the replies out.
        ValueError: Inspect cannot read the file.
    """
    try:
        from inspect_ai.log import read_eval_log
    except ImportError:
        raise MissingDependency("inspect-ai", "inspect") from None

    try:
        # An absolute path: a name with `://` in it would be taken for an address.
        log = read_eval_log(str(path.resolve()), resolve_attachments=True, exclude_fields={"store", "events"})
    except Exception as error:
        # A damaged file surfaces as any of a dozen kinds, from zlib's to the event loop's.
        raise ValueError(f"Inspect cannot read it ({type(error).__name__})") from None
    if (log.eval.metadata or {}).get(TEXT_SHOWN) is False:
        raise DataError(f"{path}: lingualign wrote it without the replies; give the run folder, or convert --show-text")
    done = [sample for sample in log.samples or () if sample.error is None and sample.output.choices]
    return ResultFile(
        path,
        NAME,
        model=log.eval.model,
        samples=tuple(_sample(log.eval.task, sample) for sample in done),
        figures=tuple(_figures(log)),
        failed=len(log.samples or ()) - len(done),
    )


def _sample(task: str, sample: EvalSample) -> Sample:
    from inspect_ai.scorer import value_to_float

    if isinstance(sample.input, str):
        prompt = sample.input
    else:
        prompt = next((message.text for message in reversed(sample.input) if message.role == "user"), "")
    number = value_to_float()
    scores = {
        name: value
        for name, score in (sample.scores or {}).items()
        # Other words than Inspect's own (C, I, P, N, yes, no, ...) have no number; it would warn of them and say 0.
        if _has_number(score.value) and math.isfinite(value := number(score.value))
    }
    kind = next((kind for kind in KINDS if kind == sample.metadata.get("kind")), None)
    identity = sample.metadata.get("seed_id", sample.id)
    return Sample(
        task=task,
        sample_id=str(identity),
        prompt=prompt,
        reply=sample.output.completion,
        finished=sample.output.stop_reason not in ("max_tokens", "model_length"),
        fields=sample.metadata,
        scores=scores,
        kind=kind,
    )


def _has_number(value: Any) -> bool:
    return isinstance(value, int | float) or value in ("C", "I", "P", "N")


def _figures(log: EvalLog) -> list[StatedFigure]:
    figures = []
    for score in log.results.scores if log.results else ():
        stderr = score.metrics.get("stderr")
        for name, metric in score.metrics.items():
            if name == "stderr" or not math.isfinite(metric.value):
                continue
            error = float(stderr.value) if stderr and name in ("accuracy", "mean") else None
            n = score.scored_samples or (log.results.completed_samples if log.results else None)
            figures.append(StatedFigure(log.eval.task, f"{score.name} {name}", float(metric.value), error, n))
    return figures
