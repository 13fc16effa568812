"""MoCAN and PeCAN: multipliers from scores, pseudo-preferences, and what the trainer is given."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lingualign.data.schema import Prompt
from lingualign.edit import Edit, LowRankDelta
from lingualign.errors import ConfigError, DataError
from lingualign.methods.constrained_alignment import (
    MoCAN,
    PeCAN,
    Preference,
    ResponsePair,
    pseudo_preferences,
)
from lingualign.solvers.constrained_dual import minimise_dual

SEEDS, SAMPLES = 12, 20
PROMPTS = [
    Prompt(str(seed), tag, "harmful", f"request {seed} in {tag}") for tag in ("en", "th") for seed in range(SEEDS)
]
RESPONSES = [[f"reply {number} to {prompt.seed_id}" for number in range(SAMPLES)] for prompt in PROMPTS]
EDIT = Edit(
    {"w.weight": LowRankDelta(torch.ones(2, 1), torch.ones(3, 1), (2, 3))}, {"w.weight": "0"}, {"method": "stand-in"}
)


@pytest.fixture
def scores() -> tuple[Tensor, Tensor]:
    """Reward and safety, opposed in English and unrelated in Thai."""
    generator = torch.Generator().manual_seed(0)
    safety = torch.randn(len(PROMPTS), SAMPLES, generator=generator)
    noise = torch.randn(len(PROMPTS), SAMPLES, generator=generator)
    reward = torch.cat([-safety[:SEEDS] + 0.3 * noise[:SEEDS], noise[SEEDS:]])
    return reward, safety


def test_one_multiplier_is_the_duals(scores: Any) -> None:
    reward, safety = scores
    found = MoCAN(margin=0.5, resamples=20).solve(PROMPTS, reward, safety)
    wanted = minimise_dual(reward, (safety - safety.double().mean() - 0.5)[None], 0.1)
    assert found.groups == ("all",)
    assert found.values[0] == pytest.approx(float(wanted.multipliers[0]), abs=1e-7)
    # The constraint binds, so the tilted policy is safer by just the margin.
    assert found.predicted_safety[0] - found.reference_safety[0] == pytest.approx(0.5, abs=1e-6)
    low, high = found.intervals[0]
    assert low is not None
    assert high is not None
    assert low <= found.values[0] <= high
    assert len(found.effective_sample_size) == len(PROMPTS)
    assert all(1.0 <= size <= SAMPLES for size in found.effective_sample_size)


def test_each_language_gets_its_own_multiplier(scores: Any) -> None:
    reward, safety = scores
    found = MoCAN(margin={"en": 0.5, "th": 0.2}, per_language=True, resamples=20).solve(PROMPTS, reward, safety)
    assert found.groups == ("en", "th")
    for index, margin in enumerate((0.5, 0.2)):
        rows = slice(index * SEEDS, (index + 1) * SEEDS)
        alone = MoCAN(margin=margin, resamples=1).solve(PROMPTS[rows], reward[rows], safety[rows])
        assert found.values[index] == pytest.approx(alone.values[0], abs=1e-6)
        assert found.predicted_safety[index] - found.reference_safety[index] == pytest.approx(margin, abs=1e-6)
    # Safety costs reward in English only.
    assert found.of("en") > found.of("th") > 0


def test_a_margin_that_is_met_anyway_costs_nothing(scores: Any) -> None:
    _, safety = scores
    found = MoCAN(margin=0.5, resamples=5).solve(PROMPTS, safety, safety)
    assert found.values == (0.0,)
    assert found.predicted_safety[0] > found.reference_safety[0] + 0.5


def test_out_of_reach_margins_name_the_language(scores: Any) -> None:
    reward, safety = scores
    safety = torch.cat([safety[:SEEDS], 0.01 * safety[SEEDS:]])
    with pytest.raises(ConfigError, match="margin for th by") as caught:
        MoCAN(margin=0.5, per_language=True).solve(PROMPTS, reward, safety)
    assert "\n" not in str(caught.value)
    assert "en" not in str(caught.value).split("for ")[1].split(";")[0]


def test_resamples_that_are_infeasible_leave_the_interval_open(scores: Any) -> None:
    reward, safety = scores
    best = float(safety.double().amax(1).mean() - safety.double().mean())
    found = MoCAN(margin=best - 0.02, resamples=50).solve(PROMPTS, reward, safety)
    assert 0 < found.infeasible_resamples < 50
    assert found.intervals[0][1] is None


def test_pecan_is_its_own_gradient_formula(scores: Any) -> None:
    helpful, safe = scores
    reference = -10.0 + torch.zeros_like(helpful)
    beta, margin = 0.5, 0.2
    found = PeCAN(margin=margin, beta=beta, resamples=5).solve(
        PROMPTS, reference, reference + helpful, reference + safe
    )
    policy = torch.softmax(helpful.double() + found.values[0] * safe.double(), 1)
    divergence = float(-safe.double().mean())
    gradient = float((policy * safe.double()).sum(1).mean()) + divergence - margin / beta
    assert found.values[0] > 0
    assert gradient == pytest.approx(0.0, abs=1e-7)


def test_preferences_follow_bradley_and_terry() -> None:
    pairs = [ResponsePair(PROMPTS[0], "first", "second")] * 4000
    for difference in (-1.5, 0.0, 2.0):
        rows = torch.tensor([[0.3, 0.3 + difference]]).expand(4000, 2)
        preferences = pseudo_preferences(pairs, rows, seed=1)
        rate = sum(preference.chosen == "second" for preference in preferences) / 4000
        expected = 1 / (1 + math.exp(-difference))
        assert rate == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 4000) ** 0.5)
        assert pseudo_preferences(pairs, rows, seed=1) == preferences
        assert all({p.chosen, p.rejected} == {"first", "second"} for p in preferences)


@pytest.mark.parametrize("scaled", [False, True])
def test_one_training_on_the_combined_scores(scores: Any, scaled: bool) -> None:
    # So far apart that the draw is certain: the trainer must see the better reply chosen every time.
    helpful, safe = (1e4 * values for values in scores)
    calls: list[Sequence[Preference]] = []

    def train(preferences: Sequence[Preference]) -> Edit:
        calls.append(preferences)
        return EDIT

    method = PeCAN(margin=0.0, per_language=True, pairs_per_prompt=3, resamples=5, scale_preferences=scaled)
    zero = torch.zeros_like(helpful)
    edit = method.fit(PROMPTS, RESPONSES, zero, helpful, safe, preference_trainer=train)
    assert len(calls) == 1
    assert len(calls[0]) == 3 * len(PROMPTS)
    solved = method.solve(PROMPTS, zero, helpful, safe)
    for preference in calls[0]:
        row = PROMPTS.index(preference.prompt)
        combined = helpful[row] + solved.of(preference.prompt.language) * safe[row]
        chosen, rejected = (RESPONSES[row].index(text) for text in (preference.chosen, preference.rejected))
        assert combined[chosen] > combined[rejected]
    assert edit.deltas is EDIT.deltas
    assert edit.manifest["method"] == "pecan"
    assert edit.manifest["trainer"] == {"method": "stand-in"}
    assert json.loads(json.dumps(edit.manifest, allow_nan=False))["multipliers"]["groups"] == ["en", "th"]


def test_scale_preferences_flattens_the_draw(scores: Any) -> None:
    zero = torch.zeros(len(PROMPTS), SAMPLES)
    helpful = 20.0 * torch.arange(SAMPLES).float().expand(len(PROMPTS), SAMPLES)

    def share_of_better(scaled: bool) -> float:
        seen: list[Preference] = []

        def train(preferences: Sequence[Preference]) -> Edit:
            seen.extend(preferences)
            return EDIT

        method = PeCAN(margin=0.0, beta=1e-4, pairs_per_prompt=20, resamples=1, scale_preferences=scaled)
        method.fit(PROMPTS, RESPONSES, zero, helpful, scores[1], preference_trainer=train)
        better = [
            RESPONSES[PROMPTS.index(p.prompt)].index(p.chosen) > RESPONSES[PROMPTS.index(p.prompt)].index(p.rejected)
            for p in seen
        ]
        return sum(better) / len(better)

    assert share_of_better(False) > 0.99
    assert 0.4 < share_of_better(True) < 0.6


def test_wrong_input_is_one_line(scores: Any) -> None:
    reward, safety = scores
    with pytest.raises(DataError, match="of one shape"):
        MoCAN(margin=0.1).solve(PROMPTS, reward, safety[:, :3])
    with pytest.raises(ConfigError, match="no margin for th"):
        MoCAN(margin={"en": 0.1}, per_language=True).solve(PROMPTS, reward, safety)
    with pytest.raises(ConfigError, match="trade safety away"):
        MoCAN(margin=-0.1)
    with pytest.raises(DataError, match="equally many"):
        MoCAN(margin=0.1, resamples=1).fit(
            PROMPTS, [*RESPONSES[:-1], ["one"]], reward, safety, preference_trainer=lambda _: EDIT
        )
    same = [["same"] * SAMPLES for _ in PROMPTS]
    with pytest.raises(DataError, match="temperature"):
        MoCAN(margin=0.1, resamples=1).fit(PROMPTS, same, reward, safety, preference_trainer=lambda _: EDIT)
