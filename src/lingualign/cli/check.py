"""`lingualign check`: refusal and scores by language from the result files of other harnesses."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lingualign.cli import options as o

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from lingualign.interop.check import LanguageScore, Side
    from lingualign.interop.score_changes import ScoreChange

#: Characters of a name from a file that are shown.
_LONGEST_NAME = 40


class JudgeName(StrEnum):
    """Judges that need no network."""

    ngram = "ngram"


class KindName(StrEnum):
    """Kinds of prompts."""

    harmful = "harmful"
    look_alike = "look-alike"
    harmless = "harmless"


def check(
    files: Annotated[
        list[Path],
        typer.Argument(help="Result files of lm-eval, Inspect or HarmBench, or folders with them.", show_default=False),
    ],
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Files of the baseline, compared sample by sample. Repeatable.", show_default=False),
    ] = None,
    require: o.Require = None,
    languages_from: Annotated[
        str | None,
        typer.Option(
            help="Field of the samples with the language, or TASK=TAG,TASK=TAG; by default found.",
            metavar="FIELD",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[KindName, typer.Option(help="Kind of the prompts, where a file does not tell.")] = KindName.harmful,
    judge: Annotated[
        JudgeName | None,
        typer.Option(help="Judge all replies by this one, those of run folders too.", show_default=False),
    ] = None,
    reference: Annotated[str, typer.Option(help="Language that is left out of the means.")] = "en",
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Rates by language from lm-eval, Inspect and HarmBench files: judged offline, paired with --against."""
    from lingualign.cli.screen import Screen
    from lingualign.cli.show import parse_gates

    screen = Screen(as_json=json, quiet=quiet)
    gates = parse_gates(require)

    from lingualign.errors import DataError, GateFailed
    from lingualign.evaluate.judge import OfflineJudge
    from lingualign.evaluate.verdict import audit_sentence, verdict_sentence
    from lingualign.interop.check import check_side, compare_sides, read_side
    from lingualign.interop.score_changes import score_changes
    from lingualign.languages import language
    from lingualign.report.tables import audit_table, comparison_table

    language(reference)

    def side(paths: list[Path]) -> Side:
        return read_side(
            paths, OfflineJudge(), judge_again=judge is not None, languages_from=languages_from, kind=kind.value
        )

    now = side(files)
    before = side(against) if against else None
    if gates and not now.replies:
        raise DataError("the files hold no replies to judge; with lm-eval give --log_samples")
    comparison = compare_sides(before, now, reference) if before and before.replies and now.replies else None
    changes = score_changes(before, now) if before else []
    results = check_side(gates, now, before, reference)

    for name, part in (("Baseline", before), ("Files", now)):
        if part:
            screen.say(f"{name:<9} {_origin(part)}")
    has_harmful = any(cell.kind == "harmful" for cell in now.cells)
    if comparison:
        screen.say("", comparison_table(comparison))
        screen.result("", verdict_sentence(comparison))
    elif now.replies:
        screen.say("", audit_table(now.cells, reference=reference))
        if has_harmful:
            screen.result("", audit_sentence(now.cells, reference))
    if now.scores:
        screen.say("", _score_table(now.scores))
    if changes:
        screen.say("", _change_table(changes))
    if results:
        screen.result("", *(f"Gate      {result}" for result in results))
    screen.document(_document(now, before, comparison, changes, results))
    failed = [str(result.gate) for result in results if not result.passed]
    if failed:
        raise GateFailed(f"{len(failed)} of {len(results)} gates do not hold: {', '.join(failed)}")


def _origin(side: Side) -> str:
    """Where the figures are from, in one line."""
    formats = ", ".join(f"{count} x {name}" for name, count in side.formats.items())
    parts = [formats, f"model {_name(side.model)}" if side.model else "", f"{len(side.replies)} replies"]
    if side.judge:
        parts.append(f"judge {_name(side.judge)}")
    if side.language_from:
        sources = ", ".join(f"{source} ({count})" for source, count in side.language_from.items())
        parts.append(f"language from {sources}")
    if side.without_language:
        parts.append(f"{side.without_language} left out: language unknown")
    if side.failed:
        parts.append(f"{side.failed} left out: not finished")
    return "; ".join(part for part in parts if part)


def _score_table(scores: tuple[LanguageScore, ...]) -> Table:
    """The harness's own metrics, one row a task, metric and language."""
    table = _table("Scores of the harness by language", "value", "standard error", "n")
    for score in scores:
        table.add_row(
            *_names(score),
            f"{score.value:.3f}",
            f"{score.stderr:.3f}" if score.stderr is not None else "-",
            str(score.n) if score.n is not None else "-",
        )
    return table


def _change_table(changes: list[ScoreChange]) -> Table:
    """The same metrics before and after, paired by sample."""
    from lingualign.evaluate.verdict import signed
    from lingualign.report.wording import p_value, rate

    table = _table("Scores of the harness, paired", "n", "before → after", "difference, 95%", "p (Holm)")
    for change in changes:
        low, high = change.interval
        table.add_row(
            *_names(change),
            str(change.n),
            f"{rate(change.before)} → {rate(change.after)}",
            f"{signed(change.difference)} [{signed(low)}, {signed(high)}]",
            p_value(change.p_adjusted),
        )
    return table


def _table(title: str, *figures: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("task", "metric", "language"):
        table.add_column(name, overflow="fold")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _names(row: LanguageScore | ScoreChange) -> list[Text]:
    from rich.text import Text

    return [Text(_name(text)) for text in (row.task, row.metric, row.language or "?")]


def _name(text: str) -> str:
    """A name from a file, made harmless for a terminal."""
    from lingualign.report.wording import shortened

    head = shortened(text, _LONGEST_NAME)[0]
    return " ".join(head.split())


def _document(
    now: Side, before: Side | None, comparison: Any, changes: list[ScoreChange], results: Any
) -> dict[str, Any]:
    """The figures for machines; no prompts and no replies."""
    from pydantic import TypeAdapter

    from lingualign.evaluate.verdict import verdict_sentence

    def side(part: Side) -> dict[str, Any]:
        return {
            "model": part.model,
            "formats": part.formats,
            "judge": part.judge,
            "replies": len(part.replies),
            "language_from": part.language_from,
            "without_language": part.without_language,
            "failed": part.failed,
            "cells": [
                {
                    "language": cell.language,
                    "kind": cell.kind,
                    "n": cell.n,
                    "refused": cell.refused,
                    "answered": cell.answered,
                    "incoherent": cell.incoherent,
                    "refusal_rate": cell.refusal_rate,
                    "refusal_interval": cell.refusal_interval,
                }
                for cell in part.cells
            ],
            "scores": part.scores,
        }

    document = {
        "schema": "lingualign-check/1",
        **side(now),
        "baseline": side(before) if before else None,
        "comparison": comparison,
        "score_changes": changes,
        "verdict": verdict_sentence(comparison) if comparison else None,
        "gates": results,
    }
    plain: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(document, mode="json")
    return plain
