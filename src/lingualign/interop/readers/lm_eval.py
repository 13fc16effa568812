"""Files of EleutherAI's lm-evaluation-harness 0.4: `results_*.json` and, with --log_samples, `samples_TASK_*.jsonl`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lingualign.data.tables import read_json_lines
from lingualign.interop.samples import ResultFile, Sample, StatedFigure

NAME = "lm-eval"
#: The time at the end of a file's name; files of one task that differ in it are runs of different times.
DATE = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d+)$")
#: Fields of a data set's row that join translations of one prompt.
_IDS = ("seed_id", "id", "prompt_id", "question_id")


class _Sample(BaseModel):
    """A line of a samples file; `lm_eval.result_schema.SampleResult`."""

    model_config = ConfigDict(extra="allow")

    doc_id: int
    doc: Any = None
    # A list of requests until 0.4.2, a dictionary since.
    arguments: dict[str, dict[str, Any]] | list[Any] = []
    resps: list[Any]
    filter: str = "none"
    metrics: list[str] = []


class _Results(BaseModel):
    """A results file; `lm_eval.result_schema.EvalResults`."""

    results: dict[str, dict[str, Any]]
    model_name: str = ""


def is_results(content: Any) -> bool:
    """Whether a JSON document is a results file."""
    return isinstance(content, dict) and "results" in content and ("configs" in content or "n-shot" in content)


def is_sample(line: Any) -> bool:
    """Whether a line of JSON is one of a samples file."""
    return isinstance(line, dict) and {"doc_id", "resps"} <= line.keys()


def read_results(path: Path, content: Any) -> ResultFile:
    """The figures of a results file, with the standard errors it states.

    Raises:
        ValueError: the content has another shape.
    """
    document = _Results.model_validate(content)
    figures = []
    for task, metrics in document.results.items():
        n = metrics.get("sample_len", metrics.get("samples"))
        for key, value in metrics.items():
            metric, comma, name_of_filter = key.partition(",")
            number = _number(value)
            if not comma or metric.endswith("_stderr") or number is None:
                continue
            figures.append(
                StatedFigure(
                    task=task,
                    metric=metric if name_of_filter == "none" else f"{metric} ({name_of_filter})",
                    value=number,
                    stderr=_number(metrics.get(f"{metric}_stderr,{name_of_filter}")),
                    n=n if isinstance(n, int) else None,
                )
            )
    return ResultFile(path, NAME, document.model_name, figures=tuple(figures))


def read_samples(path: Path) -> ResultFile:
    """The replies of a samples file. Where several filters were applied, the first counts: the replies are the same.

    Raises:
        ValueError: a line has another shape.
    """
    task = DATE.sub("", path.stem.removeprefix("samples_"))
    lines = [_Sample.model_validate(line) for _, line in read_json_lines(path)]
    samples = []
    for line in lines:
        if line.filter != lines[0].filter:
            continue
        row = line.doc if isinstance(line.doc, dict) else {}
        extra = line.model_extra or {}
        scores = {name: number for name in line.metrics if (number := _number(extra.get(name))) is not None}
        identity = next((str(row[name]) for name in _IDS if isinstance(row.get(name), str | int)), str(line.doc_id))
        prompt = _prompt(line.arguments)
        for number, reply in enumerate(_replies(line.resps)):
            # The scores are the row's, over its repeats.
            own = {} if number else scores
            samples.append(Sample(task, identity, prompt, reply, finished=True, fields=row, scores=own))
    return ResultFile(path, NAME, samples=tuple(samples))


def _prompt(arguments: dict[str, dict[str, Any]] | list[Any]) -> str:
    """The context of the first request."""
    first: Any = next(iter(arguments.values() if isinstance(arguments, dict) else arguments), None)
    if isinstance(first, dict):
        first = list(first.values())
    return first[0] if isinstance(first, list) and first and isinstance(first[0], str) else ""


def _replies(responses: list[Any]) -> list[str | None]:
    """Generated texts of the first request, one for each repeat; one None where the responses are log-likelihoods."""
    first = responses[0] if responses else None
    if isinstance(first, list) and first and all(isinstance(text, str) for text in first):
        return list(first)
    return [None]


def _number(value: Any) -> float | None:
    """A finite number, or None: `N/A` stands for a missing standard error."""
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_number else None
