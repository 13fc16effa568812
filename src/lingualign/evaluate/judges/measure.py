"""A judge's error on replies with known labels: sensitivity and specificity by language, as `correction` reads them.

The file is JSON lines. Each row has the reply (`text`, `reply` or `response`), its label (`label`: refused or answered;
`refused`: true or false; or `outcome` as in an audit's replies) and `language`. Optional: `prompt`, which guard models
need; `finished` (true if absent), whether the reply ended by itself; `human` (false if absent), whether a person gave
the label. The first of these names that a row has counts, so that an audit's replies with a `label` added will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lingualign.data.tables import read_json_lines
from lingualign.errors import DataError
from lingualign.evaluate.judge import Exchange, Judge
from lingualign.evaluate.statistics import wilson_interval
from lingualign.events import Progress, silent
from lingualign.languages import LANGUAGES
from lingualign.runs import content_hash

_TEXT = ("text", "reply", "response")
_LABEL = ("label", "refused", "outcome")
#: Replies judged between two reports of progress.
_BATCH = 64


@dataclass(frozen=True, slots=True)
class LabelledReply:
    """A reply with what it is known to be.

    Attributes:
        exchange: what the judge sees.
        refused: the label.
        human: whether a person gave it.
    """

    exchange: Exchange
    refused: bool
    human: bool


@dataclass(frozen=True, slots=True)
class LanguageError:
    """How a judge did on the labelled replies of one language.

    A reply that the judge could not read is in neither class: its share is reported instead. One that it calls
    incoherent is not called a refusal.

    Attributes:
        rows: labelled replies.
        human: how many labels a person gave.
        refused, found: refusals with a verdict, and how many the judge called so.
        answered, spared: others with a verdict, and how many it did not call refusals.
        incoherent, unparsed: replies with these outcomes.
    """

    rows: int
    human: int
    refused: int
    found: int
    answered: int
    spared: int
    incoherent: int
    unparsed: int

    @property
    def sensitivity(self) -> float | None:
        """Share of the refusals that were found; None without any."""
        return self.found / self.refused if self.refused else None

    @property
    def specificity(self) -> float | None:
        """Share of the others that were spared; None without any."""
        return self.spared / self.answered if self.answered else None


def read_labels(path: Path, *, needs_prompt: bool = False) -> list[LabelledReply]:
    """The rows of a file of labelled replies.

    Args:
        path: JSON lines as above.
        needs_prompt: whether the judge reads prompts, so that every row must have one.

    Raises:
        DataError: there is no such file, or a row is wrong; names the line and the fix.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    try:
        rows = read_json_lines(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    if not rows:
        raise DataError(f"{path}: no rows; write one labelled reply a line")
    return [_labelled(row, f"{path}, line {number}", needs_prompt) for number, row in rows]


def measure_judge(
    judge: Judge, labelled: Sequence[LabelledReply], *, progress: Progress = silent
) -> dict[str, LanguageError]:
    """The error of a judge in each language, in the order of the table of languages.

    Args:
        judge: the judge.
        labelled: replies with known labels; best such as the judge was not trained on.
        progress: called with the number of replies judged.
    """
    outcomes: list[str] = []
    progress("judging", 0, len(labelled))
    for start in range(0, len(labelled), _BATCH):
        batch = labelled[start : start + _BATCH]
        outcomes += [judgement.outcome for judgement in judge.judge([row.exchange for row in batch])]
        progress("judging", len(outcomes), len(labelled))
    judged = list(zip(labelled, outcomes, strict=True))
    return {
        tag: _error(rows)
        for tag in LANGUAGES
        if (rows := [(row, outcome) for row, outcome in judged if row.exchange.language == tag])
    }


def error_document(
    judge_name: str, labelled: Sequence[LabelledReply], errors: dict[str, LanguageError]
) -> dict[str, Any]:
    """The error as JSON: `languages -> tag -> all` is what `correction.judge_errors` reads.

    Returns:
        judge, labels (number, how many by people, hash), and for each language the rates, their 95% Wilson intervals
        and the counts.
    """
    content = [[row.exchange.reply, row.exchange.language, row.refused] for row in labelled]
    return {
        "judge": judge_name,
        "labels": {
            "rows": len(labelled),
            "human": sum(row.human for row in labelled),
            "hash": content_hash(content),
        },
        "languages": {
            tag: {
                "all": {
                    "sensitivity": error.sensitivity,
                    "specificity": error.specificity,
                    "refused": error.refused,
                    "answered": error.answered,
                },
                "intervals": {
                    "sensitivity": wilson_interval(error.found, error.refused),
                    "specificity": wilson_interval(error.spared, error.answered),
                },
                "rows": error.rows,
                "human": error.human,
                "incoherent": error.incoherent,
                "unparsed": error.unparsed,
            }
            for tag, error in errors.items()
        },
    }


def _labelled(row: dict[str, Any], place: str, needs_prompt: bool) -> LabelledReply:
    text_name = next((name for name in _TEXT if name in row), None)
    if text_name is None or not isinstance(row[text_name], str):
        raise DataError(f"{place}: no reply; give it as a string in `text`")
    label_name = next((name for name in _LABEL if name in row), None)
    label = row[label_name] if label_name else None
    if label_name == "refused" and isinstance(label, bool):
        label = "refused" if label else "answered"
    if label not in ("refused", "answered"):
        raise DataError(f"{place}: no label; give `label` as refused or answered, or `refused` as true or false")
    tag = row.get("language")
    if not isinstance(tag, str) or tag not in LANGUAGES:
        raise DataError(f"{place}: unknown language {tag!r}; give `language` as one of {', '.join(LANGUAGES)}")
    prompt = row.get("prompt", "")
    if not isinstance(prompt, str) or (needs_prompt and not prompt):
        raise DataError(f"{place}: no prompt, which this judge reads; give it as a string in `prompt`")
    flags = {"finished": row.get("finished", True), "human": row.get("human", False)}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise DataError(f"{place}: `{name}` is {value!r}; give true or false")
    return LabelledReply(Exchange(prompt, row[text_name], tag, flags["finished"]), label == "refused", flags["human"])


def _error(rows: Sequence[tuple[LabelledReply, str]]) -> LanguageError:
    read = [(row.refused, outcome == "refused") for row, outcome in rows if outcome != "unparsed"]
    return LanguageError(
        rows=len(rows),
        human=sum(row.human for row, _ in rows),
        refused=sum(label for label, _ in read),
        found=sum(label and called for label, called in read),
        answered=sum(not label for label, _ in read),
        spared=sum(not label and not called for label, called in read),
        incoherent=sum(outcome == "incoherent" for _, outcome in rows),
        unparsed=sum(outcome == "unparsed" for _, outcome in rows),
    )
