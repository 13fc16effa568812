"""The arms of a finished run folder: the model before and after the edit, and the controls, with their replies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lingualign.evaluate.schema import Reply
from lingualign.evaluate.store import ReplyStore
from lingualign.results import read_result


@dataclass(frozen=True, slots=True)
class RunArms:
    """A finished run.

    Attributes:
        figures: the content of `result.json`.
        replies: judged replies by the name of the arm: `before`, `after` unless the run was an audit, the controls'.
    """

    figures: Mapping[str, Any]
    replies: Mapping[str, tuple[Reply, ...]]


def read_arms(folder: Path) -> RunArms:
    """The arms of a run folder.

    Raises:
        UserError: the folder holds no finished run.
    """
    figures = read_result(folder)
    files = {"before": "before.jsonl"}
    if figures["comparison"]:
        files["after"] = "after.jsonl"
    files |= {control["name"]: f"controls/{control['name']}.jsonl" for control in figures["controls"]}
    return RunArms(figures, {arm: tuple(ReplyStore(folder / file).load()) for arm, file in files.items()})


def storable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, replaced by U+FFFD."""
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
