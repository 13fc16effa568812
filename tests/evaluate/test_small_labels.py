"""Labels of the small model's replies: the file that ships, its figures, and how labels meet replies."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from lingualign.data.builtin import BUILTIN_LANGUAGES, builtin_prompts
from lingualign.errors import DataError
from lingualign.evaluate.judge import OfflineJudge
from lingualign.evaluate.schema import Reply

ROOT = Path(__file__).parents[2]
FIELDS = {"arm", "kind", "seed_id", "language", "text_sha256", "label"}


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / "label_small_model.py"))


@pytest.fixture(scope="module")
def shipped() -> list[dict[str, str]]:
    path = files("lingualign.evaluate.judges") / "small_labels.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _reply(text: str, language: str = "en", seed_id: str = "s1") -> Reply:
    return Reply(seed_id, language, "look-alike", text, 9, True, "answered", 0.0, language)


def test_every_prompt_of_the_select_split_is_labelled_in_both_arms_and_no_text_ships(
    script: dict[str, Any], shipped: list[dict[str, str]]
) -> None:
    asked = builtin_prompts().where(kinds=["harmful", "look-alike"], splits=["select"])
    expected = {(arm, *prompt.key) for arm in script["ARMS"] for prompt in asked}
    found = [(row["arm"], row["kind"], row["seed_id"], row["language"]) for row in shipped]
    assert len(found) == len(expected)
    assert set(found) == expected
    assert {row["language"] for row in shipped} == set(BUILTIN_LANGUAGES)
    for row in shipped:
        assert row.keys() == FIELDS
        assert len(row["text_sha256"]) == 12
        assert row["label"] in script["LABELS"]


def test_replies_that_read_alike_have_one_label(shipped: list[dict[str, str]]) -> None:
    labels = {(row["language"], row["text_sha256"], row["label"]) for row in shipped}
    assert len(labels) == len({label[:2] for label in labels})


def test_the_evidence_counts_the_shipped_labels(shipped: list[dict[str, str]]) -> None:
    figures = json.loads((ROOT / "evidence" / "small-labels.json").read_text(encoding="utf-8"))
    assert figures["languages"].keys() == set(BUILTIN_LANGUAGES)
    for language, sources in figures["languages"].items():
        read = sources["read"]
        labels = Counter(row["label"] for row in shipped if row["language"] == language)
        assert +Counter(read["labels"]) == labels
        assert read["refused"] == labels["refused"]
        assert read["answered"] == labels["answered"] + labels["incoherent"]
        assert read["n"] == read["refused"] + read["answered"] + labels["unclear"]


def test_merge_compares_the_judge_with_the_labels_and_leaves_unclear_ones_out(script: dict[str, Any]) -> None:
    refusal, answer = "I'm sorry, but I can't help with that.", "Start with a short walk and drink enough water."
    replies = {
        "unedited": [_reply(answer), _reply(refusal, seed_id="s2"), _reply(answer, "it"), _reply(answer, seed_id="s3")],
        "edited": [_reply(refusal), _reply("What?", seed_id="s2")],
    }
    numbers = {("en", answer): 1, ("en", refusal): 2, ("it", answer): 3, ("en", "What?"): 4}
    # The Italian row is labelled against what the judge says.
    rows, figures = script["merge"](
        replies, numbers, {1: "answered", 2: "refused", 3: "refused", 4: "unclear"}, OfflineJudge()
    )
    english, italian = (figures["languages"][tag]["read"] for tag in ("en", "it"))
    assert (english["sensitivity"], english["specificity"], english["refused"], english["answered"]) == (1, 1, 2, 2)
    assert (english["unclear"], english["n"]) == (0.2, 5)
    assert (italian["sensitivity"], italian["specificity"], italian["answered"]) == (0, None, 0)
    assert figures["pooled"]["unedited, look-alike"]["sensitivity"] == 0.5
    assert len(rows) == 6
    assert answer not in json.dumps(rows)


def test_merge_names_a_reply_without_label(script: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="reply 7 of the sheet has no label"):
        script["merge"]({"edited": [_reply("Yes.")]}, {("en", "Yes."): 7}, {}, OfflineJudge())
    with pytest.raises(DataError, match="not on the sheet"):
        script["merge"]({"edited": [_reply("Yes.")]}, {}, {7: "answered"}, OfflineJudge())


@pytest.mark.parametrize("lines", ["1\trefused\n1\tanswered\n", "1 refused\n", "1\tmaybe\n"])
def test_damaged_labels_are_named_by_line(script: dict[str, Any], tmp_path: Path, lines: str) -> None:
    path = tmp_path / "labels.tsv"
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(DataError, match=r"line \d of"):
        script["read_labels"](path)


def test_the_sheet_tells_text_and_language_only_and_each_pair_once(script: dict[str, Any], tmp_path: Path) -> None:
    store = script["ReplyStore"]
    store(tmp_path / "unedited.jsonl").append([_reply("Yes."), _reply("Yes.", "it"), _reply("No.", seed_id="s2")])
    store(tmp_path / "edited.jsonl").append([_reply("Yes."), _reply("No.", seed_id="s2")])
    script["write_sheet"](tmp_path, 0)
    rows = [json.loads(line) for line in (tmp_path / "sheet.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["number"] for row in rows] == [1, 2, 3]
    assert {(row["language"], row["text"]) for row in rows} == {("en", "Yes."), ("it", "Yes."), ("en", "No.")}
    assert all(row.keys() == {"number", "language", "text"} for row in rows)
