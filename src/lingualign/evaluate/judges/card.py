"""What is known of a judge's errors: published with it, or measured by the user on labelled replies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from lingualign.errors import DataError
from lingualign.evaluate.correction import JudgeError, judge_errors

#: Which labelled replies an error is taken from, the best that has enough of both classes first: replies of models read
#: for the purpose, of the test model and of the small one pooled; else all that were labelled, those written to be hard
#: among them.
SOURCES = {"read": ("read", "small read"), "all": ("all",)}


@dataclass(frozen=True, slots=True)
class JudgeCard:
    """A judge's errors.

    Attributes:
        name: the judge's.
        errors: by language; a language that was never measured is missing.
        measured_on: which replies each language's error is from.
    """

    name: str
    errors: Mapping[str, JudgeError]
    measured_on: Mapping[str, str]

    def as_table(self) -> dict[str, dict[str, Any]]:
        """One row a language: sensitivity, specificity, labelled replies of either class, source, validity."""
        return {
            language: {
                "sensitivity": round(error.sensitivity, 4),
                "specificity": round(error.specificity, 4),
                "refused": error.refused,
                "answered": error.others,
                "measured on": self.measured_on[language],
                "valid": error.is_valid,
            }
            for language, error in self.errors.items()
        }


def judge_card(name: str, file: Path | None = None) -> JudgeCard:
    """The card of a judge.

    Args:
        name: of the judge, such as `ngram-2`.
        file: what `lingualign judge evaluate` wrote; the table in the package when None. A judge without one has an
            empty card: its rates are shown as they are.

    Raises:
        DataError: the file cannot be read, or is about another judge.
    """
    if file is not None:
        measured = _read(file)
        if measured.get("judge", name) != name:
            raise DataError(f"{file} holds the errors of {measured['judge']}, not of {name}; measure them for {name}")
    else:
        table = files("lingualign.evaluate.judges").joinpath(f"{name.partition('-')[0]}_error.json")
        measured = json.loads(table.read_text(encoding="utf-8")) if table.is_file() else {"languages": {}}
    errors: dict[str, JudgeError] = {}
    measured_on: dict[str, str] = {}
    for source, parts in SOURCES.items():
        pooled: dict[str, JudgeError] = {}
        for part in parts:
            of_part = {tag: row[part] for tag, row in measured["languages"].items() if part in row}
            for language, error in judge_errors(of_part).items():
                pooled[language] = pooled[language] + error if language in pooled else error
        for language, error in pooled.items():
            if language not in errors or not errors[language].is_valid:
                errors[language], measured_on[language] = error, source
    return JudgeCard(name, errors, measured_on)


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        judge_errors({tag: row["all"] for tag, row in content["languages"].items()})
    except OSError as error:
        raise DataError(f"cannot read {file} ({error.strerror}); make it with `lingualign judge evaluate`") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{file} is no error table; make it with `lingualign judge evaluate --out`") from None
    return content
