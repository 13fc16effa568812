"""What stands beside the rates, from the command line: judges, their errors, tasks; a kill loses none of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import LANGUAGES, Command
from lingualign import audit_run
from lingualign.cli.show import measure_lines
from lingualign.evaluate import second
from lingualign.evaluate.engine import TransformersEngine
from lingualign.evaluate.judge import Exchange, Judgement, OfflineJudge
from lingualign.evaluate.utility import measure

REPLIES = 36


def _not_again(*_: object) -> None:
    raise AssertionError("this was done already")


class Stubborn:
    """A judge that finds everything refused, and may be killed at its work."""

    name = "stubborn-1"

    def __init__(self) -> None:
        self.judged = 0
        self.killed_after = REPLIES

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        if self.judged >= self.killed_after:
            raise KeyboardInterrupt
        self.judged += len(exchanges)
        return [Judgement("refused", 1.0, exchange.language) for exchange in exchanges]


@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch) -> Stubborn:
    """The second judge, whatever is asked for; it keeps its verdicts ten at a time."""
    judge = Stubborn()
    monkeypatch.setattr(audit_run, "second_judge", lambda *_, **__: judge)
    monkeypatch.setattr(second, "BATCH", 10)
    return judge


@pytest.fixture
def audit(command: Command, tiny_model_folder: Path, settings_file: Path, tmp_path: Path) -> Callable[..., Any]:
    """Audits the tiny model into one folder."""

    def call(*options: object) -> Any:
        return command("audit", tiny_model_folder, "--config", settings_file, "--out", tmp_path / "audit", *options)

    return call


def test_an_audit_killed_in_the_second_judge_goes_on_there(
    audit: Callable[..., Any], stubborn: Stubborn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn.killed_after = 20
    assert audit().code == 130
    assert not (tmp_path / "audit" / "result.json").exists()
    monkeypatch.setattr(TransformersEngine, "generate", _not_again)
    monkeypatch.setattr(OfflineJudge, "judge", _not_again)
    stubborn.judged, stubborn.killed_after = 0, REPLIES
    outcome = audit("--json")
    assert outcome.code == 0, outcome.stderr
    assert stubborn.judged == REPLIES - 20
    agreement = json.loads(outcome.stdout)["second_judge"]
    assert agreement["judge"] == "stubborn-1"
    assert all(cell["refused"] == cell["n"] for cell in agreement["cells_before"])


@pytest.mark.usefixtures("stubborn")
def test_an_audit_killed_in_utility_goes_on_there(audit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    score_texts = measure.score_texts
    scored: list[str] = []

    def killed_in(tag: str) -> Callable[..., Any]:
        def score(model: Any, tokenizer: Any, texts: Any, **options: Any) -> Any:
            if texts[0].language == tag:
                raise KeyboardInterrupt
            scored.append(texts[0].language)
            return score_texts(model, tokenizer, texts, **options)

        return score

    monkeypatch.setattr(measure, "score_texts", killed_in("ja"))
    assert audit().code == 130
    assert scored == ["en", "th"]
    monkeypatch.setattr(TransformersEngine, "generate", _not_again)
    monkeypatch.setattr(OfflineJudge, "judge", _not_again)
    monkeypatch.setattr(Stubborn, "judge", _not_again)
    monkeypatch.setattr(measure, "score_texts", killed_in("nowhere"))
    outcome = audit("--json")
    assert outcome.code == 0, outcome.stderr
    assert scored == list(LANGUAGES)
    assert [row["language"] for row in json.loads(outcome.stdout)["utility"]["perplexity"]] == list(LANGUAGES)


def test_no_second_judge(audit: Callable[..., Any], tmp_path: Path) -> None:
    outcome = audit("--second-judge", "none")
    assert outcome.code == 0, outcome.stderr
    assert "Second" not in outcome.stdout
    assert json.loads((tmp_path / "audit" / "result.json").read_text())["second_judge"] is None
    assert not (tmp_path / "audit" / "judged").exists()
    assert "Second judge" not in (tmp_path / "audit" / "report.html").read_text()


def test_another_first_judge(audit: Callable[..., Any]) -> None:
    document = json.loads(audit("--judge", "e5", "--second-judge", "ngram", "--json").stdout)
    assert document["judge"]["name"] == "e5-1"
    assert document["second_judge"]["judge"] == "ngram-2"


def _errors(path: Path, judge: str) -> Path:
    error = {"all": {"sensitivity": 0.9, "specificity": 0.8, "refused": 50, "answered": 50}}
    path.write_text(json.dumps({"judge": judge, "languages": {"th": error}}))
    return path


def test_errors_of_the_users_own_measurement(audit: Callable[..., Any], tmp_path: Path) -> None:
    file = _errors(tmp_path / "errors.json", "ngram-2")
    document = json.loads(audit("--judge-errors", file, "--second-judge", "none", "--json").stdout)
    assert document["judge"]["languages"].keys() == {"th"}
    corrected = {
        cell["language"]: cell["rate"] for cell in document["corrected"]["before"] if cell["kind"] == "harmful"
    }
    assert corrected["th"] is not None
    assert [tag for tag, rate in corrected.items() if rate is None] == ["en", "ja", "de"]


@pytest.mark.parametrize(("judge", "words"), [("e5-1", "not of ngram-2"), (None, "make it with")])
def test_errors_that_cannot_be_used_cost_no_audit(
    audit: Callable[..., Any], judge: str | None, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "errors.json"
    if judge:
        _errors(file, judge)
    outcome = audit("--judge-errors", file)
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert words in line
    assert not (tmp_path / "audit" / "before.jsonl").exists()


def test_an_unknown_task_is_one_line(audit: Callable[..., Any]) -> None:
    outcome = audit("--second-judge", "none", "--task", "lingualign_xcopa_xx", "--quiet")
    assert outcome.code == 2
    (line,) = outcome.error_lines
    assert line.startswith("error: there is no task lingualign_xcopa_xx; did you mean lingualign_xcopa_")


def test_lines_are_left_out_where_nothing_was_measured() -> None:
    cells = [{"language": "en", "kind": "harmful", "n": 4, "unparsed": 0}]
    nothing = {"verdict": None, "comparison": None, "cells": cells, "corrected": None, "second_judge": None}
    assert measure_lines(nothing) == []
    unread = {**nothing, "cells": [{**cells[0], "unparsed": 3}]}
    assert measure_lines(unread) == ["Unparsed  3 of 4 replies"]
    # The verdict above says it.
    assert measure_lines({**unread, "verdict": "Refusal ..."}) == []


def test_an_audit_whose_judge_could_not_be_read_says_so(
    audit: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OfflineJudge, "judge", lambda _, exchanges: [Judgement("unparsed", 0.5, "")] * len(exchanges))
    outcome = audit("--second-judge", "none", "--quiet")
    assert outcome.code == 0, outcome.stderr
    assert f"Unparsed  {REPLIES} of {REPLIES} replies" in outcome.stdout.splitlines()
    page = (tmp_path / "audit" / "report.html").read_text()
    assert f"{REPLIES} of {REPLIES} verdicts unparsed" in page
    assert "Unparsed verdicts" in page
