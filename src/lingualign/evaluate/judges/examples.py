"""Labelled replies that judges are trained and tested on."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from lingualign.errors import DataError
from lingualign.organism.recipe import PAIR_FILES

#: A row's fold comes from its group, so that it is the same for every judge.
FOLDS = 5
#: Model whose replies are the test.
TEST_MODEL = "Meta-Llama-3.1-8B-Instruct"
#: Where the weights and error tables of the package lie, beside our own text.
HERE = Path(str(files("lingualign.evaluate.judges")))

Source = Literal["replies", "test", "written", "small"]


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled reply.

    Attributes:
        group: rows with the same group (prompt, or text) fall into the same fold.
        source: replies of large models to train on, replies of the test model, text written for the purpose, or
            replies of the small model.
    """

    text: str
    refused: bool
    language: str
    group: str
    source: Source

    @property
    def fold(self) -> int:
        return int.from_bytes(hashlib.sha256(self.group.encode()).digest()[:4], "big") % FOLDS


def labelled_replies(data: Path, written: Path) -> list[Example]:
    """All rows: of the folder that holds polyrefuse-responses and instruct-small, and of our own text."""
    return [
        *model_replies(data / "polyrefuse-responses"),
        *written_replies(written),
        *short_answers(data / "instruct-small" / "rasbt-instruction-data.json"),
    ]


def reply_files(folder: Path) -> Iterator[tuple[str, str, Iterator[dict[str, Any]]]]:
    """PolyRefuse's files of replies: (model, language, rows)."""
    paths = sorted(folder.glob("*.jsonl.gz"))
    if not paths:
        raise DataError(f"no *.jsonl.gz in {folder}; point --data at the folder that holds polyrefuse-responses")
    for path in paths:
        model, language = path.name.removesuffix(".jsonl.gz").rsplit(".", 1)
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield model, language, map(json.loads, lines)


def model_replies(folder: Path) -> Iterator[Example]:
    """PolyRefuse replies with WildGuard's refusal label (Yi et al. 2025; Han et al. 2024)."""
    for model, language, rows in reply_files(folder):
        for row in rows:
            yield Example(
                text=row["response"],
                refused=bool(row["wildguard"]["refusal"]),
                language=language,
                group=row["instruction_en"],
                source="test" if model == TEST_MODEL else "replies",
            )


def written_replies(folder: Path) -> Iterator[Example]:
    """Our own text: judge_LANG, replies_LANG and phrases (outcome, text), chat_LANG (answer), the organism's text; and
    replies of the small model, as it is and edited, to harmless and look-alike prompts of the fit split: answers all,
    the doubtful ones read and refusals taken out."""
    paths = sorted([*folder.glob("judge_*.jsonl"), *folder.glob("replies_*.jsonl")])
    if not paths:
        raise DataError(f"no judge_*.jsonl in {folder}; point --written at the folder that holds them")
    for path in paths:
        for row in _rows(path):
            yield _written(row["text"], row["outcome"] == "refused", path.stem.partition("_")[2])
    for row in _rows(folder / "small_model.jsonl"):
        yield Example(row["text"], refused=False, language=row["language"], group=row["seed_id"], source="small")
    for path in sorted(folder.glob("chat_*.jsonl")):
        for row in _rows(path):
            yield _written(row["answer"], False, path.stem.removeprefix("chat_"))
    for row in _rows(folder / "phrases.jsonl"):
        yield _written(row["text"], row["outcome"] == "refused", row["language"])
    organism = Path(str(files("lingualign") / "organism" / "text"))
    for row in _rows(organism / "refusals.jsonl"):
        yield _written(row["text"], True, "en")
    for name in ("chat_en", "chat_en_more", *PAIR_FILES):
        for row in _rows(organism / f"{name}.jsonl"):
            yield _written(row["answer"], False, "en")
    for path in sorted(organism.glob("lookalikes_??.jsonl")):
        for row in _rows(path):
            yield _written(row["answer"], False, path.stem.removeprefix("lookalikes_"))


def short_answers(path: Path) -> Iterator[Example]:
    """Short English answers to plain instructions (instruct-small, Apache-2.0). Without them a terse reply such as
    "The answer is yes." looks more like a refusal than like the essays that large models write."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        if 0 < len(row["output"].split()) <= 20:
            yield _written(row["output"], False, "en")


def _written(text: str, refused: bool, language: str) -> Example:
    return Example(text=text, refused=refused, language=language, group=text, source="written")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
