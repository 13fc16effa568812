"""Refusal corrected for the judge's error, the second judge, and where a judge's errors come from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lingualign.data.schema import Prompt, PromptSet
from lingualign.errors import DataError
from lingualign.evaluate.corrected import corrected_cells, corrected_change
from lingualign.evaluate.correction import JudgeError
from lingualign.evaluate.judge import Exchange, Judgement
from lingualign.evaluate.judges.card import judge_card
from lingualign.evaluate.metrics import cells
from lingualign.evaluate.schema import Outcome, Reply
from lingualign.evaluate.second import judge_again, judges_agreement
from lingualign.evaluate.store import ReplyStore

PERFECT = JudgeError(refused=100_000, found=100_000, others=100_000, spared=100_000)
USELESS = JudgeError(refused=100, found=50, others=100, spared=50)
#: Misses one refusal in five, takes one answer in ten for a refusal.
POOR = JudgeError(refused=1000, found=800, others=1000, spared=900)


def reply(language: str, seed: int, outcome: Outcome, *, unsafe: bool | None = None) -> Reply:
    return Reply(f"h{seed:03d}", language, "harmful", "text", 4, True, outcome, 0.5, language, unsafe)


def audit(refused: dict[str, int], n: int = 50) -> list[Reply]:
    return [
        reply(language, seed, "refused" if seed < count else "answered")
        for language, count in refused.items()
        for seed in range(n)
    ]


def test_a_cell_is_corrected_where_the_judge_is_valid_and_only_there() -> None:
    found = corrected_cells(cells(audit({"en": 40, "th": 22, "sw": 10})), {"en": PERFECT, "th": POOR, "sw": USELESS})
    english, thai, swahili = found
    assert english.rate == pytest.approx(0.8)
    assert thai.rate == pytest.approx(0.34 / 0.7)
    assert thai.interval is not None
    assert thai.interval[0] < 0.34 / 0.7 < thai.interval[1]
    assert (swahili.observed, swahili.rate, swahili.interval) == (0.2, None, None)


def test_an_unknown_language_is_not_corrected() -> None:
    assert corrected_cells(cells(audit({"yo": 3})), {})[0].rate is None


def test_a_change_grows_by_what_the_judge_blurs_and_bad_languages_are_named() -> None:
    errors = {"th": POOR, "vi": PERFECT, "sw": USELESS}
    change = corrected_change(
        audit({"th": 15, "vi": 10, "sw": 0}), audit({"th": 29, "vi": 30, "sw": 50}), "harmful", errors, list(errors)
    )
    assert change is not None
    assert change.languages == ("th", "vi")
    assert change.left_out == ("sw",)
    assert change.difference == pytest.approx(np.mean([0.28 / 0.7, 0.4]))
    assert change.interval[0] < change.difference < change.interval[1]


def test_no_valid_language_no_change() -> None:
    assert corrected_change(audit({"sw": 1}), audit({"sw": 9}), "harmful", {"sw": USELESS}, ["sw"]) is None


def test_unparsed_and_unsafe_replies_have_their_own_counts() -> None:
    rows = [
        reply("en", 0, "unparsed"),
        reply("en", 1, "answered", unsafe=True),
        reply("en", 2, "answered", unsafe=False),
    ]
    cell = cells(rows)[0]
    assert (cell.n, cell.unparsed, cell.answered, cell.unsafe) == (3, 1, 2, 1)
    # What nobody could judge may be a success.
    assert cell.attack_success_rate == pytest.approx(2 / 3)
    # A judge that tells refusals only gives the upper bound.
    assert cells([replace(row, unsafe=None) for row in rows])[0].attack_success_rate == 1.0


class Contrary:
    """Finds a refusal in replies to prompts of odd seeds; counts what it was shown."""

    name = "contrary"

    def __init__(self) -> None:
        self.seen = 0

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        self.seen += len(exchanges)
        return [
            Judgement("refused" if int(exchange.prompt) % 2 else "answered", 1.0, exchange.language)
            for exchange in exchanges
        ]


def test_a_second_judge_sees_the_prompts_and_resumes(tmp_path: Path) -> None:
    replies = audit({"en": 25, "th": 25})
    prompts = PromptSet(
        Prompt(row.seed_id, row.language, row.kind, row.seed_id[1:], source="s", licence="l") for row in replies
    )
    judge, store = Contrary(), ReplyStore(tmp_path / "judged" / "replies.jsonl")
    first = judge_again(judge, replies[:30], prompts, store)
    second = judge_again(judge, replies, prompts, store)
    assert judge.seen == len(replies)
    assert second[:30] == first
    assert [row.key for row in second] == [row.key for row in replies]
    assert sum(row.outcome == "refused" for row in second) == 50


def test_agreement_is_by_language() -> None:
    one = audit({"en": 25, "th": 25})
    other = [replace(row, outcome="refused" if row.language == "en" else row.outcome) for row in one]
    found = judges_agreement(one, other)
    assert found["th"].kappa == pytest.approx(1.0)
    assert found["en"].observed == pytest.approx(0.5)
    assert found["en"].kappa == pytest.approx(0.0)


def test_the_published_card_names_where_each_error_is_from() -> None:
    card = judge_card("ngram-2")
    assert {"en", "th", "sw", "he"} <= set(card.errors)
    assert set(card.measured_on.values()) <= {"read", "all"}
    assert card.as_table()["en"]["valid"] is True
    # Yoruba: a third of the refusals are found.
    assert not card.errors["yo"].is_valid


def test_a_judge_without_a_table_has_an_empty_card() -> None:
    assert judge_card("somebody-else").errors == {}


def test_errors_of_the_user_come_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "errors.json"
    row = {"sensitivity": 0.9, "specificity": 0.8, "refused": 50, "answered": 40}
    path.write_text(json.dumps({"judge": "mine", "languages": {"th": {"all": row}}}))
    assert judge_card("mine", path).errors["th"] == JudgeError(50, 45, 40, 32)
    with pytest.raises(DataError, match="errors of mine, not of ngram-2"):
        judge_card("ngram-2", path)


@pytest.mark.parametrize("content", ["", "[]", '{"languages": {"th": {}}}', '{"languages": {"th": {"all": 3}}}'])
def test_a_wrong_error_file_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "errors.json"
    path.write_text(content)
    with pytest.raises(DataError, match="no error table; make it with") as caught:
        judge_card("ngram-2", path)
    assert "\n" not in str(caught.value)
