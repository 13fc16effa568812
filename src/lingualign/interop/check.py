"""From result files of any harness to rates by language, stated scores by language, and paired comparisons."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lingualign.data.schema import Kind
from lingualign.errors import ConfigError, DataError
from lingualign.evaluate.gates import LEVELS, Gate, GateResult, check_gates
from lingualign.evaluate.incoherence import identify_language
from lingualign.evaluate.judge import Exchange, Judge
from lingualign.evaluate.metrics import Cell, cells
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.verdict import Comparison, compare
from lingualign.interop.language_tags import known_tag, split_task
from lingualign.interop.readers import read_result_files
from lingualign.interop.samples import ResultFile, Sample
from lingualign.languages import REFERENCE

#: Fields of a sample that usually hold its language.
_LANGUAGE_FIELDS = ("language", "lang", "locale", "language_code", "target_language")


@dataclass(frozen=True, slots=True)
class LanguageScore:
    """A harness's own metric in one language.

    Attributes:
        language: our tag, or "" where none could be told.
        task: the task's name without the language.
        value: as stated, or the mean over the samples where the file states none.
        stderr: standard error, likewise; None where it is unknown.
        n: samples, or None.
        stated: whether the file states it.
    """

    language: str
    task: str
    metric: str
    value: float
    stderr: float | None
    n: int | None
    stated: bool


#: Values by sample, for each task (its name without the language), metric and language.
SampleScores = Mapping[tuple[str, str, str], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Side:
    """The files of one model.

    Attributes:
        model: its name as the files state it, or "".
        formats: number of files by format.
        judge: the judge of the replies; "" where there are none.
        replies: judged replies.
        language_from: samples by the source of their language: `option`, `field`, `task` or `prompt`.
        without_language: samples left out, for their language could not be told or is none of ours.
        failed: samples that the harness could not finish.
        scores: metrics of the harness by language.
        sample_scores: those of the samples, by task, metric and language, then by sample.
    """

    model: str
    formats: Mapping[str, int]
    judge: str
    replies: tuple[Reply, ...]
    language_from: Mapping[str, int]
    without_language: int
    failed: int
    scores: tuple[LanguageScore, ...]
    sample_scores: SampleScores

    @property
    def cells(self) -> list[Cell]:
        """Counts of the outcomes by language and kind."""
        return cells(self.replies)


def read_side(
    paths: Sequence[Path],
    judge: Judge,
    *,
    judge_again: bool = False,
    languages_from: str | None = None,
    kind: Kind = "harmful",
) -> Side:
    """Reads the result files of one model and judges the replies in them.

    Args:
        paths: files, folders of files, run folders.
        judge: judges the replies that have no verdict yet.
        judge_again: whether replies of a run folder are judged anew too.
        languages_from: name of a field of the samples, dots lead inwards; or `TASK=TAG,TASK=TAG`. By default a field
            such as `language`, else the end of the task's name, else the language of the prompt.
        kind: the prompts' kind where a file does not tell.

    Raises:
        DataError: a file cannot be read, the files are of several models or judges, or nothing in them has a language.
    """
    files = read_result_files(paths)
    models = sorted({file.model for file in files} - {""})
    if len(models) > 1:
        raise DataError(f"the files are of {len(models)} models; give one model's files, and another's with --against")
    told = _Languages(languages_from)
    replies, judged = [reply for file in files for reply in file.replies], {file.judge for file in files if file.judge}
    if replies and judge_again:
        exchanges = [Exchange("", reply.text, reply.language, reply.finished) for reply in replies]
        replies, judged = _judged(replies, exchanges, judge), {judge.name}
    samples = [(told.of(sample), sample) for file in files for sample in file.samples]
    new = [(tag, sample) for tag, sample in samples if tag and sample.reply is not None]
    if new:
        exchanges = [Exchange(sample.prompt, sample.reply or "", tag, sample.finished) for tag, sample in new]
        replies = replies + _judged(_unjudged(new, kind), exchanges, judge)
        judged.add(judge.name)
    if len(judged) > 1:
        raise DataError(f"replies were judged by {' and '.join(sorted(judged))}; add --judge to judge all by one")
    sample_scores = _sample_scores(samples)
    scores = tuple(_scores(files, sample_scores))
    if not replies and not scores:
        raise DataError("no reply in a language that lingualign knows; tell the languages with --languages-from")
    return Side(
        model=models[0] if models else "",
        formats=Counter(file.format for file in files),
        judge=next(iter(judged), ""),
        replies=tuple(replies),
        language_from=told.sources,
        without_language=sum(not tag for tag, _ in samples),
        failed=sum(file.failed for file in files),
        scores=scores,
        sample_scores=sample_scores,
    )


def compare_sides(before: Side, after: Side, reference: str = REFERENCE) -> Comparison:
    """Pairs the replies of two sides by kind, sample and language.

    Raises:
        DataError: the sides hold replies to different prompts, or judgements of different judges.
    """
    if before.judge != after.judge:
        raise DataError(f"the replies were judged by {before.judge} and {after.judge}; add --judge to judge all by one")
    return compare(before.replies, after.replies, reference=reference)


def check_side(gates: Sequence[Gate], side: Side, before: Side | None, reference: str = REFERENCE) -> list[GateResult]:
    """Holds one side, or its difference from another, against gates.

    Raises:
        ConfigError: a gate compares and there is nothing to compare with.
        DataError: the sides do not pair.
    """
    comparing = [gate.metric for gate in gates if gate.metric not in LEVELS]
    if before is None and comparing:
        raise ConfigError(f"the gate {comparing[0]} compares with a baseline; give one with --against")
    return check_gates(gates, compare_sides(before or side, side, reference)) if gates else []


class _Languages:
    """Tells the language of samples, and counts from what."""

    def __init__(self, languages_from: str | None) -> None:
        self.sources: Counter[str] = Counter()
        self._field, self._tasks = None, None
        if languages_from and "=" in languages_from:
            pairs = [pair.partition("=") for pair in languages_from.split(",")]
            self._tasks = {task.strip(): _needed_tag(name) for task, _, name in pairs}
        elif languages_from:
            self._field = languages_from.split(".")

    def of(self, sample: Sample) -> str:
        """The tag, or "" where it cannot be told or is none of ours."""
        tag, source = self._found(sample)
        if tag:
            self.sources[source] += 1
        return tag or ""

    def _found(self, sample: Sample) -> tuple[str | None, str]:
        if self._tasks is not None:
            return self._tasks.get(sample.task), "option"
        if self._field is not None:
            value: object = sample.fields
            for step in self._field:
                value = value.get(step) if isinstance(value, Mapping) else None
            return (known_tag(value) if isinstance(value, str) else None), "option"
        for name in _LANGUAGE_FIELDS:
            value = sample.fields.get(name)
            if isinstance(value, str) and value:
                return known_tag(value), "field"
        if tag := split_task(sample.task)[1]:
            return tag, "task"
        return known_tag(identify_language(sample.prompt)), "prompt"


def _needed_tag(name: str) -> str:
    tag = known_tag(name)
    if tag is None:
        raise ConfigError(f"--languages-from: {name!r} is no language; write TASK=TAG such as mytask=th")
    return tag


def _unjudged(samples: Sequence[tuple[str, Sample]], kind: Kind) -> list[Reply]:
    """Replies without a verdict. Repeats of one sample in one language get a number each."""
    seen: Counter[tuple[str, str, str]] = Counter()
    replies = []
    for language, sample in samples:
        sample_id = f"{split_task(sample.task)[0]}:{sample.sample_id}"
        key = (sample.kind or kind, sample_id, language)
        seen[key] += 1
        replies.append(
            Reply(
                seed_id=sample_id if seen[key] == 1 else f"{sample_id}#{seen[key]}",
                language=language,
                kind=sample.kind or kind,
                text=sample.reply or "",
                tokens=0,
                finished=sample.finished,
                outcome="unparsed",
                score=0.0,
                reply_language="",
            )
        )
    return replies


def _judged(replies: Sequence[Reply], exchanges: Sequence[Exchange], judge: Judge) -> list[Reply]:
    return [
        replace(
            reply,
            outcome=judgement.outcome,
            score=judgement.score,
            reply_language=judgement.reply_language,
            unsafe=judgement.unsafe,
        )
        for reply, judgement in zip(replies, judge.judge(exchanges), strict=True)
    ]


def _sample_scores(samples: Sequence[tuple[str, Sample]]) -> dict[tuple[str, str, str], dict[str, float]]:
    """Values by sample; repeats of one sample get a number each."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    seen: Counter[tuple[str, str, str, str]] = Counter()
    for tag, sample in samples:
        for metric, value in sample.scores.items():
            key = (split_task(sample.task)[0], metric, tag)
            seen[*key, sample.sample_id] += 1
            repeat = seen[*key, sample.sample_id]
            name = sample.sample_id if repeat == 1 else f"{sample.sample_id}#{repeat}"
            found.setdefault(key, {})[name] = value
    return found


def _scores(files: Sequence[ResultFile], sample_scores: SampleScores) -> list[LanguageScore]:
    """Stated figures of tasks whose name ends in a language, and means over samples of what no file states."""
    found: dict[tuple[str, str, str], LanguageScore] = {}
    for figure in (figure for file in files for figure in file.figures):
        stem, tag = split_task(figure.task)
        score = LanguageScore(tag or "", stem, figure.metric, figure.value, figure.stderr, figure.n, stated=True)
        found[score.task, score.metric, score.language] = score
    for (task, metric, tag), values in sample_scores.items():
        n = len(values)
        mean = sum(values.values()) / n
        stderr = math.sqrt(sum((value - mean) ** 2 for value in values.values()) / (n - 1) / n) if n > 1 else None
        found.setdefault((task, metric, tag), LanguageScore(tag, task, metric, mean, stderr, n, stated=False))
    return sorted(found.values(), key=lambda score: (score.task, score.metric, score.language))
