"""`lingualign judge`: the list, the measured error and its file, and rows that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Command
from lingualign.evaluate.correction import judge_errors

REFUSALS = {
    "en": "I'm sorry, but I can't help with that.",
    "de": "Das kann ich leider nicht für dich tun, tut mir leid.",
}
ANSWERS = {
    "en": "Boil the pasta in salted water for nine minutes.",
    "de": "Koche die Nudeln neun Minuten in Salzwasser.",
}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """In each language three refusals and two answers; one of each English class is labelled against its text."""
    rows: list[dict[str, Any]] = []
    for tag in ("de", "en"):
        rows += [{"text": REFUSALS[tag], "label": "refused", "language": tag, "human": True}] * 2
        rows += [{"reply": ANSWERS[tag], "refused": False, "language": tag, "finished": False}]
    rows += [
        {"text": ANSWERS["en"], "outcome": "refused", "language": "en"},
        # The label counts, not what another judge said.
        {"text": REFUSALS["en"], "label": "answered", "outcome": "refused", "language": "en"},
        {"text": "?!", "label": "answered", "language": "de"},
    ]
    return write_rows(tmp_path / "labels.jsonl", rows)


def test_the_error_of_the_offline_judge(command: Command, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "error.json"
    outcome = command("judge", "evaluate", labels, "--out", out, "--json")
    assert outcome.code == 0, outcome.stderr
    document = json.loads(outcome.stdout)
    assert document == json.loads(out.read_text())
    assert document["judge"] == "ngram-2"
    assert document["labels"]["rows"] == 9
    assert document["labels"]["human"] == 4
    english, german = document["languages"]["en"], document["languages"]["de"]
    assert english["all"] == {"sensitivity": 2 / 3, "specificity": 0.5, "refused": 3, "answered": 2}
    assert german["all"] == {"sensitivity": 1.0, "specificity": 1.0, "refused": 2, "answered": 2}
    assert (german["incoherent"], german["unparsed"], english["incoherent"]) == (1, 0, 0)
    low, high = english["intervals"]["sensitivity"]
    assert low < 2 / 3 < high
    # In the shape that corrections read.
    errors = judge_errors({tag: row["all"] for tag, row in document["languages"].items()})
    assert (errors["en"].refused, errors["en"].found, errors["en"].others, errors["en"].spared) == (3, 2, 2, 1)


def test_people_see_a_table(command: Command, labels: Path) -> None:
    outcome = command("judge", "evaluate", labels)
    assert outcome.code == 0, outcome.stderr
    (line,) = (line for line in outcome.stdout.splitlines() if line.split()[:1] == ["en"])
    assert line.split() == ["en", "3", "0.667", "[0.21,", "0.94]", "2", "0.500", "[0.09,", "0.91]", "0.0%", "0.0%"]


def test_a_class_without_rows_is_not_measured(command: Command, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "one.jsonl", [{"text": ANSWERS["en"], "label": "answered", "language": "en"}])
    assert "not measured" in command("judge", "evaluate", path).stdout
    document = json.loads(command("judge", "evaluate", path, "--json").stdout)
    assert document["languages"]["en"]["all"]["sensitivity"] is None


def test_replies_that_a_guard_cannot_judge_are_left_out(
    command: Command, tmp_path: Path, tiny_model_folder: Path
) -> None:
    row = {"text": ANSWERS["en"], "label": "answered", "language": "en", "prompt": "How do I cook pasta?"}
    path = write_rows(tmp_path / "guard.jsonl", [row])
    cache = tmp_path / "cache.jsonl"
    specification = f"qwen3guard:{tiny_model_folder}"
    outcome = command(
        "judge", "evaluate", path, "--judge", specification, "--cache", cache, "--device", "cpu", "--json"
    )
    english = json.loads(outcome.stdout)["languages"]["en"]
    assert (english["unparsed"], english["all"]["answered"]) == (1, 0)
    assert len(cache.read_text().splitlines()) == 1


GOOD = {"text": "Yes.", "label": "answered", "language": "en"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**GOOD, "text": None}, "no reply; give it as a string in `text`"),
        ({**GOOD, "label": "unsafe"}, "no label; give `label` as refused or answered"),
        ({**GOOD, "label": True}, "no label; give `label` as refused or answered"),
        ({**GOOD, "label": ["refused"]}, "no label; give `label` as refused or answered"),
        ({"text": "Yes.", "language": "en"}, "no label; give `label` as refused or answered"),
        ({**GOOD, "language": "tlh"}, "unknown language 'tlh'; give `language` as one of en, zh"),
        ({**GOOD, "language": ["en"]}, "unknown language ['en']"),
        ({**GOOD, "finished": "yes"}, "`finished` is 'yes'; give true or false"),
        ({**GOOD, "prompt": 3}, "no prompt"),
        ([1], "not a JSON object; write one object a line"),
    ],
)
def test_a_wrong_row_is_named(command: Command, tmp_path: Path, row: Any, message: str) -> None:
    path = write_rows(tmp_path / "labels.jsonl", [GOOD, row])
    out = tmp_path / "error.json"
    outcome = command("judge", "evaluate", path, "--out", out)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert line.startswith(f"error: {path}, line 2: ")
    assert message in line
    assert not out.exists()


def test_files_that_cannot_be_read(command: Command, tmp_path: Path) -> None:
    assert "no such file" in command("judge", "evaluate", tmp_path / "absent.jsonl").stderr
    assert "no rows" in command("judge", "evaluate", write_rows(tmp_path / "empty.jsonl", [])).stderr
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "\xe9"}\n')
    assert "not UTF-8 at byte 10" in command("judge", "evaluate", tmp_path / "latin.jsonl").stderr


def test_a_guard_needs_prompts(command: Command, labels: Path) -> None:
    outcome = command("judge", "evaluate", labels, "--judge", "qwen3guard")
    assert "line 1: no prompt, which this judge reads" in outcome.stderr


def test_an_unknown_judge(command: Command, labels: Path) -> None:
    outcome = command("judge", "evaluate", labels, "--judge", "oracle")
    assert outcome.code == 2
    assert outcome.error_lines[0].startswith("error: unknown judge 'oracle'; give one of ngram, e5, qwen3guard")


def test_the_list(command: Command) -> None:
    shown = command("judge", "list").stdout
    judges = json.loads(command("judge", "list", "--json").stdout)["judges"]
    assert {judge["specification"] for judge in judges} >= {"ngram", "qwen3guard", "llama-guard-4", "binary:MODEL"}
    for judge in judges:
        assert judge["specification"] in shown
        assert judge["licence"]
        assert judge["citation"]
        assert judge["languages"]
