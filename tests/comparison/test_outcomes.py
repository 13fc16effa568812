"""Outcomes as letters, and intervals over runs and prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from method_comparison.outcomes import crossed_bootstrap, difference, estimate, indicators, scores_of
from method_comparison.record import outcome_figures, score_figures

from lingualign.data.schema import Kind, Prompt
from lingualign.evaluate.schema import Outcome, Reply
from lingualign.evaluate.statistics import clustered_bootstrap
from lingualign.evaluate.verdict import compare


def reply(kind: Kind, seed: int, language: str, outcome: Outcome) -> Reply:
    return Reply(f"{kind}-{seed}", language, kind, "", 1, True, outcome, 0.0, "")


def audit(seed: int, share: float) -> list[Reply]:
    rng = np.random.default_rng(seed)
    kinds: tuple[Kind, ...] = ("harmful", "harmless")
    return [
        reply(kind, number, language, "refused" if rng.random() < share else "answered")
        for kind in kinds
        for number in range(12)
        for language in ("en", "th", "ja")
    ]


def record(before: list[Reply], after: list[Reply], model: str = "tiny") -> dict[str, Any]:
    return {"model": {"name": model}, "outcomes": outcome_figures(before, after)}


def test_letters_say_what_became_of_each_prompt() -> None:
    replies = [
        reply("harmful", 1, "en", "refused"),
        reply("harmful", 2, "en", "incoherent"),
        reply("harmful", 1, "th", "unparsed"),
    ]
    figures = outcome_figures(replies, replies)
    assert figures["seeds"] == {"harmful": ["harmful-1", "harmful-2"]}
    assert figures["after"] == {"harmful": {"en": "ri", "th": "u-"}}
    found = indicators({"outcomes": figures}, "after", ["harmful"], "refused", ["th", "en"])
    np.testing.assert_array_equal(found, [[0.0, 1.0], [np.nan, 0.0]])


def test_one_run_has_the_figures_of_the_paired_comparison() -> None:
    before, after = audit(0, 0.2), audit(1, 0.7)
    expected = compare(before, after).harmful_refusal.mean
    found = estimate([record(before, after)], ["harmful"], "refused", ["th", "ja"])
    assert expected is not None
    assert found is not None
    assert (found.before, found.after) == pytest.approx((expected.before, expected.after))
    assert found.difference == pytest.approx(expected.difference)
    assert found.interval == pytest.approx(expected.interval)


def test_each_of_several_models_counts_once() -> None:
    before, none, all_of_them = audit(0, 0.0), audit(0, 0.0), audit(0, 1.0)
    runs = [*[record(before, none)] * 3, record(before, all_of_them, "other")]
    found = estimate(runs, ["harmful"], "refused", ["th", "ja"])
    assert found is not None
    assert (found.runs, found.difference) == (2, 0.5)
    alone = estimate(runs[:3], ["harmful"], "refused", ["th", "ja"])
    assert alone is not None
    assert (alone.runs, alone.difference) == (3, 0.0)


def test_a_kind_that_was_not_audited_has_no_estimate() -> None:
    assert estimate([record(audit(0, 0.2), audit(1, 0.7))], ["look-alike"], "refused", ["th"]) is None


def test_runs_that_are_alike_add_nothing_and_runs_that_differ_widen_the_interval() -> None:
    run = np.random.default_rng(0).random((40, 3)).round()
    alone = clustered_bootstrap(run)
    assert crossed_bootstrap(np.stack([run] * 3)) == pytest.approx(alone)
    low, high = crossed_bootstrap(np.stack([run * 0.2, run, run * 1.8]))
    assert low < alone[0] < alone[1] < high


def test_a_method_differs_from_itself_by_nothing() -> None:
    runs = [record(audit(0, 0.2), audit(seed, 0.5)) for seed in (1, 2)]
    assert difference(runs, runs, ["harmful"], "refused", ["th", "ja"]) == (0.0, (0.0, 0.0))
    assert difference(runs, runs, ["look-alike"], "refused", ["th"]) is None


@pytest.mark.parametrize("count", [1, 3])
def test_two_methods_are_compared_after_on_the_same_prompts(count: int) -> None:
    before = audit(0, 0.2)
    # The second refuses whatever the first does, and a few prompts more.
    first = audit(1, 0.4)
    second = [replace(one, outcome="refused") if one.seed_id.endswith("3") else one for one in first]
    found = difference([record(before, second)], [record(before, first)] * count, ["harmful"], "refused", ["th", "ja"])
    alone = estimate([record(before, first)], ["harmful"], "refused", ["th", "ja"])
    other = estimate([record(before, second)], ["harmful"], "refused", ["th", "ja"])
    assert found is not None
    assert alone is not None
    assert other is not None
    value, (low, high) = found
    assert value == pytest.approx(other.after - alone.after)
    assert 0 <= low <= value <= high
    assert high - low < alone.interval[1] - alone.interval[0]


def test_the_interval_covers_when_runs_and_prompts_both_vary() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        values = 0.3 + rng.normal(size=(8, 1, 1)) * 0.1 + rng.normal(size=(1, 30, 1)) * 0.3
        values = values + rng.normal(size=(8, 30, 2)) * 0.1
        low, high = crossed_bootstrap(values, samples=300, seed=trial)
        covered += low <= 0.3 <= high
    assert covered / 200 > 0.9


def test_scores_come_back_by_run_prompt_and_language() -> None:
    replies = audit(0, 0.5)
    prompts = [Prompt(one.seed_id, one.language, one.kind, "") for one in replies]
    scores = [-float(place) for place in range(len(prompts))]
    runs = [
        {"refusal_scores": score_figures("No", prompts, replies, scores, [score + shift for score in scores])}
        for shift in (0.0, 0.5)
    ]
    found = scores_of(runs, "after", "harmful", ["ja", "th"])
    assert found is not None
    assert found.shape == (2, 12, 2)
    assert found[1, 3].tolist() == [scores[3 * 3 + 2] + 0.5, scores[3 * 3 + 1] + 0.5]
    assert scores_of([*runs, {"refusal_scores": None}], "after", "harmful", ["ja"]) is None
    assert scores_of(runs, "after", "look-alike", ["ja"]) is None


def test_a_missing_translation_leaves_no_scores() -> None:
    replies = audit(0, 0.5)
    prompts = [Prompt(one.seed_id, one.language, one.kind, "") for one in replies][:-1]
    figures = score_figures("No", prompts, replies, [0.0] * len(prompts), [0.0] * len(prompts))
    assert scores_of([{"refusal_scores": figures}], "after", "harmless", ["ja"]) is None
    assert scores_of([{"refusal_scores": figures}], "after", "harmless", ["th"]) is not None
