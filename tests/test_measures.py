"""The figures beside rates and differences: which sides they have, and what is left out where nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from lingualign.data.schema import Kind, Prompt, PromptSet
from lingualign.errors import DataError
from lingualign.evaluate.correction import JudgeError
from lingualign.evaluate.schema import Outcome, Reply
from lingualign.evaluate.utility.accuracy import TaskResult
from lingualign.evaluate.utility.measure import Utility
from lingualign.evaluate.utility.perplexity import TextScore
from lingualign.measures import (
    SecondOpinion,
    agreement_figures,
    behaviour,
    corrected_figures,
    prompt_controls,
    utility_figures,
)

OUTCOMES: dict[str, Outcome] = {"r": "refused", "a": "answered", "x": "incoherent", "u": "unparsed"}
GOOD, USELESS = JudgeError(100, 90, 100, 90), JudgeError(100, 55, 100, 55)


def audit(outcomes: Mapping[str, str], kind: Kind = "harmful") -> list[Reply]:
    """Replies by language from strings such as `rrax`, one letter a prompt."""
    return [
        Reply(f"s{index}", tag, kind, "text", 4, True, OUTCOMES[letter], 0.5, tag)
        for tag, letters in outcomes.items()
        for index, letter in enumerate(letters)
    ]


def test_corrected_figures_of_an_audit_have_no_changes() -> None:
    found = corrected_figures(audit({"en": "rrra", "th": "raaa"}), None, {"en": GOOD}, "en")
    assert (found.after, found.mean, found.changes, found.means) == (None, None, (), {})
    english, thai = found.before
    assert english.rate == pytest.approx((0.75 - 0.1) / 0.8)
    assert (thai.observed, thai.rate, thai.interval) == (0.25, None, None)


def test_corrected_means_leave_out_the_reference_and_languages_without_a_valid_judge() -> None:
    before, after = audit({"en": "rrrr", "th": "aaaa", "sw": "aaaa"}), audit({"en": "rrrr", "th": "rraa", "sw": "rrra"})
    errors = {"en": GOOD, "th": GOOD, "sw": USELESS}
    found = corrected_figures(before, after, errors, "en")
    assert [change.languages for change in found.changes] == [("en",), ("th",)]
    (kind,) = found.means
    mean = found.means[kind]
    assert kind == "harmful"
    assert mean is not None
    assert (mean.languages, mean.left_out) == (("th",), ("sw",))
    assert mean.difference == pytest.approx(0.5 / 0.8)


def test_the_corrected_mean_of_an_audit_leaves_out_the_same_languages() -> None:
    replies = audit({"en": "rrrr", "th": "raaa", "de": "rraa", "sw": "aaaa"})
    mean = corrected_figures(replies, None, {"en": GOOD, "th": GOOD, "de": GOOD, "sw": USELESS}, "en").mean
    assert mean is not None
    assert (mean.languages, mean.left_out) == (("th", "de"), ("sw",))
    assert mean.rate == pytest.approx(((0.25 - 0.1) / 0.8 + (0.5 - 0.1) / 0.8) / 2)
    assert mean.interval[0] < mean.rate < mean.interval[1]
    # One language below zero is not cut, so that the mean stays in the middle of its interval.
    low = corrected_figures(audit({"th": "aaaa", "de": "raaa"}), None, {"th": GOOD, "de": GOOD}, "en").mean
    assert low is not None
    assert low.rate == pytest.approx((-0.1 / 0.8 + 0.15 / 0.8) / 2)


def test_corrected_means_without_any_valid_judge_are_none() -> None:
    found = corrected_figures(audit({"en": "ra", "th": "ra"}), audit({"en": "ra", "th": "rr"}), {"en": GOOD}, "en")
    assert found.means == {"harmful": None}


def test_agreement_is_of_the_sides_that_both_judges_have() -> None:
    replies = audit({"en": "rraa", "th": "raaa"})
    turned = tuple(audit({"en": "rraa", "th": "rraa"}))
    compared = agreement_figures(replies, replies, SecondOpinion("other-1", turned, turned))
    assert compared.after is not None
    assert (compared.before["en"].observed, compared.after["th"].observed) == (1.0, 0.75)
    assert [cell.refused for cell in compared.cells_after or ()] == [2, 2]
    alone = agreement_figures(replies, None, SecondOpinion("other-1", turned, None))
    assert (alone.after, alone.cells_after) == (None, None)


def test_behaviour_of_an_audit_that_could_not_be_judged() -> None:
    found = behaviour(audit({"en": "uu", "th": "uu"}), "en")
    assert found.consistency is None
    assert [(row.following.count, row.following.n) for row in found.following] == [(0, 2), (0, 2)]
    assert found.fidelity == ()
    some = behaviour(audit({"en": "ru", "th": "aa"}), "en")
    assert some.consistency is not None
    assert some.consistency.answered_elsewhere["th"].count == 1


def test_prompt_controls_count_the_tokens_of_the_prompt_itself(tiny_model: tuple[Any, Any]) -> None:
    _, tokenizer = tiny_model
    texts = {"en": "tell me the steps", "th": "วิธีทำขนมปังที่บ้าน"}
    prompts = PromptSet(Prompt(f"s{index}", tag, "harmful", text) for tag, text in texts.items() for index in range(3))
    found = prompt_controls(audit({"en": "rra", "th": "raa"}), prompts, tokenizer, "en")
    (length,), (translation,) = found.length, found.translation
    lengths = {tag: len(tokenizer(text, add_special_tokens=False)["input_ids"]) for tag, text in texts.items()}
    assert (length.mean_length, length.reference_length) == (lengths["th"], lengths["en"])
    assert length.gap == translation.gap == pytest.approx(-1 / 3)


class Words:
    """A tokenizer whose tokens are words."""

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[str]]]:
        return {"input_ids": [text.split() for text in texts]}


def measured(nll: float = 20.0, right: str = "1101") -> Utility:
    task = TaskResult("made-up", "acc", "1", 0, "0.4", "same", {str(n): int(digit) for n, digit in enumerate(right)})
    return Utility({"made-up": task}, {"en": (TextScore("s0", "en", 10, 40, nll),)}, {})


def test_utility_of_the_unedited_model() -> None:
    replies = audit({"en": "rr"}) + audit({"en": "aaa"}, "harmless")
    found = utility_figures(measured(), None, replies, None, Words())
    (task,) = found.tasks
    assert (task.name, task.n, task.value) == ("made-up", 4, 0.75)
    assert task.interval[0] < 0.75 < task.interval[1]
    assert [(row.language, row.n) for row in found.generation] == [("en", 3)]
    assert found.perplexity[0].per_token == pytest.approx(7.389, rel=1e-3)
    assert found.comparison is None


def test_utility_of_an_edit_is_paired() -> None:
    replies = audit({"en": "aaa"}, "harmless")
    found = utility_figures(measured(), measured(21.0, "1001"), replies, replies, Words())
    assert found.comparison is not None
    assert found.comparison.tasks[0].difference == -0.25
    assert found.comparison.perplexity[0].ratio.value == pytest.approx(1.105, rel=1e-3)
    other = [replace(reply, seed_id="x") for reply in replies]
    with pytest.raises(DataError, match="different prompts"):
        utility_figures(measured(), measured(), replies, other, Words())
